"""Compressed messages in turns: a hundred bytes may become 64 KiB, and cost as much as those.

One read may bring a thousand of them. So in each turn of the event loop a connection has a little inflated, and all of
them together not much more. Beyond that the frames wait as they came, in order, and the connection is not read; it goes
on in the next turn, when everybody else has had theirs. Nothing is inflated for a receiver that wants to hear nothing.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from typing import Protocol

from hubbub.protocol.frames import Violation

__all__ = ["Frames", "Inflating", "Line", "Peer"]

# Seconds of one turn of the event loop: for one connection, for all of them; and the message with which they are over.
_ONE, _ALL = 0.002, 0.004

# Seconds for each byte that has come out: that long it takes to be read and kept, whatever it took to inflate it.
_PER_BYTE = 20e-9

_HEADER = struct.Struct("!BI")
_FIN, _RSV, _COMPRESSED = 0x10, 0x20, 0x40

# Opcode, FIN, whether a reserved bit is wrongly set, payload, whether it begins a compressed message.
_Frame = tuple[int, bool, bool, bytes, bool]


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
    """Those connections whose turn it is, one after the other, and what this turn of the event loop has taken."""

    def __init__(self) -> None:
        # Which turn it is, and the seconds that went into inflating in it.
        self.turn = 0
        self._taken = 0.0
        self._waiting: deque[Inflating] = deque()
        self._timer: asyncio.Handle | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more is inflated in this turn."""
        return self._taken >= _ALL

    @property
    def is_busy(self) -> bool:
        """Whether a newcomer has to queue up."""
        return bool(self._waiting) or self.is_over

    def charge(self, seconds: float) -> None:
        """So many seconds of this turn have been taken."""
        self._taken += seconds
        self._end_turn()

    def join(self, one: Inflating) -> None:
        """It goes on when those before it have had their turn, and not in this turn of the loop."""
        self._waiting.append(one)
        self._end_turn()

    def _end_turn(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_soon(self._begin_turn)

    def _begin_turn(self) -> None:
        self._timer = None
        self.turn += 1
        self._taken = 0.0
        # Who is not done queues up again, so each goes on once.
        for _ in range(len(self._waiting)):
            if self.is_over:
                break
            self._waiting.popleft().go_on()
        if self._waiting:
            self._end_turn()


class Peer(Protocol):
    """The connection whose frames wait."""

    def take(self, opcode: int, fin: bool, rsv: bool, payload: bytes, compressed: bool) -> None:
        """Take the next of them; it may end the connection, and drop the others."""

    def caught_up(self) -> None:
        """None waits any more."""


class Inflating:
    """What one connection has had inflated in this turn, and its frames that wait."""

    __slots__ = ("_frames", "_line", "_peer", "_queued", "_taken", "_turn", "paused", "violation")

    def __init__(self, peer: Peer, line: Line) -> None:
        self._peer = peer
        self._line = line
        # Seconds, and the turn in which they were taken.
        self._taken = 0.0
        self._turn = 0
        # None while nothing waits.
        self._frames: Frames | None = None
        # Whether it stands in the line.
        self._queued = False
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
        return self.paused or self.keeping or self._line.is_busy or self._is_over

    @property
    def _is_over(self) -> bool:
        return self._taken >= _ONE and self._turn == self._line.turn

    def keep(self, opcode: int, fin: bool, rsv: bool, payload: bytes, compressed: bool) -> None:
        """Let a frame wait; whoever calls this stops reading, so no more of them come than one read has brought."""
        if self._frames is None:
            self._frames = Frames()
            self._queue_up()
        self._frames.add(opcode, fin, rsv, payload, compressed)

    def charge(self, seconds: float, size: int) -> None:
        """A message has been inflated to so many bytes, in so many seconds."""
        seconds += size * _PER_BYTE
        if self._turn != self._line.turn:
            self._turn, self._taken = self._line.turn, 0.0
        self._taken += seconds
        self._line.charge(seconds)

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
        while frames := self._frames:
            if self.paused:
                return
            if self._line.is_over or self._is_over:
                self._queue_up()
                return
            self._peer.take(*frames.take())
        if frames is not None:
            self._frames = None
            self._peer.caught_up()

    def drop(self) -> Frames | None:
        """Nothing more is inflated: what waits."""
        frames, self._frames = self._frames, None
        return frames

    def _queue_up(self) -> None:
        if not self._queued and not self.paused:
            self._queued = True
            self._line.join(self)
