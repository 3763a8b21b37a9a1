"""Rooms on NATS when something goes wrong in between: who asks is answered, and all nodes see the same."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from hubbub.core.log import HistoryLimits, Retention
from hubbub.engines.nats.engine import NatsEngine
from hubbub.engines.nats.places import Places
from hubbub.engines.nats.publishing import Publishing
from hubbub.engines.nats.room import Entry, Room, encode_entry
from hubbub.engines.nats.watching import Watched, Watching
from hubbub.errors import RoomFull, Unavailable
from hubbub.protocol.envelope import Member
from hubbub.testing.engines import Ear
from hubbub.testing.engines.ear import DEN, LOBBY
from support.loop import PATIENCE, eventually, run
from support.nats import serving_nats
from support.nats_nodes import cut, lose, node
from support.publisher import rooms_are, usable


def test_a_room_that_could_not_be_read_is_read_again(tmp_path: Path) -> None:
    """Whoever asks after a failure is answered as if it had never been."""

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            async with node(nats) as (engine, _):
                nats.signal(signal.SIGSTOP)
                with pytest.raises(Unavailable):
                    await engine.members(DEN, 5)
                nats.signal(signal.SIGCONT)
                async with asyncio.timeout(PATIENCE):
                    await engine.enter(DEN, "alice", "s1", 1, 10)

                    assert await engine.members(DEN, 5) == ([Member("alice", 1, 1)], 1)

    run(main())


def test_a_room_that_nobody_needs_and_nobody_can_read_is_forgotten(tmp_path: Path) -> None:
    """The connection is lost while a room is read in which nobody of this node is: the engine's clock goes on."""

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            async with node(nats) as (engine, _):
                parts = engine._parts
                assert parts is not None
                watching, again = parts.rooms._watching, parts.link.again

                def cut_again() -> None:
                    parts.link.again = again
                    again()
                    cut(engine)

                parts.link.again = cut_again
                await engine.members(DEN, 5)
                cut(engine)
                await eventually(lambda: parts.link.again is again and parts.link.serves)
                await eventually(lambda: not watching._leaving)

                assert not watching._watched

    run(main())


