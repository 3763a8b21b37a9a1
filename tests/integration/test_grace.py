"""Whoever is cut off and comes back in time was never away; whoever does not is told of once, later."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hubbub import Hub, Session
from support.client import Client, Message, connect
from support.loop import eventually, run
from support.server import serving

pytestmark = pytest.mark.every_engine

# Longer than any test, and as short as the wheel turns.
LONG, SHORT = 3_600.0, 0.1


async def members(client: Client, room: str = "lobby") -> list[Message]:
    answer = await client.ask("presence", room=room)

    assert answer["count"] == len(answer["members"])
    return list(answer["members"])


async def online(client: Client, *users: str) -> list[Message]:
    answer = await client.ask("users", ids=list(users))
    return [answer["users"][user] for user in users]


async def cut(hub: Hub, client: Client) -> None:
    """Lose the connection, and wait until the server has noticed."""
    left = len(hub.local_sessions(client.user)) - 1
    client.cut()
    await client.closed()
    await eventually(lambda: len(hub.local_sessions(client.user)) == left)


@pytest.mark.parametrize("full", [False, True], ids=["plain", "full"])
def test_who_comes_back_in_time_was_never_away(full: bool) -> None:
    """No event, the place in a full room is kept, and the member is who it was: one session, the same `since`."""
    hello = {"resume": {"rooms": {"lobby": None}}} if full else None

    async def main() -> None:
        async with (
            serving(presence_grace=LONG, room_capacity=2) as server,
            connect(server.address, "alice") as alice,
            connect(server.address, "carol") as carol,
        ):
            await alice.join("lobby")
            async with connect(server.address, "bob") as bob:
                await bob.join("lobby")
                before = await members(alice)
                await cut(server.hub, bob)

            assert await members(alice) == before
            assert (await carol.ask("join", room="lobby"))["code"] == "room_full"
            async with connect(server.address, "bob", full=full, hello=hello) as bob:
                if not full:
                    await bob.join("lobby")

                assert await members(alice) == before == await members(bob)
                assert [member["sessions"] for member in before] == [1, 1]
                assert (alice.heard("member-left"), len(alice.heard("member-joined"))) == ([], 1)
                # From now on it is a member like any other.
                await bob.ask("leave", room="lobby")

                assert [member["user"] for member in await members(alice)] == ["alice"]
                assert len(alice.heard("member-left")) == 1

    run(main())


def test_who_does_not_come_back_is_gone_after_the_grace() -> None:
    """Told once; who comes later comes anew."""

    async def main() -> None:
        async with serving(presence_grace=SHORT) as server, connect(server.address, "alice") as alice:
            await alice.join("lobby")
            for _ in range(2):
                async with connect(server.address, "bob") as bob:
                    await bob.join("lobby")
                    await alice.expect("member-joined", user="bob")
                await alice.expect("member-left", user="bob")

                assert [member["user"] for member in await members(alice)] == ["alice"]
            assert len(alice.heard("member-left")) == len(alice.heard("member-joined")) == 2
            assert len(server.hub._running.grace) == 0

    run(main())


def test_a_leave_is_told_at_once() -> None:
    """Whoever says so does not come back; and the other rooms are another matter."""

    async def main() -> None:
        async with serving(presence_grace=LONG) as server, connect(server.address, "alice") as alice:
            for room in ("lobby", "den"):
                await alice.join(room)
            async with connect(server.address, "bob") as bob:
                for room in ("lobby", "den"):
                    await bob.join(room)
                await bob.ask("leave", room="lobby")
                await alice.expect("member-left", room="lobby")
                await cut(server.hub, bob)

            assert [member["user"] for member in await members(alice, "den")] == ["alice", "bob"]
            assert alice.heard("member-left", room="den") == []

    run(main())


def test_a_device_beside_another_goes_at_once() -> None:
    """The user stays, so nothing is to be kept, and `sessions` is right; only the last one's place is kept."""

    async def main() -> None:
        async with (
            serving(presence_grace=LONG) as server,
            connect(server.address, "alice") as alice,
            connect(server.address, "bob") as phone,
            connect(server.address, "bob") as laptop,
        ):
            for client in (alice, phone, laptop):
                await client.join("lobby")
            before = (await members(alice))[1]
            await cut(server.hub, phone)
            between = (await members(alice))[1]
            await cut(server.hub, laptop)
            after = (await members(alice))[1]

            assert [member["sessions"] for member in (before, between, after)] == [2, 1, 1]
            assert before["since"] == between["since"] == after["since"]
            assert alice.heard("member-left") == []

    run(main())


