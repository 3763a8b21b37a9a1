"""Plain HTTP on the port: uvicorn's protocol class around an ASGI application, on connections handed over.

There is no `uvicorn.Server` here: the port accepts and this module only speaks HTTP/1.1. What uvicorn leaves
open to slow clients has a deadline here: the head of a second request, a body, and a response that nobody
takes.
"""

from __future__ import annotations

import asyncio
import logging
from email.utils import formatdate
from typing import cast

import h11
from msgspec import Struct
from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.server import ServerState

from hubbub.core.wheel import Timer, Wheel
from hubbub.transports.base import TransportLimits
from hubbub.transports.linger import LAST_READS, finish_sending

__all__ = ["Http", "HttpStatistics"]

# uvicorn logs each bad request as a warning: any stranger could fill a log with that.
_logger = logging.getLogger(__name__)
_logger.setLevel(logging.ERROR)

_HEAD_SIZE = 16_384

# Seconds that a connection may stay open between two requests.
_KEEP_ALIVE = 5

# Seconds for a request's body to come, and for a response that has been written to leave.
_BODY_TIMEOUT = 30.0
_WRITE_TIMEOUT = 30.0

# Seconds for what serves a request to end by itself, when its connection has.
_LAST_MOMENT = 0.25

# What one connection too many is told; in the form of the port's refusals.
_FULL_BODY = b'{"error":{"code":"unavailable","message":"There are too many connections."}}'
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\n"
    b"Content-Type: application/json\r\n"
    b"Content-Length: %d\r\n"
    b"Connection: close\r\n"
    b"Retry-After: 1\r\n\r\n"
    b"%b"
) % (len(_FULL_BODY), _FULL_BODY)


class HttpStatistics(Struct, frozen=True, kw_only=True):
    """What the HTTP side of a port serves now, and what it has turned away."""

    connections: int
    # Those that came when there were as many as there may be, and all of them were being served.
    refused: int
    # Those that were cut, while nothing was being served on them, because others came.
    shed: int


class Http:
    """The HTTP side of a port: the application, and the connections that are open."""

    def __init__(self, app: ASGIApp, limits: TransportLimits, wheel: Wheel, *, capacity: int = 1_000) -> None:
        """`capacity` is how many connections may be open: no more than that is what anybody can hold."""
        self._config = Config(
            app,
            # The port listens, logs, and has upgraded what is to be upgraded.
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=_KEEP_ALIVE,
            h11_max_incomplete_event_size=_HEAD_SIZE,
        )
        self._config.load()
        self._state = _State()
        self.head_timeout = limits.handshake_timeout
        self.close_timeout = limits.close_timeout
        self.capacity = capacity
        self.refused = 0
        self.shed = 0
        # Those that are open, in the order of coming.
        self.open: dict[_Connection, None] = {}
        # Those whose refusal is still being read.
        self.turned_away: set[_Refusal] = set()
        self.wheel = wheel
        # Whether responses are the last of their connections.
        self.finishing = False
        # Done when nothing is open any more; there only while somebody waits for that.
        self._empty: asyncio.Future[None] | None = None

    def protocol(self) -> asyncio.Protocol:
        """A protocol for a connection that is being handed over."""
        if len(self.open) >= self.capacity and not self._shed_one():
            return _Refusal(self)
        return _Connection(self, self._config, self._state)

    def _shed_one(self) -> bool:
        """Cut the oldest connection on which nothing is being served; False where there is none.

        As the port does it, and for the same reason: whoever means well is served in a moment, so those who hold
        places came to hold them. Else one stranger could take /health away, and with it the whole server.
        """
        idle = next((connection for connection in self.open if connection.idle), None)
        if idle is None:
            return False
        del self.open[idle]
        self.shed += 1
        idle.transport.abort()
        return True

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self.open)

    def statistics(self) -> HttpStatistics:
        """How many connections are open, and how many were one too many."""
        return HttpStatistics(connections=self.connections, refused=self.refused, shed=self.shed)

    def finish(self) -> None:
        """Close the connections that are between two requests, and the others after the one they are at."""
        self.finishing = True
        for connection in self._connections():
            if not connection.transport.is_closing():
                connection.shutdown()

    async def close(self, timeout: float) -> None:
        """`finish`, wait at most `timeout` seconds for the requests that are being served, and cut the rest."""
        self.finish()
        if self._state.connections:
            self._empty = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._empty], timeout=timeout)
        for connection in self._connections():
            connection.transport.abort()
        for refused in list(self.turned_away):
            refused.transport.abort()
        tasks = list(self._state.tasks)
        if tasks:
            # Those whose response has left may still be closing a file, and those that were cut hear of it now.
            _, rest = await asyncio.wait(tasks, timeout=_LAST_MOMENT)
            for task in rest:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def left(self) -> None:
        """A connection has gone."""
        if self._empty is not None and not self._empty.done() and not self._state.connections:
            self._empty.set_result(None)

    def _connections(self) -> list[_Connection]:
        return cast("list[_Connection]", list(self._state.connections))


