"""What every codec is: envelopes to bytes and back, under the same names in each codec's module."""

from __future__ import annotations

import re
from itertools import accumulate
from typing import Final, Protocol, TypeVar

import msgspec
from msgspec import Struct

from hubbub.protocol.envelope import Envelope
from hubbub.protocol.weight import MOST_CONTAINERS
from hubbub.types import Publication

__all__ = ["CONTROL", "MAX_NESTING", "UNFIT", "BadMessage", "Codec", "Reference", "Typed", "check_nesting", "say"]

MAX_NESTING: Final = 64
"""How many objects and arrays may stand in each other, the envelope included (protocol.md §1.3)."""

CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""A control character: C0, DEL and C1 (protocol.md §1.2)."""

UNFIT: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""What may not be in a name: also surrogates, which a client cannot send, but Python's strings can hold."""

# For `bytes.translate`: what is neither a quote nor a bracket.
_NO_STRUCTURE = bytes(byte for byte in range(256) if byte not in b'[{]}"')
# A bracket as a signed byte, one deeper or one back; and quotes go.
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_string = re.compile(rb'"[^"]*"')

# Bytes that one call looks at, of a message that may have millions: some milliseconds of work.
_PIECE: Final = 131_072

S = TypeVar("S", bound=Struct)


class BadMessage(ValueError):
    """The bytes are not an envelope of this codec; the text says what is wrong, without quoting them."""


class Codec(Protocol):
    """A codec (protocol.md §2); `hubbub.protocol.json` and its sisters are such, each a module.

    A message is `str` where `BINARY` is false, else `bytes`.
    """

    @property
    def NAME(self) -> str:  # noqa: N802  # a constant of the module
        """The subprotocol that chooses this codec."""

    @property
    def BINARY(self) -> bool:  # noqa: N802  # the same
        """Whether messages travel in binary frames."""

    @property
    def NATIVE(self) -> type[Publication] | None:  # noqa: N802  # the same
        """The kind of publication whose record is already this codec's encoding, where there is one."""

    def decode(self, message: str | bytes, /) -> Envelope:
        """The envelope of a client, its content checked; raises `BadMessage`."""

    def decode_as(self, message: str | bytes, kind: type[S], /) -> S:
        """A message as a struct of `kind`; raises `BadMessage`.

        A field `content` may be `Raw`: of MessagePack in that codec, else of JSON, or of bytes in MessagePack. As `Any`
        it is decoded by the binary codec MessagePack and by JSON; Protobuf leaves it `Raw`.
        """

    def decode_type(self, message: str | bytes, /) -> str:
        """The type of a message; raises `BadMessage`."""

    def decode_reference(self, message: str | bytes, /) -> tuple[str | None, str | None]:
        """The `id` and `room` of a message that is wrong elsewhere, so that the error can name them."""

    def encode(self, message: object, /) -> bytes:
        """Any message of the server, a publication of either kind, or an envelope as a dict whose content is `Raw`."""


class Typed(Struct):
    """What every message has."""

    type: str


class Reference(Struct):
    """What a message that is wrong elsewhere may be called by."""

    id: object = None
    room: object = None

    @property
    def valid(self) -> tuple[str | None, str | None]:
        """The `id` and the `room`, each where it is one."""
        return _name(self.id, 64), _name(self.room, 128)


def _name(value: object, most: int) -> str | None:
    return value if isinstance(value, str) and 1 <= len(value) <= most and not CONTROL.search(value) else None


def say(error: Exception, codec: str) -> str:
    """What msgspec found wrong with a message, in words that repeat nothing of it."""
    if isinstance(error, msgspec.ValidationError):
        # Such as "Expected `str`, got `int` - at `$.type`": names types and our own fields only.
        return str(error)
    if isinstance(error, RecursionError):
        return f"the message is nested more than {MAX_NESTING} deep"
    if isinstance(error, UnicodeDecodeError):
        return f"not {codec}: text is not UTF-8"
    return f"not {codec}: {error}"


def check_nesting(text: str | bytes, *, within: int = 0) -> None:
    """Raise `BadMessage` where `text`, which is valid JSON and stands `within` so many others, is nested too deep."""
    # Counting is a hundred times cheaper than measuring depth, and almost no message has 64 brackets; a
    # short one has no room for them.
    most = MAX_NESTING - within
    if len(text) <= 2 * most or _brackets(text) <= most:
        return
    depth, containers = _measure(text if isinstance(text, bytes) else text.encode())
    if depth > most:
        raise BadMessage(f"the message is nested more than {MAX_NESTING} deep")
    if containers > MOST_CONTAINERS:
        raise BadMessage(f"the message holds more than {MOST_CONTAINERS} objects and arrays")


def _brackets(text: str | bytes) -> int:
    """How many of them open in `text`, those in strings too; a piece at a time, as in `_measure`."""
    places = range(0, len(text), _PIECE)
    if isinstance(text, bytes):
        return sum(text.count(b"{", at, at + _PIECE) + text.count(b"[", at, at + _PIECE) for at in places)
    if len(text) <= _PIECE:
        return text.count("{") + text.count("[")
    return sum(text.count("{", at, at + _PIECE) + text.count("[", at, at + _PIECE) for at in places)


def _measure(text: bytes) -> tuple[int, int]:
    """How deep valid JSON is nested, and how many objects and arrays it has."""
    # Nothing here is done by Python for each bracket, or by a pattern for each string: there may be a million of them
    # (a message in chunks). And it is done a piece at a time: no other thread goes on during a single call.
    deepest = depth = containers = at = 0
    within = b""
    while at < len(text):
        piece = text[at : at + _PIECE]
        if (len(piece) - len(piece.rstrip(b"\\"))) % 2:
            # Not between a backslash and what it is about.
            piece = text[at : at + _PIECE + 1]
        at += len(piece)
        if b"\\" in piece:
            piece = piece.replace(b"\\\\", b"").replace(b'\\"', b"")
        # Two quotes with nothing between change nothing for what follows, whichever is the one that opens.
        structure = (within + piece.translate(None, _NO_STRUCTURE)).replace(b'""', b"")
        outside, within, _ = _string.sub(b"", structure).partition(b'"')
        steps = outside.translate(_STEPS)
        deepest = max(deepest, max(accumulate(memoryview(steps).cast("b"), initial=depth)))
        opened = steps.count(1)
        depth += 2 * opened - len(steps)
        containers += opened
    return deepest, containers
