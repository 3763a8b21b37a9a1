"""Large messages over real sockets (protocol.md §7): whole, in order, bounded, and nobody else waits for them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from hubbub import Hub
from hubbub.client import Client, Message, connect
from hubbub.hub import Message as Handled
from hubbub.hub.formats import Framed
from hubbub.hub.transfers import Outgoing
from hubbub.protocol.chunks import PART_SIZE, cut, parts_of
from hubbub.server import Server
from support.client import Client as Raw
from support.client import connect as raw
from support.loop import PATIENCE, run
from support.server import serving

CODECS = ("json", "msgpack", "protobuf")

MEGABYTE = 1_000_000


def chunks(message: object, id: str, part: int = PART_SIZE) -> Iterator[dict[str, Any]]:
    """A message of JSON in chunks."""
    whole = json.dumps(message).encode()
    for index, data in enumerate(cut(whole, part)):
        yield a_chunk(id, index, parts_of(len(whole), part), data)


def a_chunk(id: str, index: int, total: int, data: bytes = b"{}") -> dict[str, Any]:
    return {"type": "chunk", "id": id, "index": index, "total": total, "data": base64.b64encode(data).decode()}


def joined(seen: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was heard, with the messages in chunks in the place of their last part."""
    found, parts = [], dict[str, list[str]]()
    for message in seen:
        if message["type"] != "chunk":
            found.append(message)
            continue
        collected = parts.setdefault(message["id"], [])

        assert message["index"] == len(collected)
        collected.append(message["data"])
        if len(collected) == message["total"]:
            found.append(json.loads(b"".join(map(base64.b64decode, parts.pop(message["id"])))))

    assert not parts
    return found


def held(server: Server) -> int:
    return server.hub.statistics().transfer_bytes


def as_user(address: str, user: str, codec: Any = "json") -> Client:
    return connect(f"{address}/?user_id={user}", codec=codec)


async def heard(client: Client, count: int) -> list[Message]:
    """The next messages, which all count as handled."""
    async with asyncio.timeout(PATIENCE):
        return [await anext(client) for _ in range(count)]


CONTENTS = {
    "bytes": bytes(range(256)) * 4_000,
    "text": "é\n" * 400_000,
    "a document": {"rows": [{"name": f"row {number}", "value": number / 7} for number in range(20_000)]},
}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
@pytest.mark.parametrize("sender", CODECS)
def test_a_room_of_all_codecs_gets_a_large_message_whole_and_in_order(sender: str, content: object) -> None:
    """Each receiver in its own codec, the small ones before and behind it in their places."""

    async def main() -> None:
        async with serving() as server, contextlib.AsyncExitStack() as stack:
            clients = {
                codec: await stack.enter_async_context(as_user(server.address, codec, codec)) for codec in CODECS
            }
            for client in clients.values():
                await client.join("room")
            sending = [clients[sender].send("doc", what, room="room") for what in ("before", content, "behind")]
            await asyncio.gather(*sending)
            for codec in CODECS:
                got = await heard(clients[codec], 3)

                assert [message.content for message in got] == ["before", content, "behind"], codec
                assert [message.seq for message in got] == [1, 2, 3]
            assert held(server) == 0

    run(main())


def test_what_comes_in_between_is_not_delayed_and_its_channel_keeps_its_order() -> None:
    """A slow reader gets small messages of another room while the large one is under way."""

    async def main() -> None:
        async with (
            serving(sndbuf=32_768) as server,
            raw(server.address, "alice") as alice,
            raw(server.address, "bob", full=True, rcvbuf=16_384) as bob,
        ):
            for room in ("large", "small"):
                await alice.join(room)
                await bob.join(room)
            await alice.sync()
            bob.stall()
            for chunk in chunks({"type": "doc", "room": "large", "content": "x" * MEGABYTE, "echo": False}, "t1"):
                await alice.send(chunk)
            await alice.say("behind", room="large", echo=False)
            for number in range(20):
                await alice.say(number, room="small", echo=False)
            await alice.sync()
            bob.resume()
            await bob.expect("chat", content="behind")
            kinds = [(message["type"], message.get("room"), message.get("content")) for message in bob.seen]
            last = max(index for index, kind in enumerate(kinds) if kind[0] == "chunk")
            small = [content for type, room, content in kinds[:last] if (type, room) == ("chat", "small")]

            assert small == list(range(20))
            got = [message for message in joined(bob.seen) if message.get("room") == "large" and "seq" in message]
            assert [message["seq"] for message in got] == [1, 2]

    run(main())


