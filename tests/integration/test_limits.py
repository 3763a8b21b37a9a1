"""How many may come in, and how much they may send: exact, and refused with the code that the protocol names."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from hubbub import Hub, Session
from hubbub.eager import in_task
from hubbub.engines.memory import MemoryEngine
from hubbub.errors import Unavailable
from hubbub.server import Server
from support.client import FULL, Client, connect, open_client
from support.loop import eventually, run
from support.server import get, serving

pytestmark = pytest.mark.every_engine


async def attempt(server: Server, user: str, stack: AsyncExitStack, **options: Any) -> Client | InvalidStatus:
    """Connect, or see why not."""
    try:
        return await stack.enter_async_context(connect(server.address, user, **options))
    except InvalidStatus as refused:
        return refused


def read(refused: InvalidStatus) -> tuple[int, str]:
    """Status and code of a refusal, whose form is checked: JSON with a code and a text, and when to come again."""
    response = refused.response
    body = json.loads(response.body or b"")

    assert response.headers["Content-Type"] == "application/json"
    assert body.keys() == {"error"} and body["error"].keys() == {"code", "message"} and body["error"]["message"]
    assert int(response.headers["Retry-After"]) > 0
    return response.status_code, body["error"]["code"]


def test_connections_in_all_are_exact_under_concurrency() -> None:
    """Eighty at once where fifty may be: exactly fifty are in; the others are refused with 503."""

    async def main() -> None:
        async with serving(connections=50) as server, AsyncExitStack() as stack:
            tried = await asyncio.gather(*(attempt(server, f"u{n}", stack, full=n % 2 == 0) for n in range(80)))
            inside = [client for client in tried if isinstance(client, Client)]
            refused = [refusal for refusal in tried if isinstance(refusal, InvalidStatus)]

            assert len(inside) == 50 == server.hub.statistics().connections
            assert {read(refusal) for refusal in refused} == {(503, "unavailable")}
            # A place that becomes free is one place.
            inside[0].cut()
            await eventually(lambda: server.hub.statistics().connections == 49)
            again = await asyncio.gather(*(attempt(server, f"v{n}", stack) for n in range(5)))

            assert sum(isinstance(client, Client) for client in again) == 1
            # HTTP is not a connection of that kind.
            assert (await get(server.address, "/health")).status == 200

    run(main())


@pytest.mark.memory
@pytest.mark.parametrize("full", [False, True], ids=["plain", "full"])
def test_whoever_would_wait_behind_too_many_is_told_to_come_again(full: bool) -> None:
    """An engine that is behind opens sessions for clients that have given up, unless they are refused at the door."""

    class Slow(MemoryEngine):
        behind, failing = True, False

        async def enter(self, *args: Any) -> Any:
            while self.behind:
                await in_task()
                await asyncio.sleep(0.01)
            if self.failing:
                raise Unavailable
            return await super().enter(*args)

    async def main() -> None:
        async with serving(connections_opening=2) as server, AsyncExitStack() as stack:
            node = server.hub._running
            node.engine = engine = Slow()
            slow = [
                await attempt(server, f"u{n}", stack, full=False, subprotocols=[FULL] if full else None)
                for n in range(2)
            ]
            for client in slow:
                assert isinstance(client, Client)
                if full:
                    await client.send({"type": "hello"})
            await eventually(lambda: node.counts.opening_full())
            refused = await attempt(server, "alice", stack)

            assert isinstance(refused, InvalidStatus) and read(refused) == (503, "unavailable")
            engine.failing = True
            engine.behind = False
            # Whether they are in or not: they wait no more.
            await eventually(lambda: not node.counts.opening_full())
            engine.failing = False
            assert isinstance(await attempt(server, "alice", stack), Client)

    run(main())


@pytest.mark.memory
@pytest.mark.parametrize("full", [False, True], ids=["plain", "full"])
def test_those_who_come_in_one_moment_are_counted_when_they_open(full: bool) -> None:
    """At the door each of them had a place: who has none any more comes again, and the engine is not asked for it."""

    class Behind(MemoryEngine):
        asked = 0

        async def enter(self, *args: Any) -> Any:
            self.asked += 1
            await asyncio.Event().wait()

    async def main() -> None:
        hub = Hub()
        open_up = asyncio.Event()

        @hub.on_connect
        async def wait(session: Session) -> None:
            await open_up.wait()

        async with serving(hub, connections_opening=2) as server, AsyncExitStack() as stack:
            server.hub._running.engine = engine = Behind()
            clients = []
            for n in range(5):
                way = [FULL] if full else None
                clients.append(await stack.enter_async_context(connect(server.address, f"u{n}", subprotocols=way)))
                if full:
                    await clients[-1].send({"type": "hello"})
            open_up.set()
            refused: list[Client] = []

            def told() -> bool:
                refused[:] = [client for client in clients if client.heard("error", code="unavailable", retry_after=1)]
                return len(refused) == 3

            await eventually(told)

            assert [(await client.closed())[0] for client in refused] == [1013] * 3
            assert engine.asked == 2

    run(main())


@pytest.mark.parametrize("full", [False, True], ids=["plain", "full"])
def test_connections_of_a_user_are_exact(full: bool) -> None:
    """The fourth is refused with 429, another user's first is not."""

    async def main() -> None:
        async with serving(connections_per_user=3) as server, AsyncExitStack() as stack:
            tried = [await attempt(server, "alice", stack, full=full) for _ in range(5)]

            assert [isinstance(client, Client) for client in tried] == [True] * 3 + [False] * 2
            assert isinstance(tried[3], InvalidStatus) and read(tried[3]) == (429, "rate_limited")
            assert isinstance(await attempt(server, "bob", stack, full=full), Client)
            assert isinstance(tried[0], Client)
            tried[0].cut()
            await eventually(lambda: len(server.hub.local_sessions("alice")) == 2)
            assert isinstance(await attempt(server, "alice", stack, full=full), Client)

    run(main())


