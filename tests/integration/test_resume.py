"""Who comes back finds everything that was missed, once and in order, or is told that this is not possible."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hubbub import Hub
from hubbub.server import Server
from support.client import Client, Message, connect, open_client
from support.loop import PATIENCE, eventually, run
from support.server import serving

pytestmark = pytest.mark.every_engine


async def speak(speaker: Client, first: int, last: int, **fields: Any) -> None:
    """Say the numbers from `first` to `last`, and wait until the server has them."""
    for number in range(first, last + 1):
        await speaker.say(number, **fields)
    await speaker.sync()


def contents(messages: list[Message]) -> list[Any]:
    return [message["content"] for message in messages if message["type"] == "chat"]


async def cut(server: Server, client: Client) -> None:
    """Lose the client's network, and wait until the server has noticed."""
    client.cut()
    await eventually(lambda: not server.hub.local_sessions(client.user))


def test_nothing_is_lost_or_doubled_over_a_cut() -> None:
    """A resume brings what was missed in the inbox, in `all` and in each room, before anything new."""

    async def main() -> None:
        async with serving() as server, connect(server.address, "bob", full=True) as bob:
            await bob.join("lobby")
            alice = await open_client(server.address, "alice", full=True)
            joined = await alice.join("lobby")
            for fields in ({}, {"room": "lobby"}, {"to": "alice"}):
                await speak(bob, 1, 3, **fields)
            await alice.sync()
            last = {where: max(m["seq"] for m in alice.heard("chat", **at)) for where, at in PLACES.items()}
            epochs = alice.welcome["positions"]
            await cut(server, alice)
            for fields in ({}, {"room": "lobby"}, {"to": "alice"}):
                await speak(bob, 4, 6, **fields)
            resume = {
                "inbox": [epochs["inbox"][0], last["inbox"]],
                "all": [epochs["all"][0], last["all"]],
                "rooms": {"lobby": [joined["position"][0], last["lobby"]]},
            }
            async with connect(server.address, "alice", full=True, hello={"resume": resume}) as back:
                assert back.welcome["recovered"] == {"inbox": True, "all": True, "rooms": {"lobby": True}}
                for fields in ({}, {"room": "lobby"}, {"to": "alice"}):
                    await speak(bob, 7, 7, **fields)
                await back.sync()
                for at in PLACES.values():
                    before, after = contents(alice.heard("chat", **at)), contents(back.heard("chat", **at))

                    assert before + after == [1, 2, 3, 4, 5, 6, 7]
                    assert [message["seq"] for message in back.heard("chat", **at)] == [4, 5, 6, 7]

    run(main())


PLACES: dict[str, dict[str, str | None]] = {
    "all": {"room": None, "to": None},
    "lobby": {"room": "lobby"},
    "inbox": {"to": "alice"},
}


def test_a_room_can_be_resumed_from_its_very_beginning() -> None:
    """`seq` 0 is the position before the first message: everything follows (protocol.md 1.2)."""

    async def main() -> None:
        async with serving() as server, connect(server.address, "bob") as bob:
            epoch, seq = (await bob.join("lobby"))["position"]

            assert seq == 0
            await speak(bob, 1, 250, room="lobby")
            async with connect(server.address, "carol") as carol:
                joined = await carol.join("lobby", since=[epoch, 0])

                assert joined["recovered"] is True
                assert joined["position"] == [epoch, 250]
                assert contents(await carol.sync()) == list(range(1, 251))
            resume = {"rooms": {"lobby": [epoch, 0]}}
            async with connect(server.address, "dave", full=True, hello={"resume": resume}) as dave:
                assert dave.welcome["recovered"]["rooms"] == {"lobby": True}
                assert contents(await dave.sync()) == list(range(1, 251))

    run(main())


def test_recovered_says_what_follows() -> None:
    """null where nothing was asked, true where all follows, false where it cannot: never a part of it."""

    async def main() -> None:
        async with serving(history_size=5) as server, connect(server.address, "bob", full=True) as bob:
            epoch = (await bob.join("lobby"))["position"][0]
            await speak(bob, 1, 10, room="lobby")
            async with connect(server.address, "alice", full=True) as alice:
                cases: list[tuple[dict[str, Any], bool | None, list[int]]] = [
                    ({}, None, []),
                    ({"since": [epoch, 10]}, True, []),
                    ({"since": [epoch, 5]}, True, [6, 7, 8, 9, 10]),
                    # Number 5 has been dropped.
                    ({"since": [epoch, 4]}, False, []),
                    ({"since": [epoch, 11]}, False, []),
                    ({"since": ["another", 10]}, False, []),
                    ({"last": 2}, True, [9, 10]),
                    ({"last": 0}, True, []),
                    ({"last": 1000}, True, [6, 7, 8, 9, 10]),
                ]
                for asked, recovered, backlog in cases:
                    joined = await alice.join("lobby", **asked)

                    assert joined["recovered"] is recovered, asked
                    assert joined["position"] == [epoch, 10]
                    assert contents(await alice.sync()) == backlog, asked

    run(main())


