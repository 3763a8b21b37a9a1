"""What a client reads and writes: the server's messages as typed structs, its own envelopes as dicts."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Raw, Struct, field

from hubbub.errors import HubbubError
from hubbub.protocol import json, msgpack
from hubbub.protocol.chunks import MOST_PARTS, PART_SIZE, cut, parts_of
from hubbub.protocol.codec import BadMessage, Codec
from hubbub.protocol.content import encode_json, json_of, pack_bytes, packed_of, read_json, unpack_bytes
from hubbub.protocol.envelope import (
    Chunk,
    Fault,
    Gap,
    Goodbye,
    Joined,
    MemberJoined,
    MemberLeft,
    PongAnswer,
    PresenceList,
    Receipt,
    ServerPing,
    UsersOnline,
)
from hubbub.types import Packed, Position

__all__ = [
    "Ack",
    "CodecName",
    "History",
    "Integer",
    "Left",
    "Limits",
    "Message",
    "NotAMessage",
    "Positions",
    "Recoveries",
    "Welcome",
    "Wire",
    "codec_named",
]


# What an integer on the wire is (protocol.md §1.2). Python's may have any size, and then cannot become a float.
Integer = Annotated[int, Meta(ge=-(2**53 - 1), le=2**53 - 1)]


class NotAMessage(ValueError):
    """The text is no message of the protocol; a server that sends such does not make sense."""


class Message(Struct, kw_only=True):
    """A message as a member of its channel receives it (protocol.md §1.1)."""

    type: str
    # The sender's user id; empty where the server's own application speaks.
    from_: str = field(name="from", default="")
    to: str | None = None
    room: str | None = None
    # Decoded: bytes where the sender sent bytes, None where there was no content.
    content: Any = None
    binary: bool = False
    id: str | None = None
    receipt: bool = False
    # The position in its channel; None for a volatile message.
    seq: Integer | None = None
    prev: Integer | None = None
    # When the server accepted it, milliseconds since the Unix epoch.
    time: Integer | None = None

    def __post_init__(self) -> None:
        if self.binary and isinstance(self.content, str):
            try:
                self.content = base64.b64decode(self.content, validate=True)
            except ValueError:
                raise NotAMessage("`binary` says that `content` is base64, and it is not") from None
        elif isinstance(self.content, Raw):
            found = unpack_bytes(self.content)
            self.content = read_json(bytes(self.content)) if found is None else found
        # The binary codecs do not say so.
        self.binary = isinstance(self.content, bytes)


class Positions(Struct):
    """Where each channel of a session stands."""

    inbox: Position
    all: Position
    rooms: dict[str, Position] = {}


class Recoveries(Struct):
    """For each channel, whether what was missed follows; null where no position was named."""

    inbox: bool | None = None
    all: bool | None = None
    rooms: dict[str, bool | None] = {}


class Limits(Struct):
    """What the server takes."""

    # Bytes of one message; and of one that comes in chunks, 0 where none may.
    message: Integer = 65_536
    large_message: Integer = 0


class Welcome(Struct, kw_only=True):
    """The session is open (protocol.md §3.3)."""

    session: str
    user: str
    # Milliseconds since the Unix epoch, on the server's clock.
    time: Integer
    positions: Positions
    recovered: Recoveries
    limits: Limits = field(default_factory=Limits)
    expires: Integer | None = None


class Ack(Struct, kw_only=True):
    """A message is accepted, at `seq` of its channel's log `epoch` where it became part of one (§5.2)."""

    id: str | None = None
    to: str | None = None
    room: str | None = None
    seq: Integer | None = None
    epoch: str | None = None
    # It had been accepted before; this was a retry.
    duplicate: bool = False
    # As in a message; only where the ack stands for one.
    prev: Integer | None = None
    # Only in the answer to `auth`: when the new token ends.
    expires: Integer | None = None


class Left(Struct, kw_only=True):
    """The session is not in the room any more; with a `code` where it did not ask for that."""

    room: str
    code: str | None = None
    id: str | None = None


class History(Struct, kw_only=True):
    """A page of a log, oldest message first (§4.5)."""

    messages: list[Message]
    # Where the log ends.
    position: Position
    # Whether there are more kept messages in the direction asked for.
    more: bool
    room: str | None = None
    id: str | None = None


# What a binary codec writes before the data of a chunk and around it, at most: lengths of some bytes each.
_LENGTHS: Final = 16


