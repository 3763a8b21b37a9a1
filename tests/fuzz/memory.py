"""A connection in memory for fuzzing: real protocols at one end, bytes from the fuzzer at the other.

A thousand inputs a second, each cut in every way, are too many for sockets. What is missing here (the kernel, and
the time that passes) has tests with sockets; `test_fuzz.py` sees to it that both ways come to the same.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any

__all__ = ["PEER", "Pipe", "Turns"]

PEER = "192.0.2.1"
"""The address at the other end."""


if TYPE_CHECKING:
    # Where everything is there; what is missing here raises `NotImplementedError`.
    Loop = asyncio.BaseEventLoop
else:
    Loop = asyncio.AbstractEventLoop


class Turns(Loop):
    """The least event loop: what is called soon is called at the end of the turn, and what is called later then, too.

    Time passes only as far as somebody waits for it.
    """

    def __init__(self) -> None:
        self._soon: deque[asyncio.Handle] = deque()
        self._later: list[asyncio.TimerHandle] = []
        self._now = 0.0

    def __enter__(self) -> Turns:
        asyncio._set_running_loop(self)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio._set_running_loop(None)

    def call_soon(  # type: ignore[override]  # without asyncio's variadic types
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._soon.append(handle)
        return handle

    def call_later(  # type: ignore[override]  # the same
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(self._now + delay, callback, args, self, context)
        self._later.append(handle)
        return handle

    def time(self) -> float:
        return self._now

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def get_debug(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        # A callback that raises is a finding, and nothing goes on after it.
        raise context.get("exception") or AssertionError(context["message"])

    def end_turn(self) -> None:
        """Call what is due, now or ever."""
        while self._soon or self._later:
            while self._soon:
                handle = self._soon.popleft()
                if not handle.cancelled():
                    handle._run()
            if self._later:
                first = min(self._later, key=asyncio.TimerHandle.when)
                self._later.remove(first)
                if not first.cancelled():
                    self._now = max(self._now, first.when())
                    self._soon.append(first)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It is looked at when its time comes."""


class Pipe(asyncio.Transport):
    """A transport without a socket, like that of TLS in this: all writing goes through `write`."""

    def __init__(self, loop: Turns, protocol: asyncio.BaseProtocol) -> None:
        super().__init__()
        self._loop = loop
        self._protocol = protocol
        self._reading = True
        self._unread = bytearray()
        self._closing = False
        self._ended = False

        # What the protocols have sent.
        self.written = bytearray()
        protocol.connection_made(self)

    # --- the fuzzer's end ---

    def send(self, data: bytes) -> None:
        """Have one piece arrive, in one read of the protocol that will have it."""
        self._unread += data
        self._read()
        self._loop.end_turn()

    def hang_up(self) -> None:
        """End the stream, and then the connection."""
        if not self._closing and isinstance(self._protocol, asyncio.Protocol | asyncio.BufferedProtocol):
            self._protocol.eof_received()
        self.close()
        self._loop.end_turn()

    def _read(self) -> None:
        while self._unread and self._reading and not self._closing:
            protocol = self._protocol
            if isinstance(protocol, asyncio.BufferedProtocol):
                room = memoryview(protocol.get_buffer(-1))
                size = min(len(room), len(self._unread))
                room[:size] = self._unread[:size]
                del self._unread[:size]
                protocol.buffer_updated(size)
            elif isinstance(protocol, asyncio.Protocol):
                data = bytes(self._unread)
                self._unread.clear()
                protocol.data_received(data)
            # As in a real loop, where each read is a turn of its own.
            self._loop.end_turn()

    # --- the protocols' end ---

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": (PEER, 50_000), "ssl_object": self}.get(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            self._loop.call_soon(self._read)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes | bytearray | memoryview[int]) -> None:
        if not self._closing and not self._ended:
            self.written += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self._ended = True

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self._protocol_lost)

    def abort(self) -> None:
        self.close()

    def _protocol_lost(self) -> None:
        self._protocol.connection_lost(None)
