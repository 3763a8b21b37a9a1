"""Compression in a hub: rooms of mixed clients, and how often a publication is compressed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import zlib
from typing import Any

import pytest

from contract.transports.harness import TEXT, frame, handshake
from hubbub import Hub, Message
from hubbub.protocol import deflate, frames
from support.client import Client, connect
from support.loop import eventually, run
from support.server import get, serving

# A kilobyte of the kind that applications send.
ORDER = {
    "order": "o-55213",
    "items": [{"sku": f"{number * 7919:08x}", "name": "Blue kettle", "price": 19.9} for number in range(20)],
}


def extension_of(client: Client) -> str | None:
    """What the server has answered."""
    assert client.raw.response is not None
    return client.raw.response.headers.get("Sec-WebSocket-Extensions")


@pytest.fixture
def compressions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The window of each compression that is done."""
    windows: list[int] = []
    compress = deflate.compress

    def count(payload: bytes, window: int, level: int) -> bytes:
        windows.append(window)
        return compress(payload, window, level)

    monkeypatch.setattr(frames, "compress", count)
    return windows


def test_everybody_gets_the_same_whether_compressed_or_not() -> None:
    """In one room: `websockets`, which offers it by itself, plain and full, and clients that do not."""

    async def main() -> None:
        async with (
            serving(compression=True) as server,
            connect(server.address, "anna", compression="deflate") as anna,
            connect(server.address, "bob") as bob,
            connect(server.address, "carol", full=True, compression="deflate") as carol,
            connect(server.address, "dave", full=True) as dave,
        ):
            clients = (anna, bob, carol, dave)
            for client in clients:
                await client.join("orders")
            for client in clients:
                await client.say(ORDER, room="orders")
                await client.say("short", room="orders")
                for other in clients:
                    for content in (ORDER, "short"):
                        heard = await other.expect("chat", from_=client.user)

                        assert heard["content"] == content
            texts = [[text for text in client.texts if '"chat"' in text] for client in clients]
            assert all(found == texts[0] and len(found) == 8 for found in texts)
            assert [extension_of(client) is not None for client in clients] == [True, False, True, False]

    run(main())


def test_a_publication_is_compressed_once_for_all(compressions: list[int]) -> None:
    """Whoever agreed on the same window gets the same bytes; nobody else costs anything."""

    async def main() -> None:
        async with serving(compression=True) as server, contextlib.AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(connect(server.address, f"user{number}", compression="deflate"))
                for number in range(20)
            ]
            plain = await stack.enter_async_context(connect(server.address, "plain"))
            for number in range(3):
                compressions.clear()
                await plain.say({"number": number, **ORDER})
                for client in (*clients, plain):
                    heard = await client.expect("chat")

                    assert heard["content"]["number"] == number
                assert compressions == [15]

    run(main())


def test_nothing_is_compressed_where_nobody_asks(compressions: list[int]) -> None:
    async def main() -> None:
        async with serving(compression=True) as server, connect(server.address, "anna") as anna:
            await anna.say(ORDER)
            await anna.expect("chat")

    run(main())

    assert compressions == []


def test_off_is_the_default(compressions: list[int]) -> None:
    """Who offers it gets no answer to that, and everything else."""

    async def main() -> None:
        async with serving() as server, connect(server.address, "anna", compression="deflate") as anna:
            await anna.say(ORDER)
            heard = await anna.expect("chat")

            assert heard["content"] == ORDER
            assert extension_of(anna) is None

    run(main())

    assert compressions == []


def test_options_say_what_is_compressed(compressions: list[int]) -> None:
    async def main() -> None:
        async with (
            serving(compression=True, compression_threshold=5_000) as server,
            connect(server.address, "anna", compression="deflate") as anna,
        ):
            await anna.say(ORDER)
            await anna.expect("chat")

            assert compressions == []
            await anna.say([ORDER] * 5)
            await anna.expect("chat")
            assert compressions == [15]
            assert (await get(server.address, "/health")).status == 200

    run(main())


@pytest.mark.parametrize("compressed", [True, False], ids=["compressed", "plain"])
def test_what_waits_in_a_session_is_bounded_in_bytes(compressed: bool) -> None:
    """A hundred bytes may become 64,000 that wait; and one character for which each of a text's takes four bytes."""
    text = json.dumps({"type": "slow", "content": "\U0001f600"}, ensure_ascii=False).encode().ljust(64_000)
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    small = stream.compress(text) + stream.flush() + b"\0"

    async def main() -> None:
        hub, free, count = Hub(), asyncio.Event(), 0

        @hub.on("slow")
        async def slow(message: Message[Any]) -> None:
            nonlocal count
            count += 1
            await free.wait()

        async with serving(hub, compression=True) as server:
            host, _, port = server.address.removeprefix("http://").rpartition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(handshake("/ws?user_id=mallory", "Sec-WebSocket-Extensions: permessage-deflate"))
            writer.write((frame(TEXT, small, rsv=4) if compressed else frame(TEXT, text)) * 40)
            await eventually(lambda: count == 1)
            (session,) = server.hub.local_sessions("mallory")
            await eventually(lambda: session._paused)
            # Whoever came later has been answered, and nothing more has been taken of this one.
            await get(server.address, "/health")
            assert session._queue is not None

            # Four of the largest in bytes, the one that is over, and what the last read brought of plain ones.
            assert session._queue.size < (4 + 4 + (0 if compressed else 8)) * 65_536
            free.set()
            await eventually(lambda: count == 40)
            await eventually(lambda: session._queue is None)
            writer.transport.abort()
            reader.feed_eof()

    run(main())
