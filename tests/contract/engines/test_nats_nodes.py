"""Nodes on NATS that die, or are taken for dead: who is in which room is the same for everybody."""

from __future__ import annotations

import asyncio
from pathlib import Path

from hubbub.engines.nats.engine import NatsEngine
from hubbub.protocol.envelope import Member
from hubbub.testing.engines import Ear
from hubbub.testing.engines.ear import LOBBY
from support.loop import eventually, run
from support.nats import serving_nats
from support.nats_nodes import node
from support.publisher import rooms_are


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
