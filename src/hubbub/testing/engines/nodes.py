"""What every engine that is shared promises: two nodes are as one."""

from __future__ import annotations

import asyncio
import unittest

from hubbub.engines.base import Engine
from hubbub.errors import RoomFull
from hubbub.protocol.envelope import Member
from hubbub.testing.engines.ear import LOBBY, Ear, a_publication, raises, say
from hubbub.testing.engines.engine import OneEngine, case
from hubbub.types import Place, inbox_channel

__all__ = ["Nodes"]


class Nodes(OneEngine):
    """Two nodes on the same channels."""

    # ------------------------------------------------------------------------------------------ two nodes

    @case()
    async def test_another_node_hears_the_same(self, engine: Engine, ear: Ear) -> None:
        """Where channels are shared: both hear both, in the same order, and know the same retries."""
        peer, peers_ear = await self._start_peer(engine)
        try:
            await engine.listen([LOBBY])
            await peer.listen([LOBBY])
            texts = [str(number) for number in range(20)]
            await asyncio.gather(*(say(engine if int(text) % 2 else peer, text) for text in texts))
            await engine.publish(LOBBY, a_publication("last", id="a1"), origin="s1")
            retry = await peer.publish(LOBBY, a_publication("last", id="a1"))
            await ear.hear("last")
            await peers_ear.hear("last")

            assert ear.texts() == peers_ear.texts()
            assert sorted(ear.texts()) == sorted([*texts, "last"])
            assert ear.told[-1].origin == "s1"
            assert retry.duplicate
            assert await peer.position(LOBBY) == await engine.position(LOBBY)
        finally:
            await peer.stop()

    @case()
    async def test_rooms_and_cursors_are_one_on_all_nodes(self, engine: Engine, ear: Ear) -> None:
        """A user with a device on each node is one user, and a room is full on both."""
        peer, _ = await self._start_peer(engine)
        try:
            came = await engine.enter(LOBBY, "alice", "s1", 1, 1)
            other_device = await peer.enter(LOBBY, "alice", "s2", 2, 1)
            await raises(RoomFull, peer.enter(LOBBY, "bob", "s3", 3, 1))
            await say(engine, "hi", channel=inbox_channel("alice"))
            await engine.set_cursor("alice", 1)

            assert (came, other_device) == (True, False)
            assert await peer.members(LOBBY, 10) == ([Member("alice", 2, 1)], 1)
            assert await peer.cursor("alice") == 1
        finally:
            await peer.stop()

    @case()
    async def test_each_place_says_on_which_node_it_is(self, engine: Engine, ear: Ear) -> None:
        """Wherever it is asked; and when somebody was seen last is known everywhere, too."""
        peer, _ = await self._start_peer(engine)
        inbox = inbox_channel("alice")
        try:
            await engine.enter(inbox, "alice", "s1", 1, 10)
            await peer.enter(inbox, "alice", "s2", 2, 10)
            places = [await node.places(inbox, "alice") for node in (engine, peer)]
            await engine.leave(inbox, "alice", "s1", 3)
            await peer.leave(inbox, "alice", "s2", 4)

            assert places == [[Place("s1", "node.1", 1), Place("s2", "peer.1", 2)]] * 2
            assert await engine.last_seen("alice") == 4
        finally:
            await peer.stop()

    @case()
    async def test_a_dead_node_is_out_of_all_rooms_within_its_lease(self, engine: Engine, ear: Ear) -> None:
        """Its people leave, which is told, and their places are free; who has a session on another node stays."""
        peer, _ = await self._start_peer(engine)
        lease = engine.capabilities.lease
        assert lease is not None
        await peer.enter(LOBBY, "alice", "s1", 1, 2)
        await peer.enter(LOBBY, "bob", "s2", 2, 2)
        await engine.enter(LOBBY, "bob", "s3", 3, 2)
        await self.kill(peer)
        await self.time_passes(engine, lease)
        carol = await engine.enter(LOBBY, "carol", "s4", 4, 2)
        places = await engine.places(LOBBY, "bob")

        assert carol
        assert places == [Place("s3", "node.1", 3)]
        assert ear.departed == [(LOBBY, "alice")]
        assert await engine.members(LOBBY, 10) == ([Member("bob", 1, 2), Member("carol", 1, 4)], 2)

    async def _start_peer(self, engine: Engine) -> tuple[Engine, Ear]:
        if not engine.capabilities.shared:
            raise unittest.SkipTest("the channels of this engine are not shared")
        peer, ear = self.peer(engine), Ear()
        await peer.start(ear, "peer.1")
        return peer, ear
