"""What one client says, checked and named: messages in, events out, no clock and no socket.

The conversation knows the two ways in (protocol.md §3), which types are reserved, and when a client has
been wrong too often. What the events mean for rooms and users is the hub's business.
"""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Iterable
from typing import Final, TypeGuard

from msgspec import Struct

from hubbub.protocol.codec import UNFIT, BadMessage, Codec
from hubbub.protocol.codes import RESERVED_FROM_CLIENT, RESERVED_FROM_SERVER, CloseCode, ErrorCode
from hubbub.protocol.envelope import REQUESTS, Chunk, Envelope, Fault, Hello, Join, Ping, Request, Users

__all__ = ["BadChunk", "Conversation", "Violation", "check", "is_name", "read_whole"]

_MOST_FAULTS: Final = 10
_FAULT_WINDOW: Final = 60.0

# Signalling is of the moment: an offer that waited in an inbox would connect to nobody (protocol.md §5.5).
_volatile: Final = frozenset({"webrtc-offer", "webrtc-answer", "webrtc-ice"})

# What the server says is not for clients to say, and what neither side can say yet.
_not_for_clients: Final = (RESERVED_FROM_SERVER | RESERVED_FROM_CLIENT) - REQUESTS.keys()


_utf8 = codecs.getincrementaldecoder("utf-8")
_PIECE: Final = 262_144


class Violation(Struct, frozen=True):
    """The client broke the protocol beyond an error: the connection closes with this code."""

    code: CloseCode
    reason: str
    # Sent before the close, where the client can make use of it.
    fault: Fault | None = None


class BadChunk(Fault):
    """A part of the transfer `id` that cannot be read: `wrong` only where nothing was before with that transfer."""

    # 0 where the part does not say which one it is.
    index: int = 0

    @property
    def told(self) -> Fault:
        """What is told of it."""
        return Fault(self.code, self.message, self.id, self.room)


class _Part(Struct):
    """What of a bad chunk says where it belongs."""

    type: str
    index: object = 0


class Conversation:
    """The state of one client's side of the protocol."""

    __slots__ = ("_faults", "codec", "greeted")

    def __init__(self, codec: Codec, *, full: bool) -> None:
        self.codec = codec

        # The plain way needs no greeting: it is open from the handshake on.
        self.greeted = not full

        # When this client was wrong, newest last; None until it is wrong for the first time.
        self._faults: deque[float] | None = None

    def receive(self, message: str | bytes, now: float) -> Envelope | Request | Fault | Violation:
        """What `message` says: an application's envelope, a request of a reserved type, or what is wrong.

        `now` is in seconds on any clock that only goes forward.
        """
        codec = self.codec
        if isinstance(message, str) is codec.BINARY:
            said = "binary, not text" if codec.BINARY else "text, not binary"
            return self._wrong(f"this connection speaks {codec.NAME.rpartition('.')[2]}: send {said}", now)
        try:
            envelope = codec.decode(message)
            request = REQUESTS.get(envelope.type)
            if request is None:
                check(envelope)
                if self.greeted:
                    return envelope
            else:
                asked = codec.decode_as(message, request)
                _check_request(envelope, asked)
                if self.greeted:
                    if request is Hello:
                        return Fault(ErrorCode.CONFLICT, "hello comes once, as the first message", id=asked.id)
                    return asked
                if request is Hello:
                    self.greeted = True
                    return asked
        except BadMessage as error:
            id, room = codec.decode_reference(message)
            if self.greeted and id is not None and (index := _part_of(codec, message)) is not None:
                return BadChunk(ErrorCode.BAD_MESSAGE, str(error), id, room, index=index)
            return self._wrong(str(error), now, id, room)
        return self._wrong("the first message must be hello", now, envelope.id, envelope.room)

    def received_whole(self, event: Envelope | Request | Fault, now: float) -> Envelope | Request | Fault | Violation:
        """What is to be made of a message that came in chunks, and that `read_whole` has read."""
        if type(event) is Fault:
            return self._wrong(event.message, now, event.id, event.room)
        return event

    def wrong(self, now: float) -> bool:
        """Note one bad message; whether it was one too many (the 10th within a minute)."""
        faults = self._faults
        if faults is None:
            faults = self._faults = deque(maxlen=_MOST_FAULTS)
        faults.append(now)
        return len(faults) == _MOST_FAULTS and faults[0] > now - _FAULT_WINDOW

    def _wrong(self, text: str, now: float, id: str | None = None, room: str | None = None) -> Fault | Violation:
        fault = Fault(ErrorCode.BAD_MESSAGE, text, id, room)
        if not self.greeted:
            return Violation(CloseCode.PROTOCOL_VIOLATION, "the first message must be a valid hello", fault)
        if self.wrong(now):
            return Violation(CloseCode.PROTOCOL_VIOLATION, "too many bad messages", fault)
        return fault


