"""Who is in one room, as the stream of places tells it: each node that applies the same entries knows the same.

An entry says that a session comes or goes; its place in the stream is the order in which everything happened. Pure:
nothing here waits, and nothing is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Struct

from hubbub.protocol.envelope import Member
from hubbub.types import Place

__all__ = ["ANY", "UNKNOWN", "Entry", "Room", "decode_entry", "encode_entry"]


class Entry(Struct, frozen=True, gc=False, omit_defaults=True):
    """One session comes to a room, or goes."""

    channel: str
    node: str
    user: str
    session: str
    # Since when the session is in the room, and its user (milliseconds since the Unix epoch).
    since: int = 0
    came: int = 0
    # How many users the room takes.
    capacity: int = 0
    # Where the entry stands that this one ends; 0: it begins something.
    ends: int = 0
    # What the node calls this entry.
    call: int = 0
    # Not written: where it stands itself.
    seq: int = 0


ANY: Final = 1_000_000_000
"""Places in a room where nobody is turned away: who was in it before comes back."""

UNKNOWN: Final = 1
"""What an entry ends that may never have counted: no entry stands there, for a node says first that it lives."""

encode_entry: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Entry).decode


def decode_entry(body: bytes, seq: int) -> Entry:
    """The entry that stands at `seq`; raises `msgspec.DecodeError`."""
    return msgspec.structs.replace(_decode(body), seq=seq)


class Room:
    """Who is in a room, up to a place in the stream."""

    __slots__ = ("_brought", "_users", "seq")

    def __init__(self) -> None:
        # Everything up to there is known.
        self.seq = 0
        # By user, in the order of coming; then by node and session.
        self._users: dict[str, dict[tuple[str, str], Entry]] = {}
        # By whom each of them has come, as long as that one is in.
        self._brought: dict[str, tuple[str, str]] = {}

    def __len__(self) -> int:
        """How many users there are."""
        return len(self._users)

    def __contains__(self, user: object) -> bool:
        return user in self._users

    def apply(self, entry: Entry) -> bool | None:
        """Take in what the stream tells next; what is not behind `seq` is known already, and changes nothing.

        For a session that comes whether its user has come with it, None where the room is full; for one that goes
        whether its user has gone with it.
        """
        if entry.seq <= self.seq:
            return False
        self.seq = entry.seq
        return self._leave(entry) if entry.ends else self._enter(entry)

    @classmethod
    def read(cls, entries: list[Entry], bar: Callable[[str], int]) -> tuple[Room, dict[int, bool | None]]:
        """The room that entries make, and what `apply` has said to each: as to who heard them, as far as can be told.

        Who has left was in until then, and what a node had entered before its `bar` until that. What stood in the
        stream and is gone without a trace is not known.
        """
        steps: list[tuple[int, str, Entry | None]] = [(bar(node), node, None) for node in {one.node for one in entries}]
        for entry in entries:
            steps.append((entry.seq, entry.node, entry))
            if entry.ends > UNKNOWN:
                # It was in: so there was room for it.
                begin = msgspec.structs.replace(entry, seq=entry.ends, ends=0, capacity=ANY)
                steps.append((entry.ends, entry.node, begin))
        # What a node enters where it is taken for dead is behind that.
        steps.sort(key=lambda step: (step[0], step[2] is not None))
        room, said = cls(), {}
        for seq, node, step in steps:
            if step is None:
                room.drop(node, seq)
            else:
                said[step.seq] = room.apply(step)
        return room, said

    def came(self, user: str, now: int) -> int:
        """Since when `user` is in the room, `now` for one who is not."""
        places = self._users.get(user)
        return min((entry.came for entry in places.values()), default=now) if places else now

    def drop(self, node: str, bar: int) -> None:
        """A node has died: what it had entered before `bar` is over."""
        for user, places in list(self._users.items()):
            for key, entry in list(places.items()):
                if key[0] == node and entry.seq < bar:
                    self._take_out(user, key)

    def members(self, limit: int) -> list[Member]:
        """The first `limit` users in the order of coming."""
        found = [(self.came(user, 0), user, places) for user, places in self._users.items()]
        found.sort(key=lambda one: one[0])
        return [Member(user, len(places), came) for came, user, places in found[:limit]]

    def places(self, user: str) -> list[Place]:
        """The sessions of `user`, in the order of coming."""
        entries = sorted(self._users.get(user, {}).values(), key=lambda entry: (entry.since, entry.seq))
        return [Place(entry.session, entry.node, entry.since) for entry in entries]

    def has(self, node: str, user: str, session: str) -> bool:
        """Whether this session is in the room."""
        return (node, session) in self._users.get(user, {})

    def brought(self, node: str, user: str, session: str) -> bool:
        """Whether it was by this session that the user came."""
        return self._brought.get(user) == (node, session)

    def _enter(self, entry: Entry) -> bool | None:
        places = self._users.get(entry.user)
        if places is None:
            if len(self._users) >= entry.capacity:
                return None
            key = (entry.node, entry.session)
            self._users[entry.user] = {key: entry}
            self._brought[entry.user] = key
            return True
        places[entry.node, entry.session] = entry
        return False

    def _leave(self, entry: Entry) -> bool:
        key = (entry.node, entry.session)
        if key not in self._users.get(entry.user, ()):
            return False
        return self._take_out(entry.user, key)

    def _take_out(self, user: str, key: tuple[str, str]) -> bool:
        """Whether the user has gone with it."""
        places = self._users[user]
        del places[key]
        if self._brought.get(user) == key:
            del self._brought[user]
        if not places:
            del self._users[user]
        return not places
