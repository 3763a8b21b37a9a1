"""One session of a test: a thin client over the `websockets` package, which shares no code with the server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from itertools import count
from typing import Any
from urllib.parse import quote

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from support.certificates import AUTHORITY
from support.codecs import JSON, Codec
from support.loop import PATIENCE

__all__ = ["FULL", "Client", "Message", "connect", "open_client"]

Message = dict[str, Any]

FULL = "hubbub.v1.json"
"""The subprotocol that chooses the full way."""


class Client:
    """A connection that writes down all it hears, in order."""

    def __init__(self, raw: ClientConnection, user: str, codec: Codec = JSON) -> None:
        # The connection itself, for what this class does not do.
        self.raw = raw
        self.codec = codec
        self.user = user
        # Every message that came, oldest first.
        self.seen: list[Message] = []
        # The same as it came over the wire; none in a binary codec.
        self.texts: list[str] = []
        # The answer to `hello`; empty on a plain session.
        self.welcome: Message = {}
        # Those that no `expect` has taken yet.
        self._waiting: list[Message] = []
        # How many have been taken, so that a waiting `expect` notices that another one moved the list.
        self._taken = 0
        self._changed = asyncio.Event()
        self._ids = count(1)
        self._reading = asyncio.get_running_loop().create_task(self._read())

    def __repr__(self) -> str:
        return f"<Client {self.user}, {len(self.seen)} seen>"

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                encoded = await self.raw.recv()
                message = self.codec.decode(encoded)
                if isinstance(encoded, str):
                    self.texts.append(encoded)
                self.seen.append(message)
                self._waiting.append(message)
                self._changed.set()
        self._changed.set()

    # --- saying ---

    async def send(self, message: object) -> None:
        """Send an object in the session's codec."""
        await self.raw.send(self.codec.encode(message))

    async def send_text(self, text: str) -> None:
        """Send a text as it is."""
        await self.raw.send(text)

    async def say(self, content: object, **fields: Any) -> None:
        """Send a `chat` message."""
        await self.send({"type": "chat", "content": content, **fields})

    async def ask(self, type: str, **fields: Any) -> Message:
        """Send a request with a fresh id and return what answers it: the message with this id."""
        id = fields.pop("id", f"ask-{next(self._ids)}")
        await self.send({"type": type, "id": id, **fields})
        return await self.expect(id=id)

    async def join(self, room: str, **fields: Any) -> Message:
        """Join a room; returns `joined`."""
        joined = await self.ask("join", room=room, **fields)

        assert joined["type"] == "joined", joined
        return joined

    # --- hearing ---

    async def expect(self, type: str | None = None, **fields: Any) -> Message:
        """Take the oldest message, taken by no other `expect`, that has this type and these fields.

        A field of None must be absent. Others stay for a later `expect`; for their order look at `seen`.
        """
        wanted = {key.rstrip("_"): value for key, value in fields.items()}
        if type is not None:
            wanted["type"] = type
        try:
            async with asyncio.timeout(PATIENCE):
                looked_at, taken = 0, self._taken
                while True:
                    if taken != self._taken:
                        looked_at, taken = 0, self._taken
                    for index in range(looked_at, len(self._waiting)):
                        if _matches(self._waiting[index], wanted):
                            self._taken += 1
                            return self._waiting.pop(index)
                    looked_at = len(self._waiting)
                    if self._reading.done():
                        raise AssertionError(f"{self.user} was closed before {wanted}; heard {self._tail()}")
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"{self.user} waited in vain for {wanted}; heard {self._tail()}") from None

    def _tail(self) -> str:
        return " ".join(json.dumps(message)[:200] for message in self._waiting[-10:]) or "nothing"

    async def sync(self) -> list[Message]:
        """Wait until everything that the server has sent is here, and take it: a ping's pong comes behind it."""
        id = f"sync-{next(self._ids)}"
        await self.send({"type": "ping", "id": id})
        await self.expect("pong", id=id)
        taken, self._waiting = self._waiting, []
        self._taken += 1
        return taken

    def heard(self, type: str | None = None, **fields: Any) -> list[Message]:
        """All messages so far with this type and these fields, in order."""
        wanted = {
            **({} if type is None else {"type": type}),
            **{key.rstrip("_"): value for key, value in fields.items()},
        }
        return [message for message in self.seen if _matches(message, wanted)]

    # --- the connection ---

    def stall(self) -> None:
        """Read nothing more from the socket: its buffers fill, and then the server notices."""
        self.raw.transport.pause_reading()

    def resume(self) -> None:
        """Read again after `stall`."""
        self.raw.transport.resume_reading()

    def cut(self) -> None:
        """Lose the network: the TCP connection is reset without a word."""
        self.raw.transport.abort()

    async def closed(self) -> tuple[int, str]:
        """Wait until the connection has ended; the server's close code and reason, 1006 for none."""
        async with asyncio.timeout(PATIENCE):
            await self._reading
            await self.raw.wait_closed()
        received = self.raw.protocol.close_rcvd
        return (1006, "") if received is None else (received.code, received.reason)

    async def leave(self) -> None:
        """Close politely and wait for the end; harmless when it has ended."""
        self.raw.transport.resume_reading()
        await self.raw.close()
        await self.closed()


