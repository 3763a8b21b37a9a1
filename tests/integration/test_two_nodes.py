"""Two servers on one engine are as one: who is on which makes no difference, except to what is said when it fails."""

from __future__ import annotations

import asyncio
import signal
from functools import partial
from typing import Any

import pytest

from hubbub import Hub
from hubbub.engines.base import Listener
from hubbub.engines.redis.engine import RedisEngine
from hubbub.errors import ConfigError
from hubbub.server import Server
from support.client import Client, connect, open_client
from support.link import Direction, Link
from support.loop import PATIENCE, eventually, run
from support.nodes import Shared, two
from support.redis import Redis
from support.server import Child, command, get, serving


def said(client: Client, **fields: Any) -> list[Any]:
    """The contents that a client got, in order."""
    return [message["content"] for message in client.heard("chat", **fields)]


def has(client: Client, count: int, type: str = "chat", **fields: Any) -> bool:
    """Whether a client got so many."""
    return len(client.heard(type, **fields)) == count


async def ready(server: Server) -> bool:
    return (await get(server.address, "/ready")).status == 200


async def until_ready(server: Server, wanted: bool = True) -> None:
    async with asyncio.timeout(PATIENCE):
        while await ready(server) is not wanted:
            await asyncio.sleep(0.05)


def test_a_room_a_user_and_everyone_across_nodes(shared: Shared) -> None:
    """What is said on one is heard on both, in the same order, and devices of one user may be on either."""

    async def main() -> None:
        async with (
            two(shared) as (one, other),
            connect(one.address, "alice", full=True) as alice,
            connect(other.address, "bob", full=True) as bob,
            connect(one.address, "bob") as device,
        ):
            await alice.join("lobby")
            joined = await bob.join("lobby")
            await asyncio.gather(
                *(alice.say(f"a{number}", room="lobby") for number in range(20)),
                *(bob.say(f"b{number}", room="lobby") for number in range(20)),
            )
            await alice.say("everyone")
            await alice.say("you", to="bob")
            for client in (alice, bob):
                await eventually(partial(has, client, 40, room="lobby"))
            for client in (bob, device):
                await client.expect("chat", content="everyone")
                await client.expect("chat", content="you", to="bob")

            assert said(alice, room="lobby") == said(bob, room="lobby")
            assert [member["user"] for member in joined["members"]] == ["alice", "bob"]

    run(main())


def test_an_ack_stands_where_the_message_would(shared: Shared) -> None:
    """Without an echo, with another node writing to the same room: the sender sees each number once, in order."""

    async def main() -> None:
        async with (
            two(shared) as (one, other),
            connect(one.address, "alice", full=True) as alice,
            connect(other.address, "bob", full=True) as bob,
        ):
            await alice.join("lobby")
            await bob.join("lobby")
            for number in range(100):
                await alice.say(number, room="lobby", id=f"a{number}", echo=False)
                await bob.say(number, room="lobby", id=f"b{number}", echo=False)
            for client in (alice, bob):
                await eventually(partial(has, client, 100, "ack"))
                await eventually(partial(has, client, 100))
                seqs = [message["seq"] for message in client.seen if message["type"] in ("chat", "ack")]

                assert seqs == list(range(1, 201))

    run(main())


def test_resume_on_the_other_node(shared: Shared) -> None:
    """No sticky sessions: what was missed is recovered, and a message repeated there is known."""

    async def main() -> None:
        async with two(shared) as (one, other), connect(other.address, "bob", full=True) as bob:
            await bob.join("lobby")
            alice = await open_client(one.address, "alice", full=True)
            joined = await alice.join("lobby")
            first = await alice.ask("chat", content="mine", room="lobby", id="m1")
            alice.cut()
            await bob.ask("chat", content="missed", room="lobby")
            await bob.ask("chat", content="for you", to="alice")
            resume = {"rooms": {"lobby": [joined["position"][0], first["seq"]]}}
            async with connect(other.address, "alice", full=True, hello={"resume": resume}) as back:
                again = await back.ask("chat", content="mine", room="lobby", id="m1")
                await back.expect("chat", content="for you")

                assert back.welcome["recovered"]["rooms"] == {"lobby": True}
                assert said(back, room="lobby") == ["missed"]
                assert (again["seq"], again["duplicate"]) == (first["seq"], True)

    run(main())


