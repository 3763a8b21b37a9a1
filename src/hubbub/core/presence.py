"""Who is here, and who was: members of rooms, users online, and the grace in which somebody may come back."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from msgspec import Struct

from hubbub.core.wheel import Timer, Wheel
from hubbub.errors import RoomFull
from hubbub.protocol.envelope import Member

__all__ = ["Grace", "LastSeen", "Members", "OnlineUsers"]


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


class _Online(Struct, gc=False):
    """One user who is online."""

    # Open sessions; 0 during the grace after the last.
    sessions: int
    # Milliseconds since the Unix epoch: since when, and when something last came by a session that has ended.
    since: int
    seen: int = 0


class OnlineUsers:
    """Who is online on this node, since when, and when those who are not were last seen.

    Times are milliseconds since the Unix epoch. A user whose last session has ended stays until `gone`.
    """

    def __init__(self, last_seen: LastSeen) -> None:
        self._last_seen = last_seen
        self._online: dict[str, _Online] = {}

    def __contains__(self, user: str) -> bool:
        return user in self._online

    def opened(self, user: str, now: int) -> bool:
        """A session of `user` has opened; whether the user was not online before."""
        online = self._online.get(user)
        if online is None:
            self._online[user] = _Online(1, now)
            return True
        online.sessions += 1
        return False

    def ended(self, user: str, seen: int) -> bool:
        """A session has ended by which something last came at `seen`; whether it was the last of its user's."""
        online = self._online[user]
        online.sessions -= 1
        online.seen = max(online.seen, seen)
        return not online.sessions

    def gone(self, user: str) -> int:
        """`user` is not online any more; returns when something last came."""
        seen = self._online.pop(user).seen
        self._last_seen.note(user, seen)
        return seen

    def since(self, user: str) -> int:
        """Since when `user` is online; raises `KeyError` for one who is not."""
        return self._online[user].since

    def last_seen(self, user: str, now: int) -> int | None:
        """When something last came by a session of `user` that has ended; None where that is not known any more."""
        online = self._online.get(user)
        return (online.seen or None) if online is not None else self._last_seen.get(user, now)


class LastSeen:
    """When users that are offline were last seen, for `age`; beyond `size` the longest gone are forgotten first.

    Times are milliseconds since the Unix epoch.
    """

    def __init__(self, size: int = 100_000, age: int = 1_800_000) -> None:
        self._size = size
        self._age = age
        # In the order of going.
        self._times: dict[str, int] = {}

    def note(self, user: str, seen: int) -> None:
        """`user` has just gone, and was last seen at `seen`."""
        self._times.pop(user, None)
        self._times[user] = seen
        while len(self._times) > self._size:
            del self._times[next(iter(self._times))]

    def get(self, user: str, now: int) -> int | None:
        """When `user` was last seen; None where that is unknown or too long ago."""
        seen = self._times.get(user)
        return seen if seen is not None and seen > now - self._age else None

    def __len__(self) -> int:
        return len(self._times)
