"""A TCP proxy that does what bad networks do: cuts, swallows one direction or both, and is slow."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import cast

from support.resetting import reset

__all__ = ["Direction", "Link"]

# Bytes that a slow link keeps in one direction of one connection; beyond, it does not read on.
_MOST_LATE = 262_144
# Seconds for the other side to be connected.
_CONNECT_WITHIN = 5.0


class Direction(StrEnum):
    """Which way bytes go."""

    OUT = "out"
    """From who connects to the server."""

    BACK = "back"
    """From the server to who has connected."""


class Link:
    """A port that leads to a server, as long as nothing is wrong with the way there.

    `target` says for each connection where it leads, or None for nowhere: then it is reset.
    """

    def __init__(self, target: Callable[[], tuple[str, int] | None]) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._ends: set[_End] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self._swallowing: frozenset[Direction] = frozenset()
        self._delay = 0.0

        # How many pieces it took away, or let come late.
        self.disturbed = 0

    @property
    def port(self) -> int:
        """Where it listens, at 127.0.0.1."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.get_running_loop().create_server(self._accepted, "127.0.0.1", 0)

    async def stop(self) -> None:
        """Let go of everything."""
        if self._server is not None:
            self._server.close()
        for task in self._connecting:
            task.cancel()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        self.cut()
        if self._server is not None:
            await self._server.wait_closed()

    def cut(self) -> int:
        """Reset all connections, to both sides; how many there were."""
        ends = list(self._ends)
        for end in ends:
            end.reset()
        return len(ends) // 2

    def swallow(self, *directions: Direction) -> None:
        """Take away what goes in these directions until `mend`; connections stand, and new ones can be made."""
        self._swallowing = frozenset(directions)

    def slow(self, seconds: float) -> None:
        """Let everything arrive so much later, in both directions, until `mend`."""
        self._delay = seconds

    def mend(self) -> None:
        """Be a good link again; a connection that has lost bytes cannot go on, and is reset."""
        self._swallowing, self._delay = frozenset(), 0.0
        for end in list(self._ends):
            if end.spoilt:
                end.reset()

    # ---------------------------------------------------------------------------------- for the two ends

    def _accepted(self) -> _End:
        return _End(self, Direction.OUT)

    def opened(self, end: _End) -> None:
        """One end of a connection stands; the one that was accepted needs the other."""
        self._ends.add(end)
        if end.direction is Direction.OUT:
            task = asyncio.get_running_loop().create_task(self._connect(end))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def _connect(self, end: _End) -> None:
        target = self._target()
        try:
            if target is None:
                raise ConnectionRefusedError
            async with asyncio.timeout(_CONNECT_WITHIN):
                await asyncio.get_running_loop().create_connection(
                    lambda: end.meet(_End(self, Direction.BACK)), *target
                )
        except OSError:
            # TimeoutError is one.
            end.reset()

    def closed(self, end: _End) -> None:
        """One end is gone."""
        self._ends.discard(end)

    def takes_away(self, direction: Direction) -> bool:
        """Whether what goes in `direction` is lost; it is counted."""
        lost = direction in self._swallowing
        self.disturbed += lost
        return lost

    @property
    def delay(self) -> float:
        """Seconds that everything takes."""
        return self._delay


class _End(asyncio.Protocol):
    """One of the two sockets of a connection: what comes here goes out there."""

    def __init__(self, link: Link, direction: Direction) -> None:
        # The way of what is read here.
        self.direction = direction
        # Whether something that was read here is lost.
        self.spoilt = False
        self._link = link
        self._other: _End | None = None
        self._transport: asyncio.Transport | None = None

        # Read and not passed on yet, with when it is due: the link is slow, or the other end is not there yet.
        self._late: deque[tuple[float, bytes]] = deque()
        self._late_size = 0
        self._timer: asyncio.TimerHandle | None = None
        # Why reading pauses: the other end takes no more, or too much is late.
        self._paused: set[str] = set()

    @property
    def _meets(self) -> bool:
        """Whether the other end stands."""
        return self._other is not None and self._other._transport is not None

    def meet(self, other: _End) -> _End:
        """Be connected with `other`, which will stand in a moment; returns that."""
        self._other, other._other = other, self
        return other

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is one by its methods, not by its class.
        self._transport = cast(asyncio.Transport, transport)
        endpoint = transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            endpoint.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.direction is Direction.OUT:
            self._link.opened(self)
        elif self._other is None:
            # Whoever had connected has gone meanwhile.
            self.reset()
        else:
            self._link.opened(self)
            self._other.due()

    def data_received(self, data: bytes) -> None:
        if self._link.takes_away(self.direction):
            self.spoilt = True
        elif self._late or self._link.delay or not self._meets:
            self._keep(data)
        elif self._other is not None:
            self._other.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._link.closed(self)
        if self._timer is not None:
            self._timer.cancel()
        other, self._other = self._other, None
        if other is not None:
            other._other = None
            self._pass_on([data for _, data in self._late], other)
            other.end(error)

    def pause_writing(self) -> None:
        if self._other is not None:
            self._other.pause("full")

    def resume_writing(self) -> None:
        if self._other is not None:
            self._other.resume("full")

    def write(self, data: bytes) -> None:
        """Send to whom this end leads."""
        if self._transport is not None:
            self._transport.write(data)

    def end(self, error: Exception | None) -> None:
        """The other end is gone: with an error, or in peace."""
        if error is not None:
            self.reset()
        elif self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        """End both sides as a failing network does."""
        other, self._other = self._other, None
        transport, self._transport = self._transport, None
        self._link.closed(self)
        reset(transport)
        if other is not None:
            other._other = None
            other.reset()

    def pause(self, why: str) -> None:
        """Read no more for now."""
        self._paused.add(why)
        if self._transport is not None and self._transport.is_reading():
            self._transport.pause_reading()

    def resume(self, why: str) -> None:
        """Read on, if there is no other reason not to."""
        self._paused.discard(why)
        if not self._paused and self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _keep(self, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        self._link.disturbed += self._link.delay > 0
        self._late.append((loop.time() + self._link.delay, data))
        self._late_size += len(data)
        if self._late_size > _MOST_LATE:
            self.pause("late")
        if self._timer is None and self._meets:
            self._timer = loop.call_at(self._late[0][0], self.due)

    def due(self) -> None:
        """Pass on what is due: the other end stands."""
        loop = asyncio.get_running_loop()
        self._timer = None
        due = []
        while self._late and self._late[0][0] <= loop.time():
            due.append(self._late.popleft()[1])
        self._late_size -= sum(map(len, due))
        if self._other is not None:
            self._pass_on(due, self._other)
        if self._late_size <= _MOST_LATE:
            self.resume("late")
        if self._late:
            self._timer = loop.call_at(self._late[0][0], self.due)

    @staticmethod
    def _pass_on(pieces: Iterable[bytes], other: _End) -> None:
        joined = b"".join(pieces)
        if joined:
            other.write(joined)
