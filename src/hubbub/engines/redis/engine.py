"""The engine on Redis: channels that many nodes share, each publication one step in Redis.

What a node publishes comes back to it by the bus, like everybody else's, and its sender is answered in that moment; so
there is one order, which is Redis'. Who listens is told from the bus as long as that brings everything, and from the
log where it does not.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, Final

import msgspec
from msgspec import Struct

from hubbub.core import record
from hubbub.core.log import HistoryLimits, Page, Retention
from hubbub.engines.base import Accepted, Capabilities, Listener
from hubbub.engines.redis.address import Address
from hubbub.engines.redis.bus import Bus, Note, volatile_note
from hubbub.engines.redis.commands import Command, Commands, settle, unknown
from hubbub.engines.redis.connection import Refused
from hubbub.engines.redis.live import Ears, Entries, Live, Submission
from hubbub.engines.redis.rooms import Rooms
from hubbub.engines.redis.scripts import ACCEPTED, ACKNOWLEDGE, PUBLISH, READ
from hubbub.errors import ConfigError, Unavailable
from hubbub.protocol.envelope import Member
from hubbub.types import Position, Publication, inbox_channel

__all__ = ["RedisEngine", "RedisStatistics"]

log = logging.getLogger("hubbub.engines.redis")

# Seconds between two looks at everything that has a deadline.
_TICK: Final = 0.05
# Seconds after which what the bus has not brought is looked for in the log.
_LATE: Final = 0.1
# Seconds after which nobody waits any longer for what cannot be had.
_PATIENCE: Final = 2.0
# Seconds for which a channel is still heard when nobody listens: whoever comes back at once finds it.
_LINGER: Final = 1.0
# Seconds in which each channel that is listened to is compared with its log once.
_ROUND: Final = 60.0
# Publications of one reading that fills a gap.
_PAGE: Final = 200
# Milliseconds for which a channel's head is kept beyond what is in it; it is touched once in each round.
_REST: Final = 3_600_000
# Channels whose names of keys are remembered.
_PLACES: Final = 20_000


class RedisStatistics(Struct, frozen=True):
    """The state of an engine on Redis at one moment."""

    # Commands on their way, channels that are heard, rooms that this node has somebody in.
    commands: int
    listening: int
    rooms: int
    # How often the log had to be read because the bus had lost something, and what it brought that nobody could read.
    fills: int
    garbage: int


class _Place(Struct, frozen=True):
    """Where a channel is in Redis, and how much of it is kept."""

    keys: tuple[str, ...]
    bus: str
    # Number of publications, and milliseconds: of the head, and of each publication.
    size: int
    kept: int
    age: int


class RedisEngine:
    """Channels in the Redis at `url`: `seq` counts by one, and an `ack` means "in Redis".

    Raises `ConfigError` for a URL that cannot be read; `start` for a Redis that is not there, or cannot be used.
    """

    def __init__(
        self,
        url: str,
        limits: HistoryLimits = HistoryLimits(),  # frozen
        *,
        prefix: str = "hubbub:",
        retention: Callable[[str], Retention] | None = None,
        lease: float = 10.0,
    ) -> None:
        """`lease`: seconds after which a node that is heard no more is out of all rooms."""
        self.capabilities = Capabilities(durable=True, shared=True, lease=lease)
        self._address = Address.parse(url)
        self._limits = limits
        self._retention = retention or limits.retention
        self._prefix = prefix
        self._lease = lease
        self._place = lru_cache(_PLACES)(self._make_place)

        # This start of this node, which no other has or had.
        self._node = secrets.token_hex(6)
        self._canary = f"server:canary:{self._node}"
        self._submitted = 0
        # Publications on that channel that came by the bus.
        self._canaries = 0

        # Set while it runs.
        self._commands: Commands | None = None
        self._bus: Bus | None = None
        self._rooms: Rooms | None = None
        self._listener: Listener | None = None
        self._ticking: asyncio.Task[None] | None = None
        self._renewing: asyncio.Task[None] | None = None

        # What is heard, by channel and by bus; in the order of the last comparison with the log.
        self._live: dict[str, Live] = {}
        self._by_bus: dict[str, Live] = {}
        # Channels that nobody listens to any more, with when they need not be heard either.
        self._leaving: dict[str, float] = {}
        # Channels where somebody waits for what should have been told.
        self._waiting: dict[Live, None] = {}

        self._ears = Ears(self._tell, self._lost, self._fill)
        self._checked = 0.0
        self._renewed = 0.0
        self._fills = 0
        self._garbage = 0

    # ------------------------------------------------------------------------------- starting and stopping

    async def start(self, listener: Listener) -> None:
        """See `Engine.start`; raises `ConfigError`."""
        store, control = f"{self._prefix}store", f"{self._prefix}control:{self._address.database}"
        commands = self._commands = Commands(self._address, self._node, store, control, self._inspect)
        bus = self._bus = Bus(self._address, self._node, self._heard, self._rejoined)
        self._rooms = Rooms(commands, self._prefix, store, self._node, self._lease)
        self._control = control
        try:
            await commands.open()
            await bus.open()
            self._ticking = asyncio.get_running_loop().create_task(self._tick())
            await bus.subscribe([control])
            await self._rooms.renew()
            await self.listen([self._canary])
        except (OSError, Refused, Unavailable) as error:
            await self.stop()
            raise ConfigError(self._why_not(error)) from None
        except BaseException:
            await self.stop()
            raise
        self._listener = listener

    async def stop(self) -> None:
        """See `Engine.stop`: what was asked for is answered before."""
        self._listener = None
        commands, self._commands = self._commands, None
        bus, self._bus = self._bus, None
        rooms, self._rooms = self._rooms, None
        if commands is None or bus is None or rooms is None:
            return
        try:
            await rooms.go()
        except Unavailable:
            # The lease ends by itself.
            log.warning("Redis could not be told that this node ends: others see it in %d seconds", self._lease)
        for task in (self._ticking, self._renewing):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await bus.close()
        await commands.close()
        for live in list(self._live.values()):
            self._forget(live)

    def _inspect(self, about: dict[str, str]) -> None:
        version = about.get("redis_version", "0")
        if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < (6, 2):
            raise ConfigError(f"Redis at {self._address} is version {version}: 6.2 or newer is needed")
        if about.get("redis_mode") == "cluster":
            raise ConfigError(f"Redis at {self._address} is a cluster, which is not supported: name a single Redis")
        policy = about.get("maxmemory_policy", "noeviction")
        if policy != "noeviction" and about.get("maxmemory", "0") != "0":
            log.warning(
                "Redis at %s drops what it has no memory for (maxmemory-policy %s), logs and rooms too: "
                "set it to noeviction",
                self._address,
                policy,
            )

    def _why_not(self, error: Exception) -> str:
        said = str(error)
        where = f"Redis at {self._address}"
        if said.startswith(("WRONGPASS", "NOAUTH", "ERR AUTH", "ERR invalid password")):
            return f"{where} does not take the password: write redis://user:password@… in HUBBUB_ENGINE"
        if said.startswith("ERR DB index"):
            return f"{where} has no database {self._address.database}: choose another at the end of the URL"
        if said.startswith("NOPERM"):
            return f"{where} does not allow what the engine needs: {said}"
        return f"{where} cannot be used ({said}): start it, or name another with --engine or HUBBUB_ENGINE"

    async def check(self) -> None:
        """See `Engine.check`: something is published on a channel of the node's own, and comes back by the bus."""
        heard = self._canaries
        # Answered when it was heard; or when it was not, and found in the log.
        await self.publish(self._canary, Publication("canary"))
        if self._canaries == heard:
            raise Unavailable("what is published in Redis is not heard here")

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
        """See `Engine.publish_now`: everything goes to Redis and back."""
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
        commands = self._commands
        if commands is None:
            raise Unavailable("the engine is not running")
        place = self._place(channel)
        # Redis gives it its number.
        publication.seq = None
        body = record.encode(publication)
        live = self._live.get(channel)
        tag = ""
        if live is not None and live.wanted:
            self._submitted += 1
            tag = f"{self._node}.{self._submitted}"
        submission = Submission(publication, tag, done)
        answered = partial(self._answered, submission, live if tag else None)
        size = 500 + len(body)
        if volatile:
            command = Command(
                None,
                (),
                ("PUBLISH", place.bus, volatile_note(tag, origin, body)),
                answered,
                again=False,
                lost=unknown,
                size=size,
            )
        else:
            limits, id = self._limits, publication.id
            args = (
                place.kept,
                place.age,
                place.size,
                int(limits.dedupe_window * 1000),
                limits.dedupe_size,
                "" if id is None else f"{publication.from_}\0{id}",
                int(publication.receipt),
                place.bus,
                tag,
                origin or "",
                body,
            )
            # With an id Redis knows a second time for one.
            command = Command(PUBLISH, place.keys, args, answered, again=id is not None, lost=unknown, size=size)
        commands.put(command)
        if tag and live is not None:
            live.submissions[tag] = submission

    def _answered(self, submission: Submission, live: Live | None, reply: Any) -> None:
        """Redis has taken a publication, or not."""
        if submission.done is None:
            # The bus was faster.
            return
        outcome: Accepted | Exception
        if isinstance(reply, Exception):
            outcome = reply
        elif type(reply) is int:
            outcome = Accepted(self._node, None)
        else:
            outcome = Accepted(reply[0].decode(), reply[1], bool(reply[2]))
            self._seen(reply[3])
        if live is None or isinstance(outcome, Exception) or self._live.get(live.name) is not live:
            if live is not None:
                live.finish(submission, outcome)
            else:
                submission.finish(outcome)
        else:
            live.answered(submission, outcome, asyncio.get_running_loop().time())
            self._waiting[live] = None

    async def accepted(self, channel: str, from_: str, id: str) -> Accepted | None:
        """See `Engine.accepted`."""
        place = self._place(channel)
        window = int(self._limits.dedupe_window * 1000)
        found = await self._running().call(ACCEPTED, place.keys, place.kept, place.age, window, f"{from_}\0{id}")
        return Accepted(found[0].decode(), found[1], True) if found else None

    # ---------------------------------------------------------------------------------------------- reading

    async def position(self, channel: str) -> Position:
        """See `Engine.position`."""
        found = await self._read(channel, "position", -1, 0)
        return Position(found.epoch, found.seq)

    async def after(self, channel: str, seq: int, limit: int) -> Page:
        """See `Engine.after`."""
        found = await self._read(channel, "after", seq, limit)
        complete = found.dropped <= seq <= found.seq
        return Page(found.publications, Position(found.epoch, found.seq), complete=complete, more=found.more)

    async def before(self, channel: str, seq: int | None, limit: int) -> Page:
        """See `Engine.before`."""
        found = await self._read(channel, "before", -1 if seq is None else seq, limit)
        return Page(found.publications, Position(found.epoch, found.seq), complete=True, more=found.more)

    async def _read(self, channel: str, what: str, seq: int, limit: int) -> Entries:
        found = self._entries(channel, await self._ask(channel, what, seq, limit))
        live = self._live.get(channel)
        if live is not None and live.wanted and live.epoch:
            # What is in the answer must have been told before.
            loop = asyncio.get_running_loop()
            told: asyncio.Future[None] = loop.create_future()
            live.wait(found.epoch, found.seq, partial(settle, told), loop.time())
            if not told.done():
                self._waiting[live] = None
                await told
        return found

    def _ask(self, channel: str, what: str, seq: int, limit: int) -> asyncio.Future[Any]:
        place = self._place(channel)
        return self._running().call(READ, place.keys, place.kept, place.age, what, seq, limit)

    def _entries(self, channel: str, reply: list[Any]) -> Entries:
        epoch, base, seq, dropped, count, more, *found = reply
        self._seen(count)
        publications, origins = [], []
        for place, body, origin in zip(found[::3], found[1::3], found[2::3], strict=True):
            try:
                publication = record.decode(body)
            except (msgspec.DecodeError, ValueError, IndexError):
                log.error("a message in the log of %s cannot be read, and is passed over", channel.partition(":")[0])
                self._garbage += 1
                continue
            publication.seq = place
            publications.append(publication)
            origins.append(origin.decode() or None)
        return Entries(epoch.decode(), base, seq, dropped, count, bool(more), publications, origins)

    # -------------------------------------------------------------------------------------------- listening

    async def listen(self, channels: Sequence[str]) -> None:
        """See `Engine.listen`."""
        new = []
        for channel in channels:
            self._leaving.pop(channel, None)
            live = self._live.get(channel)
            if live is None:
                place = self._place(channel)
                live = self._live[channel] = self._by_bus[place.bus] = Live(channel, place.bus, self._ears)
                new.append(live)
            live.wanted = True
        if not new:
            return
        try:
            if self._bus is None:
                raise Unavailable("the engine is not running")
            await self._bus.subscribe([live.bus for live in new])
            replies = [self._ask(live.name, "position", -1, 0) for live in new]
            for live, reply in zip(new, replies, strict=True):
                found = self._entries(live.name, await reply)
                live.open(found.epoch, found.seq)
        except BaseException:
            for live in new:
                self._forget(live)
            raise

    async def unlisten(self, channels: Sequence[str]) -> None:
        """See `Engine.unlisten`: Redis is told a second later, for whoever comes back at once."""
        until = asyncio.get_running_loop().time() + _LINGER
        for channel in channels:
            live = self._live.get(channel)
            if live is not None:
                live.wanted = False
                self._leaving[channel] = until

    def _forget(self, live: Live) -> None:
        if self._live.get(live.name) is live:
            del self._live[live.name], self._by_bus[live.bus]
        self._waiting.pop(live, None)
        self._leaving.pop(live.name, None)
        live.close()
        if self._bus is not None:
            self._bus.unsubscribe([live.bus])

    def _heard(self, bus: str, data: bytes) -> None:
        """Something came by the bus."""
        live = self._by_bus.get(bus)
        try:
            if live is not None:
                note = Note.read(data)
                # Of another run it would say nothing about what is lost with this one.
                if self._bus is not None and self._commands is not None and self._bus.run == self._commands.run:
                    self._seen(note.count)
                if live.name == self._canary:
                    self._canaries += 1
                live.heard(note)
            elif bus == self._control and data == b"lost":
                if self._commands is not None:
                    self._commands.count = 0
                self._check_all()
        except (ValueError, IndexError, msgspec.DecodeError):
            if not self._garbage:
                log.error("something came by the bus that no node of this version says, and is ignored")
            self._garbage += 1
        except Exception:
            # A fault of ours, or of the node's: what it was about is read from the log.
            log.exception("what came by the bus could not be told")
            if live is not None:
                live.fill()

    def _tell(self, channel: str, publication: Publication, origin: str | None) -> None:
        if self._listener is not None and channel != self._canary:
            self._listener.publication(channel, publication, origin, None)

    def _lost(self, channel: str) -> None:
        if self._listener is not None and channel != self._canary:
            self._listener.lost(channel)

    def _fill(self, live: Live) -> None:
        """Read the log of `live` after what has been told."""
        commands, place = self._commands, self._place(live.name)
        self._waiting[live] = None

        def answered(reply: Any) -> None:
            try:
                if isinstance(reply, Exception):
                    raise reply
                found = self._entries(live.name, reply)
            except BaseException as error:
                live.failed()
                if not isinstance(error, Unavailable):
                    raise
            else:
                live.filled(found)

        try:
            if commands is None:
                raise Unavailable
            args = (place.kept, place.age, "after", live.told, _PAGE)
            commands.put(Command(READ, place.keys, args, answered))
        except Unavailable:
            live.failed()

    # ------------------------------------------------------------------------------------ rooms and cursors

    async def enter(self, channel: str, user: str, session: str, now: int, capacity: int) -> bool:
        """See `Engine.enter`."""
        return await self._in_rooms().enter(channel, user, session, now, capacity)

    async def leave(self, channel: str, user: str, session: str) -> bool:
        """See `Engine.leave`."""
        return await self._in_rooms().leave(channel, user, session)

    async def members(self, channel: str, limit: int) -> tuple[list[Member], int]:
        """See `Engine.members`."""
        return await self._in_rooms().members(channel, limit)

    async def cursor(self, user: str) -> int | None:
        """See `Engine.cursor`."""
        found = await self._running().ask("HGET", self._place(inbox_channel(user)).keys[1], "cursor")
        return None if found is None else int(found)

    async def set_cursor(self, user: str, seq: int) -> list[Publication] | None:
        """See `Engine.set_cursor`."""
        place = self._place(inbox_channel(user))
        # By its name Redis knows a call that is made again because its answer was lost, and gives the same one.
        name = secrets.token_hex(8)
        found = await self._running().call(ACKNOWLEDGE, place.keys, place.kept, place.age, seq, name)
        if not found:
            return None
        due = []
        for place_, body in zip(found[1::2], found[2::2], strict=True):
            publication = record.decode(body)
            publication.seq = int(place_)
            due.append(publication)
        return due

    # ----------------------------------------------------------------------------------------- housekeeping

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        self._checked = self._renewed = loop.time()
        while True:
            await asyncio.sleep(_TICK)
            try:
                self._look(loop.time())
            except Exception:
                # A fault of ours, in one look: the next one must come.
                log.exception("the engine's clock failed")

    def _look(self, now: float) -> None:
        if self._commands is None or self._bus is None:
            return
        self._commands.tick(now)
        self._bus.tick(now)
        for live in list(self._waiting):
            live.give_up(now - _PATIENCE)
            late = live.late
            if live.behind or (late is not None and now - late > _LATE):
                self._fills += 1
                live.fill()
            elif late is None:
                del self._waiting[live]
        for channel, until in list(self._leaving.items()):
            if until > now:
                break
            self._forget(self._live[channel])
        # A part of all channels each time, so that each has its turn in one round.
        part = len(self._live) * (now - self._checked) / _ROUND
        if part >= 1:
            self._checked = now
            for live in [live for live, _ in zip(self._live.values(), range(int(part)), strict=False)]:
                self._live[live.name] = self._live.pop(live.name)
                live.fill()
        if now - self._renewed > self._lease / 4 and (self._renewing is None or self._renewing.done()):
            self._renewed = now
            self._renewing = asyncio.get_running_loop().create_task(self._renew())

    async def _renew(self) -> None:
        try:
            if self._rooms is not None:
                await self._rooms.renew()
        except Unavailable:
            # It has been said, and there is a next time.
            pass
        except Exception:
            log.exception("the lease of this node could not be renewed")

    def _check_all(self) -> None:
        """Something may have been missed on all channels."""
        for live in list(self._live.values()):
            live.fill()

    def _rejoined(self) -> None:
        """The bus is heard again after an interruption."""
        for live in list(self._live.values()):
            live.rejoined()
            live.fill()

    def sweep(self) -> None:
        """Redis forgets by itself."""

    def statistics(self) -> RedisStatistics:
        """How much waits, and how much is heard."""
        commands = 0 if self._commands is None else self._commands.waiting
        rooms = 0 if self._rooms is None else len(self._rooms)
        return RedisStatistics(commands, len(self._live), rooms, self._fills, self._garbage)

    # -------------------------------------------------------------------------------------- small questions

    def _running(self) -> Commands:
        if self._commands is None:
            raise Unavailable("the engine is not running")
        return self._commands

    def _in_rooms(self) -> Rooms:
        if self._rooms is None:
            raise Unavailable("the engine is not running")
        return self._rooms

    def _seen(self, count: int) -> None:
        if self._commands is not None and count > self._commands.count:
            self._commands.count = count

    def _make_place(self, channel: str) -> _Place:
        retention = self._retention(channel)
        if channel == self._canary:
            retention = Retention(size=1, age=60.0)
        key = f"{self._prefix}{{{channel}}}:"
        age = max(1, int(retention.age * 1000))
        return _Place(
            (f"{self._prefix}store", *(key + part for part in ("head", "log", "ids", "ids-before", "due"))),
            f"{key}bus:{self._address.database}",
            retention.size,
            max(age, int(self._limits.dedupe_window * 2000)) + _REST,
            age,
        )