def test_a_users_connections_are_counted_again_at_hello() -> None:
    """Many handshakes first and many greetings then do not get past the limit (protocol.md 3.3)."""

    async def main() -> None:
        async with serving(connections_per_user=2) as server, AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(connect(server.address, "alice", subprotocols=[FULL])) for _ in range(5)
            ]
            for client in clients:
                await client.send({"type": "hello"})
            for client in clients[:2]:
                await client.expect("welcome")
            for client in clients[2:]:
                error = await client.expect("error", code="rate_limited")

                assert error["retry_after"] > 0
                assert (await client.closed())[0] == 1013
            assert len(server.hub.local_sessions("alice")) == 2

    run(main())


def test_a_users_connections_are_counted_again_when_a_hook_has_waited() -> None:
    """`on_connect` may take its time; who comes meanwhile does not get past the limit."""

    async def main() -> None:
        hub = Hub()
        open_up = asyncio.Event()

        @hub.on_connect
        async def wait(session: Session) -> None:
            await open_up.wait()

        async with serving(hub, connections_per_user=2) as server, AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(connect(server.address, "alice")) for _ in range(5)]
            open_up.set()
            await eventually(lambda: server.hub.statistics().connections == 2)
            codes = [(await client.closed())[0] for client in clients if client.heard("error")]

            assert codes == [1013] * 3
            await eventually(lambda: len(server.hub.local_sessions("alice")) == 2)

    run(main())


def test_connections_of_an_address_are_exact() -> None:
    async def main() -> None:
        async with serving(connections_per_ip=4) as server, AsyncExitStack() as stack:
            tried = await asyncio.gather(*(attempt(server, f"u{n}", stack) for n in range(10)))
            inside = [client for client in tried if isinstance(client, Client)]

            assert len(inside) == 4
            assert {read(refusal) for refusal in tried if isinstance(refusal, InvalidStatus)} == {(429, "rate_limited")}
            inside[0].cut()
            await eventually(lambda: server.hub.statistics().connections == 3)
            assert isinstance(await attempt(server, "later", stack), Client)

    run(main())