def _matches(message: Message, wanted: Message) -> bool:
    for key, value in wanted.items():  # noqa: SIM110  # `all` over a generator is half of a busy test's time
        if message.get(key) != value:
            return False
    return True


async def open_client(
    address: str,
    user: str | None,
    *,
    full: bool = False,
    codec: Codec = JSON,
    hello: Message | None = None,
    query: str = "",
    headers: dict[str, str] | None = None,
    subprotocols: list[str] | None = None,
    rcvbuf: int | None = None,
    compression: str | None = None,
) -> Client:
    """Open a session at `address` (`http://host:port`, or `https`) as `user`, and in the full way await its `welcome`.

    In a `codec` that is not JSON there is only the full way.

    `hello` has the fields of the greeting; `subprotocols` offers these and greets nobody. `rcvbuf` bounds
    the kernel's receive buffer, so that a stalled client is noticed soon. `compression` may be
    "deflate", which is offered then.
    """
    scheme, _, place = address.partition("://")
    host, _, port = place.rpartition(":")
    parts = [f"user_id={quote(user, safe='')}"] if user is not None else []
    parts += [query] if query else []
    sock = socket.socket()
    try:
        if rcvbuf is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
        full = full or (codec is not JSON and subprotocols is None)
        offered = subprotocols if subprotocols is not None else [codec.subprotocol] if full else None
        raw = await open_websocket(
            f"{scheme.replace('http', 'ws')}://{place}/ws" + ("?" + "&".join(parts) if parts else ""),
            sock=sock,
            ssl=AUTHORITY.trusted if scheme == "https" else None,
            subprotocols=None if offered is None else [Subprotocol(name) for name in offered],
            additional_headers=headers,
            compression=compression,
            # The tests look at liveness themselves.
            ping_interval=None,
            open_timeout=PATIENCE,
            close_timeout=PATIENCE,
            max_size=None,
            # Without a queue's bound `websockets` never pauses reading by itself, so `stall` is ours alone.
            max_queue=None,
            proxy=None,
        )
    except BaseException:
        sock.close()
        raise
    client = Client(raw, user or "", codec)
    if full:
        await client.send({"type": "hello", **(hello or {})})
        client.welcome = await client.expect("welcome")
    return client


@contextlib.asynccontextmanager
async def connect(address: str, user: str | None, **options: Any) -> AsyncIterator[Client]:
    """A session for the length of a block; see `open_client` for the options."""
    client = await open_client(address, user, **options)
    try:
        yield client
    finally:
        # In a test that has failed the server may not answer any more.
        client.cut()
        await client.closed()