def test_a_fault_in_one_part_of_the_clock_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node with a fault in it is in its rooms all the same: it goes on saying that it lives."""

    def broken(publishing: Publishing, now: float) -> None:
        raise RuntimeError

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            async with node(nats, lease=0.4) as (engine, _):
                assert engine._parts is not None
                nodes = engine._parts.rooms._nodes
                began = nodes._beaten
                await eventually(lambda: nodes._beaten > began + 0.2)

    monkeypatch.setattr(Publishing, "tick", broken)
    run(main(), logs_errors=True)


async def move_on(engine: NatsEngine) -> None:
    """Let the places in the stream become larger than those of one that begins anew."""
    assert engine._parts is not None
    link = engine._parts.link
    await asyncio.gather(*(link.call("hubbub.places.seen.zoe", b"1") for _ in range(5_000)))


def test_a_node_that_dies_after_the_stream_was_lost_is_found_dead(tmp_path: Path) -> None:
    """What was known of the nodes by another stream does not keep anybody from hearing what the new one says."""

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            async with node(nats, lease=1.0) as (engine, ear):
                other = NatsEngine(nats.url, lease=1.0)
                await other.start(Ear(), "node.2")
                await move_on(engine)
                assert other._parts is not None and engine._parts is not None
                other._parts.rooms._nodes.beat()
                engine._parts.rooms._nodes.beat()
                await engine.enter(LOBBY, "alice", "s1", 1, 10)
                await other.enter(LOBBY, "bob", "s2", 2, 10)
                await lose(nats, engine)
                shutil.rmtree(nats.store)
                nats.start()
                for each in (engine, other):
                    await usable(each)
                    await rooms_are(each, [Member("alice", 1, 1), Member("bob", 1, 2)])
                await other.stop()
                await rooms_are(engine, [Member("alice", 1, 1)])
                await eventually(lambda: ear.departed)

                assert ear.departed == [(LOBBY, "bob")]

    run(main(), logs_errors=True)


def test_a_node_that_was_once_taken_for_dead_enters_when_the_stream_was_lost(tmp_path: Path) -> None:
    """Up to where its places were over counts in the stream in which that was said, and in no other."""

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            async with node(nats, lease=0.5) as (engine, _), node(nats, "node.2", lease=0.5) as (other, _):
                await move_on(engine)
                await engine.enter(LOBBY, "alice", "s1", 1, 10)
                assert engine._parts is not None
                nodes = engine._parts.rooms._nodes
                nodes._beaten = asyncio.get_running_loop().time() + 1.0
                await eventually(lambda: nodes.bar("node.1"))
                await lose(nats, engine)
                shutil.rmtree(nats.store)
                nats.start()
                await usable(engine)
                await rooms_are(engine, [Member("alice", 1, 1)])
                await engine.enter(LOBBY, "bob", "s2", 2, 10)
                for each in (engine, other):
                    await rooms_are(each, [Member("alice", 1, 1), Member("bob", 1, 2)])

    run(main(), logs_errors=True)


def test_who_left_is_not_in_again_when_an_older_copy_is_restored(tmp_path: Path) -> None:
    """Of what the copy says a node has, that counts which it has now."""

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            async with node(nats) as (engine, _), node(nats, "node.2") as (other, _):
                await engine.enter(LOBBY, "alice", "s1", 1, 10)
                await engine.enter(LOBBY, "bob", "s2", 2, 10)
                await lose(nats, engine)
                shutil.copytree(nats.store, tmp_path / "copy")
                nats.start()
                await usable(engine)
                await engine.leave(LOBBY, "alice", "s1")
                await move_on(engine)
                assert engine._parts is not None
                await engine._parts.streams.look_at_all()
                await lose(nats, engine)
                shutil.rmtree(nats.store)
                shutil.move(tmp_path / "copy", nats.store)
                nats.start()
                for each in (engine, other):
                    await usable(each)
                    await rooms_are(each, [Member("bob", 1, 2)])

    run(main(), logs_errors=True)


def test_who_enters_while_the_node_stands_still_is_in(tmp_path: Path) -> None:
    """The answer to `enter` counts, though the node was taken for dead between that and the question."""

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            async with node(nats, lease=0.5) as (engine, _), node(nats, "node.2", lease=0.5) as (other, _):
                await engine.enter(LOBBY, "alice", "s1", 1, 10)
                assert engine._parts is not None and other._parts is not None
                link, nodes = engine._parts.link, engine._parts.rooms._nodes
                assert link.connection is not None and link.connection._transport is not None
                link.connection._transport.pause_reading()
                nodes._beaten = asyncio.get_running_loop().time() + 1.0
                entering = asyncio.create_task(engine.enter(LOBBY, "bob", "s2", 2, 10))
                others = other._parts.rooms._nodes
                await eventually(lambda: others.bar("node.1"))
                link.connection._transport.resume_reading()
                await entering
                for each in (engine, other):
                    await rooms_are(each, [Member("alice", 1, 1), Member("bob", 1, 2)])

    run(main())


def test_coming_back_is_tried_until_it_succeeds(tmp_path: Path) -> None:
    """A node that was taken for dead, and whose NATS takes nothing in that moment, is in its rooms when it does."""

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            async with node(nats, lease=5.0) as (engine, _), node(nats, "node.2", lease=5.0) as (other, _):
                await engine.enter(LOBBY, "alice", "s1", 1, 10)
                assert engine._parts is not None and other._parts is not None
                rooms = engine._parts.rooms
                say, failed = rooms._watching.say, asyncio.Event()

                async def refused(watched: Watched, entry: Entry) -> tuple[bool | None, int]:
                    rooms._watching.say = say  # type: ignore[method-assign]  # once
                    failed.set()
                    raise Unavailable("JetStream cannot take it")

                rooms._watching.say = refused  # type: ignore[method-assign]  # as a JetStream without a leader
                others = other._parts.rooms._nodes
                others._declare("node.1", others._nodes["node.1"])
                async with asyncio.timeout(PATIENCE):
                    await failed.wait()
                for each in (engine, other):
                    await rooms_are(each, [Member("alice", 1, 1)])

    run(main())


async def abandoned(asked: Coroutine[Any, Any, bool]) -> None:
    """Whoever asks gives up when it is on its way to NATS."""
    asking = asyncio.ensure_future(asked)
    # As far as it goes without an answer.
    await asyncio.sleep(0)
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking


class Held:
    """Whoever asks for a room as it is at this moment waits until `go` is set."""

    def __init__(self, watching: Watching, monkeypatch: pytest.MonkeyPatch) -> None:
        self.waiting = 0
        self.go = asyncio.Event()
        self._current = watching.current
        monkeypatch.setattr(watching, "current", self.current)

    async def current(self, watched: Watched) -> Room:
        self.waiting += 1
        await self.go.wait()
        return await self._current(watched)


def test_much_that_was_not_answered_is_put_in_order_a_part_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However slow NATS is, nothing is begun twice: there is one task, and of each user it is told once."""
    users = [f"u{number}" for number in range(250)]

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            async with node(nats) as (engine, ear):
                await asyncio.gather(*(engine.enter(LOBBY, user, user, 1, 1_000) for user in users))
                assert engine._parts is not None
                rooms = engine._parts.rooms
                held = Held(rooms._watching, monkeypatch)
                await asyncio.gather(*(abandoned(engine.leave(LOBBY, user, user)) for user in users))
                await eventually(lambda: held.waiting == 200)
                for _ in range(3):
                    rooms._tidied = 0.0
                    rooms._tidy(asyncio.get_running_loop().time())
                await asyncio.sleep(0)

                assert (len(rooms._tasks), held.waiting) == (1, 200)

                held.go.set()
                await eventually(lambda: not rooms._ghosts)

                assert sorted(ear.departed) == sorted((LOBBY, user) for user in users)
                assert await engine.members(LOBBY, 1) == ([], 0)

    run(main())


