"""What a subclass of the contract says about its engine, and how each test gets one that runs."""

from __future__ import annotations

import asyncio
import unittest
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from hubbub.engines.base import Engine
from hubbub.testing.engines.ear import PATIENCE, Ear

__all__ = ["OneEngine", "case"]

C = TypeVar("C", bound="OneEngine")


class OneEngine:
    """How the engine under test is made; subclasses say it once for all tests."""

    def engine(self, keep: int = 1000) -> Engine:
        """A new engine that has not been started, with nothing in it, which keeps `keep` publications a channel."""
        raise NotImplementedError("a subclass says how its engine is made")

    def peer(self, engine: Engine) -> Engine:
        """An engine on the same channels as `engine`, as another node has it; only where it is `shared`."""
        raise NotImplementedError("an engine that is shared needs to be tested from two nodes")

    async def kill(self, engine: Engine) -> None:
        """End `engine` as the death of its process would: it says nothing to anybody; only where it is `shared`."""
        raise NotImplementedError("an engine that is shared needs to be tested without one of its nodes")

    async def lose(self, engine: Engine) -> None:
        """Let `engine` lose all logs while it runs, as when its server is emptied."""
        raise unittest.SkipTest("this engine does not lose anything while it runs")

    async def time_passes(self, engine: Engine, seconds: float) -> None:
        """Let `seconds` pass for `engine`, so that it forgets what it would forget by then."""
        raise unittest.SkipTest("the clock of this engine cannot be turned")


def case(keep: int = 1000) -> Callable[[Callable[[C, Engine, Ear], Awaitable[None]]], Callable[[C], None]]:
    """Make a test that gets a running engine, which keeps `keep` publications a channel, and its listener."""

    def decorate(test: Callable[[Any, Engine, Ear], Awaitable[None]]) -> Callable[[C], None]:
        async def main(contract: OneEngine) -> None:
            engine, ear = contract.engine(keep), Ear()
            await engine.start(ear, "node.1")
            try:
                async with asyncio.timeout(3 * PATIENCE):
                    await test(contract, engine, ear)
            finally:
                await engine.stop()

        def run(contract: C) -> None:
            asyncio.run(main(contract))

        # Not functools.wraps: pytest would take the arguments of what is wrapped for fixtures.
        run.__name__, run.__qualname__, run.__doc__ = test.__name__, test.__qualname__, test.__doc__
        return run

    return decorate
