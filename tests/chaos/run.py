"""One run from the first start of the servers to the verdict."""

from __future__ import annotations

import asyncio
import gc
import time
from dataclasses import dataclass

from chaos.checker import Verdict, check
from chaos.cluster import Cluster
from chaos.fleet import Fleet
from chaos.misfortune import Misfortune
from chaos.plan import Plan
from chaos.storm import Storm
from chaos.tally import Tally

__all__ = ["Outcome", "run"]

# Seconds for the whole fleet to be connected at the beginning.
_GATHER_WITHIN = 60.0


@dataclass(frozen=True)
class Outcome:
    """A run that is over."""

    plan: Plan
    tally: Tally
    verdict: Verdict
    # Acknowledged publications per second while there was publishing, over all kills.
    rate: float
    # Seconds in which everyone came to the end of everything.
    rest: float
    # Who did not, in words.
    late: list[str]
    # The processor's seconds per second of the clock that the fleet took.
    load: float
    # Bytes: of a node's memory, at most; and of the store's files when it was over.
    memory: int
    store: int
    log_tail: str

    @property
    def passed(self) -> bool:
        """Whether everything acknowledged came exactly once, in order, to everyone, and everything was.

        Of an engine that forgets: to everyone who was not told that something is missing.
        """
        tally = self.tally
        wrong = tally.nonsense or self.late or self.verdict.unacknowledged or self.missing
        return self.verdict.clean and not wrong and bool(tally.unrecovered) == self.plan.forgets

    @property
    def missing(self) -> list[Misfortune]:
        """What should have happened and did not: without it the run shows nothing."""
        return [kind for kind in self.plan.misfortunes if not self.tally.happened[kind]]


async def run(plan: Plan) -> Outcome:
    """Run `plan`; raises `DeadServerError` where the server ends by itself."""
    # Nothing here makes cycles, and a collection would walk through all of the books.
    gc.collect()
    gc.freeze()
    tally = Tally()
    cluster = Cluster(plan)
    loop = asyncio.get_running_loop()
    try:
        await cluster.start()
        fleet = Fleet(plan, cluster, tally)
        sailing = asyncio.create_task(fleet.run())
        try:
            if not await fleet.everyone(lambda member: member.connected, _GATHER_WITHIN):
                raise TimeoutError(f"of {plan.clients} clients {fleet.connected} were connected in time")
            used = time.process_time()
            storm = Storm(plan, cluster, fleet, tally)
            async with asyncio.TaskGroup() as group:
                group.create_task(storm.rage())
                group.create_task(fleet.publish(storm.over))
            load = (time.process_time() - used) / fleet.published_for
            # What is acknowledged later does not count for the rate: the server was behind.
            rate = len(set(fleet.ledger.ack_numbers)) / fleet.published_for
            stopped = loop.time()
            late = await fleet.settle(plan.rest)
            rest = loop.time() - stopped
            store = sum(file.stat().st_size for file in plan.directory.rglob("*") if file.suffix != ".log")
        finally:
            if sailing.done():
                # It ends by a fault of its own only.
                await sailing
            sailing.cancel()
            await asyncio.gather(sailing, return_exceptions=True)
        cluster.check()
    finally:
        await cluster.stop()
        gc.unfreeze()
    verdict = check(fleet.ledger)
    return Outcome(plan, tally, verdict, rate, rest, late, load, cluster.memory, store, cluster.log_tail())