def test_a_full_client_that_never_greets_is_closed_with_4506() -> None:
    """It has so long for its first message; another first message is 4500 at once."""

    async def main() -> None:
        async with serving(hello_timeout=0.3) as server:
            async with (
                connect(server.address, "alice", subprotocols=[FULL]) as silent,
                connect(server.address, "bob", subprotocols=[FULL]) as rude,
                connect(server.address, "carol", full=True) as polite,
            ):
                await rude.send({"type": "join", "room": "lobby", "id": "j"})
                error = await rude.expect("error", id="j")

                assert (error["code"], error["room"]) == ("bad_message", "lobby")
                assert (await rude.closed())[0] == 4500
                assert (await silent.closed())[0] == 4506
                assert silent.seen == []
                assert await polite.sync() == []
            await eventually(lambda: server.hub.statistics().connections == 0)

    run(main())


def test_a_hello_in_time_may_wait_for_the_application() -> None:
    """The limit is on the client's time, not on the hook's."""

    async def main() -> None:
        hub = Hub()
        opened = asyncio.Event()

        @hub.on_connect
        async def wait(session: Session) -> None:
            await opened.wait()

        async with (
            serving(hub, hello_timeout=0.1) as server,
            connect(server.address, "alice", subprotocols=[FULL]) as alice,
        ):
            await alice.send({"type": "hello"})
            async with connect(server.address, "bob", subprotocols=[FULL]) as silent:
                # It came later, so the first one's time is over, too.
                assert (await silent.closed())[0] == 4506
            opened.set()
            await alice.expect("welcome")

    run(main())


@pytest.mark.parametrize("full", [False, True], ids=["plain", "full"])
def test_the_tenth_bad_message_in_a_minute_ends_the_session(full: bool) -> None:
    """Nine are answered and the connection lives; the tenth is answered, too, and closes with 4500."""

    async def main() -> None:
        async with serving() as server, connect(server.address, "alice", full=full) as alice:
            for _ in range(9):
                await alice.send_text("not JSON")
            await alice.say("still here")
            await alice.expect("chat", content="still here")
            await alice.send({"type": "welcome", "id": "tenth"})
            await alice.expect("error", id="tenth", code="bad_message")

            assert await alice.closed() == (4500, "too many bad messages")
            assert len(alice.heard("error", code="bad_message")) == 10
            assert len(alice.heard("goodbye", code=4500)) == full

    run(main())


def test_errors_that_are_no_bad_messages_do_not_count() -> None:
    """`not_joined` and the like can be had all day."""

    async def main() -> None:
        async with serving() as server, connect(server.address, "alice") as alice:
            for _ in range(30):
                await alice.say("hi", room="lobby")
            await alice.sync()

            assert len(alice.heard("error", code="not_joined", room="lobby")) == 30

    run(main())


@pytest.mark.parametrize("way", ["one frame", "fragments"])
def test_a_message_over_the_limit_is_1009(way: str) -> None:
    """The largest goes through; one byte more closes, whole or in fragments."""

    async def main() -> None:
        async with serving(message_size=1_000) as server, connect(server.address, "alice") as alice:
            frame = '{"type":"chat","content":"%s"}'
            largest = frame % ("x" * (1_000 - len(frame) + 2))

            assert len(largest) == 1_000
            await alice.send_text(largest)
            await alice.expect("chat", seq=1)
            too_large = frame % ("x" * (1_001 - len(frame) + 2))
            await alice.raw.send(too_large if way == "one frame" else [too_large[:600], too_large[600:]])

            assert (await alice.closed())[0] == 1009
            assert alice.heard("error") == []

    run(main())


def test_rooms_of_a_session_are_bounded() -> None:
    """One too many is `forbidden`; leaving makes room; a room one is in counts once."""

    async def main() -> None:
        async with serving(rooms_per_session=3) as server, connect(server.address, "alice") as alice:
            for room in ("a", "b", "c", "a"):
                await alice.join(room)
            error = await alice.ask("join", room="d")

            assert (error["type"], error["code"], error["room"]) == ("error", "forbidden", "d")
            await alice.ask("leave", room="b")
            await alice.join("d")
            resume = {"rooms": dict.fromkeys("abcde")}
            bob = await open_client(server.address, "bob", full=True, hello={"resume": resume})
            await bob.sync()

            assert list(bob.welcome["positions"]["rooms"]) == ["a", "b", "c"]
            assert [(m["code"], m["room"]) for m in bob.heard("error")] == [("forbidden", "d"), ("forbidden", "e")]
            await bob.leave()

    run(main())
