"""Redis fails in all ways, for real: nothing acknowledged is lost while its log is there, and else it is said."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
from pathlib import Path
from typing import Final

import pytest

from hubbub.engines.base import Accepted
from hubbub.engines.redis.engine import RedisEngine
from hubbub.errors import HubbubError, Reject, Unavailable
from hubbub.protocol.envelope import Member
from hubbub.testing.engines import Ear
from hubbub.testing.engines.ear import LOBBY, a_publication, contents
from hubbub.types import Position
from support.loop import PATIENCE, eventually, run
from support.publisher import Publisher, a_node, all_told, node, rooms_are, usable
from support.redis import KINDS, Redis, serving_redis

# With every second, which is the default, the last moments are lost with the process.
APPEND: Final = ("--appendonly", "yes", "--appendfsync", "always")


async def lose(redis: Redis, engine: RedisEngine) -> None:
    """Kill Redis, and wait until the engine has said that it is away."""
    redis.kill()
    (one,) = engine._partitions
    await eventually(lambda: min(one.commands._failed, one.bus._failed) > 1)
    with pytest.raises(Unavailable):
        await engine.position(LOBBY)


@pytest.mark.parametrize("kind", ["pubsub", "normal"])
def test_a_connection_is_cut(tmp_path: Path, kind: str) -> None:
    """Either of the two, under load: on both nodes everything is told, once and in order."""

    async def main() -> None:
        with serving_redis(tmp_path) as redis:
            async with node(redis.url) as (engine, ear), node(redis.url) as (_, other):
                async with Publisher(engine) as publisher:
                    for _ in range(3):
                        redis.command("CLIENT", "KILL", "TYPE", kind)
                        await publisher.some()
                await all_told(ear, publisher)
                await all_told(other, publisher)

                assert ear.lost_channels == other.lost_channels == []

    run(main())


def test_who_reads_too_slowly_is_cut_off_and_catches_up(tmp_path: Path) -> None:
    """Redis drops a subscriber whose buffer is full; what it had there is read from the log."""

    async def main() -> None:
        with serving_redis(tmp_path, "--client-output-buffer-limit", "pubsub", "100kb", "0", "0") as redis:
            async with node(redis.url) as (engine, ear):
                texts = [f"{number} " + "x" * 10_000 for number in range(200)]
                answers = await asyncio.gather(*(engine.publish(LOBBY, a_publication(text)) for text in texts))
                await ear.hear(texts[-1])

                assert ear.texts() == texts
                assert [answer.seq for answer in answers] == list(range(1, 201))

    run(main())


def test_redis_is_killed_and_has_kept_everything(tmp_path: Path) -> None:
    """With its log on disk: what was acknowledged is there, in the same epoch, and retries are known."""

    async def main() -> None:
        with serving_redis(tmp_path, *APPEND) as redis:
            async with node(redis.url) as (engine, ear), node(redis.url) as (_, other):
                first = await Publisher(engine).say("first")
                async with Publisher(engine) as publisher:
                    await lose(redis, engine)
                    await eventually(lambda: publisher.refusals)
                    redis.start()
                    await publisher.some()
                await all_told(ear, publisher, "first")
                await all_told(other, publisher, "first")
                again = await engine.publish(LOBBY, a_publication("first", id="first"))

                assert ear.lost_channels == other.lost_channels == []
                assert (again.epoch, again.seq, again.duplicate) == (first.epoch, 1, True)

    run(main(), logs_errors=True)


def test_redis_is_killed_and_has_kept_nothing(tmp_path: Path) -> None:
    """The log begins anew, in another epoch, and each node that listens is told."""

    async def main() -> None:
        with serving_redis(tmp_path) as redis:
            async with node(redis.url) as (engine, ear), node(redis.url) as (_, other):
                old = await Publisher(engine).say("old")
                await lose(redis, engine)
                redis.start()
                await usable(engine)
                new = await Publisher(engine).say("new")
                await ear.hear("new")
                await other.hear("new")

                assert new.epoch != old.epoch and new.seq == 1
                assert ear.lost_channels == other.lost_channels == [LOBBY]
                assert not (await engine.after(LOBBY, 5, 10)).complete

    run(main(), logs_errors=True)


def test_redis_comes_back_with_an_older_copy(tmp_path: Path) -> None:
    """Numbers that were given are not given again in the same epoch: who has them would miss what is new."""

    async def main() -> None:
        with serving_redis(tmp_path, "--dbfilename", "copy.rdb") as redis:
            async with node(redis.url) as (engine, ear), node(redis.url) as (other, _):
                publisher = Publisher(engine)
                for text in ("1", "2", "3"):
                    kept = await publisher.say(text)
                redis.command("SAVE")
                shutil.copy(tmp_path / "copy.rdb", tmp_path / "older.rdb")
                for text in ("4", "5"):
                    lost = await publisher.say(text)
                await lose(redis, engine)
                shutil.copy(tmp_path / "older.rdb", tmp_path / "copy.rdb")
                redis.start()
                await usable(engine)
                await usable(other)
                new = await publisher.say("new")
                await ear.hear("new")
                page = await engine.after(LOBBY, 0, 10)

                assert (lost.epoch, lost.seq) == (kept.epoch, 5)
                assert new.epoch != lost.epoch and new.seq == 4
                assert LOBBY in ear.lost_channels
                # What is there can still be read, and is not told a second time.
                assert contents(page.publications) == ["1", "2", "3", "new"]
                assert ear.texts() == ["1", "2", "3", "4", "5", "new"]

    run(main(), logs_errors=True)


def test_redis_is_emptied(tmp_path: Path) -> None:
    """It is noticed though nobody publishes, and rooms are as they were."""

    async def main() -> None:
        with serving_redis(tmp_path) as redis:
            async with node(redis.url, lease=1.0) as (engine, ear):
                old = await Publisher(engine).say("old")
                await engine.enter(LOBBY, "alice", "s1", 1, 10)
                redis.command("FLUSHALL")
                await eventually(lambda: ear.lost_channels == [LOBBY])
                await usable(engine)
                position = await engine.position(LOBBY)
                new = await Publisher(engine).say("new")
                await ear.hear("new")

                assert position == Position(new.epoch, 0) and new.epoch != old.epoch
                await rooms_are(engine, [Member("alice", 1, 1)])

    run(main())


def test_scripts_are_removed(tmp_path: Path) -> None:
    """They are loaded again, and what was refused for it is done then."""

    async def main() -> None:
        with serving_redis(tmp_path) as redis:
            async with node(redis.url) as (engine, ear):
                redis.command("SCRIPT", "FLUSH")
                accepted = await engine.publish(LOBBY, a_publication("one"))
                await ear.hear("one")

                assert accepted.seq == 1 and ear.lost_channels == []

    run(main())


def test_redis_hangs(tmp_path: Path) -> None:
    """Nothing is acknowledged falsely, nobody waits for long, readiness says so; and all is well when it goes on."""

    async def main() -> None:
        with serving_redis(tmp_path) as redis:
            async with node(redis.url) as (engine, ear):
                await engine.publish(LOBBY, a_publication("before"))
                redis.signal(signal.SIGSTOP)
                try:
                    async with asyncio.timeout(PATIENCE):
                        with pytest.raises(Reject) as unknown:
                            await engine.publish(LOBBY, a_publication("without an id"))
                        with pytest.raises(Reject):
                            await engine.publish(LOBBY, a_publication("with", id="a1"))
                        with pytest.raises(Unavailable):
                            await engine.check()
                    loop = asyncio.get_running_loop()
                    asked = loop.time()
                    with pytest.raises(Unavailable):
                        await engine.publish(LOBBY, a_publication("at once"))

                    assert loop.time() - asked < 0.5
                    # It may have been stored, so not "unavailable".
                    assert unknown.value.code == "internal"
                finally:
                    redis.signal(signal.SIGCONT)
                await usable(engine)
                await engine.publish(LOBBY, a_publication("with", id="a1"))
                await engine.publish(LOBBY, a_publication("after"))
                await ear.hear("after")
                texts = [text for text in ear.texts() if text != "without an id"]

                assert texts == ["before", "with", "after"]
                assert ear.lost_channels == []
                assert ear.texts() == contents((await engine.after(LOBBY, 0, 10)).publications)

    run(main(), logs_errors=True)


def test_garbage_on_the_bus_is_counted(tmp_path: Path) -> None:
    """And ignored: what is published goes on being told."""

    async def main() -> None:
        with serving_redis(tmp_path) as redis:
            async with node(redis.url) as (engine, ear):
                bus = "hubbub:room:lobby:bus:0"
                for garbage in ("", "\n", "m a b c d e\nx", "m e 1 1 t \nno record", "x " * 100, "v - 0 0  \n{"):
                    redis.command("PUBLISH", bus, garbage)
                redis.command("PUBLISH", "hubbub:control:0", "nonsense")
                await engine.publish(LOBBY, a_publication("one"))
                await ear.hear("one")

                assert ear.texts() == ["one"] and ear.lost_channels == []
                assert engine.statistics().garbage >= 4

    run(main(), logs_errors=True)


@pytest.mark.parametrize(
    ("name", "kind"),
    # Redis 6.2 does not look at its replicas when it runs a script.
    [*(("maxmemory", kind) for kind in KINDS), *(("min-replicas-to-write", kind) for kind in KINDS[1:])],
)
def test_redis_refuses_for_the_moment(tmp_path: Path, name: str, kind: str) -> None:
    """Nothing is stored then, and that is said; each version has words of its own for it."""

    async def main() -> None:
        with serving_redis(tmp_path, kind=kind) as redis:
            async with node(redis.url) as (engine, ear):
                await engine.publish(LOBBY, a_publication("one"))
                redis.command("CONFIG", "SET", name, "1")
                for id in (None, "a1"):
                    with pytest.raises(Unavailable, match=r"replicas|memory"):
                        await engine.publish(LOBBY, a_publication("refused", id=id))
                redis.command("CONFIG", "SET", name, "0")
                await engine.publish(LOBBY, a_publication("two"))
                await ear.hear("two")

                assert ear.texts() == ["one", "two"]
                assert (await engine.position(LOBBY)).seq == 2

    run(main())


def test_a_flood_is_refused_beyond_what_may_wait(tmp_path: Path) -> None:
    """At once, and with nothing stored of what was refused."""

    async def main() -> None:
        with serving_redis(tmp_path) as redis:
            async with node(redis.url) as (engine, _):
                answers: list[Accepted | Exception] = []
                refused = 0
                for number in range(25_000):
                    try:
                        engine.submit(LOBBY, a_publication(str(number)), False, None, answers.append)
                    except Unavailable:
                        refused += 1
                await eventually(lambda: len(answers) == 25_000 - refused)

                assert refused >= 5_000
                assert (await engine.position(LOBBY)).seq == 25_000 - refused

    run(main())


@pytest.mark.parametrize(
    ("options", "url", "said"),
    [
        (("--requirepass", "right"), "redis://:wrong@127.0.0.1:{port}/0", "does not take the password"),
        (("--requirepass", "right"), "redis://127.0.0.1:{port}/0", "does not take the password"),
        ((), "redis://127.0.0.1:{port}/99", "has no database 99"),
        (("--cluster-enabled", "yes"), "redis://127.0.0.1:{port}/0", "is a cluster"),
    ],
    ids=["wrong-password", "no-password", "no-database", "cluster"],
)
def test_what_cannot_be_used_is_said_in_a_sentence(
    tmp_path: Path, options: tuple[str, ...], url: str, said: str
) -> None:
    """With the place, without the password, and with what to do."""

    async def main() -> None:
        with serving_redis(tmp_path, *options) as redis:
            engine = RedisEngine(url.format(port=redis.port))
            with pytest.raises(HubbubError, match=said) as caught:
                await engine.start(Ear(), a_node())

            assert f"127.0.0.1:{redis.port}" in str(caught.value)
            assert "wrong" not in str(caught.value)

    run(main())


def test_a_redis_that_is_not_there(tmp_path: Path) -> None:
    """The server does not start, and says which option it is about."""

    async def main() -> None:
        with serving_redis(tmp_path) as redis:
            redis.kill()
            with pytest.raises(HubbubError, match="HUBBUB_ENGINE"):
                await RedisEngine(redis.url).start(Ear(), a_node())

    run(main())


def test_a_right_password_and_another_database(tmp_path: Path) -> None:
    """Databases are apart, though Redis tells on one bus for all of them."""

    async def main() -> None:
        with serving_redis(tmp_path, "--requirepass", "right/right") as redis:
            url = f"redis://:right%2Fright@127.0.0.1:{redis.port}/"
            engines = [RedisEngine(url + database) for database in ("0", "3")]
            ears = [Ear(), Ear()]
            for engine, ear in zip(engines, ears, strict=True):
                await engine.start(ear, a_node())
                await engine.listen([LOBBY])
            for engine, text in zip(engines, ("zero", "three"), strict=True):
                await engine.publish(LOBBY, a_publication(text))
                assert "right" not in repr(engine._address)
            await ears[0].hear("zero")
            await ears[1].hear("three")

            assert [ear.texts() for ear in ears] == [["zero"], ["three"]]
            for engine in engines:
                await engine.stop()

    run(main())


def test_no_more_rights_than_the_documentation_says(tmp_path: Path) -> None:
    """A user of Redis with exactly those is enough."""
    page = (Path(__file__).parents[3] / "docs/operations/redis.md").read_text(encoding="utf-8")
    (rights,) = re.findall(r"^\| an ACL \| `(.+)` is enough \|$", page, re.MULTILINE)

    async def main() -> None:
        with serving_redis(tmp_path) as redis:
            assert (
                redis.command("ACL", "SETUSER", "hub", "on", ">secret", "resetchannels", *rights.split()) == b"+OK\r\n"
            )
            engine, ear = RedisEngine(f"redis://hub:secret@127.0.0.1:{redis.port}/0"), Ear()
            await engine.start(ear, a_node())
            await engine.listen([LOBBY])
            await engine.publish(LOBBY, a_publication("one", id="a1"))
            await engine.publish(LOBBY, a_publication("moment"), volatile=True)
            await engine.enter(LOBBY, "alice", "s1", 1, 10)
            await engine.set_cursor("alice", 1)
            await engine.check()
            await engine.leave(LOBBY, "alice", "s1")
            await engine.enter("user:alice", "alice", "s1", 1, 10)
            await engine.leave("user:alice", "alice", "s1", 1)
            await engine.last_seen("alice")
            await ear.hear("moment")
            await engine.stop()

            assert ear.texts() == ["one", "moment"]

    run(main())
