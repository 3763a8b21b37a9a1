"""Engines that nodes share, with the misfortunes that such a server can have: one class for each."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Protocol

from support.redis import Redis

__all__ = ["SHARED", "EngineUnderTest", "RedisUnderTest"]


class EngineUnderTest(Protocol):
    """A server that nodes share, as a process of its own, at one port for its whole life."""

    name: str
    """In the words of the report."""

    @property
    def port(self) -> int:
        """Where it listens, at 127.0.0.1."""

    def url(self, port: int) -> str:
        """What a node is given that reaches it through `port`."""

    async def start(self) -> None:
        """Start it, or start it again with what it has kept."""

    async def kill(self) -> None:
        """End it in the middle of whatever it does; harmless when it does not run."""

    def freeze(self) -> None:
        """Stop the process until `thaw`."""

    def thaw(self) -> None:
        """Let it go on."""

    async def deafen(self) -> int:
        """End all connections by which nodes hear; how many those were."""

    async def empty(self) -> None:
        """Delete everything in it, while it runs."""


class RedisUnderTest:
    """A Redis; `forgets`: it keeps nothing on disk, and everything is lost with each restart."""

    name = "Redis"

    def __init__(self, folder: Path, *, forgets: bool) -> None:
        folder.mkdir()
        kept = ("--appendonly", "no") if forgets else ("--appendonly", "yes", "--appendfsync", "always")
        self._redis = Redis(folder, *kept)

    @property
    def port(self) -> int:
        """See `EngineUnderTest.port`."""
        return self._redis.port

    def url(self, port: int) -> str:
        """See `EngineUnderTest.url`."""
        return f"redis://127.0.0.1:{port}/0"

    async def start(self) -> None:
        """See `EngineUnderTest.start`."""
        await asyncio.to_thread(self._redis.start)

    async def kill(self) -> None:
        """See `EngineUnderTest.kill`."""
        await asyncio.to_thread(self._redis.kill)

    def freeze(self) -> None:
        """See `EngineUnderTest.freeze`."""
        self._redis.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """See `EngineUnderTest.thaw`."""
        self._redis.signal(signal.SIGCONT)

    async def deafen(self) -> int:
        """See `EngineUnderTest.deafen`."""
        answer = await asyncio.to_thread(self._redis.command, "CLIENT", "KILL", "TYPE", "pubsub")
        return int(answer[1:])

    async def empty(self) -> None:
        """See `EngineUnderTest.empty`."""
        await asyncio.to_thread(self._redis.command, "FLUSHALL")


SHARED = {"redis": RedisUnderTest}
"""By the name on the command line."""
