"""The one who reads: in a thread and with a connection of its own, so that it waits for nobody who writes.

A page is one row: its messages are joined by SQLite, since each row more is a step more, and each step has to get
the interpreter's lock back from the event loop.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from typing import Any, Final

from msgspec import Struct

from hubbub.core import record
from hubbub.core.log import Page, Retention
from hubbub.engines.sqlite.record import Damaged, check_of, open_records
from hubbub.engines.sqlite.rows import joined_row
from hubbub.errors import Unavailable
from hubbub.types import Position, Publication

__all__ = ["Read", "Reader"]

log = logging.getLogger("hubbub.engines.sqlite")

# One row: how far the store had come, the channel where there is one, where it ends, and what was asked for. One
# statement is one moment.
_PAGE: Final = """
SELECT commits, id, name, epoch, seq, cursor, sealed, head,
  (SELECT group_concat(record, x'1e') FROM
    (SELECT record FROM messages WHERE channel = c.id AND {which} LIMIT :limit))
FROM (SELECT about.commits, c.id, c.name, c.epoch, c.seq, c.cursor, c.sealed,
        max(c.seq, coalesce((SELECT max(seq) FROM messages WHERE channel = c.id), 0)) AS head
      FROM about LEFT JOIN channels AS c ON c.name = :name) AS c
"""
_AFTER: Final = _PAGE.format(which="seq > max(:seq, c.head - :size) AND time > :oldest ORDER BY seq")
# The newest of them, and their order is put right afterwards.
_BEFORE: Final = _PAGE.format(which="seq < :seq AND seq > c.head - :size AND time > :oldest ORDER BY seq DESC")

# Beyond every seq: SQLite's largest integer.
_END: Final = 2**63 - 1


class Read(Struct):
    """Something to be read; the outcome is what `question` returns, or why it could not be read."""

    question: Callable[[Reader], tuple[int, Any]]
    done: Callable[[Any], object]
    outcome: Any = None
    # How far the store had come when it was read: what was told before that may be in it.
    commits: int = 0


class Reader:
    """Answers what is asked of a store."""

    def __init__(
        self, database: sqlite3.Connection, retention: Callable[[str], Retention], clock: Callable[[], float]
    ) -> None:
        self._database = database
        self._retention = retention
        self._clock = clock

        # Whether something was read that is not as it was written.
        self.damaged = False

    def perform(self, reads: list[Read]) -> None:
        """Answer `reads`, each on its own."""
        for read in reads:
            try:
                read.commits, read.outcome = read.question(self)
            except sqlite3.OperationalError as error:
                # Of the moment: the disk does not answer, another process holds the file.
                log.warning("the store could not be read: %s", error)
                read.outcome = Unavailable("the store cannot be read now")
            except (Damaged, sqlite3.DatabaseError) as error:
                if not self.damaged:
                    log.error("the store cannot be read: %s", error)
                self.damaged = True
                read.outcome = Unavailable("the store cannot be read here", retry_after=60)
            except Exception as error:
                read.outcome = error

    def check(self) -> tuple[int, None]:
        """Read something."""
        (commits,) = self._database.execute("SELECT commits FROM about").fetchone()
        return commits, None

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def position(self, channel: str) -> tuple[int, Position | None]:
        """Where the channel ends; None where there is none."""
        commits, position, _ = self._read(_AFTER, channel, _END, 1)
        return commits, position

    def after(self, channel: str, seq: int, limit: int) -> tuple[int, Page | None]:
        """See `Engine.after`; None for a channel that is not there."""
        commits, position, found = self._read(_AFTER, channel, seq, limit)
        if position is None:
            return commits, None
        first, last = (found[0].seq, found[-1].seq) if found else (None, None)
        complete = seq == position.seq if first is None else first == seq + 1
        return commits, Page(found, position, complete=complete, more=last is not None and last < position.seq)

    def before(self, channel: str, seq: int | None, limit: int) -> tuple[int, Page | None]:
        """See `Engine.before`; None for a channel that is not there."""
        commits, position, found = self._read(_BEFORE, channel, _END if seq is None else seq, limit)
        if position is None:
            return commits, None
        older: list[Publication] = []
        if found:
            _, _, older = self._read(_BEFORE, channel, found[0].seq or 0, 1)
        return commits, Page(found, position, complete=True, more=bool(older))

    def _read(
        self, statement: str, channel: str, seq: int, limit: int
    ) -> tuple[int, Position | None, list[Publication]]:
        """How far the store had come, where the channel ends, and at most `limit` messages, oldest first."""
        retention = self._retention(channel)
        # Also where it is kept for ever.
        oldest = int(max(0.0, self._clock() - retention.age) * 1000)
        # A seq may be any number that a client can write.
        values = {"name": channel, "seq": min(seq, _END), "size": retention.size, "oldest": oldest}
        row, _ = joined_row(self._database, statement, values, limit)
        commits, id, *_, head, joined = row
        if id is None:
            return commits, None, []
        if check_of(*row[1:6]) != row[6]:
            raise Damaged(f"channel {id} is not as it was written")
        position = Position(row[3].decode(), head)
        if not joined:
            return commits, position, []
        opened = open_records(id, joined, newest_first=statement is _BEFORE)
        return commits, position, record.decode_all([one.body for one in opened])
