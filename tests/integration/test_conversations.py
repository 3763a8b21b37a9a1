"""Every conversation of the specification's vectors, over real sockets (spec/vectors/README.md)."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from itertools import count, cycle
from typing import Any
from urllib.parse import quote

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from hubbub.server import Server
from support.codecs import CODECS, JSON, Codec, loads
from support.loop import PATIENCE, run
from support.server import serving
from support.vectors import Mismatch, cases, fill_in, joined, match

pytestmark = pytest.mark.every_engine

# Seconds in which a drained server lets its clients go: they go at once, so it never takes so long.
DRAIN = 5.0

Message = dict[str, Any]


SCRIPTS = cases("conversations.json", "scripts")


def connects(script: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    return (step["connect"] for step in script["steps"] if "connect" in step)


# With somebody in the full way, whose codec the script leaves open.
FULL_SCRIPTS = [case for case in SCRIPTS if any(how.get("way") == "full" for how in connects(case.values[0]))]

# Whose clients are all plain: with a greeting before, nothing else is other.
PLAIN_SCRIPTS = [
    case
    for case in SCRIPTS
    if case not in FULL_SCRIPTS
    and {how.get("way") for how in connects(case.values[0])} == {"plain"}
    # It is about that way.
    and "plain" not in case.values[0]["name"]
    # What is in their parts is JSON.
    and "chunk" not in case.values[0].get("needs", ())
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_server_answers_as_the_specification_says(script: Mapping[str, Any], engine: str) -> None:
    """Each client hears exactly what it must, in the order it must, and nothing else."""
    if engine == "nats" and "own_numbers" in script.get("needs", ()):
        pytest.skip("NATS numbers several channels together")
    run(replay(script))


# Who speaks what, in the order in which they come, and then again.
MIXES = {"msgpack": ["msgpack"], "protobuf": ["protobuf"], "mixed": ["msgpack", "protobuf", "json"]}


@pytest.mark.own_numbers
@pytest.mark.parametrize("codecs", MIXES.values(), ids=MIXES)
@pytest.mark.parametrize("script", FULL_SCRIPTS)
def test_it_is_the_same_conversation_in_every_codec(script: Mapping[str, Any], codecs: list[str]) -> None:
    """Whoever is in the full way may speak any codec, and nobody notices what the others speak."""
    run(replay(script, [CODECS[name] for name in codecs]))


@pytest.mark.memory
@pytest.mark.parametrize("codecs", MIXES.values(), ids=MIXES)
@pytest.mark.parametrize("script", PLAIN_SCRIPTS)
def test_what_is_said_plainly_can_be_said_in_every_codec(script: Mapping[str, Any], codecs: list[str]) -> None:
    """Behind a greeting the plain way's conversations are those of the full way."""
    run(replay(script, [CODECS[name] for name in codecs], greeted=True))


async def replay(script: Mapping[str, Any], codecs: list[Codec] | None = None, *, greeted: bool = False) -> None:
    """Run one script against a fresh server; `codecs` are those of the clients in the full way, one after the other.

    `greeted`: who is plain in the script comes in the full way, and says hello.
    """
    options = {"presence_events": False, "presence_grace": 0, **script.get("options", {})}
    async with serving(**options) as server:
        conversation = Conversation(server, codecs or [JSON], greeted=greeted)
        try:
            for number, step in enumerate(script["steps"]):
                try:
                    async with asyncio.timeout(PATIENCE):
                        await conversation.take(step)
                except (Mismatch, TimeoutError, ConnectionClosed) as error:
                    raise AssertionError(f"step {number}, {json.dumps(step)}: {str(error) or 'no answer'}") from error
            await conversation.end()
        finally:
            await conversation.abort()


