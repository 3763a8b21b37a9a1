"""Who is here, and who was: members of rooms, users online, and the grace in which somebody may come back."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from hubbub.core.wheel import Timer, Wheel
from hubbub.errors import RoomFull
from hubbub.protocol.envelope import Member
from hubbub.types import Place, user_of

__all__ = ["Grace", "LastSeen", "Members"]


class Members:
    """Who is in which room, by user and session, for an engine whose rooms live in one process.

    It is as large as what was entered and not left: `capacity` bounds the users of a room, the hub the rooms
    and the sessions. Rooms are named by their channels, and one that nobody is in takes no place.
    """

    def __init__(self) -> None:
        # By room and user: since when, and with which sessions, each since when; users in the order of coming.
        self._rooms: dict[str, dict[str, tuple[int, dict[str, int]]]] = {}

        self._seen = LastSeen()

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
            member[1].setdefault(session, now)
            return False
        if len(room) >= capacity:
            raise RoomFull
        room[user] = (now, {session: now})
        self._rooms[channel] = room
        return True

    def leave(self, channel: str, user: str, session: str, seen: int = 0) -> bool:
        """Take a session out of the room; whether that was the last of its user's.

        Then `seen` is remembered, where it is given and the channel is the user's inbox.
        """
        room = self._rooms.get(channel)
        member = None if room is None else room.get(user)
        if room is None or member is None:
            return False
        member[1].pop(session, None)
        if member[1]:
            return False
        del room[user]
        if not room:
            del self._rooms[channel]
        if seen and user_of(channel) == user:
            self._seen.note(user, seen)
        return True

    def of(self, channel: str, limit: int) -> tuple[list[Member], int]:
        """The first `limit` users in the room, in the order of coming, and how many there are."""
        room = self._rooms.get(channel, {})
        first = islice(room.items(), limit)
        return [Member(user, len(sessions), since) for user, (since, sessions) in first], len(room)

    def places(self, channel: str, user: str, node: str) -> list[Place]:
        """The sessions by which `user` is in the room, in the order of coming; all of them are on `node`."""
        member = self._rooms.get(channel, {}).get(user)
        return [] if member is None else [Place(session, node, since) for session, since in member[1].items()]

    def last_seen(self, user: str) -> int | None:
        """When the user was last seen who has left the inbox, or None where that is not known."""
        return self._seen.get(user)


class Grace:
    """What ends a little later, unless the user whom it is about is back by then: memberships, being online.

    By channel and user, with the session that has ended; at most one of each. Bounded: beyond `size` it ends at
    once.
    """

    def __init__(self, wheel: Wheel, seconds: float, size: int = 100_000) -> None:
        self._wheel = wheel
        self._seconds = seconds
        self._size = size
        self._kept: dict[tuple[str, str], tuple[str, Timer]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, channel: str, user: str, session: str, end: Callable[[], object]) -> None:
        """Call `end` when the grace is over, or now where there is none; an earlier one of both ends now."""
        key = (channel, user)
        earlier = self._kept.get(key)
        if earlier is not None:
            earlier[1].fire()
        if not self._seconds or len(self._kept) >= self._size:
            end()
            return

        def over() -> None:
            del self._kept[key]
            end()

        self._kept[key] = (session, self._wheel.after(self._seconds, over))

    def kept(self, channel: str, user: str) -> str | None:
        """The ended session for which something is kept, or None."""
        found = self._kept.get((channel, user))
        return None if found is None else found[0]

    def release(self, channel: str, user: str, session: str) -> None:
        """What is kept for `session` is taken over and does not end; harmless where it is kept no more."""
        found = self._kept.get((channel, user))
        if found is not None and found[0] == session:
            del self._kept[channel, user]
            found[1].cancel()


class LastSeen:
    """When users that have gone were last seen; beyond `size` the longest gone are forgotten first.

    Times are milliseconds since the Unix epoch.
    """

    def __init__(self, size: int = 100_000) -> None:
        self._size = size
        # In the order of going.
        self._times: dict[str, int] = {}

    def note(self, user: str, seen: int) -> None:
        """`user` has just gone, and was last seen at `seen`."""
        self._times.pop(user, None)
        self._times[user] = seen
        while len(self._times) > self._size:
            del self._times[next(iter(self._times))]

    def get(self, user: str) -> int | None:
        """When `user` was last seen; None where that is unknown."""
        return self._times.get(user)

    def __len__(self) -> int:
        return len(self._times)
