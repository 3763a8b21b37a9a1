"""Channels that are together in one place: all of them, or in a cluster those of one slot.

Each partition has connections of its own, counts its own publications and loses what it loses alone: to the others it
is another Redis.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from hubbub.core import record
from hubbub.core.log import HistoryLimits
from hubbub.engines.base import Accepted
from hubbub.engines.redis.address import Address
from hubbub.engines.redis.bus import Bus, volatile_note
from hubbub.engines.redis.commands import Command, Commands
from hubbub.engines.redis.listening import Listening
from hubbub.engines.redis.live import Entries, Live
from hubbub.engines.redis.node import Node
from hubbub.engines.redis.places import Places
from hubbub.engines.redis.reading import Reader
from hubbub.engines.redis.rooms import Rooms
from hubbub.engines.redis.scripts import PUBLISH
from hubbub.engines.shared.answers import settle, unknown
from hubbub.engines.shared.canary import canary
from hubbub.engines.shared.live import Submission
from hubbub.errors import Reject, Unavailable
from hubbub.types import Publication

__all__ = ["Partition"]

log = logging.getLogger("hubbub.engines.redis")


class Partition:
    """One partition as this node has it: what is asked of it, what it tells, and who is in its rooms."""

    def __init__(self, address: Address, places: Places, limits: HistoryLimits, node: Node) -> None:
        self.places = places
        self.commands = Commands(address, places, node)
        self.bus = Bus(address, places, node)
        self.reader = Reader(self.commands, places)
        self.listening = Listening(self.commands, self.bus, self.reader, places)
        self.rooms = Rooms(self.commands, places, node)

        self._limits = limits
        self._node = node.name
        self._submitted = 0

    async def open(self) -> None:
        """Connect, and hear what concerns all nodes; raises `OSError`, `Refused`, `ConfigError`, `Unavailable`."""
        await self.commands.open()
        await self.bus.open()
        await self.bus.subscribe([self.places.control])
        await self.rooms.begin()
        await self.listening.listen([canary(self._node)])

    async def close(self) -> None:
        """End it: what was asked for is answered before. Harmless twice."""
        await self.rooms.close()
        await self.bus.close()
        await self.commands.close()
        self.listening.close()

    async def check(self) -> None:
        """Publish something on a channel of the node's own, and hear it by the bus; raises `Unavailable`."""
        heard = self.listening.canaries
        answer: asyncio.Future[Accepted] = asyncio.get_running_loop().create_future()
        self.submit(canary(self._node), Publication("canary"), False, None, partial(settle, answer))
        # Answered when it was heard; or when it was not, and found in the log.
        try:
            await answer
        except Reject as error:
            raise Unavailable(error.message) from None
        if self.listening.canaries == heard:
            raise Unavailable("what is published in Redis is not heard here")

    async def renew(self) -> None:
        """Say that the node is alive; where that fails there is a next time."""
        try:
            await self.rooms.renew()
        except Unavailable:
            # It has been said.
            pass
        except Exception:
            log.exception("the lease of this node could not be renewed")

    def tick(self, now: float) -> None:
        """Called several times a second: a look at everything that has a deadline."""
        for part in (self.commands, self.bus, self.listening):
            part.tick(now)
        self._agree(now)

    def _agree(self, now: float) -> None:
        """See that both connections lead to one server: a name or an address may come to lead to another one."""
        commands, bus = self.commands, self.bus
        if commands.run == bus.run or commands.connection is None or bus.connection is None:
            return
        if now - max(commands.since, bus.since) > 1:
            older = commands.connection if commands.since < bus.since else bus.connection
            older.abort("the engine's other connection leads to another server")

    # ------------------------------------------------------------------------------- publishing and reading

    def submit(
        self,
        channel: str,
        publication: Publication,
        volatile: bool,
        origin: str | None,
        done: Callable[[Accepted | Exception], object],
    ) -> None:
        """See `Engine.submit`."""
        place = self.places.of(channel)
        # Redis gives it its number.
        publication.seq = None
        body = record.encode(publication)
        live = self.listening.get(channel)
        tag = ""
        if live is not None:
            self._submitted += 1
            tag = f"{self._node}.{self._submitted}"
        submission = Submission(publication, tag, done)
        answered = partial(self._answered, submission, live)
        size = 500 + len(body)
        if volatile:
            command = Command(
                None,
                (),
                (self.places.publish, place.bus, volatile_note(tag, origin, body)),
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
                self.places.publish,
                place.bus,
                tag,
                origin or "",
                body,
            )
            # With an id Redis knows a second time for one.
            command = Command(PUBLISH, place.keys, args, answered, again=id is not None, lost=unknown, size=size)
        self.commands.put(command)
        if live is not None:
            live.submissions[tag] = submission

    def _answered(self, submission: Submission[str], live: Live | None, reply: Any) -> None:
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
            self.commands.seen(reply[3])
        if live is None:
            submission.finish(outcome)
        elif isinstance(outcome, Exception) or not live.epoch:
            live.finish(submission, outcome)
        else:
            live.answered(submission, outcome, asyncio.get_running_loop().time())
            self.listening.watch(live)

    async def read(self, channel: str, what: str, seq: int | None, limit: int) -> Entries:
        """See `Reader.read`; what is in the answer has been told before."""
        found = await self.reader.read(channel, what, seq, limit)
        await self.listening.told(channel, found.epoch, found.seq)
        return found