def test_who_gives_up_while_an_earlier_place_is_left_is_not_in(tmp_path: Path) -> None:
    """Two enterings of one session that nobody waited for are two places to leave."""

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            async with node(nats) as (engine, _):
                assert engine._parts is not None
                rooms = engine._parts.rooms
                await engine.members(LOBBY, 1)
                with pytest.MonkeyPatch.context() as patch:
                    held = Held(rooms._watching, patch)
                    await abandoned(engine.enter(LOBBY, "alice", "s1", 1, 10))
                    await eventually(lambda: held.waiting == 1)
                    await abandoned(engine.enter(LOBBY, "alice", "s1", 1, 10))
                    held.go.set()
                    await eventually(lambda: not rooms._ghosts)

                assert await engine.members(LOBBY, 1) == ([], 0)

    run(main())


def test_who_leaves_comes_and_gives_up_is_not_in(tmp_path: Path) -> None:
    """The answer to the leaving says nothing of the entering that came after it."""

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            async with node(nats) as (engine, _):
                assert engine._parts is not None
                rooms = engine._parts.rooms
                await engine.enter(LOBBY, "alice", "s1", 1, 10)
                leaving = asyncio.ensure_future(engine.leave(LOBBY, "alice", "s1"))
                await asyncio.sleep(0)
                await abandoned(engine.enter(LOBBY, "alice", "s1", 2, 10))
                await leaving
                await eventually(lambda: not rooms._ghosts)

                assert await engine.members(LOBBY, 1) == ([], 0)

    run(main())


def test_what_arrives_when_it_has_been_given_up_is_left(tmp_path: Path) -> None:
    """A packet is late, after its connection has ended: nobody is in a room for ever whom no node holds."""

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            async with node(nats) as (engine, ear):
                assert engine._parts is not None
                rooms = engine._parts.rooms
                await engine.enter(LOBBY, "bob", "s2", 1, 10)
                # One is heard, the other read.
                for channel in (LOBBY, DEN):
                    late = rooms._entry(channel, "alice", "s1", since=2, came=2, capacity=10)
                    nats.ask(rooms._watching._of(late), encode_entry(late))
                    await engine.members(channel, 10)
                    await eventually(lambda: not rooms._ghosts)

                assert await engine.members(LOBBY, 10) == ([Member("bob", 1, 1)], 1)
                assert await engine.members(DEN, 10) == ([], 0)
                assert ear.departed == ear.returned == []

    run(main())


