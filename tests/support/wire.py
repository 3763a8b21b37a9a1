"""A connection without sockets: the hub's `Writer`, whose other end reads when the test lets it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from hubbub.transports.base import Receiver

__all__ = ["Wire"]


def _frame(payload: bytes) -> bytes:
    # JSON has no newline of its own.
    return payload + b"\n"


class Wire:
    """One connection in memory, faithful to the contract of `hubbub.transports.base.Writer`."""

    def __init__(self) -> None:
        self.receiver: Receiver | None = None
        # See `Writer.send`.
        self.send: Callable[[bytes], int] = self._send
        # How the server ended it, if it did.
        self.close_code: int | None = None
        self.gone = False
        # How many bytes the socket still takes; None: it is being read.
        self._room: int | None = None
        # What waits in the transport, and what the client has received.
        self._buffer = bytearray()
        self._received = bytearray()

    @property
    def stalled(self) -> bool:
        """Whether the client reads nothing now."""
        return self._room is not None

    def open(self, receiver: Receiver) -> None:
        """The handshake is done."""
        self.receiver = receiver
        receiver.opened(self)

    # --- the client's side ---

    def say(self, message: object) -> None:
        """Send a message to the server."""
        if self.receiver is not None and self.close_code is None:
            self.receiver.received(json.dumps(message))

    def hear(self) -> list[dict[str, Any]]:
        """Take the whole messages that have come."""
        whole, newline, rest = bytes(self._received).rpartition(b"\n")
        self._received = bytearray(rest)
        return [json.loads(line) for line in whole.split(b"\n")] if newline else []

    def stall(self, room: int) -> None:
        """Read no more; the buffers of the kernel take `room` bytes before that is noticed."""
        self._room = room

    def go_on(self) -> None:
        """Read again."""
        self._room = None
        self._received += self._buffer
        self._buffer.clear()
        if self.close_code is not None:
            self._end(self.close_code)
        elif self.receiver is not None:
            self.receiver.unblocked()

    def cut(self) -> None:
        """Lose the connection."""
        self._end(1006)

    # --- the hub's side ---

    def _send(self, frames: bytes) -> int:
        if self.gone:
            raise ConnectionResetError

        assert not self._buffer, "straight into the kernel, past what waits in the transport"
        taken = self._take(frames)
        if not taken:
            raise BlockingIOError
        return taken

    def write(self, frames: bytes, /) -> None:
        """See `Writer.write`."""
        if self.gone or self.close_code is not None:
            return
        was_blocked = bool(self._buffer)
        self._buffer += frames[0 if was_blocked else self._take(frames) :]
        if self._buffer and not was_blocked and self.receiver is not None:
            self.receiver.blocked()

    def unsent(self) -> int:
        """See `Writer.unsent`."""
        return len(self._buffer)

    def framing(self, binary: bool) -> Callable[[bytes], bytes]:
        """See `Writer.framing`."""
        return _frame

    def ping(self) -> None:
        """See `Writer.ping`; nobody is silent for so long here."""

    def close(self, code: int, reason: str) -> None:
        """See `Writer.close`: the client answers when it has read everything before."""
        if self.close_code is None and not self.gone:
            self.close_code = code
            if not self._buffer:
                asyncio.get_running_loop().call_soon(self._end, code)

    def abort(self) -> None:
        """See `Writer.abort`."""
        if not self.gone:
            asyncio.get_running_loop().call_soon(self._end, 1006)

    def pause_reading(self) -> None:
        """See `Writer.pause_reading`."""

    def resume_reading(self) -> None:
        """See `Writer.resume_reading`."""

    def _take(self, frames: bytes) -> int:
        taken = len(frames) if self._room is None else min(self._room, len(frames))
        self._received += frames[:taken]
        if self._room is not None:
            self._room -= taken
        return taken

    def _end(self, code: int) -> None:
        self.gone = True
        receiver, self.receiver = self.receiver, None
        if receiver is not None:
            receiver.closed(code, "")
