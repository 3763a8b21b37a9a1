"""What waits behind a large message, and who does not: acks, leaving, joining, pings (protocol.md §7)."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from msgspec import Raw

from hubbub import Hub
from hubbub.core import channel
from hubbub.core.channel import Hold
from hubbub.hub import Message as Handled
from hubbub.hub import transfers
from hubbub.server import Server
from hubbub.types import Identity, Publication
from integration.test_large_messages import MEGABYTE, a_chunk, chunks, held, joined
from support.client import Client
from support.client import connect as raw
from support.loop import PATIENCE, run
from support.server import serving


async def say_large(client: Client, id: str, size: int = MEGABYTE, **fields: Any) -> None:
    for chunk in chunks({"type": "doc", "content": "x" * size, **fields}, id):
        await client.send(chunk)


def places(client: Client, *types: str) -> list[tuple[str, int | None]]:
    return [(message["type"], message.get("seq")) for message in joined(client.seen) if message["type"] in types]


# ---------------------------------------------------------------------------------------------- in their place


def test_an_ack_that_waits_for_its_place_is_not_forgotten() -> None:
    """Not where more waits than is held back, and the rest is read from the log: no own message comes back instead."""

    async def main() -> None:
        async with (
            serving(sndbuf=32_768) as server,
            raw(server.address, "alice") as alice,
            raw(server.address, "bob", full=True, rcvbuf=16_384) as bob,
        ):
            await alice.join("room")
            await bob.join("room")
            bob.stall()
            await say_large(alice, "t1", room="room")
            await alice.sync()
            for number in range(400):
                await bob.say(number, room="room", echo=False, **({"id": f"b{number}"} if number % 2 else {}))
                await alice.expect("chat", content=number)
                await alice.say(number, room="room", echo=False, id=f"a{number}")
                await alice.expect("ack", id=f"a{number}")
            bob.resume()
            await bob.sync()

            expected = [("doc", 1), *((("ack", "chat")[seq % 2], seq) for seq in range(2, 802))]
            assert places(bob, "doc", "ack", "chat") == expected
            acknowledged = [message["id"] for message in bob.heard("ack") if "id" in message]
            assert acknowledged == [f"b{number}" for number in range(1, 400, 2)]

    run(main())


def test_more_acks_than_may_wait_end_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes back, and asks again: nothing is lost, and nothing grows without a bound."""
    monkeypatch.setattr(channel, "_MOST_ACKS", 5)

    async def main() -> None:
        async with (
            serving(sndbuf=32_768) as server,
            raw(server.address, "alice") as alice,
            raw(server.address, "bob", full=True, rcvbuf=16_384) as bob,
        ):
            await alice.join("room")
            await bob.join("room")
            bob.stall()
            await say_large(alice, "t1", room="room", size=5 * MEGABYTE)
            await alice.sync()
            for number in range(6):
                await bob.say(number, room="room", echo=False)
                await alice.expect("chat", content=number)
            async with asyncio.timeout(PATIENCE):
                while server.hub.local_sessions("bob"):
                    await alice.sync()
            bob.resume()

            assert (await bob.closed())[0] in (4000, 1006)

    run(main())


def test_an_ack_is_sent_where_the_session_is_taken_out_of_the_room() -> None:
    """It has no place any more, says `duplicate`, and comes all the same: who sent it waits for it."""

    async def main() -> None:
        hub = Hub()
        users = ["alice", "bob", "bob"]
        forbidden: list[str] = []

        @hub.authenticate
        async def authenticate(_: object) -> Identity:
            return Identity(user=users.pop(0))

        @hub.authorize
        async def authorize(session: object, action: object, target: object) -> bool:
            return str(action) not in forbidden

        async with (
            serving(hub, sndbuf=32_768) as server,
            raw(server.address, "alice") as alice,
            raw(server.address, "bob", full=True, rcvbuf=16_384) as bob,
        ):
            await alice.join("room")
            await bob.join("room")
            bob.stall()
            await say_large(alice, "t1", 2 * MEGABYTE, room="room")
            await alice.sync()
            await bob.say("mine", room="room", id="b1", echo=False)
            await alice.expect("chat", content="mine")
            await bob.say("nobody asks", room="room", echo=False)
            await alice.expect("chat", content="nobody asks")
            forbidden.append("join")
            await bob.send({"type": "auth", "token": "x", "id": "new"})
            await alice.sync()
            bob.resume()
            await bob.expect("left", room="room", code="forbidden")
            await bob.sync()
            last = [message for message in joined(bob.seen) if message["type"] in ("doc", "ack", "left")]

            acks = [message for message in last if message["type"] == "ack"]
            assert [(ack["id"], ack.get("duplicate")) for ack in acks] == [("new", None), ("b1", True)]
            assert last[-1]["type"] == "left"

    run(main())


