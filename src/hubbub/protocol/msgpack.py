"""The codec `hubbub.v1.msgpack`: envelopes as MessagePack maps with the same keys as in JSON."""

from __future__ import annotations

from typing import Any, Final, TypeVar

import msgspec
from msgspec import Raw, Struct

from hubbub.protocol.codec import BadMessage, Reference, Typed, say
from hubbub.protocol.content import check_packed, packed, read_extension
from hubbub.protocol.envelope import HistoryPage, PackedEnvelope
from hubbub.types import NOTHING, Packed, Publication

__all__ = ["BINARY", "NAME", "NATIVE", "decode", "decode_as", "decode_reference", "decode_type", "encode"]

NAME: Final = "hubbub.v1.msgpack"
BINARY: Final = True
NATIVE: Final = Packed

S = TypeVar("S", bound=Struct)

_envelope = msgspec.msgpack.Decoder(PackedEnvelope)
_decoders: dict[type[Struct], msgspec.msgpack.Decoder[Any]] = {}
_decode_text = msgspec.msgpack.Decoder(str).decode
_encode = msgspec.msgpack.Encoder().encode


class _Reference(Struct):
    """A `Reference` of which nothing is read but what may be a text; see `check_packed` for why."""

    id: Raw = NOTHING
    room: Raw = NOTHING


def decode(data: str | bytes) -> PackedEnvelope:
    """See `Codec.decode`."""
    assert isinstance(data, bytes)
    try:
        envelope = _envelope.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadMessage(say(error, "MessagePack")) from None
    check_packed(envelope.content)
    # A word of the codec JSON.
    envelope.binary = False
    return envelope


def decode_as(data: str | bytes, kind: type[S]) -> S:
    """See `Codec.decode_as`."""
    assert isinstance(data, bytes)
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.msgpack.Decoder(kind, ext_hook=read_extension)
    try:
        return decoder.decode(data)  # type: ignore[no-any-return]  # the decoder for `kind` makes a `kind`
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadMessage(say(error, "MessagePack")) from None


def decode_type(data: str | bytes) -> str:
    """See `Codec.decode_type`."""
    return decode_as(data, Typed).type


def decode_reference(data: str | bytes) -> tuple[str | None, str | None]:
    """See `Codec.decode_reference`."""
    try:
        found = decode_as(data, _Reference)
    except BadMessage:
        return None, None
    return Reference(_text(found.id), _text(found.room)).valid


def _text(value: Raw) -> str | None:
    try:
        return _decode_text(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def encode(message: object) -> bytes:
    """See `Codec.encode`."""
    if type(message) is Publication:
        message = packed(message)
    elif type(message) is HistoryPage:
        messages = [packed(told) if type(told) is Publication else told for told in message.messages]
        message = msgspec.structs.replace(message, messages=messages)
    return _encode(message)
