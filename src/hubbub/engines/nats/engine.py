"""The engine on NATS: channels that many nodes share, each of them a subject of a JetStream stream.

What a node publishes comes back to it by the bus, like everybody else's, and its sender is answered in that moment; so
there is one order, which is the stream's. Who listens is told from the bus as long as that brings everything, and from
the log where it does not.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from hubbub.core.log import HistoryLimits, Page, Retention
from hubbub.engines.base import Accepted, Capabilities, Listener
from hubbub.engines.nats.address import Address
from hubbub.engines.nats.connection import Refused
from hubbub.engines.nats.cursors import Cursors
from hubbub.engines.nats.gets import Gets
from hubbub.engines.nats.link import Link
from hubbub.engines.nats.listening import Listening
from hubbub.engines.nats.places import Places
from hubbub.engines.nats.publishing import Publishing
from hubbub.engines.nats.reading import Ends, Found, Reader
from hubbub.engines.nats.rooms import Rooms
from hubbub.engines.nats.streams import Stream, Streams
from hubbub.engines.shared.answers import settle
from hubbub.engines.shared.canary import canary
from hubbub.engines.shared.clock import TICK, tick
from hubbub.errors import ConfigError, HubbubError, Reject, Unavailable
from hubbub.protocol.envelope import Member
from hubbub.types import Place, Position, Publication

__all__ = ["NatsEngine", "NatsStatistics"]

log = logging.getLogger("hubbub.engines.nats")

# Seconds between two looks at the streams.
_LOOK: Final = 5.0
# Readings of a copy that is behind.
_TRIES: Final = 20


class NatsStatistics(Struct, frozen=True):
    """The state of an engine on NATS at one moment."""

    # What is on its way, channels that are heard, rooms that this node has somebody in.
    waiting: int
    listening: int
    rooms: int
    # How often the log had to be read because the bus had lost something, and what it brought that nobody could read.
    fills: int
    garbage: int


class NatsEngine:
    """Channels in the NATS at `url`: `seq` has gaps, which `prev` tells, and an `ack` means "in JetStream".

    Raises `ConfigError` for a URL that cannot be read; `start` for a NATS that is not there, or cannot be used.
    """

    def __init__(
        self,
        url: str,
        limits: HistoryLimits = HistoryLimits(),  # frozen
        *,
        prefix: str = "hubbub",
        replicas: int = 1,
        retention: Callable[[str], Retention] | None = None,
        lease: float = 10.0,
    ) -> None:
        """`lease`: seconds after which a node that is heard no more is out of all rooms."""
        self.capabilities = Capabilities(durable=True, shared=True, lease=lease)
        self._address = Address.parse(url)
        self._limits = limits
        self._replicas = replicas
        self._places = Places(prefix, limits, retention)
        self._lease = lease

        # What this start of this node calls itself in what it publishes: short, for it is in every message.
        self._run = secrets.token_hex(6)

        # What there is from `start` on.
        self._runs = False
        self._parts: _Parts | None = None
        self._ticking: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._looked = 0.0
        # By kind of stream, its first place when it was looked at after an interruption.
        self._firsts: dict[str, int] = {}

    # ------------------------------------------------------------------------------- starting and stopping

    async def start(self, listener: Listener, node: str) -> None:
        """See `Engine.start`; raises `ConfigError`."""
        parts = self._parts = _Parts(self, node, listener)
        self._runs = True
        try:
            await parts.link.open()
            self._ticking = asyncio.get_running_loop().create_task(tick(self._looks(parts), log))
            # What is wrong with them is wrong with the options: better said now.
            await asyncio.gather(
                *(parts.streams.look(parts.streams.of(kind, kept)) for kind, kept in self._places.usual())
            )
            await parts.rooms.begin()
            await parts.listening.listen([canary(self._run)])
            parts.link.look, parts.link.again = partial(self._look_again, parts), partial(self._again, parts)
        except (OSError, Refused, Unavailable) as error:
            await self.stop()
            raise ConfigError(self._why_not(error)) from None
        except BaseException:
            await self.stop()
            raise
        parts.listening.listener = listener
        parts.rooms.judge()

    async def stop(self) -> None:
        """See `Engine.stop`."""
        parts = self._parts
        if not self._runs or parts is None:
            return
        self._runs = False
        parts.listening.listener = None
        for task in (self._ticking, self._looking):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await parts.rooms.close()
        await parts.publishing.close()
        await parts.link.close()
        await parts.listening.stop()

    def _why_not(self, error: Exception) -> str:
        said = error.message if isinstance(error, Unavailable) else str(error)
        where = f"NATS at {self._address}"
        if isinstance(error, Refused):
            return f"{where} lets nobody in ({said}): write nats://user:password@… in HUBBUB_ENGINE"
        if isinstance(error, Unavailable):
            return f"{where} has no JetStream that can be used ({said}): start it with `nats-server -js`"
        return f"{where} cannot be used ({said}): start it, or name another with --engine or HUBBUB_ENGINE"

    async def check(self) -> None:
        """See `Engine.check`: something is published on a channel of the node's own, and comes back by the bus."""
        listening = self._running().listening
        heard = listening.canaries
        # Answered when it was heard; or when it was not, and found in the log.
        try:
            await self.publish(canary(self._run), Publication("canary"))
        except Reject as error:
            raise Unavailable(error.message) from None
        if listening.canaries == heard:
            raise Unavailable("what is published in NATS is not heard here")

    # ------------------------------------------------------------------------------------------- publishing

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
        """See `Engine.publish_now`: everything goes to NATS and back."""
        return None

    def submit(
        self,
        channel: str,
        publication: Publication,
        volatile: bool,
        origin: str | None,
        done: Callable[[Accepted | Exception], object],
    ) -> None:
        """See `Engine.submit`."""
        self._running().publishing.submit(channel, publication, volatile, origin, done)

    async def accepted(self, channel: str, from_: str, id: str) -> Accepted | None:
        """See `Engine.accepted`."""
        return await self._running().publishing.accepted(channel, from_, id)

    # ---------------------------------------------------------------------------------------------- reading

    async def position(self, channel: str) -> Position:
        """See `Engine.position`."""
        parts = self._running()
        end = await parts.reader.end(channel)
        await parts.listening.told(channel, end.epoch, end.last)
        return Position(end.epoch, end.seq)

    async def after(self, channel: str, seq: int, limit: int) -> Page:
        """See `Engine.after`."""
        parts = self._running()
        return await parts.reader.of_one_log(channel, partial(self._after, parts, channel, seq, limit))

    async def _after(self, parts: _Parts, channel: str, seq: int, limit: int) -> Page:
        end, found = await asyncio.gather(parts.reader.end(channel), parts.reader.after(channel, seq, limit))
        for _ in range(_TRIES):
            newest = (found.notes[-1].seq or 0) if found.notes else seq
            if found.more or newest >= end.last or found.epoch != end.epoch:
                break
            # Of a copy that is behind.
            await asyncio.sleep(TICK)
            found = await parts.reader.after(channel, seq, limit)
        if seq > end.seq and seq > await parts.reader.extent(channel):
            return await self._page(parts, channel, Found(end.epoch, [], complete=False, more=False), end)
        live = parts.listening.get(channel)
        if not found.complete and live is not None and live.follows(found.epoch, seq):
            found = replace(found, complete=True)
            if found.notes:
                first = found.notes[0].publication
                first.prev = None if first.seq == seq + 1 else seq
        # Who stands where nothing follows stands at the end, wherever else that may be said to be.
        at_end = found.complete and not end.last > seq and not found.notes
        return await self._page(parts, channel, found, replace(end, seq=seq) if at_end else end)

    async def before(self, channel: str, seq: int | None, limit: int) -> Page:
        """See `Engine.before`."""
        parts = self._running()
        return await parts.reader.of_one_log(channel, partial(self._before, parts, channel, seq, limit))

    async def _before(self, parts: _Parts, channel: str, seq: int | None, limit: int) -> Page:
        end = await parts.reader.end(channel)
        # No more than there was then: the page and the position belong together.
        beyond = end.last + 1 if seq is None else min(seq, end.last + 1)
        return await self._page(parts, channel, await parts.reader.before(channel, beyond, limit), end)

    async def _page(self, parts: _Parts, channel: str, found: Found, end: Ends) -> Page:
        publications = [note.publication for note in found.notes]
        newest = (publications[-1].seq or 0) if publications else 0
        # What is in the answer must have been told before; and what is up to its position, where somebody may begin, or
        # has got to on another node.
        await parts.listening.told(channel, found.epoch, max(newest, end.last))
        position = Position(found.epoch, max(end.seq, newest))
        return Page(publications, position, complete=found.complete, more=found.more)

    # -------------------------------------------------------------------------------------------- listening

    async def listen(self, channels: Sequence[str]) -> None:
        """See `Engine.listen`."""
        await self._running().listening.listen(channels)

    async def unlisten(self, channels: Sequence[str]) -> None:
        """See `Engine.unlisten`: NATS is told a second later, for whoever comes back at once."""
        self._running().listening.unlisten(channels)

    # ------------------------------------------------------------------------------------ rooms and cursors

    async def enter(self, channel: str, user: str, session: str, now: int, capacity: int) -> bool:
        """See `Engine.enter`."""
        return await self._running().rooms.enter(channel, user, session, now, capacity)

    async def leave(self, channel: str, user: str, session: str, seen: int = 0) -> bool:
        """See `Engine.leave`."""
        return await self._running().rooms.leave(channel, user, session, seen)

    async def members(self, channel: str, limit: int) -> tuple[list[Member], int]:
        """See `Engine.members`."""
        return await self._running().rooms.members(channel, limit)

    async def places(self, channel: str, user: str) -> list[Place]:
        """See `Engine.places`."""
        return await self._running().rooms.places(channel, user)

    async def last_seen(self, user: str) -> int | None:
        """See `Engine.last_seen`."""
        return await self._running().rooms.last_seen(user)

    async def cursor(self, user: str) -> int | None:
        """See `Engine.cursor`."""
        return await self._running().cursors.get(user)

    async def set_cursor(self, user: str, seq: int) -> list[Publication] | None:
        """See `Engine.set_cursor`."""
        return await self._running().cursors.move(user, seq)

    # ----------------------------------------------------------------------------------------- housekeeping

    def _looks(self, parts: _Parts) -> tuple[Callable[[float], None], ...]:
        self._looked = asyncio.get_running_loop().time()
        return (
            parts.link.tick,
            parts.publishing.tick,
            parts.listening.tick,
            *parts.rooms.ticks,
            partial(self._look, parts),
        )

    def _look(self, parts: _Parts, now: float) -> None:
        due = now - self._looked > _LOOK or parts.streams.doubted
        if due and parts.link.serves and (self._looking is None or self._looking.done()):
            self._looked = now
            self._looking = asyncio.get_running_loop().create_task(self._look_at_streams(parts))

    async def _look_at_streams(self, parts: _Parts) -> None:
        try:
            await parts.streams.look_at_all()
        except HubbubError as error:
            # It is tried again, and whoever publishes is told.
            log.warning("the streams could not be looked at: %s", error)
        except Exception:
            log.exception("the streams could not be looked at")

    async def _look_again(self, parts: _Parts) -> None:
        """There is a connection again: what is there?"""
        await parts.streams.look_at_all()
        await parts.rooms.look()
        kinds = {stream.kind: stream for stream in parts.listening.streams()}
        firsts = await asyncio.gather(*(parts.reader.first(stream) for stream in kinds.values()))
        self._firsts = dict(zip(kinds, firsts, strict=True))

    def _again(self, parts: _Parts) -> None:
        parts.listening.again(self._firsts)
        parts.rooms.again()

    def sweep(self) -> None:
        """JetStream forgets by itself."""

    def statistics(self) -> NatsStatistics:
        """How much waits, and how much is heard."""
        parts = self._parts
        if parts is None:
            return NatsStatistics(0, 0, 0, 0, 0)
        garbage = parts.listening.garbage + parts.reader.garbage + parts.rooms.garbage
        return NatsStatistics(
            parts.link.waiting, len(parts.listening), len(parts.rooms), parts.listening.fills, garbage
        )

    def _running(self) -> _Parts:
        if not self._runs or self._parts is None:
            raise Unavailable("the engine is not running")
        return self._parts


