"""An answer is lost, and who has come and gone is told once all the same, on each engine that nodes share."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from hubbub.engines.base import Engine
from hubbub.engines.nats.engine import NatsEngine
from hubbub.engines.redis.engine import RedisEngine
from hubbub.engines.shared.canary import is_canary
from hubbub.errors import Unavailable
from hubbub.protocol.envelope import Member
from hubbub.testing.engines import Ear
from hubbub.testing.engines.ear import LOBBY, a_publication
from support.link import Direction, Link
from support.loop import eventually, run
from support.nats import serving_nats
from support.publisher import a_node, usable
from support.redis import serving_redis

ALICE = Member("alice", 1, 1)


class Lossy:
    """A node, what it is told, and its way to the engine's server, on which answers can be lost."""

    def __init__(self, engine: Engine, ear: Ear, link: Link, server: Any) -> None:
        self.engine = engine
        self.ear = ear
        self._link = link
        self.server = server

    def enter(self, session: str = "s1") -> Coroutine[Any, Any, bool]:
        """Alice comes to the lobby."""
        return self.engine.enter(LOBBY, "alice", session, 1, 10)

    def leave(self, session: str = "s1") -> Coroutine[Any, Any, bool]:
        """She goes."""
        return self.engine.leave(LOBBY, "alice", session)

    def part(self, name: str) -> Any:
        """What the engine is made of."""
        if isinstance(self.engine, RedisEngine):
            return getattr(self.engine._partitions[0], name)
        assert isinstance(self.engine, NatsEngine)
        return getattr(self.engine._parts, name)

    async def unheard(self, asked: Coroutine[Any, Any, bool]) -> bool:
        """It is done, and the connection ends before the answer; whoever asks hears nothing of that."""
        self._link.swallow(Direction.BACK)
        asking = asyncio.ensure_future(asked)
        await eventually(lambda: self._link.disturbed)
        self._link.mend()
        return await asking

    async def unanswered(self, asked: Coroutine[Any, Any, object]) -> None:
        """It is done, and no answer comes until it is given up."""
        self._link.swallow(Direction.BACK)
        with pytest.raises(Unavailable):
            await asked
        self._link.mend()
        await usable(self.engine)

    async def in_order(self) -> list[Member]:
        """Who is in the lobby when all that was not answered has been put in order."""
        rooms = self.part("rooms")
        if isinstance(self.engine, RedisEngine):
            # It need not wait for the next lease.
            await rooms._tidy()
        await eventually(lambda: not rooms._ghosts)
        members, _ = await self.engine.members(LOBBY, 10)
        return members


@contextlib.asynccontextmanager
async def a_node_at(kind: str, port: int) -> AsyncIterator[tuple[Engine, Ear]]:
    address, ear = f"{kind}://127.0.0.1:{port}", Ear()
    engine: Engine = RedisEngine(address) if kind == "redis" else NatsEngine(address)
    await engine.start(ear, a_node())
    try:
        yield engine, ear
    finally:
        await engine.stop()


@contextlib.asynccontextmanager
async def lossy(tmp_path: Path, kind: str) -> AsyncIterator[Lossy]:
    serving: Any = serving_redis if kind == "redis" else serving_nats
    with serving(tmp_path) as server:
        link = Link(lambda: ("127.0.0.1", server.port))
        await link.start()
        try:
            async with a_node_at(kind, link.port) as (engine, ear):
                # It knows the room: what is lost is the answer, and not that the room could be read.
                await engine.members(LOBBY, 10)
                yield Lossy(engine, ear, link, server)
        finally:
            await link.stop()


pytestmark = pytest.mark.parametrize("kind", ["redis", "nats"])


def test_who_comes_again_is_news(tmp_path: Path, kind: str) -> None:
    """Nobody has been told of the first time; and it is not taken out again, as a place that nobody wants."""

    async def main() -> None:
        async with lossy(tmp_path, kind) as node:
            await node.unanswered(node.enter())
            again = await node.enter()

            assert again is True
            assert await node.in_order() == [ALICE]
            assert node.ear.departed == node.ear.returned == []

    run(main(), logs_errors=kind == "redis")


