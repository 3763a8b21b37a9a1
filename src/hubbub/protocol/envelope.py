"""What goes over the wire: every message of either side, as typed structs (protocol.md §1 and §4).

A message from a client is decoded in one pass into an `Envelope`, which has the fields of an application's
message. Only a reserved type is decoded a second time, into the `Request` of that type: so the fields of
one type never constrain another, and the common case pays for one pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field

from hubbub.types import NOTHING, Packed, Position, Publication

__all__ = [
    "REQUESTS",
    "Ack",
    "AckUpTo",
    "Auth",
    "Chunk",
    "Envelope",
    "Fault",
    "Gap",
    "Goodbye",
    "Hello",
    "History",
    "HistoryPage",
    "Id",
    "Join",
    "Joined",
    "Leave",
    "Left",
    "Member",
    "MemberJoined",
    "MemberLeft",
    "Name",
    "Online",
    "PackedEnvelope",
    "Ping",
    "Pong",
    "PongAnswer",
    "PositionOnWire",
    "Presence",
    "PresenceList",
    "Receipt",
    "Request",
    "Resume",
    "Seq",
    "ServerChunk",
    "ServerPing",
    "Token",
    "Type",
    "Users",
    "UsersOnline",
    "Welcome",
]

Type = Annotated[str, Meta(min_length=1, max_length=64)]
Id = Annotated[str, Meta(min_length=1, max_length=64)]
# Control characters are refused by the conversation: a pattern here would cost more than all the rest.
Name = Annotated[str, Meta(min_length=1, max_length=128)]
Seq = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Token = Annotated[str, Meta(min_length=1, max_length=8192)]
PositionOnWire = tuple[Annotated[str, Meta(min_length=1, max_length=64)], Seq]


if TYPE_CHECKING:
    OptionalName = Name | None
    OptionalId = Id | None
    OptionalSeq = Seq | None
    OptionalBool = bool | None
    OptionalText = str | None
    OptionalPosition = PositionOnWire | None
else:
    # Absent is None in Python, but `null` on the wire is a value of the wrong type (protocol.md §1.2): what
    # decodes by these annotations must not take it.
    OptionalName, OptionalId, OptionalSeq, OptionalBool = Name, Id, Seq, bool
    OptionalText, OptionalPosition = Annotated[str, Meta(min_length=1, max_length=128)], PositionOnWire


# Spelled here: within the structs `type` is a field.
_Published = type[Publication]


class Envelope(Struct, gc=False):
    """An application's message as a client sent it; what the server sets (`from`, `seq`, `time`) is ignored."""

    type: Type
    to: OptionalName = None
    room: OptionalName = None
    content: Raw = NOTHING
    id: OptionalId = None
    receipt: bool = False
    echo: bool = True
    volatile: OptionalBool = None
    # True where `content` is base64 of bytes: JSON has none of its own.
    binary: bool = False

    # What becomes of it in a channel.
    published: ClassVar[_Published] = Publication


class PackedEnvelope(Envelope):
    """An application's message whose `content` is MessagePack, not JSON."""

    published: ClassVar[_Published] = Packed


# ------------------------------------------------------------------------------ client to server


class Request(Struct, gc=False):
    """A message of a reserved type from a client."""

    id: OptionalId = None


class Resume(Struct):
    """Where a client left off: a position per channel, null to join fresh."""

    inbox: PositionOnWire | None = None
    all: PositionOnWire | None = None
    rooms: dict[Name, PositionOnWire | None] = {}


if TYPE_CHECKING:
    OptionalToken = Token | None
    OptionalResume = Resume | None
else:
    OptionalToken, OptionalResume = Token, Resume


class Hello(Request):
    """The first message of the full way."""

    token: OptionalToken = None
    client: OptionalText = None
    resume: OptionalResume = None

    def __repr__(self) -> str:
        # The token is a secret, and this may end up in a log.
        return f"Hello(client={self.client!r})"


class Auth(Request, kw_only=True):
    """A new token on a live connection."""

    token: Token

    def __repr__(self) -> str:
        return "Auth(…)"


class Ping(Request):
    """Answered with a `pong` that repeats `id` and `content`."""

    content: Raw = NOTHING
    # As in the `Envelope`.
    binary: bool = False


class Pong(Request):
    """The answer to the server's `ping`."""


class Join(Request, kw_only=True):
    """Become a member of `room`, optionally with what was missed since a position, or the last N messages."""

    room: Name
    since: OptionalPosition = None
    last: OptionalSeq = None


class Leave(Request, kw_only=True):
    """Stop being a member of `room`."""

    room: Name


class AckUpTo(Request, kw_only=True):
    """Everything up to `seq` has been handled; no room: in the inbox."""

    seq: Annotated[int, Meta(ge=1, le=2**53 - 1)]
    room: OptionalName = None


