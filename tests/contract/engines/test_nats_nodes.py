"""Nodes on NATS that die, or are taken for dead: who is in which room is the same for everybody."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hubbub.engines.nats.engine import NatsEngine
from hubbub.engines.nats.link import Answer
from hubbub.engines.nats.places import token
from hubbub.engines.nats.room import Entry
from hubbub.protocol.envelope import Member
from hubbub.testing.engines import Ear
from hubbub.testing.engines.ear import LOBBY
from support.link import Link
from support.loop import PATIENCE, eventually, run
from support.nats import Nats, serving_nats
from support.nats_nodes import node
from support.publisher import rooms_are, usable


def test_a_node_that_was_taken_for_dead_comes_back(tmp_path: Path) -> None:
    """Its people are out, and when that has been told they are in again; of both it is told once."""

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            async with (
                node(nats, lease=0.5) as (engine, back),
                node(nats, "node.2", lease=0.5) as (other, ear),
                node(nats, "node.3", lease=0.5) as (_, third),
            ):
                await engine.enter(LOBBY, "alice", "s1", 1, 10)
                assert engine._parts is not None
                nodes = engine._parts.rooms._nodes
                nodes._beaten = asyncio.get_running_loop().time() + 1.0
                await eventually(lambda: nodes.bar("node.1"))
                await rooms_are(engine, [Member("alice", 1, 1)])
                await rooms_are(other, [Member("alice", 1, 1)])
                await eventually(lambda: back.returned)

                assert ear.departed + third.departed == back.returned == [(LOBBY, "alice")]
                assert back.departed == ear.returned == third.returned == []

    run(main())


def test_who_comes_by_another_node_has_not_gone_with_the_dead_one(tmp_path: Path) -> None:
    """Whoever was in by another node stays; whoever left that one before was still in by the dead one, and goes now."""

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            async with node(nats, lease=1.0) as (engine, ear):
                dead = NatsEngine(nats.url, lease=1.0)
                await dead.start(Ear(), "node.2")
                for user in ("alice", "bob", "carol"):
                    await dead.enter(LOBBY, user, f"{user}-there", 1, 10)
                assert dead._parts is not None and dead._ticking is not None
                dead._ticking.cancel()
                await dead._parts.link.close()
                news = [await engine.enter(LOBBY, user, f"{user}-here", 2, 10) for user in ("alice", "bob")]
                last = await engine.leave(LOBBY, "bob", "bob-here")
                await eventually(lambda: len(ear.departed) == 2)
                await rooms_are(engine, [Member("alice", 1, 1)])

                assert (news, last) == ([False, False], False)
                assert sorted(ear.departed) == [(LOBBY, "bob"), (LOBBY, "carol")]
                await dead.stop()

    run(main())


class Far:
    """A node, what it is told, and its way to NATS, which can be cut."""

    def __init__(self, nats: Nats, lease: float) -> None:
        self._is_cut = False
        self._link = Link(lambda: None if self._is_cut else ("127.0.0.1", nats.port))
        self._lease = lease
        self.ear = Ear()

    async def start(self, name: str) -> None:
        """The node runs from now on."""
        await self._link.start()
        self.engine = NatsEngine(f"nats://127.0.0.1:{self._link.port}", lease=self._lease)
        await self.engine.start(self.ear, name)

    async def stop(self) -> None:
        """Neither runs any more."""
        await self.engine.stop()
        await self._link.stop()

    @property
    def parts(self) -> Any:
        """What the engine is made of."""
        return self.engine._parts

    async def cut(self) -> None:
        """Cut it off; returns when it has said so."""
        self._is_cut = True
        self._link.cut()
        await eventually(lambda: self.parts.link._said)

    async def mend(self) -> None:
        """Let it go on; returns when it does."""
        self._is_cut = False
        await usable(self.engine)


@contextlib.asynccontextmanager
async def far(nats: Nats, name: str, lease: float) -> AsyncIterator[Far]:
    node = Far(nats, lease)
    await node.start(name)
    try:
        yield node
    finally:
        await node.stop()


@pytest.mark.parametrize("told", ["later", "before", "long ago"])
def test_a_node_that_was_cut_off_tells_who_is_back(tmp_path: Path, told: str) -> None:
    """Whether it is still to be told who has gone with it, that has been done, or nobody knows of it any more.

    Whoever leaves by it in between has gone with it.
    """

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            async with far(nats, "node.1", 1.0) as back, node(nats, "node.2", lease=1.0) as (other, ear):
                await back.engine.enter(LOBBY, "alice", "s1", 1, 10)
                if told == "later":
                    await back.engine.enter(LOBBY, "bob", "s2", 2, 10)
                assert other._parts is not None
                others = other._parts.rooms._nodes
                clear, asked = others.clear, asyncio.get_running_loop().create_future()
                if told == "later":
                    others.clear = lambda *which: asked.set_result(which)
                await back.cut()
                if told == "later":
                    await asked
                    await back.mend()
                    # The rooms have been read again.
                    await rooms_are(back.engine, [])
                    rooms = back.parts.rooms
                    rooms._tidied = 0.0
                    await eventually(lambda: rooms._tidied and not rooms._tasks)
                    await rooms_are(other, [])

                    assert await back.engine.leave(LOBBY, "bob", "s2") is False

                    clear(*asked.result())
                else:
                    await eventually(lambda: others._nodes["node.1"].state == "cleared")
                    if told == "long ago":
                        purge = {"filter": f"hubbub.places.nodes.{token('node.1')}"}
                        nats.ask("$JS.API.STREAM.PURGE.hubbub-places", json.dumps(purge).encode())
                    await back.mend()
                for each in (back.engine, other):
                    await rooms_are(each, [Member("alice", 1, 1)])
                await eventually(lambda: back.ear.returned)

                assert sorted(ear.departed) == [
                    (LOBBY, user) for user in (["alice", "bob"] if told == "later" else ["alice"])
                ]
                assert back.ear.returned == [(LOBBY, "alice")]
                assert back.ear.departed == ear.returned == []

    run(main(), logs_errors=True)


def test_whoever_clears_a_node_away_goes_on_after_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All who have gone with it are told gone, and nobody twice, wherever that was interrupted."""
    users = [f"u{number}" for number in range(450)]

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            async with far(nats, "node.1", 1.0) as clears:
                rooms, link = clears.parts.rooms, clears.parts.link
                entries, call, steps = rooms._watching.entries, link.call, []

                def interrupted(step: str) -> None:
                    # Each once.
                    if step not in steps:
                        steps.append(step)
                        link.connection.abort("a network does this")

                async def reading(subjects: str) -> list[Entry]:
                    if ".places.*." in subjects:
                        interrupted("list")
                    elif clears.ear.departed:
                        interrupted("users")
                    found: list[Entry] = await entries(subjects)
                    return found

                def calling(subject: str, *rest: Any, **more: Any) -> asyncio.Future[Answer]:
                    if ".PURGE." in subject:
                        interrupted("purge")
                    answer: asyncio.Future[Answer] = call(subject, *rest, **more)
                    return answer

                monkeypatch.setattr(rooms._watching, "entries", reading)
                monkeypatch.setattr(link, "call", calling)
                dead = NatsEngine(nats.url, lease=1.0)
                await dead.start(Ear(), "node.2")
                await asyncio.gather(*(dead.enter(LOBBY, user, user, 1, 1_000) for user in users))
                await dead.stop()
                await eventually(lambda: rooms._nodes._nodes["node.2"].state == "cleared")

                assert sorted(steps) == ["list", "purge", "users"]
                assert sorted(clears.ear.departed) == sorted((LOBBY, user) for user in users)

    run(main())