# The reserved types; whatever is not here is the application's.
_STRUCTS: Final[dict[str, type[Any]]] = {
    "welcome": Welcome,
    "ack": Ack,
    "receipt": Receipt,
    "joined": Joined,
    "left": Left,
    "history": History,
    "presence": PresenceList,
    "users": UsersOnline,
    "member-joined": MemberJoined,
    "member-left": MemberLeft,
    "ping": ServerPing,
    "pong": PongAnswer,
    "error": Fault,
    "gap": Gap,
    "goodbye": Goodbye,
    "chunk": Chunk,
}


class Wire:
    """What a client reads and writes, in one codec."""

    def __init__(self, codec: Codec = json) -> None:
        self.codec = codec

    def decode(self, message: str | bytes) -> Any:
        """The server's message, as the struct of its type; raises `NotAMessage`."""
        codec = self.codec
        if isinstance(message, str) is codec.BINARY:
            raise NotAMessage("text in a binary codec" if codec.BINARY else "a binary message")
        try:
            struct = _STRUCTS.get(codec.decode_type(message), Message)
            try:
                return codec.decode_as(message, struct)
            except BadMessage:
                if codec is not json:
                    raise
                # A number that only Python's own reader takes: nobody loses the connection for what another sent.
                return msgspec.convert(read_json(message), struct)
        except (msgspec.ValidationError, ValueError, RecursionError) as error:
            raise NotAMessage(str(error)) from None

    def decode_joined(self, message: bytes) -> Any:
        """The same for a message that came in chunks."""
        try:
            return self.decode(message if self.codec.BINARY else message.decode())
        except UnicodeDecodeError as error:
            raise NotAMessage(str(error)) from None

    def encode(self, envelope: dict[str, Any]) -> str | bytes:
        """An envelope; raises `HubbubError` for content that cannot be sent, such as NaN."""
        if "content" in envelope:
            content = envelope["content"]
            try:
                envelope = envelope | self._content(content)
            except (TypeError, ValueError, msgspec.MsgspecError, RecursionError) as error:
                raise HubbubError(f"this content cannot be sent as JSON: {error}") from None
        encoded = self.codec.encode(envelope)
        return encoded if self.codec.BINARY else encoded.decode()

    def size(self, encoded: str | bytes) -> int:
        """How many bytes an encoded envelope has on the wire."""
        return len(encoded.encode()) if isinstance(encoded, str) and not encoded.isascii() else len(encoded)

    def part_size(self, id: str, limit: int) -> int:
        """How many bytes a chunk of the transfer `id` can hold, which itself has at most `limit`; at most 32 KiB."""
        # The numbers at their longest; and what says how long the data is.
        left = limit - self.size(self._chunk(id, MOST_PARTS, MOST_PARTS, b"")) - _LENGTHS
        return max(0, min(PART_SIZE, left if self.codec.BINARY else left // 4 * 3))

    def chunks(self, id: str, encoded: str | bytes, part: int) -> Iterator[str | bytes]:
        """An encoded envelope in chunks, each with `part` bytes of it."""
        whole = encoded.encode() if isinstance(encoded, str) else encoded
        total = parts_of(len(whole), part)
        for index, data in enumerate(cut(whole, part)):
            yield self._chunk(id, index, total, data)

    def _chunk(self, id: str, index: int, total: int, data: bytes) -> str | bytes:
        chunk = self.codec.encode({"type": "chunk", "id": id, "index": index, "total": total, "data": data})
        return chunk if self.codec.BINARY else chunk.decode()

    def _content(self, content: object) -> dict[str, Any]:
        if isinstance(content, bytes | bytearray | memoryview):
            packed = pack_bytes(bytes(content))
            if self.codec.BINARY:
                return {"content": packed}
            encoded, binary = json_of(packed)
            return {"content": encoded, "binary": binary}
        encoded = encode_json(content)
        return {"content": packed_of(encoded, False) if self.codec.NATIVE is Packed else encoded}


CodecName = Literal["json", "msgpack", "protobuf"]
"""The codecs that a client may speak."""


def codec_named(name: str) -> Codec:
    """The codec `json`, `msgpack` or `protobuf`; raises `HubbubError` where there is none, or it is not installed."""
    if name == "protobuf":
        try:
            from hubbub.protocol import protobuf
        except ModuleNotFoundError as error:
            raise HubbubError("the codec protobuf is not installed: pip install 'hubbub[protobuf]'") from error
        return protobuf
    if name not in ("json", "msgpack"):
        raise HubbubError(f"there is no codec {name!r}: json, msgpack or protobuf")
    return msgpack if name == "msgpack" else json
