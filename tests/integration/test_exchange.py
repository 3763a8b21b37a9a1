"""Messages reach whom they are for: one user on all devices, everyone, each exactly once and in order."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from support.client import Client, connect, open_client
from support.loop import run
from support.server import serving

pytestmark = pytest.mark.every_engine

both_ways = pytest.mark.parametrize("full", [False, True], ids=["plain", "full"])


@pytest.mark.tls_too
@both_ways
def test_a_message_to_a_user_reaches_all_devices_and_nobody_else(full: bool) -> None:
    """Unicast goes to each session of the recipient; the sender gets an ack and no copy."""

    async def main() -> None:
        async with (
            serving() as server,
            connect(server.address, "alice", full=full) as alice,
            connect(server.address, "bob", full=full) as phone,
            connect(server.address, "bob", full=not full) as laptop,
            connect(server.address, "carol", full=full) as carol,
        ):
            await alice.say({"n": 1}, to="bob", id="a1")
            ack = await alice.expect("ack", id="a1", to="bob", seq=1)
            for device in (phone, laptop):
                heard = await device.expect("chat")

                assert heard.pop("time") > 0
                assert heard == {
                    "type": "chat",
                    "from": "alice",
                    "to": "bob",
                    "content": {"n": 1},
                    "id": "a1",
                    "seq": 1,
                }
            assert ack["epoch"]
            assert await alice.sync() == []
            assert await carol.sync() == []

    run(main())


@both_ways
def test_a_broadcast_reaches_everyone_and_its_sender(full: bool) -> None:
    """A message with neither `to` nor `room` goes to every session, the sender's own included."""

    async def main() -> None:
        async with (
            serving() as server,
            connect(server.address, "alice", full=full) as alice,
            connect(server.address, "bob", full=not full) as bob,
        ):
            await alice.say("to all")
            for session in (alice, bob):
                heard = await session.expect("chat")

                assert (heard["from"], heard["content"], heard["seq"]) == ("alice", "to all", 1)
                assert "id" not in heard and "to" not in heard and "room" not in heard
            assert await alice.sync() == [] and await bob.sync() == []

    run(main())


@both_ways
def test_echo_false_spares_only_the_session_that_sent_it(full: bool) -> None:
    """The sender's other device hears it; the ack stands for it in the channel's sequence."""

    async def main() -> None:
        async with (
            serving() as server,
            connect(server.address, "alice", full=full) as phone,
            connect(server.address, "alice", full=full) as laptop,
        ):
            await phone.say("quiet", echo=False, id="e1")
            await phone.say("aloud")

            assert [message["type"] for message in await phone.sync()] == ["ack", "chat"]
            assert [message["seq"] for message in phone.seen[-3:-1]] == [1, 2]
            assert [message["content"] for message in await laptop.sync()] == ["quiet", "aloud"]

    run(main())


@pytest.mark.parametrize(("full", "acks"), [(False, []), (True, ["ack"])], ids=["plain", "full"])
def test_echo_false_without_an_id(full: bool, acks: list[str]) -> None:
    """Only the full way gets an ack for a message that asked for none: there it stands for the echo."""

    async def main() -> None:
        async with serving() as server, connect(server.address, "alice", full=full) as alice:
            await alice.say("quiet", echo=False)
            heard = await alice.sync()

            assert [message["type"] for message in heard] == acks
            assert all("id" not in message and message["seq"] == 1 for message in heard)

    run(main())


def test_a_plain_session_hears_nothing_unasked() -> None:
    """No greeting and no ping before the first message that concerns the session (protocol.md 3.2)."""

    async def main() -> None:
        async with serving() as server, connect(server.address, "alice") as alice:
            async with connect(server.address, "bob", full=True) as bob:
                await bob.join("elsewhere")
                await bob.say("not for alice", room="elsewhere")
                await bob.sync()

            assert await alice.sync() == []

    run(main())


def test_content_arrives_digit_for_digit() -> None:
    """Content is opaque: numbers beyond a double, precision, key order and escapes come as they were sent."""

    content = r'{"b":1.10,"a":123456789012345678901234567890,"e":1E+2,"s":"\u00e9\ud83d\ude00","n":null,"":[]}'

    async def main() -> None:
        async with (
            serving() as server,
            connect(server.address, "alice") as alice,
            connect(server.address, "bob") as bob,
        ):
            await alice.send_text('{"type":"chat","to":"bob","content":' + content + "}")
            await bob.expect("chat")

            assert f'"content":{content}' in bob.texts[-1]

    run(main())


def test_volatile_messages_have_no_place_in_the_log() -> None:
    """No seq, no history, nothing waits for who is away, and an ack without a position."""

    async def main() -> None:
        async with serving() as server, connect(server.address, "alice") as alice:
            await alice.say("who?", to="bob", volatile=True, id="v1")
            ack = await alice.expect("ack", id="v1")

            assert "seq" not in ack and "epoch" not in ack
            async with connect(server.address, "bob") as bob:
                assert await bob.sync() == []
                await alice.send({"type": "webrtc-offer", "to": "bob", "content": "sdp"})
                offer = await bob.expect("webrtc-offer")

                assert "seq" not in offer and offer["time"] > 0
                assert (await bob.ask("history"))["messages"] == []

    run(main())


@pytest.mark.tls_too
def test_a_hundred_clients_hear_every_broadcast_exactly_once_in_order() -> None:
    """Everyone speaks at once; each of a hundred hears the same sequence, without a hole or a double."""

    clients, each = 100, 5

    async def main() -> None:
        async with serving() as server, AsyncExitStack() as stack:

            async def open_one(number: int) -> Client:
                return await open_client(server.address, f"user-{number}", full=number % 2 == 0)

            sessions = await asyncio.gather(*(open_one(number) for number in range(clients)))
            for session in sessions:
                stack.push_async_callback(session.leave)

            async def talk(session: Client) -> None:
                for number in range(each):
                    await session.say([session.user, number])

            await asyncio.gather(*(talk(session) for session in sessions))
            await asyncio.gather(*(session.expect("chat", seq=clients * each) for session in sessions))
            told = [message["content"] for message in sessions[0].heard("chat")]

            assert sorted(map(tuple, told)) == sorted(
                (f"user-{client}", number) for client in range(clients) for number in range(each)
            )
            for session in sessions:
                heard = session.heard("chat")

                assert [message["seq"] for message in heard] == list(range(1, clients * each + 1))
                assert [message["content"] for message in heard] == told
                assert [n for user, n in told if user == session.user] == list(range(each))

    run(main())