def test_who_is_in_already_stays_in(tmp_path: Path, kind: str) -> None:
    """Though somebody asks once more, and gets no answer."""

    async def main() -> None:
        async with lossy(tmp_path, kind) as node:
            first = await node.enter()
            node._link.swallow(Direction.BACK)
            again = await node.enter()
            node._link.mend()
            await usable(node.engine)

            assert (first, again) == (True, False)
            assert await node.in_order() == [ALICE]

    run(main())


def test_who_does_not_come_again_never_was_there(tmp_path: Path, kind: str) -> None:
    """Nobody is told that somebody has gone who had not come."""

    async def main() -> None:
        async with lossy(tmp_path, kind) as node:
            await node.unanswered(node.enter())

            assert await node.in_order() == []
            assert node.ear.departed == node.ear.returned == []

    run(main(), logs_errors=kind == "redis")


def test_whoever_came_later_takes_the_news_over(tmp_path: Path, kind: str) -> None:
    """To the second session the user was there; of the first nobody was told."""

    async def main() -> None:
        async with lossy(tmp_path, kind) as node:
            await node.unanswered(node.enter())
            news = await node.enter("s2")

            assert await node.in_order() == [ALICE]
            # Of the coming it is told once, now or later.
            assert (news, node.ear.returned) in ((False, [(LOBBY, "alice")]), (True, []))
            assert node.ear.departed == []

    run(main(), logs_errors=kind == "redis")


def test_whoever_has_gone_is_told_gone_once(tmp_path: Path, kind: str) -> None:
    """Whether that was done the first time or is now."""

    async def main() -> None:
        async with lossy(tmp_path, kind) as node:
            await node.enter()
            await node.unanswered(node.leave())
            for _ in range(2):
                assert await node.in_order() == []

            assert node.ear.departed == [(LOBBY, "alice")]

    run(main(), logs_errors=kind == "redis")


def test_a_node_that_hears_nothing_is_not_ready(tmp_path: Path, kind: str) -> None:
    """Though it is answered: what others say does not reach its clients."""

    async def main() -> None:
        async with lossy(tmp_path, kind) as node:
            await node.engine.check()
            live = next(live for live in node.part("listening")._live.values() if is_canary(live.name))
            if kind == "nats":
                node.part("link").unsubscribe(live.sid)
            else:
                node.part("bus").unsubscribe([live.bus])
                # It goes by another connection than what is published.
                await eventually(lambda: node.server.command("PUBSUB", "NUMSUB", live.bus).endswith(b":0\r\n"))
            with pytest.raises(Unavailable, match="not heard here"):
                await node.engine.check()

    run(main())


def in_a_while(asked: Coroutine[Any, Any, Any], done: Callable[[Any], object]) -> None:
    """Give `done` what comes of it, as a reader does that is asked so."""

    def settled(task: asyncio.Task[Any]) -> None:
        done(task.exception() or task.result())

    asyncio.ensure_future(asked).add_done_callback(settled)


def test_a_reading_that_fails_after_a_while_is_tried_again(tmp_path: Path, kind: str) -> None:
    """What the bus has lost is told, though nobody waits for anything."""
    reading, over = asyncio.Event(), asyncio.Event()

    async def after(*_: Any) -> Any:
        reading.set()
        await over.wait()
        raise Unavailable

    async def main() -> None:
        async with lossy(tmp_path, kind) as node, a_node_at(kind, node.server.port) as (other, _):
            await node.engine.listen([LOBBY])
            listening = node.part("listening")
            live = listening.get(LOBBY)
            with pytest.MonkeyPatch.context() as patch:
                if kind == "nats":
                    patch.setattr(listening._reader, "after", after)
                else:
                    patch.setattr(listening._reader, "ask", lambda *asked: in_a_while(after(), asked[-1]))
                live.fill()
                await reading.wait()
                # Nobody waits for it: it is looked at no more.
                await eventually(lambda: live not in listening._waiting)
            await other.publish(LOBBY, a_publication("one"))
            over.set()
            await node.ear.hear("one")

    run(main())
