"""Several workers on one port, and their supervisor."""

from __future__ import annotations

import contextlib
import os
import signal
from asyncio.subprocess import DEVNULL
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

from support.loop import eventually
from support.processes import children, gone
from support.redis import Redis
from support.server import Child

__all__ = ["by_worker", "supervisor", "workers"]


@contextlib.asynccontextmanager
async def supervisor(
    *arguments: str, cwd: Path | None = None, stdin: int = DEVNULL, **variables: str
) -> AsyncIterator[Child]:
    """A supervisor; nothing is left of it, and of what it has started."""
    async with Child.spawned(*arguments, cwd=cwd, stdin=stdin, **variables) as child:
        mine = children(child.process.pid)
        try:
            yield child
        finally:
            mine += children(child.process.pid)
            if child.process.returncode is None:
                child.signal(signal.SIGTERM)
                await child.exit_status()
            for pid in mine:
                await eventually(lambda pid=pid: gone(pid))  # type: ignore[misc]  # mypy sees no type of it


@contextlib.asynccontextmanager
async def workers(
    redis: Redis, *arguments: str, count: int = 3, cwd: Path | None = None, stdin: int = DEVNULL, **variables: str
) -> AsyncIterator[Child]:
    """So many workers, on a Redis; none of them is left."""
    words = ("--workers", str(count), *(arguments or ("--dev",)))
    prefix = f"workers{os.getpid()}.{id(words)}:"
    variables |= {"HUBBUB_ENGINE": redis.url, "HUBBUB_REDIS_PREFIX": prefix, "HUBBUB_HANDSHAKE_RATE_IP": "off"}
    async with supervisor(*words, cwd=cwd, stdin=stdin, **variables) as child:
        yield child


def by_worker(child: Child) -> Counter[str]:
    """How many connections each worker has taken."""
    return Counter(
        line.partition("[")[2].partition("]")[0] for line in child.logged().splitlines() if '"event":"connect"' in line
    )
