"""NATS fails in all ways, for real: nothing acknowledged is lost while its files are there, and else it is said."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hubbub.core import record
from hubbub.engines.base import Accepted
from hubbub.engines.nats.engine import NatsEngine
from hubbub.engines.nats.notes import body_of
from hubbub.errors import Reject, Unavailable
from hubbub.protocol.envelope import Member
from hubbub.testing.engines import Ear
from hubbub.testing.engines.ear import DEN, LOBBY, a_publication, contents
from hubbub.types import inbox_channel
from support.loop import PATIENCE, eventually, run
from support.nats import Nats, serving_nats
from support.publisher import Publisher, all_told, usable


@contextlib.asynccontextmanager
async def node(nats: Nats, name: str = "node.1", *, lease: float = 10.0) -> AsyncIterator[tuple[NatsEngine, Ear]]:
    """A node that listens to the lobby."""
    engine, ear = NatsEngine(nats.url, lease=lease), Ear()
    await engine.start(ear, name)
    try:
        await engine.listen([LOBBY])
        yield engine, ear
    finally:
        await engine.stop()


async def lose(nats: Nats, engine: NatsEngine) -> None:
    """Kill NATS, and wait until the engine has said that it is away."""
    nats.kill()
    assert engine._parts is not None
    link = engine._parts.link
    await eventually(lambda: link._said)
    with pytest.raises(Unavailable):
        await engine.position(LOBBY)


def cut(engine: NatsEngine) -> None:
    """Cut the connection, as a network does."""
    assert engine._parts is not None and engine._parts.link.connection is not None
    transport = engine._parts.link.connection._transport
    assert transport is not None
    transport.abort()


async def rooms_are(engine: NatsEngine, members: list[Member]) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(Unavailable):
                if (await engine.members(LOBBY, 10))[0] == members:
                    return
            await asyncio.sleep(0.05)


def test_the_connection_is_cut(tmp_path: Path) -> None:
    """Under load: on both nodes everything is told, once and in order."""

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            async with node(nats) as (engine, ear), node(nats, "node.2") as (peer, other):
                async with Publisher(engine) as publisher:
                    for one in (engine, peer, engine, peer):
                        cut(one)
                        await publisher.some()
                await all_told(ear, publisher)
                await all_told(other, publisher)

                assert ear.lost_channels == other.lost_channels == []

    run(main())


def test_who_reads_too_slowly_is_cut_off_and_catches_up(tmp_path: Path) -> None:
    """NATS drops a client whose buffer is full; what it had there is read from the log."""

    async def main() -> None:
        with serving_nats(tmp_path, "max_payload: 1MB\nmax_pending: 1MB\n") as nats:
            async with node(nats) as (engine, _), node(nats, "node.2") as (peer, other):
                assert peer._parts is not None and peer._parts.link.connection is not None
                slow = peer._parts.link.connection
                assert slow._transport is not None
                slow._transport.pause_reading()
                texts = [f"{number} " + "x" * 200_000 for number in range(100)]
                for text in texts:
                    await engine.publish(LOBBY, a_publication(text))
                slow._transport.resume_reading()
                await other.hear(texts[-1])

                assert peer._parts.link.connection is not slow
                assert other.texts() == texts
                assert other.lost_channels == []

    run(main())


def test_nats_is_killed_and_has_kept_everything(tmp_path: Path) -> None:
    """What was acknowledged is there, in the same epoch, and retries are known."""

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            async with node(nats) as (engine, ear), node(nats, "node.2") as (_, other):
                first = await Publisher(engine).say("first")
                async with Publisher(engine) as publisher:
                    await lose(nats, engine)
                    await eventually(lambda: publisher.refusals)
                    nats.start()
                    await publisher.some()
                await all_told(ear, publisher, "first")
                await all_told(other, publisher, "first")
                again = await engine.publish(LOBBY, a_publication("first", id="first"))

                assert ear.lost_channels == other.lost_channels == []
                assert (again.epoch, again.seq, again.duplicate) == (first.epoch, first.seq, True)

    run(main(), logs_errors=True)


def test_nats_is_killed_and_has_kept_nothing(tmp_path: Path) -> None:
    """The log begins anew, in another epoch, each node that listens is told, and rooms are as they were."""

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            async with node(nats) as (engine, ear), node(nats, "node.2") as (_, other):
                old = await Publisher(engine).say("old")
                await engine.enter(LOBBY, "alice", "s1", 1, 10)
                await lose(nats, engine)
                shutil.rmtree(nats.store)
                nats.start()
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


def test_nats_comes_back_with_older_files(tmp_path: Path) -> None:
    """Numbers that were given are not given again in the same epoch: who has them would miss what is new."""

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            async with node(nats) as (engine, ear), node(nats, "node.2") as (other, others_ear):
                publisher = Publisher(engine)
                for text in ("1", "2", "3"):
                    kept = await publisher.say(text)
                nats.signal(signal.SIGSTOP)
                shutil.copytree(nats.store, tmp_path / "older")
                nats.signal(signal.SIGCONT)
                await usable(engine)
                for text in ("4", "5"):
                    lost = await publisher.say(text)
                # NATS is killed before it has told everybody, else.
                await others_ear.hear("5")
                await lose(nats, engine)
                shutil.rmtree(nats.store)
                shutil.copytree(tmp_path / "older", nats.store)
                nats.start()
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


def test_a_stream_is_deleted(tmp_path: Path) -> None:
    """By an operator, while nobody is cut off: whoever publishes is told to try again, and it begins anew."""

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            async with node(nats) as (engine, ear), node(nats, "node.2") as (_, other):
                old = await Publisher(engine).say("old")
                nats.ask("$JS.API.STREAM.DELETE.hubbub-rooms")
                new = await Publisher(engine).say("new")
                await ear.hear("new")
                await other.hear("new")

                assert new.epoch != old.epoch
                assert ear.lost_channels == other.lost_channels == [LOBBY]
                assert ear.texts() == other.texts() == ["old", "new"]

    run(main(), logs_errors=True)


def test_nats_hangs(tmp_path: Path) -> None:
    """Nobody waits long, what is not known is not called lost, and then it goes on."""

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            async with node(nats) as (engine, ear):
                await engine.publish(LOBBY, a_publication("before"))
                nats.signal(signal.SIGSTOP)
                try:
                    async with asyncio.timeout(6):
                        unknown, again, check = await asyncio.gather(
                            engine.publish(LOBBY, a_publication("without an id")),
                            engine.publish(LOBBY, a_publication("with", id="a1")),
                            engine.check(),
                            return_exceptions=True,
                        )
                    await eventually(lambda: engine._parts is not None and not engine._parts.link.serves)
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
                    nats.signal(signal.SIGCONT)
                await usable(engine)
                await engine.publish(LOBBY, a_publication("with", id="a1"))
                await engine.publish(LOBBY, a_publication("after"))
                await ear.hear("after")
                texts = [text for text in ear.texts() if text != "without an id"]

                assert texts == ["before", "with", "after"]
                assert ear.lost_channels == []
                assert ear.texts() == contents((await engine.after(LOBBY, 0, 10)).publications)

    run(main(), logs_errors=True)


def test_garbage_is_counted(tmp_path: Path) -> None:
    """And ignored, on the bus and in the log: what is published goes on being told."""

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            async with node(nats) as (engine, ear):
                await engine.publish(LOBBY, a_publication("one"))
                await engine.enter(LOBBY, "alice", "s1", 1, 10)
                for garbage in (b"", b"\n", b"a b c\nx", b"a 1 \nno record", b"x " * 100, b"a 1 \n{", b"\xff\xfe"):
                    for bus in ("bus.rooms.room:lobby", "places-bus.room:lobby.a.b.c", "places-bus.nodes.x", "control"):
                        nats.tell(f"hubbub.{bus}", garbage)
                nats.ask("hubbub.log.rooms.room:lobby", b"nonsense")
                await engine.publish(LOBBY, a_publication("two"))
                await ear.hear("two")

                assert ear.texts() == ["one", "two"] and ear.lost_channels == []
                assert contents((await engine.after(LOBBY, 0, 10)).publications) == ["one", "two"]
                assert engine.statistics().garbage >= 7
                assert (await engine.members(LOBBY, 10))[0] == [Member("alice", 1, 1)]

    run(main(), logs_errors=True)


@pytest.mark.parametrize(
    "head",
    [
        "Nats-Sequence: 999999999\r\n",
        "Nats-Sequence: 999999999\r\nNats-Last-Sequence: 1\r\n",
        "Nats-Sequence: 999999999\r\nNats-Last-Sequence: 1\r\nNats-Time-Stamp: today\r\n",
        "Nats-Sequence: 999999999\r\nNats-Time-Stamp: 2026-01-01T00:00:00Z\r\n",
        "Nats-Sequence: 5\r\nNats-Last-Sequence: 7\r\nNats-Time-Stamp: 2026-01-01T00:00:00Z\r\n",
    ],
    ids=["seq", "no-time", "no-such-time", "no-prev", "backwards"],
)
def test_who_is_no_stream_is_not_believed(tmp_path: Path, head: str) -> None:
    """A number that no stream has given makes no channel deaf, and no log another one."""

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            async with node(nats) as (engine, ear):
                first = await engine.publish(LOBBY, a_publication("one"))
                forged = body_of("a", 1, None, record.encode(a_publication("forged")))
                nats.tell("hubbub.bus.rooms.room:lobby", forged, f"NATS/1.0\r\n{head}\r\n".encode())
                await eventually(lambda: engine.statistics().garbage)
                assert engine._parts is not None
                await engine._parts.streams.look_at_all()
                last = await engine.publish(LOBBY, a_publication("two"))
                await ear.hear("two")

                assert ear.texts() == ["one", "two"] and ear.lost_channels == []
                assert last.epoch == first.epoch

    run(main(), logs_errors=True)


def test_a_cursor_that_cannot_be_read_counts_as_none(tmp_path: Path) -> None:
    """And the next who acknowledges replaces it."""

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            async with node(nats) as (engine, _):
                accepted = await engine.publish(inbox_channel("bob"), a_publication("one"))
                await engine.set_cursor("bob", 0)
                for garbage in (b"{}", b"\xff", b"[1]"):
                    nats.ask("hubbub.cursors.bob", garbage)

                    assert await engine.cursor("bob") is None
                await engine.set_cursor("bob", accepted.seq or 0)

                assert await engine.cursor("bob") == accepted.seq

    run(main(), logs_errors=True)


def test_a_flood_is_refused_beyond_what_may_wait(tmp_path: Path) -> None:
    """At once, and with nothing stored of what was refused."""

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            async with node(nats) as (engine, _):
                answers: list[Accepted | Exception] = []
                refused = 0
                for number in range(12_000):
                    try:
                        engine.submit(LOBBY, a_publication(str(number)), False, None, answers.append)
                    except Unavailable:
                        refused += 1
                await eventually(lambda: len(answers) == 12_000 - refused)
                taken = [answer for answer in answers if isinstance(answer, Accepted)]

                assert refused >= 4_000
                assert len(taken) + sum(isinstance(answer, Unavailable) for answer in answers) == len(answers)
                assert (await engine.position(LOBBY)).seq == len(taken)

    run(main())


def test_a_place_in_another_log_is_not_taken_for_one_in_this(tmp_path: Path) -> None:
    """JetStream's answer names no log: where the stream is another one, and nobody has said so, that is looked at."""

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            async with node(nats) as (engine, _):
                for number in range(5):
                    old = await engine.publish(DEN, a_publication(str(number)))
                answer = nats.ask("$JS.API.STREAM.INFO.hubbub-rooms")
                config = json.loads(answer[answer.index(b"{") :])["config"]
                nats.ask("$JS.API.STREAM.DELETE.hubbub-rooms")
                other = json.dumps({**config, "metadata": {"hubbub-epoch": "another"}})
                nats.ask("$JS.API.STREAM.CREATE.hubbub-rooms", other.encode())
                with pytest.raises(Reject) as unknown:
                    await engine.publish(DEN, a_publication("new", id="a1"))
                again = await engine.publish(DEN, a_publication("new", id="a1"))

                assert old.epoch != "another" and unknown.value.code == "internal"
                assert (again.epoch, again.seq, again.duplicate) == ("another", 1, True)

    run(main())


def test_who_resumes_on_a_node_that_is_behind_is_told_nothing_twice(tmp_path: Path) -> None:
    """What is up to a position has been told before a page behind it is given, though there is nothing in that."""

    async def main(nats: Nats) -> None:
        async with node(nats, "node.1") as (behind, ear), node(nats, "node.2") as (other, _):
            await behind.publish(LOBBY, a_publication("0"))
            live = behind._parts.listening.get(LOBBY)  # type: ignore[union-attr]  # it runs
            assert live is not None
            # From now on the bus brings it nothing, and nobody has noticed.
            behind._parts.link.unsubscribe(live.sid)  # type: ignore[union-attr]  # it runs
            last = [await other.publish(LOBBY, a_publication(text)) for text in ("1", "2", "3")][-1]
            assert last.seq is not None
            page = await behind.after(LOBBY, last.seq, 10)

            assert ear.texts() == ["0", "1", "2", "3"]
            assert page.complete and page.publications == []

    with serving_nats(tmp_path) as nats:
        run(main(nats))