def _part_of(codec: Codec, message: str | bytes) -> int | None:
    """Which part a bad message is, where it is a `chunk`."""
    try:
        part = codec.decode_as(message, _Part)
    except BadMessage:
        return None
    if part.type != "chunk":
        return None
    return part.index if isinstance(part.index, int) else 0


def read_whole(codec: Codec, blocks: Iterable[bytes | bytearray], transfer: str) -> Envelope | Request | Fault:
    """What a message says that has come in chunks as the transfer of this id; a `Fault` where it is none.

    `blocks` are the whole, to be joined. It knows nothing of the session, and takes its time: it may be called in any
    thread.
    """
    whole = b"".join(blocks)
    try:
        if not codec.BINARY:
            # A text message has been looked at by whoever took it off the wire.
            _check_utf8(whole)
        envelope = codec.decode(whole)
        request = REQUESTS.get(envelope.type)
        if request is None:
            check(envelope)
            return envelope
        if request is Chunk or request is Hello:
            return Fault(ErrorCode.BAD_MESSAGE, f"`{envelope.type}` does not come in chunks", transfer)
        asked = codec.decode_as(whole, request)
        _check_request(envelope, asked)
    except BadMessage as error:
        id, room = codec.decode_reference(whole)
        # A client that gave the message no id may still know the transfer by its own.
        return Fault(ErrorCode.BAD_MESSAGE, str(error), transfer if id is None else id, room)
    return asked


def _check_utf8(text: bytes) -> None:
    # A piece at a time: each call keeps every other thread waiting.
    decoder = _utf8()
    try:
        for at in range(0, len(text), _PIECE):
            decoder.decode(text[at : at + _PIECE])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise BadMessage("not JSON: text is not UTF-8") from None


def check(envelope: Envelope) -> None:
    """Refuse an application's message that breaks a rule which the types of its fields cannot say; raises `BadMessage`.

    Sets `volatile` where the type decides it and the sender did not.
    """
    type, id, room, to = envelope.type, envelope.id, envelope.room, envelope.to
    if type in _not_for_clients:
        raise BadMessage(f"clients cannot send the type {type}")
    # `isprintable` is one C call, true for nearly all names; where it is false the name may still be fine.
    if not type.isprintable():
        _check_text("type", type)
    if id is not None and not id.isprintable():
        _check_text("id", id)
    if room is not None:
        if to is not None:
            raise BadMessage("a message goes `to` a user or to a `room`, not both")
        if not room.isprintable():
            _check_text("room", room)
    elif to is not None and not to.isprintable():
        _check_text("to", to)
    if envelope.volatile is None and type in _volatile:
        envelope.volatile = True
    if envelope.receipt and (to is None or id is None or envelope.volatile):
        raise BadMessage("a receipt needs `to` and `id`, and a message that is not volatile")


def is_name(value: object) -> TypeGuard[str]:
    """Whether `value` can name a user or a room (protocol.md §1.2)."""
    return isinstance(value, str) and 1 <= len(value) <= 128 and not UNFIT.search(value)


def _check_request(envelope: Envelope, request: Request) -> None:
    # The sender's fields are checked in every message, also where the type makes no use of them (protocol.md §1.1).
    for field, name in (("id", envelope.id), ("room", envelope.room), ("to", envelope.to)):
        if name is not None:
            _check_text(field, name)
    if isinstance(request, Ping):
        # What the codec makes of it: in MessagePack it is no field.
        request.binary = envelope.binary
    if isinstance(request, Join) and request.since is not None and request.last is not None:
        raise BadMessage("`join` takes `since` or `last`, not both")
    if isinstance(request, Hello) and request.resume is not None:
        for name in request.resume.rooms:
            _check_text("room", name)
    if isinstance(request, Chunk) and request.index >= request.total:
        raise BadMessage("`index` of a chunk is below its `total`")
    if isinstance(request, Users):
        for name in request.ids:
            _check_text("ids", name)


def _check_text(field: str, text: str) -> None:
    if UNFIT.search(text):
        raise BadMessage(f"`{field}` contains a control character")
