"""One connection to Redis: commands out, all of one turn of the event loop in one write; replies in, in order.

redis-py's connection takes eight microseconds for a command and its reply, twenty times what this one takes, and
knows no way to have a thousand commands of different callers on their way. Parsing and packing are hiredis' (C).
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Any, Final, cast

from hubbub.engines.redis.address import Endpoint
from hubbub.engines.shared.sockets import reset
from hubbub.errors import ConfigError

try:
    import hiredis
except ModuleNotFoundError:
    raise ConfigError("the engine on Redis needs hiredis: run `pip install 'hubbub[redis]'`") from None

__all__ = ["Connection", "Refused", "connect", "pack", "reason"]

# Seconds to connect, to shake hands in TLS, and for each answer of the beginning.
_PATIENCE: Final = 3.0

# Where a script was refused something, Redis 6.2 says so behind the place in the script.
_WITHIN: Final = re.compile(r"-([A-Z]+) ")

Refused = hiredis.ReplyError
"""What Redis says where it refuses a command: the text begins with a word in capitals."""


def reason(error: Exception) -> str:
    """The word in capitals that says why Redis refuses a command."""
    text = str(error)
    word = text.partition(" ")[0]
    within = _WITHIN.search(text) if word == "ERR" else None
    return within[1] if within else word


def pack(*words: str | bytes | int) -> bytes:
    """A command as Redis takes it."""
    packed: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]  # its stub knows only commands of one word
    return packed


class Connection(asyncio.Protocol):
    """A connection that stands; `receive` gets each reply, on the event loop's thread."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
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


async def connect(endpoint: Endpoint, context: ssl.SSLContext | None) -> Connection:
    """Connect, in TLS where there is a `context`; raises `OSError`."""
    try:
        async with asyncio.timeout(_PATIENCE):
            _, connection = await asyncio.get_running_loop().create_connection(
                partial(Connection, endpoint), endpoint.host, endpoint.port, ssl=context
            )
    except TimeoutError:
        raise OSError(f"{endpoint} does not answer") from None
    except OSError as error:
        raise OSError(f"{endpoint} cannot be reached: {error}") from None
    return connection
