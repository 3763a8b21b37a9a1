"""A channel is there when the engine listens to it, not before: for everybody who wants it, however they race."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hubbub import Hub
from hubbub.engines.memory import MemoryEngine
from hubbub.errors import Unavailable
from hubbub.hub import HubOptions
from hubbub.transports.base import Accept, Handshake
from support.engine import FarEngine
from support.loop import eventually, run
from support.wire import Wire

LISTEN = "listen room:lobby"
UNLISTEN = "unlisten room:lobby"


@contextlib.asynccontextmanager
async def far_away() -> AsyncIterator[tuple[Hub, FarEngine]]:
    """A hub on an engine that answers when the test says so."""
    hub, engine = Hub(), FarEngine()
    await hub.start(engine, HubOptions(dev=True, presence_grace=0))
    try:
        yield hub, engine
    finally:
        await hub.stop()
        # A turn for the connections to be told so.
        await asyncio.sleep(0)


async def come(hub: Hub, user: str) -> Wire:
    accept = await hub.admit(Handshake(path="/ws", query={"user_id": user}, headers={}, subprotocols=(), ip="::1"))
    assert isinstance(accept, Accept)
    wire = Wire()
    wire.open(accept.receiver)
    return wire


async def connected(hub: Hub, engine: FarEngine, user: str) -> Wire:
    """A plain client whose inbox the engine listens to."""
    wire = await come(hub, user)
    engine.answer(f"listen user:{user}")
    await heard(wire, {"type": "ping"}, "pong")
    return wire


async def heard(wire: Wire, message: dict[str, Any] | None, *types: str) -> list[dict[str, Any]]:
    """Say `message`, if any, and wait for messages of these types; returns all that has come."""
    if message is not None:
        wire.say(message)
    found: list[dict[str, Any]] = []

    def enough() -> bool:
        found.extend(wire.hear())
        return len(found) >= len(types)

    await eventually(enough)

    assert [message["type"] for message in found] == list(types)
    return found


async def settled(hub: Hub, engine: FarEngine, *asking: asyncio.Future[Any]) -> None:
    """Answer whatever the engine is asked until nothing is under way, and `asking` is done."""

    def quiet() -> bool:
        for question in list(engine.waiting):
            engine.answer(question)
        return not hub._running.tasks and all(future.done() for future in asking)

    await eventually(quiet)


def join(**fields: Any) -> dict[str, Any]:
    return {"type": "join", "room": "lobby", **fields}


async def listening_in(hub: Hub, engine: FarEngine, user: str) -> Wire:
    """A plain client in the lobby, its first member."""
    wire = await connected(hub, engine, user)
    wire.say(join())
    engine.answer(LISTEN)
    await heard(wire, None, "joined")
    return wire


def test_whoever_comes_meanwhile_waits_for_the_same_answer() -> None:
    """Nobody reads a backlog before the engine listens: what is published in between would be lost to them."""

    async def main() -> None:
        async with far_away() as (hub, engine):
            alice = await connected(hub, engine, "alice")
            bob = await connected(hub, engine, "bob")
            alice.say(join())
            bob.say(join(last=10))
            await asyncio.sleep(0)
            assert alice.hear() == bob.hear() == []

            # Nobody hears it live: it must be in the backlog of who asked for one, and nowhere else.
            await hub.publish("chat", "meanwhile", room="lobby")
            engine.answer(LISTEN)
            await heard(alice, None, "joined")
            _, chat = await heard(bob, None, "joined", "chat")
            await hub.publish("chat", "live", room="lobby")
            live = await heard(alice, None, "chat") + await heard(bob, None, "chat")

            assert chat["content"] == "meanwhile"
            assert [message["content"] for message in live] == ["live", "live"]
            assert engine.asked.count(LISTEN) == 1

    run(main())


def test_a_listen_that_fails_leaves_nothing_behind() -> None:
    """All who waited for it are told; the room is as if nobody had come, and the next try is a new one."""

    async def main() -> None:
        async with far_away() as (hub, engine):
            alice = await connected(hub, engine, "alice")
            bob = await connected(hub, engine, "bob")
            for wire in (alice, bob):
                wire.say(join())
            engine.answer(LISTEN, Unavailable("the engine is away"))
            for wire in (alice, bob):
                (error,) = await heard(wire, None, "error")
                assert (error["code"], error["room"]) == ("unavailable", "lobby")

            assert await hub.members("lobby") == []
            assert hub.statistics().rooms == 0
            alice.say(join())
            engine.answer(LISTEN)
            await heard(alice, None, "joined")
            assert (hub.statistics().rooms, engine.hears("room:lobby")) == (1, True)

    run(main())


def test_who_joins_while_the_last_leaves_is_listened_for() -> None:
    """The engine has not said yet that it no longer listens: it is asked again after that, not before."""

    async def main() -> None:
        async with far_away() as (hub, engine):
            alice = await listening_in(hub, engine, "alice")
            bob = await connected(hub, engine, "bob")
            alice.say({"type": "leave", "room": "lobby"})
            bob.say(join())
            await asyncio.sleep(0)
            assert list(engine.waiting) == [UNLISTEN]

            engine.answer(UNLISTEN)
            await eventually(lambda: LISTEN in engine.waiting)
            engine.answer(LISTEN)
            await heard(bob, None, "joined")
            await heard(alice, None, "left")
            await hub.publish("chat", "hi", room="lobby")
            (chat,) = await heard(bob, None, "chat")

            assert chat["content"] == "hi"
            assert (hub.statistics().rooms, alice.hear()) == (1, [])

    run(main())


def test_an_unlisten_that_fails_is_nobodys_fault() -> None:
    """Who leaves has left, and who comes is in; the operator has a line in the log."""

    async def main() -> None:
        async with far_away() as (hub, engine):
            alice = await listening_in(hub, engine, "alice")
            bob = await connected(hub, engine, "bob")
            alice.say({"type": "leave", "room": "lobby"})
            bob.say(join())
            engine.answer(UNLISTEN, Unavailable("the engine is away"))
            await heard(alice, None, "left")
            await eventually(lambda: LISTEN in engine.waiting)
            engine.answer(LISTEN)
            await heard(bob, None, "joined")

    run(main())


@pytest.mark.parametrize("others", [0, 1])
def test_who_goes_while_the_engine_is_asked_leaves_nothing_behind(others: int) -> None:
    """The engine listens for those who are still there, and for nobody else."""

    async def main() -> None:
        async with far_away() as (hub, engine):
            alice = await connected(hub, engine, "alice")
            waiting = [await connected(hub, engine, f"bob-{number}") for number in range(others)]
            for wire in (alice, *waiting):
                wire.say(join())
            alice.cut()
            await settled(hub, engine)

            assert [member.user for member in await hub.members("lobby")] == ["bob-0"] * others
            assert engine.hears("room:lobby") is bool(others)
            assert hub.statistics().rooms == others

    run(main())


def test_who_goes_on_the_way_in_leaves_nothing_behind() -> None:
    """An inbox that the engine comes to listen to when its user has gone is let go of again."""

    async def main() -> None:
        async with far_away() as (hub, engine):
            alice = await come(hub, "alice")
            alice.cut()
            await settled(hub, engine)

            assert not engine.hears("user:alice")
            assert (hub.statistics().users, hub.statistics().connections) == (0, 0)

    run(main())


def test_who_gives_up_waiting_leaves_the_others_what_was_asked_for() -> None:
    """The asking is nobody's own: it goes on for those who still want it, and is undone where nobody does."""

    async def main() -> None:
        async with far_away() as (hub, engine):
            node = hub._running
            first = asyncio.ensure_future(node.channel("room:lobby"))
            second = asyncio.ensure_future(node.channel("room:lobby"))
            await asyncio.sleep(0)
            first.cancel()
            await asyncio.sleep(0)
            # Nobody listens here yet when it is there: that it may be let go of then must not trouble the second.
            await settled(hub, engine, second)
            assert (await second).name == "room:lobby"

            third = asyncio.ensure_future(node.channel("room:other"))
            await asyncio.sleep(0)
            third.cancel()
            await settled(hub, engine)

            assert first.cancelled() and third.cancelled()
            assert "room:other" not in node.channels and not engine.hears("room:other")

    run(main())


def test_memory_is_asked_on_the_spot() -> None:
    """An engine that does not wait costs no task and no wait, neither to listen nor to end it."""

    async def main() -> None:
        hub = Hub()
        await hub.start(MemoryEngine(), HubOptions(dev=True))
        try:
            wire = await come(hub, "alice")
            wire.say(join())
            joined = list(hub._running.channels)
            wire.say({"type": "leave", "room": "lobby"})

            assert joined == ["all", "user:alice", "room:lobby"]
            assert list(hub._running.channels) == ["all", "user:alice"]
            assert hub._running.tasks == set()
        finally:
            await hub.stop()
            await asyncio.sleep(0)

    run(main())
