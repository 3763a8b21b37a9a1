"""A cluster moves things about and loses servers: what is lost is lost for the channels that were there, and said."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hubbub.engines.redis.engine import RedisEngine
from hubbub.engines.redis.slots import PARTITIONS, slot_of, tags
from hubbub.errors import ConfigError, Reject, Unavailable
from hubbub.testing.engines import Ear
from hubbub.testing.engines.ear import LOBBY, a_publication, contents
from hubbub.types import room_channel
from support.loop import eventually, run
from support.publisher import Publisher, a_node, all_told, node
from support.redis import Cluster, Member, follows, serving_cluster, serving_redis, stop_following


def slot(engine: RedisEngine, channel: str = LOBBY) -> int:
    found = engine._of(channel).places.slot
    assert found is not None
    return found


def is_on(engine: RedisEngine, member: Member) -> bool:
    """Whether both connections of the lobby's partition lead there."""
    one, run_id = engine._of(LOBBY), member.about("run_id")
    return bool(run_id) and all(part.run.startswith(run_id) for part in (one.commands, one.bus))


def test_partitions_are_spread_evenly() -> None:
    """Each equal part of the slots has one; and they are the same for ever, for channels are found by them."""
    slots = [slot_of(tag) for tag in tags()]

    assert [number * PARTITIONS // 16_384 for number in slots] == list(range(PARTITIONS))
    # As Redis counts: the example in its specification.
    assert slot_of("123456789") == 0x31C3
    assert tags()[:4] == ["10", "113", "21", "3"]


def test_a_primary_is_lost_with_what_its_replica_never_got(tmp_path: Path) -> None:
    """Its channels go on in another epoch, and those of other servers go on as they were."""

    async def main() -> None:
        with serving_cluster(tmp_path, replicas=True) as cluster:
            async with node(cluster.url) as (engine, ear), node(cluster.url) as (other, others):
                publisher = Publisher(engine)
                at = slot(engine)
                away = elsewhere_than(engine, cluster, LOBBY)
                elsewhere = await engine.publish(away, a_publication("elsewhere"))
                primary, replica = cluster.primary(at), cluster.replica(at)
                kept = await publisher.say("kept")
                await eventually(lambda: follows(replica, primary))
                stop_following(replica, primary)
                lost = await publisher.say("lost")
                await others.hear("lost")
                primary.kill()
                new = await publisher.say("new")
                for heard in (ear, others):
                    await heard.hear("new")

                    assert heard.texts() == ["kept", "lost", "new"]
                    assert set(heard.lost_channels) == {LOBBY}

                page = await other.after(LOBBY, 0, 10)

                assert (lost.epoch, lost.seq) == (kept.epoch, 2)
                assert new.epoch != lost.epoch
                assert contents(page.publications) == ["kept", "new"]
                assert (await engine.position(away)).epoch == elsewhere.epoch

    run(main(), logs_errors=True)


@pytest.mark.parametrize("kind", ["redis-system", "valkey"])
def test_a_failover_by_hand_loses_nothing(tmp_path: Path, kind: str) -> None:
    """Under load: everything is told once and in order, in the same epoch."""

    async def main() -> None:
        with serving_cluster(tmp_path, replicas=True, kind=kind) as cluster:
            async with node(cluster.url) as (engine, ear), node(cluster.url) as (_, others):
                at = slot(engine)
                async with Publisher(engine) as publisher:
                    replica = cluster.replica(at)
                    replica.command("CLUSTER", "FAILOVER")
                    await eventually(lambda: replica.about("role") == "master")
                    await publisher.some()
                    await eventually(lambda: is_on(engine, replica))
                    await publisher.some()
                for heard in (ear, others):
                    await all_told(heard, publisher)

                    assert heard.lost_channels == []

    run(main())


def test_a_slot_is_moved(tmp_path: Path) -> None:
    """Under load: its channels are refused while that lasts, and are then where they belong, with all that they had."""

    async def main() -> None:
        with serving_cluster(tmp_path) as cluster:
            async with node(cluster.url) as (engine, ear), node(cluster.url) as (_, others):
                at = slot(engine)
                source = cluster.primary(at)
                target = next(one for one in cluster.primaries if one is not source)
                async with Publisher(engine) as publisher:
                    source.command("CLUSTER", "SETSLOT", str(at), "MIGRATING", target.id)
                    target.command("CLUSTER", "SETSLOT", str(at), "IMPORTING", source.id)
                    move(source, target, at, 1)
                    await eventually(lambda: publisher.refusals)
                    move(source, target, at)
                    for one in (target, source):
                        one.command("CLUSTER", "SETSLOT", str(at), "NODE", target.id)
                    await publisher.some()
                    await eventually(lambda: is_on(engine, target))
                    await publisher.some()
                for heard in (ear, others):
                    await all_told(heard, publisher)

                    assert heard.lost_channels == []

                assert all(isinstance(error, Unavailable) for error in publisher.refusals)

    run(main())


def move(source: Member, target: Member, at: int, most: int = 1000) -> None:
    """Move keys of a slot: `most` of them, or all, which are fewer."""
    while True:
        found = source.command("CLUSTER", "GETKEYSINSLOT", str(at), str(most)).decode().splitlines()[2::2]
        if not found:
            return
        source.command("MIGRATE", "127.0.0.1", str(target.port), "", "0", "5000", "KEYS", *found)
        if most == 1:
            return


def test_one_primary_is_away(tmp_path: Path) -> None:
    """Only its channels are, where the cluster is configured so; and no more rights are needed than are documented."""
    page = (Path(__file__).parents[3] / "docs/operations/redis.md").read_text(encoding="utf-8")
    (rights,) = re.findall(r"^\| an ACL \| `(.+)` is enough \|$", page, re.MULTILINE)
    (besides,) = re.findall(r"^\| the same in a cluster \| `(.+)` besides \|$", page, re.MULTILINE)
    user = [*rights.split(), besides.replace("\\|", "|")]

    async def main() -> None:
        with serving_cluster(tmp_path, "--cluster-require-full-coverage", "no") as cluster:
            for one in cluster.members:
                assert one.command("ACL", "SETUSER", "hub", "on", ">secret", "resetchannels", *user) == b"+OK\r\n"
            url = cluster.url.replace("://", "://hub:secret@")
            async with node(url) as (engine, ear):
                away = elsewhere_than(engine, cluster, LOBBY)
                await engine.listen([away])
                await engine.publish(away, a_publication("one", id="a1"))
                await engine.check()
                cluster.primary(slot(engine, away)).kill()
                with pytest.raises(Reject):
                    await engine.publish(away, a_publication("two", id="a2"))
                await engine.publish(LOBBY, a_publication("three", id="a3"))
                await engine.enter(LOBBY, "alice", "s1", 1, 10)
                await ear.hear("three")
                with pytest.raises(Unavailable):
                    await engine.check()

                assert ear.texts(away) == ["one"] and ear.lost_channels == []

    run(main(), logs_errors=True)


def elsewhere_than(engine: RedisEngine, cluster: Cluster, channel: str) -> str:
    """A room that is on another primary."""
    rooms = (room_channel(f"room{number}") for number in range(100))
    here = cluster.primary(slot(engine, channel))
    return next(name for name in rooms if cluster.primary(slot(engine, name)) is not here)


@pytest.mark.parametrize(
    ("url", "prefix", "said"),
    [
        ("redis+cluster://127.0.0.1:{port}", "hubbub:", r"is no cluster: write redis://"),
        ("redis+cluster://127.0.0.1:{port}/1", "hubbub:", "a cluster has none"),
        ("redis+cluster://127.0.0.1:{port}", "a{b}:", "a brace"),
    ],
    ids=["single", "database", "brace"],
)
def test_what_is_no_cluster_is_said(tmp_path: Path, url: str, prefix: str, said: str) -> None:
    """In a sentence, with what to do."""

    async def main() -> None:
        with serving_redis(tmp_path) as redis, pytest.raises(ConfigError, match=said):
            await RedisEngine(url.format(port=redis.port), prefix=prefix).start(Ear(), a_node())

    run(main())
