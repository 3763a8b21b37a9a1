"""Compressed messages at a bounded pace: a hundred bytes may become 64 KiB, and cost as much as those.

What a connection may have inflated is a share of the event loop's time, and so is what all of them may together.
Beyond that the frames wait as they came, in order, and the connection is not read; it goes on in a later turn of the
loop, when others have had theirs. Nothing is inflated for a receiver that wants to hear nothing at the moment.
"""

from __future__ import annotations

import asyncio
import math
import struct
from collections import deque
from typing import Protocol

from hubbub.protocol.frames import Violation

__all__ = ["Frames", "Inflating", "Line", "Pace", "Peer"]

# Of the loop's time: what one connection may take, and all of them; and for how many seconds of that at once. So it is
# no more than 3 ms at a time for one, 5 ms for all, and the message with which they are over.
_SHARE, _BURST = 0.1, 0.03
_SHARE_OF_ALL, _BURST_OF_ALL = 0.5, 0.01

# Seconds for each byte that has come out: that long it takes to be read and kept, whatever it took to inflate it.
_PER_BYTE = 20e-9

_HEADER = struct.Struct("!BI")
_FIN, _RSV, _COMPRESSED = 0x10, 0x20, 0x40

# Opcode, FIN, whether a reserved bit is wrongly set, payload, whether it begins a compressed message.
_Frame = tuple[int, bool, bool, bytes, bool]


class Pace:
    """A share of the time that may go into something, saved up for `burst` seconds at most."""

    __slots__ = ("_burst", "_due", "_share")

    def __init__(self, share: float, burst: float) -> None:
        self._share = share
        self._burst = burst
        # When what has been taken is paid for.
        self._due = -math.inf

    def charge(self, seconds: float, now: float) -> None:
        """So many seconds have been taken."""
        self._due = max(self._due, now - self._burst) + seconds / self._share

    def wait(self, now: float) -> float:
        """Seconds until more may be taken; 0 or less: now."""
        return self._due - now


class Frames:
    """Frames that wait, in no more memory than they came in."""

    __slots__ = ("_at", "_data")

    def __init__(self) -> None:
        self._data = bytearray()
        # Where the first one begins.
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def add(self, opcode: int, fin: bool, rsv: bool, payload: bytes, compressed: bool) -> None:
        """Put a frame behind the others."""
        first = opcode | (_FIN if fin else 0) | (_RSV if rsv else 0) | (_COMPRESSED if compressed else 0)
        self._data += _HEADER.pack(first, len(payload))
        self._data += payload

    def take(self) -> _Frame:
        """Take the first one."""
        first, size = _HEADER.unpack_from(self._data, self._at)
        start = self._at + _HEADER.size
        self._at = start + size
        payload = bytes(memoryview(self._data)[start : self._at])
        return first & 0x0F, first & _FIN != 0, first & _RSV != 0, payload, first & _COMPRESSED != 0


class Line:
    """Those connections whose turn it is, one after the other, within what they may take together."""

    def __init__(self) -> None:
        self.pace = Pace(_SHARE_OF_ALL, _BURST_OF_ALL)
        self._waiting: deque[Inflating] = deque()
        self._timer: asyncio.Handle | None = None

    def is_busy(self, now: float) -> bool:
        """Whether a newcomer has to queue up."""
        return bool(self._waiting) or self.pace.wait(now) > 0

    def join(self, one: Inflating) -> None:
        """It goes on when those before it have had their turn, and not in this turn of the loop."""
        self._waiting.append(one)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_soon(self._serve)

    def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        # Who is not done queues up again, so each has one turn in this one.
        for _ in range(len(self._waiting)):
            if self.pace.wait(loop.time()) > 0:
                break
            self._waiting.popleft().go_on()
        wait = self.pace.wait(loop.time())
        self._timer = None
        if self._waiting:
            self._timer = loop.call_later(wait, self._serve) if wait > 0 else loop.call_soon(self._serve)


class Peer(Protocol):
    """The connection whose frames wait."""

    def take(self, opcode: int, fin: bool, rsv: bool, payload: bytes, compressed: bool) -> None:
        """Take the next of them; it may end the connection, and drop the others."""

    def caught_up(self) -> None:
        """None waits any more."""


class Inflating:
    """The pace of one connection, and its frames that wait."""

    __slots__ = ("_frames", "_line", "_pace", "_peer", "_queued", "_timer", "paused", "violation")

    def __init__(self, peer: Peer, line: Line) -> None:
        self._peer = peer
        self._line = line
        self._pace = Pace(_SHARE, _BURST)
        # None while nothing waits.
        self._frames: Frames | None = None
        # Whether it stands in the line, and until when it must not.
        self._queued = False
        self._timer: asyncio.TimerHandle | None = None
        # Whether the receiver wants to hear nothing at the moment.
        self.paused = False
        # What the peer has done behind the frames that wait, if that ends the connection.
        self.violation: Violation | None = None

    @property
    def keeping(self) -> bool:
        """Whether frames wait, so that those that come have to wait behind them."""
        return self._frames is not None

    def must_wait(self) -> bool:
        """Whether a frame that comes now has to wait."""
        if self.paused or self.keeping:
            return True
        now = asyncio.get_running_loop().time()
        return self._pace.wait(now) > 0 or self._line.is_busy(now)

    def keep(self, opcode: int, fin: bool, rsv: bool, payload: bytes, compressed: bool) -> None:
        """Let a frame wait; whoever calls this stops reading, so no more of them come than one read has brought."""
        if self._frames is None:
            self._frames = Frames()
            self._queue_up()
        self._frames.add(opcode, fin, rsv, payload, compressed)

    def charge(self, seconds: float, size: int) -> None:
        """A message has been inflated to so many bytes, in so many seconds."""
        seconds += size * _PER_BYTE
        now = asyncio.get_running_loop().time()
        self._pace.charge(seconds, now)
        self._line.pace.charge(seconds, now)

    def resume(self) -> bool:
        """The receiver wants to hear more: whether reading may go on, for nothing waits."""
        self.paused = False
        if self._frames is None:
            return True
        self._queue_up()
        return False

    def go_on(self) -> None:
        """Its turn has come."""
        self._queued = False
        loop = asyncio.get_running_loop()
        while frames := self._frames:
            if self.paused:
                return
            now = loop.time()
            if self._pace.wait(now) > 0 or self._line.pace.wait(now) > 0:
                self._queue_up()
                return
            self._peer.take(*frames.take())
        if frames is not None:
            self._frames = None
            self._peer.caught_up()

    def drop(self) -> Frames | None:
        """Nothing more is inflated: what waits."""
        frames, self._frames = self._frames, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return frames

    def _queue_up(self) -> None:
        if self._queued or self._timer is not None or self.paused:
            return
        loop = asyncio.get_running_loop()
        wait = self._pace.wait(loop.time())
        if wait > 0:
            self._timer = loop.call_later(wait, self._wake)
        else:
            self._queued = True
            self._line.join(self)

    def _wake(self) -> None:
        self._timer = None
        self._queue_up()
