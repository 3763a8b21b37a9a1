"""Many rows with few statements.

Each step of a statement lets go of the interpreter's lock and has to get it back from a busy event loop, which can
take milliseconds. So a hundred rows must not be a hundred steps.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

__all__ = ["Rows"]

# The largest first; few different sizes, so that every statement stays prepared.
_SIZES: Final = (256, 64, 16, 4, 1)


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
