"""How long to wait before a process that has ended is started again."""

from __future__ import annotations

from typing import Final

__all__ = ["Pace"]

# Seconds: the first wait and the longest, and what counts as having stood.
_FIRST: Final = 0.1
_MOST: Final = 10.0
_STEADY: Final = 30.0


class Pace:
    """The waits of one process: at first next to nothing, then twice as long each time, until it has stood."""

    def __init__(self) -> None:
        self._next = _FIRST

    def wait(self, lived: float) -> float:
        """Seconds to wait now that it has ended, after it had lived for so many."""
        if lived >= _STEADY:
            self._next = _FIRST
        wait, self._next = self._next, min(_MOST, self._next * 2)
        return wait
