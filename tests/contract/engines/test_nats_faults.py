"""What only NATS can do to those who use it; the faults that all servers have are in test_faults."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hubbub.core import record
from hubbub.engines.nats.notes import body_of
from hubbub.errors import Reject
from hubbub.protocol.envelope import Member
from hubbub.testing.engines.ear import DEN, LOBBY, a_publication, contents
from hubbub.types import inbox_channel
from support.loop import eventually, run
from support.nats import Nats, serving_nats
from support.nats_nodes import node
from support.publisher import Publisher


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
        async with node(nats) as (behind, ear), node(nats, "node.2") as (other, _):
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