def test_what_arrives_late_in_a_room_that_nobody_needs_is_left(tmp_path: Path) -> None:
    """It is waited for as long as it may be on its way, and the room is looked at once more when that is over."""

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            async with node(nats) as (engine, ear), node(nats, "node.2") as (other, _):
                assert engine._parts is not None
                rooms = engine._parts.rooms
                watched = rooms._watching._watched
                late = rooms._entry(LOBBY, "alice", "s1", since=2, came=2, capacity=10)
                await engine.members(LOBBY, 1)
                await abandoned(engine.enter(LOBBY, "alice", "s1", 1, 10))
                await eventually(lambda: not rooms._ghosts)
                # Nobody has asked for long.
                rooms._watching.tick(asyncio.get_running_loop().time() + 60.0)
                nats.ask(rooms._watching._of(late), encode_entry(late))
                await rooms_are(other, [])
                # Once more, and this time the bus loses it.
                engine._parts.link._heard.pop(watched[LOBBY].sid)
                nats.ask(rooms._watching._of(late), encode_entry(late))
                rooms._late[LOBBY] = 0.0
                await rooms_are(other, [])
                await eventually(lambda: not rooms._needed(LOBBY))

                assert ear.departed == ear.returned == []

    run(main())


def test_a_leaving_that_arrives_late_takes_nobody_out(tmp_path: Path) -> None:
    """Its packet is behind that by which the session has come again."""

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            async with node(nats) as (engine, ear), node(nats, "node.2") as (other, _):
                assert engine._parts is not None
                rooms = engine._parts.rooms
                await engine.enter(LOBBY, "alice", "s1", 1, 10)
                late = rooms._entry(LOBBY, "alice", "s1", ends=2)
                nats.ask(rooms._watching._of(late), encode_entry(late))
                for each in (engine, other):
                    await rooms_are(each, [Member("alice", 1, 1)])

                assert ear.departed == ear.returned == []

    run(main())


def test_who_reads_a_full_room_sees_it_as_who_heard_it(tmp_path: Path) -> None:
    """The bus loses what would have said that there is no room: `enter` raises `RoomFull` all the same."""

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            async with node(nats) as (engine, _), node(nats, "node.2") as (other, _):
                await engine.enter(LOBBY, "zoe", "s0", 1, 1)
                await engine.leave(LOBBY, "zoe", "s0")
                assert engine._parts is not None
                heard, watched = engine._parts.link._heard, engine._parts.rooms._watching._watched[LOBBY]
                hears = heard.pop(watched.sid)
                await other.enter(LOBBY, "alice", "s1", 1, 1)
                with pytest.raises(RoomFull):
                    await engine.enter(LOBBY, "bob", "s2", 2, 1)
                heard[watched.sid] = hears
                for each in (engine, other):
                    await rooms_are(each, [Member("alice", 1, 1)])

    run(main())


def test_a_room_is_read_as_it_was_heard() -> None:
    """Whoever found the room full is not in it, though whoever was in has left since, or died."""

    def entry(seq: int, user: str, node: str = "n1", *, ends: int = 0) -> Entry:
        return Entry("room:x", node, user, "s", since=seq, came=seq, capacity=1, ends=ends, seq=seq)

    bars = {"n1": 0, "dead": 6}
    left, said = Room.read([entry(3, "full"), entry(4, "left", ends=2), entry(5, "next")], bars.__getitem__)

    assert (said[3], said[4], said[5]) == (None, True, True)
    assert [member.user for member in left.members(9)] == ["next"]

    died, said = Room.read([entry(3, "dead", "dead"), entry(4, "full"), entry(7, "next")], bars.__getitem__)

    assert (said[3], said[4], said[7]) == (True, None, True)
    assert [member.user for member in died.members(9)] == ["next"]


def test_a_pinned_room_has_a_stream_of_its_own() -> None:
    """Its messages make no room for those of others that keep equally much."""
    kept = {"room:pinned": Retention(size=5, age=60.0, pinned=True), "room:other": Retention(size=5, age=60.0)}
    places = Places("hubbub", HistoryLimits(), kept.__getitem__)

    assert places.of("room:pinned").kind != places.of("room:other").kind


@pytest.mark.parametrize("said", [b"nonsense", b"", b"-1", "٣".encode(), b"9" * 5_000])
def test_what_somebody_else_says_of_when_a_user_was_seen_is_nothing(tmp_path: Path, said: bytes) -> None:
    """Whoever may write there costs nobody an answer."""

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            async with node(nats) as (engine, _):
                await engine.enter("user:alice", "alice", "s1", 1, 10)
                await engine.leave("user:alice", "alice", "s1", 5)
                nats.ask("hubbub.places.seen.alice", said)

                assert await engine.last_seen("alice") is None

    run(main())
