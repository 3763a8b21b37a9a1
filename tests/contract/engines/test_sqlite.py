"""The engine on SQLite keeps the contract of all engines, and what it promises beyond: it is there again."""

from __future__ import annotations

import asyncio
import contextlib
import math
import shutil
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

from hubbub.core.log import HistoryLimits
from hubbub.engines.base import Accepted, Engine
from hubbub.engines.sqlite import mark, schema
from hubbub.engines.sqlite.engine import SqliteEngine
from hubbub.engines.sqlite.options import Durability
from hubbub.engines.sqlite.store import Store
from hubbub.engines.sqlite.writer import Writer
from hubbub.errors import ConfigError, Unavailable
from hubbub.protocol import json
from hubbub.testing.clock import FakeClock
from hubbub.testing.engines import Ear, EngineContract
from hubbub.testing.engines.ear import a_publication, contents, raises, say
from hubbub.types import Position, Publication, inbox_channel, room_channel


@pytest.mark.parametrize("durability", list(Durability), ids=str, scope="class")
class TestSqliteEngine(EngineContract):
    """Every promise of `hubbub.engines.base`, however often the disk is waited for."""

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path, durability: Durability) -> None:
        self.data = tmp_path / "data"
        self.durability = durability

    def engine(self, keep: int = 1000) -> SqliteEngine:
        self.clock = FakeClock(1_766_200_000.0)
        limits = HistoryLimits(history_size=keep, inbox_size=keep)
        return SqliteEngine(str(self.data), self.durability, limits, clock=self.clock)

    async def time_passes(self, engine: Engine, seconds: float) -> None:
        assert isinstance(engine, SqliteEngine)
        self.clock.advance(seconds)
        engine.sweep()
        # Behind the sweep.
        await engine.check()


LOBBY, DEN, ALICE = room_channel("lobby"), room_channel("den"), inbox_channel("alice")
NOW = 1_766_200_000.0


@contextlib.asynccontextmanager
async def opened(folder: Path, clock: FakeClock | None = None, **limits: Any) -> AsyncIterator[SqliteEngine]:
    """An engine that runs on `folder`."""
    engine = SqliteEngine(str(folder), Durability.FULL, HistoryLimits(**limits), clock=clock or FakeClock(NOW))
    await engine.start(Ear(), "node.1")
    try:
        yield engine
    finally:
        await engine.stop()