def test_receipts_and_acknowledgements_cross_nodes(shared: Shared) -> None:
    """The recipient is on another node than the sender, and than the application that waits."""

    async def main() -> None:
        async with (
            two(shared) as (one, other),
            connect(one.address, "alice", full=True) as alice,
            connect(other.address, "bob", full=True) as bob,
        ):
            await alice.say("hi", to="bob", id="a1", receipt=True)
            await bob.send({"type": "ack", "seq": (await bob.expect("chat"))["seq"]})
            receipt = await alice.expect("receipt", id="a1")
            waiting = asyncio.create_task(one.hub.send_with_ack("bob", "order", 1, timeout=PATIENCE))
            order = await bob.expect("order")
            await bob.send({"type": "ack", "seq": order["seq"]})

            assert receipt["by"] == "bob"
            assert (await waiting).user == "bob"

    run(main())


def test_a_revocation_reaches_all_nodes(shared: Shared) -> None:
    """Whoever is there is closed, and a node that comes up later knows it."""

    async def main() -> None:
        async with two(shared) as (one, other), connect(other.address, "mallory", full=True) as mallory:
            await one.hub.revoke(user="mallory")
            code, _ = await mallory.closed()
            prefix = one.config.redis.redis_prefix if isinstance(shared, Redis) else one.config.nats.nats_prefix
            async with serving(Hub(), **shared.part(prefix.rstrip(":"))) as later:
                engine: Any = later._engine

                assert code == 4501
                assert (await engine.position("server:revocations")).seq == 1

    run(main())


def test_it_hangs_and_goes_on(shared: Shared) -> None:
    """Sessions stay, senders are told, `/ready` is red; then everything goes on by itself."""

    async def main() -> None:
        async with (
            two(shared) as (one, other),
            connect(one.address, "alice", full=True) as alice,
            connect(other.address, "bob", full=True) as bob,
        ):
            await alice.join("lobby")
            await bob.join("lobby")
            shared.signal(signal.SIGSTOP)
            try:
                answer = await alice.ask("chat", content="lost?", room="lobby", id="a1", echo=False)
                await until_ready(one, False)
                await until_ready(other, False)
                at_once = await alice.ask("chat", content="not stored", room="lobby", echo=False)
            finally:
                shared.signal(signal.SIGCONT)
            await until_ready(one)
            await until_ready(other)
            # What the engine had not read when the connection was given up went with it, so both may be. But once.
            await alice.send({"type": "chat", "content": "lost?", "room": "lobby", "id": "a1", "echo": False})
            again = await alice.expect("ack", id="a1")
            await alice.ask("chat", content="after", room="lobby")
            await bob.expect("chat", content="after")
            if again.get("duplicate"):
                # No ack has stood for it: so she hears it herself, and sees no hole.
                await alice.expect("chat", content="lost?")

            assert (answer["type"], answer["code"]) == ("error", "internal")
            assert (at_once["type"], at_once["code"]) == ("error", "unavailable") and at_once["retry_after"] > 0
            assert said(bob) == ["lost?", "after"]
            assert said(alice) == (["lost?", "after"] if again.get("duplicate") else ["after"])

    run(main(), logs_errors=True)


