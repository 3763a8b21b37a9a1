"""The engine on Redis: channels that many nodes share, each publication one step in Redis.

What a node publishes comes back to it by the bus, like everybody else's, and its sender is answered in that moment; so
there is one order, which is Redis'. Who listens is told from the bus as long as that brings everything, and from the
log where it does not.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
from collections.abc import Callable, Sequence
from functools import partial
from zlib import crc32

from msgspec import Struct

from hubbub.core import record
from hubbub.core.log import HistoryLimits, Page, Retention
from hubbub.engines.base import Accepted, Capabilities, Listener
from hubbub.engines.redis.address import Address
from hubbub.engines.redis.connection import Refused
from hubbub.engines.redis.node import Load, Node
from hubbub.engines.redis.partition import Partition
from hubbub.engines.redis.places import all_places
from hubbub.engines.redis.scripts import ACCEPTED, ACKNOWLEDGE
from hubbub.engines.shared.answers import settle
from hubbub.engines.shared.clock import tick
from hubbub.errors import ConfigError, Unavailable
from hubbub.protocol.envelope import Member
from hubbub.types import Place, Position, Publication, inbox_channel

__all__ = ["RedisEngine", "RedisStatistics"]

log = logging.getLogger("hubbub.engines.redis")


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
        self._places = all_places(prefix, self._address, limits, retention)
        self._lease = lease

        # What there is from `start` on, until `stop`.
        self._partitions: list[Partition] = []
        self._load = Load()
        self._ticking: asyncio.Task[None] | None = None
        self._renewing: asyncio.Task[None] | None = None

        # When the lease was renewed last; never, before the engine runs.
        self._renewed = math.inf
        # Whether it has been said that Redis drops what it has no memory for.
        self._warned = False

    # ------------------------------------------------------------------------------- starting and stopping

    async def start(self, listener: Listener, node: str) -> None:
        """See `Engine.start`; raises `ConfigError`."""
        this = Node(node, self._lease, str(self._address), self._inspect, listener)
        self._partitions = [Partition(self._address, places, self._limits, this) for places in self._places]
        self._load = this.load
        self._ticking = asyncio.get_running_loop().create_task(tick((self._look,), log))
        try:
            opened = await asyncio.gather(*(one.open() for one in self._partitions), return_exceptions=True)
            for failed in opened:
                if failed is not None:
                    raise failed
        except (OSError, Refused, Unavailable) as error:
            await self.stop()
            raise ConfigError(self._why_not(error)) from None
        except BaseException:
            await self.stop()
            raise
        for one in self._partitions:
            one.listening.listener = listener
        self._renewed = asyncio.get_running_loop().time()

    async def stop(self) -> None:
        """See `Engine.stop`: what was asked for is answered before."""
        partitions, self._partitions = self._partitions, []
        for one in partitions:
            one.listening.listener = None
        for task in (self._ticking, self._renewing):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await asyncio.gather(*(one.close() for one in partitions))

    def _inspect(self, about: dict[str, str]) -> None:
        version = about.get("redis_version", "0")
        parts = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
        if parts < (6, 2):
            raise ConfigError(f"Redis at {self._address} is version {version}: 6.2 or newer is needed")
        # The one is Redis' word, the other Valkey's.
        cluster = "cluster" in (about.get("redis_mode"), about.get("server_mode"))
        if cluster and not self._address.cluster:
            raise ConfigError(f"Redis at {self._address} is a cluster: write redis+cluster:// in the engine's URL")
        if cluster and parts < (7,):
            raise ConfigError(f"Redis at {self._address} is version {version}: in a cluster 7.0 or newer is needed")
        policy = about.get("maxmemory_policy", "noeviction")
        if policy != "noeviction" and about.get("maxmemory", "0") != "0" and not self._warned:
            self._warned = True
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
        if "cluster support disabled" in said:
            return f"{where} is no cluster: write redis:// in the engine's URL"
        if said.startswith("NOPERM"):
            return f"{where} does not allow what the engine needs: {said}"
        return f"{where} cannot be used ({said}): start it, or name another with --engine or HUBBUB_ENGINE"

    async def check(self) -> None:
        """See `Engine.check`: on a channel of the node's own in each partition, and back by the bus."""
        if not self._partitions:
            raise Unavailable("the engine is not running")
        await asyncio.gather(*(one.check() for one in self._partitions))

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
        self._of(channel).submit(channel, publication, volatile, origin, done)

    async def accepted(self, channel: str, from_: str, id: str) -> Accepted | None:
        """See `Engine.accepted`."""
        one = self._of(channel)
        place, window = one.places.of(channel), int(self._limits.dedupe_window * 1000)
        found = await one.commands.call(ACCEPTED, place.keys, place.kept, place.age, window, f"{from_}\0{id}")
        return Accepted(found[0].decode(), found[1], True) if found else None

    # ---------------------------------------------------------------------------------------------- reading

    async def position(self, channel: str) -> Position:
        """See `Engine.position`."""
        found = await self._of(channel).read(channel, "position", None, 0)
        return Position(found.epoch, found.seq)

    async def after(self, channel: str, seq: int, limit: int) -> Page:
        """See `Engine.after`."""
        found = await self._of(channel).read(channel, "after", seq, limit)
        complete = found.dropped <= seq <= found.seq
        return Page(found.publications, Position(found.epoch, found.seq), complete=complete, more=found.more)

    async def before(self, channel: str, seq: int | None, limit: int) -> Page:
        """See `Engine.before`."""
        found = await self._of(channel).read(channel, "before", seq, limit)
        return Page(found.publications, Position(found.epoch, found.seq), complete=True, more=found.more)

    # -------------------------------------------------------------------------------------------- listening

    async def listen(self, channels: Sequence[str]) -> None:
        """See `Engine.listen`."""
        parts = self._apart(channels)
        if len(parts) == 1:
            (one,) = parts
            return await one.listening.listen(channels)
        try:
            await asyncio.gather(*(one.listening.listen(its) for one, its in parts.items()))
        except BaseException:
            # All of them, or none.
            for one, its in parts.items():
                one.listening.unlisten(its)
            raise

    async def unlisten(self, channels: Sequence[str]) -> None:
        """See `Engine.unlisten`: Redis is told a second later, for whoever comes back at once."""
        for one, its in self._apart(channels).items():
            one.listening.unlisten(its)

    # ------------------------------------------------------------------------------------ rooms and cursors

    async def enter(self, channel: str, user: str, session: str, now: int, capacity: int) -> bool:
        """See `Engine.enter`."""
        return await self._of(channel).rooms.enter(channel, user, session, now, capacity)

    async def leave(self, channel: str, user: str, session: str, seen: int = 0) -> bool:
        """See `Engine.leave`."""
        return await self._of(channel).rooms.leave(channel, user, session, seen)

    async def members(self, channel: str, limit: int) -> tuple[list[Member], int]:
        """See `Engine.members`."""
        return await self._of(channel).rooms.members(channel, limit)

    async def places(self, channel: str, user: str) -> list[Place]:
        """See `Engine.places`."""
        return await self._of(channel).rooms.places(channel, user)

    async def last_seen(self, user: str) -> int | None:
        """See `Engine.last_seen`."""
        return await self._of(inbox_channel(user)).rooms.last_seen(user)

    async def cursor(self, user: str) -> int | None:
        """See `Engine.cursor`."""
        channel = inbox_channel(user)
        one = self._of(channel)
        found = await one.commands.ask("HGET", one.places.of(channel).keys[1], "cursor")
        return None if found is None else int(found)

    async def set_cursor(self, user: str, seq: int) -> list[Publication] | None:
        """See `Engine.set_cursor`."""
        channel = inbox_channel(user)
        one = self._of(channel)
        place = one.places.of(channel)
        # By its name Redis knows a call that is made again because its answer was lost, and gives the same one.
        name = secrets.token_hex(8)
        found = await one.commands.call(ACKNOWLEDGE, place.keys, place.kept, place.age, seq, name)
        if not found:
            return None
        due = []
        for place_, body in zip(found[1::2], found[2::2], strict=True):
            publication = record.decode(body)
            publication.seq = int(place_)
            due.append(publication)
        return due

    # ----------------------------------------------------------------------------------------- housekeeping

    def _look(self, now: float) -> None:
        for one in self._partitions:
            one.tick(now)
        if now - self._renewed > self._lease / 4 and (self._renewing is None or self._renewing.done()):
            self._renewed = now
            self._renewing = asyncio.get_running_loop().create_task(self._renew())

    async def _renew(self) -> None:
        await asyncio.gather(*(one.renew() for one in self._partitions))

    def sweep(self) -> None:
        """Redis forgets by itself."""

    def statistics(self) -> RedisStatistics:
        """How much waits, and how much is heard."""
        parts = self._partitions
        return RedisStatistics(
            self._load.commands,
            sum(len(one.listening) for one in parts),
            sum(len(one.rooms) for one in parts),
            sum(one.listening.fills for one in parts),
            sum(one.listening.garbage + one.reader.garbage for one in parts),
        )

    # -------------------------------------------------------------------------------------- small questions

    def _of(self, channel: str) -> Partition:
        """Where `channel` is; raises `Unavailable` where the engine does not run."""
        partitions = self._partitions
        if len(partitions) == 1:
            return partitions[0]
        if not partitions:
            raise Unavailable("the engine is not running")
        # On every node the same, as long as there are channels.
        return partitions[crc32(channel.encode()) % len(partitions)]

    def _apart(self, channels: Sequence[str]) -> dict[Partition, list[str]]:
        """`channels` by where they are."""
        parts: dict[Partition, list[str]] = {}
        for channel in channels:
            parts.setdefault(self._of(channel), []).append(channel)
        return parts
