"""The engine contract as tests: whoever writes an engine subclasses `EngineContract` and runs pytest.

Each promise in the docstrings of `hubbub.engines.base` is a test here. A test that an engine cannot take, because
its clock cannot be turned or it serves one process, is skipped and says so.

    import pytest

    pytest.register_assert_rewrite("hubbub.testing.engines")  # failed asserts then show their values

    from hubbub.testing.engines import EngineContract

    class TestMyEngine(EngineContract):
        def engine(self, keep: int = 1000) -> Engine:
            return MyEngine(history_size=keep)

No plugin is needed: each test is a plain method that runs its own event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import unittest
from collections.abc import Awaitable, Callable, Sequence

import msgspec
from msgspec import Raw, Struct

from hubbub.eager import step
from hubbub.engines.base import Accepted, Engine
from hubbub.errors import RoomFull, Unavailable
from hubbub.protocol import json
from hubbub.protocol.envelope import Member
from hubbub.types import Position, Publication, inbox_channel, room_channel

__all__ = ["Ear", "EngineContract", "Told"]

# Seconds for what should happen at once, also where it goes over a network.
_PATIENCE = 10.0

# Seconds for which a message's id is known.
_DEDUPE_WINDOW = 300.0

# Longer than anything is kept.
_AGES = 60 * 86_400.0

LOBBY = room_channel("lobby")
DEN = room_channel("den")


class Told(Struct, frozen=True):
    """One call of the listener."""

    channel: str
    publication: Publication
    origin: str | None
    encoded: bytes | None

    @property
    def text(self) -> str:
        """The content, which in these tests is a string."""
        return _text(self.publication)


class Ear:
    """A listener that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self._changed = asyncio.Event()

    def publication(self, channel: str, publication: Publication, origin: str | None, encoded: bytes | None) -> None:
        """See `hubbub.engines.base.Listener`."""
        self.told.append(Told(channel, publication, origin, encoded))
        self._changed.set()

    def texts(self, channel: str = LOBBY) -> list[str]:
        """What came into `channel`, in order."""
        return [told.text for told in self.told if told.channel == channel]

    async def hear(self, text: str, channel: str = LOBBY) -> None:
        """Wait until `text` has come into `channel`."""
        async with asyncio.timeout(_PATIENCE):
            while text not in self.texts(channel):
                self._changed.clear()
                await self._changed.wait()


def _case(test: Callable[[EngineContract, Engine, Ear], Awaitable[None]]) -> Callable[[EngineContract], None]:
    """A test on an engine that runs, in an event loop of its own."""

    def run(contract: EngineContract) -> None:
        asyncio.run(contract._run(test))

    # Not functools.wraps: pytest would take the arguments of what is wrapped for fixtures.
    run.__name__, run.__qualname__, run.__doc__ = test.__name__, test.__qualname__, test.__doc__
    return run


