"""The rooms that this node hears of: those with somebody of its own in them, and for a moment those asked for.

A room is read once and then told, entry by entry. What is told and lost shows where the room is compared with the
stream: before it is answered from, and now and then; then it is read again.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final

import msgspec

from hubbub.engines.nats.acks import ack_of
from hubbub.engines.nats.gets import TOO_MANY, Gets
from hubbub.engines.nats.link import Answer, Link
from hubbub.engines.nats.nodes import Nodes
from hubbub.engines.nats.notes import seq_of
from hubbub.engines.nats.places import token
from hubbub.engines.nats.room import Entry, Room, decode_entry, encode_entry
from hubbub.engines.nats.streams import Stream
from hubbub.engines.shared.answers import settle
from hubbub.errors import Unavailable

__all__ = ["Watched", "Watching"]

log = logging.getLogger("hubbub.engines.nats")

# How long it stands in the stream that somebody has gone: longer than a round of comparing.
_GONE_FOR: Final = "180s"
# Seconds: for which a room is watched when nobody of this node is in it; in which all are compared with the stream;
# after which what was stored and not heard is looked for; and after which nobody waits any longer.
_LINGER: Final = 1.0
_ROUND: Final = 60.0
_LATE: Final = 0.1
_PATIENCE: Final = 2.0
# Seconds after which who found a room full has been taken back.
_TAKEN_BACK: Final = 2.0
# Rooms that are read at once, entries of one reading, and entries that are kept aside meanwhile.
_AT_ONCE: Final = 200
_PAGE: Final = 1_000
_MOST: Final = 10_000
# Readings of a copy that is behind.
_TRIES: Final = 10


class _Call:
    """An entry of this node's that has not been heard yet."""

    __slots__ = ("entry", "heard", "since", "stored")

    def __init__(self, entry: Entry, heard: asyncio.Future[tuple[bool | None, int]], since: float) -> None:
        self.entry = entry
        # Gets what `Room.apply` says, and where the entry stands.
        self.heard = heard
        self.since = since
        # Since when it is known that it is stored (the loop's clock).
        self.stored = 0.0


class Watched:
    """One room that this node hears of."""

    __slots__ = ("asking", "calls", "channel", "idle", "kept", "read", "reading", "room", "sid", "stale", "waits")

    def __init__(self, channel: str, read: asyncio.Future[None]) -> None:
        self.channel = channel
        # Of the subscription.
        self.sid = 0
        self.room = Room()
        # What came while the room is being read, and who waits for that; None: it is known.
        self.kept: list[Entry] | None = []
        self.read = read
        # Whether that goes on in this moment, and whether what it finds is out of date already.
        self.reading = False
        self.stale = False
        # Entries of this node's that are on their way, by what it calls them.
        self.calls: dict[int, _Call] = {}
        # Who waits until everything up to a place is known, with the time since when.
        self.waits: list[tuple[int, asyncio.Future[None], float]] = []
        # How many ask something of it, and since when nobody needs it (the loop's clock).
        self.asking = 0
        self.idle = 0.0

    def asks(self, user: str, session: str) -> bool:
        """Whether this session of this node's is entering, or leaving, in this moment."""
        return any((call.entry.user, call.entry.session) == (user, session) for call in self.calls.values())


