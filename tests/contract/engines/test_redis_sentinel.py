"""Sentinels choose another primary: nodes go there by themselves, and what it never got is said to be lost."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from hubbub.engines.redis.engine import RedisEngine
from hubbub.errors import ConfigError
from hubbub.protocol.envelope import Member
from hubbub.testing.engines import Ear
from hubbub.testing.engines.ear import LOBBY, contents
from support.loop import eventually, run
from support.publisher import Publisher, a_node, all_told, node, usable
from support.redis import KINDS, Redis, Sentinel, follows, serving_redis, serving_sentinel, stop_following

PASSWORD: Final = "p/w"
# The sentinel has a user of its own there.
SECURE: Final = (
    *("--requirepass", PASSWORD, "--masterauth", PASSWORD),
    *("--user", "watcher", "on", ">seen", "~*", "&*", "+@all"),
)


class Trio:
    """A primary, its replica, and the sentinel that watches both; each wants a password."""

    def __init__(self, primary: Redis, replica: Redis, sentinel: Sentinel) -> None:
        self.primary = primary
        self.replica = replica
        self.sentinel = sentinel

    @property
    def url(self) -> str:
        """What an engine is given; the first of the sentinels is not there."""
        return (
            f"redis+sentinel://:p%2Fw@127.0.0.1:1,127.0.0.1:{self.sentinel.port}/mymaster/0?sentinel_password=watchword"
        )

    async def follows(self) -> None:
        """Wait until the replica has everything that the primary has."""
        await eventually(lambda: follows(self.replica, self.primary, PASSWORD))

    def cut(self) -> None:
        """The replica gets nothing more, and does not know."""
        stop_following(self.replica, self.primary, PASSWORD)


@contextlib.asynccontextmanager
async def watched(folder: Path, kind: str = "") -> AsyncIterator[Trio]:
    """All three, who know of each other."""
    folders = [folder / name for name in ("primary", "replica", "sentinel")]
    for one in folders:
        one.mkdir()
    with serving_redis(folders[0], *SECURE, "--repl-diskless-sync-delay", "0", kind=kind) as primary:
        follow = ("--replicaof", "127.0.0.1", str(primary.port))
        with (
            serving_redis(folders[1], *SECURE, *follow, kind=kind) as replica,
            serving_sentinel(
                folders[2],
                primary.port,
                "sentinel auth-user mymaster watcher",
                "sentinel auth-pass mymaster seen",
                "requirepass watchword",
                kind=kind,
            ) as sentinel,
        ):
            trio = Trio(primary, replica, sentinel)
            # It finds the replica by asking the primary.
            knows = ("SENTINEL", "REPLICAS", "mymaster")

            def both_known() -> bool:
                follows = replica.about("master_link_status", PASSWORD) == "up"
                return follows and b"slave" in sentinel.command(*knows, password="watchword")

            await eventually(both_known)
            yield trio


@pytest.mark.parametrize("kind", KINDS)
def test_a_failover_that_lost_nothing(tmp_path: Path, kind: str) -> None:
    """The primary is killed: the same epoch goes on with the next number, retries are known, nobody has left a room."""

    async def main() -> None:
        async with (
            watched(tmp_path, kind) as trio,
            node(trio.url, lease=1.0) as (engine, ear),
            node(trio.url, lease=1.0) as (other, others),
        ):
            await engine.enter(LOBBY, "alice", "s1", 1, 10)
            await other.enter(LOBBY, "bob", "s2", 2, 10)
            publisher = Publisher(engine)
            first = await publisher.say("first")
            await trio.follows()
            trio.primary.kill()
            async with Publisher(engine, "bob") as more:
                pass
            again = await publisher.say("first")
            await usable(other)
            for heard in (ear, others):
                await heard.hear(more.taken[-1])

                assert heard.texts() == ["first", *more.taken]
                assert heard.lost_channels == [] and heard.departed == []

            assert (again.epoch, again.seq, again.duplicate) == (first.epoch, 1, True)
            assert (await engine.members(LOBBY, 10))[0] == [Member("alice", 1, 1), Member("bob", 1, 2)]

    run(main(), logs_errors=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_failover_that_lost_writes(tmp_path: Path, kind: str) -> None:
    """What the replica never got is gone: its numbers are not given again in the same epoch, and all nodes are told."""

    async def main() -> None:
        async with (
            watched(tmp_path, kind) as trio,
            node(trio.url) as (engine, ear),
            node(trio.url) as (other, others),
        ):
            publisher = Publisher(engine)
            kept = await publisher.say("kept")
            await trio.follows()
            trio.cut()
            lost = await publisher.say("lost")
            await others.hear("lost")
            trio.primary.kill()
            new = await publisher.say("new")
            for heard in (ear, others):
                await heard.hear("new")

                assert heard.texts() == ["kept", "lost", "new"]
                assert LOBBY in heard.lost_channels

            page = await other.after(LOBBY, 0, 10)

            assert (lost.epoch, lost.seq) == (kept.epoch, 2)
            assert new.epoch != lost.epoch
            assert contents(page.publications) == ["kept", "new"]

    run(main(), logs_errors=True)


def test_a_primary_that_only_the_sentinels_have_lost(tmp_path: Path) -> None:
    """It goes on taking writes: nodes ask for themselves, and nothing is acknowledged there for long."""

    async def main() -> None:
        async with watched(tmp_path) as trio, node(trio.url) as (engine, ear):
            async with Publisher(engine) as publisher:
                await trio.follows()
                for command in (("ACL", "SETUSER", "watcher", "off"), ("CLIENT", "KILL", "USER", "watcher")):
                    trio.primary.command(*command, password=PASSWORD)
                await eventually(lambda: trio.replica.about("role", PASSWORD) == "master")
                await eventually(lambda: is_on(engine, trio.replica))
                await publisher.some()
            await ear.hear(publisher.taken[-1])

            # What it took until then is lost.
            assert ear.lost_channels

    run(main())


def is_on(engine: RedisEngine, redis: Redis) -> bool:
    """Whether both connections lead there."""
    (one,) = engine._partitions
    run_id = redis.about("run_id", PASSWORD)
    return bool(run_id) and all(part.run.startswith(run_id) for part in (one.commands, one.bus))


def test_a_replica_is_refused(tmp_path: Path) -> None:
    """Named in the URL it does not start; the sentence says what it is."""

    async def main() -> None:
        with (
            serving_redis(tmp_path, "--replicaof", "127.0.0.1", "1") as replica,
            pytest.raises(ConfigError, match="is a replica"),
        ):
            await RedisEngine(replica.url).start(Ear(), a_node())

    run(main())


def test_a_primary_that_becomes_a_replica(tmp_path: Path) -> None:
    """It takes no writes any more: nothing is acknowledged until it does again, and then nothing is missing."""

    async def main() -> None:
        with serving_redis(tmp_path) as redis:
            async with node(redis.url) as (engine, ear):
                before = engine._partitions[0].commands.run
                async with Publisher(engine) as publisher:
                    redis.command("REPLICAOF", "127.0.0.1", "1")
                    await eventually(lambda: publisher.refusals)
                    redis.command("REPLICAOF", "NO", "ONE")
                    await publisher.some()
                await all_told(ear, publisher)

                assert ear.lost_channels == []
                # It may have lost something meanwhile, so it does not count as what it was.
                assert engine._partitions[0].commands.run != before

    run(main(), logs_errors=True)


def test_a_primary_that_is_one_again(tmp_path: Path) -> None:
    """Another was it meanwhile, and never got what was acknowledged here: who was cut off all that time finds out."""

    async def main() -> None:
        folders = tmp_path / "one", tmp_path / "other"
        for folder in folders:
            folder.mkdir()
        with serving_redis(folders[0]) as one, serving_redis(folders[1]) as other:
            async with node(one.url) as (engine, ear):
                publisher = Publisher(engine)
                await publisher.say("kept")
                other.command("REPLICAOF", "127.0.0.1", str(one.port))
                await eventually(lambda: follows(other, one))
                stop_following(other, one)
                lost = await publisher.say("lost")
                other.command("REPLICAOF", "NO", "ONE")
                one.command("REPLICAOF", "127.0.0.1", str(other.port))
                one.command("CLIENT", "KILL", "TYPE", "normal")
                await eventually(lambda: engine._partitions[0].commands._failed > 1)
                async with node(other.url) as (elsewhere, _):
                    for text in ("1", "2", "3"):
                        await Publisher(elsewhere).say(text)
                await eventually(lambda: follows(one, other))
                one.command("REPLICAOF", "NO", "ONE")
                new = await publisher.say("new")
                await ear.hear("new")

                assert LOBBY in ear.lost_channels
                assert new.epoch != lost.epoch
                assert contents((await engine.after(LOBBY, 0, 10)).publications) == ["kept", "1", "2", "3", "new"]

    run(main(), logs_errors=True)


def test_sentinels_that_know_nothing(tmp_path: Path) -> None:
    """Each failure is a sentence with the place and the remedy, and without passwords."""

    async def main() -> None:
        async with watched(tmp_path) as trio:
            for url, said in (
                (trio.url.replace("mymaster", "other"), "knows no primary that is called other"),
                (trio.url.replace("watchword", "wrong-word"), "its password is sentinel_password"),
                (trio.url.replace("p%2Fw", "wrong-word"), "does not take the password"),
            ):
                with pytest.raises(ConfigError, match=said) as caught:
                    await RedisEngine(url).start(Ear(), a_node())

                assert "word@" not in str(caught.value).replace("user:password@", "")
                assert "wrong-word" not in str(caught.value) and "watchword" not in str(caught.value)

            trio.sentinel.signal(signal.SIGSTOP)
            with pytest.raises(ConfigError, match="does not answer"):
                await RedisEngine(trio.url).start(Ear(), a_node())

    run(main())
