"""The server that nodes share fails in all ways, for real: nothing acknowledged is lost while its files are there.

And else it is said. The same on each engine; what only one kind of server can do is in a file of that one's.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final

import pytest

from hubbub.engines.base import Accepted, Engine
from hubbub.engines.nats.engine import NatsEngine
from hubbub.engines.redis.engine import RedisEngine
from hubbub.engines.shared.clock import TICK
from hubbub.errors import HubbubError, Reject, Unavailable
from hubbub.protocol.envelope import Member
from hubbub.testing.engines import Ear
from hubbub.testing.engines.ear import LOBBY, a_publication, contents
from support import nats_nodes
from support.loop import PATIENCE, eventually, run
from support.nats import Nats
from support.publisher import Publisher, a_node, all_told, listening, rooms_are, usable
from support.redis import Redis

# With every second, which is the default, the last moments are lost with the process.
APPEND: Final = ("--appendonly", "yes", "--appendfsync", "always")

on_each = pytest.mark.parametrize("kind", ["redis", "nats"])


class Server:
    """What nodes share, and how it fails."""

    def __init__(self, folder: Path, kind: str, settings: tuple[str, ...]) -> None:
        # All that it keeps.
        self._files = folder / "store"
        self._copy = folder / "copy"
        self.is_redis = kind == "redis"
        self._server: Redis | Nats
        if self.is_redis:
            self._files.mkdir()
            self._server = Redis(self._files, *APPEND, *settings)
        else:
            self._server = Nats(folder, "".join(settings))
        self.start, self.kill, self.signal = self._server.start, self._server.kill, self._server.signal
        self.port = self._server.port

    def engine(self, url: str = "", prefix: str = "hubbub") -> Engine:
        """Of a node on it."""
        kind: type[RedisEngine | NatsEngine] = RedisEngine if self.is_redis else NatsEngine
        return kind(url or self._server.url, prefix=prefix)

    def node(self) -> AbstractAsyncContextManager[tuple[Engine, Ear]]:
        """A node on it that listens to the lobby."""
        return listening(self.engine())

    def cut(self, engine: Engine, connection: str) -> None:
        """Cut the connection of a node, as a network does; of Redis, one kind of connections of all nodes."""
        if isinstance(self._server, Redis):
            self._server.command("CLIENT", "KILL", "TYPE", connection)
            return
        assert isinstance(engine, NatsEngine)
        nats_nodes.cut(engine)

    async def lose(self, engine: Engine) -> None:
        """Kill it, and wait until the engine has said that it is away."""
        self.kill()
        await self.said_away(engine)
        with pytest.raises(Unavailable):
            await engine.position(LOBBY)

    async def said_away(self, engine: Engine) -> None:
        """Wait until the engine has said that it is away."""
        if isinstance(engine, RedisEngine):
            (one,) = engine._partitions
            both = one.commands, one.bus
            await eventually(lambda: min(each._failed for each in both) > 1)
        else:
            assert isinstance(engine, NatsEngine)
            await nats_nodes.said_away(engine)

    async def gone_from(self, engine: Engine) -> None:
        """Wait until the engine has given its connection up."""
        if isinstance(engine, RedisEngine):
            (one,) = engine._partitions
            await eventually(lambda: one.commands.connection is None)
        else:
            assert isinstance(engine, NatsEngine) and engine._parts is not None
            link = engine._parts.link
            await eventually(lambda: not link.serves)

    def forget(self) -> None:
        """It has been killed, and what it kept is lost."""
        shutil.rmtree(self._files)
        self._files.mkdir()

    def keep(self) -> None:
        """Make a copy of what it keeps in this moment."""
        self.signal(signal.SIGSTOP)
        shutil.copytree(self._files, self._copy)
        self.signal(signal.SIGCONT)

    def bring_back(self) -> None:
        """It has been killed, and what it kept is what was copied."""
        shutil.rmtree(self._files)
        shutil.copytree(self._copy, self._files)


@contextlib.contextmanager
def serving(folder: Path, kind: str, *settings: str) -> Iterator[Server]:
    server = Server(folder, kind, settings)
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.mark.parametrize(
    ("kind", "connection"), [("redis", "pubsub"), ("redis", "normal"), ("nats", "")], ids=["pubsub", "normal", "nats"]
)
def test_a_connection_is_cut(tmp_path: Path, kind: str, connection: str) -> None:
    """Under load: on both nodes everything is told, once and in order."""

    async def main() -> None:
        with serving(tmp_path, kind) as server:
            async with server.node() as (engine, ear), server.node() as (peer, other):
                async with Publisher(engine) as publisher:
                    for one in (engine, peer, engine, peer):
                        server.cut(one, connection)
                        await publisher.some()
                await all_told(ear, publisher)
                await all_told(other, publisher)

                assert ear.lost_channels == other.lost_channels == []

    run(main())


@on_each
def test_it_is_killed_and_has_kept_everything(tmp_path: Path, kind: str) -> None:
    """What was acknowledged is there, in the same epoch, and retries are known."""

    async def main() -> None:
        with serving(tmp_path, kind) as server:
            async with server.node() as (engine, ear), server.node() as (_, other):
                first = await Publisher(engine).say("first")
                async with Publisher(engine) as publisher:
                    await server.lose(engine)
                    await eventually(lambda: publisher.refusals)
                    server.start()
                    await publisher.some()
                await all_told(ear, publisher, "first")
                await all_told(other, publisher, "first")
                again = await engine.publish(LOBBY, a_publication("first", id="first"))

                assert ear.lost_channels == other.lost_channels == []
                assert (again.epoch, again.seq, again.duplicate) == (first.epoch, first.seq, True)

    run(main(), logs_errors=True)


@on_each
def test_it_is_killed_and_has_kept_nothing(tmp_path: Path, kind: str) -> None:
    """The log begins anew, in another epoch, each node that listens is told, and rooms are as they were."""

    async def main() -> None:
        with serving(tmp_path, kind) as server:
            async with server.node() as (engine, ear), server.node() as (_, other):
                old = await Publisher(engine).say("old")
                await engine.enter(LOBBY, "alice", "s1", 1, 10)
                await server.lose(engine)
                server.forget()
                server.start()
                await usable(engine)
                new = await Publisher(engine).say("new")
                await ear.hear("new")
                await other.hear("new")

                assert new.epoch != old.epoch
                assert ear.lost_channels == other.lost_channels == [LOBBY]
                assert ear.texts() == other.texts() == ["old", "new"]
                assert not (await engine.after(LOBBY, 5, 10)).complete
                await rooms_are(engine, [Member("alice", 1, 1)])

    run(main(), logs_errors=True)


@on_each
def test_it_comes_back_with_older_files(tmp_path: Path, kind: str) -> None:
    """Numbers that were given are not given again in the same epoch: who has them would miss what is new."""

    async def main() -> None:
        with serving(tmp_path, kind) as server:
            async with server.node() as (engine, ear), server.node() as (other, others_ear):
                publisher = Publisher(engine)
                for text in ("1", "2", "3"):
                    kept = await publisher.say(text)
                server.keep()
                await usable(engine)
                for text in ("4", "5"):
                    lost = await publisher.say(text)
                # It is killed before it has told everybody, else.
                await others_ear.hear("5")
                await server.lose(engine)
                server.bring_back()
                server.start()
                await usable(engine)
                await usable(other)
                new = await publisher.say("new")
                await ear.hear("new")
                await others_ear.hear("new")
                page = await engine.after(LOBBY, 0, 10)

                assert lost.epoch == kept.epoch and (lost.seq or 0) > (kept.seq or 0)
                assert new.epoch != lost.epoch and (new.seq or 0) <= (lost.seq or 0)
                assert LOBBY in ear.lost_channels and LOBBY in others_ear.lost_channels
                # What is there can still be read, and is not told a second time.
                assert contents(page.publications) == ["1", "2", "3", "new"]
                assert ear.texts() == others_ear.texts() == ["1", "2", "3", "4", "5", "new"]

    run(main(), logs_errors=True)


@on_each
def test_it_hangs(tmp_path: Path, kind: str) -> None:
    """Nobody waits long, what is not known is not called lost, readiness says so, and then it goes on."""

    async def main() -> None:
        with serving(tmp_path, kind) as server:
            async with server.node() as (engine, ear):
                await engine.publish(LOBBY, a_publication("before"))
                server.signal(signal.SIGSTOP)
                try:
                    async with asyncio.timeout(PATIENCE):
                        unknown, again, check = await asyncio.gather(
                            engine.publish(LOBBY, a_publication("without an id")),
                            engine.publish(LOBBY, a_publication("with", id="a1")),
                            engine.check(),
                            return_exceptions=True,
                        )
                    await server.gone_from(engine)
                    loop = asyncio.get_running_loop()
                    asked = loop.time()
                    with pytest.raises(Unavailable):
                        await engine.publish(LOBBY, a_publication("at once"))

                    assert loop.time() - asked < 0.5
                    # They may have been stored, so not "unavailable".
                    for outcome in (unknown, again):
                        assert isinstance(outcome, Reject) and outcome.code == "internal"
                    assert isinstance(check, Unavailable)
                finally:
                    server.signal(signal.SIGCONT)
                await usable(engine)
                await engine.publish(LOBBY, a_publication("with", id="a1"))
                await engine.publish(LOBBY, a_publication("after"))
                await ear.hear("after")
                texts = [text for text in ear.texts() if text != "without an id"]

                assert texts == ["before", "with", "after"]
                assert ear.lost_channels == []
                assert ear.texts() == contents((await engine.after(LOBBY, 0, 10)).publications)

    run(main(), logs_errors=True)


@on_each
def test_it_is_the_node_that_hangs(tmp_path: Path, kind: str) -> None:
    """And not the server, which nobody has asked anything meanwhile."""

    async def main() -> None:
        with serving(tmp_path, kind) as server:
            async with server.node() as (engine, ear):
                await engine.publish(LOBBY, a_publication("before"))
                await ear.hear("before")
                # A handler of somebody's holds everything up, for longer than a server may be silent.
                time.sleep(3.5)  # noqa: ASYNC251 - this is what is tested
                # The clock looks, and looks again.
                await asyncio.sleep(3 * TICK)
                await engine.publish(LOBBY, a_publication("after"))
                await ear.hear("after")

                assert ear.texts() == ["before", "after"]
                assert ear.lost_channels == []

    run(main())


@pytest.mark.parametrize(("kind", "many", "least"), [("redis", 25_000, 5_000), ("nats", 12_000, 4_000)])
def test_a_flood_is_refused_beyond_what_may_wait(tmp_path: Path, kind: str, many: int, least: int) -> None:
    """At once, and with nothing stored of what was refused."""

    async def main() -> None:
        with serving(tmp_path, kind) as server:
            async with server.node() as (engine, _):
                answers: list[Accepted | Exception] = []
                refused = 0
                for number in range(many):
                    try:
                        engine.submit(LOBBY, a_publication(str(number)), False, None, answers.append)
                    except Unavailable:
                        refused += 1
                await eventually(lambda: len(answers) == many - refused)
                taken = [answer for answer in answers if isinstance(answer, Accepted)]

                assert refused >= least
                assert len(taken) + sum(isinstance(answer, Unavailable) for answer in answers) == len(answers)
                assert (await engine.position(LOBBY)).seq == len(taken)

    run(main())


@on_each
def test_it_is_not_there(tmp_path: Path, kind: str) -> None:
    """The server does not start, and says which option it is about."""

    async def main() -> None:
        with serving(tmp_path, kind) as server:
            server.kill()
            with pytest.raises(HubbubError, match="HUBBUB_ENGINE"):
                await server.engine().start(Ear(), a_node())

    run(main())


PASSWORD: Final = 'authorization { user: hub, password: "ri/@:ght" }\n'


@pytest.mark.parametrize(
    ("kind", "settings", "parts"),
    [
        # Redis tells on one bus for all of its databases.
        ("redis", ("--requirepass", "ri/@:ght"), [("/0", "hubbub"), ("/3", "hubbub")]),
        ("redis", ("--requirepass", "ri/@:ght"), [("", "zero"), ("", "three")]),
        ("nats", (PASSWORD,), [("", "zero"), ("", "three")]),
    ],
    ids=["databases", "redis", "nats"],
)
def test_a_right_password_and_another_part(
    tmp_path: Path, kind: str, settings: tuple[str, ...], parts: list[tuple[str, str]]
) -> None:
    """Two deployments share a server, and nothing else; the password may have any characters."""

    async def main() -> None:
        with serving(tmp_path, kind, *settings) as server:
            user = "" if server.is_redis else "hub"
            url = f"{kind}://{user}:ri%2F%40%3Aght@127.0.0.1:{server.port}"
            engines = [server.engine(url + database, prefix) for database, prefix in parts]
            async with listening(engines[0]) as (zero, ear), listening(engines[1]) as (three, other):
                await zero.publish(LOBBY, a_publication("zero"))
                await three.publish(LOBBY, a_publication("three"))
                await ear.hear("zero")
                await other.hear("three")

                assert [ear.texts(), other.texts()] == [["zero"], ["three"]]
                assert all("ght" not in repr(vars(engine)["_address"]) for engine in engines)

    run(main())
