"""One connection to NATS: publications out, all of one turn of the event loop in one write; messages in, in order.

nats-py has a task and a queue for each subscription, and a node has one subscription for each channel that somebody
listens to; of the protocol there is so little that this is all of it.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from collections.abc import Callable
from typing import Any, Final, cast

import msgspec
from msgspec import Struct

from hubbub.engines.nats.address import Address
from hubbub.engines.shared.sockets import reset
from hubbub.errors import ConfigError

__all__ = ["Connection", "Info", "Refused", "connect"]

log = logging.getLogger("hubbub.engines.nats")

# Seconds to connect, to shake hands in TLS, and for each answer of the beginning.
_PATIENCE: Final = 3.0
# Bytes of a line, and of a message with its head: NATS itself allows no more.
_LINE: Final = 65_536
_MESSAGE: Final = 67_108_864 + _LINE


class Refused(Exception):
    """NATS does not let this node in; the text is what it says."""


class Info(Struct, frozen=True):
    """What the server says about itself."""

    server_id: str
    version: str
    headers: bool = False
    max_payload: int = 1_048_576
    # It will end soon, and wants to be left.
    ldm: bool = False


class Connection(asyncio.Protocol):
    """A connection that stands; `message` gets what comes, on the event loop's thread."""

    def __init__(self) -> None:
        # Gets the number of the subscription, the subject, the head (or nothing), and the body.
        self.message: Callable[[int, bytes, bytes, bytes], None] = lambda sid, subject, head, body: None
        # When something last came, and since when a sign of life that was asked for is due; 0: none is.
        self.heard = 0.0
        self.pinged = 0.0
        self.info: Info | None = None
        # Why it has ended, or None. `lost` is called once then.
        self.ended: str | None = None
        self.lost: Callable[[], None] | None = None
        # Whether it has ended because nothing came for too long.
        self.silent = False
        # Whether the server refused to let anybody in.
        self.refused = False

        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None

        # What came and is no whole message yet, and how many bytes there must be before it is worth looking.
        self._parts: list[bytes] = []
        self._size = 0
        self._enough = 0

        # What this turn of the loop has to say.
        self._turn: list[bytes] = []
        # Those who wait for the server's first words, and for the answer to a ping.
        self._opening: asyncio.Future[Info] = self._loop.create_future()
        self._pong: asyncio.Future[None] | None = None

    # ------------------------------------------------------------------------------------ asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast(asyncio.Transport, transport)
        endpoint = transport.get_extra_info("socket")
        if endpoint is not None:
            endpoint.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self.heard = self._loop.time()
        self.pinged = 0.0
        self._parts.append(data)
        self._size += len(data)
        if self._size < self._enough:
            return
        data = b"".join(self._parts) if len(self._parts) > 1 else data
        try:
            rest = data[self._read(data) :]
        except (ValueError, IndexError, msgspec.DecodeError):
            self.abort("what it says is not NATS' protocol")
            return
        self._parts = [rest] if rest else []
        self._size = len(rest)

    def connection_lost(self, error: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._end("the connection was lost" if error is None else f"the connection was lost: {error}")

    # -------------------------------------------------------------------------------------------- speaking

    def write(self, *parts: bytes) -> None:
        """Send at the end of this turn of the event loop."""
        if not self._turn:
            self._loop.call_soon(self._flush)
        self._turn.extend(parts)

    @property
    def unsent(self) -> int:
        """Bytes that the socket has not taken yet."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def ping(self) -> None:
        """Ask for a sign of life."""
        self.pinged = self._loop.time()
        self.write(b"PING\r\n")

    async def opened(self) -> Info:
        """The server's first words; raises `OSError`."""
        info: Info = await self._wait(self._opening)
        return info

    async def enter(self, said: dict[str, Any]) -> None:
        """Say who is there, and wait until the server has agreed; raises `OSError`, `Refused`."""
        self._pong = self._loop.create_future()
        self.write(b"CONNECT ", msgspec.json.encode(said), b"\r\nPING\r\n")
        await self._wait(self._pong)

    async def encrypt(self, context: Any, host: str) -> None:
        """Go on in TLS; raises `OSError`."""
        assert self._transport is not None
        transport = await self._loop.start_tls(
            self._transport, self, context, server_hostname=host, ssl_handshake_timeout=_PATIENCE
        )
        if transport is None:
            raise OSError("the connection was lost")
        self._transport = transport

    def leave(self, why: str) -> None:
        """End it; what has been written goes out as far as it can."""
        if self._transport is not None:
            self._transport.abort()
        self._end(why)

    def abort(self, why: str, *, silent: bool = False) -> None:
        """End it at once, and all that is on its way; `silent`: because nothing came for too long."""
        self.silent = silent
        if self._transport is not None:
            reset(self._transport)
        self._end(why)

    async def _wait(self, answer: asyncio.Future[Any]) -> Any:
        if self.ended is not None:
            raise OSError(self.ended)
        try:
            async with asyncio.timeout(_PATIENCE):
                return await answer
        except TimeoutError:
            raise OSError("it does not answer") from None

    def _flush(self) -> None:
        turn, self._turn = self._turn, []
        if self._transport is not None and self.ended is None:
            self._transport.write(b"".join(turn))

    # --------------------------------------------------------------------------------------------- hearing

    def _read(self, data: bytes) -> int:
        """Take the whole messages out of `data`; returns how far they go."""
        done, self._enough = 0, 0
        message = self.message
        while self.ended is None:
            end = data.find(b"\r\n", done)
            if end < 0:
                if len(data) - done > _LINE:
                    raise ValueError("a line without an end")
                break
            kind = data[done : done + 4]
            # Both have the size of everything at the end.
            if kind in (b"MSG ", b"HMSG"):
                words = data[done:end].split()
                size = int(words[-1])
                head = int(words[-2]) if kind == b"HMSG" else 0
                if not 0 <= head <= size <= _MESSAGE:
                    raise ValueError("no size of a message")
                begin = end + 2
                if len(data) < begin + size + 2:
                    self._enough = begin + size + 2 - done
                    break
                cut = begin + head
                done = begin + size + 2
                message(int(words[2]), words[1], data[begin:cut], data[cut : begin + size])
            else:
                line, done = data[done:end], end + 2
                self._word(line)
        return done

    def _word(self, line: bytes) -> None:
        word = line[:4].upper()
        if word == b"PING":
            self.write(b"PONG\r\n")
        elif word == b"PONG":
            if self._pong is not None and not self._pong.done():
                self._pong.set_result(None)
        elif word == b"INFO":
            self.info = msgspec.json.decode(line[4:], type=Info)
            if not self._opening.done():
                self._opening.set_result(self.info)
            elif self.info.ldm:
                self.abort("it is about to end")
        elif word == b"-ERR":
            self._refused(line[4:].decode(errors="replace").strip(" '"))
        elif word != b"+OK":
            raise ValueError("no word of NATS")

    def _refused(self, said: str) -> None:
        if self._pong is not None and not self._pong.done():
            self.refused = True
            self._pong.set_exception(Refused(said))
        elif said.startswith("Permissions Violation"):
            # What was asked for gets no answer, and nothing else is concerned.
            log.error("NATS does not allow what the engine needs: %s", said)
        else:
            self.abort(said)

    def _end(self, why: str) -> None:
        if self.ended is not None:
            return
        self.ended = why
        for answer in (self._opening, self._pong):
            if answer is not None and not answer.done():
                answer.set_exception(OSError(why))
                # Nobody may be waiting for it.
                answer.exception()
        if self.lost is not None:
            self.lost()


async def connect(address: Address, host: tuple[str, int], name: str) -> Connection:
    """Connect to one of the places of `address`, and say who is there; raises `OSError`, `Refused`, `ConfigError`."""
    loop = asyncio.get_running_loop()
    context = address.context()
    try:
        async with asyncio.timeout(_PATIENCE):
            _, connection = await loop.create_connection(Connection, *host)
    except TimeoutError:
        raise OSError("it does not answer") from None
    try:
        info = await connection.opened()
        where = f"{host[0]}:{host[1]}"
        version = tuple(int(part) for part in re.findall(r"\d+", info.version)[:2])
        if version < (2, 11) or not info.headers:
            raise ConfigError(f"NATS at {where} is version {info.version}: 2.11 or newer is needed")
        if context is not None:
            await connection.encrypt(context, host[0])
        secrets = {"user": address.user, "pass": address.password, "auth_token": address.token}
        said = {
            "verbose": False,
            "pedantic": False,
            "headers": True,
            "no_responders": True,
            "protocol": 1,
            "lang": "hubbub",
            "version": "1",
            "name": name,
            "tls_required": context is not None,
            **{key: value for key, value in secrets.items() if value},
        }
        await connection.enter(said)
    except BaseException:
        connection.abort("it was not wanted")
        raise
    return connection
