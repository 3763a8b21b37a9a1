"""Messages of which some frames have come and the last has not: how much of them is kept, and for how long.

Each message is bounded by itself. But who begins one on each of many connections, and never ends it, would keep all
that memory for ever, so there is a bound for all of them together and one in time. Where the first is reached, those go
that come from the address which holds the most: strangers who have filled it make room themselves.

What is counted are whole frames. Of a frame that has come in part only picows knows, and does not say how much it is
nor since when: it waits in picows' buffer, of 112 KiB at most for each connection, and is no sign of life.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct, field

from hubbub.core.addresses import block_of
from hubbub.core.wheel import Timer, Wheel
from hubbub.protocol.frames import Violation
from hubbub.transports.base import TransportLimits

__all__ = ["Sender", "Unfinished"]

_TOO_SLOW = Violation(1009, "the message did not end in time")
_TOO_MANY = Violation(1013, "too many unfinished messages: try later")


class Sender(Protocol):
    """A connection whose peer has begun a message."""

    @property
    def ip(self) -> str:
        """The peer's address."""

    @property
    def is_reading(self) -> bool:
        """Whether it is the peer that we wait for, and not the peer for us."""

    def fail(self, violation: Violation) -> None:
        """End the connection."""


class _Share(Struct):
    """What the connections from one address hold, or from one network of IPv6."""

    size: int = 0
    # Oldest first.
    senders: dict[Sender, None] = field(default_factory=dict)


class _Begun(Struct):
    share: _Share
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
        # By what `block_of` says of their address.
        self._shares: dict[str, _Share] = {}
        # Not cancelled when the last message ends: who sends a thousand a second in fragments would leave a
        # thousand dead timers a second in the wheel.
        self._timer: Timer | None = None
        # Bytes in all.
        self.size = 0

    def __len__(self) -> int:
        return len(self._begun)

    def hold(self, sender: Sender, size: int) -> None:
        """So many bytes are kept of the sender's message now; where that is too much, some end, perhaps this one."""
        begun = self._begun.get(sender)
        if begun is None:
            share = self._shares.setdefault(block_of(sender.ip), _Share())
            share.senders[sender] = None
            begun = self._begun[sender] = _Begun(share, self._wheel.now)
            if self._timer is None:
                self._timer = self._wheel.after(self._timeout, self._look)
        more = size - begun.size
        self.size += more
        begun.share.size += more
        begun.size = size
        while self.size > self._limit:
            largest = max(self._shares.values(), key=_size)
            oldest = next(iter(largest.senders))
            # What its end leads to may end others, this one too.
            oldest.fail(_TOO_MANY)
            self.release(oldest)

    def release(self, sender: Sender) -> None:
        """Its message has ended, or never will."""
        begun = self._begun.pop(sender, None)
        if begun is not None:
            self.size -= begun.size
            share = begun.share
            share.size -= begun.size
            del share.senders[sender]
            if not share.senders:
                del self._shares[block_of(sender.ip)]

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
                waiting = begun.pop(sender)
                waiting.since = self._wheel.now
                begun[sender] = waiting
        if begun and self._timer is None:
            self._timer = self._wheel.after(self._timeout, self._look)


def _size(share: _Share) -> int:
    return share.size
