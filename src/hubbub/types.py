"""Plain names that every layer uses: positions, publications, channels' names."""

from __future__ import annotations

import base64
import hashlib
from enum import StrEnum
from typing import NamedTuple

from msgspec import Raw, Struct, field

__all__ = [
    "ALL",
    "NOTHING",
    "ROOM_ACTIONS",
    "Acknowledged",
    "Action",
    "Identity",
    "Packed",
    "Place",
    "Position",
    "Publication",
    "inbox_channel",
    "room_channel",
    "room_of",
    "token_id",
    "user_of",
]

ALL = "all"
"""The name of the broadcast channel, which every session listens to."""


def room_channel(room: str) -> str:
    """The channel of a room: `room:<name>`."""
    return "room:" + room


def inbox_channel(user: str) -> str:
    """The channel of a user's inbox: `user:<id>`."""
    return "user:" + user


def room_of(channel: str) -> str | None:
    """The room whose channel this is, or None."""
    return channel[5:] if channel.startswith("room:") else None


def user_of(channel: str) -> str | None:
    """The user whose inbox this is, or None."""
    return channel[5:] if channel.startswith("user:") else None


class Position(NamedTuple):
    """A place in a channel's log: everything up to and including `seq` of the log `epoch` has been seen.

    The epoch is the identity of the log: a log that was lost and began anew has another one, so that an
    old position is never mistaken for a place in the new log. `seq` 0 is the place before the first message.
    """

    epoch: str
    seq: int


class Place(Struct, frozen=True):
    """Where one session of a user is: on which node, and since when (milliseconds since the Unix epoch)."""

    session: str
    node: str
    since: int


class Acknowledged(Struct, frozen=True):
    """`user` has acknowledged a message: one of the user's sessions has handled the inbox up to it."""

    user: str
    # Where the message stands in the inbox.
    seq: int
    epoch: str
    # When, in milliseconds since the Unix epoch on the server's clock; None where that was before it was asked.
    time: int | None = None


NOTHING = Raw()
"""No content. One object for all: msgspec leaves a field out when it *is* its default."""


# gc=False: holds strings, numbers and bytes, never itself, so the collector need not look at the history.
class Publication(Struct, gc=False, omit_defaults=True):
    """One message as it stands in a channel and as receivers get it (protocol.md §1)."""

    type: str
    # The sender's user id; empty where the server itself speaks.
    from_: str = field(name="from", default="")
    to: str | None = None
    room: str | None = None
    # Encoded JSON, exactly as the sender wrote it; empty where there was none.
    content: Raw = NOTHING
    # True where `content` is base64 of bytes: JSON has none of its own.
    binary: bool = False
    id: str | None = None
    receipt: bool = False
    # Set by the engine, except for volatile publications, which have no place in the log.
    seq: int | None = None
    # The seq before this one, only where that is not seq - 1.
    prev: int | None = None
    # Milliseconds since the Unix epoch on the server's clock.
    time: int | None = None


class Packed(Publication):
    """A publication whose `content` is MessagePack, which has bytes of its own, so `binary` is false.

    What a client says in MessagePack, or in bytes, stays so: whoever speaks the same gets it as it was sent.
    """


class Action(StrEnum):
    """What may be granted: in a room each by itself, and none goes without `JOIN`; to a user `SEND`; `BROADCAST`."""

    JOIN = "join"
    """Be a member: hear what is published from now on."""

    PUBLISH = "publish"
    """Send messages to the room."""

    HISTORY = "history"
    """Read what was published before."""

    PRESENCE = "presence"
    """See who is in the room."""

    SEND = "send"
    """Write to a user, and ask whether that user is online."""

    BROADCAST = "broadcast"
    """Write to everyone."""


ROOM_ACTIONS = (Action.JOIN, Action.PUBLISH, Action.HISTORY, Action.PRESENCE)
"""What may be granted in a room."""


class Identity(Struct, frozen=True, kw_only=True):
    """Who somebody has proved to be, and what goes with the proof; an authenticate hook may return one."""

    # The user's id: a name (protocol.md §1.2).
    user: str
    # What the user is, for the policies of the configuration.
    roles: tuple[str, ...] = ()
    # What the proof itself grants, by room pattern; None where it says nothing about rooms.
    rooms: dict[str, tuple[Action, ...]] | None = None
    # When the proof was made, and when it stops being good, in milliseconds since the Unix epoch.
    issued: int | None = None
    expires: int | None = None
    # See `token_id`; empty where there was no token. The hub gives the names of tokens that it was shown.
    token_id: str = ""
    # Whether it was the application that vouched, which is asked each time and may say something else the next time.
    vouched: bool = False


def token_id(token: str) -> str:
    """A name for a token that does not give it away, so that it can be kept and told to other nodes."""
    digest = hashlib.blake2b(token.encode(errors="surrogatepass"), digest_size=15).digest()
    return base64.urlsafe_b64encode(digest).decode()