def test_a_volatile_message_keeps_its_place_behind_a_large_one() -> None:
    """Also where more waits than is held back: it comes in its place, or not at all."""

    async def main() -> None:
        async with (
            serving(sndbuf=32_768) as server,
            raw(server.address, "alice") as alice,
            raw(server.address, "bob", full=True, rcvbuf=16_384) as bob,
        ):
            await alice.join("room")
            await bob.join("room")
            bob.stall()
            await say_large(alice, "t1", room="room")
            for number in range(400):
                await alice.say(number, room="room", volatile=number in (10, 350))
            await alice.sync()
            bob.resume()
            await bob.sync()
            got = [message["content"] for message in bob.heard("chat")]

            assert got == [number for number in range(400) if number != 10]

    run(main())


# ------------------------------------------------------------------------------------------ leaving and joining


@pytest.mark.parametrize("asked", ["leave", "join", "since"])
def test_what_waits_its_turn_does_not_come_behind_the_answer(asked: str) -> None:
    """A large message of a room waits for that of another: after `left` nothing, after `joined` nothing twice."""

    async def main() -> None:
        async with (
            serving(sndbuf=32_768) as server,
            raw(server.address, "alice") as alice,
            raw(server.address, "bob", full=True, rcvbuf=16_384) as bob,
        ):
            for room in ("other", "room"):
                await alice.join(room)
                position = (await bob.join(room))["position"]
            await alice.say("first", room="room")
            await bob.expect("chat", content="first")
            bob.stall()
            await say_large(alice, "t1", 2 * MEGABYTE, room="other")
            await alice.sync()
            since = {"since": position} if asked == "since" else {}
            await bob.send({"type": "leave" if asked == "leave" else "join", "room": "room", "id": "q", **since})
            await alice.sync()
            await say_large(alice, "t2", room="room")
            await alice.say("last", room="room")
            await alice.sync()
            bob.resume()
            answer = await bob.expect(id="q")
            await bob.sync()
            got = [message for message in joined(bob.seen) if message.get("room") == "room"]
            index = next(index for index, message in enumerate(got) if message.get("id") == "q")
            seqs = [message.get("seq") for message in got[index + 1 :]]

            if asked == "leave":
                assert seqs == []
            else:
                start = position[1] if asked == "since" else answer["position"][1]
                assert seqs == list(range(start + 1, 4))

    run(main())


def test_leaving_waits_for_the_transfer_that_has_begun() -> None:
    """A client could do nothing with half of it; what is behind that does not come."""

    async def main() -> None:
        async with (
            serving(sndbuf=32_768) as server,
            raw(server.address, "alice") as alice,
            raw(server.address, "bob", full=True, rcvbuf=16_384) as bob,
        ):
            await alice.join("room")
            await bob.join("room")
            bob.stall()
            await say_large(alice, "t1", room="room")
            await say_large(alice, "t2", room="room")
            await alice.sync()
            await bob.send({"type": "leave", "room": "room", "id": "q"})
            await alice.sync()
            bob.resume()
            await bob.expect("left", id="q")
            await bob.sync()

            assert places(bob, "doc", "left") == [("doc", 1), ("left", None)]

    run(main())


def talking(server: Server, monkeypatch: pytest.MonkeyPatch, until: asyncio.Event) -> None:
    """Whenever a reader has got to the end of the room there is more, `until` this is set."""
    node = server.hub._node
    merge = Hold.merge

    assert node is not None

    def talk(hold: Hold, seq: int) -> Any:
        if not until.is_set():
            told = Publication("talk", "alice", room="room", content=Raw(b'"' + b"x" * 10_000 + b'"'))
            node.engine.publish_now("room:room", told, False, None)
        return merge(hold, seq)

    monkeypatch.setattr(Hold, "merge", talk)