class EngineContract:
    """The tests of one engine; a subclass named `Test…` says how to make it."""

    # ------------------------------------------------------------------------------ for subclasses

    def engine(self, keep: int = 1000) -> Engine:
        """A new engine that has not been started, with nothing in it, which keeps `keep` publications a channel."""
        raise NotImplementedError("a subclass says how its engine is made")

    def peer(self, engine: Engine) -> Engine:
        """An engine on the same channels as `engine`, as another node has it; only where it is `shared`."""
        raise NotImplementedError("an engine that is shared needs to be tested from two nodes")

    async def time_passes(self, engine: Engine, seconds: float) -> None:
        """Let `seconds` pass for `engine`, so that it forgets what it would forget by then."""
        raise unittest.SkipTest("the clock of this engine cannot be turned")

    # ------------------------------------------------------------------------------- starting and stopping

    @_case
    async def test_a_running_engine_is_ready(self, engine: Engine, ear: Ear) -> None:
        """`check` goes the real way round, and that is clear."""
        await engine.check()

    @_case
    async def test_a_stopped_engine_is_not_ready(self, engine: Engine, ear: Ear) -> None:
        """`check` says so, and stopping twice is harmless."""
        await engine.stop()
        await engine.stop()

        await _raises(Unavailable, engine.check())

    @_case
    async def test_nothing_is_told_after_stop(self, engine: Engine, ear: Ear) -> None:
        """Whatever is published then: the node that listened is gone."""
        await engine.listen([LOBBY])
        await engine.stop()
        # Or it takes nothing any more, which is as good.
        with contextlib.suppress(Unavailable):
            await _say(engine, "late")

        assert ear.told == []

    @_case
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
            (accepted,) = await _say(engine, "hi")
            done.set_result(accepted)

        def outside() -> None:
            assert asyncio.current_task() is None
            rest = step(everything())
            if rest is not None:
                tasks.append(loop.create_task(rest))

        loop.call_soon(outside)

        assert (await done).seq is not None

    # ---------------------------------------------------------------------------------------- publishing

    @_case
    async def test_it_is_told_as_it_was_published(self, engine: Engine, ear: Ear) -> None:
        """Every field arrives, the content digit for digit, and what comes as bytes says the same."""
        await engine.listen([LOBBY])
        content = Raw(b'{"b" : 1.0e2, "a":[ ]}')
        sent = Publication(
            "order", "alice", room="lobby", content=content, binary=True, id="a1", receipt=True, time=1766200000123
        )
        await engine.publish(LOBBY, sent, origin="s1")
        await _say(engine, "last")
        await ear.hear("last")
        told = ear.told[0]
        fields = msgspec.structs.asdict(told.publication)
        expected = {**msgspec.structs.asdict(sent), "seq": told.publication.seq, "prev": told.publication.prev}

        assert bytes(fields.pop("content")) == bytes(expected.pop("content")) == bytes(content)
        assert fields == expected
        assert (told.channel, told.origin) == (LOBBY, "s1")
        assert told.encoded in (None, json.encode(told.publication))

    @_case
    async def test_who_was_not_to_be_told_is_named(self, engine: Engine, ear: Ear) -> None:
        """`origin` is the session that wants no echo; without one everyone is told."""
        await engine.listen([LOBBY])
        await engine.publish(LOBBY, _publication("one"), origin="s1")
        await engine.publish(LOBBY, _publication("two"))
        await ear.hear("two")

        assert [told.origin for told in ear.told] == ["s1", None]

    @_case
    async def test_each_publication_has_its_place(self, engine: Engine, ear: Ear) -> None:
        """`seq` goes up from 1 or more, in one epoch; `prev` is there exactly where it is not `seq` - 1."""
        await engine.listen([LOBBY])
        accepted = await _say(engine, "one", "two", "three")
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

    @_case
    async def test_publications_of_one_channel_are_told_in_order(self, engine: Engine, ear: Ear) -> None:
        """However many publish at once: each is told once, by `seq`, and read in the same order."""
        await engine.listen([LOBBY])
        texts = [str(number) for number in range(100)]
        await asyncio.gather(*(_say(engine, text) for text in texts))
        for text in texts:
            await ear.hear(text)
        seqs = [told.publication.seq or 0 for told in ear.told]
        page = await engine.after(LOBBY, 0, 1000)

        assert seqs == sorted(set(seqs))
        assert sorted(ear.texts()) == sorted(texts)
        assert _texts(page.publications) == ear.texts()

    @_case
    async def test_one_who_publishes_in_order_is_told_in_order(self, engine: Engine, ear: Ear) -> None:
        """What was acknowledged before the next was published comes before it."""
        await engine.listen([LOBBY])
        texts = [str(number) for number in range(20)]
        await _say(engine, *texts)
        await ear.hear(texts[-1])

        assert ear.texts() == texts

    @_case
    async def test_channels_are_apart(self, engine: Engine, ear: Ear) -> None:
        """Each has its own log and its own listeners, and rooms and inboxes of one name are not the same."""
        await engine.listen([LOBBY])
        inbox = inbox_channel("lobby")
        await _say(engine, "den", channel=DEN)
        await _say(engine, "inbox", channel=inbox)
        await _say(engine, "lobby")
        await ear.hear("lobby")

        assert [told.text for told in ear.told] == ["lobby"]
        assert _texts((await engine.after(DEN, 0, 10)).publications) == ["den"]
        assert _texts((await engine.after(inbox, 0, 10)).publications) == ["inbox"]

    @_case
    async def test_what_nobody_hears_is_kept(self, engine: Engine, ear: Ear) -> None:
        """An inbox waits for its user: publishing needs no listener."""
        await _say(engine, "for later", channel=inbox_channel("alice"))
        page = await engine.after(inbox_channel("alice"), 0, 10)

        assert _texts(page.publications) == ["for later"]

    @_case
    async def test_publishing_now_is_publishing(self, engine: Engine, ear: Ear) -> None:
        """`publish_now` does the same where it need not wait, and nothing where it would have to."""
        await engine.listen([LOBBY])
        (first,) = await _say(engine, "one")
        now = engine.publish_now(LOBBY, _publication("two", id="a1"), False, "s1")
        retry = engine.publish_now(LOBBY, _publication("two", id="a1"), False, None)
        moment = engine.publish_now(LOBBY, _publication("moment"), True, None)
        (last,) = await _say(engine, "three")
        await ear.hear("three")
        if now is None:
            expected = ["one", "three"]
        else:
            assert retry is not None
            assert moment is not None
            assert (now.epoch, now.duplicate) == (first.epoch, False)
            assert (retry.seq, retry.duplicate) == (now.seq, True)
            assert moment.seq is None
            assert (first.seq or 0) < (now.seq or 0) < (last.seq or 0)
            assert ear.told[1].origin == "s1"
            expected = ["one", "two", "moment", "three"]

        assert ear.texts() == expected
        assert _texts((await engine.after(LOBBY, 0, 10)).publications) == [
            text for text in expected if text != "moment"
        ]

    # ------------------------------------------------------------------------------------------ retries

    @_case
    async def test_a_retry_is_answered_as_before(self, engine: Engine, ear: Ear) -> None:
        """The same (`from`, `id`): the place of the first, and neither kept nor told again."""
        await engine.listen([LOBBY])
        first = await engine.publish(LOBBY, _publication("one", id="a1"))
        retry = await engine.publish(LOBBY, _publication("one", id="a1"))
        await _say(engine, "two")
        await ear.hear("two")

        assert (first.duplicate, retry.duplicate) == (False, True)
        assert (retry.epoch, retry.seq) == (first.epoch, first.seq)
        assert ear.texts() == ["one", "two"]
        assert _texts((await engine.after(LOBBY, 0, 10)).publications) == ["one", "two"]

    @_case
    async def test_retries_at_once_are_one(self, engine: Engine, ear: Ear) -> None:
        """Checking and appending are one step: of ten at the same time one is new."""
        retries = [engine.publish(LOBBY, _publication("one", id="a1")) for _ in range(10)]
        accepted = await asyncio.gather(*retries)

        assert sorted(place.duplicate for place in accepted) == [False] + [True] * 9
        assert len({place.seq for place in accepted}) == 1
        assert _texts((await engine.after(LOBBY, 0, 10)).publications) == ["one"]

    @_case
    async def test_an_id_belongs_to_its_sender_and_its_channel(self, engine: Engine, ear: Ear) -> None:
        """Another user's, another channel's and no id at all are never a retry."""
        accepted = [
            await engine.publish(LOBBY, _publication("one", id="a1")),
            await engine.publish(LOBBY, _publication("two", id="a1", from_="bob")),
            await engine.publish(DEN, _publication("three", id="a1")),
            await engine.publish(LOBBY, _publication("four", id="a2")),
            await engine.publish(LOBBY, _publication("five")),
            await engine.publish(LOBBY, _publication("five")),
        ]

        assert not any(place.duplicate for place in accepted)

    @_case
    async def test_what_was_accepted_can_be_asked(self, engine: Engine, ear: Ear) -> None:
        """`accepted` says what `publish` would say to a retry, without publishing anything."""
        place = await engine.publish(LOBBY, _publication("one", id="a1"))
        asked = await engine.accepted(LOBBY, "alice", "a1")

        assert asked is not None
        assert (asked.epoch, asked.seq, asked.duplicate) == (place.epoch, place.seq, True)
        assert await engine.accepted(LOBBY, "alice", "a2") is None
        assert await engine.accepted(LOBBY, "bob", "a1") is None
        assert await engine.accepted(DEN, "alice", "a1") is None

    @_case
    async def test_ids_are_known_for_five_minutes(self, engine: Engine, ear: Ear) -> None:
        """So long a client may repeat itself; afterwards the same id is a new message."""
        await engine.publish(LOBBY, _publication("one", id="a1"))
        await self.time_passes(engine, _DEDUPE_WINDOW - 1)
        in_time = await engine.publish(LOBBY, _publication("one", id="a1"))
        await self.time_passes(engine, 2)
        forgotten = await engine.accepted(LOBBY, "alice", "a1")
        too_late = await engine.publish(LOBBY, _publication("one", id="a1"))

        assert in_time.duplicate
        assert forgotten is None
        assert not too_late.duplicate

    # ----------------------------------------------------------------------------------------- volatile

    @_case
    async def test_volatile_ones_are_told_and_forgotten(self, engine: Engine, ear: Ear) -> None:
        """No place, no log, no retries known; among the others they keep their order."""
        await engine.listen([LOBBY])
        await _say(engine, "one")
        for _ in range(2):
            accepted = await engine.publish(LOBBY, _publication("moment", id="a1"), volatile=True, origin="s1")

            assert accepted.seq is None
            assert not accepted.duplicate
        (last,) = await _say(engine, "two")
        await ear.hear("two")
        moments = [told for told in ear.told if told.text == "moment"]

        assert ear.texts() == ["one", "moment", "moment", "two"]
        assert [(told.publication.seq, told.origin) for told in moments] == [(None, "s1")] * 2
        assert _texts((await engine.after(LOBBY, 0, 10)).publications) == ["one", "two"]
        assert await engine.position(LOBBY) == Position(last.epoch, last.seq or 0)
        assert await engine.accepted(LOBBY, "alice", "a1") is None

    # ------------------------------------------------------------------------------------------- reading

    @_case
    async def test_a_channel_that_nobody_wrote_to_is_at_0(self, engine: Engine, ear: Ear) -> None:
        """It is whole, with nothing in it; a position beyond that is of another log."""
        await engine.listen([LOBBY])
        position = await engine.position(LOBBY)
        page = await engine.after(LOBBY, 0, 10)
        before = await engine.before(LOBBY, None, 10)
        beyond = await engine.after(LOBBY, 5, 10)
        (first,) = await _say(engine, "one")

        assert position.seq == 0
        assert (page.publications, page.position, page.complete, page.more) == ([], position, True, False)
        assert (before.publications, before.more) == ([], False)
        assert not beyond.complete
        assert first.epoch == position.epoch

    @_case
    async def test_pages_forward_make_the_whole_log(self, engine: Engine, ear: Ear) -> None:
        """Oldest first, each after the last one's end, whole; `more` says that another follows."""
        texts = [str(number) for number in range(10)]
        accepted = await _say(engine, *texts)
        end = Position(accepted[-1].epoch, accepted[-1].seq or 0)
        seq, pages = 0, list[list[str]]()
        for more in (True, True, True, False):
            page = await engine.after(LOBBY, seq, 3)
            pages.append(_texts(page.publications))
            seq = page.publications[-1].seq or 0

            assert (page.position, page.complete, page.more) == (end, True, more)

        assert pages == [texts[0:3], texts[3:6], texts[6:9], texts[9:]]
        assert await _after(engine, end.seq) == ([], True, False)

    @_case
    async def test_a_page_that_fits_exactly_has_no_more(self, engine: Engine, ear: Ear) -> None:
        """`more` is about what is there, not about a full page."""
        await _say(engine, "one", "two")

        assert await _after(engine, 0, limit=2) == (["one", "two"], True, False)
        assert await _after(engine, 0, limit=1) == (["one"], True, True)

    @_case
    async def test_pages_backward_make_the_whole_log(self, engine: Engine, ear: Ear) -> None:
        """The newest of what precedes, oldest first; without a place, the newest of all."""
        texts = [str(number) for number in range(10)]
        await _say(engine, *texts)
        before: int | None = None
        pages: list[list[str]] = []
        for more in (True, True, True, False):
            page = await engine.before(LOBBY, before, 3)
            pages.append(_texts(page.publications))
            before = page.publications[0].seq

            assert page.more is more

        assert pages == [texts[7:], texts[4:7], texts[1:4], texts[:1]]
        assert (await engine.before(LOBBY, before, 3)).publications == []

    @_case
    async def test_a_place_beyond_the_end_is_not_complete(self, engine: Engine, ear: Ear) -> None:
        """Whoever has it has seen another log."""
        (last,) = await _say(engine, "one")

        assert await _after(engine, (last.seq or 0) + 1) == ([], False, False)

    @_case
    async def test_what_is_read_has_its_place(self, engine: Engine, ear: Ear) -> None:
        """A publication from the log is the one that was told, field by field."""
        await engine.listen([LOBBY])
        await engine.publish(LOBBY, _publication("one", id="a1"))
        await _say(engine, "two")
        await ear.hear("two")
        page = await engine.after(LOBBY, 0, 10)

        assert [json.encode(found) for found in page.publications] == [
            json.encode(told.publication) for told in ear.told
        ]

    async def _run_with_three(self, test: Callable[[Engine, list[int]], Awaitable[None]]) -> None:
        """On an engine that keeps three, to which eight were published; `test` gets their seqs."""
        engine = self.engine(keep=3)
        await engine.start(Ear())
        try:
            accepted = await _say(engine, *(str(number) for number in range(8)))
            await test(engine, [place.seq or 0 for place in accepted])
        finally:
            await engine.stop()

    def test_what_was_dropped_is_never_passed_over_in_silence(self) -> None:
        """`complete` is true from the newest dropped one on, and false for every place before it."""

        async def test(engine: Engine, seqs: list[int]) -> None:
            for place in range(7):
                seq = seqs[place]
                texts, complete, more = await _after(engine, seq)

                assert complete is (place >= 4)
                assert texts == [str(number) for number in range(max(5, place + 1), 8)]
                assert not more
            assert (await _after(engine, 0))[1] is False

        asyncio.run(self._run_with_three(test))

    def test_no_receipt_is_due_for_what_was_dropped(self) -> None:
        """Nobody can have read it."""

        async def test(engine: Engine, _: list[int]) -> None:
            texts = [str(number) for number in range(8)]
            seqs = await _ask_for_receipts(engine, *texts)
            passed = await engine.set_cursor("alice", seqs[-1])

            assert _texts(passed) == texts[-3:]

        asyncio.run(self._run_with_three(test))

    def test_seqs_go_on_after_what_was_dropped(self) -> None:
        """Retention forgets messages, not how many there were."""

        async def test(engine: Engine, seqs: list[int]) -> None:
            page = await engine.before(LOBBY, None, 10)

            assert seqs == sorted(set(seqs))
            assert [publication.seq for publication in page.publications] == seqs[-3:]
            assert (await engine.position(LOBBY)).seq == seqs[-1]
            assert not page.more

        asyncio.run(self._run_with_three(test))

    @_case
    async def test_an_old_position_is_never_taken_for_a_new_one(self, engine: Engine, ear: Ear) -> None:
        """After ages a log may be gone; if its channel begins anew, then in another epoch."""
        (old,) = await _say(engine, "old")
        await self.time_passes(engine, _AGES)
        (new,) = await _say(engine, "new")

        assert new.epoch != old.epoch or (new.seq or 0) > (old.seq or 0)

    @_case
    async def test_who_listens_keeps_its_position(self, engine: Engine, ear: Ear) -> None:
        """A log that somebody listens to is not begun anew, however long nothing is written to it."""
        await engine.listen([LOBBY])
        (old,) = await _say(engine, "old")
        await self.time_passes(engine, _AGES)
        (new,) = await _say(engine, "new")

        assert new.epoch == old.epoch
        assert (new.seq or 0) > (old.seq or 0)

    # ----------------------------------------------------------------------------------------- listening

    @_case
    async def test_from_listen_on_nothing_is_missed(self, engine: Engine, ear: Ear) -> None:
        """What is published after `listen` has returned is told; several channels at once are fine."""
        await _say(engine, "before")
        await engine.listen([LOBBY, DEN])
        await engine.listen([LOBBY])
        await _say(engine, "after")
        await _say(engine, "after", channel=DEN)
        await ear.hear("after")
        await ear.hear("after", DEN)

        assert ear.texts() == ["after"]

    @_case
    async def test_who_stops_listening_is_left_in_peace(self, engine: Engine, ear: Ear) -> None:
        """A few may still come, a thousand may not; channels that one still listens to go on."""
        await engine.listen([LOBBY, DEN])
        await engine.unlisten([LOBBY, room_channel("never listened to")])
        for _ in range(10):
            await asyncio.gather(*(_say(engine, "unheard") for _ in range(100)))
        await _say(engine, "heard", channel=DEN)
        await ear.hear("heard", DEN)

        assert len(ear.texts()) < 1000

    @_case
    async def test_listening_again_hears_again(self, engine: Engine, ear: Ear) -> None:
        """And what was written meanwhile is in the log."""
        await engine.listen([LOBBY])
        await engine.unlisten([LOBBY])
        await _say(engine, "meanwhile")
        await engine.listen([LOBBY])
        await _say(engine, "again")
        await ear.hear("again")

        assert _texts((await engine.after(LOBBY, 0, 10)).publications) == ["meanwhile", "again"]

    # -------------------------------------------------------------------------------------------- rooms

    @_case
    async def test_a_user_comes_with_the_first_session_and_goes_with_the_last(self, engine: Engine, ear: Ear) -> None:
        """Entering and leaving twice is harmless, and a second device is no news."""
        news = [
            await engine.enter(LOBBY, "alice", "s1", 1, 10),
            await engine.enter(LOBBY, "alice", "s1", 2, 10),
            await engine.enter(LOBBY, "alice", "s2", 3, 10),
            await engine.leave(LOBBY, "alice", "s1"),
            await engine.leave(LOBBY, "alice", "s1"),
            await engine.leave(LOBBY, "alice", "s2"),
            await engine.leave(LOBBY, "alice", "s2"),
        ]

        assert news == [True, False, False, False, False, True, False]
        assert await engine.members(LOBBY, 10) == ([], 0)

    @_case
    async def test_members_are_listed_in_the_order_of_coming(self, engine: Engine, ear: Ear) -> None:
        """With how many sessions and since when; as many as asked for, and how many there are."""
        for user, session, now in (("carol", "s1", 1), ("alice", "s2", 2), ("bob", "s3", 3), ("carol", "s4", 4)):
            await engine.enter(LOBBY, user, session, now, 10)
        first, count = await engine.members(LOBBY, 2)
        everyone, _ = await engine.members(LOBBY, 10)

        assert first == [Member("carol", 2, 1), Member("alice", 1, 2)]
        assert count == 3
        assert [member.user for member in everyone] == ["carol", "alice", "bob"]

    @_case
    async def test_who_comes_back_comes_last(self, engine: Engine, ear: Ear) -> None:
        """The time in the room begins anew, too."""
        await engine.enter(LOBBY, "alice", "s1", 1, 10)
        await engine.enter(LOBBY, "bob", "s2", 2, 10)
        await engine.leave(LOBBY, "alice", "s1")
        await engine.enter(LOBBY, "alice", "s1", 3, 10)
        members, _ = await engine.members(LOBBY, 10)

        assert members == [Member("bob", 1, 2), Member("alice", 1, 3)]

    @_case
    async def test_rooms_are_apart(self, engine: Engine, ear: Ear) -> None:
        """Being in one says nothing of another, and leaving where one is not is harmless."""
        await engine.enter(LOBBY, "alice", "s1", 1, 10)
        left = await engine.leave(DEN, "alice", "s1")

        assert left is False
        assert await engine.members(DEN, 10) == ([], 0)
        assert await engine.members(LOBBY, 10) == ([Member("alice", 1, 1)], 1)

    @_case
    async def test_a_full_room_takes_nobody_new(self, engine: Engine, ear: Ear) -> None:
        """Its capacity is in users: who is in it may come with another device. A place left is free."""
        await engine.enter(LOBBY, "alice", "s1", 1, 1)
        await _raises(RoomFull, engine.enter(LOBBY, "bob", "s2", 2, 1))
        second_device = await engine.enter(LOBBY, "alice", "s3", 3, 1)
        _, while_full = await engine.members(LOBBY, 10)
        await engine.leave(LOBBY, "alice", "s1")
        await engine.leave(LOBBY, "alice", "s3")
        came = await engine.enter(LOBBY, "bob", "s2", 4, 1)

        assert (second_device, while_full, came) == (False, 1, True)

    @_case
    async def test_a_crowd_at_the_door_fills_the_room_exactly(self, engine: Engine, ear: Ear) -> None:
        """Counting and entering are one step: of fifty at once as many get in as there are places."""
        crowd = [engine.enter(LOBBY, f"user-{number}", f"s{number}", number, 10) for number in range(50)]
        outcomes = await asyncio.gather(*crowd, return_exceptions=True)
        _, count = await engine.members(LOBBY, 100)

        assert sum(1 for outcome in outcomes if outcome is True) == count == 10
        assert sum(1 for outcome in outcomes if isinstance(outcome, RoomFull)) == 40

    # ----------------------------------------------------------------------------------------- cursors

    @_case
    async def test_a_cursor_only_moves_forward(self, engine: Engine, ear: Ear) -> None:
        """A smaller `seq` changes nothing, and each user has one; before the first time there is none."""
        await _say(engine, *(str(number) for number in range(10)), channel=inbox_channel("alice"))
        stood = [await engine.cursor("alice")]
        for seq in (3, 7, 5, 7):
            await engine.set_cursor("alice", seq)
            stood.append(await engine.cursor("alice"))

        assert stood == [None, 3, 7, 7, 7]
        assert await engine.cursor("bob") is None

    @_case
    async def test_a_receipt_is_due_when_the_cursor_passes(self, engine: Engine, ear: Ear) -> None:
        """Moving it returns what wanted to know: the oldest first, as it was published, and nothing else."""
        seqs = await _ask_for_receipts(engine, "one", None, "three", "four")
        passed = [await engine.set_cursor("alice", seqs[place]) for place in (1, 0, 3, 3)]

        assert [_texts(publications) for publications in passed] == [["one"], [], ["three", "four"], []]
        assert passed[0][0].seq == seqs[0]
        assert (passed[0][0].from_, passed[0][0].id, passed[0][0].to) == ("bob", "one", "alice")

    @_case
    async def test_a_receipt_is_due_once(self, engine: Engine, ear: Ear) -> None:
        """However many devices acknowledge at the same moment, and however far each of them is."""
        texts = [str(number) for number in range(20)]
        seqs = await _ask_for_receipts(engine, *texts)
        places = [7, 3, 19, 11, 19, 5, 16]
        passed = await asyncio.gather(*(engine.set_cursor("alice", seqs[place]) for place in places))
        due = [text for publications in passed for text in _texts(publications)]

        assert sorted(due) == sorted(texts)
        assert await engine.cursor("alice") == seqs[19]

    # ------------------------------------------------------------------------------------------ two nodes

    @_case
    async def test_another_node_hears_the_same(self, engine: Engine, ear: Ear) -> None:
        """Where channels are shared: both hear both, in the same order, and know the same retries."""
        peer, peers_ear = await self._start_peer(engine)
        try:
            await engine.listen([LOBBY])
            await peer.listen([LOBBY])
            texts = [str(number) for number in range(20)]
            await asyncio.gather(*(_say(engine if int(text) % 2 else peer, text) for text in texts))
            await engine.publish(LOBBY, _publication("last", id="a1"), origin="s1")
            retry = await peer.publish(LOBBY, _publication("last", id="a1"))
            await ear.hear("last")
            await peers_ear.hear("last")

            assert ear.texts() == peers_ear.texts()
            assert sorted(ear.texts()) == sorted([*texts, "last"])
            assert peers_ear.told[-1].origin == "s1"
            assert retry.duplicate
            assert await peer.position(LOBBY) == await engine.position(LOBBY)
        finally:
            await peer.stop()

    @_case
    async def test_rooms_and_cursors_are_one_on_all_nodes(self, engine: Engine, ear: Ear) -> None:
        """A user with a device on each node is one user, and a room is full on both."""
        peer, _ = await self._start_peer(engine)
        try:
            came = await engine.enter(LOBBY, "alice", "s1", 1, 1)
            other_device = await peer.enter(LOBBY, "alice", "s2", 2, 1)
            await _raises(RoomFull, peer.enter(LOBBY, "bob", "s3", 3, 1))
            await _say(engine, "hi", channel=inbox_channel("alice"))
            await engine.set_cursor("alice", 1)

            assert (came, other_device) == (True, False)
            assert await peer.members(LOBBY, 10) == ([Member("alice", 2, 1)], 1)
            assert await peer.cursor("alice") == 1
        finally:
            await peer.stop()

    # ------------------------------------------------------------------------------------------- inside

    async def _run(self, test: Callable[[EngineContract, Engine, Ear], Awaitable[None]]) -> None:
        engine, ear = self.engine(), Ear()
        await engine.start(ear)
        try:
            async with asyncio.timeout(3 * _PATIENCE):
                await test(self, engine, ear)
        finally:
            await engine.stop()

    async def _start_peer(self, engine: Engine) -> tuple[Engine, Ear]:
        if not engine.capabilities.shared:
            raise unittest.SkipTest("the channels of this engine are not shared")
        peer, ear = self.peer(engine), Ear()
        await peer.start(ear)
        return peer, ear


