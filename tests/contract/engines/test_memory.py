"""The memory engine keeps the contract of all engines, and the bounds that are its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from msgspec import Raw

from hubbub.core.log import HistoryLimits, Retention
from hubbub.engines.base import Engine
from hubbub.engines.memory import MemoryEngine
from hubbub.errors import Unavailable
from hubbub.testing.clock import FakeClock
from hubbub.testing.engines import Ear, EngineContract
from hubbub.types import Position, Publication, inbox_channel, room_channel

LOBBY = room_channel("lobby")


class TestMemoryEngine(EngineContract):
    """Every promise of `hubbub.engines.base`."""

    def engine(self, keep: int = 1000) -> MemoryEngine:
        self.clock = FakeClock()
        return MemoryEngine(HistoryLimits(history_size=keep, inbox_size=keep), clock=self.clock)

    async def time_passes(self, engine: Engine, seconds: float) -> None:
        assert isinstance(engine, MemoryEngine)
        self.clock.advance(seconds)
        engine.sweep()


def running(test: Callable[[MemoryEngine, FakeClock], Awaitable[None]], **limits: float) -> None:
    """Run `test` with an engine of these limits and its clock."""

    async def run() -> None:
        clock = FakeClock()
        engine = MemoryEngine(HistoryLimits(**limits), clock=clock)  # type: ignore[arg-type]  # numbers, as each needs
        await engine.start(Ear(), "node.1")
        async with asyncio.timeout(10):
            await test(engine, clock)
        await engine.stop()

    asyncio.run(run())


async def publish(engine: MemoryEngine, channel: str, count: int = 1, size: int = 2, id: str | None = None) -> None:
    for _ in range(count):
        content = Raw(b'"' + b"x" * (size - 2) + b'"')
        await engine.publish(channel, Publication("chat", "alice", content=content, id=id))


async def seqs(engine: MemoryEngine, channel: str) -> list[int | None]:
    return [publication.seq for publication in (await engine.after(channel, 0, 10_000)).publications]


class TestRetention:
    """Rooms and inboxes are kept by their own count and age."""

    def test_rooms_and_inboxes_have_their_own_count(self) -> None:
        async def test(engine: MemoryEngine, clock: FakeClock) -> None:
            for channel in (LOBBY, "all", inbox_channel("alice")):
                await publish(engine, channel, 10)

            assert len(await seqs(engine, LOBBY)) == len(await seqs(engine, "all")) == 2
            assert len(await seqs(engine, inbox_channel("alice"))) == 5

        running(test, history_size=2, inbox_size=5)

    def test_rooms_and_inboxes_have_their_own_age(self) -> None:
        async def test(engine: MemoryEngine, clock: FakeClock) -> None:
            for channel in (LOBBY, inbox_channel("alice")):
                await publish(engine, channel)
            clock.advance(10)

            assert await seqs(engine, LOBBY) == []
            assert await seqs(engine, inbox_channel("alice")) == [1]

        running(test, history_age=10, inbox_age=11)

    def test_each_channel_may_have_its_own(self) -> None:
        """`retention` is asked by the full name, and counts before the limits."""
        kept = {LOBBY: Retention(size=1, age=100), inbox_channel("alice"): Retention(size=3, age=5)}

        async def main() -> None:
            clock = FakeClock()
            engine = MemoryEngine(retention=lambda name: kept.get(name, Retention()), clock=clock)
            for channel in (LOBBY, inbox_channel("alice"), "all"):
                await publish(engine, channel, 4)
            before = [await seqs(engine, channel) for channel in (LOBBY, inbox_channel("alice"), "all")]
            clock.advance(5)

            assert before == [[4], [2, 3, 4], [1, 2, 3, 4]]
            assert await seqs(engine, inbox_channel("alice")) == []
            assert await seqs(engine, LOBBY) == [4]

        asyncio.run(main())

    def test_what_is_too_old_is_not_read_although_nothing_was_swept(self) -> None:
        """Reading looks at the clock itself: how often somebody sweeps must not be seen."""

        async def test(engine: MemoryEngine, clock: FakeClock) -> None:
            await publish(engine, LOBBY, 2)
            clock.advance(10)
            page = await engine.after(LOBBY, 1, 10)

            assert page.publications == []
            assert not page.complete
            assert page.position.seq == 2
            assert (await engine.before(LOBBY, None, 10)).publications == []

        running(test, history_age=10)


class TestBytes:
    """All history together is bounded: who wrote least lately pays first, and nobody for all."""

    def test_the_bound_is_kept_after_every_publication(self) -> None:
        async def test(engine: MemoryEngine, clock: FakeClock) -> None:
            for number in range(200):
                await publish(engine, room_channel(f"room-{number % 7}"), size=500)

                assert engine.statistics().history_bytes <= 20_000

        running(test, history_bytes=20_000)

    def test_what_is_counted_is_what_is_held(self) -> None:
        """Appending, dropping, ageing and forgetting: at the end nothing is left over."""

        async def test(engine: MemoryEngine, clock: FakeClock) -> None:
            for number in range(300):
                await publish(engine, room_channel(f"room-{number % 7}"), size=100 + number)
                if number % 50 == 0:
                    clock.advance(4)
            clock.advance(1000)
            engine.sweep()
            statistics = engine.statistics()

            assert statistics.history_bytes == 0
            assert statistics.channels == 0

        running(test, history_bytes=20_000, history_size=10, history_age=10)

    def test_the_channel_that_was_written_to_least_lately_loses_first(self) -> None:
        async def test(engine: MemoryEngine, clock: FakeClock) -> None:
            await publish(engine, room_channel("quiet"), 5, size=500)
            await publish(engine, LOBBY, 25, size=500)
            quiet = await seqs(engine, room_channel("quiet"))
            lobby = await seqs(engine, LOBBY)

            assert len(quiet) < 5
            assert 30 in [(seq or 0) + 5 for seq in lobby]

        running(test, history_bytes=16_000)

    def test_one_message_larger_than_everything_is_not_kept(self) -> None:
        """It is told and numbered; that it cannot be recovered is said like with any that was dropped."""

        async def test(engine: MemoryEngine, clock: FakeClock) -> None:
            await publish(engine, LOBBY, size=50_000)
            page = await engine.after(LOBBY, 0, 10)

            assert engine.statistics().history_bytes < 2_000
            assert (page.publications, page.complete, page.position.seq) == ([], False, 1)

        running(test, history_bytes=10_000)

    def test_a_long_message_costs_what_it_weighs(self) -> None:
        async def test(engine: MemoryEngine, clock: FakeClock) -> None:
            await publish(engine, LOBBY, size=50_000)

            assert 50_000 <= engine.statistics().history_bytes <= 52_000

        running(test)


class TestForgetting:
    """A log that nobody would miss is forgotten, and what begins in its place is another one."""

    def test_a_log_that_was_forgotten_begins_in_another_epoch(self) -> None:
        """So that an old position is never mistaken for a place in the new log."""

        async def test(engine: MemoryEngine, clock: FakeClock) -> None:
            await publish(engine, LOBBY, 5)
            old = await engine.position(LOBBY)
            clock.advance(10)
            engine.sweep()
            await publish(engine, LOBBY)
            new = await engine.position(LOBBY)

            assert (old.seq, new.seq) == (5, 1)
            assert new.epoch != old.epoch

        running(test, history_age=10)

    def test_every_time_it_is_another_one(self) -> None:
        async def test(engine: MemoryEngine, clock: FakeClock) -> None:
            epochs = set()
            for _ in range(5):
                await publish(engine, LOBBY)
                epochs.add((await engine.position(LOBBY)).epoch)
                clock.advance(10)
                engine.sweep()

            assert len(epochs) == 5

        running(test, history_age=10)

    def test_a_log_with_messages_is_not_forgotten(self) -> None:
        async def test(engine: MemoryEngine, clock: FakeClock) -> None:
            await publish(engine, LOBBY)
            old = await engine.position(LOBBY)
            clock.advance(9)
            engine.sweep()

            assert await engine.position(LOBBY) == old

        running(test, history_age=10)

    def test_a_log_whose_retries_are_expected_is_not_forgotten(self) -> None:
        """Its messages are gone, but one of them may come again, and must not count as new."""

        async def test(engine: MemoryEngine, clock: FakeClock) -> None:
            await publish(engine, LOBBY, id="a1")
            clock.advance(299)
            engine.sweep()
            expected = await engine.accepted(LOBBY, "alice", "a1")
            clock.advance(1)
            engine.sweep()

            assert expected is not None
            assert await engine.accepted(LOBBY, "alice", "a1") is None
            assert engine.statistics().channels == 0

        running(test, history_age=10)

    def test_a_log_that_somebody_listens_to_is_not_forgotten(self) -> None:
        """Its listeners hold positions in it, and would take the seqs of a new log for old ones."""

        async def test(engine: MemoryEngine, clock: FakeClock) -> None:
            await engine.listen([LOBBY])
            await publish(engine, LOBBY, 5)
            old = await engine.position(LOBBY)
            clock.advance(10)
            engine.sweep()
            await publish(engine, LOBBY)

            assert await engine.position(LOBBY) == Position(old.epoch, 6)

        running(test, history_age=10)

    def test_the_epoch_of_an_empty_channel_holds_while_somebody_listens(self) -> None:
        """A position in it has been given away: another channel's end must not make it worthless."""

        async def test(engine: MemoryEngine, clock: FakeClock) -> None:
            await engine.listen([LOBBY])
            given = await engine.position(LOBBY)
            await publish(engine, room_channel("other"))
            clock.advance(10)
            engine.sweep()
            await publish(engine, LOBBY)

            assert await engine.position(LOBBY) == Position(given.epoch, 1)

        running(test, history_age=10)

    def test_an_inbox_that_is_forgotten_forgets_its_cursor(self) -> None:
        """A new log begins at 1: an old cursor would hide its first messages."""

        async def test(engine: MemoryEngine, clock: FakeClock) -> None:
            await publish(engine, inbox_channel("alice"), 5)
            await engine.set_cursor("alice", 5)
            clock.advance(10)
            engine.sweep()

            assert await engine.cursor("alice") is None

        running(test, inbox_age=10)

    def test_every_log_is_looked_at_in_turn(self) -> None:
        """One sweep looks at a part, so that it is short: many sweeps look at all."""

        async def test(engine: MemoryEngine, clock: FakeClock) -> None:
            for number in range(2500):
                await publish(engine, room_channel(str(number)))
            clock.advance(10)
            left = []
            for _ in range(3):
                engine.sweep()
                left.append(engine.statistics().channels)

            assert left == [1500, 500, 0]

        running(test, history_age=10)


