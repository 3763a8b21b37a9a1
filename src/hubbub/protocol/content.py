"""A content in the two forms in which it travels, JSON text and MessagePack, each made of the other without loss.

A content is what JSON can say, or bytes (protocol.md §2). Three things need care: numbers that MessagePack cannot
hold, which travel as JSON text in an extension type of ours; bytes, which JSON writes as base64; and what MessagePack
can say and JSON cannot, which is refused at the door.
"""

from __future__ import annotations

import base64
import json as reference
import math
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec
from msgspec import Raw
from msgspec.msgpack import Ext

from hubbub.protocol.codec import MAX_NESTING, BadMessage, check_nesting
from hubbub.protocol.weight import LARGE, MOST_CONTAINERS, containers_of
from hubbub.types import NOTHING, Packed, Publication

__all__ = [
    "NUMBER",
    "check_packed",
    "encode_json",
    "exact",
    "is_bytes",
    "json_of",
    "pack_bytes",
    "packed",
    "packed_of",
    "read_extension",
    "read_json",
    "unpack_bytes",
    "unpacked",
]

NUMBER: Final = 1
"""The extension type of MessagePack for a number that it cannot hold: its data is the number as JSON text."""

_number = re.compile(rb"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")

# The first byte of bytes in MessagePack, by the width of what says how many there are.
_BYTES: Final = (0xC4, 0xC5, 0xC6)


class _Number:
    """A number as JSON text; no struct, which msgspec would write by itself."""

    __slots__ = ("text",)

    def __init__(self, text: bytes) -> None:
        self.text = text


_SCALARS = frozenset((str, int, bool, type(None)))
_NOT_PLAIN = frozenset((int, list, dict))

# Python refuses to read integers of more than 4,300 digits.
_MOST_DIGITS: Final = 4_000
# Strings, to be passed by, and integers that are as long.
_LONG = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|-?[0-9]{%d,}(?![0-9.eE])' % _MOST_DIGITS)

# How deep contents are looked at in one go: almost all of each of them.
_LEVELS: Final = 6


def _sayable(levels: int) -> Any:
    """The type of what JSON can say, so many levels deep; what is deeper stays encoded.

    The keys of maps are strings already while they are read: lists and numbers would be hashed without a secret, and a
    map of keys that all collide would take minutes.
    """
    if not levels:
        return Raw
    lists: Any = list
    maps: Any = dict
    inner = _sayable(levels - 1)
    return None | bool | int | float | str | Ext | lists[inner] | maps[str, inner]


_decode_sayable = msgspec.msgpack.Decoder(_sayable(_LEVELS)).decode
_decode_packed = msgspec.msgpack.Decoder(ext_hook=lambda _, number: _Number(bytes(number))).decode
_encode_packed = msgspec.msgpack.Encoder().encode
# Numbers that came as `Decimal` go as numbers.
_encode_value = msgspec.json.Encoder(decimal_format="number").encode
_encode_json = msgspec.json.Encoder(enc_hook=lambda number: Raw(number.text)).encode
_decode_json = msgspec.json.Decoder().decode
_decode_raw = msgspec.json.Decoder(Raw).decode


def exact(text: str) -> int | float | Decimal:
    """A number of JSON in Python: as a `Decimal` where neither `int` nor `float` holds it, infinite where none does."""
    text = _without_mark(text)
    if text.lstrip("-").isdecimal():
        return int(text) if len(text) < _MOST_DIGITS else Decimal(text)
    value = float(text)
    try:
        return value if math.isfinite(value) else Decimal(text)
    except InvalidOperation:
        # An exponent of over 18 digits.
        return Decimal(value)


def read_extension(code: int, data: memoryview) -> int | float | Decimal:
    """The number in an extension of MessagePack, for who reads it; raises `BadMessage`."""
    _check_extension(Ext(code, bytes(data)))
    return exact(bytes(data).decode())