@pytest.mark.memory
def test_a_restart_is_another_epoch() -> None:
    """After a restart nothing old can be recovered, and the client is told so for every channel."""

    async def main() -> None:
        hub = Hub()
        async with serving(hub) as server:
            port = int(server.address.rpartition(":")[2])
            async with connect(server.address, "alice", full=True) as alice:
                lobby = (await alice.join("lobby"))["position"]
                for fields in ({}, {"room": "lobby"}, {"to": "alice"}):
                    await speak(alice, 1, 3, **fields)
                before = alice.welcome["positions"]
        async with serving(hub, port=port) as server:
            resume = {"inbox": [before["inbox"][0], 3], "all": [before["all"][0], 3], "rooms": {"lobby": [lobby[0], 3]}}
            async with connect(server.address, "alice", full=True, hello={"resume": resume}) as alice:
                now = alice.welcome["positions"]

                assert alice.welcome["recovered"] == {"inbox": False, "all": False, "rooms": {"lobby": False}}
                assert now["inbox"][0] != before["inbox"][0] and now["all"][0] != before["all"][0]
                assert now["rooms"]["lobby"][0] != lobby[0] and now["rooms"]["lobby"][1] == 0
                await speak(alice, 1, 1, room="lobby")

                assert [message["seq"] for message in alice.heard("chat")] == [1]

    run(main())


@pytest.mark.local
def test_an_empty_room_can_be_resumed_whatever_was_forgotten_elsewhere() -> None:
    """The epoch that `joined` named is that of the log that begins later."""

    async def main() -> None:
        async with (
            serving(inbox_age=0.01, dedupe_window=0.01) as server,
            connect(server.address, "bob", full=True) as bob,
        ):
            # Another log that will be forgotten.
            await speak(bob, 1, 1, to="nobody")
            position = (await bob.join("lobby"))["position"]
            engine: Any = server._engine
            async with asyncio.timeout(PATIENCE):
                while engine.statistics().channels:
                    engine.sweep()
                    await asyncio.sleep(0.01)
            await speak(bob, 1, 4, room="lobby")
            async with connect(server.address, "alice") as alice:
                assert (await alice.join("lobby", since=position))["recovered"] is True
                assert contents(await alice.sync()) == [1, 2, 3, 4]

    run(main())


def test_a_log_with_listeners_is_never_forgotten() -> None:
    """Its members' positions stay good: after everything has expired the next message has the next seq."""

    async def main() -> None:
        async with (
            serving(history_age=0.01, dedupe_window=0.01) as server,
            connect(server.address, "bob", full=True) as bob,
        ):
            epoch = (await bob.join("lobby"))["position"][0]
            await speak(bob, 1, 3, room="lobby")
            engine: Any = server._engine
            async with asyncio.timeout(PATIENCE):
                while (await engine.after("room:lobby", 0, 1)).publications:
                    engine.sweep()
                    await asyncio.sleep(0.01)
            await bob.say(4, room="lobby", id="x")
            ack = await bob.expect("ack", id="x")

            assert (ack["epoch"], ack["seq"]) == (epoch, 4)
            assert [message["seq"] for message in bob.heard("chat")] == [1, 2, 3, 4]

    run(main())


@pytest.mark.parametrize("full", [False, True], ids=["plain", "full"])
def test_live_messages_wait_behind_a_long_backlog(full: bool) -> None:
    """A slow reader of a backlog of many pages, with more published meanwhile: no gap, no double, no disorder."""

    backlog, live, padding = 900, 600, "x" * 2_000

    async def main() -> None:
        async with (
            serving(sndbuf=16_384, history_size=backlog + live) as server,
            connect(server.address, "bob", full=True) as bob,
        ):
            epoch = (await bob.join("lobby"))["position"][0]
            await bob.ask("leave", room="lobby")
            for number in range(backlog):
                await server.hub.publish("chat", [number, padding], room="lobby")
            async with connect(server.address, "alice", full=full, rcvbuf=8_192) as alice:
                await alice.send({"type": "join", "room": "lobby", "since": [epoch, 0]})
                await alice.expect("joined", recovered=True, position=[epoch, backlog])
                alice.stall()
                for number in range(backlog, backlog + live):
                    await server.hub.publish("chat", [number, padding], room="lobby")
                    if number % 50 == 0:
                        # It reads a little, too little to catch up.
                        alice.resume()
                        await asyncio.sleep(0)
                        alice.stall()
                await bob.sync()

                assert len(alice.heard("chat")) < backlog
                alice.resume()
                await alice.expect("chat", seq=backlog + live)
                await alice.say("last", room="lobby")
                await alice.expect("chat", content="last")

                assert [message["seq"] for message in alice.heard("chat")] == list(range(1, backlog + live + 2))
                assert alice.heard("gap") == []

    run(main())


