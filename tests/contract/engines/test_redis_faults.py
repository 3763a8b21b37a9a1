"""What only Redis can do to those who use it; the faults that all servers have are in test_faults."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from hubbub.engines.redis.engine import RedisEngine
from hubbub.errors import HubbubError, Unavailable
from hubbub.protocol.envelope import Member
from hubbub.testing.engines import Ear
from hubbub.testing.engines.ear import LOBBY, a_publication
from hubbub.types import Position
from support.loop import eventually, run
from support.publisher import Publisher, a_node, node, rooms_are, usable
from support.redis import KINDS, serving_redis


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


def test_no_more_rights_than_the_documentation_says(tmp_path: Path) -> None:
    """A user of Redis with exactly those is enough."""
    page = (Path(__file__).parents[3] / "docs/operations/redis.md").read_text(encoding="utf-8")
    (rights,) = re.findall(r"^\| an ACL \| `(.+)` is enough \|$", page, re.MULTILINE)

    async def main() -> None:
        with serving_redis(tmp_path) as redis:
            assert redis.command("ACL", "SETUSER", "hub", "on", ">secret", *rights.split()) == b"+OK\r\n"
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
