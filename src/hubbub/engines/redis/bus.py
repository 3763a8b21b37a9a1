"""What Redis tells: one connection that subscribes to what this node listens to, and to nothing else.

Pub/Sub forgets: whoever is cut off, or reads too slowly, misses what is published. So everything told says where it
stands, and whoever listens fills the gaps from the log (`live.py`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, Final

from msgspec import Struct

from hubbub.core import record
from hubbub.engines.redis.address import Address
from hubbub.engines.redis.connection import Connection, Refused, pack
from hubbub.engines.redis.node import Node
from hubbub.engines.redis.places import Places
from hubbub.engines.redis.supervised import Supervised
from hubbub.engines.shared.answers import settle
from hubbub.errors import Unavailable
from hubbub.types import Publication

__all__ = ["Bus", "Note", "volatile_note"]

log = logging.getLogger("hubbub.engines.redis")

# Channels in one command.
_MANY: Final = 1_000
# Seconds of silence after which the server is asked for a sign of life, and more after which it counts as away.
_QUIET: Final = 1.0
_SILENT: Final = 2.0
# Seconds for a subscription.
_TIMEOUT: Final = 2.0


class Note(Struct, frozen=True, gc=False):
    """One thing told on the bus of a channel."""

    # m: a publication; v: a volatile one; d: one that was accepted before, for the node that asked.
    kind: str
    epoch: str
    seq: int
    # How many publications the store had seen.
    count: int
    # What the node that asked calls it, or nothing.
    tag: str
    origin: str | None
    # With its place; None in what is not told.
    publication: Publication | None

    @classmethod
    def read(cls, data: bytes) -> Note:
        """Read what came; raises `ValueError` where it is none."""
        head, _, body = data.partition(b"\n")
        kind, epoch, seq, count, tag, origin = head.decode("ascii").split(" ")
        if kind not in ("m", "v", "d"):
            raise ValueError("no kind of note")
        place, publication = int(seq), None
        if kind != "d":
            if not body:
                raise ValueError("a note without a record")
            publication = record.decode(body)
            publication.seq = place if kind == "m" else None
        return cls(kind, epoch, place, int(count), tag, origin or None, publication)


def volatile_note(tag: str, origin: str | None, body: bytes) -> bytes:
    """The note of a volatile publication."""
    return f"v - 0 0 {tag} {origin or ''}\n".encode() + body


class Bus(Supervised):
    """The connection that hears."""

    role = "listening"

    def __init__(self, address: Address, places: Places, node: Node) -> None:
        super().__init__(address, places, node)
        self._loop = asyncio.get_running_loop()
        # Gets the name of a bus and what came; raises nothing.
        self.heard: Callable[[str, bytes], None] = lambda bus, data: None
        # Called when everything that was wanted is heard again after an interruption.
        self.again: Callable[[], None] = lambda: None

        # What is wanted, and what of it is being heard.
        self._wanted: set[str] = set()
        self._hears: set[str] = set()
        # Who waits for a subscription, and until when.
        self._waits: dict[str, tuple[asyncio.Future[None], float]] = {}
        # What has to be heard again before `again` is called; None while that is nothing.
        self._missing: set[str] | None = None

        # When something last came, and whether a sign of life has been asked for since.
        self._last = 0.0
        # When it was asked for a sign of life that has not come.
        self._asked = 0.0

    async def subscribe(self, names: Iterable[str]) -> None:
        """Hear `names`; returns when that is so. Raises `Unavailable`, and then the names are not wanted."""
        new = [name for name in names if name not in self._hears]
        if not new:
            return
        if self.connection is None:
            raise Unavailable("Redis is away")
        until = self._loop.time() + _TIMEOUT
        for name in new:
            self._wanted.add(name)
            if name not in self._waits:
                self._waits[name] = self._loop.create_future(), until
        waits = [self._waits[name][0] for name in new]
        self._send(self._places.subscribe, new)
        try:
            await asyncio.gather(*(asyncio.shield(wait) for wait in waits))
        except BaseException:
            self.unsubscribe(new)
            raise

    def unsubscribe(self, names: Iterable[str]) -> None:
        """Hear `names` no more."""
        gone = [name for name in names if name in self._wanted]
        for name in gone:
            self._wanted.discard(name)
            self._hears.discard(name)
            if self._missing is not None:
                self._missing.discard(name)
            wait = self._waits.pop(name, None)
            if wait is not None:
                wait[0].cancel()
        if gone and self.connection is not None:
            self._send(self._places.unsubscribe, gone)

    def tick(self, now: float) -> None:
        """Called several times a second: is it still there?"""
        for name, (wait, until) in list(self._waits.items()):
            if until < now:
                del self._waits[name]
                settle(wait, Unavailable("Redis does not answer"))
        if self.connection is None:
            return
        if self._asked and now - self._asked > _SILENT:
            self.connection.abort("it is silent", silent=True)
        elif not self._asked and now - self._last > _QUIET:
            self._asked = now
            self.connection.write(pack("PING"))

    def begin(self, connection: Connection) -> None:
        """See `Supervised.begin`."""
        connection.receive = self._receive
        self._last, self._asked = self._loop.time(), 0.0
        self._missing = set(self._wanted)
        self._send(self._places.subscribe, self._wanted)
        self._look_whole()

    def end(self, why: str) -> None:
        """See `Supervised.end`."""
        self._hears.clear()
        waits, self._waits = self._waits, {}
        for wait, _ in waits.values():
            settle(wait, Unavailable("Redis is away"))

    def _send(self, what: str, names: Iterable[str]) -> None:
        assert self.connection is not None
        rest = iter(names)
        while part := tuple(islice(rest, _MANY)):
            self.connection.write(pack(what, *part))

    def _receive(self, reply: Any) -> None:
        self._last, self._asked = self._loop.time(), 0.0
        if isinstance(reply, Refused):
            assert self.connection is not None
            self.connection.abort(f"it refuses to be listened to: {reply}")
            return
        kind, name = reply[0], reply[1]
        if kind in (b"message", b"smessage"):
            self.heard(name.decode(errors="replace"), reply[2])
        elif kind in (b"subscribe", b"ssubscribe"):
            self._subscribed(name.decode(errors="replace"))
        elif kind == b"sunsubscribe" and name.decode(errors="replace") in self._hears:
            # Nobody asked for it.
            assert self.connection is not None
            self.connection.abort("its slot was moved to another server")

    def _subscribed(self, name: str) -> None:
        if name not in self._wanted:
            return
        self._hears.add(name)
        wait = self._waits.pop(name, None)
        if wait is not None:
            settle(wait[0], None)
        if self._missing is not None:
            self._missing.discard(name)
            self._look_whole()

    def _look_whole(self) -> None:
        if self._missing is not None and not self._missing:
            self._missing = None
            self.again()
