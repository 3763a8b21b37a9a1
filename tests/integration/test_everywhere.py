"""What is asked of one node about a user holds on all: where the user is, out of a room, and out altogether."""

from __future__ import annotations

import asyncio
import signal
from functools import partial
from typing import Any

import msgspec
import pytest
from websockets.exceptions import InvalidStatus

from hubbub import Hub, Identity
from hubbub.engines.memory import MemoryEngine
from hubbub.errors import HubbubError, Reject, Unavailable
from hubbub.hub import revocation
from hubbub.types import NOTHING, Publication
from support.client import Client, connect, open_client
from support.loop import PATIENCE, eventually, run
from support.nodes import Shared, two
from support.server import get, serving


async def online(client: Client, user: str) -> dict[str, Any]:
    """What a client is told about a user."""
    users: dict[str, dict[str, Any]] = (await client.ask("users", ids=[user]))["users"]
    return users[user]


class TestWhere:
    """Each node knows every session, and whether a user is online at all."""

    def test_each_session_has_its_node(self, shared: Shared) -> None:
        """And since when it is there; what has ended is gone, though its place is kept for a while."""

        async def main() -> None:
            async with two(shared) as (one, other), connect(one.address, "alice", full=True):
                async with connect(other.address, "alice", full=True) as there:
                    for server in (one, other):
                        places = await server.hub.sessions("alice")
                        local = [*one.hub.local_sessions("alice"), *other.hub.local_sessions("alice")]

                        assert [place.session for place in places] == [session.id for session in local]
                        assert [place.since for place in places] == [session.since for session in local]
                        assert len({place.node for place in places}) == 2
                    await there.leave()
                await eventually(lambda: not other.hub.local_sessions("alice"))
                async with asyncio.timeout(PATIENCE):
                    while len(await one.hub.sessions("alice")) > 1:
                        await asyncio.sleep(0.01)

        run(main())

    def test_a_user_is_online_wherever_the_session_is(self, shared: Shared) -> None:
        """Since the first of all sessions; and remembered everywhere once the last has gone."""

        async def main() -> None:
            async with (
                two(shared, presence_grace=0) as (one, other),
                connect(one.address, "bob", full=True) as bob,
            ):
                before = await online(bob, "alice")
                async with connect(other.address, "alice", full=True) as alice:
                    while_there = await online(bob, "alice")
                    since = other.hub.local_sessions("alice")[0].since
                    await alice.leave()
                async with asyncio.timeout(PATIENCE):
                    while (gone := await online(bob, "alice"))["online"]:
                        await asyncio.sleep(0.01)

                assert before == {"online": False}
                assert while_there == {"online": True, "since": since}
                assert gone["last_seen"] >= since

        run(main())

    def test_hooks_are_called_once(self, shared: Shared) -> None:
        """By the node that the first session came to, and by the one that the last one left."""

        async def main() -> None:
            hubs, told = (Hub(), Hub()), list[str]()
            for number, hub in enumerate(hubs):

                @hub.on_online
                async def came(user: str, number: int = number) -> None:
                    told.append(f"{user} came to {number}")

                @hub.on_offline
                async def went(user: str, last_seen: int, number: int = number) -> None:
                    told.append(f"{user} left {number}")

            async with two(shared, *hubs, presence_grace=0.3) as (one, other):
                first = await open_client(one.address, "alice", full=True)
                second = await open_client(other.address, "alice", full=True)
                first.cut()
                await eventually(lambda: not one.hub.local_sessions("alice"))
                second.cut()
                # Within the grace, on the other node: nobody has come or gone.
                await eventually(lambda: not other.hub.local_sessions("alice"))
                third = await open_client(one.address, "alice", full=True)
                async with asyncio.timeout(PATIENCE):
                    while len(await one._engine.places("user:alice", "alice")) > 1:
                        await asyncio.sleep(0.02)
                third.cut()
                await eventually(lambda: len(told) == 2)

                assert told == ["alice came to 0", "alice left 0"]

        run(main())

    def test_who_goes_while_the_engine_is_away_has_gone_when_it_is_back(self, shared: Shared) -> None:
        """Out of the room and offline, and both are told; nobody is a member for ever."""

        async def main() -> None:
            hubs, told = (Hub(), Hub()), list[str]()
            for hub in hubs:

                @hub.on_offline
                async def went(user: str, last_seen: int) -> None:
                    told.append(user)

            async with (
                two(shared, *hubs, presence_grace=0.1) as (one, other),
                connect(other.address, "bob", full=True) as bob,
            ):
                alice = await open_client(one.address, "alice", full=True)
                await alice.join("lobby")
                await bob.join("lobby")
                shared.signal(signal.SIGSTOP)
                try:
                    alice.cut()
                    node = one.hub._running
                    await eventually(lambda: not node.sessions and not node.tasks and not len(node.grace))
                finally:
                    shared.signal(signal.SIGCONT)
                await bob.expect("member-left", user="alice", room="lobby")
                await eventually(lambda: told)

                assert told == ["alice"]
                assert [member.user for member in await other.hub.members("lobby")] == ["bob"]
                assert await other.hub.sessions("alice") == []

        run(main(), logs_errors=True)

    def test_where_the_engine_is_away_again_nobody_is_told(self) -> None:
        """That is no fault of the server's."""

        class Deaf(MemoryEngine):
            async def publish(self, *args: Any, **options: Any) -> Any:
                raise Unavailable

        async def main() -> None:
            async with serving() as server, connect(server.address, "bob", full=True) as bob:
                await bob.join("lobby")
                node = server.hub._running
                node.engine = Deaf()
                node.gone("room:lobby", "alice")
                node.came("room:lobby", "alice")

                assert (await bob.ask("ping"))["type"] == "pong"

        run(main())

    def test_who_was_taken_for_gone_is_back(self) -> None:
        """Members and hooks were told of the going, and are told of this."""

        async def main() -> None:
            hub, told = Hub(), list[str]()

            @hub.on_online
            async def came(user: str) -> None:
                told.append(user)

            async with serving(hub) as server, connect(server.address, "bob", full=True) as bob:
                await bob.join("lobby")
                for channel in ("room:lobby", "user:alice"):
                    hub._running.came(channel, "alice")
                await bob.expect("member-joined", user="alice", room="lobby")
                await eventually(lambda: "alice" in told)

                assert told == ["bob", "alice"]

        run(main())


