"""Deletes what is no longer kept, a little at a time: publishers wait meanwhile.

A message stays in the file until neither retention nor the memory of its id needs it.
"""

from __future__ import annotations

import sqlite3
from typing import Final, Protocol

from hubbub.engines.sqlite.heads import Head, Heads
from hubbub.engines.sqlite.listening import Listening
from hubbub.engines.sqlite.record import SEPARATOR

__all__ = ["Change", "Sweep"]

# Channels that one step looks at, those of them that it works on, and messages that it deletes.
_SWEEP: Final = 1000
_WORK: Final = 20
_DELETE: Final = 2000

# One row about many channels: what is in the file of each.
_CHANNELS: Final = (
    "SELECT group_concat(id || ' ' || first || ' ' || last || ' ' || oldest || ' ' || name, x'1e') FROM "
    "(SELECT id, name, "
    "coalesce((SELECT min(seq) FROM messages WHERE channel = id), 0) AS first, "
    "coalesce((SELECT max(seq) FROM messages WHERE channel = id), 0) AS last, "
    "coalesce((SELECT time FROM messages WHERE channel = id ORDER BY seq LIMIT 1), 0) AS oldest "
    "FROM channels WHERE id > ? ORDER BY id LIMIT ?)"
)


class Change(Protocol):
    """The transaction that is under way."""

    def flush(self) -> None:
        """Have in the database what has been appended so far."""

    def touch(self, head: Head, *, row: bool) -> None:
        """`head` is not what is in the file any more; `row`: its own row neither."""

    def forget(self, head: Head) -> None:
        """Take out a channel of which nothing is left."""


class Sweep:
    """Goes round all channels of a store, and looks first at those that were written to."""

    def __init__(
        self, database: sqlite3.Connection, heads: Heads, listening: Listening, change: Change, history_bytes: int
    ) -> None:
        self._database = database
        self._heads = heads
        self._listening = listening
        self._change = change
        self._history_bytes = history_bytes

        # Where it goes on: the id of a channel.
        self._swept = 0

        # Channels that have more than they keep, since they were last looked at.
        self._untrimmed: dict[str, None] = {}

    def note(self, name: str) -> None:
        """The channel has more messages than it keeps."""
        self._untrimmed[name] = None

    def step(self, now: int) -> bool:
        """Delete some of what is no longer kept; whether there is more to do at once."""
        budget = _DELETE
        while self._untrimmed and budget > 0:
            name = next(iter(self._untrimmed))
            head = self._heads.get(name, now)
            budget -= 1 if head is None else 1 + self._trim(head, now, budget)
            if budget > 0:
                del self._untrimmed[name]
        return self._sweep_some(now) if not self._untrimmed else True

    def _sweep_some(self, now: int) -> bool:
        """Look at the next channels in the file, written to lately or not; whether some of them must wait."""
        (joined,) = self._database.execute(_CHANNELS, (self._swept, _SWEEP)).fetchone()
        rows = joined.split(SEPARATOR) if joined else []
        full = self._used() > self._history_bytes
        worked = 0
        for row in rows:
            id, first, last, oldest, name = row.split(b" ", 4)
            channel = name.decode()
            over = full and not self._heads.pinned(channel)
            if self._has_work(channel, int(first), int(last), int(oldest), now, full=over):
                if worked == _WORK:
                    return True
                worked += 1
                self._work_on(channel, now, full=over)
            self._swept = int(id)
        if len(rows) < _SWEEP:
            self._swept = 0
        return False

    def _has_work(self, name: str, first: int, last: int, oldest: int, now: int, *, full: bool) -> bool:
        if not first:
            return name not in self._listening
        lowest, youngest = self._heads.lowest(name, last, now)
        return oldest <= now - self._heads.window and (full or oldest <= youngest or first <= lowest)

    def _work_on(self, name: str, now: int, *, full: bool) -> None:
        remembered = name in self._heads
        head = self._heads.get(name, now)
        assert head is not None
        self._trim(head, now, _DELETE, full=full)
        if head.first > head.seq and not head.known and name not in self._listening:
            self._untrimmed.pop(name, None)
            self._change.forget(head)
        elif not remembered:
            self._heads.drop(name)

    def _trim(self, head: Head, now: int, most: int, *, full: bool = False) -> int:
        """Delete what the channel no longer needs, at most `most` messages; how many."""
        lowest, oldest = self._heads.lowest(head.name, head.seq, now)
        if full:
            # A tenth at a time, so that no single channel pays for all.
            lowest = max(lowest, head.first + (head.seq - head.first) // 10)
        (last,) = self._database.execute(
            "SELECT max(seq) FROM (SELECT seq, time FROM messages WHERE channel = ? ORDER BY seq LIMIT ?) "
            "WHERE time <= ? AND (seq <= ? OR time <= ?)",
            (head.id, most, now - self._heads.window, lowest, oldest),
        ).fetchone()
        while head.known:
            key = next(iter(head.known))
            if head.known[key][1] > now:
                break
            del head.known[key]
        if last is None:
            return 0
        self._change.flush()
        self._database.execute("DELETE FROM messages WHERE channel = ? AND seq <= ?", (head.id, last))
        deleted: int = last + 1 - head.first
        head.first = last + 1
        head.receipts = [seq for seq in head.receipts if seq > last]
        # With its last message the file would forget where the channel ends.
        self._change.touch(head, row=True)
        return deleted

    def _used(self) -> int:
        """Bytes of the file that are in use."""
        pages, free, size = (
            self._database.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)


assert SEPARATOR == b"\x1e"  # as it stands in the statement
