"""What the engine on NATS wants of a server, and what it makes of names, options and passwords."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest

from hubbub.core.log import HistoryLimits, Retention
from hubbub.engines.base import Accepted
from hubbub.engines.nats.engine import NatsEngine
from hubbub.errors import ConfigError, HubbubError, Reject, Unavailable
from hubbub.protocol.envelope import Member
from hubbub.testing.engines import Ear
from hubbub.testing.engines.ear import DEN, LOBBY, a_publication, contents
from hubbub.types import inbox_channel
from support.loop import PATIENCE, eventually, run
from support.nats import serving_nats
from support.nats_nodes import node
from support.publisher import Publisher


@pytest.mark.parametrize(
    ("space", "replicas", "said"),
    [("1MB", 1, "lower history_bytes"), ("1TB", 3, "set nats_replicas to 1")],
    ids=["no-space", "no-cluster"],
)
def test_what_nats_cannot_keep_is_said_at_the_start(tmp_path: Path, space: str, replicas: int, said: str) -> None:
    """Streams set aside what they may hold, on as many servers as they are wanted on."""

    async def main() -> None:
        with serving_nats(tmp_path, limit=space) as nats, pytest.raises(ConfigError, match=said):
            await NatsEngine(nats.url, replicas=replicas).start(Ear(), "node.1")

    run(main())


def test_a_stream_without_space_is_in_nobodys_way(tmp_path: Path) -> None:
    """Whoever wants it is told; when NATS has been away, everything else is there again."""
    limits = HistoryLimits(history_bytes=10_000_000)

    def retention(channel: str) -> Retention:
        usual = limits.retention(channel)
        return Retention(size=7, age=usual.age) if channel == DEN else usual

    async def main() -> None:
        with serving_nats(tmp_path, limit="35MB") as nats:
            engine, ear = NatsEngine(nats.url, limits, retention=retention), Ear()
            await engine.start(ear, "node.1")
            await engine.listen([LOBBY])
            for _ in range(2):
                await Publisher(engine).say("there")
                with pytest.raises(Unavailable, match="space"):
                    await engine.publish(DEN, a_publication("no space"))
                nats.kill()
                nats.start()
            await Publisher(engine).say("again")
            await ear.hear("again")
            await engine.stop()

    run(main(), logs_errors=True)


def test_options_may_change(tmp_path: Path) -> None:
    """The stream is changed where it is: what it has, and where everybody stands, stays."""

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            async with node(nats) as (engine, _):
                accepted = [await engine.publish(LOBBY, a_publication(str(number))) for number in range(5)]
            smaller = NatsEngine(nats.url, HistoryLimits(history_size=2))
            await smaller.start(Ear(), "node.1")
            page = await smaller.after(LOBBY, accepted[2].seq or 0, 10)
            first = await smaller.after(LOBBY, 0, 10)
            await smaller.stop()

            assert page.position.epoch == accepted[0].epoch
            assert (contents(page.publications), page.complete) == (["3", "4"], True)
            assert (contents(first.publications), first.complete) == (["3", "4"], False)

    run(main())


def test_more_may_be_kept_from_now_on(tmp_path: Path) -> None:
    """What was dropped before that is gone, and that is said."""

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            small = NatsEngine(nats.url, HistoryLimits(history_size=3))
            await small.start(Ear(), "node.1")
            old = [await small.publish(LOBBY, a_publication(str(number))) for number in range(8)]
            await small.stop()
            async with node(nats) as (engine, _):
                await engine.publish(LOBBY, a_publication("8"))
                pages = [await engine.after(LOBBY, seq, 10) for seq in (0, old[2].seq or 0, old[-1].seq or 0)]

                assert [page.complete for page in pages] == [False, False, True]
                assert contents(pages[-1].publications) == ["8"]

    run(main())


def test_what_is_too_old_is_not_shown(tmp_path: Path) -> None:
    """Though it is stored for as long as its id has to be known."""

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            engine = NatsEngine(nats.url, HistoryLimits(history_age=0.001))
            await engine.start(Ear(), "node.1")
            first = await engine.publish(LOBBY, a_publication("one", id="a1"))
            async with asyncio.timeout(PATIENCE):
                while (page := await engine.after(LOBBY, 0, 10)).publications:
                    await asyncio.sleep(0)
            again = await engine.publish(LOBBY, a_publication("one", id="a1"))
            before = await engine.before(LOBBY, None, 10)
            await engine.stop()

            assert (page.publications, page.complete, before.publications) == ([], False, [])
            assert (again.seq, again.duplicate) == (first.seq, True)

    run(main())


def test_pages_of_a_long_log_among_many(tmp_path: Path) -> None:
    """A page is found without reading the whole log, wherever the messages of the channel are in their stream."""

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            async with node(nats) as (engine, _):
                answers: list[Accepted | Exception] = []
                published = []
                for number in range(3_000):
                    # Dense at first, and then rarer and rarer.
                    busy = number < 500 or number % (number // 150) == 0
                    channel = LOBBY if busy else f"room:{number % 7}"
                    engine.submit(channel, a_publication(str(number)), False, None, answers.append)
                    published += [str(number)] * busy
                await eventually(lambda: len(answers) == 3_000)
                everything: list[str] = []
                seq = 0
                while True:
                    page = await engine.after(LOBBY, seq, 100)
                    everything += contents(page.publications)
                    if not page.more:
                        break
                    seq = page.publications[-1].seq or 0
                found: list[str] = []
                before: int | None = None
                while True:
                    page = await engine.before(LOBBY, before, 30)
                    found = contents(page.publications) + found
                    if not page.more:
                        break
                    before = page.publications[0].seq

                assert found == everything == published

    run(main())


def test_a_message_that_nats_does_not_take(tmp_path: Path) -> None:
    """It is refused with the remedy, and the connection stays."""

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            async with node(nats) as (engine, ear):
                with pytest.raises(Reject, match="max_payload") as caught:
                    await engine.publish(LOBBY, a_publication("x" * 33_554_432))
                await engine.publish(LOBBY, a_publication("one"))
                await ear.hear("one")

                assert caught.value.code == "too_large"

    run(main())


@pytest.mark.parametrize(
    ("settings", "url", "said"),
    [
        ("authorization { user: hub, password: right }\n", "nats://hub:wrong@127.0.0.1:{port}", "lets nobody in"),
        ("authorization { token: right }\n", "nats://wrong@127.0.0.1:{port}", "lets nobody in"),
        ("authorization { token: right }\n", "nats://127.0.0.1:{port}", "lets nobody in"),
        (None, "nats://127.0.0.1:{port}", "has no JetStream"),
    ],
    ids=["wrong-password", "wrong-token", "no-token", "no-jetstream"],
)
def test_what_cannot_be_used_is_said_in_a_sentence(tmp_path: Path, settings: str | None, url: str, said: str) -> None:
    """With the place, without what is secret, and with what to do."""

    async def main() -> None:
        with serving_nats(tmp_path, settings or "", jetstream=settings is not None) as nats:
            engine = NatsEngine(url.format(port=nats.port))
            with pytest.raises(HubbubError, match=said) as caught:
                await engine.start(Ear(), "node.1")

            assert f"127.0.0.1:{nats.port}" in str(caught.value)
            assert "wrong" not in str(caught.value)

    run(main())


def test_the_next_host_is_taken(tmp_path: Path) -> None:
    """At the start, and when the one that was used is gone."""

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            engine, ear = NatsEngine(f"nats://127.0.0.1:1,127.0.0.1:{nats.port},127.0.0.1:2"), Ear()
            await engine.start(ear, "node.1")
            await engine.listen([LOBBY])
            assert engine._parts is not None and engine._parts.link.connection is not None
            engine._parts.link.connection.abort("the test wants it")
            published = False
            while not published:
                try:
                    await engine.publish(LOBBY, a_publication("one", id="a1"))
                    published = True
                except Reject:
                    await engine._parts.link.loop.run_in_executor(None, nats.tell, "nothing", b"")
            await ear.hear("one")
            await engine.stop()

    run(main())


def test_names_of_any_characters(tmp_path: Path) -> None:
    """What NATS reads as a pattern or an end is part of a name like anything else."""

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            async with node(nats) as (engine, ear):
                rooms = ["*", ">", "a.b", "a b", "a=2Eb", "é", "😀" * 128, "a.*", "\\", "$JS.API.>", "_", "x" * 128]
                names = [f"room:{room}" for room in rooms]
                await engine.listen(names)
                for name, room in zip(names, rooms, strict=True):
                    await engine.publish(name, a_publication(name, id=name))

                    assert await engine.enter(name, room, "s*.1", 1, 10)
                    assert await engine.set_cursor(room, 0) == []
                for name, room in zip(names, rooms, strict=True):
                    await ear.hear(name, name)

                    assert ear.texts(name) == contents((await engine.after(name, 0, 10)).publications) == [name]
                    assert (await engine.members(name, 10))[0] == [Member(room, 1, 1)]
                await engine.publish(inbox_channel("a"), a_publication("x", id="\r\nNats-Expected-Stream: none\r\n"))

    run(main())


def test_no_more_rights_than_the_documentation_says(tmp_path: Path) -> None:
    """A user of NATS with exactly those is enough."""
    page = (Path(__file__).parents[3] / "docs/operations/nats.md").read_text(encoding="utf-8")
    ((publish, subscribe),) = re.findall(r"^publish +(.+)\nsubscribe +(.+)$", page, re.MULTILINE)
    rights = f"publish: {json.dumps(publish.split())}, subscribe: {json.dumps(subscribe.split())}"

    async def main() -> None:
        user = f"{{ user: hub, password: secret, permissions: {{ {rights} }} }}"
        with serving_nats(tmp_path, f"authorization {{ users: [{user}] }}\n") as nats:
            engine, ear = NatsEngine(f"nats://hub:secret@{nats.place}", lease=0.5), Ear()
            await engine.start(ear, "node.1")
            await engine.listen([LOBBY])
            other = NatsEngine(f"nats://hub:secret@{nats.place}", HistoryLimits(history_size=2), lease=0.5)
            await other.start(Ear(), "node.2")
            await other.enter(LOBBY, "bob", "s2", 1, 10)
            await engine.publish(LOBBY, a_publication("one", id="a1"))
            await engine.publish(LOBBY, a_publication("moment"), volatile=True)
            await engine.enter(LOBBY, "alice", "s1", 1, 10)
            await engine.set_cursor("alice", 0)
            await engine.check()
            # So that what is left of it is cleared away.
            await other.stop()
            await eventually(lambda: ear.departed)
            await engine.leave(LOBBY, "alice", "s1")
            page = await engine.before(LOBBY, None, 10)
            await ear.hear("moment")
            await engine.stop()

            assert ear.texts() == ["one", "moment"] and contents(page.publications) == ["one"]

    run(main())


def test_who_missed_nothing_goes_on_though_the_past_is_gone(tmp_path: Path) -> None:
    """JetStream cannot say so, but a node that has listened all the while knows it; one that has not is not sure."""

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            async with node(nats) as (engine, ear):
                one = await engine.publish(LOBBY, a_publication("one"))
                await engine.publish("room:den", a_publication("elsewhere"))
                nats.ask("$JS.API.STREAM.PURGE.hubbub-rooms")
                other = NatsEngine(nats.url)
                await other.start(Ear(), "node.2")
                silent = [await asking.after(LOBBY, one.seq or 0, 10) for asking in (engine, other)]
                two = await engine.publish(LOBBY, a_publication("two"))
                await other.stop()

                assert [found.complete for found in silent] == [True, False]
                assert silent[0].position.seq == one.seq
                assert two.prev == ear.told[-1].publication.prev == one.seq
                assert ear.lost_channels == []

    run(main())
