"""Two servers on one engine."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator
from typing import Any

from hubbub import Hub
from hubbub.server import Server
from support.redis import Redis
from support.server import serving

__all__ = ["two"]

_count = itertools.count()


@contextlib.asynccontextmanager
async def two(redis: Redis, *hubs: Hub, **options: Any) -> AsyncIterator[tuple[Server, Server]]:
    """Two servers that share `redis`, under keys that no other test has; of `hubs`, or of plain ones."""
    first, second = hubs or (Hub(), Hub())
    shared = {"engine": redis.url, "redis_prefix": f"two{next(_count)}:", **options}
    async with serving(first, **shared) as one, serving(second, **shared) as other:
        yield one, other
