"""The tables of the store, how an older file becomes a newer one, and whether a file says what was written to it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Final

from hubbub.engines.sqlite.record import SEPARATOR, Damaged, check_of, open_record
from hubbub.engines.sqlite.rows import joined_row
from hubbub.errors import ConfigError

__all__ = ["APPLICATION", "STEPS", "migrate", "verify"]

# Messages that are read together when everything is looked through.
_TOGETHER: Final = 500
_SOME: Final = (
    "SELECT group_concat(record, x'1e'), sum(time) FROM (SELECT time, record FROM messages "
    "WHERE (channel, seq) > (:channel, :seq) ORDER BY channel, seq LIMIT :limit)"
)

APPLICATION: Final = 0x48756262
"""What the file's header says it is: "Hubb"."""


def _first(database: sqlite3.Connection) -> None:
    # `sealed`: the checksum of the row's other fields. `about` is one row: the epoch of new channels, and how many
    # transactions there were, which the mark beside the file knows, too.
    database.execute(
        "CREATE TABLE about (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), epoch TEXT NOT NULL, "
        "generation INTEGER NOT NULL, commits INTEGER NOT NULL, sealed INTEGER NOT NULL)"
    )
    # `seq` is the channel's end where no message tells it; `cursor` is an inbox's, null before the first.
    database.execute(
        "CREATE TABLE channels (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, epoch TEXT NOT NULL, "
        "seq INTEGER NOT NULL, cursor INTEGER, sealed INTEGER NOT NULL)"
    )
    # In the order in which they come, whatever their channel: a hundred messages for a hundred channels fill a few
    # pages, where a table in the order of channels would touch a hundred. That is three quarters of a write's cost.
    database.execute(
        "CREATE TABLE messages (n INTEGER PRIMARY KEY, channel INTEGER NOT NULL, seq INTEGER NOT NULL, "
        "time INTEGER NOT NULL, record BLOB NOT NULL)"
    )
    database.execute("CREATE UNIQUE INDEX places ON messages (channel, seq)")


STEPS: tuple[Callable[[sqlite3.Connection], None], ...] = (_first,)
"""What makes a file of version n one of version n + 1; a new file begins at 0."""


def migrate(database: sqlite3.Connection, path: str) -> None:
    """Bring the file to the version of this program, all or nothing; raises `ConfigError` where it is a newer one."""
    (version,) = database.execute("PRAGMA user_version").fetchone()
    (application,) = database.execute("PRAGMA application_id").fetchone()
    (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables and application != APPLICATION:
        raise ConfigError(f"{path} is a database, but not one of Hubbub's: name another folder with --data")
    if version > len(STEPS):
        raise ConfigError(f"{path} was written by a newer Hubbub: run that one, or name another folder with --data")
    if version == len(STEPS):
        return
    database.execute("BEGIN IMMEDIATE")
    try:
        for step in STEPS[version:]:
            step(database)
        database.execute(f"PRAGMA application_id = {APPLICATION}")
        database.execute(f"PRAGMA user_version = {len(STEPS)}")
        database.execute("COMMIT")
    except BaseException:
        database.execute("ROLLBACK")
        raise


def verify(database: sqlite3.Connection) -> None:
    """Read everything once; raises `Damaged` where a row is missing or is not as it was written."""
    for (problem,) in database.execute("PRAGMA quick_check(1)"):
        if problem != b"ok":
            raise Damaged(" ".join(problem.decode(errors="replace").replace("*** in database main ***", "").split()))
    rows = database.execute("SELECT only_row, epoch, generation, commits, sealed FROM about").fetchall()
    # A new file has no row yet.
    if any(check_of(*row[1:4]) != row[4] for row in rows):
        raise Damaged("what it says about itself is not as it was written")
    ends: dict[int, int] = {}
    for id, name, epoch, seq, cursor, sealed in database.execute(
        "SELECT id, name, epoch, seq, cursor, sealed FROM channels"
    ):
        if check_of(id, name, epoch, seq, cursor) != sealed:
            raise Damaged(f"channel {id} is not as it was written")
        ends[id] = seq
    _verify_messages(database, ends)


def _verify_messages(database: sqlite3.Connection, ends: dict[int, int]) -> None:
    """Read all messages; `ends` has each channel, and the seq that it reaches at least where it has messages."""
    channel, last, time, together = 0, 0, 0, _TOGETHER
    while True:
        # The sum tells whether the times beside the records are theirs.
        (joined, times), together = joined_row(database, _SOME, {"channel": channel, "seq": last}, together)
        if not joined:
            break
        for record in joined.split(SEPARATOR):
            opened = open_record(record)
            times -= opened.time
            if opened.channel != channel:
                if last < ends.get(channel, 0) or opened.channel not in ends or opened.channel < channel:
                    raise Damaged(f"messages of channel {channel} are missing after {last}")
                channel, last, time = opened.channel, opened.seq - 1, 0
            if opened.seq != last + 1 or opened.time < time:
                raise Damaged(f"message {last + 1} of channel {channel} is not in its place")
            last, time = opened.seq, opened.time
        if times:
            raise Damaged("messages are not of the time that they were written")
    if last < ends.get(channel, 0):
        raise Damaged(f"messages of channel {channel} are missing after {last}")
