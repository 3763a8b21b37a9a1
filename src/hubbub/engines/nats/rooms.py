"""Who is in which room: what this node has entered, and how it comes back where that was lost.

Coming and going are entries in a stream, and each counts when it has been heard, with everything that came before it:
so all nodes agree who came first, and who found the room full. An entry that found it full is taken back; whoever reads
the room in that moment for the first time may still count it, and no longer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from itertools import islice, takewhile
from typing import Any, Final

import msgspec
from msgspec import Struct

from hubbub.engines.base import Listener
from hubbub.engines.nats.clearing import Clearing
from hubbub.engines.nats.gets import Gets
from hubbub.engines.nats.link import Link
from hubbub.engines.nats.nodes import Nodes
from hubbub.engines.nats.places import token
from hubbub.engines.nats.room import ANY, UNKNOWN, Entry, Room
from hubbub.engines.nats.streams import Stream, Streams
from hubbub.engines.nats.watching import Watched, Watching
from hubbub.errors import HubbubError, RoomFull
from hubbub.protocol.envelope import Member
from hubbub.types import Place, inbox_channel

__all__ = ["Rooms"]

log = logging.getLogger("hubbub.engines.nats")

# How long it is known when somebody was seen last.
_SEEN: Final = b"NATS/1.0\r\nNats-TTL: 1h\r\n\r\n"
# Entries that are made, or looked at, together where many have to be.
_TOGETHER: Final = 200
# Seconds for which what was given up may be under way in a network (RFC 9293 §4, MSL), and rooms in which it is waited
# for; beyond, it is found when the room is read.
_UNDER_WAY: Final = 120.0
_LATE: Final = 10_000


class _Ghost(Struct, eq=False):
    """A place that may still be taken, though it should not, because the answer was lost."""

    # Where the entry stands that is over, or `UNKNOWN`: nobody was told of who came by it.
    ends: int
    # Whoever leaves waits for the answer, and tells of it.
    asked: bool = False
    # What enters it may still be under way.
    late: bool = False


class _Lost(Struct, eq=False):
    """A place that this node has to enter again."""

    # Its user was told gone, where that was the last.
    told: bool = False
    # It was entered before, and nobody heard what became of that.
    tried: bool = False


class Rooms:
    """The rooms as this node sees and holds them."""

    def __init__(
        self,
        link: Link,
        streams: Streams,
        gets: Gets,
        prefix: str,
        node: str,
        lease: float,
        listener: Listener,
    ) -> None:
        """`listener` is told who has gone, and who is back."""
        self._link = link
        self._gets = gets
        self._prefix = prefix
        self._node = node
        self._gone = listener.gone
        self._came = listener.came

        # What this node has entered: by channel, user and session.
        self._mine: dict[str, dict[tuple[str, str], Entry]] = {}
        # By channel, user and session; each is left with the next tidying, and who has come and gone is told of then.
        self._ghosts: dict[tuple[str, str, str], _Ghost] = {}
        # What this node has entered and is in no room any more.
        self._lost: dict[tuple[str, str, str], _Lost] = {}
        # Rooms in which something may arrive that was given up, and until when (the loop's clock); in that order.
        self._late: dict[str, float] = {}
        # What goes on behind the back of whoever asks; among it, once at most, all that has to be put in order.
        self._tasks: set[asyncio.Task[None]] = set()
        self._tidying: asyncio.Task[None] | None = None
        self._tidied = 0.0
        # Whether the nodes have to be read, as the stream is another one.
        self._strange = False

        self._stream = streams.keyed("places", told=True)
        self._nodes = Nodes(link, gets, self._stream, prefix, node, lease)
        self._watching = Watching(link, gets, self._stream, self._nodes, prefix, self._needed)
        self._clearing = Clearing(link, self._stream, self._nodes, self._watching, prefix, self._gone, self._do)
        self._nodes.died, self._nodes.revived, self._nodes.clear = self._died, self._revived, self._clearing.clear
        self._watching.known, self._watching.unasked = self._known, self._unasked

    def __len__(self) -> int:
        """How many rooms this node has somebody in."""
        return len(self._mine)

    @property
    def garbage(self) -> int:
        """What came, or was read, and was no entry about a room."""
        return self._watching.garbage

    async def begin(self) -> None:
        """Say that this node lives, and hear of the others; raises `Unavailable`."""
        self._nodes.listen()
        await self._nodes.load()
        self._nodes.beat()

    def judge(self) -> None:
        """From now on this node may find others dead, and tell who has gone with them."""
        self._nodes.judges = True

    # ---------------------------------------------------------------------------------------------- asking

    async def enter(self, channel: str, user: str, session: str, now: int, capacity: int) -> bool:
        """See `Engine.enter`."""
        key = (user, session)
        if key in self._mine.get(channel, ()):
            return False
        watched = await self._watching.enter(channel)
        try:
            if self._full(watched.room, user, capacity):
                # Somebody may have left in this moment.
                await self._watching.current(watched)
                if self._full(watched.room, user, capacity):
                    raise RoomFull
            # Or its removal would undo this. Of an entering that was not answered nobody was told.
            ghost = self._ghosts.pop((channel, user, session), None)
            unheard = ghost is not None and ghost.ends == UNKNOWN
            while True:
                came = watched.room.came(user, now)
                entry = self._entry(channel, user, session, since=now, came=came, capacity=capacity)
                news, seq = await self._say(watched, entry)
                if news is None:
                    full = self._ghosts[channel, user, session] = _Ghost(UNKNOWN)
                    self._do(self._lay((channel, user, session), full))
                    raise RoomFull
                if seq >= self._nodes.bar(self._node):
                    break
                # This node was taken for dead meanwhile, and what it had said until then is over.
            news = news or (unheard and watched.room.brought(self._node, user, session))
            self._mine.setdefault(channel, {})[key] = msgspec.structs.replace(entry, seq=seq)
        finally:
            self._watching.done(watched)
        return news

    async def leave(self, channel: str, user: str, session: str, seen: int) -> bool:
        """See `Engine.leave`."""
        mine = self._mine.get(channel, {})
        entry = mine.pop((user, session), None)
        if not mine:
            self._mine.pop(channel, None)
        key = (channel, user, session)
        ghost = self._ghosts.get(key) if entry is None else _Ghost(entry.seq, asked=True)
        if ghost is None:
            return False
        self._ghosts[key] = ghost
        if seen and channel == inbox_channel(user) and self._link.serves:
            # Ahead of it, in the same stream: who finds the user gone finds this, too. It is no harm if it is lost.
            self._link.ask(self._seen(user), str(seen).encode(), lambda answer: None, headers=_SEEN)
        # For the second time: what became of the first is not known.
        return await (self._leave(key, ghost) if entry is not None else self._laid(key, ghost))

    async def members(self, channel: str, limit: int) -> tuple[list[Member], int]:
        """See `Engine.members`."""
        watched = await self._watching.enter(channel)
        try:
            room = await self._watching.current(watched)
            return room.members(limit), len(room)
        finally:
            self._watching.done(watched)

    async def places(self, channel: str, user: str) -> list[Place]:
        """See `Engine.places`."""
        watched = await self._watching.enter(channel)
        try:
            return (await self._watching.current(watched)).places(user)
        finally:
            self._watching.done(watched)

    async def last_seen(self, user: str) -> int | None:
        """See `Engine.last_seen`."""
        if await self.places(inbox_channel(user), user):
            # Another session of the user has ended since.
            return None
        place, body = await self._gets.last(self._stream, self._seen(user))
        # Where anybody else may write there, too, it may be anything.
        return int(body) if place and body.isdigit() and len(body) < 20 else None

    # ----------------------------------------------------------------------------------------- housekeeping

    @property
    def ticks(self) -> tuple[Callable[[float], None], ...]:
        """What is called several times a second, each by itself: one that fails must not keep this node from living."""
        return self._nodes.tick, self._watching.tick, self._tidy

    def _tidy(self, now: float) -> None:
        if not self._link.serves or now - self._tidied < 1.0:
            return
        if self._tidying is None or self._tidying.done():
            self._tidied = now
            self._tidying = self._do(self._put_in_order())
            self._clearing.go_on()

    async def _put_in_order(self) -> None:
        """Do what has to be done; what fails is done the next time."""
        if self._strange:
            await self.look()
        if not self._nodes.clearing:
            # Or who has gone with this node would be told gone when they are back.
            await self._together(self._enter_again(key, lost) for key, lost in list(self._lost.items()))
        await self._together(self._lay(key, ghost) for key, ghost in list(self._ghosts.items()) if not ghost.asked)
        now = self._link.loop.time()
        over = list(takewhile(lambda late: late[1] < now, self._late.items()))
        await self._together(self._look_once(channel, until) for channel, until in over)

    async def _together(self, many: Iterable[Coroutine[Any, Any, None]]) -> None:
        """Do `many` things, a bounded number of them at a time, as long as there is a connection."""
        waiting = iter(many)
        while self._link.serves and (some := list(islice(waiting, _TOGETHER))):
            await asyncio.gather(*(self._quietly(one) for one in some))

    async def look(self) -> None:
        """NATS is back: what has been heard of the nodes meanwhile? Raises `Unavailable`."""
        if self._stream.epoch:
            self._strange = False
            try:
                await self._nodes.load()
            except BaseException:
                self._strange = True
                raise

    def again(self) -> None:
        """Everything is heard again after an interruption, or the stream is another one."""
        self._nodes.beat()
        self._watching.again()

    def lost(self, stream: Stream) -> None:
        """A stream is not the one that it was: what this node has in it may be missing, or have been over long ago."""
        if stream is self._stream:
            self._strange = True
            self._tidied = 0.0
            self._nodes.begin_anew(stream.seen + 1)
            self._clearing.drop()
            self._watching.again()
            self._come_back(told=False)

    async def close(self) -> None:
        """The node ends, and its lease by itself: whoever was on it has that long to come to another."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._watching.close()

    def _known(self, channel: str, room: Room) -> None:
        """A room has been read: is everybody in it whom this node has entered?"""
        if self._nodes.clearing:
            # They come back when it is said who has gone.
            return
        for user, session in list(self._mine.get(channel, ())):
            if not room.has(self._node, user, session):
                self._lost.setdefault((channel, user, session), _Lost())
                self._tidied = 0.0

    def _unasked(self, watched: Watched, entry: Entry) -> None:
        """What this node has said may arrive when nobody waits for it any more, and something else has been said since.

        Whom it has entered and does not hold has been left before; whom it holds and has taken out has come again.
        """
        key = channel, user, session = entry.channel, entry.user, entry.session
        mine = (user, session) in self._mine.get(channel, ())
        # Or whoever is entering or leaving in this moment would be taken for such.
        if mine == watched.room.has(self._node, user, session) or watched.asks(user, session):
            return
        if not mine:
            self._ghosts.setdefault(key, _Ghost(UNKNOWN))
        elif not self._nodes.clearing:
            self._lost.setdefault(key, _Lost())
            self._tidied = 0.0

    def _needed(self, channel: str) -> bool:
        """Whether this node has to hear who comes into a room, and goes."""
        return channel in self._mine or channel in self._late

    def _give_up(self, key: tuple[str, str, str]) -> None:
        """Nobody waits any more for what enters a place: it is left, now and whenever it arrives."""
        self._ghosts.setdefault(key, _Ghost(UNKNOWN, late=True))
        self._wait_for(key[0])

    def _wait_for(self, channel: str) -> None:
        """Hear of a room for as long as something may be under way to it."""
        if self._late.pop(channel, None) or len(self._late) < _LATE:
            self._late[channel] = self._link.loop.time() + _UNDER_WAY

    async def _look_once(self, channel: str, until: float) -> None:
        """Nothing is under way to a room any more: has something arrived that the bus has lost?"""
        watched = await self._watching.enter(channel)
        try:
            await self._watching.current(watched)
            if self._late[channel] == until:
                del self._late[channel]
        finally:
            self._watching.done(watched)

    def _died(self, node: str, bar: int) -> None:
        self._watching.died(node, bar)
        if node == self._node:
            # Others do what this node was to do.
            self._clearing.drop()

    def _revived(self) -> None:
        """This node was taken for dead."""
        self._come_back(told=True)

    def _come_back(self, *, told: bool) -> None:
        """What this node has entered is over; `told`: who has gone by that was told gone."""
        for channel, entries in self._mine.items():
            for user, session in entries:
                self._lost[channel, user, session] = _Lost(told)
        self._tidied = 0.0

    async def _enter_again(self, key: tuple[str, str, str], lost: _Lost) -> None:
        """Whatever the capacity: who was in a room before that was lost comes back."""
        if self._nodes.clearing:
            return
        channel, user, session = key
        back = news = False
        watched = await self._watching.enter(channel)
        try:
            entry = self._mine.get(channel, {}).get((user, session))
            if entry is not None:
                tried, lost.tried = lost.tried, True
                back, news = await self._again(watched, entry, tried)
        finally:
            self._watching.done(watched)
            # It may be lost once more.
            if self._lost.get(key) is lost and (back or (user, session) not in self._mine.get(channel, ())):
                del self._lost[key]
        if news and lost.told:
            self._came(channel, user)

    async def _again(self, watched: Watched, entry: Entry, tried: bool) -> tuple[bool, bool]:
        """Whether it counts, and whether the user had not been in the room."""
        channel, user, session = entry.channel, entry.user, entry.session
        again = self._entry(channel, user, session, since=entry.since, came=entry.came, capacity=ANY)
        try:
            news, seq = await self._watching.say(watched, again)
        finally:
            mine = self._mine.get(channel, {})
            if (user, session) not in mine and not watched.asks(user, session):
                # It has left meanwhile.
                self._give_up((channel, user, session))
        if (user, session) in mine:
            mine[user, session] = msgspec.structs.replace(again, seq=seq)
        counts = seq >= self._nodes.bar(self._node)
        return counts, counts and bool(news or (tried and watched.room.brought(self._node, user, session)))

    async def _lay(self, key: tuple[str, str, str], ghost: _Ghost) -> None:
        if await self._laid(key, ghost):
            channel, user, _ = key
            self._gone(channel, user)

    async def _laid(self, key: tuple[str, str, str], ghost: _Ghost) -> bool:
        """Leave what should have been left; whether its user has gone so, now or the first time."""
        channel, user, session = key
        watched = await self._watching.enter(channel)
        try:
            if self._ghosts.get(key) is not ghost:
                # It is in again meanwhile, or has been left.
                return False
            brought = watched.room.brought(self._node, user, session)
            last, _ = await self._watching.say(watched, self._entry(channel, user, session, ends=ghost.ends))
            room = await self._watching.current(watched)
        finally:
            self._watching.done(watched)
        if self._ghosts.get(key) is not ghost:
            # So there is another who tells of it.
            return False
        self._off_the_list(key, room)
        if ghost.late:
            # Longer, the longer that took.
            self._wait_for(channel)
        if ghost.ends == UNKNOWN:
            # Nobody was told of who came by it; nor of who came later, and stays.
            if brought and not last and user in room:
                self._came(channel, user)
            return False
        # Others tell who goes with a dead node.
        return ghost.ends >= self._nodes.bar(self._node) and bool(last or user not in room)

    async def _leave(self, key: tuple[str, str, str], ghost: _Ghost) -> bool:
        channel, user, session = key
        try:
            watched = await self._watching.enter(channel)
            try:
                if self._ghosts.get(key) is not ghost:
                    # It is in again meanwhile.
                    return False
                last, _ = await self._watching.say(watched, self._entry(channel, user, session, ends=ghost.ends))
            finally:
                self._watching.done(watched)
        finally:
            ghost.asked = False
        if self._ghosts.get(key) is ghost:
            self._off_the_list(key, watched.room)
        return bool(last)

    def _off_the_list(self, key: tuple[str, str, str], room: Room) -> None:
        del self._ghosts[key]
        if room.has(self._node, *key[1:]):
            # What had entered it has arrived only now, behind what left it.
            self._ghosts[key] = _Ghost(UNKNOWN)

    async def _say(self, watched: Watched, entry: Entry) -> tuple[bool | None, int]:
        try:
            return await self._watching.say(watched, entry)
        except BaseException:
            self._give_up((entry.channel, entry.user, entry.session))
            raise

    # -------------------------------------------------------------------------------------- small questions

    def _full(self, room: Room, user: str, capacity: int) -> bool:
        return user not in room and len(room) >= capacity

    def _seen(self, user: str) -> str:
        return f"{self._prefix}.places.seen.{token(user)}"

    def _entry(self, channel: str, user: str, session: str, **more: int) -> Entry:
        return Entry(channel, self._node, user, session, call=self._watching.number(), **more)

    def _do(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._link.loop.create_task(self._quietly(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _quietly(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except (HubbubError, TimeoutError):
            # It is tried again, or there is nothing to be done.
            pass
        except Exception:
            log.exception("a room could not be put in order")
