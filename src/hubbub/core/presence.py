"""Who is here, and who was: the members of rooms, and when users that are offline were last seen."""

from __future__ import annotations

from itertools import islice

from hubbub.errors import RoomFull
from hubbub.protocol.envelope import Member

__all__ = ["LastSeen", "Members"]


class Members:
    """Who is in which room, by user and session, for an engine whose rooms live in one process.

    It is as large as what was entered and not left: `capacity` bounds the users of a room, the hub the rooms
    and the sessions. Rooms are named by their channels, and one that nobody is in takes no place.
    """

    def __init__(self) -> None:
        # By room and user: since when, and with which sessions; users in the order of coming.
        self._rooms: dict[str, dict[str, tuple[int, set[str]]]] = {}

    def __len__(self) -> int:
        """How many rooms have somebody in them."""
        return len(self._rooms)

    def enter(self, channel: str, user: str, session: str, now: int, capacity: int) -> bool:
        """Put a session into the room; whether its user was not in it before. Entering twice is harmless.

        At most `capacity` users; raises `RoomFull`. `now` in milliseconds since the Unix epoch.
        """
        room = self._rooms.get(channel, {})
        member = room.get(user)
        if member is not None:
            member[1].add(session)
            return False
        if len(room) >= capacity:
            raise RoomFull
        room[user] = (now, {session})
        self._rooms[channel] = room
        return True

    def leave(self, channel: str, user: str, session: str) -> bool:
        """Take a session out of the room; whether that was the last of its user's."""
        room = self._rooms.get(channel)
        member = None if room is None else room.get(user)
        if room is None or member is None:
            return False
        member[1].discard(session)
        if member[1]:
            return False
        del room[user]
        if not room:
            del self._rooms[channel]
        return True

    def of(self, channel: str, limit: int) -> tuple[list[Member], int]:
        """The first `limit` users in the room, in the order of coming, and how many there are."""
        room = self._rooms.get(channel, {})
        first = islice(room.items(), limit)
        return [Member(user, len(sessions), since) for user, (since, sessions) in first], len(room)


class LastSeen:
    """When users that are offline were last seen; the longest gone are forgotten first.

    Times are milliseconds since the Unix epoch.
    """

    def __init__(self, size: int = 100_000, age: int = 1_800_000) -> None:
        self._size = size
        self._age = age
        # In the order of leaving, so also of age.
        self._times: dict[str, int] = {}

    def note(self, user: str, now: int) -> None:
        """`user` has just gone."""
        self._times.pop(user, None)
        self._times[user] = now
        while len(self._times) > self._size:
            del self._times[next(iter(self._times))]

    def get(self, user: str, now: int) -> int | None:
        """When `user` was last seen; None where that is unknown or too long ago."""
        seen = self._times.get(user)
        return seen if seen is not None and seen > now - self._age else None

    def __len__(self) -> int:
        return len(self._times)