class History(Request):
    """Ask for messages of a room, or of one's own inbox; `before` and `after` are exclusive."""

    room: OptionalName = None
    before: OptionalSeq = None
    after: OptionalSeq = None
    limit: Annotated[int, Meta(ge=1, le=500)] = 100


class Presence(Request, kw_only=True):
    """Ask who is in `room`."""

    room: Name


class Users(Request, kw_only=True):
    """Ask who of `ids` is online."""

    ids: Annotated[list[Name], Meta(max_length=100)]


class Chunk(Request, kw_only=True):
    """A part of a message that is too large for one (protocol.md §7); `id` names the transfer."""

    id: Id
    index: Annotated[int, Meta(ge=0, le=4095)]
    total: Annotated[int, Meta(ge=1, le=4096)]
    data: Annotated[bytes, Meta(min_length=1, max_length=32_768)]


# -------------------------------------------------------------------------------- server to client


class _Answer(Struct, gc=False, omit_defaults=True, tag_field="type"):
    """A message that the server writes; `type` comes first on the wire."""


class Welcome(_Answer, tag="welcome"):
    """The answer to `hello`."""

    session: str
    user: str
    # Milliseconds since the Unix epoch, server's clock.
    time: int
    # Milliseconds between the server's pings.
    ping: int
    limits: dict[str, int]
    positions: dict[str, Any]
    recovered: dict[str, Any]
    expires: int | None = None
    id: str | None = None


class Member(Struct, gc=False):
    """One user in a room."""

    user: str
    # On how many sessions the user is in the room.
    sessions: int
    # Milliseconds since the Unix epoch.
    since: int


class Joined(_Answer, tag="joined"):
    """The answer to `join`; the backlog, if any, follows."""

    room: str
    position: Position
    recovered: bool | None
    # Users in the room.
    count: int
    members: list[Member] | UnsetType = UNSET
    id: str | None = None


class Left(_Answer, tag="left"):
    """The answer to `leave`; also sent unasked, with a code, when the session is taken out of a room."""

    room: str
    id: str | None = None
    code: str | None = None


class Ack(_Answer, tag="ack"):
    """Your message is accepted and stored as the engine promises."""

    id: str | None = None
    to: str | None = None
    room: str | None = None
    seq: int | None = None
    epoch: str | None = None
    duplicate: bool = False
    # As in a publication; only where the ack stands for one.
    prev: int | None = None
    # Only in the answer to `auth`: when the new token ends, in milliseconds since the Unix epoch.
    expires: int | None = None


class Receipt(_Answer, tag="receipt"):
    """A recipient's session acknowledged your message."""

    id: str
    by: str
    time: int


class HistoryPage(_Answer, tag="history"):
    """The answer to `history`: publications, oldest first."""

    messages: list[Publication]
    position: Position
    more: bool
    room: str | None = None
    id: str | None = None


class PresenceList(_Answer, tag="presence"):
    """The answer to `presence`."""

    room: str
    members: list[Member]
    count: int
    id: str | None = None


class Online(Struct, gc=False, omit_defaults=True):
    """Whether a user is online, and since when, or when last seen (milliseconds since the Unix epoch)."""

    online: bool
    since: int | None = None
    last_seen: int | None = None


class UsersOnline(_Answer, tag="users"):
    """The answer to `users`."""

    users: dict[str, Online]
    id: str | None = None


class MemberJoined(_Answer, tag="member-joined"):
    """A user came into a room that has presence events on."""

    room: str
    user: str


class MemberLeft(_Answer, tag="member-left"):
    """A user left a room that has presence events on."""

    room: str
    user: str


class ServerPing(_Answer, tag="ping"):
    """Answer with `pong`: are you there?"""


class PongAnswer(_Answer, tag="pong"):
    """The answer to a client's `ping`."""

    id: str | None = None
    content: Raw = NOTHING
    # As in the `Envelope`.
    binary: bool = False


class ServerChunk(_Answer, tag="chunk"):
    """A part of a large message of the server's, see `Chunk`."""

    id: str
    index: int
    total: int
    data: bytes


class Fault(_Answer, tag="error"):
    """Something did not work; the connection stays (protocol.md §6)."""

    code: str
    message: str
    id: str | None = None
    room: str | None = None
    retry_after: float | None = None
    where: str | None = None


class Gap(_Answer, tag="gap"):
    """Messages `from_`..`to` of a channel were dropped for this slow connection."""

    from_: int = field(name="from")
    to: int = 0
    room: str | None = None
    channel: str | None = None


class Goodbye(_Answer, tag="goodbye"):
    """The connection closes next."""

    code: int
    reason: str
    retry_after: float | None = None


REQUESTS: dict[str, type[Request]] = {
    "hello": Hello,
    "auth": Auth,
    "ping": Ping,
    "pong": Pong,
    "join": Join,
    "leave": Leave,
    "ack": AckUpTo,
    "history": History,
    "presence": Presence,
    "users": Users,
    "chunk": Chunk,
}
"""The reserved types that a client may send, and how each is read."""
