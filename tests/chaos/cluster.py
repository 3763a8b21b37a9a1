"""The servers of a run: one node by itself, or several with an engine that they share, each by a link of its own."""

from __future__ import annotations

import asyncio
import contextlib
from random import Random

from chaos.engines import SHARED, EngineUnderTest
from chaos.plan import Plan
from chaos.server import DeadServerError, Server
from support.link import Link

__all__ = ["Cluster"]

# Seconds for a node to come up: it ends at once where it cannot reach its engine, and is started again.
_UP_WITHIN = 60.0
_AGAIN_AFTER = 0.2


class Cluster:
    """Nodes that can die, the engine that they share, and the links between."""

    def __init__(self, plan: Plan) -> None:
        self._chance = Random(f"{plan.seed} cluster")
        self.engine: EngineUnderTest | None = None
        if plan.engine in SHARED:
            self.engine = SHARED[plan.engine](plan.directory / plan.engine, forgets=plan.forgets)

        # One for each node, where there is an engine to share.
        self.links = [Link(self._to_engine) for _ in range(plan.nodes)] if self.engine is not None else []
        self.nodes = [Server(plan.serve(), plan.directory / f"node{number}.log") for number in range(plan.nodes)]

        # What a balancer in front of the nodes does, for clients who know one address.
        self.door = Link(self.some_node)

    def some_node(self) -> tuple[str, int]:
        """Where somebody who comes is sent: to any node, dead or alive."""
        return self._chance.choice(self.nodes).address

    def _to_engine(self) -> tuple[str, int]:
        assert self.engine is not None
        return "127.0.0.1", self.engine.port

    async def start(self) -> None:
        """Start everything; raises `DeadServerError`."""
        await self.door.start()
        if self.engine is not None:
            await self.engine.start()
            for link, node in zip(self.links, self.nodes, strict=True):
                await link.start()
                node.environment["HUBBUB_ENGINE"] = self.engine.url(link.port)
        await asyncio.gather(*(node.start() for node in self.nodes))

    async def revive(self, node: Server) -> None:
        """Start a node again, as often as it takes, as whatever supervises it would; raises `DeadServerError`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _UP_WITHIN
        while True:
            try:
                await node.start()
                return
            except DeadServerError:
                # It says what it needs, and its engine may be away just now.
                if self.engine is None or loop.time() > deadline:
                    raise
            await asyncio.sleep(_AGAIN_AFTER)

    def check(self) -> None:
        """Raise `DeadServerError` where a node has ended without having been killed."""
        for node in self.nodes:
            node.check()

    async def stop(self) -> None:
        """End everything."""
        async with contextlib.AsyncExitStack() as stack:
            if self.engine is not None:
                stack.push_async_callback(self.engine.kill)
            for link in (self.door, *self.links):
                stack.push_async_callback(link.stop)
            await asyncio.gather(*(node.stop() for node in self.nodes))

    @property
    def memory(self) -> int:
        """Bytes of memory that any node had at most."""
        return max(node.memory for node in self.nodes)

    def log_tail(self) -> str:
        """The newest of what nodes wrote to standard error."""
        return "\n".join(node.log_tail(60 // len(self.nodes)) for node in self.nodes)
