"""The engine whose channels lie in one SQLite file, and are there again after a restart.

Everything that changes the file goes through one thread in the order in which it was asked for, and everything that
waits at once is one transaction. The node is told when that is over, not before: what anybody has seen will still be
there tomorrow.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeVar

from msgspec import Struct

from hubbub.core.log import HistoryLimits, Page, Retention
from hubbub.core.presence import Members
from hubbub.engines.base import Accepted, Capabilities, Listener
from hubbub.engines.shared.answers import settle
from hubbub.engines.sqlite.jobs import Acknowledge, Append, Ask, Job
from hubbub.engines.sqlite.listening import Listening
from hubbub.engines.sqlite.options import Durability
from hubbub.engines.sqlite.reader import Read, Reader
from hubbub.engines.sqlite.store import Store
from hubbub.engines.sqlite.worker import Worker
from hubbub.engines.sqlite.writer import Writer
from hubbub.errors import Unavailable
from hubbub.protocol.envelope import Member
from hubbub.types import Place, Position, Publication

__all__ = ["SqliteEngine", "SqliteStatistics"]

log = logging.getLogger("hubbub.engines.sqlite")

T = TypeVar("T")

# Jobs and reads that may wait; beyond, `Unavailable`.
_MOST: Final = 20_000
# Bytes of messages that may wait to be written.
_MOST_BYTES: Final = 67_108_864
# Seconds for the way round of `check`.
_CHECK: Final = 5.0


class SqliteStatistics(Struct, frozen=True):
    """The state of an engine on SQLite at one moment."""

    # What waits to be written, and to be read.
    writes: int
    write_bytes: int
    reads: int
    channels: int
    rooms: int
    # Transactions since the file was made.
    commits: int


class SqliteEngine:
    """Channels in `folder`: `seq` counts by one, and an `ack` means what `durability` says.

    `start` raises `ConfigError` where the folder cannot be used, or what is in it is damaged.
    """

    capabilities = Capabilities(durable=True, shared=False)

    def __init__(
        self,
        folder: str,
        durability: Durability = Durability.FULL,
        limits: HistoryLimits = HistoryLimits(),  # frozen
        *,
        retention: Callable[[str], Retention] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._durability = durability
        self._limits = limits
        self._retention = retention or limits.retention

        # Seconds since the Unix epoch: it has to mean something after a restart.
        self._clock = clock

        # Set while it runs.
        self._store: Store | None = None
        self._writer: Writer | None = None
        self._reader: Reader | None = None
        self._listener: Listener | None = None

        self._writes: Worker[Job, int] = Worker("hubbub-store-writer", self._write, self._written, _MOST)
        self._reads: Worker[Read, None] = Worker("hubbub-store-reader", self._read, self._has_read, _MOST)

        # Bytes of content that wait to be written.
        self._bytes = 0

        # The transaction up to which everything has been told.
        self._told = 0

        # What was read of a later transaction than that: it is answered once that is told, too. Beyond `_MOST` no
        # more is read.
        self._early: list[Read] = []

        self._listening = Listening()

        # Of one process, like the sessions themselves.
        self._members = Members()
        self._node = ""

    async def start(self, listener: Listener, node: str) -> None:
        """See `Engine.start`; raises `ConfigError`."""
        # In a thread: a large file takes seconds to be looked through.
        opening = asyncio.ensure_future(
            asyncio.to_thread(Store, self._folder, self._durability, self._limits.history_bytes * 5 // 4)
        )
        try:
            store = await asyncio.shield(opening)
        except asyncio.CancelledError:
            # The thread goes on, and nobody else would let go of what it opens.
            opening.add_done_callback(_close_again)
            raise
        try:
            self._writer = Writer(store, self._limits, self._retention, self._listening, self._clock)
            self._reader = Reader(store.connect(), self._retention, self._clock)
        except BaseException:
            store.close()
            raise
        self._store = store
        self._told = store.about.commits
        self._listener = listener
        self._node = node
        self._writes.start()
        self._reads.start()

    async def stop(self) -> None:
        """See `Engine.stop`: what was asked for is finished before."""
        store, self._store = self._store, None
        if store is None:
            return
        written, read = await self._writes.stop(), await self._reads.stop()
        self._listener = None
        assert self._reader is not None
        if not (written and read):
            # Closing would wait for the same disk. The file is as after a kill.
            return
        self._reader.close()
        await asyncio.to_thread(store.close)

    async def check(self) -> None:
        """See `Engine.check`: something is written, and read."""
        try:
            async with asyncio.timeout(_CHECK):
                await self._ask(Writer.check, alone=True)
                await self._find(Reader.check)
        except TimeoutError:
            raise Unavailable("the store does not answer") from None
        if (self._writer and self._writer.damaged) or (self._reader and self._reader.damaged):
            raise Unavailable("the store is damaged")

    async def publish(
        self, channel: str, publication: Publication, *, volatile: bool = False, origin: str | None = None
    ) -> Accepted:
        """See `Engine.publish`."""
        accepted: asyncio.Future[Accepted] = asyncio.get_running_loop().create_future()
        self.submit(channel, publication, volatile, origin, partial(settle, accepted))
        return await accepted

    def publish_now(
        self, channel: str, publication: Publication, volatile: bool, origin: str | None
    ) -> Accepted | None:
        """See `Engine.publish_now`: only what is not stored, where nothing waits that comes before it."""
        if not volatile or self._writes.waiting or self._store is None:
            return None
        self._tell(channel, publication, origin, None)
        return Accepted(self._store.about.new_epoch, None)

    def submit(
        self,
        channel: str,
        publication: Publication,
        volatile: bool,
        origin: str | None,
        done: Callable[[Accepted | Exception], object],
    ) -> None:
        """See `Engine.submit`."""
        size = len(memoryview(publication.content))
        if self._bytes + size > _MOST_BYTES:
            raise Unavailable("the store is behind with what it has to do", retry_after=1.0)
        self._writes.put(Append(channel, publication, volatile, origin, done))
        self._bytes += size

    async def accepted(self, channel: str, from_: str, id: str) -> Accepted | None:
        """See `Engine.accepted`."""
        return await self._ask(lambda writer: writer.accepted(channel, from_, id))

    async def position(self, channel: str) -> Position:
        """See `Engine.position`."""
        position = await self._find(lambda reader: reader.position(channel))
        return position or self._empty(channel)

    async def after(self, channel: str, seq: int, limit: int) -> Page:
        """See `Engine.after`."""
        page = await self._find(lambda reader: reader.after(channel, seq, limit))
        return page or Page([], self._empty(channel), complete=seq == 0, more=False)

    async def before(self, channel: str, seq: int | None, limit: int) -> Page:
        """See `Engine.before`."""
        page = await self._find(lambda reader: reader.before(channel, seq, limit))
        return page or Page([], self._empty(channel), complete=True, more=False)

    async def listen(self, channels: Sequence[str]) -> None:
        """See `Engine.listen`."""
        self._listening.add(channels, self._new_epoch)

    async def unlisten(self, channels: Sequence[str]) -> None:
        """See `Engine.unlisten`."""
        self._listening.remove(channels)

    async def enter(self, channel: str, user: str, session: str, now: int, capacity: int) -> bool:
        """See `Engine.enter`."""
        return self._members.enter(channel, user, session, now, capacity)

    async def leave(self, channel: str, user: str, session: str, seen: int = 0) -> bool:
        """See `Engine.leave`."""
        return self._members.leave(channel, user, session, seen)

    async def members(self, channel: str, limit: int) -> tuple[list[Member], int]:
        """See `Engine.members`."""
        return self._members.of(channel, limit)

    async def places(self, channel: str, user: str) -> list[Place]:
        """See `Engine.places`."""
        return self._members.places(channel, user, self._node)

    async def last_seen(self, user: str) -> int | None:
        """See `Engine.last_seen`."""
        return self._members.last_seen(user)

    async def cursor(self, user: str) -> int | None:
        """See `Engine.cursor`."""
        # Of who writes: an acknowledgement that still waits comes before the question.
        return await self._ask(lambda writer: writer.cursor(user))

    async def set_cursor(self, user: str, seq: int) -> list[Publication] | None:
        """See `Engine.set_cursor`."""
        due: asyncio.Future[list[Publication] | None] = asyncio.get_running_loop().create_future()
        self._writes.put(Acknowledge(user, seq, partial(settle, due)))
        return await due

    def sweep(self) -> None:
        """Delete what is no longer kept; called now and then, it does a part of the work each time."""
        if self._store is not None and self._writes.waiting < _MOST // 2:
            self._writes.put(Ask(Writer.sweep, self._swept, alone=True))

    def _swept(self, more: object) -> None:
        if more is True:
            self.sweep()

    def statistics(self) -> SqliteStatistics:
        """How much waits, and how much is kept."""
        return SqliteStatistics(
            self._writes.waiting,
            self._bytes,
            self._reads.waiting + len(self._early),
            0 if self._writer is None else self._writer.channels,
            len(self._members),
            0 if self._store is None else self._store.about.commits,
        )

    # ------------------------------------------------------------------------------- to and from the threads

    async def _ask(self, question: Callable[[Writer], T], *, alone: bool = False) -> T:
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._writes.put(Ask(question, partial(settle, answer), alone))
        return await answer

    async def _find(self, question: Callable[[Reader], tuple[int, T]]) -> T:
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if len(self._early) >= _MOST:
            raise Unavailable("the store is behind with what it has to do", retry_after=1.0)
        self._reads.put(Read(question, partial(settle, answer)))
        return await answer

    def _write(self, jobs: list[Job]) -> int:
        """In the writer's thread."""
        assert self._writer is not None
        return self._writer.perform(jobs)

    def _written(self, jobs: list[Job], commits: int) -> None:
        for job in jobs:
            try:
                outcome = job.outcome
                if type(job) is Append:
                    self._bytes -= len(memoryview(job.publication.content))
                    if type(outcome) is Accepted and not outcome.duplicate:
                        self._tell(job.channel, job.publication, job.origin, job.body)
                job.done(outcome)
            except Exception:
                # They promise to raise nothing; if one does, the others must still be told.
                log.exception("telling of a stored message failed")
        self._told = commits
        if self._early:
            early, self._early = self._early, []
            self._has_read(early, None)

    def _read(self, reads: list[Read]) -> None:
        """In the reader's thread."""
        assert self._reader is not None
        self._reader.perform(reads)

    def _has_read(self, reads: list[Read], _: None) -> None:
        for read in reads:
            if read.commits > self._told:
                # It is in the file, and the news of it is on its way: whoever reads must not be told of it afterwards.
                self._early.append(read)
            else:
                read.done(read.outcome)

    def _tell(self, channel: str, publication: Publication, origin: str | None, body: bytes | None) -> None:
        if channel in self._listening and self._listener is not None:
            self._listener.publication(channel, publication, origin, body)

    # ------------------------------------------------------------------------------------- small questions

    def _new_epoch(self) -> str:
        if self._store is None:
            raise Unavailable("the store is not open")
        return self._store.about.new_epoch

    def _empty(self, channel: str) -> Position:
        """The position of a channel that has no log."""
        return Position(self._listening.epoch(channel) or self._new_epoch(), 0)


def _close_again(opening: asyncio.Future[Store]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
