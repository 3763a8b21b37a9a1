"""Records of the audit that strangers can cause at will: a flood of them is counted, so that nobody can fill a disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hubbub import audit
from hubbub.core.rates import Bucket, Rate

__all__ = ["INTERVAL", "Records"]

INTERVAL: Final = 10.0
"""Seconds between two records of how many have only been counted."""

# Those that are recorded one by one.
_RATE: Final = Rate(100, burst=1_000)


class Records:
    """Records one by one, as long as they are not too many."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._meter = Bucket(_RATE)
        self._unrecorded = 0

    def record(self, event: str, **fields: str | int | float | None) -> None:
        """Record an event, or count it."""
        if self._meter.take(self._clock()) is None:
            audit.record(event, **fields)
        else:
            self._unrecorded += 1

    def tell(self) -> None:
        """Record how many have only been counted, if any."""
        if self._unrecorded:
            audit.record("unrecorded", count=self._unrecorded)
            self._unrecorded = 0