class _Parts:
    """What an engine that runs is made of."""

    def __init__(self, engine: Any, node: str, listener: Listener) -> None:
        places, run = engine._places, engine._run
        self.link = Link(engine._address, f"hubbub-{node}", run)
        self.streams = Streams(self.link, places.prefix, engine._limits, engine._replicas)
        self.gets = Gets(self.link, self.streams)
        self.reader = Reader(self.gets, self.streams, places)
        self.listening = Listening(self.link, self.reader, places, run)
        self.publishing = Publishing(self.link, self.streams, places, self.listening, run)
        self.cursors = Cursors(self.link, self.streams, self.gets, self.reader, places.prefix)
        self.rooms = Rooms(self.link, self.streams, self.gets, places.prefix, node, engine._lease, listener)
        self.link.away = self._away
        self.streams.lost = self._lost
        self.link.subscribe(places.control, self._told)

    def _away(self) -> None:
        """There is no connection any more."""
        self.gets.away()
        self.publishing.away()

    def _lost(self, stream: Stream) -> None:
        """A stream is not the one that it was."""
        self.listening.begin_anew(stream)
        self.rooms.lost(stream)

    def _told(self, head: bytes, body: bytes) -> None:
        """Another node has found that a stream has lost something."""
        self.streams.told(body)