def read_json(text: bytes | str) -> Any:
    """JSON of any numbers in Python; raises `ValueError` where it is none."""
    try:
        return _decode_json(text)
    except msgspec.ValidationError:
        # Of what may be anything only a number can be invalid.
        return _read_numbers(text if isinstance(text, bytes) else text.encode(), exact)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from None


def check_packed(content: Raw) -> None:
    """Raise `BadMessage` unless `content`, of MessagePack's outer form, is bytes or what JSON can say."""
    size = memoryview(content).nbytes
    if not size or is_bytes(content):
        return
    if size > LARGE and containers_of(bytes(content)) > MOST_CONTAINERS:
        raise BadMessage(f"`content` holds more than {MOST_CONTAINERS} maps and arrays")
    try:
        _check([[_decode_sayable(content)]])
    except msgspec.ValidationError:
        # What it would say names a place, but only within these levels.
        raise BadMessage("`content` is bytes, or what JSON can say: no bytes within, and maps by strings") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BadMessage("not MessagePack: `content` is malformed") from None


def _check(lists: list[Iterable[Any]]) -> None:
    """Look at all values once, those that are equally deep together."""
    # The envelope is the first of those that may be nested.
    depth = 1
    while lists:
        deeper: list[Iterable[Any]] = []
        encoded: list[Raw] = []
        for items in lists:
            for item in items:
                kind = type(item)
                if kind in _SCALARS:
                    continue
                if kind is float:
                    # Neither infinity nor NaN is nothing less itself.
                    if item - item:
                        raise BadMessage("`content` holds no NaN and no infinity")
                elif kind is dict or kind is list:
                    if depth == MAX_NESTING:
                        raise BadMessage(f"the message is nested more than {MAX_NESTING} deep")
                    if item:
                        deeper.append(item.values() if kind is dict else item)
                elif kind is Raw:
                    encoded.append(item)
                else:
                    _check_extension(item)
        if encoded:
            # So deep all of them are: they are decoded as one list, and looked at again.
            lists = [_decode_sayable(b"\xdd%b%b" % (len(encoded).to_bytes(4), b"".join(encoded)))]
            continue
        depth += 1
        lists = deeper


def _check_extension(value: Ext) -> None:
    if value.code != NUMBER:
        raise BadMessage("`content` holds only what JSON can say, or bytes: times as text or as numbers")
    if not _number.fullmatch(value.data):
        raise BadMessage(f"extension type {NUMBER} holds a number as JSON text, and this is none")


def json_of(packed: Raw) -> tuple[Raw, bool]:
    """A checked content of MessagePack as JSON, and whether that is base64 of bytes."""
    if not memoryview(packed).nbytes:
        return NOTHING, False
    content = unpack_bytes(packed)
    if content is not None:
        return Raw(b'"%b"' % base64.b64encode(content)), True
    return Raw(_encode_json(_decode_packed(packed))), False


def packed_of(json: Raw, binary: bool) -> Raw:
    """A checked content of JSON as MessagePack; `binary`: it is base64 of bytes."""
    if not memoryview(json).nbytes:
        return NOTHING
    if binary:
        return pack_bytes(base64.b64decode(msgspec.json.decode(json, type=str)))
    try:
        return Raw(_encode_packed(_decode_json(json)))
    except (msgspec.DecodeError, OverflowError):
        # A number that is too large for both, or for MessagePack alone.
        return Raw(_encode_packed(_within(_read_numbers(bytes(json), _float_or_extension))))


def _read_numbers(json: bytes, read: Callable[[str], Any]) -> Any:
    """JSON by the standard library's reader, which lets us read numbers: those that no `float` or `int` may hold.

    Not the integers, unless one is so long that Python refuses it: there may be millions, and each call takes time.
    """
    try:
        return reference.loads(json, parse_float=read)
    except ValueError:
        # Such a one is made to look like a float, for `read` to be asked.
        return reference.loads(
            _LONG.sub(lambda found: found[0] + b"e0" * (found[0][:1] != b'"'), json), parse_float=read
        )


