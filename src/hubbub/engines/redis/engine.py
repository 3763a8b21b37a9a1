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
from functools import partial
from typing import Any, Final

from msgspec import Struct

from hubbub.core import record
from hubbub.core.log import HistoryLimits, Page, Retention
from hubbub.engines.base import Accepted, Capabilities, Listener
from hubbub.engines.redis.address import Address
from hubbub.engines.redis.bus import Bus, volatile_note
from hubbub.engines.redis.commands import Command, Commands, settle, unknown
from hubbub.engines.redis.connection import Refused
from hubbub.engines.redis.listening import Listening
from hubbub.engines.redis.live import Entries, Live, Submission
from hubbub.engines.redis.places import Places, canary
from hubbub.engines.redis.reading import Reader
from hubbub.engines.redis.rooms import Rooms
from hubbub.engines.redis.scripts import ACCEPTED, ACKNOWLEDGE, PUBLISH
from hubbub.errors import ConfigError, Unavailable
from hubbub.protocol.envelope import Member
from hubbub.types import Place, Position, Publication, inbox_channel

__all__ = ["RedisEngine", "RedisStatistics"]

log = logging.getLogger("hubbub.engines.redis")

# Seconds between two looks at everything that has a deadline.
_TICK: Final = 0.05


class RedisStatistics(Struct, frozen=True):
    """The state of an engine on Redis at one moment."""

    # Commands on their way, channels that are heard, rooms that this node has somebody in.
    commands: int
    listening: int
    rooms: int
    # How often the log had to be read because the bus had lost something, and what it brought that nobody could read.
    fills: int
    garbage: int


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
        self._places = Places(prefix, self._address.database, limits, retention)
        self._prefix = prefix
        self._lease = lease

        # What `start` was given.
        self._node = ""
        self._submitted = 0

        # What there is from `start` on.
        self._runs = False
        self._commands: Commands | None = None
        self._bus: Bus | None = None
        self._reader: Reader | None = None
        self._listening: Listening | None = None
        self._rooms: Rooms | None = None
        self._ticking: asyncio.Task[None] | None = None
        self._renewing: asyncio.Task[None] | None = None

        self._renewed = 0.0

    # ------------------------------------------------------------------------------- starting and stopping

    async def start(self, listener: Listener, node: str) -> None:
        """See `Engine.start`; raises `ConfigError`."""
        places = self._places
        self._node = node
        commands = self._commands = Commands(self._address, node, places.store, places.control, self._inspect)
        bus = self._bus = Bus(self._address, node)
        reader = self._reader = Reader(commands, places)
        listening = self._listening = Listening(commands, bus, reader, places)
        rooms = self._rooms = Rooms(commands, self._prefix, places.store, node, self._lease, listener.gone)
        self._runs = True
        try:
            await commands.open()
            await bus.open()
            self._ticking = asyncio.get_running_loop().create_task(self._tick())
            await bus.subscribe([places.control])
            await rooms.begin()
            await listening.listen([canary(node)])
        except (OSError, Refused, Unavailable) as error:
            await self.stop()
            raise ConfigError(self._why_not(error)) from None
        except BaseException:
            await self.stop()
            raise
        listening.listener = listener

    async def stop(self) -> None:
        """See `Engine.stop`: what was asked for is answered before."""
        commands, bus, rooms, listening = self._commands, self._bus, self._rooms, self._listening
        if not self._runs or commands is None or bus is None or rooms is None or listening is None:
            return
        self._runs = False
        listening.listener = None
        for task in (self._ticking, self._renewing):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await bus.close()
        await commands.close()
        listening.close()

    def _inspect(self, about: dict[str, str]) -> None:
        version = about.get("redis_version", "0")
        if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < (6, 2):
            raise ConfigError(f"Redis at {self._address} is version {version}: 6.2 or newer is needed")
        # The one is Redis' word, the other Valkey's.
        if "cluster" in (about.get("redis_mode"), about.get("server_mode")):
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
        listening = self._heard()
        heard = listening.canaries
        # Answered when it was heard; or when it was not, and found in the log.
        await self.publish(canary(self._node), Publication("canary"))
        if listening.canaries == heard:
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
        commands, place = self._running(), self._places.of(channel)
        # Redis gives it its number.
        publication.seq = None
        body = record.encode(publication)
        live = self._heard().get(channel)
        tag = ""
        if live is not None:
            self._submitted += 1
            tag = f"{self._node}.{self._submitted}"
        submission = Submission(publication, tag, done)
        answered = partial(self._answered, commands, submission, live)
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
        if live is not None:
            live.submissions[tag] = submission

    def _answered(self, commands: Commands, submission: Submission, live: Live | None, reply: Any) -> None:
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
            commands.seen(reply[3])
        if live is None:
            submission.finish(outcome)
        elif isinstance(outcome, Exception) or not live.epoch:
            live.finish(submission, outcome)
        else:
            live.answered(submission, outcome, asyncio.get_running_loop().time())
            if self._listening is not None:
                self._listening.watch(live)

    async def accepted(self, channel: str, from_: str, id: str) -> Accepted | None:
        """See `Engine.accepted`."""
        place = self._places.of(channel)
        window = int(self._limits.dedupe_window * 1000)
        found = await self._running().call(ACCEPTED, place.keys, place.kept, place.age, window, f"{from_}\0{id}")
        return Accepted(found[0].decode(), found[1], True) if found else None

    # ---------------------------------------------------------------------------------------------- reading

    async def position(self, channel: str) -> Position:
        """See `Engine.position`."""
        found = await self._read(channel, "position", None, 0)
        return Position(found.epoch, found.seq)

    async def after(self, channel: str, seq: int, limit: int) -> Page:
        """See `Engine.after`."""
        found = await self._read(channel, "after", seq, limit)
        complete = found.dropped <= seq <= found.seq
        return Page(found.publications, Position(found.epoch, found.seq), complete=complete, more=found.more)

    async def before(self, channel: str, seq: int | None, limit: int) -> Page:
        """See `Engine.before`."""
        found = await self._read(channel, "before", seq, limit)
        return Page(found.publications, Position(found.epoch, found.seq), complete=True, more=found.more)

    async def _read(self, channel: str, what: str, seq: int | None, limit: int) -> Entries:
        self._running()
        assert self._reader is not None
        found = await self._reader.read(channel, what, seq, limit)
        # What is in the answer must have been told before.
        await self._heard().told(channel, found)
        return found

    # -------------------------------------------------------------------------------------------- listening

    async def listen(self, channels: Sequence[str]) -> None:
        """See `Engine.listen`."""
        await self._heard().listen(channels)

    async def unlisten(self, channels: Sequence[str]) -> None:
        """See `Engine.unlisten`: Redis is told a second later, for whoever comes back at once."""
        self._heard().unlisten(channels)

    # ------------------------------------------------------------------------------------ rooms and cursors

    async def enter(self, channel: str, user: str, session: str, now: int, capacity: int) -> bool:
        """See `Engine.enter`."""
        return await self._in_rooms().enter(channel, user, session, now, capacity)

    async def leave(self, channel: str, user: str, session: str, seen: int = 0) -> bool:
        """See `Engine.leave`."""
        return await self._in_rooms().leave(channel, user, session, seen)

    async def members(self, channel: str, limit: int) -> tuple[list[Member], int]:
        """See `Engine.members`."""
        return await self._in_rooms().members(channel, limit)

    async def places(self, channel: str, user: str) -> list[Place]:
        """See `Engine.places`."""
        return await self._in_rooms().places(channel, user)

    async def last_seen(self, user: str) -> int | None:
        """See `Engine.last_seen`."""
        return await self._in_rooms().last_seen(user)

    async def cursor(self, user: str) -> int | None:
        """See `Engine.cursor`."""
        found = await self._running().ask("HGET", self._places.of(inbox_channel(user)).keys[1], "cursor")
        return None if found is None else int(found)

    async def set_cursor(self, user: str, seq: int) -> list[Publication] | None:
        """See `Engine.set_cursor`."""
        place = self._places.of(inbox_channel(user))
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
        self._renewed = loop.time()
        while True:
            await asyncio.sleep(_TICK)
            try:
                self._look(loop.time())
            except Exception:
                # A fault of ours, in one look: the next one must come.
                log.exception("the engine's clock failed")

    def _look(self, now: float) -> None:
        for part in (self._commands, self._bus, self._listening):
            if part is not None:
                part.tick(now)
        self._agree(now)
        if now - self._renewed > self._lease / 4 and (self._renewing is None or self._renewing.done()):
            self._renewed = now
            self._renewing = asyncio.get_running_loop().create_task(self._renew())

    def _agree(self, now: float) -> None:
        """See that both connections lead to one server: what leads there may have come to lead to another one."""
        commands, bus = self._commands, self._bus
        if commands is None or bus is None or commands.run == bus.run:
            return
        older = min(commands, bus, key=lambda one: one.since)
        if commands.connection and bus.connection and older.connection and now - max(commands.since, bus.since) > 1:
            older.connection.abort("the engine's other connection leads to another server")

    async def _renew(self) -> None:
        try:
            if self._rooms is not None:
                await self._rooms.renew()
        except Unavailable:
            # It has been said, and there is a next time.
            pass
        except Exception:
            log.exception("the lease of this node could not be renewed")

    def sweep(self) -> None:
        """Redis forgets by itself."""

    def statistics(self) -> RedisStatistics:
        """How much waits, and how much is heard."""
        commands, listening, rooms, reader = self._commands, self._listening, self._rooms, self._reader
        if commands is None or listening is None or rooms is None or reader is None:
            return RedisStatistics(0, 0, 0, 0, 0)
        garbage = listening.garbage + reader.garbage
        return RedisStatistics(commands.waiting, len(listening), len(rooms), listening.fills, garbage)

    # -------------------------------------------------------------------------------------- small questions

    def _running(self) -> Commands:
        if not self._runs or self._commands is None:
            raise Unavailable("the engine is not running")
        return self._commands

    def _heard(self) -> Listening:
        self._running()
        assert self._listening is not None
        return self._listening

    def _in_rooms(self) -> Rooms:
        self._running()
        assert self._rooms is not None
        return self._rooms