def test_a_backlog_of_small_messages_does_not_count_against_the_outbox() -> None:
    """A recovery is written at the pace of its reader: however many messages, however few bytes (3.4)."""

    async def main() -> None:
        async with (
            serving(sndbuf=4_608, outbox_messages=16) as server,
            connect(server.address, "bob", full=True) as bob,
        ):
            epoch = (await bob.join("lobby"))["position"][0]
            await bob.ask("leave", room="lobby")
            for number in range(1, 1001):
                await server.hub.publish("chat", [number, "x" * 500], room="lobby")
            async with connect(server.address, "alice", full=True, rcvbuf=2_304) as alice:
                alice.stall()
                await alice.send({"type": "join", "room": "lobby", "since": [epoch, 0]})
                await eventually(lambda: server.hub.statistics().blocked)
                await bob.sync()
                alice.resume()
                await alice.expect("chat", seq=1000)

                assert [message["seq"] for message in alice.heard("chat")] == list(range(1, 1001))

    run(main())


def test_an_inbox_waits_for_a_plain_user() -> None:
    """What waits follows the handshake, oldest first, and written counts as acknowledged: it comes once."""

    async def main() -> None:
        async with serving() as server, connect(server.address, "alice") as alice:
            await speak(alice, 1, 300, to="bob")
            async with connect(server.address, "bob") as bob:
                await speak(alice, 301, 301, to="bob")

                assert contents(await bob.sync()) == list(range(1, 302))
            await eventually(lambda: not server.hub.local_sessions("bob"))
            await speak(alice, 302, 302, to="bob")
            async with connect(server.address, "bob") as again:
                assert contents(await again.sync()) == [302]

    run(main())


def test_an_inbox_waits_for_a_full_user_until_it_is_acknowledged() -> None:
    """Without a position the inbox starts at the cursor, which only `ack` moves, and never backwards."""

    async def main() -> None:
        async with serving() as server, connect(server.address, "alice") as alice:
            await speak(alice, 1, 5, to="bob")
            # What each new session of bob's hears, and acknowledges.
            for unread, acknowledged in (([1, 2, 3, 4, 5], 0), ([1, 2, 3, 4, 5], 3), ([4, 5], 2), ([4, 5], 5), ([], 0)):
                async with connect(server.address, "bob", full=True) as bob:
                    epoch, position = bob.welcome["positions"]["inbox"]

                    assert contents(await bob.sync()) == unread
                    assert position == 5 - len(unread)
                    assert bob.welcome["recovered"]["inbox"] is None
                    if acknowledged:
                        await bob.send({"type": "ack", "seq": acknowledged})
                        await bob.sync()
            # Each device catches up on its own: a position of its own counts before the cursor.
            async with connect(server.address, "bob", full=True, hello={"resume": {"inbox": [epoch, 2]}}) as tablet:
                assert tablet.welcome["recovered"]["inbox"] is True
                assert contents(await tablet.sync()) == [3, 4, 5]

    run(main())


def test_an_ack_beyond_the_inbox_is_a_bad_message() -> None:
    """What has not been sent cannot be acknowledged, and the cursor stays."""

    async def main() -> None:
        async with serving() as server, connect(server.address, "alice") as alice:
            await speak(alice, 1, 2, to="bob")
            async with connect(server.address, "bob", full=True) as bob:
                await bob.send({"type": "ack", "seq": 3, "id": "too-far"})
                error = await bob.expect("error", id="too-far")

                assert error["code"] == "bad_message"
            async with connect(server.address, "bob", full=True) as bob:
                assert contents(await bob.sync()) == [1, 2]

    run(main())


@pytest.mark.parametrize("full", [False, True], ids=["plain", "full"])
def test_unread_messages_that_are_gone_are_named(full: bool) -> None:
    """Where retention has dropped unread messages, the reader learns which: a gap, or recovered false."""

    async def main() -> None:
        async with serving(inbox_size=3) as server, connect(server.address, "alice") as alice:
            await speak(alice, 1, 5, to="bob")
            async with connect(server.address, "bob", full=full) as bob:
                heard = await bob.sync()

                assert contents(heard) == [3, 4, 5]
                if full:
                    assert bob.welcome["recovered"]["inbox"] is False
                    assert bob.welcome["positions"]["inbox"][1] == 2
                else:
                    assert heard[0] == {"type": "gap", "from": 1, "to": 2}

    run(main())


