"""Many rows with few statements, in and out.

Each step of a statement lets go of the interpreter's lock and has to get it back from a busy event loop, which can
take milliseconds. So a hundred rows must not be a hundred steps.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Final

__all__ = ["Rows", "joined_row"]

# The largest first; few different sizes, so that every statement stays prepared.
_SIZES: Final = (256, 64, 16, 4, 1)

# Bytes that one row may have, unless a single message is larger: a hundred of 16 MiB would be gigabytes, several times.
_ROW: Final = 16_777_216


def joined_row(
    database: sqlite3.Connection, statement: str, values: Mapping[str, object], limit: int
) -> tuple[tuple[Any, ...], int]:
    """The one row in which `statement` joins at most `:limit` others, and how many it was allowed to join.

    Fewer where they are too large for one row; whoever reads asks again for the rest.
    """
    most = database.getlimit(sqlite3.SQLITE_LIMIT_LENGTH)
    database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, min(most, _ROW))
    try:
        while True:
            try:
                return database.execute(statement, {**values, "limit": limit}).fetchone(), limit
            except sqlite3.DataError:
                if limit <= 1 and database.getlimit(sqlite3.SQLITE_LIMIT_LENGTH) == most:
                    raise
                if limit <= 1:
                    database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, most)
                limit = max(1, limit // 8)
    finally:
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, most)


class Rows:
    """Rows for one table, collected and then written together."""

    def __init__(self, head: str, columns: int, tail: str = "") -> None:
        row = "(" + ", ".join("?" * columns) + ")"
        self._statements = [(size, f"{head} VALUES {', '.join([row] * size)} {tail}") for size in _SIZES]
        self._columns = columns
        # All rows' values, one after the other.
        self._values: list[object] = []

    def add(self, *values: object) -> None:
        """Collect one row."""
        self._values += values

    def write(self, database: sqlite3.Connection) -> None:
        """Write what was collected, in its order."""
        values, self._values = self._values, []
        at = 0
        for size, statement in self._statements:
            width = size * self._columns
            while at + width <= len(values):
                database.execute(statement, _part(values, at, width))
                at += width

    def clear(self) -> None:
        """Forget what was collected."""
        self._values.clear()


def _part(values: list[object], at: int, width: int) -> Sequence[object]:
    return values[at : at + width]
