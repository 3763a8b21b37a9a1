"""Who of this node is in which room, and that the node is alive: rooms are held by a lease, which is the node's."""

from __future__ import annotations

from typing import Any, Final

from hubbub.engines.redis.commands import Commands
from hubbub.engines.redis.node import Node
from hubbub.engines.redis.places import Places
from hubbub.engines.redis.scripts import ENTER, LEASE, LEAVE, MEMBERS, PLACES, Script
from hubbub.errors import RoomFull
from hubbub.protocol.envelope import Member
from hubbub.types import Place, inbox_channel

__all__ = ["Rooms"]

# Rooms of a dead node that are looked at together.
_MANY: Final = 100
# Places in a room where nobody is turned away: who was in it before it was lost comes back.
_ANY: Final = 1_000_000_000
# Milliseconds for which it is known when somebody was seen last.
_SEEN: Final = 3_600_000


class Rooms:
    """The rooms as this node sees and holds them.

    A node that stops keeps its lease to the end: whoever was on it has that long to come to another.
    """

    def __init__(self, commands: Commands, places: Places, node: Node) -> None:
        self._commands = commands
        self._places = places
        self._node = node
        self._mine = f"{places.root}rooms:{node.name}"

        # What this node has entered, so that it can do so again: by channel, user and session, since when.
        self._entered: dict[str, dict[tuple[str, str], int]] = {}
        # Whether it was taken for dead, or the rooms were lost, and not all are back in them.
        self._out = False
        # Places that may still be taken, though they should not: the answer was lost. Left with the next lease; then
        # it is told where others had been told of the coming.
        self._ghosts: dict[tuple[str, str, str], bool] = {}

    def __len__(self) -> int:
        """How many rooms this node has somebody in."""
        return len(self._entered)

    async def enter(self, channel: str, user: str, session: str, now: int, capacity: int) -> bool:
        """See `Engine.enter`."""
        try:
            news = await self._enter(channel, user, session, now, capacity)
        except BaseException:
            self._ghosts.setdefault((channel, user, session), False)
            raise
        if news < 0:
            raise RoomFull
        self._ghosts.pop((channel, user, session), None)
        self._entered.setdefault(channel, {}).setdefault((user, session), now)
        return bool(news)

    async def leave(self, channel: str, user: str, session: str, seen: int) -> bool:
        """See `Engine.leave`."""
        places = self._entered.get(channel, {})
        places.pop((user, session), None)
        if not places:
            self._entered.pop(channel, None)
        try:
            return await self._leave(channel, user, session, seen)
        except BaseException:
            self._ghosts[channel, user, session] = True
            raise

    async def members(self, channel: str, limit: int) -> tuple[list[Member], int]:
        """See `Engine.members`."""
        count, *found = await self._call(MEMBERS, channel, (), limit)
        members = [
            Member(user.decode(), sessions, since)
            for user, since, sessions in zip(found[::3], found[1::3], found[2::3], strict=True)
        ]
        return members, count

    async def places(self, channel: str, user: str) -> list[Place]:
        """See `Engine.places`."""
        found = await self._call(PLACES, channel, (), user)
        places = [
            Place(session.decode(), node.decode(), since)
            for session, node, since in zip(found[::3], found[1::3], found[2::3], strict=True)
        ]
        return sorted(places, key=lambda place: place.since)

    async def last_seen(self, user: str) -> int | None:
        """See `Engine.last_seen`."""
        seen = await self._commands.ask("GET", self._seen(inbox_channel(user)))
        return None if seen is None else int(seen)

    async def begin(self) -> None:
        """Say that the node is alive, for the first time; raises `Unavailable`."""
        await self._lease_anew()

    async def renew(self) -> None:
        """Say that the node is alive, and come back where it was taken for dead; raises `Unavailable`.

        Clears away what others have left behind.
        """
        alive, *dead = await self._lease_anew()
        # The lease stands again before everybody is back in the rooms: that may take more than one try.
        self._out = self._out or not alive
        if self._out:
            await self._come_back()
            self._out = False
        for ghost, tells in list(self._ghosts.items()):
            channel, user, session = ghost
            if (user, session) not in self._entered.get(channel, {}):
                # It may have been done the first time, and nobody have heard so.
                last = await self._leave(*ghost, 0) or (tells and not await self.places(channel, user))
                if tells and last:
                    self._node.gone(channel, user)
            self._ghosts.pop(ghost, None)
        for node in dead:
            await self._clear(node.decode())

    async def _lease_anew(self) -> list[Any]:
        found: list[Any] = await self._commands.call(LEASE, (self._places.store, self._places.nodes), self._node.lease)
        return found

    async def _come_back(self) -> None:
        """The node was taken for dead, or the rooms are lost: enter them again, whatever their capacity."""
        for channel, places in list(self._entered.items()):
            for (user, session), since in list(places.items()):
                # It may have left meanwhile.
                if (user, session) in self._entered.get(channel, {}):
                    await self._enter(channel, user, session, since, _ANY)

    async def _clear(self, node: str) -> None:
        """Take whoever came by a dead node out of all rooms."""
        rooms = f"{self._places.root}rooms:{node}"
        while found := await self._commands.ask("SRANDMEMBER", rooms, _MANY):
            for channel in found:
                # Whoever looks at a room clears it.
                await self.members(channel.decode(), 0)
            await self._commands.ask("SREM", rooms, *found)
        await self._commands.ask("ZREM", self._places.nodes, node)

    async def _enter(self, channel: str, user: str, session: str, now: int, capacity: int) -> int:
        found = await self._call(ENTER, channel, (self._mine,), user, session, now, capacity, channel)
        news: int = found[0]
        return news

    async def _leave(self, channel: str, user: str, session: str, seen: int) -> bool:
        keys = (self._mine, self._seen(channel))
        if channel != inbox_channel(user):
            seen = 0
        found = await self._call(LEAVE, channel, keys, user, session, channel, seen, _SEEN)
        return bool(found[0])

    async def _call(self, script: Script, channel: str, keys: tuple[str, ...], *args: str | int) -> list[Any]:
        """Call a script about a room, and tell of whom it has found gone."""
        room = f"{self._places.root}{channel}:"
        its = (self._places.store, self._places.nodes, room + "users", room + "places", room + "nodes")
        found: list[Any]
        gone, *found = await self._commands.call(script, (*its, *keys), *args)
        for user in gone:
            self._node.gone(channel, user.decode())
        return found

    def _seen(self, channel: str) -> str:
        return f"{self._places.root}{channel}:seen"
