"""One connection to Redis: commands out, all of one turn of the event loop in one write; replies in, in order.

redis-py's connection takes eight microseconds for a command and its reply, twenty times what this one takes, and
knows no way to have a thousand commands of different callers on their way. Parsing and packing are hiredis' (C).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any, Final, cast

from hubbub.engines.redis.address import Address
from hubbub.errors import ConfigError

try:
    import hiredis
except ModuleNotFoundError:
    raise ConfigError("the engine on Redis needs hiredis: run `pip install 'hubbub[redis]'`") from None

__all__ = ["Connection", "Refused", "connect", "pack"]

# Seconds to connect, to shake hands in TLS, and for each answer of the beginning.
_PATIENCE: Final = 3.0

Refused = hiredis.ReplyError
"""What Redis says where it refuses a command: the text begins with a word in capitals."""


def pack(*words: str | bytes | int) -> bytes:
    """A command as Redis takes it."""
    packed: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]  # its stub knows only commands of one word
    return packed


class Connection(asyncio.Protocol):
    """A connection that stands; `receive` gets each reply, on the event loop's thread."""

    def __init__(self) -> None:
        self.receive: Callable[[Any], None] = self._answer
        # Why it has ended, or None. `lost` is called once then.
        self.ended: str | None = None
        self.lost: Callable[[], None] | None = None
        # Whether it has ended because nothing came for too long.
        self.silent = False

        self._transport: asyncio.Transport | None = None
        self._reader = hiredis.Reader()
        # Of `ask`, in order.
        self._asked: list[asyncio.Future[Any]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast(asyncio.Transport, transport)
        endpoint = transport.get_extra_info("socket")
        if endpoint is not None:
            endpoint.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        reader = self._reader
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not False:
                self.receive(reply)
                if self.ended is not None:
                    # Whoever received it has had enough.
                    break
        except hiredis.ProtocolError:
            self.abort("what it says is not Redis' protocol")

    def connection_lost(self, error: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._end("the connection was lost" if error is None else f"the connection was lost: {error}")

    def write(self, packed: bytes) -> None:
        """Send commands."""
        if self._transport is not None and self.ended is None:
            self._transport.write(packed)

    def abort(self, why: str, *, silent: bool = False) -> None:
        """End it at once; `silent`: because nothing came for too long."""
        self.silent = silent
        if self._transport is not None:
            self._transport.abort()
        self._end(why)

    async def ask(self, *command: str | bytes | int) -> Any:
        """Send one command and wait for its reply, before `receive` is taken; raises `Refused`, `OSError`."""
        if self.ended is not None:
            raise OSError(self.ended)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asked.append(answer)
        self.write(pack(*command))
        try:
            async with asyncio.timeout(_PATIENCE):
                return await answer
        except TimeoutError:
            raise OSError("it does not answer") from None

    def _answer(self, reply: Any) -> None:
        if not self._asked:
            return
        answer = self._asked.pop(0)
        if answer.done():
            return
        if isinstance(reply, Refused):
            answer.set_exception(reply)
        else:
            answer.set_result(reply)

    def _end(self, why: str) -> None:
        if self.ended is not None:
            return
        self.ended = why
        for answer in self._asked:
            if not answer.done():
                answer.set_exception(OSError(why))
        if self.lost is not None:
            self.lost()


async def connect(address: Address, name: str) -> Connection:
    """Connect, say who is there, and choose the database; raises `OSError`, `Refused`, `ConfigError`."""
    loop = asyncio.get_running_loop()
    context = address.context()
    try:
        async with asyncio.timeout(_PATIENCE):
            _, connection = await loop.create_connection(
                Connection,
                address.host,
                address.port,
                ssl=context,
                ssl_handshake_timeout=_PATIENCE if context is not None else None,
            )
    except TimeoutError:
        raise OSError("it does not answer") from None
    try:
        if address.password:
            await connection.ask("AUTH", *([address.user] if address.user else []), address.password)
        # For whoever looks at the server's clients; one that may not name itself is as good.
        with contextlib.suppress(Refused):
            await connection.ask("CLIENT", "SETNAME", name)
        if address.database:
            await connection.ask("SELECT", address.database)
    except BaseException:
        connection.abort("it was not wanted")
        raise
    return connection
