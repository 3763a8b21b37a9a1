"""The codec `hubbub.v1.json`: envelopes as JSON text.

Every codec module has these names: `NAME`, `BINARY`, `decode`, `decode_request`, `decode_reference`, `is_base64`,
`encode`.
"""

from __future__ import annotations

import base64
import re
from itertools import accumulate
from typing import Final, TypeVar

import msgspec

from hubbub.protocol.envelope import Envelope, Request

__all__ = [
    "BINARY",
    "CONTROL",
    "MAX_NESTING",
    "NAME",
    "BadMessage",
    "decode",
    "decode_reference",
    "decode_request",
    "encode",
    "is_base64",
]

NAME: Final = "hubbub.v1.json"
"""The subprotocol that chooses this codec."""

BINARY: Final = False
"""Whether messages travel in binary frames."""

MAX_NESTING: Final = 64
"""How many objects and arrays may stand in each other, the envelope included (protocol.md §2)."""

CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""A control character: C0, DEL and C1 (protocol.md §1.2)."""

R = TypeVar("R", bound=Request)

_envelope = msgspec.json.Decoder(Envelope)
_requests: dict[type[Request], msgspec.json.Decoder[Request]] = {}
encode = msgspec.json.Encoder().encode
"""Any message of the server, or a publication, as bytes of JSON."""

# By the time it is used the text is known to be valid JSON.
_string = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
# For `bytes.translate`: a bracket becomes a signed byte, one deeper or one back, and all the rest goes.
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NO_STEP = bytes(byte for byte in range(256) if byte not in b"[{]}")


class BadMessage(ValueError):
    """The bytes are not an envelope of this codec; the text says what is wrong, without quoting them."""


class _Reference(msgspec.Struct):
    id: object = None
    room: object = None


_reference = msgspec.json.Decoder(_Reference)


def decode(text: str) -> Envelope:
    """The envelope in `text`; raises `BadMessage`."""
    try:
        envelope = _envelope.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadMessage(_say(error)) from None
    # Counting is a hundred times cheaper than measuring depth, and almost no message has 64 brackets; a
    # short one has no room for them.
    if len(text) > 2 * MAX_NESTING and text.count("{") + text.count("[") > MAX_NESTING and _depth(text) > MAX_NESTING:
        raise BadMessage(f"the message is nested more than {MAX_NESTING} deep")
    return envelope


def decode_request(text: str, kind: type[R]) -> R:
    """The reserved message in `text`, which `decode` has accepted already; raises `BadMessage`."""
    decoder = _requests.get(kind)
    if decoder is None:
        decoder = _requests[kind] = msgspec.json.Decoder(kind)
    try:
        return decoder.decode(text)  # type: ignore[return-value]  # the decoder for `kind` makes a `kind`
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadMessage(_say(error)) from None


def decode_reference(text: str) -> tuple[str | None, str | None]:
    """The `id` and `room` of a message that is wrong elsewhere, so that the error can name them."""
    try:
        found = _reference.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None, None
    return _name(found.id, 64), _name(found.room, 128)


def is_base64(content: msgspec.Raw) -> bool:
    """Whether an encoded content is a string of base64 with its padding (RFC 4648 §4)."""
    try:
        text = msgspec.json.decode(content, type=str)
        base64.b64decode(text, validate=True)
    except (msgspec.DecodeError, ValueError):
        return False
    # Python takes padding that nothing needs, as in "AAAA=", and browsers do not.
    return len(text) % 4 == 0 and not text.endswith("===")


def _name(value: object, most: int) -> str | None:
    return value if isinstance(value, str) and 1 <= len(value) <= most and not CONTROL.search(value) else None


def _depth(text: str) -> int:
    # Nothing here is done by Python for each bracket: there may be 64 KiB of them, and everybody waits.
    steps = _string.sub(b"", text.encode()).translate(_STEPS, _NO_STEP)
    return max(accumulate(memoryview(steps).cast("b")), default=0)


def _say(error: Exception) -> str:
    """What went wrong, in words that repeat nothing of the message."""
    if isinstance(error, msgspec.ValidationError):
        # Such as "Expected `str`, got `int` - at `$.type`": names types and our own fields only.
        return str(error)
    if isinstance(error, RecursionError):
        return f"the message is nested more than {MAX_NESTING} deep"
    return f"not JSON: {error}"