class Conversation:
    """The connections of one script, and what its `$name`s stand for."""

    def __init__(self, server: Server, codecs: list[Codec], *, greeted: bool) -> None:
        self._server = server
        # Of the clients in the full way, and whether that are all.
        self._codecs = cycle(codecs)
        self._greeted = greeted
        self._clients: dict[str, ClientConnection] = {}
        self._spoken: dict[str, Codec] = {}
        self._names: dict[str, object] = {}
        self._pings = count(1)
        self._draining: asyncio.Task[None] | None = None
        self._steps: dict[str, Callable[..., Awaitable[None]]] = {
            "connect": self._connect,
            "send": self._send,
            "send_text": self._send_text,
            "send_binary": self._send_binary,
            "expect": self._expect,
            "quiet": self._quiet,
            "close": self._close,
            "closed": self._closed,
            "server": self._stop,
        }

    async def take(self, step: Mapping[str, Any]) -> None:
        """One step; raises `Mismatch` where the server says something else."""
        # What a step is, is the key that is neither the client nor a detail of it.
        (kind,) = step.keys() - {"client", "refused", "ordered_by"}
        await self._steps[kind](step.get("client", ""), step[kind], step)

    async def end(self) -> None:
        """Whoever is still there has heard everything; then they go."""
        for client in self._clients:
            await self._quiet(client)
        for client in list(self._clients):
            await self._close(client, 1000)

    async def abort(self) -> None:
        """Leave nothing running, however the script ended."""
        for connection in self._clients.values():
            connection.transport.abort()
            await connection.wait_closed()
        if self._draining is not None:
            await self._draining

    async def _connect(self, client: str, how: Mapping[str, Any], step: Mapping[str, Any]) -> None:
        full = how.get("way") == "full" or self._greeted
        codec = next(self._codecs) if full else JSON
        offered = how.get("subprotocols", [codec.subprotocol] if full else None)
        query = f"?user_id={quote(how['user'], safe='')}" if "user" in how else ""
        url = self._server.address.replace("http", "ws", 1) + how.get("path", "/ws") + query
        try:
            connection = await open_websocket(
                url,
                subprotocols=None if offered is None else [Subprotocol(name) for name in offered],
                compression=None,
                ping_interval=None,
                open_timeout=PATIENCE,
                max_size=None,
                proxy=None,
            )
        except InvalidStatus as error:
            body = json.loads(error.response.body or b"null")
            match(step.get("refused"), {"status": error.response.status_code, "body": body}, self._names)
            return
        self._clients[client] = connection
        self._spoken[client] = codec
        match(step.get("refused"), None)
        match(how.get("chosen", offered[0] if offered else None), connection.subprotocol)
        if self._greeted:
            await self._send(client, {"type": "hello"}, None)
            match("welcome", (await self._next(client))["type"])

    async def _send(self, client: str, message: Message, _: object) -> None:
        await self._clients[client].send(self._spoken[client].wrong(fill_in(message, self._names)))

    async def _send_text(self, client: str, text: Any, _: object) -> None:
        codec, said = self._spoken[client], joined(text)
        await self._clients[client].send(said if codec is JSON else _said_in(codec, said))

    async def _send_binary(self, client: str, data: str, _: object) -> None:
        await self._clients[client].send(base64.b64decode(data))

    async def _expect(self, client: str, expected: Message | list[Message], step: Mapping[str, Any]) -> None:
        if isinstance(expected, dict):
            match(expected, await self._next(client), self._names)
            return
        messages = [await self._next(client) for _ in expected]
        names = _match_all(expected, messages, self._names, ordered="ordered_by" in step)
        if names is None:
            raise Mismatch(f"not as expected: {messages}")
        self._names = names

    async def _quiet(self, client: str, *_: object) -> None:
        ping = {"type": "ping", "id": f"quiet-{next(self._pings)}"}
        await self._clients[client].send(self._spoken[client].encode(ping))
        match({**ping, "type": "pong"}, await self._next(client))

    async def _close(self, client: str, code: int, *_: object) -> None:
        await self._clients.pop(client).close(code)

    async def _closed(self, client: str, code: int, _: object) -> None:
        connection = self._clients.pop(client)
        try:
            message = await connection.recv()
        except ConnectionClosed:
            match(code, connection.close_code)
        else:
            connection.transport.abort()
            raise Mismatch(f"it is not closed but says {message!r}")

    async def _stop(self, _: str, what: str, __: object) -> None:
        match("drain", what)
        self._draining = asyncio.create_task(self._server.drain(DRAIN))

    async def _next(self, client: str) -> Message:
        return self._spoken[client].decode(await self._clients[client].recv())


def _said_in(codec: Codec, text: str) -> str | bytes:
    try:
        return codec.wrong(loads(text))
    except ValueError:
        return codec.garbage


def _match_all(
    patterns: list[Message], messages: list[Message], names: dict[str, object], *, ordered: bool
) -> dict[str, object] | None:
    """What the names stand for when each pattern has a message of its own; None where that cannot be.

    `ordered`: the messages of one channel come in the order of their patterns.
    """
    if not patterns:
        return names
    seen: list[tuple[object, object]] = []
    for index, message in enumerate(messages):
        channel = (message.get("room"), message.get("to"))
        if ordered and channel in seen:
            continue
        seen.append(channel)
        tried = dict(names)
        try:
            match(patterns[0], message, tried)
        except Mismatch:
            continue
        rest = messages[:index] + messages[index + 1 :]
        found = _match_all(patterns[1:], rest, tried, ordered=ordered)
        if found is not None:
            return found
    return None
