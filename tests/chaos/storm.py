"""Deals misfortunes to clients, nodes, engine and links: at random, by a seed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from random import Random

from chaos.cluster import Cluster
from chaos.fleet import Fleet
from chaos.misfortune import Misfortune
from chaos.plan import Hand, Plan
from chaos.tally import Tally
from support.link import Direction, Link

__all__ = ["Storm"]

# Seconds for which a reader stalls: some are only slow, some are given up by the server.
_STALL = (0.5, 10.0)
# One misfortune of so many follows within a second upon the end of the one before, in the middle of everybody's
# coming back.
_AT_ONCE = 5
# Seconds, at least, for what has not happened when the time is over.
_LONGER = 60.0
# Seconds by which everything is late on a slow link.
_LATE = (0.02, 0.5)
# What a half-open link loses.
_LOST = {
    Misfortune.SWALLOW_OUT: (Direction.OUT,),
    Misfortune.SWALLOW_BACK: (Direction.BACK,),
    Misfortune.SWALLOW: tuple(Direction),
}


class Storm:
    """What happens to a cluster and a fleet. Each misfortune has its own chance, so that none moves another's."""

    def __init__(self, plan: Plan, cluster: Cluster, fleet: Fleet, tally: Tally) -> None:
        self._plan = plan
        self._cluster = cluster
        self._fleet = fleet
        self._tally = tally
        self._ends = 0.0
        self._latest = 0.0

        # Everything is whole again.
        self.over = asyncio.Event()

    async def rage(self) -> None:
        """As long as the plan says, and longer where something has not happened yet; then `over` is set."""
        self._ends = asyncio.get_running_loop().time() + self._plan.seconds
        # A short one on a busy machine may be over before the first that was killed is back.
        self._latest = self._ends + max(self._plan.seconds, _LONGER)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._resets())
                group.create_task(self._stalls())
                for number, hand in enumerate(self._plan.hands):
                    group.create_task(self._deal(hand, Random(f"{self._plan.seed} hand {number}")))
        finally:
            self.over.set()

    def _owed(self, kinds: Iterable[Misfortune]) -> list[Misfortune]:
        """What has not happened yet."""
        return [kind for kind in kinds if not self._tally.happened[kind]]

    async def _pause(self, seconds: float, kinds: Iterable[Misfortune]) -> bool:
        """Wait; whether there is something to do then for whom these `kinds` are."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, min(seconds, self._ends - loop.time())))
        return loop.time() < self._ends or (loop.time() < self._latest and bool(self._owed(kinds)))

    async def _resets(self) -> None:
        chance = Random(f"{self._plan.seed} resets")
        while self._plan.resets and await self._pause(chance.expovariate(self._plan.resets), ()):
            self._tally.happened[Misfortune.RESET] += chance.choice(self._fleet.members).reset()

    async def _stalls(self) -> None:
        chance = Random(f"{self._plan.seed} stalls")
        loop = asyncio.get_running_loop()
        while self._plan.stalls and await self._pause(chance.expovariate(self._plan.stalls), ()):
            seconds = min(chance.uniform(*_STALL), self._ends - loop.time())
            self._tally.happened[Misfortune.STALL] += chance.choice(self._fleet.members).stall(seconds)

    # ------------------------------------------------------------------------ what comes out of a deck

    async def _deal(self, hand: Hand, chance: Random) -> None:
        loop = asyncio.get_running_loop()
        left: list[Misfortune] = []
        pause = chance.uniform(*hand.pause)
        while await self._pause(pause, hand.deck):
            left = left or chance.sample(hand.deck, len(hand.deck))
            if loop.time() >= self._ends:
                left = self._owed(hand.deck)
            began = loop.time()
            kind = left.pop()
            # What nothing was there for, such as a link without connections, does not count.
            self._tally.happened[kind] += await self._happen(kind, chance)
            at_once = not chance.randrange(_AT_ONCE)
            again = loop.time() + chance.uniform(0, 1) if at_once else began + chance.uniform(*hand.pause)
            if kind is Misfortune.KILL:
                await self._watch_return(began, again)
            pause = again - loop.time()

    async def _happen(self, kind: Misfortune, chance: Random) -> bool:
        """Let it happen and pass; whether it did anything."""
        match kind:
            case Misfortune.KILL | Misfortune.ROLL | Misfortune.FREEZE:
                return await self._to_node(kind, chance)
            case Misfortune.DEAFEN | Misfortune.HANG | Misfortune.RESTART | Misfortune.EMPTY:
                return await self._to_engine(kind, chance)
            case _:
                return await self._to_link(kind, chance.choice(self._cluster.links), chance)

    async def _to_node(self, kind: Misfortune, chance: Random) -> bool:
        loop = asyncio.get_running_loop()
        node = chance.choice(self._cluster.nodes)
        if kind is Misfortune.FREEZE:
            await self._while(node.freeze, chance, node.thaw)
            return True
        began = loop.time()
        await (node.kill if kind is Misfortune.KILL else node.roll)()
        gone = loop.time()
        await self._cluster.revive(node)
        self._fleet.hurry()
        if kind is Misfortune.KILL:
            self._tally.restarts.append(loop.time() - began)
        else:
            self._tally.rolls.append(gone - began)
        return True

    async def _to_engine(self, kind: Misfortune, chance: Random) -> bool:
        engine = self._cluster.engine
        assert engine is not None
        match kind:
            case Misfortune.DEAFEN:
                return await engine.deafen() > 0
            case Misfortune.EMPTY:
                await engine.empty()
            case Misfortune.HANG:
                await self._while(engine.freeze, chance, engine.thaw)
            case _:
                await engine.kill()
                # For a while there is nobody, as where another machine has to take over.
                await asyncio.sleep(chance.uniform(0, self._plan.lasts[0]))
                await engine.start()
        return True

    async def _to_link(self, kind: Misfortune, link: Link, chance: Random) -> bool:
        if kind is Misfortune.CUT:
            return link.cut() > 0
        before = link.disturbed
        if kind is Misfortune.SLOW:
            begin = partial(link.slow, chance.uniform(*_LATE))
        else:
            begin = partial(link.swallow, *_LOST[kind])
        await self._while(begin, chance, link.mend)
        return link.disturbed > before

    async def _while(self, begin: Callable[[], object], chance: Random, end: Callable[[], object]) -> None:
        """Something that lasts, and always has an end."""
        begin()
        try:
            await asyncio.sleep(chance.uniform(*self._plan.lasts))
        finally:
            end()

    async def _watch_return(self, since: float, until: float) -> None:
        """How long it takes until nine clients of ten have a session again, if they have before `until`."""
        loop = asyncio.get_running_loop()
        while self._fleet.connected < 0.9 * self._plan.clients and loop.time() < until:
            await asyncio.sleep(0.02)
            self._fleet.hurry()
        if loop.time() < until:
            self._tally.returns.append(loop.time() - since)