class TestTickets:
    """Who gets a ticket from one node may use it on any: the page's request and its WebSocket go different ways."""

    def test_once_on_whichever_node(self, shared: Shared) -> None:
        """Whoever is first, of any number at the same time."""

        async def main() -> None:
            hubs = (Hub(), Hub())
            for hub in hubs:

                @hub.authenticate
                async def who(credentials: Any) -> Identity | None:
                    return Identity(user="alice", roles=("member",)) if credentials.token == "token" else None

            async with two(shared, *hubs, dev=False) as (one, other):
                answer = await get(
                    one.address, "/api/tickets", "Authorization: Bearer token", "Connection: close", method="POST"
                )
                query = f"ticket={answer.json()['ticket']}"
                tries = [open_client(server.address, None, full=True, query=query) for server in (one, other) * 5]
                found = await asyncio.gather(*tries, return_exceptions=True)
                (alice,) = [client for client in found if isinstance(client, Client)]
                refusals = [error for error in found if isinstance(error, InvalidStatus)]
                sessions = [*one.hub.local_sessions("alice"), *other.hub.local_sessions("alice")]

                assert [refusal.response.status_code for refusal in refusals] == [401] * 9
                assert [session.identity.roles for session in sessions if session.identity] == [("member",)]
                alice.cut()
                await alice.closed()

        run(main())


