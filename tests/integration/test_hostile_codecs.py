"""Whatever a client says in MessagePack or Protobuf: an error, at a bounded price, and nobody else notices."""

from __future__ import annotations

import base64
import contextlib
import gc
import logging
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from hubbub.server import Server
from support.client import Client, Message, connect
from support.codecs import EXACT, MSGPACK, PROTOBUF, Codec, schema
from support.crossing import received, told
from support.loop import run
from support.server import serving
from support.vectors import cases, joined

BINARY = {codec.name: codec for codec in (MSGPACK, PROTOBUF)}
SIZE = 65_000


def refused(codec: Codec) -> list[bytes]:
    """Every message that the vectors refuse in a codec, the greetings left out."""
    found = [case.values[0] for case in cases("codecs.json", "refusals")]
    data = [bytes.fromhex(joined(case["data"])) for case in found if case["codec"] == codec.name]
    return [message for message in data if b"hello" not in message]


def check_error(error: Message) -> None:
    assert (error["type"], error["code"]) == ("error", "bad_message")
    assert 0 < len(error["message"]) < 200
    for leak in ("Traceback", "hubbub.protocol", "msgspec", "object at 0x", "google"):
        assert leak not in error["message"]


@contextlib.asynccontextmanager
async def watching(server: Server) -> AsyncIterator[list[Client]]:
    """A session in each codec."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(connect(server.address, name, codec=codec, full=True))
            for name, codec in EXACT.items()
        ]


def whole(client: Client) -> list[Message]:
    """The messages of applications that came, those in chunks too: some of these are larger in another codec."""
    found: list[Message] = []
    parts: dict[str, bytes] = {}
    for message in client.seen:
        if message["type"] == "chunk":
            parts[message["id"]] = parts.get(message["id"], b"") + base64.b64decode(message["data"])
            if message["index"] == message["total"] - 1:
                encoded = parts.pop(message["id"])
                found.append(client.codec.decode(encoded.decode() if client.codec.name == "json" else encoded))
        elif message["type"] == "chat":
            found.append(message)
    return found


async def still_works(client: Client) -> None:
    await client.sync()
    assert (await client.ask("join", room="afterwards"))["type"] == "joined"


@pytest.mark.parametrize("codec", BINARY.values(), ids=BINARY)
def test_what_is_no_message_is_a_bad_message(codec: Codec, caplog: pytest.LogCaptureFixture) -> None:
    """Each is answered, the connection stays, nothing is logged, and everybody else hears what is good alone."""

    async def main() -> None:
        async with serving() as server, connect(server.address, "alice") as alice:
            messages = refused(codec)
            for start in range(0, len(messages), 9):
                async with connect(server.address, "mallory", codec=codec) as client:
                    for message in messages[start : start + 9]:
                        await client.raw.send(message)
                        check_error(await client.expect("error"))
                    await still_works(client)
                    await client.say(start)
                    await alice.expect("chat", content=start)
            assert [message["content"] for message in alice.seen] == list(range(0, len(messages), 9))

    with caplog.at_level(logging.DEBUG, logger="hubbub"):
        run(main())

    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("codec", BINARY.values(), ids=BINARY)
def test_the_tenth_bad_message_ends_it(codec: Codec) -> None:
    """Garbage, text and what is too deep count alike; the tenth is answered, and then it is 4500."""

    deep = {
        "msgpack": b"\x82\xa4type\xa4chat\xa7content" + b"\x91" * 60_000,
        "protobuf": b"\x0a\x04chat" + b"\xa3\x06" * 30_000,
    }
    bad: list[str | bytes] = [codec.garbage, '{"type":"chat"}', deep[codec.name]]

    async def main() -> None:
        async with serving() as server, connect(server.address, "mallory", codec=codec) as client:
            for number in range(9):
                await client.raw.send(bad[number % 3])
                check_error(await client.expect("error"))
            await still_works(client)
            await client.raw.send(codec.garbage)
            check_error(await client.expect("error"))

            assert (await client.expect("goodbye"))["code"] == 4500
            assert (await client.closed())[0] == 4500

    run(main())


@pytest.mark.parametrize("codec", BINARY.values(), ids=BINARY)
def test_a_bad_greeting_ends_the_handshake(codec: Codec) -> None:
    """Whatever it is that is not a `hello`: an error in the codec, and 4500."""

    async def main() -> None:
        async with serving() as server:
            for message in (codec.garbage, '{"type":"hello"}', codec.encode({"type": "chat", "content": 1})):
                async with connect(server.address, "mallory", codec=codec, subprotocols=[codec.subprotocol]) as client:
                    await client.raw.send(message)
                    check_error(await client.expect("error"))

                    assert (await client.closed())[0] == 4500
            assert server.hub.local_sessions() == []

    run(main())


# ---------------------------------------------------------------------------------------------------------- prices


def packed(content: bytes, **before: bytes) -> bytes:
    """A message of MessagePack with a content, behind fields that are encoded already."""
    fields = {"type": b"\xa4chat", **before, "content": content}
    return bytes([0x80 | len(fields)]) + b"".join(
        bytes([0xA0 | len(name)]) + name.encode() + value for name, value in fields.items()
    )


def array(item: bytes) -> bytes:
    count = SIZE // len(item)
    return b"\xdd" + count.to_bytes(4) + item * count


def colliding(count: int = 4_300) -> bytes:
    """A map by lists that all have one hash: -1 and -2 have the same in Python."""
    keys = (b"\x9d" + bytes(0xFF if number >> bit & 1 else 0xFE for bit in range(13)) for number in range(count))
    return b"\xdf" + count.to_bytes(4) + b"".join(key + b"\xc0" for key in keys)


def envelope(type: str, **fields: Any) -> bytes:
    data = schema()(type=type, **fields).SerializeToString()
    assert isinstance(data, bytes)
    return data


def field(number: int, data: bytes) -> bytes:
    """A field of Protobuf with a length."""
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    return bytes([number]) if number < 0x80 else bytes([number & 0x7F | 0x80]) + _varint(number >> 7)


def nested_history(depth: int) -> bytes:
    data = b""
    for _ in range(depth):
        data = b"\x0a\x07history" + field(HISTORY, field(4, data))
    return data


HISTORY, PRESENCE, USERS = 28, 29, 30
HOSTILE: dict[str, tuple[str, Callable[[], bytes]]] = {
    "65,000 nils": ("msgpack", lambda: packed(array(b"\xc0"))),
    "65,000 empty maps": ("msgpack", lambda: packed(array(b"\x80"))),
    "65,000 empty lists": ("msgpack", lambda: packed(array(b"\x90"))),
    "as many, 63 deep": ("msgpack", lambda: packed(b"\x91" * 61 + array(b"\xc0"))),
    "65,000 nested": ("msgpack", lambda: packed(b"\x91" * SIZE)),
    "65,000 nested in what is ignored": ("msgpack", lambda: packed(b"\xc0", x=b"\x91" * SIZE)),
    "20,000 extensions": ("msgpack", lambda: packed(array(b"\xd4\x011"))),
    "20,000 times": ("msgpack", lambda: packed(array(b"\xd6\xff\0\0\0\1"))),
    "a number of 64,000 digits": ("msgpack", lambda: packed(b"\xc8\xfd\x00\x01" + b"9" * 0xFD00)),
    "keys that collide": ("msgpack", lambda: packed(colliding())),
    "keys that collide, in the id": ("msgpack", lambda: packed(b"\xc0", id=colliding())),
    "keys that collide, in what is ignored": ("msgpack", lambda: packed(b"\xc0", x=colliding())),
    "keys that collide, deep": ("msgpack", lambda: packed(b"\x91" * 20 + colliding())),
    "a list that says it has 2^32 - 1": ("msgpack", lambda: packed(b"\xdd\xff\xff\xff\xff" + b"\xc0" * SIZE)),
    "a map that says it has 2^32 - 1": ("msgpack", lambda: packed(b"\xdf\xff\xff\xff\xff" + b"\xc0" * SIZE)),
    "an envelope that says it has 2^32 - 1": ("msgpack", lambda: b"\xdf\xff\xff\xff\xff\xa4type\xa4chat"),
    "a string that says it has 2^32 - 1": ("msgpack", lambda: packed(b"\xdb\xff\xff\xff\xff" + b"x" * SIZE)),
    "lists in lists that say they have 2^32 - 1": ("msgpack", lambda: packed(b"\xdd\xff\xff\xff\xff" * (SIZE // 5))),
    "groups": ("protobuf", lambda: envelope("chat") + b"\xa3\x06" * (SIZE // 2)),
    "groups that end": ("protobuf", lambda: envelope("chat") + b"\xa3\x06" * 16_000 + b"\xa4\x06" * 16_000),
    "unknown fields": ("protobuf", lambda: envelope("chat") + b"\xa0\x06\x01" * (SIZE // 3)),
    "one field 16,000 times": ("protobuf", lambda: envelope("chat") + b"\x12\x02ab" * (SIZE // 4)),
    "as many contents": ("protobuf", lambda: envelope("chat") + b"\x32\x011\x3a\x011" * (SIZE // 6)),
    "messages in a question": ("protobuf", lambda: envelope("history") + field(HISTORY, b"\x22\x00" * (SIZE // 2))),
    "messages within messages": ("protobuf", lambda: envelope("history") + nested_history(2_000)),
    "members in a question": (
        "protobuf",
        lambda: envelope("presence", room="r") + field(PRESENCE, field(1, b"\x0a\x00" * (SIZE // 2))),
    ),
    "users in a question": ("protobuf", lambda: envelope("users") + field(USERS, b"\x12\x00" * (SIZE // 2))),
    "ids": ("protobuf", lambda: envelope("users") + field(USERS, b"\x0a\x00" * (SIZE // 2))),
    "rooms to resume": ("protobuf", lambda: envelope("hello") + field(20, field(3, b"\x1a\x00" * (SIZE // 2)))),
    "a JSON nested 64,000 deep": ("protobuf", lambda: envelope("chat", json="[" * 64_000)),
    "a JSON of 64,000 brackets": ("protobuf", lambda: envelope("chat", json="[" + "[]," * 21_000 + "[]]")),
    "a JSON of numbers, one of them beyond a double": (
        "protobuf",
        lambda: envelope("chat", json="[" + "1," * 32_000 + "1e400]"),
    ),
}
CASES = pytest.mark.parametrize(("name", "make"), HOSTILE.values(), ids=HOSTILE)


@pytest.mark.alone
@CASES
def test_no_message_of_64_kib_costs_much(name: str, make: Callable[[], bytes]) -> None:
    """Reading one takes less than 20 ms, and so does writing it in another codec where it is good."""
    message = make()
    assert len(message) < 66_000

    def read() -> None:
        received(name, message)

    def cross() -> None:
        told(name, message)

    reading = least(read)
    assert reading < 0.02
    if type(received(name, message)).__name__.endswith("Envelope"):
        assert (least(cross) - reading) / 2 < 0.02


def least(work: Callable[[], None]) -> float:
    """Seconds of this process, in the best of some tries."""
    taken: list[float] = []
    # The collector shall not look at the heap of all tests, which is no server's.
    gc.collect()
    gc.freeze()
    for _ in range(5):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    gc.unfreeze()
    return min(taken)


@pytest.mark.alone
@CASES
def test_no_message_of_64_kib_takes_much_memory(name: str, make: Callable[[], bytes]) -> None:
    """At most 100 bytes for each of its own while it is read, and nothing when that is done."""
    message = make()
    received(name, message)
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(10):
            received(name, message)
        gc.collect()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak - before < 100 * SIZE
    assert after - before < 10_000


@pytest.mark.every_engine
@pytest.mark.parametrize("codec", BINARY.values(), ids=BINARY)
def test_hostile_messages_are_nobody_elses_business(codec: Codec) -> None:
    """Each is answered or published; others, in every codec, go on talking, and hear what is good."""

    async def main() -> None:
        async with serving() as server, watching(server) as watchers:
            sent = [make() for name, make in HOSTILE.values() if name == codec.name]
            for number, message in enumerate(sent):
                async with connect(server.address, f"mallory-{number}", codec=codec) as client:
                    await client.raw.send(message)
                    await still_works(client)
                for watcher in watchers:
                    await watcher.say(number, to=watcher.user)
                    await watcher.expect("chat", content=number, to=watcher.user)
            await watchers[0].say("the end")
            for watcher in watchers:
                await watcher.expect("chat", content="the end")
            heard = [[told["seq"] for told in whole(watcher) if "to" not in told] for watcher in watchers]

            assert heard[0] == heard[1] == heard[2] == list(range(1, len(heard[0]) + 1))

    run(main())
