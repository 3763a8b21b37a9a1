"""Reading logs: what Redis answers to `read.lua`, as publications with their places."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec

from hubbub.core import record
from hubbub.engines.redis.commands import Command, Commands
from hubbub.engines.redis.live import Entries
from hubbub.engines.redis.places import Places
from hubbub.engines.redis.scripts import READ
from hubbub.engines.shared.answers import settle
from hubbub.types import Publication

__all__ = ["Reader"]

log = logging.getLogger("hubbub.engines.redis")

# What `seq` is where there is none.
_NOWHERE: Final = -1


class Reader:
    """Reads logs, through the connection for commands."""

    def __init__(self, commands: Commands, places: Places) -> None:
        self._commands = commands
        self._places = places
        # What was in logs and could not be read.
        self.garbage = 0

    def read(self, channel: str, what: str, seq: int | None = None, limit: int = 0) -> asyncio.Future[Entries]:
        """`position`, or up to `limit` publications `after` or `before` a seq; raises `Unavailable`, perhaps later."""
        found: asyncio.Future[Entries] = asyncio.get_running_loop().create_future()
        self.ask(channel, what, seq, limit, partial(settle, found))
        return found

    def ask(
        self, channel: str, what: str, seq: int | None, limit: int, done: Callable[[Entries | Exception], None]
    ) -> None:
        """`read` without a future; raises `Unavailable` where `done` will not be called."""
        place = self._places.of(channel)

        def answered(reply: Any) -> None:
            if not isinstance(reply, Exception):
                try:
                    reply = self._entries(reply)
                except Exception as error:
                    log.exception("the answer to a reading could not be read")
                    reply = error
            done(reply)

        args = (place.kept, place.age, what, _NOWHERE if seq is None else seq, limit)
        self._commands.put(Command(READ, place.keys, args, answered))

    def _entries(self, reply: list[Any]) -> Entries:
        epoch, base, seq, dropped, count, more, *found = reply
        self._commands.seen(count)
        publications: list[Publication] = []
        origins = []
        for place, body, origin in zip(found[::3], found[1::3], found[2::3], strict=True):
            try:
                publication = record.decode(body)
            except (msgspec.DecodeError, ValueError, IndexError):
                if not self.garbage:
                    log.error("a message in a log cannot be read, and is passed over")
                self.garbage += 1
                continue
            publication.seq = place
            publications.append(publication)
            origins.append(origin.decode() or None)
        return Entries(epoch.decode(), base, seq, dropped, count, bool(more), publications, origins)