class TestDisconnect:
    """`hub.disconnect` ends the sessions of a user on every node, and keeps their tokens out there."""

    def test_on_the_other_node(self, shared: Shared) -> None:
        """Of this user, and of nobody else; the count is that of all nodes."""

        async def main() -> None:
            async with (
                two(shared) as (one, other),
                connect(one.address, "mallory", full=True) as here,
                connect(other.address, "mallory", full=True) as there,
                connect(other.address, "bob", full=True) as bob,
            ):
                count = await one.hub.disconnect("mallory", "enough")
                codes = [await client.closed() for client in (here, there)]
                async with asyncio.timeout(PATIENCE):
                    while await one.hub.sessions("mallory"):
                        await asyncio.sleep(0.01)
                again = await one.hub.disconnect("mallory")

                assert count == 2 and again == 0
                assert codes == [(4504, "enough"), (4504, "enough")]
                assert (await bob.ask("ping"))["type"] == "pong"

        run(main())

    def test_the_token_stays_out(self, shared: Shared) -> None:
        """Of a session on the other node: on both."""

        async def main() -> None:
            hubs = (Hub(), Hub())
            for hub in hubs:

                @hub.authenticate
                async def who(credentials: Any) -> Identity | None:
                    return Identity(user="mallory") if credentials.token == "token" else None

            async with two(shared, *hubs, dev=False) as (one, other):
                mallory = await open_client(other.address, None, full=True, headers={"Authorization": "Bearer token"})
                await one.hub.disconnect("mallory")
                await mallory.closed()
                for server in (one, other):
                    node = server.hub._running
                    await eventually(partial(len, node.revocations))

                    with pytest.raises(InvalidStatus, match="401"):
                        await open_client(server.address, None, headers={"Authorization": "Bearer token"})

        run(main())

    @pytest.mark.parametrize("error", [Unavailable(), Reject("internal", "whether it has it is unknown")], ids=str)
    def test_the_token_stays_out_though_the_engine_was_away(
        self, shared: Shared, error: Reject, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """For the node that has the session, just as that ended: it tells the others when it can."""
        monkeypatch.setattr(revocation, "_AGAIN", 0.01)

        async def main() -> None:
            hubs = (Hub(), Hub())
            for hub in hubs:

                @hub.authenticate
                async def who(credentials: Any) -> Identity | None:
                    return Identity(user="mallory") if credentials.token == "token" else None

            async with two(shared, *hubs, dev=False) as (one, other):
                headers = {"Authorization": "Bearer token"}
                mallory = await open_client(other.address, None, full=True, headers=headers)
                engine, tries = other.hub._running.engine, list[str]()
                publish = engine.publish

                async def away(channel: str, *args: Any, **options: Any) -> Any:
                    tries.append(channel)
                    if len(tries) < 3:
                        raise error
                    return await publish(channel, *args, **options)

                monkeypatch.setattr(engine, "publish", away)
                await one.hub.disconnect("mallory")
                await mallory.closed()
                await eventually(lambda: len(one.hub._running.revocations))
                with pytest.raises(InvalidStatus, match="401"):
                    await open_client(one.address, None, headers=headers)

                assert tries == ["server:revocations"] * 3

        run(main())

    def test_a_name_that_nobody_can_have(self) -> None:
        """Says so, and asks nobody."""

        async def main() -> None:
            async with serving() as server:
                for name in ("", "a\nb", "a" * 129):
                    with pytest.raises(HubbubError, match="1 to 128 characters"):
                        await server.hub.disconnect(name)

        run(main())

    def test_where_nobody_can_be_told_who_is_here_goes_all_the_same(self) -> None:
        """And whoever asked knows that the others have not heard."""

        class Deaf(MemoryEngine):
            async def publish(self, *args: Any, **options: Any) -> Any:
                raise Unavailable

        async def main() -> None:
            async with serving() as server, connect(server.address, "mallory", full=True) as mallory:
                server.hub._running.engine = Deaf()
                with pytest.raises(Unavailable):
                    await server.hub.disconnect("mallory")

                assert (await mallory.closed())[0] == 4504

        run(main())

    def test_a_token_stays_out_though_nobody_can_say_where_the_user_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """On this node at once, whatever the engine says; on others when it is back, though nobody asks again."""
        monkeypatch.setattr(revocation, "_AGAIN", 0.01)

        class Away(MemoryEngine):
            away = True

            async def places(self, *args: Any) -> Any:
                raise Unavailable

            async def publish(self, *args: Any, **options: Any) -> Any:
                if self.away:
                    raise Unavailable
                return await super().publish(*args, **options)

        async def main() -> None:
            hub = Hub()

            @hub.authenticate
            async def who(credentials: Any) -> Identity | None:
                return Identity(user="mallory") if credentials.token == "token" else None

            async with serving(hub, dev=False) as server:
                headers = {"Authorization": "Bearer token"}
                mallory = await open_client(server.address, None, full=True, headers=headers)
                hub._running.engine = engine = Away()
                with pytest.raises(Unavailable):
                    await hub.disconnect("mallory")
                await mallory.closed()
                with pytest.raises(InvalidStatus, match="401"):
                    await open_client(server.address, None, headers=headers)
                engine.away = False
                async with asyncio.timeout(PATIENCE):
                    while not (await engine.position("server:revocations")).seq:
                        await asyncio.sleep(0.01)

        run(main())


def test_what_was_revoked_is_said_again_where_the_log_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often the engine is away meanwhile, or an answer lost; and once, though it is lost twice."""
    monkeypatch.setattr(revocation, "_AGAIN", 0.01)

    class Emptied(MemoryEngine):
        asked = said = 0

        async def after(self, *args: Any) -> Any:
            self.asked += 1
            if self.asked <= 2:
                raise Unavailable
            return await super().after(*args)

        async def publish(self, *args: Any, **options: Any) -> Any:
            self.said += 1
            accepted = await super().publish(*args, **options)
            if self.said == 1:
                raise Reject("internal", "whether it has it is unknown")
            return accepted

    async def main() -> None:
        async with serving() as server:
            node = server.hub._running
            await server.hub.revoke(user="mallory")
            await server.hub.revoke(user="oscar")
            node.engine = engine = Emptied()
            for _ in range(2):
                node.lost("server:revocations")
            await eventually(lambda: not node.tasks)
            read = engine.asked
            page = await engine.after("server:revocations", 0, 10)
            said = [msgspec.json.decode(publication.content) for publication in page.publications]

            assert sorted(one["user"] for one in said) == ["mallory", "oscar"]
            # One read of it, after the two in vain: nobody else was at it.
            assert read == 3

    run(main(), logs_errors=True)


class TestKick:
    """`hub.kick` takes a user out of one room, on every node."""

    def test_out_of_this_room_and_no_other(self, shared: Shared) -> None:
        """Who is kicked is told, and so are the members; who was not in it hears nothing."""

        async def main() -> None:
            async with (
                two(shared) as (one, other),
                connect(one.address, "mallory", full=True) as here,
                connect(other.address, "mallory", full=True) as there,
                connect(other.address, "mallory", full=True) as elsewhere,
                connect(other.address, "bob", full=True) as bob,
            ):
                for client in (here, there, bob):
                    await client.join("lobby")
                await there.join("den")
                count = await one.hub.kick("mallory", "lobby")
                for client in (here, there):
                    left = await client.expect("left", room="lobby")
                    refused = await client.ask("chat", content="x", room="lobby")

                    assert left["code"] == "forbidden"
                    assert refused["code"] == "not_joined"
                await bob.expect("member-left", user="mallory", room="lobby")
                await there.ask("chat", content="still here", room="den")

                assert count == 2
                assert not elsewhere.heard("left")
                assert [member.user for member in await one.hub.members("lobby")] == ["bob"]
                assert (await there.join("lobby"))["type"] == "joined"

        run(main())

    def test_also_who_is_being_waited_for(self) -> None:
        """A place that is kept for somebody who was cut off is kept no more."""

        async def main() -> None:
            async with serving(presence_grace=60) as server:
                mallory = await open_client(server.address, "mallory", full=True)
                await mallory.join("lobby")
                mallory.cut()
                await eventually(lambda: not server.hub.local_sessions("mallory"))
                await eventually(lambda: len(server.hub._running.grace) == 2)
                await server.hub.kick("mallory", "lobby")

                assert await server.hub.members("lobby") == []

        run(main())

    def test_who_is_joining_is_out_as_well(self) -> None:
        """The kick waits for the session's turn, so that nothing is left half."""

        async def main() -> None:
            hub = Hub()
            joining, go_on = asyncio.Event(), asyncio.Event()

            @hub.on_join
            async def slow(session: Any, room: str) -> None:
                joining.set()
                await go_on.wait()

            async with serving(hub) as server, connect(server.address, "mallory", full=True) as mallory:
                await mallory.send({"type": "join", "room": "lobby", "id": "j1"})
                await joining.wait()
                await hub.kick("mallory", "lobby")
                await mallory.send({"type": "chat", "content": "x", "room": "lobby", "id": "c1"})
                go_on.set()
                await mallory.expect("left", room="lobby")
                refused = await mallory.expect("error", id="c1")

                assert refused["code"] == "not_joined"
                assert await hub.members("lobby") == []
                assert "room:lobby" not in hub._running.channels

        run(main())


def test_a_node_that_cannot_read_a_control_goes_on() -> None:
    """It may be a newer node's, of which this one knows nothing."""

    async def main() -> None:
        async with serving() as server, connect(server.address, "alice", full=True) as alice:
            await server.hub._running.engine.publish("server:control", Publication("control", content=NOTHING))

            assert (await alice.ask("ping"))["type"] == "pong"

    run(main(), logs_errors=True)
