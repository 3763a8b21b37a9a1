"""What every engine promises about publishing: order, places, retries, and who hears of it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

import msgspec
from msgspec import Raw

from hubbub.core import record
from hubbub.eager import step
from hubbub.engines.base import Accepted, Engine
from hubbub.errors import Unavailable
from hubbub.testing.engines.ear import DEN, LOBBY, Ear, a_publication, contents, raises, say
from hubbub.testing.engines.engine import OneEngine, case
from hubbub.types import Packed, Position, Publication, inbox_channel, room_channel

__all__ = ["Publishing"]

# Seconds for which a message's id is known.
_DEDUPE_WINDOW: Final = 300.0


class Publishing(OneEngine):
    """Starting, stopping, publishing and listening."""

    # ------------------------------------------------------------------------------- starting and stopping

    @case()
    async def test_a_running_engine_is_ready(self, engine: Engine, ear: Ear) -> None:
        """`check` goes the real way round, and that is clear."""
        await engine.check()

    @case()
    async def test_a_stopped_engine_is_not_ready(self, engine: Engine, ear: Ear) -> None:
        """`check` says so, and stopping twice is harmless."""
        await engine.stop()
        await engine.stop()

        await raises(Unavailable, engine.check())

    @case()
    async def test_nothing_is_told_after_stop(self, engine: Engine, ear: Ear) -> None:
        """Whatever is published then: the node that listened is gone."""
        await engine.listen([LOBBY])
        await engine.stop()
        # Or it takes nothing any more, which is as good.
        with contextlib.suppress(Unavailable):
            await say(engine, "late")

        assert ear.told == []

    @case()
    async def test_it_works_outside_any_task(self, engine: Engine, ear: Ear) -> None:
        """The hub steps coroutines until their first wait where no task is: what needs one waits for it first."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Accepted] = loop.create_future()
        tasks: list[asyncio.Task[None]] = []

        async def everything() -> None:
            await engine.listen([LOBBY])
            await engine.enter(LOBBY, "alice", "s1", 0, 10)
            await engine.members(LOBBY, 10)
            await engine.set_cursor("alice", 1)
            await engine.after(LOBBY, 0, 10)
            (accepted,) = await say(engine, "hi")
            done.set_result(accepted)

        def outside() -> None:
            assert asyncio.current_task() is None
            rest = step(everything())
            if rest is not None:
                tasks.append(loop.create_task(rest))

        loop.call_soon(outside)

        assert (await done).seq is not None

    # ---------------------------------------------------------------------------------------- publishing

    @case()
    async def test_it_is_told_as_it_was_published(self, engine: Engine, ear: Ear) -> None:
        """Every field arrives, the content digit for digit, and what comes as bytes says the same."""
        await engine.listen([LOBBY])
        content = Raw(b'{"b" : 1.0e2, "a":[ ]}')
        sent = Publication(
            "order", "alice", room="lobby", content=content, binary=True, id="a1", receipt=True, time=1766200000123
        )
        await engine.publish(LOBBY, sent, origin="s1")
        await say(engine, "last")
        await ear.hear("last")
        told = ear.told[0]
        fields = msgspec.structs.asdict(told.publication)
        expected = {**msgspec.structs.asdict(sent), "seq": told.publication.seq, "prev": told.publication.prev}

        assert bytes(fields.pop("content")) == bytes(expected.pop("content")) == bytes(content)
        assert fields == expected
        assert (told.channel, told.origin) == (LOBBY, "s1")
        assert told.encoded in (None, record.encode(told.publication))

    @case()
    async def test_content_in_messagepack_stays_as_it_is(self, engine: Engine, ear: Ear) -> None:
        """Whichever bytes it has: told and read as it was published, and of the same kind."""
        await engine.listen([LOBBY])
        content = Raw(msgspec.msgpack.encode(bytes(range(256)) * 2))
        sent = Packed("shot", "alice", room="lobby", content=content, id="a1", time=1766200000123)
        await engine.publish(LOBBY, sent)
        await say(engine, "last")
        await ear.hear("last")
        told = ear.told[0]
        (read, other) = (await engine.after(LOBBY, 0, 10)).publications

        assert type(told.publication) is type(read) is Packed and type(other) is Publication
        assert bytes(told.publication.content) == bytes(read.content) == bytes(content)
        assert record.encode(read) == record.encode(told.publication)
        assert told.encoded in (None, record.encode(told.publication))

    @case()
    async def test_who_was_not_to_be_told_is_named(self, engine: Engine, ear: Ear) -> None:
        """`origin` is the session that wants no echo; without one everyone is told."""
        await engine.listen([LOBBY])
        await engine.publish(LOBBY, a_publication("one"), origin="s1")
        await engine.publish(LOBBY, a_publication("two"))
        await ear.hear("two")

        assert [told.origin for told in ear.told] == ["s1", None]

    @case()
    async def test_each_publication_has_its_place(self, engine: Engine, ear: Ear) -> None:
        """`seq` goes up from 1 or more, in one epoch; `prev` is there exactly where it is not `seq` - 1."""
        await engine.listen([LOBBY])
        accepted = await say(engine, "one", "two", "three")
        await ear.hear("three")
        publications = [told.publication for told in ear.told]
        before = 0
        for publication, place in zip(publications, accepted, strict=True):
            assert publication.seq == place.seq
            assert publication.seq is not None
            assert publication.seq > before
            assert publication.prev == (None if before == publication.seq - 1 else before)
            before = publication.seq

        assert len({place.epoch for place in accepted}) == 1
        assert await engine.position(LOBBY) == Position(accepted[-1].epoch, before)

    @case()
    async def test_publications_of_one_channel_are_told_in_order(self, engine: Engine, ear: Ear) -> None:
        """However many publish at once: each is told once, by `seq`, and read in the same order."""
        await engine.listen([LOBBY])
        texts = [str(number) for number in range(100)]
        await asyncio.gather(*(say(engine, text) for text in texts))
        for text in texts:
            await ear.hear(text)
        seqs = [told.publication.seq or 0 for told in ear.told]
        page = await engine.after(LOBBY, 0, 1000)

        assert seqs == sorted(set(seqs))
        assert sorted(ear.texts()) == sorted(texts)
        assert contents(page.publications) == ear.texts()

    @case()
    async def test_one_who_publishes_in_order_is_told_in_order(self, engine: Engine, ear: Ear) -> None:
        """What was acknowledged before the next was published comes before it."""
        await engine.listen([LOBBY])
        texts = [str(number) for number in range(20)]
        await say(engine, *texts)
        await ear.hear(texts[-1])

        assert ear.texts() == texts

    @case()
    async def test_channels_are_apart(self, engine: Engine, ear: Ear) -> None:
        """Each has its own log and its own listeners, and rooms and inboxes of one name are not the same."""
        await engine.listen([LOBBY])
        inbox = inbox_channel("lobby")
        await say(engine, "den", channel=DEN)
        await say(engine, "inbox", channel=inbox)
        await say(engine, "lobby")
        await ear.hear("lobby")

        assert [told.text for told in ear.told] == ["lobby"]
        assert contents((await engine.after(DEN, 0, 10)).publications) == ["den"]
        assert contents((await engine.after(inbox, 0, 10)).publications) == ["inbox"]

    @case()
    async def test_what_nobody_hears_is_kept(self, engine: Engine, ear: Ear) -> None:
        """An inbox waits for its user: publishing needs no listener."""
        await say(engine, "for later", channel=inbox_channel("alice"))
        page = await engine.after(inbox_channel("alice"), 0, 10)

        assert contents(page.publications) == ["for later"]

    @case()
    async def test_publishing_now_is_publishing(self, engine: Engine, ear: Ear) -> None:
        """`publish_now` does the same where it need not wait, and nothing where it would have to."""
        await engine.listen([LOBBY])
        (first,) = await say(engine, "one")
        now = engine.publish_now(LOBBY, a_publication("two", id="a1"), False, "s1")
        retry = engine.publish_now(LOBBY, a_publication("two", id="a1"), False, None)
        moment = engine.publish_now(LOBBY, a_publication("moment"), True, None)
        (last,) = await say(engine, "three")
        await ear.hear("three")
        kept = ["one", "three"] if now is None else ["one", "two", "three"]
        if now is not None:
            assert retry is not None
            assert (now.epoch, now.duplicate) == (first.epoch, False)
            assert (retry.seq, retry.duplicate) == (now.seq, True)
            assert (first.seq or 0) < (now.seq or 0) < (last.seq or 0)
            assert ear.told[1].origin == "s1"

        assert ear.texts() == (kept if moment is None else [*kept[:-1], "moment", kept[-1]])
        assert moment is None or moment.seq is None
        assert contents((await engine.after(LOBBY, 0, 10)).publications) == kept

    @case()
    async def test_what_is_submitted_is_published(self, engine: Engine, ear: Ear) -> None:
        """In the order of the calls, and so it is answered; a volatile one keeps its place among the others."""
        await engine.listen([LOBBY])
        answers: list[Accepted | Exception] = []
        for text, volatile, id in (
            ("one", False, None),
            ("moment", True, None),
            ("two", False, "a1"),
            ("two", False, "a1"),
            ("three", False, None),
        ):
            engine.submit(LOBBY, a_publication(text, id=id), volatile, "s1", answers.append)
        await say(engine, "last")
        await ear.hear("last")
        accepted = [answer for answer in answers if isinstance(answer, Accepted)]

        assert ear.texts() == ["one", "moment", "two", "three", "last"]
        assert [told.origin for told in ear.told] == ["s1"] * 4 + [None]
        assert [answer.duplicate for answer in accepted] == [False, False, False, True, False]
        assert [answer.seq is None for answer in accepted] == [False, True, False, False, False]
        assert accepted[3].seq == accepted[2].seq

    @case()
    async def test_what_was_read_has_been_told(self, engine: Engine, ear: Ear) -> None:
        """Whoever reads and then listens gets nothing twice: what is in a page is never told after it."""
        await engine.listen([LOBBY])
        publishing = asyncio.gather(
            *(say(engine, *(f"{writer}-{number}" for number in range(50))) for writer in "abcd")
        )
        while not publishing.done():
            page = await engine.after(LOBBY, 0, 1000)
            read = contents(page.publications)

            assert ear.texts()[: len(read)] == read
            assert page.position == (await engine.position(LOBBY))._replace(seq=page.position.seq)
            await asyncio.sleep(0)
        await publishing

    # ------------------------------------------------------------------------------------------ retries

    @case()
    async def test_a_retry_is_answered_as_before(self, engine: Engine, ear: Ear) -> None:
        """The same (`from`, `id`): the place of the first, and neither kept nor told again."""
        await engine.listen([LOBBY])
        first = await engine.publish(LOBBY, a_publication("one", id="a1"))
        retry = await engine.publish(LOBBY, a_publication("one", id="a1"))
        await say(engine, "two")
        await ear.hear("two")

        assert (first.duplicate, retry.duplicate) == (False, True)
        assert (retry.epoch, retry.seq) == (first.epoch, first.seq)
        assert ear.texts() == ["one", "two"]
        assert contents((await engine.after(LOBBY, 0, 10)).publications) == ["one", "two"]

    @case()
    async def test_retries_at_once_are_one(self, engine: Engine, ear: Ear) -> None:
        """Checking and appending are one step: of ten at the same time one is new."""
        retries = [engine.publish(LOBBY, a_publication("one", id="a1")) for _ in range(10)]
        accepted = await asyncio.gather(*retries)

        assert sorted(place.duplicate for place in accepted) == [False] + [True] * 9
        assert len({place.seq for place in accepted}) == 1
        assert contents((await engine.after(LOBBY, 0, 10)).publications) == ["one"]

    @case()
    async def test_an_id_belongs_to_its_sender_and_its_channel(self, engine: Engine, ear: Ear) -> None:
        """Another user's, another channel's and no id at all are never a retry."""
        accepted = [
            await engine.publish(LOBBY, a_publication("one", id="a1")),
            await engine.publish(LOBBY, a_publication("two", id="a1", from_="bob")),
            await engine.publish(DEN, a_publication("three", id="a1")),
            await engine.publish(LOBBY, a_publication("four", id="a2")),
            await engine.publish(LOBBY, a_publication("five")),
            await engine.publish(LOBBY, a_publication("five")),
        ]

        assert not any(place.duplicate for place in accepted)

    @case()
    async def test_what_was_accepted_can_be_asked(self, engine: Engine, ear: Ear) -> None:
        """`accepted` says what `publish` would say to a retry, without publishing anything."""
        place = await engine.publish(LOBBY, a_publication("one", id="a1"))
        asked = await engine.accepted(LOBBY, "alice", "a1")

        assert asked is not None
        assert (asked.epoch, asked.seq, asked.duplicate) == (place.epoch, place.seq, True)
        assert await engine.accepted(LOBBY, "alice", "a2") is None
        assert await engine.accepted(LOBBY, "bob", "a1") is None
        assert await engine.accepted(DEN, "alice", "a1") is None

    @case()
    async def test_ids_are_known_for_five_minutes(self, engine: Engine, ear: Ear) -> None:
        """So long a client may repeat itself; afterwards the same id is a new message."""
        await engine.publish(LOBBY, a_publication("one", id="a1"))
        await self.time_passes(engine, _DEDUPE_WINDOW - 1)
        in_time = await engine.publish(LOBBY, a_publication("one", id="a1"))
        await self.time_passes(engine, 2)
        forgotten = await engine.accepted(LOBBY, "alice", "a1")
        too_late = await engine.publish(LOBBY, a_publication("one", id="a1"))

        assert in_time.duplicate
        assert forgotten is None
        assert not too_late.duplicate

    # ----------------------------------------------------------------------------------------- volatile

    @case()
    async def test_volatile_ones_are_told_and_forgotten(self, engine: Engine, ear: Ear) -> None:
        """No place, no log, no retries known; among the others they keep their order."""
        await engine.listen([LOBBY])
        await say(engine, "one")
        for _ in range(2):
            accepted = await engine.publish(LOBBY, a_publication("moment", id="a1"), volatile=True, origin="s1")

            assert accepted.seq is None
            assert not accepted.duplicate
        (last,) = await say(engine, "two")
        await ear.hear("two")
        moments = [told for told in ear.told if told.text == "moment"]

        assert ear.texts() == ["one", "moment", "moment", "two"]
        assert [(told.publication.seq, told.origin) for told in moments] == [(None, "s1")] * 2
        assert contents((await engine.after(LOBBY, 0, 10)).publications) == ["one", "two"]
        assert await engine.position(LOBBY) == Position(last.epoch, last.seq or 0)
        assert await engine.accepted(LOBBY, "alice", "a1") is None

    # ----------------------------------------------------------------------------------------- listening

    @case()
    async def test_from_listen_on_nothing_is_missed(self, engine: Engine, ear: Ear) -> None:
        """What is published after `listen` has returned is told; several channels at once are fine."""
        await say(engine, "before")
        await engine.listen([LOBBY, DEN])
        await engine.listen([LOBBY])
        await say(engine, "after")
        await say(engine, "after", channel=DEN)
        await ear.hear("after")
        await ear.hear("after", DEN)

        assert ear.texts() == ["after"]

    @case()
    async def test_who_stops_listening_is_left_in_peace(self, engine: Engine, ear: Ear) -> None:
        """A few may still come, a thousand may not; channels that one still listens to go on."""
        await engine.listen([LOBBY, DEN])
        await engine.unlisten([LOBBY, room_channel("never listened to")])
        for _ in range(10):
            await asyncio.gather(*(say(engine, "unheard") for _ in range(100)))
        await say(engine, "heard", channel=DEN)
        await ear.hear("heard", DEN)

        assert len(ear.texts()) < 1000

    @case()
    async def test_listening_again_hears_again(self, engine: Engine, ear: Ear) -> None:
        """And what was written meanwhile is in the log."""
        await engine.listen([LOBBY])
        await engine.unlisten([LOBBY])
        await say(engine, "meanwhile")
        await engine.listen([LOBBY])
        await say(engine, "again")
        await ear.hear("again")

        assert contents((await engine.after(LOBBY, 0, 10)).publications) == ["meanwhile", "again"]
