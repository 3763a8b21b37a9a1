"""Who of this node is in which room, and that the node is alive: rooms are held by a lease, which is the node's.

Every coming and going has a name, so that one whose answer was lost is known when it is asked for again: whoever was
told by it of news is told the same once more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable
from itertools import islice
from typing import Any, Final

from msgspec import Struct

from hubbub.engines.redis.commands import Commands
from hubbub.engines.redis.node import Node
from hubbub.engines.redis.places import Places
from hubbub.engines.redis.scripts import CLEARED, ENTER, LEASE, LEAVE, MEMBERS, PLACES, Script
from hubbub.errors import RoomFull, Unavailable
from hubbub.protocol.envelope import Member
from hubbub.types import Place, inbox_channel

__all__ = ["Rooms"]

log = logging.getLogger("hubbub.engines.redis")

# Rooms that are entered, left or looked at together where many have to be; other commands wait behind them.
_TOGETHER: Final = 200
# Places in a room where nobody is turned away: who was in it before it was lost comes back.
_ANY: Final = 1_000_000_000
# Milliseconds for which it is known when somebody was seen last.
_SEEN: Final = 3_600_000
# Calls that were not answered, and may have found somebody gone.
_UNHEARD: Final = 10_000


class _Ghost(Struct, frozen=True):
    """A place that may still be taken, though it should not, because the answer was lost."""

    # The call by which it is left: the one that was not answered, or one to come.
    leaving: str
    # The call by which it may have been entered, of which nobody was told; empty where it had been entered before.
    entering: str = ""


class Rooms:
    """The rooms as this node sees and holds them.

    A node that stops keeps its lease to the end: whoever was on it has that long to come to another.
    """

    def __init__(self, commands: Commands, places: Places, node: Node) -> None:
        self._commands = commands
        self._places = places
        self._node = node
        self._mine = f"{places.root}rooms:{node.name}"
        # Names of calls; behind the node's own name, so no other has them.
        self._calls = 0

        # What this node has entered, so that it can do so again: by channel, user and session, since when.
        self._entered: dict[str, dict[tuple[str, str], int]] = {}
        # By channel, user and session; each is left with the next lease.
        self._ghosts: dict[tuple[str, str, str], _Ghost] = {}

        # Calls that were not answered, by channel and name: asked again, they say whom they have found gone.
        self._unheard: dict[tuple[str, str], None] = {}

        # The data and the server in which it is.
        self._data = ""
        self._run = ""
        # Who has to be entered again, by which call; and whether they had been told gone: who was lost with the data
        # was not.
        self._out: dict[tuple[str, str, str], None] = {}
        self._back = ""
        self._came = False
        # Nodes that have to be cleared away, and whoever does all of that behind the lease's back.
        self._dead: list[str] = []
        self._tidying: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """How many rooms this node has somebody in."""
        return len(self._entered)

    async def enter(self, channel: str, user: str, session: str, now: int, capacity: int) -> bool:
        """See `Engine.enter`."""
        if (user, session) in self._entered.get(channel, ()):
            return False
        key = (channel, user, session)
        ghost = self._ghosts.get(key)
        call = (ghost is not None and ghost.entering) or self._name()
        # Raises at once where nothing can be sent: then there is no new ghost, and an old one stays.
        asked = self._enter(key, now, capacity, call)
        # Or its removal would undo this.
        self._ghosts.pop(key, None)
        try:
            (news,) = await asked
        except BaseException:
            self._ghosts.setdefault(key, _Ghost(self._name(), call))
            raise
        if news < 0:
            raise RoomFull
        self._entered.setdefault(channel, {}).setdefault((user, session), now)
        # Of a going that was not answered nobody was told; so who is back has not been away.
        return bool(news) and not (ghost is not None and not ghost.entering)

    async def leave(self, channel: str, user: str, session: str, seen: int) -> bool:
        """See `Engine.leave`."""
        places = self._entered.get(channel, {})
        places.pop((user, session), None)
        if not places:
            self._entered.pop(channel, None)
        key, call = (channel, user, session), self._name()
        try:
            last, _ = await self._leave(key, seen, call)
        except BaseException:
            self._ghosts[key] = _Ghost(call)
            raise
        return bool(last)

    async def members(self, channel: str, limit: int) -> tuple[list[Member], int]:
        """See `Engine.members`."""
        count, *found = await self._call(MEMBERS, channel, self._name(), (), limit)
        members = [
            Member(user.decode(), sessions, since)
            for user, since, sessions in zip(found[::3], found[1::3], found[2::3], strict=True)
        ]
        return members, count

    async def places(self, channel: str, user: str) -> list[Place]:
        """See `Engine.places`."""
        found = await self._call(PLACES, channel, self._name(), (), user)
        places = [
            Place(session.decode(), node.decode(), since)
            for session, node, since in zip(found[::3], found[1::3], found[2::3], strict=True)
        ]
        return sorted(places, key=lambda place: place.since)

    async def last_seen(self, user: str) -> int | None:
        """See `Engine.last_seen`."""
        seen = await self._commands.ask("GET", self._seen(inbox_channel(user)))
        return None if seen is None else int(seen)

    # ----------------------------------------------------------------------------------------- housekeeping

    async def begin(self) -> None:
        """Say that the node is alive, for the first time; raises `Unavailable`."""
        await self._lease()

    async def renew(self) -> None:
        """Say that the node is alive; raises `Unavailable`.

        What else there is to do goes on behind it, for however long it takes: coming back where the node was taken
        for dead or the rooms were lost, leaving what should have been left, clearing away what others left behind.
        """
        await self._lease()
        due = self._out or self._ghosts or self._unheard or self._dead
        if due and (self._tidying is None or self._tidying.done()):
            self._tidying = asyncio.get_running_loop().create_task(self._tidy())

    async def close(self) -> None:
        """Leave everything as it is; harmless twice."""
        if self._tidying is not None:
            self._tidying.cancel()
            await asyncio.gather(self._tidying, return_exceptions=True)

    async def _lease(self) -> None:
        places, run = self._places, self._commands.run
        found = await self._commands.call(LEASE, (places.store, places.nodes), self._node.lease)
        alive, data, *self._dead = found[0], *(one.decode() for one in found[1:])
        # A server that was started anew, or another one, may lack the last moments of what it was told.
        if not alive or data != self._data or run != self._run:
            self._out = {(channel, *place): None for channel, its in self._entered.items() for place in its}
            self._back, self._came = self._name(), not alive and data == self._data
        self._data, self._run = data, run

    async def _tidy(self) -> None:
        try:
            # Whatever their capacity: this node was taken for dead, or the rooms are lost.
            await self._together(self._enter_again(key, self._back, self._came) for key in list(self._out))
            await self._together(self._lay(key, ghost) for key, ghost in list(self._ghosts.items()))
            await self._together(self._ask_again(*asked) for asked in list(self._unheard))
            for node in self._dead:
                await self._clear(node)
        except Unavailable:
            # It goes on with the next lease.
            pass
        except Exception:
            log.exception("the rooms of this node could not be put in order")

    async def _enter_again(self, key: tuple[str, str, str], call: str, came: bool) -> None:
        channel, user, session = key
        since = self._entered.get(channel, {}).get((user, session))
        # It may have left meanwhile.
        if since is not None:
            (news,) = await self._enter(key, since, _ANY, call)
            if news and came:
                self._node.came(channel, user)
        if call == self._back:
            self._out.pop(key, None)

    async def _lay(self, key: tuple[str, str, str], ghost: _Ghost) -> None:
        # It may be in again meanwhile.
        if self._ghosts.get(key) is not ghost:
            return
        channel, user, _ = key
        last, untold = await self._leave(key, 0, ghost.leaving, ghost.entering)
        if self._ghosts.get(key) is ghost:
            del self._ghosts[key]
        # Nobody was told of a coming that was not answered; and of none, where a session that came later stays.
        if last and not untold:
            self._node.gone(channel, user)
        elif untold and not last:
            self._node.came(channel, user)

    async def _ask_again(self, channel: str, call: str) -> None:
        await self._call(MEMBERS, channel, call, (), 0)

    async def _clear(self, node: str) -> None:
        """Take whoever came by a dead node out of all rooms."""
        rooms = f"{self._places.root}rooms:{node}"
        its = (self._places.store, self._places.nodes, rooms)
        over = False
        while not over:
            found = await self._commands.ask("SRANDMEMBER", rooms, _TOGETHER)
            # Whoever looks at a room clears it.
            await self._together(self.members(channel.decode(), 0) for channel in found)
            over = bool(await self._commands.call(CLEARED, its, node, *found))

    async def _together(self, many: Iterable[Coroutine[Any, Any, object]]) -> None:
        """Do `many` things, a bounded number of them at a time; raises what one that fails raises, and stops there."""
        waiting = iter(many)
        while some := list(islice(waiting, _TOGETHER)):
            for failed in await asyncio.gather(*some, return_exceptions=True):
                if isinstance(failed, BaseException):
                    raise failed

    # --------------------------------------------------------------------------------------------- scripts

    def _enter(self, key: tuple[str, str, str], now: int, capacity: int, call: str) -> Coroutine[Any, Any, list[Any]]:
        channel, user, session = key
        return self._call(ENTER, channel, call, (self._mine,), user, session, now, capacity, channel)

    def _leave(
        self, key: tuple[str, str, str], seen: int, call: str, entered: str = ""
    ) -> Coroutine[Any, Any, list[Any]]:
        """`entered`: the call by which it was entered, where nobody was told of that."""
        channel, user, session = key
        if channel != inbox_channel(user):
            seen = 0
        keys = (self._mine, self._seen(channel), f"{self._places.root}{channel}:left:{self._node.name}.{call}")
        return self._call(LEAVE, channel, call, keys, user, session, channel, seen, _SEEN, entered)

    def _call(
        self, script: Script, channel: str, call: str, keys: tuple[str, ...], *args: str | int
    ) -> Coroutine[Any, Any, list[Any]]:
        """Call a script about a room; raises `Unavailable` at once where nothing is sent, or later.

        Awaited, it tells whom the script has found gone, and returns the rest of the answer.
        """
        room = f"{self._places.root}{channel}:"
        its = (room + "users", room + "places", room + "nodes", f"{room}gone:{self._node.name}.{call}")
        asked = self._commands.call(script, (self._places.store, self._places.nodes, *its, *keys), call, *args)
        return self._heard(channel, call, asked)

    async def _heard(self, channel: str, call: str, asked: asyncio.Future[Any]) -> list[Any]:
        found: list[Any]
        try:
            gone, *found = await asked
        except BaseException:
            if len(self._unheard) < _UNHEARD:
                self._unheard[channel, call] = None
            raise
        self._unheard.pop((channel, call), None)
        for user in gone:
            self._node.gone(channel, user.decode())
        return found

    def _name(self) -> str:
        self._calls += 1
        return str(self._calls)

    def _seen(self, channel: str) -> str:
        return f"{self._places.root}{channel}:seen"
