"""The codec `hubbub.v1.json`: envelopes as JSON text."""

from __future__ import annotations

from typing import Any, Final, TypeVar

import msgspec
from msgspec import Raw, Struct

from hubbub.protocol.codec import BadMessage, Reference, Typed, check_nesting, say
from hubbub.protocol.content import unpacked
from hubbub.protocol.envelope import Envelope, HistoryPage
from hubbub.types import Packed, Publication

__all__ = [
    "BINARY",
    "NAME",
    "NATIVE",
    "decode",
    "decode_as",
    "decode_reference",
    "decode_type",
    "encode",
    "is_base64",
]

NAME: Final = "hubbub.v1.json"
BINARY: Final = False
NATIVE: Final = Publication

S = TypeVar("S", bound=Struct)

_envelope = msgspec.json.Decoder(Envelope)
_decoders: dict[type[Struct], msgspec.json.Decoder[Any]] = {}
_encode = msgspec.json.Encoder().encode

# For `bytes.translate`: what may stand in base64.
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

# Bytes that one call looks at, of a message that may have millions: some milliseconds of work.
_PIECE: Final = 131_072


def decode(text: str | bytes) -> Envelope:
    """See `Codec.decode`."""
    try:
        envelope = _envelope.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadMessage(say(error, "JSON")) from None
    check_nesting(text)
    if envelope.binary and not is_base64(envelope.content):
        raise BadMessage("`binary` says that `content` is base64, and it is not")
    return envelope


def decode_as(text: str | bytes, kind: type[S]) -> S:
    """See `Codec.decode_as`."""
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    try:
        return decoder.decode(text)  # type: ignore[no-any-return]  # the decoder for `kind` makes a `kind`
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadMessage(say(error, "JSON")) from None


def decode_type(text: str | bytes) -> str:
    """See `Codec.decode_type`."""
    return decode_as(text, Typed).type


def decode_reference(text: str | bytes) -> tuple[str | None, str | None]:
    """See `Codec.decode_reference`."""
    try:
        return decode_as(text, Reference).valid
    except BadMessage:
        return None, None


def encode(message: object) -> bytes:
    """See `Codec.encode`."""
    if type(message) is Packed:
        message = unpacked(message)
    elif type(message) is HistoryPage:
        messages = [unpacked(told) if type(told) is Packed else told for told in message.messages]
        message = msgspec.structs.replace(message, messages=messages)
    return _encode(message)


def is_base64(content: Raw) -> bool:
    """Whether an encoded content is a string of base64 with its padding (RFC 4648 §4)."""
    text = memoryview(content)
    rest = _not_base64(text)
    if b"\\" in rest:
        # Such as `\/`, which some write.
        try:
            text = memoryview(b'"%b"' % msgspec.json.decode(text, type=str).encode())
        except msgspec.DecodeError:
            return False
        rest = _not_base64(text)
    return rest in (b'""', b'"="', b'"=="') and text[1 - len(rest) :] == rest[1:] and len(text) % 4 == 2


def _not_base64(text: memoryview) -> bytes:
    # What is left without the alphabet, a piece at a time: there may be megabytes.
    return b"".join(bytes(text[at : at + _PIECE]).translate(None, _BASE64) for at in range(0, len(text), _PIECE))