class Watching:
    """All rooms that this node hears of."""

    def __init__(
        self, link: Link, gets: Gets, stream: Stream, nodes: Nodes, prefix: str, needed: Callable[[str], bool]
    ) -> None:
        """`needed` says whether a room is watched though nobody asks: somebody of this node is in it, say."""
        self._link = link
        self._gets = gets
        self._stream = stream
        self._nodes = nodes
        self._subject = f"{prefix}.places."
        self._bus = f"{prefix}.places-bus."
        self._needed = needed
        self._loop = asyncio.get_running_loop()
        # Told when a room has been read.
        self.known: Callable[[str, Room], None] = lambda channel, room: None
        # Told of what this node has said, and did not wait for when it was heard or read.
        self.unasked: Callable[[Watched, Entry], None] = lambda watched, entry: None

        # What came, or was read, and was no entry.
        self.garbage = 0

        # By channel, those first that were compared with the stream longest ago; and those with something to wait for.
        self._watched: dict[str, Watched] = {}
        self._pressing: dict[Watched, None] = {}
        self._leaving: dict[str, None] = {}
        self._numbers = itertools.count(1)
        # What is being read, bounded by `_AT_ONCE`, and what waits for its turn.
        self._tasks: set[asyncio.Task[None]] = set()
        self._unread: dict[Watched, None] = {}
        self._due: dict[Watched, None] = {}
        # Rooms that somebody found full, and when: whoever reads one before that is taken back may see it otherwise.
        self._full: dict[Watched, float] = {}
        self._compared = self._loop.time()

    # ---------------------------------------------------------------------------------------------- asking

    async def enter(self, channel: str) -> Watched:
        """A room that is known; `done` must be called with it. Raises `Unavailable`."""
        watched = self._watched.get(channel)
        if watched is None:
            watched = self._watched[channel] = Watched(channel, self._loop.create_future())
            watched.sid = self._link.subscribe(f"{self._bus}{token(channel)}.>", partial(self._heard, watched))
        watched.asking += 1
        self._leaving.pop(channel, None)
        try:
            await self._known_now(watched)
        except BaseException:
            self.done(watched)
            raise
        return watched

    def done(self, watched: Watched) -> None:
        """Nothing more is asked of it."""
        watched.asking -= 1
        here = self._watched.get(watched.channel) is watched
        if here and not watched.asking and not self._needed(watched.channel):
            watched.idle = self._loop.time()
            self._leaving[watched.channel] = None

    async def current(self, watched: Watched) -> Room:
        """The room as it is at this moment, with everything that anybody has been told of; raises `Unavailable`."""
        seq = await self._last(watched)
        await self._known_now(watched)
        if seq > watched.room.seq:
            known: asyncio.Future[None] = self._loop.create_future()
            watched.waits.append((seq, known, self._loop.time()))
            self._pressing[watched] = None
            await known
        return watched.room

    async def say(self, watched: Watched, entry: Entry) -> tuple[bool | None, int]:
        """Add an entry, and wait until it counts; returns what `Room.apply` says, and where it stands.

        Raises `Unavailable`, and then it may come to count all the same.
        """
        call = _Call(entry, self._loop.create_future(), self._loop.time())
        number = entry.call
        watched.calls[number] = call
        self._pressing[watched] = None
        try:
            self._link.ask(
                self._of(entry),
                encode_entry(entry),
                partial(self._stored, call),
                headers=_TOMBSTONE if entry.ends else b"",
            )
            return await call.heard
        finally:
            watched.calls.pop(number, None)

    async def _known_now(self, watched: Watched) -> None:
        if watched.kept is None:
            return
        if not watched.reading:
            # It is new, or the last reading failed.
            self._unread[watched] = None
            self._work()
        await asyncio.shield(watched.read)

    def number(self) -> int:
        """What to call the next entry."""
        return next(self._numbers)

    # ----------------------------------------------------------------------------------------- housekeeping

    def tick(self, now: float) -> None:
        """Called several times a second."""
        for watched in list(self._pressing):
            self._press(watched, now)
        for channel in list(self._leaving):
            watched = self._watched[channel]
            if now - watched.idle < _LINGER:
                break
            del self._leaving[channel]
            if not watched.asking and not self._needed(channel):
                self._forget(watched)
        for watched, since in list(self._full.items()):
            if now - since < _TAKEN_BACK:
                break
            del self._full[watched]
            self.read(watched)
        part = int(len(self._watched) * (now - self._compared) / _ROUND)
        if part and self._link.serves:
            self._compared = now
            for watched in [one for one, _ in zip(self._watched.values(), range(part), strict=False)]:
                self._watched[watched.channel] = self._watched.pop(watched.channel)
                self._due[watched] = None
        self._work()

    def again(self) -> None:
        """What was told in an interruption is not known: read all."""
        for watched in self._watched.values():
            self.read(watched)
        self._work()

    def died(self, node: str, bar: int) -> None:
        """A node has died: see `Room.drop`."""
        for watched in self._watched.values():
            watched.room.drop(node, bar)

    def read(self, watched: Watched) -> None:
        """Read the room anew."""
        if watched.kept is None:
            watched.kept = []
            watched.read = self._loop.create_future()
        if watched.reading:
            watched.stale = True
        else:
            self._unread[watched] = None

    async def close(self) -> None:
        """Watch nothing more; whoever waits is answered."""
        for watched in list(self._watched.values()):
            self._forget(watched)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _press(self, watched: Watched, now: float) -> None:
        late = False
        for call in list(watched.calls.values()):
            if now - call.since > _PATIENCE:
                settle(call.heard, Unavailable("NATS does not answer"))
            elif call.stored and now - call.stored > _LATE:
                call.stored, late = now, True
        for wait in list(watched.waits):
            if now - wait[2] > _PATIENCE:
                watched.waits.remove(wait)
                settle(wait[1], Unavailable("NATS does not answer"))
            elif now - wait[2] > _LATE:
                late = True
        if late and watched.kept is None:
            self.read(watched)
        if not watched.calls and not watched.waits:
            del self._pressing[watched]

    def _forget(self, watched: Watched) -> None:
        if self._watched.get(watched.channel) is watched:
            del self._watched[watched.channel]
            self._leaving.pop(watched.channel, None)
        for mapping in (self._pressing, self._unread, self._due, self._full):
            mapping.pop(watched, None)
        self._link.unsubscribe(watched.sid)
        self._fail(watched, Unavailable("the engine is not running"))

    def _fail(self, watched: Watched, error: Unavailable) -> None:
        if watched.kept is not None and not watched.read.done():
            watched.read.set_exception(error)
            # Nobody may be waiting for it.
            watched.read.exception()
        waits, watched.waits = watched.waits, []
        for _, known, _ in waits:
            settle(known, error)
        for call in watched.calls.values():
            settle(call.heard, error)

    # --------------------------------------------------------------------------------------------- hearing

    def _heard(self, watched: Watched, head: bytes, body: bytes) -> None:
        try:
            entry = decode_entry(body, seq_of(head))
        except (msgspec.DecodeError, ValueError):
            if not self.garbage:
                log.error("something came by the bus that no node of this version says, and is ignored")
            self.garbage += 1
            return
        if watched.kept is None:
            self._take(watched, entry)
        elif len(watched.kept) < _MOST:
            watched.kept.append(entry)
        else:
            watched.kept.clear()
            self.read(watched)

    def _take(self, watched: Watched, entry: Entry) -> None:
        room = watched.room
        if not entry.ends and entry.seq < self._nodes.bar(entry.node):
            room.seq = max(room.seq, entry.seq)
            self._answer(watched, entry, False)
            return
        outcome = room.apply(entry)
        self._answer(watched, entry, outcome)
        if watched.waits:
            self._release(watched)

    def _answer(self, watched: Watched, entry: Entry, outcome: bool | None) -> None:
        if outcome is None:
            self._full.setdefault(watched, self._loop.time())
        if entry.node == self._nodes.node:
            call = watched.calls.get(entry.call)
            if call is not None:
                settle(call.heard, (outcome, entry.seq))
            else:
                self.unasked(watched, entry)

    def _release(self, watched: Watched) -> None:
        waits, watched.waits = watched.waits, []
        for wait in waits:
            if wait[0] <= watched.room.seq:
                settle(wait[1], None)
            else:
                watched.waits.append(wait)

    def _stored(self, call: _Call, answer: Answer | Exception) -> None:
        if not isinstance(answer, Answer):
            settle(call.heard, Unavailable("NATS does not answer"))
        elif answer.status or ack_of(answer.body).error is not None:
            settle(call.heard, Unavailable("JetStream cannot take it"))
        else:
            call.stored = self._loop.time()

    # --------------------------------------------------------------------------------------------- reading

    def _work(self) -> None:
        while self._unread and len(self._tasks) < _AT_ONCE:
            watched = next(iter(self._unread))
            del self._unread[watched]
            if watched.kept is not None and not watched.reading:
                watched.reading = True
                self._start(self._read(watched))
        while self._due and len(self._tasks) < _AT_ONCE:
            watched = next(iter(self._due))
            del self._due[watched]
            self._start(self._compare(watched))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._work()

    async def _read(self, watched: Watched) -> None:
        try:
            while True:
                watched.stale = False
                try:
                    entries = await self._all(watched)
                except Unavailable as error:
                    if not watched.stale:
                        self._unreadable(watched, error)
                        return
                else:
                    if not watched.stale:
                        self._put(watched, entries)
                        return
        except Exception:
            # A fault of ours: whoever waits must be answered all the same.
            log.exception("a room could not be read")
            self._unreadable(watched, Unavailable("a room cannot be read"))
        finally:
            watched.reading = False

    def _unreadable(self, watched: Watched, error: Unavailable) -> None:
        self._fail(watched, error)
        # Read when it is asked for again, or when NATS is back.
        if self._watched.get(watched.channel) is watched:
            if watched.asking or self._needed(watched.channel):
                watched.read = self._loop.create_future()
            else:
                self._forget(watched)

    def _put(self, watched: Watched, entries: list[Entry]) -> None:
        room, said = Room.read(entries, self._nodes.bar)
        watched.room = room
        # What this node has said itself, and not heard.
        for entry in entries:
            self._answer(watched, entry, said[entry.seq])
        kept, watched.kept = watched.kept or [], None
        for entry in kept:
            self._take(watched, entry)
        if not watched.read.done():
            watched.read.set_result(None)
        # They have waited since before it was read: what they wait for has ended, where it is not there.
        waits, watched.waits = watched.waits, []
        for _, known, _ in waits:
            settle(known, None)
        self.known(watched.channel, room)

    async def _all(self, watched: Watched) -> list[Entry]:
        """All entries about a room, as new as the question."""
        least = await self._last(watched) if self._gets.copies else 0
        for _ in range(_TRIES):
            entries = await self.entries(f"{self._subject}{token(watched.channel)}.>")
            if not least or (entries and entries[-1].seq >= least):
                return entries
            # Of a copy that is behind, or what was the newest has ended meanwhile.
            await asyncio.sleep(_LATE)
        raise Unavailable("the copies of JetStream are behind")

    async def _compare(self, watched: Watched) -> None:
        try:
            if watched.kept is not None:
                await self._known_now(watched)
            elif await self._last(watched) > watched.room.seq:
                # It may be on its way.
                await asyncio.sleep(_LATE)
                if await self._last(watched) > watched.room.seq and watched.kept is None:
                    self.read(watched)
        except Unavailable:
            # There is a next time.
            pass
        except Exception:
            log.exception("a room could not be compared with its stream")

    async def _last(self, watched: Watched) -> int:
        seq, _ = await self._gets.last(self._stream, f"{self._subject}{token(watched.channel)}.>")
        return seq

    async def entries(self, subjects: str) -> list[Entry]:
        """What is written under subjects, in the order of the stream; raises `Unavailable`."""
        part = await self._gets.many(self._stream, multi_last=[subjects])
        answers, begin = part.answers, 1
        while part.status == TOO_MANY or part.pending:
            part = await self._gets.many(self._stream, seq=begin, next_by_subj=subjects, batch=_PAGE)
            answers += part.answers
            if part.answers:
                begin = seq_of(part.answers[-1].head) + 1
        found = []
        for answer in answers:
            try:
                found.append(decode_entry(answer.body, seq_of(answer.head)))
            except (msgspec.DecodeError, ValueError):
                if not self.garbage:
                    log.error("an entry about a room cannot be read, and is passed over")
                self.garbage += 1
        return sorted(found, key=lambda entry: entry.seq)

    def _of(self, entry: Entry) -> str:
        return f"{self._subject}{token(entry.channel)}.{token(entry.node)}.{token(entry.user)}.{token(entry.session)}"


_TOMBSTONE: Final = f"NATS/1.0\r\nNats-TTL: {_GONE_FOR}\r\n\r\n".encode()