def test_it_is_emptied_and_clients_are_told(shared: Shared) -> None:
    """Who has positions is asked to come back, and told that they are good for nothing; plain clients go on."""

    async def main() -> None:
        async with (
            two(shared) as (one, other),
            connect(one.address, "alice", full=True) as alice,
            connect(other.address, "bob") as bob,
        ):
            joined = await alice.join("lobby")
            await bob.send({"type": "join", "room": "lobby"})
            await bob.expect("joined")
            await alice.ask("chat", content="before", room="lobby")
            shared.empty(one.config.nats.nats_prefix)
            code, _ = await alice.closed()
            await until_ready(other)
            for channel in ("all", "room:lobby"):
                # Whoever comes before it knows that what it hears is lost is asked to come back, too.
                await other._engine.position(channel)
            resume = {"rooms": {"lobby": [joined["position"][0], 1]}}
            async with connect(other.address, "alice", full=True, hello={"resume": resume}) as back:
                ack = await back.ask("chat", content="after", room="lobby", echo=False)
                await bob.expect("chat", content="after")

                assert code == 1013
                assert alice.heard("goodbye")[0]["retry_after"] > 0
                assert back.welcome["recovered"]["rooms"] == {"lobby": False}
                assert ack["epoch"] != joined["position"][0]

    run(main(), logs_errors=True)


def test_a_killed_node_is_out_of_its_rooms(shared: Shared) -> None:
    """Within the lease its people are members no more, the others are told, and they are offline."""

    async def main() -> None:
        part = shared.part("killed")
        hub, offline = Hub(), list[str]()

        @hub.on_offline
        async def went(user: str, last_seen: int) -> None:
            offline.append(user)

        async with (
            serving(hub, **part, presence_events=True) as one,
            Child.spawned("--dev", **{f"HUBBUB_{name.upper()}": value for name, value in part.items()}) as child,
            connect(one.address, "alice", full=True) as alice,
            connect(child.address, "bob", full=True) as bob,
        ):
            await alice.join("lobby")
            await bob.join("lobby")
            child.signal(signal.SIGKILL)
            await bob.closed()
            engine: Any = one._engine
            async with asyncio.timeout(engine.capabilities.lease + PATIENCE):
                while not offline:
                    await asyncio.sleep(0.1)
            await alice.expect("member-left", user="bob", room="lobby")

            assert (await alice.ask("presence", room="lobby"))["count"] == 1
            assert offline == ["bob"] and not (await alice.ask("users", ids=["bob"]))["users"]["bob"]["online"]

    run(main())


def test_the_password_is_never_shown(redis: Redis) -> None:
    """Whatever is wrong with the URL or with what is there: one sentence, which says where and what to do."""

    async def main() -> None:
        for url, wrong in (
            (redis.url.replace("redis://", "redis://:sesame@"), "does not take the password"),
            ("redis://:sesame@127.0.0.1:1/0", "cannot be used"),
            ("nats://hub:sesame@127.0.0.1:1", "cannot be used"),
            ("nats://sesame@127.0.0.1:1/x", "cannot be read"),
            ("http://:sesame@127.0.0.1", "redis://"),
        ):
            status, out, errors = await command("serve", "--dev", "--port", "0", HUBBUB_ENGINE=url)

            assert status == 2 and wrong in errors
            assert "sesame" not in out + errors and "Traceback" not in errors

    run(main())


def test_a_start_that_fails_leaves_nothing_running(redis: Redis) -> None:
    """Where the engine goes away between its start and the hub's, too; and it is said what to do."""

    class GoesAway(RedisEngine):
        async def start(self, listener: Listener, node: str) -> None:
            await super().start(listener, node)
            link.swallow(Direction.OUT)

    link = Link(lambda: ("127.0.0.1", redis.port))

    async def main() -> None:
        await link.start()
        before = asyncio.all_tasks()
        engine = GoesAway(f"redis://127.0.0.1:{link.port}/0", prefix="goes-away:")
        try:
            with pytest.raises(ConfigError, match=r"the engine went away during the start .*: see that it runs"):
                await Hub().start(engine)
            left = asyncio.all_tasks() - before
        finally:
            await engine.stop()
            await link.stop()

        assert not left

    run(main())
