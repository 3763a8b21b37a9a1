"""The engine on NATS keeps the contract, on a real nats-server with JetStream."""

from __future__ import annotations

import asyncio
import itertools
import unittest
from collections.abc import Iterator
from typing import Any

import pytest

from hubbub.core.log import HistoryLimits
from hubbub.engines.base import Engine
from hubbub.engines.nats.engine import NatsEngine
from hubbub.testing.engines import EngineContract
from support.nats import Nats, serving_nats

_prefixes = itertools.count()


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nats]:
    with serving_nats(tmp_path_factory.mktemp("nats")) as running:
        yield running


class TestNatsEngine(EngineContract):
    """The contract, on one NATS: each test has a prefix of its own."""

    LEASE = 1.0

    @pytest.fixture(autouse=True)
    def _use(self, nats: Nats) -> None:
        self._nats = nats
        self._prefix = f"test{next(_prefixes)}"

    def engine(self, keep: int = 1000) -> NatsEngine:
        limits = HistoryLimits(history_size=keep, inbox_size=keep)
        return NatsEngine(self._nats.url, limits, prefix=self._prefix, lease=self.LEASE)

    def peer(self, engine: Engine) -> NatsEngine:
        return self.engine()

    async def kill(self, engine: Engine) -> None:
        await kill(engine)

    async def lose(self, engine: Engine) -> None:
        self._nats.empty(self._prefix)

    async def time_passes(self, engine: Engine, seconds: float) -> None:
        if seconds > self.LEASE:
            raise unittest.SkipTest("the clock of a nats-server cannot be turned")
        # Of a lease, which really has to end.
        await asyncio.sleep(seconds + 0.2)


async def kill(engine: Any) -> None:
    engine._ticking.cancel()
    await engine._parts.link.close()