class _State(ServerState):
    """What uvicorn's connections share; its server, which we have not, would keep the date up to date."""

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        return [(b"date", formatdate(usegmt=True).encode("ascii"))]

    @default_headers.setter
    def default_headers(self, headers: list[tuple[bytes, bytes]]) -> None:
        pass


class _Connection(H11Protocol):
    """uvicorn's connection, with deadlines."""

    def __init__(self, http: Http, config: Config, state: ServerState) -> None:
        super().__init__(config, state, {})
        self.logger = _logger
        self._http = http
        # What of the client is being waited for: "head", "body" or nothing; and until when.
        self._awaited: str | None = None
        self._read_timer: Timer | None = None
        self._write_timer: Timer | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        self._http.open[self] = None
        # So that a response of any size that is not taken is noticed.
        transport.set_write_buffer_limits(high=0)
        super().connection_made(transport)

    @property
    def serves(self) -> bool:
        """Whether a request is being answered."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    @property
    def idle(self) -> bool:
        """Whether nobody waits for us here: no request is being answered, and no answer is still leaving."""
        return not self.serves and not self.flow.write_paused

    def send_400_response(self, msg: str) -> None:
        # uvicorn answers by itself what is malformed. Whatever the application has to say to the same request is too
        # late then, and would be logged as a fault of the application: any stranger could fill a log with that.
        if self.serves:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            # An answer has begun, or has been given.
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # What came and completed no head is the beginning of one.
        self._await("head" if self.conn.their_state is h11.IDLE else self._body())

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._http.finishing and not self.transport.is_closing():
            self.shutdown()
        # The next request may have been waiting behind this one. If it has not, uvicorn's keep-alive runs.
        self._await(self._body())

    def _body(self) -> str | None:
        return "body" if self.conn.their_state is h11.SEND_BODY else None

    def _await(self, awaited: str | None) -> None:
        if awaited == self._awaited:
            return
        self._awaited = awaited
        if self._read_timer is not None:
            self._read_timer.cancel()
        if awaited is not None:
            seconds = self._http.head_timeout if awaited == "head" else _BODY_TIMEOUT
            self._read_timer = self._http.wheel.after(seconds, self._expire)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer = self._http.wheel.after(_WRITE_TIMEOUT, self._expire)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for timer in (self._read_timer, self._write_timer):
            if timer is not None:
                timer.cancel()
        self._unset_keepalive_if_required()
        self._http.open.pop(self, None)
        self._http.left()

    def _expire(self) -> None:
        self.transport.abort()

    def _unsupported_upgrade_warning(self) -> None:
        # An upgrade to something else than WebSocket (curl offers h2c) may be ignored (RFC 9110 §7.8).
        pass


class _Refusal(asyncio.Protocol):
    """The last of a connection for which there is no room: it may read why, for a while."""

    transport: asyncio.Transport
    _timer: Timer | None = None

    def __init__(self, http: Http) -> None:
        self._http = http
        self._reads = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport = cast(asyncio.Transport, transport)
        http = self._http
        http.refused += 1
        # Beyond as many as are served nobody is waited for: else the refused would be a crowd themselves.
        crowded = len(http.turned_away) >= http.capacity
        http.turned_away.add(self)
        transport.write(_FULL)
        if crowded:
            transport.close()
            return
        self._timer = http.wheel.after(http.close_timeout, transport.abort)
        finish_sending(transport)

    def data_received(self, data: bytes) -> None:
        self._reads += 1
        if self._reads > LAST_READS:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._http.turned_away.discard(self)
        if self._timer is not None:
            self._timer.cancel()