class TestChannels:
    """How many channels may have a history is bounded."""

    def test_one_too_many_is_unavailable(self) -> None:
        """It can help to come again; those that have a history go on."""

        async def test(engine: MemoryEngine, clock: FakeClock) -> None:
            await publish(engine, LOBBY)
            await publish(engine, room_channel("den"))
            with pytest.raises(Unavailable) as caught:
                await publish(engine, room_channel("one too many"))
            await publish(engine, LOBBY)

            assert caught.value.retry_after is not None
            assert (await engine.position(LOBBY)).seq == 2

        running(test, channels=2)

    def test_those_that_nobody_would_miss_make_room(self) -> None:
        async def test(engine: MemoryEngine, clock: FakeClock) -> None:
            await publish(engine, LOBBY)
            clock.advance(10)
            await publish(engine, room_channel("new"))

            assert engine.statistics().channels == 1

        running(test, channels=1, history_age=10)

    def test_a_room_with_nobody_in_it_is_gone(self) -> None:
        async def test(engine: MemoryEngine, clock: FakeClock) -> None:
            await engine.enter(LOBBY, "alice", "s1", 0, 10)
            with_alice = engine.statistics().rooms
            await engine.leave(LOBBY, "alice", "s1")

            assert (with_alice, engine.statistics().rooms) == (1, 0)

        running(test)


def test_two_engines_never_share_an_epoch() -> None:
    """A restart is another log: what clients remember of the old one must not fit."""
    assert MemoryEngine().epoch != MemoryEngine().epoch
