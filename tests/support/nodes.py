"""Two servers on one engine."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator
from typing import Any

from hubbub import Hub
from hubbub.server import Server
from support.nats import Nats
from support.redis import Redis
from support.server import serving

__all__ = ["Shared", "two"]

Shared = Redis | Nats
"""What nodes may share."""

_count = itertools.count()


@contextlib.asynccontextmanager
async def two(shared: Shared, *hubs: Hub, **options: Any) -> AsyncIterator[tuple[Server, Server]]:
    """Two servers on one engine, on a part of it that no other test has; of `hubs`, or of plain ones."""
    first, second = hubs or (Hub(), Hub())
    both = {**shared.part(f"two{next(_count)}"), **options}
    async with serving(first, **both) as one, serving(second, **both) as other:
        yield one, other