def test_whoever_goes_again_and_again_is_one_member() -> None:
    """Twenty reconnections within the grace: nothing told, nothing left over, and one goodbye at the end."""

    async def main() -> None:
        async with serving(presence_grace=2) as server, connect(server.address, "alice") as alice:
            await alice.join("lobby")
            for _ in range(20):
                async with connect(server.address, "bob") as bob:
                    await bob.join("lobby")
            await alice.expect("member-left")
            await alice.sync()

            assert len(alice.heard("member-joined")) == len(alice.heard("member-left")) == 1
            assert len(await server.hub.members("lobby")) == 1

    run(main())


def test_beyond_the_bound_nobody_is_waited_for() -> None:
    """The table is bounded: who would be one too many leaves at once."""

    async def main() -> None:
        async with serving(presence_grace=LONG) as server, connect(server.address, "alice") as alice:
            await alice.join("lobby")
            # Room for bob: his being online, and his place.
            server.hub._running.grace._size = 2
            async with connect(server.address, "bob") as bob, connect(server.address, "carol") as carol:
                await bob.join("lobby")
                await carol.join("lobby")
                await cut(server.hub, bob)
                await eventually(lambda: len(server.hub._running.grace) == 2)
                await cut(server.hub, carol)
            left = await alice.expect("member-left")

            assert left["user"] == "carol"
            assert [member["user"] for member in await members(alice)] == ["alice", "bob"]
            assert [user["online"] for user in await online(alice, "bob", "carol")] == [True, False]

    run(main())


def test_neither_a_drain_nor_a_stop_waits_for_anybody() -> None:
    async def main() -> None:
        async with (
            serving(presence_grace=LONG) as server,
            connect(server.address, "bob") as bob,
            connect(server.address, "alice") as alice,
        ):
            await bob.join("lobby")
            await cut(server.hub, bob)
            async with asyncio.timeout(5):
                await server.drain(60)

            assert (await alice.closed())[0] == 1012
            # Both are online still, and one is in the room.
            assert len(server.hub._running.grace) == 3

    run(main())


def test_hooks_about_a_session_do_not_wait() -> None:
    """`on_leave` and `on_disconnect` are about the session, which has ended."""

    async def main() -> None:
        hub = Hub()
        seen: list[str] = []

        @hub.on_leave
        async def left(session: Session, room: str) -> None:
            seen.append(f"{session.user} left {room}")

        @hub.on_disconnect
        async def disconnected(session: Session) -> None:
            seen.append(f"{session.user} went")

        async with serving(hub, presence_grace=LONG) as server:
            async with connect(server.address, "bob") as bob:
                await bob.join("lobby")
            await eventually(lambda: len(seen) == 2)

            assert seen == ["bob left lobby", "bob went"]
            assert len(await hub.members("lobby")) == 1

    run(main())


class Friends:
    """What the hooks of a hub say about its users."""

    def __init__(self) -> None:
        self.hub = Hub()
        self.told: list[str] = []
        self.seen: list[int] = []
        # The online hook waits for it.
        self.free = asyncio.Event()
        self.free.set()
        self.hub.on_online(self.came)
        self.hub.on_offline(self.went)

    async def came(self, user: str) -> None:
        self.told.append(f"{user} came")
        await self.free.wait()

    def went(self, user: str, last_seen: int) -> None:
        self.told.append(f"{user} went")
        self.seen.append(last_seen)


