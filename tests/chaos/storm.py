"""Kills the server, resets connections, lets readers stall: at random, by a seed."""

from __future__ import annotations

import asyncio
from random import Random

from chaos.fleet import Fleet
from chaos.plan import Plan
from chaos.server import Server
from chaos.tally import Tally

__all__ = ["Storm"]

# Seconds for which a reader stalls: some are only slow, some are given up by the server.
_STALL = (0.5, 10.0)
# One kill of so many follows within a second upon the start, in the middle of everybody's coming back.
_AT_ONCE = 5


class Storm:
    """What happens to a server and a fleet. Each misfortune has its own chance, so that none moves another's."""

    def __init__(self, plan: Plan, server: Server, fleet: Fleet, tally: Tally) -> None:
        self._plan = plan
        self._server = server
        self._fleet = fleet
        self._tally = tally
        self._ends = 0.0

    async def rage(self) -> None:
        """As long as the plan says; the server runs when it is over."""
        self._ends = asyncio.get_running_loop().time() + self._plan.seconds
        async with asyncio.TaskGroup() as group:
            group.create_task(self._resets())
            group.create_task(self._stalls())
            if self._plan.kills is not None:
                group.create_task(self._kills(*self._plan.kills))

    async def _pause(self, seconds: float) -> bool:
        """Wait; whether the storm goes on then."""
        left = self._ends - asyncio.get_running_loop().time()
        await asyncio.sleep(max(0.0, min(seconds, left)))
        return seconds < left

    async def _kills(self, least: float, most: float) -> None:
        chance = Random(f"{self._plan.seed} kills")
        loop = asyncio.get_running_loop()
        pause = chance.uniform(least, most)
        while await self._pause(pause):
            killed = loop.time()
            await self._server.kill()
            self._tally.kills += 1
            await self._server.start()
            self._tally.restarts.append(loop.time() - killed)
            self._fleet.hurry()
            at_once = not chance.randrange(_AT_ONCE)
            next_kill = loop.time() + chance.uniform(0, 1) if at_once else killed + chance.uniform(least, most)
            while self._fleet.connected < 0.9 * self._plan.clients and loop.time() < next_kill:
                await asyncio.sleep(0.02)
                self._fleet.hurry()
            if loop.time() < next_kill:
                self._tally.returns.append(loop.time() - killed)
            pause = next_kill - loop.time()

    async def _resets(self) -> None:
        chance = Random(f"{self._plan.seed} resets")
        while await self._pause(chance.expovariate(self._plan.resets)):
            self._tally.resets += chance.choice(self._fleet.members).reset()

    async def _stalls(self) -> None:
        chance = Random(f"{self._plan.seed} stalls")
        loop = asyncio.get_running_loop()
        while await self._pause(chance.expovariate(self._plan.stalls)):
            seconds = min(chance.uniform(*_STALL), self._ends - loop.time())
            self._tally.stalls += chance.choice(self._fleet.members).stall(seconds)
