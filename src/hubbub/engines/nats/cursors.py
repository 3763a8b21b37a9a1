"""How far each inbox has been acknowledged: one message for each user, which replaces the one before it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator
from typing import Final

import msgspec
from msgspec import Struct

from hubbub.engines.nats.acks import WRONG_LAST, ack_of
from hubbub.engines.nats.gets import Gets
from hubbub.engines.nats.link import Link
from hubbub.engines.nats.places import token
from hubbub.engines.nats.reading import Reader
from hubbub.engines.nats.streams import Streams
from hubbub.errors import Unavailable
from hubbub.types import Publication, inbox_channel

__all__ = ["Cursors"]

log = logging.getLogger("hubbub.engines.nats")

# Messages of one reading that looks for receipts.
_PAGE: Final = 200
# Tries to be the next who moves it, where others do so at the same moment.
_TRIES: Final = 50
_OWED: Final = 10_000


class _Cursor(Struct, frozen=True):
    # Of the inbox.
    epoch: str
    seq: int
    # By which it has been moved: one whose answer was lost knows itself.
    call: str


class Cursors:
    """The cursors of all users."""

    def __init__(self, link: Link, streams: Streams, gets: Gets, reader: Reader, prefix: str) -> None:
        self._link = link
        self._gets = gets
        self._reader = reader
        self._prefix = prefix
        self._stream = streams.keyed("cursors")
        # By user and call: receipts of moves that may have been done, and nobody knows. Beyond `_OWED` users the
        # oldest are not given.
        self._owed: dict[str, dict[str, list[Publication]]] = {}
        # By user: whoever moves the cursor by this node, one after the other, and how many do.
        self._moving: dict[str, tuple[asyncio.Lock, int]] = {}

    async def get(self, user: str) -> int | None:
        """See `Engine.cursor`."""
        if user in self._moving:
            async with self._turn(user):
                pass
        inbox, _ = await self._reader.stream(inbox_channel(user))
        found, _ = await self._find(user)
        return None if found is None or found.epoch != inbox.epoch else found.seq

    async def move(self, user: str, seq: int) -> list[Publication] | None:
        """See `Engine.set_cursor`."""
        async with self._turn(user):
            return await self._move(user, seq)

    @contextlib.asynccontextmanager
    async def _turn(self, user: str) -> AsyncIterator[None]:
        """Behind all who have asked for this user's cursor before."""
        lock, count = self._moving.get(user, (asyncio.Lock(), 0))
        self._moving[user] = lock, count + 1
        try:
            async with lock:
                yield
        finally:
            lock, count = self._moving[user]
            if count > 1:
                self._moving[user] = lock, count - 1
            else:
                del self._moving[user]

    async def _move(self, user: str, seq: int) -> list[Publication] | None:
        channel = inbox_channel(user)
        end, (found, place) = await asyncio.gather(self._reader.end(channel), self._find(user))
        if seq > end.seq:
            return None
        # What is owed by the move that was done last, if it was one of ours.
        last = found.call if found is not None else ""
        owed = self._owed.pop(user, {}).get(last, [])
        call, due = secrets.token_hex(8), list[Publication]()
        try:
            for _ in range(_TRIES):
                stands = found.seq if found is not None and found.epoch == end.epoch else 0
                if seq <= stands:
                    return owed
                # Read before it is moved: a receipt that cannot be read now is due later.
                due = await self._receipts(channel, stands, seq)
                if await self._put(user, _Cursor(end.epoch, seq, call), place):
                    return [*owed, *due]
                found, place = await self._find(user)
                if found is not None and found.call == call:
                    # The answer was lost, and nothing else.
                    return [*owed, *due]
            raise Unavailable("too many move this cursor at once")
        except BaseException:
            # Whoever moves it next finds out which of them was done.
            self._owed[user] = {last: owed, call: [*owed, *due]}
            while len(self._owed) > _OWED:
                del self._owed[next(iter(self._owed))]
            raise

    async def _find(self, user: str) -> tuple[_Cursor | None, int]:
        """The cursor, and where it stands in its stream; raises `Unavailable`."""
        place, body = await self._gets.last(self._stream, self._subject(user))
        if not place:
            return None, 0
        try:
            return msgspec.json.decode(body, type=_Cursor), place
        except msgspec.DecodeError:
            log.error("a cursor cannot be read, and counts as none")
            return None, place

    async def _put(self, user: str, cursor: _Cursor, place: int) -> bool:
        """Replace the cursor that stands at `place`; whether nobody else has done so, as far as is known."""
        head = f"NATS/1.0\r\nNats-Expected-Last-Subject-Sequence: {place}\r\n\r\n".encode()
        try:
            answer = await self._link.call(self._subject(user), msgspec.json.encode(cursor), headers=head)
        except TimeoutError:
            return False
        if answer.status:
            raise Unavailable("JetStream is away")
        error = ack_of(answer.body).error
        if error is not None and error.err_code != WRONG_LAST:
            raise Unavailable(f"JetStream cannot take it: {error.description}")
        return error is None

    async def _receipts(self, channel: str, after: int, seq: int) -> list[Publication]:
        due: list[Publication] = []
        while True:
            found = await self._reader.after(channel, after, _PAGE)
            for note in found.notes:
                after = note.seq or 0
                if after <= seq and note.publication.receipt:
                    due.append(note.publication)
            if after >= seq or not found.more:
                return due

    def _subject(self, user: str) -> str:
        return f"{self._prefix}.cursors.{token(user)}"