def test_hooks_tell_who_comes_online_and_who_has_gone() -> None:
    """With the first session and after the last: not with those between, and not in a room or out of it."""

    async def main() -> None:
        friends = Friends()
        async with serving(friends.hub, presence_grace=SHORT) as server:
            async with connect(server.address, "bob") as phone, connect(server.address, "bob", full=True) as laptop:
                await phone.join("lobby")
                before = (await laptop.ask("users", ids=["bob"]))["users"]["bob"]
                await cut(server.hub, phone)
                await laptop.sync()

                assert friends.told == ["bob came"]
                assert before["online"] is True
            await eventually(lambda: len(friends.told) == 2)

            assert friends.told == ["bob came", "bob went"]
            assert before["last_seen"] <= friends.seen[0]

    run(main())


def test_hooks_hear_nothing_of_who_comes_back_in_time() -> None:
    """Nor does `users`: online all the while, since the first session opened."""

    async def main() -> None:
        friends = Friends()
        async with serving(friends.hub, presence_grace=LONG) as server, connect(server.address, "alice") as alice:
            states: list[dict[str, Any]] = []
            for _ in range(3):
                async with connect(server.address, "bob") as bob:
                    await bob.sync()
                    states += await online(alice, "bob")
                    await cut(server.hub, bob)
                states += await online(alice, "bob")

            assert [state["online"] for state in states] == [True] * 6
            assert len({state["since"] for state in states}) == 1
            assert [state["last_seen"] for state in states] == sorted(state["last_seen"] for state in states)
            assert friends.told == ["alice came", "bob came"]

    run(main())


def test_hooks_of_one_user_are_called_one_after_the_other() -> None:
    """However slow they are; what was undone meanwhile is not told, and the last word is what is so."""

    async def main() -> None:
        friends = Friends()
        friends.free.clear()
        async with serving(friends.hub, presence_grace=0) as server:
            for _ in range(3):
                async with connect(server.address, "bob") as bob:
                    await bob.sync()
                    await cut(server.hub, bob)

            assert friends.told == ["bob came"]
            friends.free.set()
            await eventually(lambda: len(friends.told) == 2)
            async with connect(server.address, "bob") as bob:
                await bob.sync()
                await eventually(lambda: len(friends.told) == 3)

            assert friends.told == ["bob came", "bob went", "bob came"]
            await eventually(lambda: len(friends.told) == 4)
            await eventually(lambda: server.hub._running.telling == {})

            assert friends.told[3] == "bob went"

    run(main())


def test_a_hook_that_fails_costs_nobody_anything() -> None:
    """It is logged; the next one is called."""

    async def main() -> None:
        hub = Hub()
        told: list[str] = []

        @hub.on_online
        async def came(user: str) -> None:
            raise RuntimeError("no database")

        @hub.on_offline
        async def went(user: str, last_seen: int) -> None:
            told.append(user)

        async with serving(hub, presence_grace=0) as server:
            async with connect(server.address, "bob") as bob:
                await bob.sync()
            await eventually(lambda: told)

            assert told == ["bob"]

    run(main(), logs_errors=True)


def test_without_a_sign_of_life_for_long_a_user_is_offline() -> None:
    """Whatever its connection says; anything that comes is a sign, a pong frame, too."""

    async def main() -> None:
        async with (
            serving(presence_ttl=1.5) as server,
            connect(server.address, "alice") as alice,
            connect(server.address, "bob") as bob,
        ):
            await bob.sync()
            states = await online(alice, "bob")
            while states[-1]["online"]:
                states += await online(alice, "bob")
            await bob.raw.pong()
            await eventually(lambda: server.hub.local_sessions("bob")[0].last_seen > server.hub.wheel.now - 0.3)
            states += await online(alice, "bob")

            assert states[0]["online"] is True and states[0].keys() == {"online", "since", "last_seen"}
            assert states[-2] == {"online": False}
            assert states[-1]["online"] is True and states[-1]["since"] == states[0]["since"]

    run(main())


def test_who_has_gone_is_remembered_for_a_while() -> None:
    async def main() -> None:
        async with (
            serving(presence_ttl=1, presence_grace=0) as server,
            connect(server.address, "alice") as alice,
        ):
            async with connect(server.address, "bob") as bob:
                await bob.sync()
                await cut(server.hub, bob)
            states = await online(alice, "bob")
            while "last_seen" in states[-1]:
                states += await online(alice, "bob")

            assert states[0].keys() == {"online", "last_seen"} and states[0]["online"] is False
            assert states[-1] == {"online": False}

    run(main())