def test_an_ack_that_stands_for_a_message_keeps_its_place() -> None:
    """Without an echo, behind a large message that is still under way (protocol.md §5.4)."""

    async def main() -> None:
        async with (
            serving(sndbuf=32_768) as server,
            raw(server.address, "alice") as alice,
            raw(server.address, "bob", full=True, rcvbuf=16_384) as bob,
        ):
            await alice.join("room")
            await bob.join("room")
            bob.stall()
            for chunk in chunks({"type": "doc", "room": "room", "content": "x" * MEGABYTE}, "t1"):
                await alice.send(chunk)
            await alice.sync()
            await bob.say("mine", room="room", id="b1", echo=False)
            await alice.expect("chat", content="mine")
            bob.resume()
            await bob.expect("ack", id="b1")
            order = [message.get("seq") for message in joined(bob.seen) if message["type"] in ("doc", "ack")]

            assert order == [1, 2]

    run(main())


def test_a_pong_comes_behind_what_was_sent_before_it() -> None:
    """Also where that is large (protocol.md §4.2)."""

    async def main() -> None:
        async with serving() as server, raw(server.address, "alice") as alice:
            for chunk in chunks({"type": "doc", "content": "x" * MEGABYTE}, "t1"):
                await alice.send(chunk)
            content = "y" * MEGABYTE
            for chunk in chunks({"type": "ping", "content": content, "id": "p1"}, "t2"):
                await alice.send(chunk)
            await alice.send({"type": "ping", "id": "p2"})
            await alice.expect("pong", id="p2")
            got = joined(alice.seen)

            assert [message["type"] for message in got] == ["doc", "pong", "pong"]
            assert got[1]["content"] == content

    run(main())


@pytest.mark.parametrize("engine", ["memory", "sqlite"])
@pytest.mark.parametrize("codec", CODECS)
def test_what_was_missed_comes_whole_on_resume(codec: str, engine: str, tmp_path: Any) -> None:
    """A backlog of large messages and small ones, in each codec."""

    async def main() -> None:
        options: dict[str, Any] = {"data": str(tmp_path)} if engine == "sqlite" else {}
        async with serving(**options) as server, as_user(server.address, "alice") as alice:
            await alice.join("room")
            contents = ["small", "x" * 200_000, b"y" * 200_000, "small again", "z" * MEGABYTE]
            await asyncio.gather(*(alice.send("doc", content, room="room") for content in contents))
            await asyncio.gather(*(alice.send("doc", content, to="bob") for content in contents))
            async with as_user(server.address, "bob", codec) as bob:
                await bob.join("room", last=10)
                got = await heard(bob, 10)

                assert [message.content for message in got if message.room] == contents
                assert [message.content for message in got if message.to] == contents

    run(main())


@pytest.mark.parametrize("engine", ["memory", "sqlite"])
def test_history_of_many_large_messages_is_read_in_parts(engine: str, tmp_path: Any) -> None:
    """Forty of 4 MiB: `more` tells whether there are others, and none is left out."""

    async def main() -> None:
        options: dict[str, Any] = {"data": str(tmp_path), "durability": "normal"} if engine == "sqlite" else {}
        hub = Hub()
        async with serving(hub, **options) as server:
            for number in range(40):
                await hub.publish("doc", f"{number:02}" + "x" * 4_194_304, room="room")
            async with as_user(server.address, "bob") as bob:
                await bob.join("room", last=10)
                joined_late = await heard(bob, 10)
                found, seq = [], 0
                while True:
                    page = await bob.history("room", after=seq, limit=100)
                    found += [message.content[:2] for message in page.messages]
                    seq = page.messages[-1].seq or 0
                    if not page.more:
                        break
                newest = await bob.history("room")

                assert found == [f"{number:02}" for number in range(40)]
                assert newest.more
                assert [message.content[:2] for message in joined_late] == [f"{number}" for number in range(30, 40)]

    run(main())


def test_a_plain_client_has_read_what_was_written_to_it() -> None:
    """Also where it was large: its sender gets the receipt, and the next session nothing."""

    async def main() -> None:
        async with serving() as server, raw(server.address, "alice") as alice:
            async with raw(server.address, "bob") as bob:
                await bob.sync()
                message = {"type": "doc", "to": "bob", "content": "x" * MEGABYTE, "id": "a1", "receipt": True}
                for chunk in chunks(message, "t1"):
                    await alice.send(chunk)
                await alice.expect("receipt", id="a1", by="bob")
                await bob.sync()

                assert len(joined(bob.seen)[-1 - 1]["content"]) == MEGABYTE
            async with raw(server.address, "bob") as again:
                assert await again.sync() == []

    run(main())


