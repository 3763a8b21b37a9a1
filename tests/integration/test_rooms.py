"""Rooms keep to the options of their pattern, wherever it was set."""

from __future__ import annotations

from typing import Any

import pytest

from hubbub import ConfigError, Hub, HubbubError, Message
from hubbub.config import load
from hubbub.server import Server
from support.client import Client, connect
from support.loop import run
from support.server import command, serving


async def kept(client: Client, room: str) -> list[Any]:
    """The contents that the room still has."""
    answer = await client.ask("history", room=room)
    return [message["content"] for message in answer["messages"]]


def test_each_room_keeps_and_holds_what_its_pattern_says() -> None:
    """History and capacity, each by the most specific pattern that says something about it; else the server's."""
    rooms = {"game:*": {"history_size": 3, "capacity": 1}, "game:open:*": {"capacity": 2}}

    async def main() -> None:
        async with (
            serving(rooms=rooms, history_size=5, room_capacity=3) as server,
            connect(server.address, "alice") as alice,
            connect(server.address, "bob") as bob,
            connect(server.address, "carol") as carol,
        ):
            got_in = {}
            for room in ("game:1", "game:open:1", "lobby"):
                answers = [await client.ask("join", room=room) for client in (alice, bob, carol)]
                got_in[room] = [answer["type"] == "joined" for answer in answers]
                for number in range(6):
                    await alice.say(number, room=room)
                await alice.sync()

            assert got_in == {
                "game:1": [True, False, False],
                "game:open:1": [True, True, False],
                "lobby": [True, True, True],
            }
            assert await kept(alice, "game:1") == await kept(alice, "game:open:1") == [3, 4, 5]
            assert await kept(alice, "lobby") == [1, 2, 3, 4, 5]

    run(main())


def test_in_a_volatile_room_everything_is_volatile() -> None:
    """Said by a client, by a handler that moved it there, or by the application: told, numbered nowhere, not kept."""

    async def main() -> None:
        hub = Hub()
        hub.room("cursor:*", volatile=True)

        @hub.on("move")
        async def move(message: Message[str]) -> Message[str]:
            message.room = message.content
            return message

        async with (
            serving(hub) as server,
            connect(server.address, "alice") as alice,
            connect(server.address, "bob") as bob,
        ):
            for room in ("cursor:1", "lobby"):
                await alice.join(room)
                await bob.join(room)
            for room in ("cursor:1", "lobby"):
                ack = await alice.ask("chat", room=room, content="said")
                moved = await alice.ask("move", room="lobby", content=room)
                published = await hub.publish("chat", "told", room=room)
                await bob.sync()
                heard = [message for message in bob.seen if message.get("room") == room and "content" in message]

                assert len(heard) == 3
                is_volatile = room == "cursor:1"
                assert [message.get("seq") for message in heard] == ([None] * 3 if is_volatile else [1, 2, 3])
                assert ("seq" not in ack, "seq" not in moved) == (is_volatile, is_volatile)
                assert (published.seq is None) == is_volatile
            assert await kept(alice, "cursor:1") == []
            assert await kept(alice, "lobby") == ["said", "lobby", "told"]

    run(main())


def test_overflow_is_the_rooms_own() -> None:
    """A reader that takes nothing loses what one room drops, and is ended by the next, which must not drop."""

    async def main() -> None:
        hub = Hub()
        hub.room("prices", overflow="drop_oldest")
        async with (
            serving(hub, sndbuf=8_192, outbox_messages=20, close_timeout=60) as server,
            connect(server.address, "alice", rcvbuf=4_096) as alice,
        ):
            for room in ("prices", "orders"):
                await alice.join(room)
            alice.stall()
            for number in range(500):
                await hub.publish("tick", [number, "x" * 1_000], room="prices")

            assert len(hub.local_sessions("alice")) == 1
            for number in range(50):
                await hub.publish("order", [number, "x" * 1_000], room="orders")
            assert hub.local_sessions("alice") == []
            alice.resume()
            code, _ = await alice.closed()

            assert code in (4000, 1006)
            assert alice.heard("gap", room="orders") == []

    run(main())


def test_code_and_configuration_go_together() -> None:
    """One may say what the other leaves open; what both say must be the same, or the server does not start."""
    hub = Hub()
    hub.room("game:*", capacity=2)
    hub.room("game:*", history_size=1)
    agreeing = {"dev": True, "port": 0, "rooms": {"game:*": {"capacity": 2, "volatile": False}}}
    differing = {"dev": True, "port": 0, "rooms": {"game:*": {"capacity": 3}}}
    crossing = {"dev": True, "port": 0, "rooms": {"*:vip": {"capacity": 3}}}

    assert Server(hub, load(agreeing, {})).hub is hub
    with pytest.raises(ConfigError, match=r"capacity of rooms 'game:\*' is set twice, to 2 and to 3"):
        Server(hub, load(differing, {}))
    with pytest.raises(ConfigError, match=r"'game:\*' and '\*:vip' both match 'game:vip', and set capacity to 2 and"):
        Server(hub, load(crossing, {}))


def test_a_wrong_option_in_code_is_said_where_it_stands() -> None:
    hub = Hub()
    with pytest.raises(ConfigError, match=r"overflow of rooms 'a\*' cannot be 'sometimes': .*drop_oldest"):
        hub.room("a*", overflow="sometimes")


def test_a_contradiction_in_the_configuration_is_one_sentence() -> None:
    """From the command line, too: no traceback."""

    async def main() -> None:
        rooms = '{"a*": {"capacity": 1}, "*b": {"capacity": 2}}'
        status, _, errors = await command("serve", "--dev", "--port", "0", "--rooms", rooms)

        assert status == 2
        assert errors.startswith(
            "hubbub: the room patterns 'a*' and '*b' both match 'ab', and set capacity to 1 and to 2"
        )
        assert errors.count("\n") == 1

    run(main())


def test_a_running_hub_takes_no_more_options() -> None:
    """What a room is must not depend on when it is looked at."""

    async def main() -> None:
        hub = Hub()
        async with serving(hub):
            with pytest.raises(HubbubError, match="running"):
                hub.room("lobby", capacity=2)

    run(main())