def running(test: Awaitable[None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await test

    asyncio.run(bounded())


async def everything(engine: Engine, channel: str) -> tuple[Position, list[bytes]]:
    """Where the channel ends, and all its messages as they are told to others."""
    page = await engine.after(channel, 0, 10_000)
    return page.position, [json.encode(publication) for publication in page.publications]


class TestRestart:
    """What was acknowledged is there again."""

    def test_a_channel_goes_on_where_it_was(self, tmp_path: Path) -> None:
        """The same epoch, the same messages byte for byte, and the next number."""

        async def test() -> None:
            async with opened(tmp_path) as engine:
                await say(engine, "one", "two")
                before = await everything(engine, LOBBY)
            async with opened(tmp_path) as engine:
                after = await everything(engine, LOBBY)
                (third,) = await say(engine, "three")

            assert after == before
            assert (third.epoch, third.seq) == (before[0].epoch, 3)

        running(test())

    def test_an_empty_channel_keeps_its_position(self, tmp_path: Path) -> None:
        """Who has joined a room in which nothing was said resumes from event zero."""

        async def test() -> None:
            async with opened(tmp_path) as engine:
                position = await engine.position(DEN)
            async with opened(tmp_path) as engine:
                await say(engine, "one", channel=DEN)

                assert (await engine.after(DEN, position.seq, 10)).complete
                assert (await engine.position(DEN)).epoch == position.epoch

        running(test())

    def test_retries_are_known_for_five_minutes(self, tmp_path: Path) -> None:
        """Also of what retention has dropped meanwhile."""

        async def test() -> None:
            clock = FakeClock(NOW)
            async with opened(tmp_path, clock, history_size=2) as engine:
                first = await engine.publish(LOBBY, a_publication("one", id="a1"))
                await say(engine, "two", "three", "four")
                engine.sweep()
                await engine.check()
            clock.advance(299)
            async with opened(tmp_path, clock, history_size=2) as engine:
                retry = await engine.publish(LOBBY, a_publication("one", id="a1"))
                kept = contents((await engine.before(LOBBY, None, 10)).publications)
            clock.advance(2)
            async with opened(tmp_path, clock, history_size=2) as engine:
                too_late = await engine.publish(LOBBY, a_publication("one", id="a1"))

            assert (retry.seq, retry.epoch, retry.duplicate) == (first.seq, first.epoch, True)
            assert kept == ["three", "four"]
            assert not too_late.duplicate

        running(test())

    def test_cursors_and_receipts_that_are_due(self, tmp_path: Path) -> None:
        """What was acknowledged stays so; the receipt of what was not is given afterwards, once."""

        async def test() -> None:
            async with opened(tmp_path) as engine:
                for id in ("a1", "a2", "a3"):
                    asked = Publication("chat", "bob", to="alice", content=Raw(b'"' + id.encode() + b'"'), id=id)
                    asked.receipt = True
                    await engine.publish(ALICE, asked)
                await engine.set_cursor("alice", 1)
            async with opened(tmp_path) as engine:
                cursor = await engine.cursor("alice")
                due = contents(await engine.set_cursor("alice", 3) or [])
            async with opened(tmp_path) as engine:
                again = await engine.set_cursor("alice", 3)

            assert (cursor, due, again) == (1, ["a2", "a3"], [])

        running(test())

    def test_what_is_too_old_is_deleted_and_forgotten(self, tmp_path: Path) -> None:
        """A channel of which nothing is left takes no place; one of its name has another epoch."""

        async def test() -> None:
            clock = FakeClock(NOW)
            async with opened(tmp_path, clock, history_age=1000) as engine:
                await say(engine, "one")
                old = await engine.position(LOBBY)
                clock.advance(1001)
                unseen = await engine.after(LOBBY, 0, 10)
                engine.sweep()
                await engine.check()
                forgotten = engine.statistics().channels
                (anew,) = await say(engine, "two")

            assert (unseen.publications, unseen.complete, unseen.position) == ([], False, old)
            assert forgotten == 0
            assert anew.seq == 1
            assert anew.epoch != old.epoch

        running(test())

    def test_a_channel_that_is_listened_to_is_not_forgotten(self, tmp_path: Path) -> None:
        """Its listeners hold positions in it."""

        async def test() -> None:
            clock = FakeClock(NOW)
            async with opened(tmp_path, clock, history_age=1000) as engine:
                await engine.listen([LOBBY])
                await say(engine, "one")
                clock.advance(1001)
                engine.sweep()
                await engine.check()
                (second,) = await say(engine, "two")

            assert second.seq == 2

        running(test())

    def test_a_channel_that_is_forgotten_while_somebody_comes_begins_anew(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Between the decision to forget it and the commit somebody listens: not to the epoch that it had."""
        deciding, listening = threading.Event(), threading.Event()
        commit = Writer._commit

        def slow_commit(writer: Writer) -> None:
            if writer._forgotten:
                deciding.set()
                assert listening.wait(10)
            commit(writer)

        monkeypatch.setattr(Writer, "_commit", slow_commit)

        async def test() -> None:
            clock = FakeClock(NOW)
            async with opened(tmp_path, clock, history_age=1000) as engine:
                await say(engine, "one")
                old = await engine.position(LOBBY)
                clock.advance(1001)
                engine.sweep()
                await asyncio.to_thread(deciding.wait, 10)
                await engine.listen([LOBBY])
                listening.set()
                (anew,) = await say(engine, "two")

            assert anew.seq == 1
            assert anew.epoch != old.epoch

        running(test())

    def test_what_is_kept_for_ever_is_kept(self, tmp_path: Path) -> None:
        """An age without an end is no number that the file could hold."""

        async def test() -> None:
            async with opened(tmp_path, history_age=math.inf, dedupe_window=1e300) as engine:
                await say(engine, "one")
                engine.sweep()
                await engine.check()

                assert contents((await engine.after(LOBBY, 0, 10)).publications) == ["one"]

        running(test())

    def test_what_is_too_large_for_one_row_is_read_in_parts(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Many large messages are no damage: they are verified, read and remembered, only fewer at a time."""
        connect = Store.connect

        def narrow(store: Store) -> sqlite3.Connection:
            database = connect(store)
            database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 300_000)
            return database

        async def test() -> None:
            async with opened(tmp_path) as engine:
                await say(engine, *("x" * 20_000 for _ in range(40)))
                await engine.publish(LOBBY, a_publication("y", id="a1"))
            monkeypatch.setattr(Store, "connect", narrow)
            async with opened(tmp_path) as engine:
                seq, read = 0, 0
                while (page := await engine.after(LOBBY, seq, 100)).publications:
                    read += len(page.publications)
                    seq = page.publications[-1].seq or 0
                last = await engine.before(LOBBY, None, 100)
                retry = await engine.publish(LOBBY, a_publication("y", id="a1"))
                await engine.check()

            assert (read, retry.duplicate) == (41, True)
            assert last.more
            assert last.publications[-1].seq == 41

        running(test())


class TestWriting:
    """One thread writes, for all that wait at once; nobody else waits for it."""

    def test_what_waits_at_once_is_one_transaction(self, tmp_path: Path) -> None:
        """Two hundred publishers share a few commits."""

        async def test() -> None:
            async with opened(tmp_path) as engine:
                before = engine.statistics().commits
                await asyncio.gather(*(say(engine, str(number)) for number in range(200)))

                assert engine.statistics().commits - before <= 5

        running(test())

    def test_reads_do_not_wait_for_writes(self, tmp_path: Path) -> None:
        """With the file locked by somebody else, what is there is read; what is new waits, and comes through."""

        async def test() -> None:
            async with opened(tmp_path) as engine:
                await say(engine, "one")
                other = sqlite3.connect(tmp_path / "hubbub.db", isolation_level=None)
                other.execute("BEGIN IMMEDIATE")
                publishing = asyncio.ensure_future(say(engine, "two"))
                read = contents((await engine.after(LOBBY, 0, 10)).publications)
                waiting = not publishing.done()
                other.execute("ROLLBACK")
                other.close()
                (second,) = await publishing

                assert (read, waiting, second.seq) == (["one"], True, 2)

        running(test())

    def test_a_transaction_that_fails_changes_nothing(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """A full store refuses, tells nobody, and gives no number away; deleting makes it go on."""

        async def test() -> None:
            clock, ear = FakeClock(NOW), Ear()
            limits = HistoryLimits(history_bytes=400_000, history_size=30, history_age=1000)
            engine = SqliteEngine(str(tmp_path), Durability.FULL, limits, clock=clock)
            await engine.start(ear, "node.1")
            await engine.listen([LOBBY])
            accepted = 0
            with contextlib.suppress(Unavailable):
                for _ in range(100):
                    await say(engine, "x" * 20_000)
                    accepted += 1
            told = len(ear.told)
            await raises(Unavailable, engine.publish(LOBBY, a_publication("y" * 20_000, id="a1")))
            kept = await engine.before(LOBBY, None, 1)
            clock.advance(301)
            for _ in range(3):
                engine.sweep()
                await engine.check()
            again = await engine.publish(LOBBY, a_publication("y" * 20_000, id="a1"))
            await engine.stop()

            assert told == accepted == kept.position.seq < 100
            assert (again.seq, again.duplicate) == (accepted + 1, False)
            assert len(ear.told) == accepted + 1

        running(test())

        assert "messages are refused" in caplog.text

    def test_what_waits_is_bounded(self, tmp_path: Path) -> None:
        """Beyond the bound it is refused at once, nothing of it is stored, and what waited is not harmed."""

        async def test() -> None:
            async with opened(tmp_path) as engine:
                answers: list[Accepted | Exception] = []
                with contextlib.suppress(Unavailable):
                    for number in range(100_000):
                        engine.submit(LOBBY, a_publication(str(number)), False, None, answers.append)
                waited = engine.statistics().writes
                # Such a read is answered when what was written before it has been told.
                while len(answers) < waited:
                    await engine.position(LOBBY)

                assert len(answers) == waited < 100_000
                assert all(isinstance(answer, Accepted) for answer in answers)
                assert (await engine.position(LOBBY)).seq == waited

        running(test())


class TestStarting:
    """Who cannot use a folder says so in a sentence, with what to do."""

    def refusal(self, folder: Path) -> str:
        with pytest.raises(ConfigError) as refused:
            running(self.start(folder))
        return str(refused.value)

    async def start(self, folder: Path) -> None:
        async with opened(folder):
            pass

    def test_one_at_a_time(self, tmp_path: Path) -> None:
        async def test() -> None:
            async with opened(tmp_path):
                with pytest.raises(ConfigError, match="in use by another hubbub"):
                    await self.start(tmp_path)
            await self.start(tmp_path)

        running(test())

    def test_a_file_is_no_folder(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")

        assert "is a file" in self.refusal(tmp_path / "file")

    def test_somebody_elses_database(self, tmp_path: Path) -> None:
        other = sqlite3.connect(tmp_path / "hubbub.db")
        other.execute("CREATE TABLE cats (name)")
        other.close()

        assert "not one of Hubbub's" in self.refusal(tmp_path)

    def test_a_newer_file(self, tmp_path: Path) -> None:
        running(self.start(tmp_path))
        database = sqlite3.connect(tmp_path / "hubbub.db")
        database.execute(f"PRAGMA user_version = {len(schema.STEPS) + 1}")
        database.close()

        assert "newer Hubbub" in self.refusal(tmp_path)

    def test_an_older_file_is_migrated(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Step by step, all or nothing; what was in it stays."""

        def ok(database: sqlite3.Connection) -> None:
            database.execute("CREATE TABLE further (name)")

        def fails(database: sqlite3.Connection) -> None:
            raise sqlite3.OperationalError("disk I/O error")

        async def test() -> None:
            async with opened(tmp_path) as engine:
                await say(engine, "one")
                before = await everything(engine, LOBBY)
            monkeypatch.setattr(schema, "STEPS", (*schema.STEPS, ok, fails))
            with pytest.raises(ConfigError, match="cannot be opened"):
                await self.start(tmp_path)
            monkeypatch.setattr(schema, "STEPS", schema.STEPS[:-1])
            async with opened(tmp_path) as engine:
                after = await everything(engine, LOBBY)

            assert after == before

        running(test())
        database = sqlite3.connect(tmp_path / "hubbub.db")
        version = database.execute("PRAGMA user_version").fetchone()
        database.close()

        assert version == (2,)


class TestPowerCut:
    """An end that was lost is noticed: nobody resumes into numbers that are given twice."""

    @pytest.mark.parametrize("durability", list(Durability), ids=str)
    def test_a_kill_loses_nothing(self, tmp_path: Path, durability: Durability) -> None:
        """What a process leaves behind when it is killed is what has been acknowledged."""

        async def test() -> None:
            engine = SqliteEngine(str(tmp_path / "a"), durability, clock=FakeClock(NOW))
            await engine.start(Ear(), "node.1")
            await say(engine, "one", "two")
            before = await everything(engine, LOBBY)
            shutil.copytree(tmp_path / "a", tmp_path / "b")
            await engine.stop()
            async with opened(tmp_path / "b") as engine:
                assert await everything(engine, LOBBY) == before

        running(test())

    def test_a_lost_end_changes_every_epoch(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """SQLite itself does not notice when its write-ahead log is gone."""

        async def test() -> None:
            async with opened(tmp_path / "a") as engine:
                await say(engine, "one")
            async with opened(tmp_path / "a") as engine:
                before, _ = await everything(engine, LOBBY)
                await say(engine, "two")
                shutil.copytree(tmp_path / "a", tmp_path / "b")
            (tmp_path / "b" / "hubbub.db-wal").unlink()
            async with opened(tmp_path / "b") as engine:
                after, messages = await everything(engine, LOBBY)

            assert (after.seq, len(messages)) == (1, 1)
            assert after.epoch != before.epoch

        running(test())

        assert "has lost its last" in caplog.text

    def test_a_backup_changes_every_epoch(self, tmp_path: Path) -> None:
        """What came after it had numbers that others will have: the file alone is put back, without its mark."""

        async def test() -> None:
            async with opened(tmp_path) as engine:
                await say(engine, "one")
            shutil.copy(tmp_path / "hubbub.db", tmp_path / "backup")
            async with opened(tmp_path) as engine:
                await say(engine, "two")
                before = await engine.position(LOBBY)
            shutil.move(tmp_path / "backup", tmp_path / "hubbub.db")
            (tmp_path / "hubbub.mark").unlink()
            async with opened(tmp_path) as engine:
                after, messages = await everything(engine, LOBBY)

            assert (after.seq, len(messages)) == (1, 1)
            assert after.epoch != before.epoch

        running(test())

    @pytest.mark.parametrize(
        ("durability", "rebooted", "same"),
        [
            (Durability.NORMAL, True, False),
            (Durability.NORMAL, False, True),
            (Durability.FULL, True, True),
        ],
    )
    def test_a_reboot_is_doubted_only_where_it_may_have_cost_something(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durability: Durability, rebooted: bool, same: bool
    ) -> None:
        """In `normal` what was written may not be on disk when the power goes, and the mark neither."""

        async def test() -> None:
            engine = SqliteEngine(str(tmp_path / "a"), durability, clock=FakeClock(NOW))
            await engine.start(Ear(), "node.1")
            await say(engine, "one")
            before = await engine.position(LOBBY)
            shutil.copytree(tmp_path / "a", tmp_path / "b")
            await engine.stop()
            if rebooted:
                monkeypatch.setattr(mark, "boot", lambda: b"another boot ...")
            async with opened(tmp_path / "b") as engine:
                crashed = await engine.position(LOBBY)
            async with opened(tmp_path / "a") as engine:
                closed = await engine.position(LOBBY)

            assert (crashed == before) is same
            assert closed == before

        running(test())
