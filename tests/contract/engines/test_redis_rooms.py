"""Who is in a room on Redis, and who is told of it, whatever happens to nodes, to Redis and on the way there."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from contract.engines.test_lost_answers import lossy
from hubbub.engines.redis.engine import RedisEngine
from hubbub.engines.redis.rooms import Rooms
from hubbub.errors import Unavailable
from hubbub.protocol.envelope import Member
from hubbub.testing.engines.ear import DEN, LOBBY
from support.link import Link
from support.loop import eventually, run
from support.publisher import node, rooms_are, usable
from support.redis import Redis, serving_redis

ALICE = Member("alice", 1, 1)


def rooms_of(engine: RedisEngine) -> Rooms:
    (one,) = engine._partitions
    return one.rooms


def test_coming_back_into_the_rooms_goes_on_after_another_outage(tmp_path: Path) -> None:
    """The lease stands again before all are in: whoever was not yet comes with the next."""

    async def main() -> None:
        with serving_redis(tmp_path) as redis:
            async with node(redis.url, lease=1.0) as (engine, _):
                everybody = [Member(f"user-{number}", 1, number) for number in range(5)]
                for number in range(5):
                    await engine.enter(LOBBY, f"user-{number}", f"s{number}", number, 10)
                enter, tried = Rooms._enter, 0

                def failing(self: Rooms, *args: Any) -> Any:
                    nonlocal tried
                    tried += 1
                    if 3 <= tried <= 5:
                        raise Unavailable
                    return enter(self, *args)

                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(Rooms, "_enter", failing)
                    redis.command("FLUSHALL")
                    await rooms_are(engine, everybody)

                    assert tried > 5

    run(main())


def test_a_node_that_was_taken_for_dead_comes_back(tmp_path: Path) -> None:
    """Its people are out when its lease is over and in again when it is heard; of both it is told once."""

    async def main() -> None:
        with serving_redis(tmp_path) as redis:
            async with node(redis.url, lease=0.5) as (engine, ear), node(redis.url, lease=0.5) as (other, others):
                await engine.enter(LOBBY, "alice", "s1", 1, 10)
                engine._renewed = float("inf")
                await rooms_are(other, [])
                engine._renewed = 0.0
                await rooms_are(other, [ALICE])
                await eventually(lambda: ear.returned)
                await engine.leave(LOBBY, "alice", "s1")

                assert (ear.departed, ear.returned) == ([], [(LOBBY, "alice")])
                assert (others.departed, others.returned) == ([(LOBBY, "alice")], [])

    run(main())


def test_who_was_lost_with_the_data_had_not_gone(tmp_path: Path) -> None:
    """They are in again, and nobody is told: nobody was when they went."""

    async def main() -> None:
        with serving_redis(tmp_path) as redis:
            async with node(redis.url, lease=0.5) as (engine, ear):
                await engine.enter(LOBBY, "alice", "s1", 1, 10)
                redis.command("FLUSHALL")
                await eventually(lambda: redis.command("EXISTS", "hubbub:room:lobby:users") == b":0\r\n")
                await rooms_are(engine, [ALICE])

                assert ear.departed == ear.returned == []

    run(main())


def test_a_place_that_another_server_lacks_is_taken_again(tmp_path: Path) -> None:
    """A server that is started anew may lack the last moments, though no publication is missing."""

    async def main() -> None:
        with serving_redis(tmp_path, "--dbfilename", "copy.rdb") as redis:
            async with node(redis.url, lease=1.0) as (engine, ear):
                redis.command("SAVE")
                await engine.enter(LOBBY, "alice", "s1", 1, 10)
                redis.kill()
                (one,) = engine._partitions
                await eventually(lambda: min(one.commands._failed, one.bus._failed) > 1)
                redis.start()
                await usable(engine)
                await rooms_are(engine, [ALICE])

                # Others were told when she came, and of nothing since.
                assert ear.departed == ear.returned == []

    run(main(), logs_errors=True)


def test_however_long_the_clearing_takes_the_node_that_does_it_lives(tmp_path: Path) -> None:
    """Its lease waits for nothing."""
    begun, over = asyncio.Event(), asyncio.Event()

    async def clear(self: Rooms, node: str) -> None:
        begun.set()
        await over.wait()

    async def main() -> None:
        with serving_redis(tmp_path) as redis, pytest.MonkeyPatch.context() as patch:
            patch.setattr(Rooms, "_clear", clear)
            async with node(redis.url, lease=0.5) as (engine, ear):
                async with node(redis.url, lease=0.5):
                    await engine.enter(LOBBY, "alice", "s1", 1, 10)
                await begun.wait()
                renewed = engine._renewed
                # Several leases later.
                await eventually(lambda: engine._renewed > renewed + 1.5)
                async with node(redis.url, lease=0.5) as (other, others):
                    await rooms_are(other, [ALICE])

                    assert ear.departed == others.departed == []
                over.set()

    run(main())


def test_a_node_that_is_back_is_not_cleared_away(tmp_path: Path) -> None:
    """What it has entered meanwhile is still known as its own, and so is its lease."""

    async def main() -> None:
        with serving_redis(tmp_path) as redis:
            async with node(redis.url, lease=0.5) as (engine, _), node(redis.url, lease=1e9) as (other, _):
                await engine.enter(LOBBY, "alice", "s1", 1, 10)
                engine._renewed = float("inf")
                name = rooms_of(engine)._node.name
                await eventually(lambda: f":{name}" not in alive(redis))
                members = Rooms.members

                async def slowly(self: Rooms, channel: str, limit: int) -> Any:
                    found = await members(self, channel, limit)
                    # In this very moment it is back.
                    await rooms_of(engine).renew()
                    await rooms_are(engine, [ALICE])
                    return found

                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(rooms_of(other), "members", slowly.__get__(rooms_of(other)))
                    await rooms_of(other)._clear(name)

                assert redis.command("SMEMBERS", f"hubbub:rooms:{name}").count(LOBBY.encode()) == 1
                assert name.encode() in redis.command("ZRANGE", "hubbub:nodes", "0", "-1")

    run(main())


def test_nobody_is_dead_because_redis_takes_nothing(tmp_path: Path) -> None:
    """Leases that nobody could renew are renewed when it takes something again, before anybody is judged by them."""

    async def main() -> None:
        with serving_redis(tmp_path) as redis:
            async with node(redis.url, lease=0.5) as (engine, ear), node(redis.url, lease=0.5) as (other, others):
                await engine.enter(LOBBY, "alice", "s1", 1, 10)
                redis.command("CONFIG", "SET", "maxmemory", "1")
                await eventually(lambda: alive(redis).count("node.") == 0)
                during, _ = await other.members(LOBBY, 10)
                redis.command("CONFIG", "SET", "maxmemory", "0")
                await eventually(lambda: alive(redis).count("node.") == 2)

                assert during == (await other.members(LOBBY, 10))[0] == [ALICE]
                assert ear.departed == others.departed == ear.returned == others.returned == []

    run(main())


def test_a_node_that_comes_first_after_an_outage_finds_nobody_dead(tmp_path: Path) -> None:
    """It knows that nobody can have renewed a lease since the server was started."""

    async def main() -> None:
        with serving_redis(tmp_path, "--appendonly", "yes", "--appendfsync", "always") as redis:
            target: tuple[str, int] | None = ("127.0.0.1", redis.port)
            link = Link(lambda: target)
            await link.start()
            async with node(f"redis://127.0.0.1:{link.port}/0", lease=1.0) as (engine, ear):
                await engine.enter(LOBBY, "alice", "s1", 1, 10)
                target = None
                link.cut()
                redis.kill()
                redis.start()
                await eventually(lambda: f":{rooms_of(engine)._node.name}:" not in alive(redis))
                async with node(redis.url, lease=1.0) as (new, others):
                    found, _ = await new.members(LOBBY, 10)
                    target = ("127.0.0.1", redis.port)
                    await usable(engine)

                    assert found == (await new.members(LOBBY, 10))[0] == [ALICE]
                    assert ear.returned == others.departed == []
            await link.stop()

    run(main(), logs_errors=True)


def test_who_was_taken_out_of_one_room_comes_back_into_it(tmp_path: Path) -> None:
    """A node that was cleared away in part is not forgiven, though nobody could renew a lease."""

    async def main() -> None:
        with serving_redis(tmp_path) as redis:
            async with node(redis.url, lease=0.6) as (engine, ear), node(redis.url, lease=0.6) as (other, others):
                await engine.enter(LOBBY, "alice", "s1", 1, 10)
                await engine.enter(DEN, "alice", "s1", 1, 10)
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(Rooms, "_clear", nothing)
                    engine._renewed = float("inf")
                    await eventually(lambda: rooms_of(engine)._node.name not in alive(redis))
                    # This room and no other.
                    await other.members(LOBBY, 10)
                    other._renewed = float("inf")
                    await eventually(lambda: alive(redis).count("node.") == 0)
                    engine._renewed = other._renewed = 0.0
                    await rooms_are(other, [ALICE])
                await eventually(lambda: ear.returned)

                assert ear.returned == others.departed == [(LOBBY, "alice")]
                assert (await other.members(DEN, 10))[0] == [ALICE]

    run(main())


def test_whom_an_unanswered_call_has_found_gone_is_told(tmp_path: Path) -> None:
    """It is asked for again, by its name."""

    async def main() -> None:
        async with lossy(tmp_path, "redis") as one, node(one.server.url) as (engine, _):
            await engine.enter(LOBBY, "alice", "s1", 1, 10)
            # It has died long ago, and nobody has seen that.
            engine._renewed = float("inf")
            one.server.command("ZADD", "hubbub:nodes", "1", rooms_of(engine)._node.name)
            await one.unanswered(one.engine.members(LOBBY, 10))
            await eventually(lambda: one.ear.departed)

            assert one.ear.departed == [(LOBBY, "alice")]

    run(main(), logs_errors=True)


def test_who_is_back_after_a_going_that_was_not_answered_has_not_been_away(tmp_path: Path) -> None:
    """Nobody has been told of the going; so nobody is of the coming."""

    async def main() -> None:
        async with lossy(tmp_path, "redis") as one:
            await one.enter()
            await one.unanswered(one.leave())
            again = await one.enter()

            assert again is False
            assert await one.in_order() == [ALICE]
            assert one.ear.departed == one.ear.returned == []

    run(main(), logs_errors=True)


async def nothing(*_: object) -> None:
    """Instead of clearing away."""


@pytest.mark.parametrize("what", ["enter", "leave"])
def test_what_is_asked_for_again_is_answered_as_the_first_time(tmp_path: Path, what: str) -> None:
    """The connection ends before the answer; the command is sent again by the next, and Redis knows it."""

    async def main() -> None:
        async with lossy(tmp_path, "redis") as one:
            if what == "leave":
                await one.enter()

            assert await one.unheard(one.enter() if what == "enter" else one.leave()) is True

    run(main())


def alive(redis: Redis) -> str:
    """The names of the nodes whose lease is not over."""
    script = """
        local time = redis.call('TIME')
        local now = string.format('%.0f', time[1] * 1000 + time[2] / 1000)
        return ':' .. table.concat(redis.call('ZRANGEBYSCORE', 'hubbub:nodes', now, '+inf'), ':') .. ':'
    """
    return redis.command("EVAL", script, "0").decode()