def test_a_receipt_comes_once_to_every_session_of_the_sender() -> None:
    """When the recipient's cursor first passes the message, whichever device moves it."""

    async def main() -> None:
        async with (
            serving() as server,
            connect(server.address, "alice", full=True) as phone,
            connect(server.address, "alice") as laptop,
        ):
            for id in ("r1", "r2", "r3"):
                await phone.say(id, to="bob", id=id, receipt=id != "r2")
            await phone.sync()

            assert phone.heard("receipt") == []
            async with (
                connect(server.address, "bob", full=True) as first,
                connect(server.address, "bob", full=True) as second,
            ):
                assert [message.get("receipt") for message in await first.sync()] == [True, None, True]
                await first.send({"type": "ack", "seq": 3})
                await first.sync()
                await second.send({"type": "ack", "seq": 3})
                await second.sync()
            for device in (phone, laptop):
                await device.sync()
                receipts = device.heard("receipt")

                assert [(receipt["id"], receipt["by"]) for receipt in receipts] == [("r1", "bob"), ("r3", "bob")]
                assert all(receipt.keys() == {"type", "id", "by", "time"} for receipt in receipts)
            async with connect(server.address, "carol") as carol:
                await phone.say("now", to="carol", id="r4", receipt=True)
                await carol.expect("chat", receipt=True)

                # Plain: written is acknowledged.
                assert (await laptop.expect("receipt", id="r4"))["by"] == "carol"

    run(main())


def test_a_retry_over_a_new_connection_is_published_once() -> None:
    """The server knows (`from`, `id`), not the connection: the retry gets the first ack, as a duplicate."""

    async def main() -> None:
        async with serving() as server, connect(server.address, "bob") as bob:
            await bob.join("lobby")
            places: list[dict[str, Any]] = [{}, {"room": "lobby"}, {"to": "bob"}]
            first: list[Message] = []
            async with connect(server.address, "alice") as alice:
                await alice.join("lobby")
                for place in places:
                    await alice.say("once", id="a1", **place)
                    first.append(await alice.expect("ack", id="a1"))
            async with connect(server.address, "alice", full=True) as alice:
                await alice.join("lobby")
                for place, was in zip(places, first, strict=True):
                    await alice.say("once", id="a1", **place)

                    assert await alice.expect("ack", id="a1") == {**was, "duplicate": True}
                assert contents(await alice.sync()) == []
                # The same id of somebody else is another message.
                await bob.say("mine", id="a1", room="lobby")

                assert "duplicate" not in await bob.expect("ack", id="a1")
            assert contents(await bob.sync()) == ["once", "once", "once", "mine"]

    run(main())


def test_rooms_that_cannot_be_rejoined_are_named_after_the_welcome() -> None:
    """They are missing from `positions`, and an error with their name follows before any publication."""

    async def main() -> None:
        async with serving(room_capacity=1) as server, connect(server.address, "bob", full=True) as bob:
            taken = (await bob.join("taken"))["position"]
            await speak(bob, 1, 2, to="alice")
            resume = {"rooms": {"taken": taken, "free": None}}
            async with connect(server.address, "alice", full=True, hello={"resume": resume}) as alice:
                await alice.sync()

                assert alice.welcome["positions"]["rooms"].keys() == {"free"}
                assert alice.welcome["recovered"]["rooms"] == {"free": None}
                assert [message["type"] for message in alice.seen[:4]] == ["welcome", "error", "chat", "chat"]
                assert (alice.seen[1]["code"], alice.seen[1]["room"]) == ("room_full", "taken")

    run(main())


def test_a_resume_tells_the_members_like_a_join() -> None:
    """Joining by resume fires the same presence event, and is answered by `welcome` alone."""

    async def main() -> None:
        async with serving(presence_grace=0) as server, connect(server.address, "bob", full=True) as bob:
            await bob.join("lobby")
            resume = {"rooms": {"lobby": None}}
            async with connect(server.address, "alice", full=True, hello={"resume": resume}) as alice:
                await bob.expect("member-joined", room="lobby", user="alice")

                assert await alice.sync() == []
                assert [member.user for member in await server.hub.members("lobby")] == ["bob", "alice"]
            await bob.expect("member-left", room="lobby", user="alice")

    run(main())
