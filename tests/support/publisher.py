"""Nodes without a hub, on any engine; and somebody who wants all in that is said, whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

from hubbub.engines.base import Accepted, Engine
from hubbub.engines.redis.engine import RedisEngine
from hubbub.errors import Reject, Unavailable
from hubbub.protocol.envelope import Member
from hubbub.testing.engines import Ear
from hubbub.testing.engines.ear import LOBBY, a_publication
from support.loop import PATIENCE, eventually

E = TypeVar("E", bound=Engine)

__all__ = ["Publisher", "a_node", "all_told", "listening", "node", "rooms_are", "usable"]


def a_node() -> str:
    """A name that no other node has."""
    return f"node.{secrets.token_hex(4)}"


def node(url: str, *, lease: float = 10.0) -> AbstractAsyncContextManager[tuple[RedisEngine, Ear]]:
    """A node on the Redis at `url` that listens to the lobby."""
    return listening(RedisEngine(url, lease=lease))


@contextlib.asynccontextmanager
async def listening(engine: E, name: str = "") -> AsyncIterator[tuple[E, Ear]]:
    """A node on `engine` that listens to the lobby; without a `name`, with one that no other has."""
    ear = Ear()
    await engine.start(ear, name or a_node())
    try:
        await engine.listen([LOBBY])
        yield engine, ear
    finally:
        await engine.stop()


class Publisher:
    """Publishes numbers as an application does that wants each of them in: again with the same id until it is taken."""

    def __init__(self, engine: Engine, name: str = "alice") -> None:
        self._engine = engine
        self._name = name
        self.taken: list[str] = []
        self.refusals: list[Exception] = []
        self._task: asyncio.Task[None] | None = None
        self._over = False

    async def say(self, text: str) -> Accepted:
        """Returns when it is taken."""
        while True:
            try:
                accepted = await self._engine.publish(LOBBY, a_publication(text, id=text, from_=self._name))
            except Reject as error:
                self.refusals.append(error)
                await asyncio.sleep(0.02)
            else:
                self.taken.append(text)
                return accepted

    async def __aenter__(self) -> Publisher:
        self._task = asyncio.create_task(self._go_on())
        await self.some()
        return self

    async def __aexit__(self, *error: object) -> None:
        self._over = True
        assert self._task is not None
        await self._task

    async def some(self, more: int = 50) -> None:
        """Wait until some more are taken."""
        enough = len(self.taken) + more
        await eventually(lambda: len(self.taken) >= enough)

    async def _go_on(self) -> None:
        number = 0
        while not self._over:
            await self.say(f"{self._name}-{number}")
            number += 1


async def all_told(ear: Ear, publisher: Publisher, *first: str) -> None:
    """Everything taken has been told, once and in order."""
    await ear.hear(publisher.taken[-1])

    assert ear.texts() == [*first, *publisher.taken]


async def usable(engine: Engine) -> None:
    """Wait until the engine works again."""
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(Unavailable):
                return await engine.check()
            await asyncio.sleep(0.02)


async def rooms_are(engine: Engine, members: list[Member]) -> None:
    """Wait until these are in the lobby."""
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(Unavailable):
                if (await engine.members(LOBBY, 10))[0] == members:
                    return
            await asyncio.sleep(0.05)