def _float_or_extension(text: str) -> float | Ext:
    """A number that may be too large for a double, as what MessagePack makes of it."""
    value = float(text)
    return value if math.isfinite(value) else Ext(NUMBER, _without_mark(text).encode())


def _without_mark(text: str) -> str:
    """What a number looked like before it was made to look like a float."""
    digits = text.removesuffix("e0")
    return digits if len(digits) >= _MOST_DIGITS and digits.lstrip("-").isdecimal() else text


def _within(value: Any) -> Any:
    """What MessagePack can hold: integers that are too large for it become extensions, in their places."""
    if type(value) is int and not -(2**63) <= value < 2**64:
        return Ext(NUMBER, str(value).encode())
    if type(value) is list:
        for index, item in enumerate(value):
            if type(item) in _NOT_PLAIN:
                value[index] = _within(item)
    elif type(value) is dict:
        for key, item in value.items():
            if type(item) in _NOT_PLAIN:
                value[key] = _within(item)
    return value


def encode_json(value: object) -> Raw:
    """A content of the application as JSON: what msgspec can encode, or a pydantic model.

    Raises what these raise, and `ValueError` for NaN and infinities, of which both would make null, and for what is
    nested too deep.
    """
    dump = getattr(value, "model_dump_json", None)
    encoded = _encode_value(value) if dump is None else dump().encode()
    if b"null" in encoded and not _holds_no_nan(value):
        raise ValueError("JSON has no NaN and no infinity")
    if dump is not None or type(value) not in _SCALARS:
        # A `Raw` within, and a model that writes NaN as that, are as nobody has looked at them.
        _decode_raw(encoded.decode())
        check_nesting(encoded, within=1)
    return Raw(encoded)


def _holds_no_nan(value: Any) -> bool:
    if hasattr(value, "model_dump_json"):
        return _is_finite(value.model_dump())
    # Looking at each value costs more than another encoding, in which they cannot hide.
    with suppress(OverflowError):
        if not _may_be_infinite(_encode_packed(value)):
            return True
    return _is_finite(msgspec.to_builtins(value, enc_hook=lambda raw: None if isinstance(raw, Raw) else raw))


def _may_be_infinite(packed: bytes) -> bool:
    """Whether there are infinities or NaN, in either width, in MessagePack; other bytes may look so, too."""
    return b"\xcb\x7f" in packed or b"\xcb\xff" in packed or b"\xca\x7f" in packed or b"\xca\xff" in packed


def _is_finite(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    return not isinstance(value, list | tuple | set | frozenset) or all(map(_is_finite, value))


def pack_bytes(content: bytes) -> Raw:
    """Bytes as a content of MessagePack."""
    return Raw(_encode_packed(content))


def unpack_bytes(packed: Raw) -> bytes | None:
    """The bytes that a content of MessagePack is; None where it is something else."""
    return msgspec.msgpack.decode(packed, type=bytes) if is_bytes(packed) else None


def is_bytes(content: Raw) -> bool:
    """Whether a content is bytes in MessagePack; no JSON begins as these do."""
    view = memoryview(content)
    return view.nbytes > 0 and view[0] in _BYTES


def packed(publication: Publication) -> Packed:
    """A publication whose content is JSON, with the same content in MessagePack."""
    return Packed(
        publication.type,
        publication.from_,
        publication.to,
        publication.room,
        packed_of(publication.content, publication.binary),
        False,
        publication.id,
        publication.receipt,
        publication.seq,
        publication.prev,
        publication.time,
    )


def unpacked(packed: Packed) -> Publication:
    """A publication whose content is MessagePack, with the same content in JSON."""
    content, binary = json_of(packed.content)
    return Publication(
        packed.type,
        packed.from_,
        packed.to,
        packed.room,
        content,
        binary,
        packed.id,
        packed.receipt,
        packed.seq,
        packed.prev,
        packed.time,
    )
