"""Who is in a room is counted by user, exactly, and told to the others once."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from support.client import Client, connect
from support.loop import eventually, run
from support.server import serving

pytestmark = pytest.mark.every_engine


async def users(client: Client, room: str) -> list[tuple[str, int]]:
    """Who is in the room, as (user, sessions) in the order of coming."""
    presence = await client.ask("presence", room=room)

    assert presence["count"] == len(presence["members"])
    return [(member["user"], member["sessions"]) for member in presence["members"]]


def test_presence_events_are_by_user_and_not_by_device() -> None:
    """One event when the first device comes, one when the last has gone; a leave and a cut are alike."""

    async def main() -> None:
        async with serving(presence_grace=0) as server, connect(server.address, "alice") as alice:
            await alice.join("lobby")
            async with connect(server.address, "bob") as phone, connect(server.address, "bob", full=True) as laptop:
                await phone.join("lobby")
                joined = await laptop.join("lobby")

                assert [(m["user"], m["sessions"]) for m in joined["members"]] == [("alice", 1), ("bob", 2)]
                assert joined["count"] == 2
                assert await alice.sync() == [{"type": "member-joined", "room": "lobby", "user": "bob"}]
                # Neither device is told about its own user.
                assert phone.heard("member-joined") == laptop.heard("member-joined") == []
                await phone.ask("leave", room="lobby")

                assert await users(alice, "lobby") == [("alice", 1), ("bob", 1)]
                assert alice.heard("member-left") == []
                laptop.cut()
                await alice.expect("member-left", room="lobby", user="bob")

                assert await users(alice, "lobby") == [("alice", 1)]
            assert len(alice.heard("member-left")) == len(alice.heard("member-joined")) == 1

    run(main())


def test_a_rejoin_is_no_event() -> None:
    """Nor is leaving a room that one is not in."""

    async def main() -> None:
        async with (
            serving() as server,
            connect(server.address, "alice") as alice,
            connect(server.address, "bob") as bob,
        ):
            await alice.join("lobby")
            await bob.join("lobby")
            await bob.join("lobby", last=5)
            await bob.ask("leave", room="elsewhere")
            await alice.expect("member-joined", user="bob")

            assert await alice.sync() == []
            assert await users(alice, "lobby") == [("alice", 1), ("bob", 1)]

    run(main())


def test_the_operator_chooses_the_rooms_with_events() -> None:
    """By pattern, against what holds otherwise; where nothing is told, presence can still be asked."""

    async def main() -> None:
        async with (
            serving(
                presence_events=False,
                rooms={"game:*": {"presence_events": True}, "lobby": {"presence_events": True}},
            ) as server,
            connect(server.address, "alice") as alice,
            connect(server.address, "bob") as bob,
        ):
            for room in ("game:1", "lobby", "lobby2", "quiet"):
                await alice.join(room)
                await bob.join(room)
                await bob.ask("leave", room=room)
            told = [(message["type"], message["room"]) for message in await alice.sync()]

            assert told == [(event, room) for room in ("game:1", "lobby") for event in ("member-joined", "member-left")]
            assert await users(alice, "quiet") == [("alice", 1)]

    run(main())


def test_a_member_hears_of_nobody_in_rooms_it_is_not_in() -> None:
    async def main() -> None:
        async with (
            serving() as server,
            connect(server.address, "alice") as alice,
            connect(server.address, "bob") as bob,
        ):
            await bob.join("lobby")
            presence = await alice.ask("presence", room="lobby")

            assert (presence["type"], presence["code"], presence["room"]) == ("error", "not_joined", "lobby")
            assert await alice.sync() == []

    run(main())


def test_capacity_is_exact_under_concurrency() -> None:
    """Eighty users at once into a room for fifty: exactly fifty are in, the others are told `room_full`."""

    async def main() -> None:
        async with serving(room_capacity=50, presence_grace=0) as server, AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(connect(server.address, f"u{n}")) for n in range(80)]
            answers = await asyncio.gather(*(client.ask("join", room="small") for client in clients))
            refused = [answer for answer in answers if answer["type"] == "error"]

            assert sum(answer["type"] == "joined" for answer in answers) == 50
            assert {(answer["code"], answer["room"]) for answer in refused} == {("room_full", "small")}
            assert len(await server.hub.members("small")) == 50
            # Places become free and are taken again, one for one.
            members = [client for client, answer in zip(clients, answers, strict=True) if answer["type"] == "joined"]
            others = [client for client, answer in zip(clients, answers, strict=True) if answer["type"] == "error"]
            for client in members[:10]:
                client.cut()
            for client in members[10:20]:
                await client.ask("leave", room="small")
            answers = await asyncio.gather(*(client.ask("join", room="small") for client in others))
            await eventually(lambda: len(server.hub.local_sessions()) == 70)
            more = await asyncio.gather(
                *(client.ask("join", room="small") for client in others if not client.heard("joined"))
            )

            assert sum(answer["type"] == "joined" for answer in (*answers, *more)) == 20
            assert len(await server.hub.members("small")) == 50

    run(main())


def test_a_user_who_is_in_a_full_room_may_always_come_with_another_device() -> None:
    async def main() -> None:
        async with (
            serving(room_capacity=1) as server,
            connect(server.address, "alice") as phone,
            connect(server.address, "alice") as laptop,
            connect(server.address, "bob") as bob,
        ):
            await phone.join("small")
            await laptop.join("small")

            assert (await bob.ask("join", room="small"))["code"] == "room_full"
            await phone.ask("leave", room="small")
            assert (await bob.ask("join", room="small"))["code"] == "room_full"
            await laptop.ask("leave", room="small")
            await bob.join("small")

    run(main())


def test_users_says_who_is_online() -> None:
    """Online from the first session to the last; `last_seen` says when something came, also afterwards."""

    async def main() -> None:
        async with serving(presence_grace=0) as server, connect(server.address, "alice") as alice:

            async def ask() -> dict[str, dict[str, Any]]:
                answer = await alice.ask("users", ids=["alice", "bob", "nobody"])
                users: dict[str, dict[str, Any]] = answer["users"]
                return users

            assert (await ask())["bob"] == {"online": False}
            async with connect(server.address, "bob") as phone, connect(server.address, "bob", full=True):
                told = await ask()

                assert told["bob"]["online"] is True and told["alice"]["online"] is True
                assert told["bob"].keys() == {"online", "since", "last_seen"}
                # Also where the clock that notes when something comes is behind.
                for session in server.hub.local_sessions("bob"):
                    session.last_seen -= 60
                late = (await ask())["bob"]
                assert late["last_seen"] >= late["since"]
                phone.cut()
                await eventually(lambda: len(server.hub.local_sessions("bob")) == 1)
                assert (await ask())["bob"]["online"] is True
            await eventually(lambda: not server.hub.local_sessions("bob"))
            gone = (await ask())["bob"]

            assert gone.keys() == {"online", "last_seen"} and gone["online"] is False
            assert (await ask())["nobody"] == {"online": False}

    run(main())
