"""What became of messages that the engine cannot tell of, so that a retry is not handled again."""

from __future__ import annotations

from typing import Generic, TypeVar

__all__ = ["Retries"]

Outcome = TypeVar("Outcome")


class Retries(Generic[Outcome]):
    """The outcomes of messages by (channel, user, id), for `window` seconds.

    Bounded: past `size` the oldest are forgotten, and a retry of theirs is handled again. Times are seconds
    on a clock that goes forward, given by the caller.
    """

    def __init__(self, window: float, size: int) -> None:
        self._window = window
        self._size = size

        # With when to forget it, in the order of noting, so also of that.
        self._outcomes: dict[tuple[str, str, str], tuple[Outcome, float]] = {}

    def note(self, message: tuple[str, str, str], outcome: Outcome, now: float) -> None:
        """A message has come to its end; what is too old or too many goes."""
        outcomes = self._outcomes
        outcomes.pop(message, None)
        while outcomes:
            oldest = next(iter(outcomes))
            if outcomes[oldest][1] > now and len(outcomes) < self._size:
                break
            del outcomes[oldest]
        outcomes[message] = (outcome, now + self._window)

    def get(self, message: tuple[str, str, str], now: float) -> Outcome | None:
        """What became of a message lately; None where that is unknown."""
        found = self._outcomes.get(message)
        return found[0] if found is not None and found[1] > now else None

    def __len__(self) -> int:
        return len(self._outcomes)
