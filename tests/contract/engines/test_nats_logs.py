"""What stands in the way of a log in NATS, and what is owed: large messages, garbage, old ones, lost answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hubbub.core.log import HistoryLimits
from hubbub.engines.base import Accepted
from hubbub.engines.nats.engine import NatsEngine
from hubbub.errors import Unavailable
from hubbub.testing.engines import Ear
from hubbub.testing.engines.ear import DEN, LOBBY, a_publication, contents
from hubbub.types import inbox_channel
from support.loop import PATIENCE, run
from support.nats import serving_nats
from support.nats_nodes import node

# More than one answer of JetStream brings beside another one.
LARGE = "x" * 300_000


def test_what_is_large_hides_nothing_behind_it(tmp_path: Path) -> None:
    """From wherever one reads, each page has something, until there is no more."""

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            async with node(nats) as (engine, _):
                texts = [str(number) + LARGE for number in range(4)]
                places = [(await engine.publish(LOBBY, a_publication(text))).seq or 0 for text in texts]
                for start, seq in enumerate([0, *places]):
                    read: list[str] = []
                    while True:
                        page = await engine.after(LOBBY, seq, 10)
                        read += contents(page.publications)

                        assert page.complete and (page.publications or not page.more)
                        if not page.more:
                            break
                        seq = page.publications[-1].seq or 0
                    assert read == texts[start:]

    run(main())


def test_many_may_read_what_is_large(tmp_path: Path) -> None:
    """NATS cuts off whoever has asked for more than it keeps for one connection; who has read nothing large, too."""

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            async with node(nats) as (engine, _), node(nats, "node.2") as (other, _):
                rooms = [f"room:{number}" for number in range(6)]
                await asyncio.gather(*(other.after(room, 0, 10) for room in rooms * 20))
                for room in rooms:
                    await engine.publish(room, a_publication("x" * 12_000_000))
                assert other._parts is not None
                connection = other._parts.link.connection
                pages = await asyncio.gather(*(other.after(room, 0, 10) for room in rooms))

                assert all(len(page.publications) == 1 for page in pages)
                assert other._parts.link.connection is connection

    run(main())


def test_a_stream_takes_what_is_large_when_it_comes(tmp_path: Path) -> None:
    """Behind what came before it; also where somebody else has changed that since."""

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            async with node(nats) as (engine, ear):
                await asyncio.gather(*(engine.publish(LOBBY, a_publication(text)) for text in ("a", LARGE, "b")))
                found = json.loads(nats.ask("$JS.API.STREAM.INFO.hubbub-rooms").partition(b"\r\n")[2])
                changed = {**found["config"], "max_msg_size": 262_144}
                nats.ask("$JS.API.STREAM.UPDATE.hubbub-rooms", json.dumps(changed).encode())
                with pytest.raises(Unavailable):
                    await engine.publish(LOBBY, a_publication(LARGE))
                await engine.publish(LOBBY, a_publication(LARGE))

                assert ear.texts() == ["a", LARGE, "b", LARGE]

    run(main())


def test_one_too_many_is_not_shown_however_large(tmp_path: Path) -> None:
    """The oldest of all is there to tell that something was dropped, and for nothing else."""

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            engine = NatsEngine(nats.url, HistoryLimits(history_size=2))
            await engine.start(Ear(), "node.1")
            try:
                for number in range(5):
                    await engine.publish(LOBBY, a_publication(str(number) + LARGE))
                page = await engine.after(LOBBY, 0, 10)
                rest = await engine.after(LOBBY, page.publications[-1].seq or 0, 10)

                assert [text[0] for text in contents([*page.publications, *rest.publications])] == ["3", "4"]
                assert (page.complete, rest.complete) == (False, True)
            finally:
                await engine.stop()

    run(main())


def test_a_gap_behind_something_large_is_filled(tmp_path: Path) -> None:
    """Though that is all that the first reading brings."""

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            async with node(nats) as (engine, ear), node(nats) as (other, _):
                await other.publish(LOBBY, a_publication(LARGE))
                await ear.hear(LARGE)
                with deaf(engine):
                    for number in range(5):
                        await other.publish(LOBBY, a_publication(str(number)))
                await other.publish(LOBBY, a_publication("last"))
                await ear.hear("last")

                assert ear.texts() == [LARGE, "0", "1", "2", "3", "4", "last"]
                assert ear.lost_channels == []

    run(main())


@contextlib.contextmanager
def deaf(engine: NatsEngine) -> Iterator[None]:
    """Lose what the bus brings to the lobby."""
    assert engine._parts is not None
    live = engine._parts.listening.get(LOBBY)
    assert live is not None
    heard = type(live).heard
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(live), "heard", lambda self, note: None if self is live else heard(self, note))
        yield


@pytest.mark.parametrize("count", [1, 210])
def test_garbage_in_a_log_is_passed_over(tmp_path: Path, count: int) -> None:
    """More than a page of it, too; nobody is told of it, and nobody waits for it."""

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            async with node(nats) as (engine, ear):
                first = await engine.publish(LOBBY, a_publication("one"))
                assert engine._parts is not None
                subject = engine._parts.publishing._places.of(LOBBY).subject
                for _ in range(count):
                    nats.tell(subject, b"garbage")
                async with asyncio.timeout(PATIENCE):
                    end = await engine.position(LOBBY)
                    await engine.publish(LOBBY, a_publication("two"))
                page = await engine.after(LOBBY, first.seq or 0, 10)

                assert end.seq > (first.seq or 0)
                assert ear.texts() == ["one", "two"]
                assert (contents(page.publications), page.more) == (["two"], False)

    run(main(), logs_errors=True)


def test_what_is_too_old_is_in_nobodys_way(tmp_path: Path) -> None:
    """More than a page of what is stored for its ids alone: what is younger is found behind it."""

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            engine, ear = NatsEngine(nats.url, HistoryLimits(history_age=0.5)), Ear()
            await engine.start(ear, "node.1")
            try:
                await asyncio.gather(*(engine.publish(LOBBY, a_publication(str(number))) for number in range(250)))
                async with asyncio.timeout(PATIENCE):
                    while (await engine.after(LOBBY, 0, 10)).publications:
                        await asyncio.sleep(0.01)
                await engine.publish(LOBBY, a_publication("young"))
                page = await engine.after(LOBBY, 0, 10)

                assert (contents(page.publications), page.complete, page.more) == (["young"], False, False)
            finally:
                await engine.stop()

    run(main())


@pytest.mark.parametrize("how", ["cut", "cancelled"])
def test_a_receipt_is_owed_until_it_is_given(tmp_path: Path, how: str) -> None:
    """The cursor was moved, and nobody was told so: whoever asks again gets what it had passed, once."""

    async def main() -> None:
        inbox = inbox_channel("alice")
        with serving_nats(tmp_path) as nats:
            async with node(nats) as (engine, _):
                asked = a_publication("hi", id="a1")
                asked.receipt = True
                accepted = await engine.publish(inbox, asked)
                assert engine._parts is not None
                link = engine._parts.link
                moving = asyncio.ensure_future(engine.set_cursor("alice", accepted.seq or 0))
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(link, "call", partial(_lose, link, link.call, moving if how == "cancelled" else None))
                    with pytest.raises((Unavailable, asyncio.CancelledError)):
                        await moving
                async with asyncio.timeout(PATIENCE):
                    while await _cursor(engine) != accepted.seq:
                        await asyncio.sleep(0.01)
                again = await engine.set_cursor("alice", accepted.seq or 0)
                once_more = await engine.set_cursor("alice", accepted.seq or 0)

                assert contents(again or []) == ["hi"] and once_more == []

    run(main())


async def _lose(
    link: Any, call: Any, moving: asyncio.Future[Any] | None, subject: str, *args: Any, **kwargs: Any
) -> Any:
    """Ask, and never hear the answer."""
    answer = await call(subject, *args, **kwargs)
    if ".cursors." not in subject:
        return answer
    if moving is None:
        link.connection.abort("by the test")
        raise TimeoutError
    moving.cancel()
    await asyncio.sleep(0)
    return answer


async def _cursor(engine: NatsEngine) -> int | None:
    try:
        return await engine.cursor("alice")
    except Unavailable:
        return None


def test_answers_come_in_the_order_of_asking(tmp_path: Path) -> None:
    """Also that to a retry, whose message was told long ago: those before it wait for the log."""

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            async with node(nats) as (engine, ear):
                await engine.publish(LOBBY, a_publication("old", id="o"))
                outcomes: list[tuple[str, Accepted | Exception]] = []
                with deaf(engine):
                    for text, id in (("a", "1"), ("old", "o"), ("b", "2")):
                        done = partial(_note, outcomes, text)
                        engine.submit(LOBBY, a_publication(text, id=id), False, None, done)
                    async with asyncio.timeout(PATIENCE):
                        while len(outcomes) < 3:
                            await asyncio.sleep(0.01)

                assert [text for text, _ in outcomes] == ["a", "old", "b"]
                assert [isinstance(outcome, Accepted) and outcome.duplicate for _, outcome in outcomes] == [
                    False,
                    True,
                    False,
                ]
                assert ear.texts() == ["old", "a", "b"]

    run(main())


def _note(outcomes: list[tuple[str, Accepted | Exception]], text: str, outcome: Accepted | Exception) -> None:
    outcomes.append((text, outcome))


def test_a_listen_that_is_given_up_leaves_nothing_behind(tmp_path: Path) -> None:
    """A channel that was about to be left is left all the same."""

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            async with node(nats) as (engine, _):
                assert engine._parts is not None
                listening = engine._parts.listening
                await engine.unlisten([LOBBY])
                trying = asyncio.ensure_future(engine.listen([LOBBY, DEN]))
                while DEN not in listening._live:
                    await asyncio.sleep(0)
                trying.cancel()
                await asyncio.gather(trying, return_exceptions=True)
                async with asyncio.timeout(PATIENCE):
                    while LOBBY in listening._live or DEN in listening._live:
                        await asyncio.sleep(0.01)

    run(main())


@pytest.mark.parametrize("way", ["after", "before"])
def test_a_page_is_of_one_log(tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its stream becomes another one between two questions: no place in the old one is taken for one in the new."""

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            async with node(nats) as (engine, _):
                old = [await engine.publish(DEN, a_publication(str(number))) for number in range(5)]
                assert engine._parts is not None
                streams, read = engine._parts.streams, getattr(engine._parts.reader, way)

                async def meanwhile(*asked: Any) -> Any:
                    monkeypatch.undo()
                    # Where the old one ends is known when this has its answer.
                    await read(*asked)
                    nats.empty()
                    await streams.look_at_all()
                    await engine.publish(DEN, a_publication("new"))
                    return await read(*asked)

                monkeypatch.setattr(engine._parts.reader, way, meanwhile)
                page = await (engine.after(DEN, 0, 10) if way == "after" else engine.before(DEN, None, 10))

                assert page.position.epoch != old[0].epoch
                assert (contents(page.publications), page.position.seq) == (["new"], 1)

    run(main(), logs_errors=True)
