"""Nodes on NATS that die, or are taken for dead: who is in which room is the same for everybody."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from contract.engines.test_nats_faults import node, rooms_are
from hubbub.engines.nats.engine import NatsEngine
from hubbub.engines.nats.places import token
from hubbub.protocol.envelope import Member
from hubbub.testing.engines import Ear
from hubbub.testing.engines.ear import LOBBY
from support.link import Link
from support.loop import eventually, run
from support.nats import Nats, serving_nats
from support.publisher import usable


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
    """Whether it is still to be told who has gone with it, that has been done, or nobody knows of it any more."""

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            async with far(nats, "node.1", 1.0) as back, node(nats, "node.2", lease=1.0) as (other, ear):
                await back.engine.enter(LOBBY, "alice", "s1", 1, 10)
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

                assert ear.departed == back.ear.returned == [(LOBBY, "alice")]
                assert back.ear.departed == ear.returned == []

    run(main(), logs_errors=True)