@pytest.mark.parametrize("way", ["join", "hello"])
def test_who_comes_into_a_room_that_never_stops_talking_is_answered(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it says after that is handled when what was missed has been sent, and it may leave again."""

    async def main() -> None:
        async with serving() as server, raw(server.address, "alice") as alice:
            position = (await alice.join("room"))["position"]
            await alice.say("first", room="room")
            await alice.sync()
            answered = asyncio.Event()
            async with asyncio.timeout(PATIENCE), raw(server.address, "bob", subprotocols=["hubbub.v1.json"]) as bob:
                resume = {"resume": {"rooms": {"room": position}}} if way == "hello" else {}
                # The inbox and `all` are merged, too: the room has something new at each of them.
                talking(server, monkeypatch, answered)
                await bob.send({"type": "hello", **resume})
                await bob.expect("welcome")
                if way == "join":
                    await bob.join("room", since=position)
                await bob.sync()
                await bob.ask("leave", room="room")
                await bob.sync()
                answered.set()
                seqs = [message["seq"] for message in joined(bob.seen) if "seq" in message]

                assert seqs == list(range(1, len(seqs) + 1))
                assert [message["content"] for message in bob.heard("chat")] == ["first"]

    run(main())


@pytest.mark.parametrize("type", ["ping", "join", "leave"])
def test_nobody_waits_for_a_room_that_never_stops_talking(type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever a reader has got to the end there is more: what came before the request comes before the answer."""

    async def main() -> None:
        async with serving() as server, raw(server.address, "alice") as alice, raw(server.address, "bob") as bob:
            await alice.join("room")
            await bob.join("room")
            answered = asyncio.Event()
            talking(server, monkeypatch, answered)
            await say_large(alice, "t1", room="room")
            await bob.expect("talk")
            before = len(bob.heard("talk"))
            await bob.send({"type": type, "id": "q", **({} if type == "ping" else {"room": "room"})})
            try:
                await bob.expect(id="q")
            finally:
                answered.set()
            await bob.sync()
            got = joined(bob.seen)
            index = next(index for index, message in enumerate(got) if message.get("id") == "q")
            seqs = [message["seq"] for message in got[:index] if "seq" in message]
            rest = [message["seq"] for message in got[index:] if "seq" in message]

            assert seqs == list(range(1, len(seqs) + 1))
            if type == "leave":
                assert rest == []
            else:
                # The large one is the first.
                assert len(seqs) > before
                start = len(seqs) if type == "ping" else got[index]["position"][1]
                assert rest == list(range(start + 1, start + 1 + len(rest)))

    run(main())


# ------------------------------------------------------------------------------------------------ too large


def test_what_a_handler_returns_is_as_bounded_as_what_is_published(caplog: pytest.LogCaptureFixture) -> None:
    """Its sender gets `internal`, the operator one line, and the room nothing that it could not read."""

    async def main() -> None:
        hub = Hub()

        @hub.on("grow")
        async def grow(message: Handled[Any]) -> Handled[Any]:
            message.content = "x" * message.content
            return message

        async with serving(hub, large_message_size=100_000) as server, raw(server.address, "alice") as alice:
            await alice.send({"type": "grow", "content": 99_998, "id": "a1"})
            await alice.expect("ack", id="a1")
            with caplog.at_level(logging.ERROR, "hubbub"):
                await alice.send({"type": "grow", "content": 99_999, "id": "a2"})
                error = await alice.expect("error", id="a2")

            assert error["code"] == "internal"
            assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == [
                "what the handler of grow returned cannot be sent: its content is larger than 100000 bytes"
            ]

    run(main(), logs_errors=True)


def test_what_nobody_could_put_together_is_a_gap(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Live, read from the log, and as an answer: no transfer of more parts than there may be begins."""
    monkeypatch.setattr(transfers, "MOST_PARTS", 20)

    async def main() -> None:
        hub = Hub()
        async with serving(hub) as server, raw(server.address, "alice") as alice:
            await alice.join("room")
            with caplog.at_level(logging.ERROR, "hubbub"):
                await hub.publish("doc", "x" * MEGABYTE, room="room")
                await hub.publish("chat", "behind", room="room")
                gap = await alice.expect("gap")
                await alice.expect("chat", content="behind")
                await alice.join("room", last=2)
                again = await alice.expect("gap")
                await alice.expect("chat", content="behind")
                await alice.send({"type": "history", "room": "room", "before": 2, "id": "h1"})
                await alice.expect("error", id="h1", code="too_large")

            assert gap == again == {"type": "gap", "room": "room", "from": 1, "to": 1}
            assert all("20 chunks" in record.getMessage() for record in caplog.records)
            assert places(alice, "gap", "chat") == [("gap", None), ("chat", 2)] * 2

    run(main(), logs_errors=True)


# ------------------------------------------------------------------------------------------------- coming in


def test_a_transfer_is_not_late_while_the_server_does_not_look() -> None:
    """All of it has been sent in time: that an earlier message is still being handled is not its fault."""

    async def main() -> None:
        hub = Hub()
        go_on = asyncio.Event()

        @hub.on("slow")
        async def slow(message: Handled[Any]) -> None:
            await go_on.wait()

        async with (
            serving(hub, transfer_timeout=0.2) as server,
            raw(server.address, "alice") as alice,
            raw(server.address, "bob") as bob,
        ):
            first, *rest = chunks({"type": "doc", "to": "carol", "content": "x" * 200_000, "id": "a1"}, "t1")
            await alice.send(first)
            await alice.send({"type": "slow"})
            for chunk in rest:
                await alice.send(chunk)
            node = server.hub._node

            assert node is not None
            until = node.wheel.now + 1.5
            async with asyncio.timeout(PATIENCE):
                while node.wheel.now < until:
                    await bob.sync()
            go_on.set()
            await alice.expect("ack", id="a1")
            await alice.send(first)
            await alice.expect("error", id="t1", code="bad_message")

            assert alice.heard("error") == alice.heard("error", id="t1")
            assert held(server) == 0

    run(main())


def test_an_error_about_a_transfer_is_told_once_whichever_part_is_bad() -> None:
    """From the first one on, and however many are; a transfer that begins anew counts again."""

    async def main() -> None:
        async with serving() as server, raw(server.address, "alice", full=True) as alice:
            for bad in range(30):
                part = a_chunk("t1", bad, 31)
                await alice.send({**part, "data": "!!!"} if bad != 7 else part)
            await alice.sync()

            assert len(alice.heard("error")) == 1
            await alice.send({**a_chunk("t1", 0, 2), "data": "!!!"})
            await alice.sync()
            assert [error["id"] for error in alice.heard("error")] == ["t1", "t1"]
            assert held(server) == 0

    run(main())


def test_only_a_bad_chunk_spoils_a_transfer() -> None:
    """Not a bad message of another type that happens to bear the same id."""

    async def main() -> None:
        async with serving() as server, raw(server.address, "alice") as alice:
            first, *rest = chunks({"type": "doc", "content": "x" * 100_000, "id": "a1"}, "t1")
            await alice.send(first)
            await alice.send({"type": "chat", "to": 7, "id": "t1"})
            for chunk in rest:
                await alice.send(chunk)
            await alice.expect("ack", id="a1")

            assert [error["id"] for error in alice.heard("error")] == ["t1"]
            assert held(server) == 0

    run(main())


def test_where_reading_a_whole_message_fails_its_sender_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own mistake costs it an `internal`, not the connection, and what was collected is free."""

    def broken(*_: object) -> object:
        raise RuntimeError("broken")

    monkeypatch.setattr(transfers, "read_whole", broken)

    async def main() -> None:
        async with serving() as server, raw(server.address, "alice") as alice:
            await say_large(alice, "t1")
            await alice.expect("error", id="t1", code="internal")
            await alice.say("after", id="a1")
            await alice.expect("ack", id="a1")

            assert held(server) == 0

    run(main(), logs_errors=True)
