"""The engine on Redis keeps the contract, and says so where Redis does not keep what it was given."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from hubbub.core.log import HistoryLimits
from hubbub.engines.base import Engine
from hubbub.engines.redis.engine import RedisEngine
from hubbub.testing.engines import EngineContract
from support.redis import KINDS, Cluster, Redis, serving_cluster, serving_redis

_prefixes = itertools.count()

AGEING = Path(__file__).parents[2].joinpath("support/ageing.lua").read_text()
# Seconds.
STEP = 43_200.0


@pytest.fixture(scope="module", params=[*KINDS, "cluster"])
def redis(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis | Cluster]:
    folder = tmp_path_factory.mktemp("redis")
    if request.param == "cluster":
        with serving_cluster(folder) as cluster:
            yield cluster
    else:
        with serving_redis(folder, kind=request.param) as running:
            yield running


class TestRedisEngine(EngineContract):
    """The contract, on each kind of Redis that there is: each test has a prefix of its own."""

    LEASE = 1.0

    @pytest.fixture(autouse=True)
    def _use(self, redis: Redis | Cluster) -> None:
        self._redis = redis
        self._prefix = f"test{next(_prefixes)}:"

    def engine(self, keep: int = 1000) -> RedisEngine:
        limits = HistoryLimits(history_size=keep, inbox_size=keep)
        return RedisEngine(self._redis.url, limits, prefix=self._prefix, lease=self.LEASE)

    def peer(self, engine: Engine) -> RedisEngine:
        return self.engine()

    async def kill(self, engine: Engine) -> None:
        await kill(engine)

    async def lose(self, engine: Engine) -> None:
        for server in self._servers():
            server.command("FLUSHALL")

    async def time_passes(self, engine: Engine, seconds: float) -> None:
        if seconds <= self.LEASE:
            # Of a lease, which really has to end.
            await asyncio.sleep(seconds + 0.2)
            return
        while seconds > 0:
            # In steps: a channel that is listened to is touched now and then.
            for server in self._servers():
                server.command("EVAL", AGEING, "0", self._prefix, str(int(min(seconds, STEP) * 1000)))
            seconds -= STEP
            for one in engine._partitions:  # type: ignore[attr-defined]  # of this engine alone
                for channel in list(one.listening._live):
                    await engine.position(channel)

    def _servers(self) -> Sequence[Redis]:
        return self._redis.primaries if isinstance(self._redis, Cluster) else [self._redis]


async def kill(engine: Any) -> None:
    engine._ticking.cancel()
    for one in engine._partitions:
        await one.bus.close()
        await one.commands.close()