def _publication(text: str, *, id: str | None = None, from_: str = "alice") -> Publication:
    return Publication("chat", from_, room="lobby", content=Raw(json.encode(text)), id=id)


async def _say(engine: Engine, *texts: str, channel: str = LOBBY) -> list[Accepted]:
    return [await engine.publish(channel, _publication(text)) for text in texts]


async def _ask_for_receipts(engine: Engine, *ids: str | None) -> list[int]:
    """Publish to alice's inbox, with the id as the text; without an id no receipt is asked for. Returns the seqs."""
    seqs = []
    for id in ids:
        content = Raw(json.encode(id))
        asked = Publication("chat", "bob", to="alice", content=content, id=id, receipt=id is not None)
        accepted = await engine.publish(inbox_channel("alice"), asked)
        seqs.append(accepted.seq or 0)
    return seqs


async def _after(engine: Engine, seq: int, limit: int = 100) -> tuple[list[str], bool, bool]:
    page = await engine.after(LOBBY, seq, limit)
    return _texts(page.publications), page.complete, page.more


def _text(publication: Publication) -> str:
    content = msgspec.json.decode(publication.content)
    return content if isinstance(content, str) else ""


def _texts(publications: Sequence[Publication]) -> list[str]:
    return [_text(publication) for publication in publications]


async def _raises(error: type[Exception], call: Awaitable[object]) -> None:
    try:
        await call
    except error:
        return
    raise AssertionError(f"{error.__name__} was not raised")
