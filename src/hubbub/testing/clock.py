"""A clock that a test turns by hand, so that a year passes in no time and nothing ever sleeps."""

from __future__ import annotations

__all__ = ["FakeClock"]


class FakeClock:
    """Seconds that pass only when the test says so; give it to whatever takes a `clock`.

    >>> clock = FakeClock()
    >>> clock.advance(60)
    >>> clock()
    60.0
    """

    def __init__(self, now: float = 0.0) -> None:
        self._now = now

    def __repr__(self) -> str:
        return f"<FakeClock at {self._now:g} s>"

    def __call__(self) -> float:
        """What time it is, in seconds."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass; raises `ValueError` for less than none, because real clocks never go back."""
        if seconds < 0:
            raise ValueError(f"a clock does not go back: {seconds}")
        self._now += seconds