def test_a_handler_gets_a_large_message_and_may_change_it() -> None:
    async def main() -> None:
        hub = Hub()

        @hub.on("doc")
        async def longer(message: Handled[str]) -> Handled[str]:
            message.content = message.content + "!"
            return message

        async with serving(hub) as server, raw(server.address, "alice") as alice:
            for chunk in chunks({"type": "doc", "content": "x" * MEGABYTE}, "t1"):
                await alice.send(chunk)
            await alice.sync()
            (doc,) = [message for message in joined(alice.seen) if message["type"] == "doc"]

            assert doc["content"] == "x" * MEGABYTE + "!"

    run(main())


def test_a_large_message_is_encoded_once_for_each_codec(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many get it, and the frames are shared by those who are equally far."""
    made: list[str] = []
    encoding, frame = Framed.encoding, Outgoing.frame

    def counted(format: Framed, message: object) -> bytes:
        made.append(format.codec.NAME)
        return encoding(format, message)

    frames: set[int] = set()

    def shared(outgoing: Outgoing, index: int) -> bytes:
        found = frame(outgoing, index)
        frames.add(id(found))
        kept.append(found)
        return found

    kept: list[bytes] = []
    monkeypatch.setattr(Framed, "encoding", counted)
    monkeypatch.setattr(Outgoing, "frame", shared)

    async def main() -> None:
        async with serving() as server, contextlib.AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(as_user(server.address, f"u{number}", CODECS[number % 3]))
                for number in range(12)
            ]
            for client in clients:
                await client.join("room")
            await clients[0].send("doc", "x" * MEGABYTE, room="room")
            for client in clients:
                (message,) = await heard(client, 1)

                assert message.content == "x" * MEGABYTE

    run(main())

    # The sender's own is what the engine keeps.
    assert sorted(made) == ["hubbub.v1.msgpack", "hubbub.v1.protobuf"]
    assert len(frames) <= len(kept) / 2


def test_a_volatile_large_message_reaches_who_is_there() -> None:
    """It has no place in the log, and what follows it does not get lost."""

    async def main() -> None:
        async with serving() as server, raw(server.address, "alice") as alice:
            for chunk in chunks({"type": "doc", "content": "x" * MEGABYTE, "volatile": True}, "t1"):
                await alice.send(chunk)
            for number in range(300):
                await alice.say(number)
            await alice.expect("chat", content=299)
            got = joined(alice.seen)

            assert [message.get("seq") for message in got] == [None, *range(1, 301)]

    run(main())


def test_chunks_have_a_rate_of_their_own_and_are_slowed_down() -> None:
    """The message inside counts as one; more than a thousand parts are not refused but wait."""

    async def main() -> None:
        async with serving(rate_limit="2/m burst 2") as server, raw(server.address, "alice") as alice:
            for chunk in chunks({"type": "chat", "content": "x" * 1_200, "id": "a1"}, "t1", part=1):
                await alice.send(chunk)
            await alice.expect("ack", id="a1")
            for chunk in chunks({"type": "chat", "content": "x", "id": "a2"}, "t2"):
                await alice.send(chunk)
            await alice.expect("ack", id="a2")
            for chunk in chunks({"type": "chat", "content": "x", "id": "a3"}, "t3"):
                await alice.send(chunk)
            refused = await alice.expect("error", code="rate_limited")

            assert refused["id"] == "a3"

    run(main())


# ------------------------------------------------------------------------------------------------ bounds


async def refused(client: Raw, id: str) -> str:
    return str((await client.expect("error", id=id))["code"])


def test_a_refusal_is_told_once() -> None:
    """The rest of the parts is on its way already; a transfer that begins anew counts again."""

    async def main() -> None:
        async with serving(large_message_size=100_000) as server, raw(server.address, "alice") as alice:
            for chunk in chunks({"type": "chat", "content": "x" * MEGABYTE}, "t1"):
                await alice.send(chunk)
            for chunk in chunks({"type": "chat", "content": "y" * 90_000}, "t1"):
                await alice.send(chunk)
            await alice.sync()
            got = joined(alice.seen)

            assert [message["type"] for message in got] == ["error", "chat", "pong"]
            assert (got[0]["code"], got[0]["id"]) == ("too_large", "t1")
            assert held(server) == 0

    run(main())


def test_what_is_wrong_with_a_transfer_frees_it() -> None:
    """A lie about index or total, bad base64, too much data, a hello or a chunk inside, nonsense inside."""

    async def main() -> None:
        async with serving() as server, raw(server.address, "alice") as alice, raw(server.address, "bob") as bob:
            large = a_chunk("t", 1, 3, b"x" * (PART_SIZE + 1))
            for number, second in enumerate(
                [
                    a_chunk("t", 2, 3),
                    a_chunk("t", 0, 3),
                    a_chunk("t", 1, 2),
                    a_chunk("t", 1, 4_097),
                    a_chunk("t", 1, 1),
                    {**a_chunk("t", 1, 3), "data": "!"},
                    large,
                ]
            ):
                id = f"t{number}"
                await bob.send({**a_chunk("t", 0, 3, b"x" * 1_000), "id": id})
                await bob.send({**second, "id": id})

                assert await refused(bob, id) == "bad_message"
                assert held(server) == 0
            for id, inside in {"u1": {"type": "hello"}, "u2": a_chunk("x", 0, 1), "u3": {"content": 1}}.items():
                for chunk in chunks(inside, id):
                    await alice.send(chunk)

                assert await refused(alice, id) == "bad_message"
            await alice.send(a_chunk("u4", 0, 1, b'{"type":"chat","content":"\xff"}'))
            assert await refused(alice, "u4") == "bad_message"
            assert held(server) == 0

    run(main())


def test_there_is_no_chunk_before_hello() -> None:
    async def main() -> None:
        async with serving() as server, raw(server.address, "alice", subprotocols=["hubbub.v1.json"]) as alice:
            await alice.send(a_chunk("t1", 0, 2))

            assert (await alice.closed())[0] == 4500
            assert held(server) == 0

    run(main())


def test_a_transfer_has_its_time() -> None:
    async def main() -> None:
        async with serving(transfer_timeout=0.3) as server, raw(server.address, "alice") as alice:
            await alice.send(a_chunk("t1", 0, 2, b"x" * 1_000))
            await alice.sync()

            assert held(server) == 1_000
            assert await refused(alice, "t1") == "bad_message"
            assert held(server) == 0
            await alice.send(a_chunk("t1", 1, 2))
            assert await alice.sync() == []

    run(main())


def test_all_sessions_together_have_a_bound() -> None:
    """Who comes too late is told to try again; the others finish, and are heard."""

    async def main() -> None:
        async with (
            serving(transfer_bytes=100_000) as server,
            raw(server.address, "alice") as alice,
            raw(server.address, "bob") as bob,
        ):
            parts = list(chunks({"type": "chat", "content": "x" * 80_000, "id": "a1"}, "t1"))
            for chunk in parts[:-1]:
                await alice.send(chunk)
            await alice.sync()
            for chunk in chunks({"type": "chat", "content": "y" * 80_000}, "t1"):
                await bob.send(chunk)
            error = await bob.expect("error", id="t1")

            assert (error["code"], error["retry_after"]) == ("unavailable", 1.0)
            await alice.send(parts[-1])
            await alice.expect("ack", id="a1")
            for chunk in chunks({"type": "chat", "content": "y" * 80_000, "id": "b1"}, "t1"):
                await bob.send(chunk)
            await bob.expect("ack", id="b1")
            assert held(server) == 0

    run(main())


@pytest.mark.parametrize("end", ["leave", "cut"])
def test_what_is_abandoned_is_freed(end: str) -> None:
    """However the session ends, and wherever it was."""

    async def main() -> None:
        async with serving() as server, raw(server.address, "bob") as bob:
            parts = list(chunks({"type": "chat", "content": "x" * 300_000}, "t1"))
            for count in range(len(parts) + 1):
                async with raw(server.address, "alice") as alice:
                    for chunk in parts[:count]:
                        await alice.send(chunk)
                    await alice.sync()
                    if end == "leave":
                        await alice.leave()
                async with asyncio.timeout(PATIENCE):
                    while server.hub.statistics().connections > 1:
                        await bob.sync()

                assert held(server) == 0

    run(main())


def test_a_reader_that_takes_nothing_of_a_large_message_is_gone_at_the_write_deadline() -> None:
    """What waits for it is not in its outbox, and nobody else notices."""

    async def main() -> None:
        async with (
            serving(sndbuf=32_768, write_deadline=1.0) as server,
            raw(server.address, "alice") as alice,
            raw(server.address, "bob", full=True, rcvbuf=16_384) as bob,
        ):
            bob.stall()
            for chunk in chunks({"type": "doc", "content": "x" * 10 * MEGABYTE}, "t1"):
                await alice.send(chunk)
            await alice.sync()
            (session,) = server.hub.local_sessions("bob")
            waiting = session.outbox.statistics().held_bytes + session.unsent

            assert waiting < 100_000
            async with asyncio.timeout(PATIENCE):
                while server.hub.statistics().connections > 1:
                    await alice.sync()
            bob.resume()
            assert (await bob.closed())[0] in (4000, 1006)

    run(main())