@pytest.mark.parametrize(("told", "dies"), [(0, True), (200, True), (200, False)], ids=["first", "middle", "asleep"])
def test_whoever_is_the_next_to_clear_a_node_away_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: int, dies: bool
) -> None:
    """The first one dies or is taken for dead: all are told gone once, but who has come by another node meanwhile."""
    users = [f"u{number:03}" for number in range(450)]

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            first, ear, stuck, go = NatsEngine(nats.url, lease=1.0), Ear(), asyncio.Event(), asyncio.Event()
            await first.start(ear, "node.1")
            async with node(nats, "node.3", lease=1.0) as (third, next_ear):
                assert first._parts is not None and third._parts is not None
                nodes, rooms = third._parts.rooms._nodes, first._parts.rooms
                nodes.judges = False
                dead = NatsEngine(nats.url, lease=1.0)
                await dead.start(Ear(), "node.2")
                await asyncio.gather(*(dead.enter(LOBBY, user, user, 1, 1_000) for user in users))
                await dead.stop()
                clearing = rooms._clearing
                stay = clearing._stays

                async def dying(channel: str, user: str, *which: Any) -> bool:
                    if len(ear.departed) == told:
                        stuck.set()
                        await go.wait()
                    return await stay(channel, user, *which)

                monkeypatch.setattr(clearing, "_stays", dying)
                async with asyncio.timeout(PATIENCE):
                    await stuck.wait()
                back = users[-1]

                assert await third.enter(LOBBY, back, "again", 2, 1_000)

                if dies:
                    await first.stop()
                nodes.judges = True
                rooms._nodes._beaten = asyncio.get_running_loop().time() + 1.0
                await eventually(lambda: nodes._nodes["node.2"].state == "cleared")
                go.set()
                await eventually(lambda: clearing._task is None or clearing._task.done())

                assert sorted(ear.departed + next_ear.departed) == [(LOBBY, user) for user in users if user != back]
                await rooms_are(third, [Member(back, 1, 2)])
            await first.stop()

    run(main())
