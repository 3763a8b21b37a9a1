"""One timer wheel for everything that must happen later: a timer per connection would cost too much.

Ten thousand connections with a timer each in the event loop's heap are ten thousand heap entries to
sift; here a timer is one small object in a list, and only the loop's single tick looks at it. The
wheel knows no clock: whoever owns it says what time it is.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Timer", "Wheel"]


class Timer:
    """A callback that is due once, at the first tick at or after its time."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], object]) -> None:
        # None once cancelled or fired: also drops the reference to whatever the callback holds.
        self.callback: Callable[[], object] | None = callback

    @property
    def active(self) -> bool:
        """Whether the timer is still going to fire."""
        return self.callback is not None

    def cancel(self) -> None:
        """Make sure that the timer never fires; cancelling twice, or after it fired, is harmless."""
        # The entry stays in its slot until that slot is due: O(1) now, a few bytes for a while.
        self.callback = None

    def fire(self) -> None:
        """Call the callback, unless it was called or cancelled before."""
        callback, self.callback = self.callback, None
        if callback is not None:
            callback()


class Wheel:
    """Timers in slots of `granularity` seconds; `advance` returns those that are due.

    A timer never fires early, and at most one granularity late (plus the owner's own delay in
    calling `advance`). Setting and cancelling are O(1); advancing costs as much as what is due.
    """

    def __init__(self, now: float, granularity: float = 0.25) -> None:
        self._granularity = granularity
        # The number of the last slot that was emptied.
        self._slot = int(now / granularity)
        # Sparse: a dict, because a day-long timer must not need a day of empty slots.
        self._slots: dict[int, list[Timer]] = {}
        # The time of the last tick: good enough where a quarter of a second does not matter, and free.
        self.now = now

    @property
    def granularity(self) -> float:
        """The width of a slot in seconds: how late a timer may be."""
        return self._granularity

    def __len__(self) -> int:
        return sum(1 for slot in self._slots.values() for timer in slot if timer.active)

    def at(self, when: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` at `when`, seconds on the owner's clock; a time in the past means the next tick."""
        timer = Timer(callback)
        # +1: a slot is emptied when it is over, so that nothing in it fires early.
        slot = max(int(when / self._granularity) + 1, self._slot + 1)
        self._slots.setdefault(slot, []).append(timer)
        return timer

    def after(self, delay: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` `delay` seconds after the last tick."""
        # The last tick may be one granularity ago: without the addend a timer could fire early.
        return self.at(self.now + self._granularity + delay, callback)

    def advance(self, now: float) -> list[Callable[[], object]]:
        """Move to `now` and return what is due, oldest first; the caller calls them.

        They are returned and not called here so that one that raises cannot keep the others from running. One
        that cancels another of them does keep that one from running.
        """
        self.now = max(now, self.now)
        target = int(now / self._granularity)
        if target <= self._slot:
            return []
        if target - self._slot > len(self._slots):
            # After a long pause (a suspended laptop) walk what exists, not every missed slot.
            due = sorted(slot for slot in self._slots if slot <= target)
        else:
            due = [slot for slot in range(self._slot + 1, target + 1) if slot in self._slots]
        self._slot = target
        return [timer.fire for slot in due for timer in self._slots.pop(slot) if timer.active]
