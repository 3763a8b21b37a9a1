"""Messages of which some frames have come and the last has not: how much of them is kept, and for how long.

Each message is bounded by itself. But who begins one on each of many connections, and never ends it, would keep all
that memory for ever, so there is a bound for all of them together and one in time.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from hubbub.core.wheel import Timer, Wheel
from hubbub.protocol.frames import Violation
from hubbub.transports.base import TransportLimits

__all__ = ["Sender", "Unfinished"]

_TOO_SLOW = Violation(1009, "the message did not end in time")


class Sender(Protocol):
    """A connection whose peer has begun a message."""

    @property
    def is_reading(self) -> bool:
        """Whether it is the peer that we wait for, and not the peer for us."""

    def fail(self, violation: Violation) -> None:
        """End the connection."""


class _Begun(Struct):
    # When the message began, or was last seen to wait for us: seconds on the wheel's clock.
    since: float
    size: int = 0


class Unfinished:
    """The unfinished messages of all connections, bounded in bytes; each has so many seconds to end."""

    def __init__(self, limits: TransportLimits, wheel: Wheel) -> None:
        self._timeout = limits.message_timeout
        self._limit = limits.unfinished_size
        self._wheel = wheel
        # Oldest first: since all have the same time, one timer is enough for all of them.
        self._begun: dict[Sender, _Begun] = {}
        # Not cancelled when the last message ends: who sends a thousand a second in fragments would leave a
        # thousand dead timers a second in the wheel.
        self._timer: Timer | None = None
        # Bytes in all.
        self.size = 0

    def __len__(self) -> int:
        return len(self._begun)

    def hold(self, sender: Sender, size: int) -> bool:
        """So many bytes are kept of the sender's message now; False where that is too much, and it has to go."""
        begun = self._begun.get(sender)
        if begun is None:
            begun = self._begun[sender] = _Begun(self._wheel.now)
            if self._timer is None:
                self._timer = self._wheel.after(self._timeout, self._look)
        self.size += size - begun.size
        begun.size = size
        return self.size <= self._limit

    def release(self, sender: Sender) -> None:
        """Its message has ended, or never will."""
        begun = self._begun.pop(sender, None)
        if begun is not None:
            self.size -= begun.size

    def _look(self) -> None:
        """End the connections whose time is over, and come back for the next."""
        self._timer = None
        begun = self._begun
        overdue = self._wheel.now - self._timeout
        late: list[Sender] = []
        for sender, message in begun.items():
            if message.since > overdue:
                self._timer = self._wheel.at(message.since + self._timeout, self._look)
                break
            late.append(sender)
        for sender in late:
            if sender.is_reading:
                # Which releases it.
                sender.fail(_TOO_SLOW)
            elif sender in begun:
                # It has been told to wait: its time begins anew.
                begun[sender] = _Begun(self._wheel.now, begun.pop(sender).size)
        if begun and self._timer is None:
            self._timer = self._wheel.after(self._timeout, self._look)
