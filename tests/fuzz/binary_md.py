"""A second reading of protocol.md §2: what bytes say in MessagePack and Protobuf, as JSON for `protocol_md` to judge.

It shares nothing with the package, and reads with the packages `msgpack` and `protobuf`.
"""

from __future__ import annotations

import base64
import json
import math
import re
from dataclasses import replace
from typing import Any, Final, NamedTuple

import msgpack  # type: ignore[import-untyped]  # it has no types
from google.protobuf.message import DecodeError

from fuzz import protocol_md
from fuzz.protocol_md import Reading
from support.codecs import schema

__all__ = ["ABSENT", "of_msgpack", "of_protobuf"]

ABSENT: Final = object()
"""No content."""

_NUMBER = re.compile(rb"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")

# What is wrong wherever it stands.
_WRONG: Final = 1.5


# In Protobuf the tags of the members of `fields`, of which some are not for clients: a server may leave them unread.
_MEMBER = re.compile(rb"[\x80-\xff][\x01\x02]")


class _Bad(Exception):
    pass


class _Extension(NamedTuple):
    """Of any type; that of the package has no negative ones."""

    code: int
    data: bytes


def of_msgpack(data: bytes) -> tuple[Reading, Any]:
    """What a message is, and its content: a value, bytes, or `ABSENT`."""
    doubtful = False

    def pairs(found: list[tuple[Any, Any]]) -> dict[Any, Any]:
        nonlocal doubtful
        try:
            read = dict(found)
        except TypeError:
            # A key that is a list or a map.
            read = {b"": None}
        doubtful |= len(read) < len(found)
        return read

    try:
        message = msgpack.unpackb(
            data,
            object_pairs_hook=pairs,
            ext_hook=_Extension,
            strict_map_key=False,
            # What is no UTF-8 becomes what no message may have.
            unicode_errors="surrogateescape",
        )
    except RecursionError:
        return Reading(None, None), ABSENT
    except (ValueError, msgpack.UnpackException):
        # This reader stops at a depth, and at times, which a server may leave alone in what it ignores.
        return Reading(None, None if _may_be_deep(data) or b"\xff" in data else False), ABSENT
    if not isinstance(message, dict) or any(not isinstance(key, str) for key in message):
        return Reading(None, False), ABSENT
    content = message.get("content", ABSENT)
    type = message.get("type")
    meant = (
        protocol_md.SENDER.keys() | protocol_md.REQUESTS.get(type if isinstance(type, str) else "", (0, {}))[1].keys()
    )
    fields = {name: _said(message[name]) for name in meant & message.keys() if name != "binary"}
    if type == "chunk" and "data" in message:
        fields["data"] = _base64(message["data"]) if isinstance(message["data"], bytes) else _WRONG
    if isinstance(resume := fields.get("resume"), dict):
        named = all(isinstance(key, str) for key in message["resume"])
        # What else is there is ignored, also where it is no UTF-8.
        kept = {name: value for name, value in resume.items() if name in ("inbox", "all", "rooms")}
        fields["resume"] = kept if named else _WRONG
    read = protocol_md.read(json.dumps(fields))
    if doubtful or "binary" in message:
        return replace(read, good=None), content
    return (read if content is ABSENT or _is_sayable(content) else replace(read, good=False)), content


def _may_be_deep(data: bytes) -> bool:
    return sum(data.count(bytes([byte])) for byte in (*range(0x81, 0xA0), 0xDC, 0xDD, 0xDE, 0xDF)) > 200


def _said(value: Any, depth: int = 5) -> Any:
    """A field as JSON has it; what JSON does not have is wrong, and what is deeper than any field."""
    if depth == 0:
        return _WRONG
    match value:
        case dict():
            # A key that is no text is wrong, as is a name that is no name.
            return {key if isinstance(key, str) else "": _said(item, depth - 1) for key, item in value.items()}
        case _Extension() | msgpack.Timestamp() | bytes():
            return _WRONG
        case list():
            return [_said(item, depth - 1) for item in value]
        case float() if not math.isfinite(value):
            return _WRONG
        case _:
            return value


def _is_sayable(content: Any) -> bool:
    if isinstance(content, bytes):
        return True
    try:
        _check(content, 63)
    except _Bad:
        return False
    return True


def _check(value: Any, depth: int) -> None:
    match value:
        case _Extension():
            if value.code != 1 or not _NUMBER.fullmatch(value.data):
                raise _Bad
        case msgpack.Timestamp() | bytes():
            raise _Bad
        case str():
            if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
                raise _Bad
        case float():
            if not math.isfinite(value):
                raise _Bad
        case list() | dict():
            if depth == 0:
                raise _Bad
            if isinstance(value, dict):
                for key in value:
                    if not isinstance(key, str):
                        raise _Bad
                    _check(key, depth)
            for item in value.values() if isinstance(value, dict) else value:
                _check(item, depth - 1)


def of_protobuf(data: bytes) -> tuple[Reading, Any]:
    """What a message is, and its content: JSON as text, bytes, or `ABSENT`."""
    try:
        read = schema().FromString(data)
    except DecodeError:
        return Reading(None, None if len(data) > 200 or _MEMBER.search(data) else False), ABSENT
    fields: dict[str, Any] = {name: getattr(read, name) for name in ("id", "to", "room") if read.HasField(name)}
    fields["type"] = read.type
    fields |= {name: getattr(read, name) for name in ("echo", "volatile") if read.HasField(name)}
    if read.receipt:
        fields["receipt"] = True
    if read.seq:
        fields["seq"] = read.seq
    if read.WhichOneof("fields") == read.type:
        own = getattr(read, read.type)
        for name in protocol_md.REQUESTS.get(read.type, (0, {}))[1]:
            field = own.DESCRIPTOR.fields_by_name.get(name)
            if field is not None and (own.HasField(name) if field.has_presence else getattr(own, name)):
                fields[name] = _own(getattr(own, name))
    if read.type == "users":
        # Never absent.
        fields["ids"] = list(read.users.ids)
    found = protocol_md.read(json.dumps(fields))
    kind = read.WhichOneof("content")
    if kind is None:
        return found, ABSENT
    if kind == "binary":
        return found, read.binary
    content = protocol_md.read_content(read.json)
    if found.good:
        return replace(found, good=content), read.json
    return found, read.json


def _own(value: Any) -> Any:
    """What a message within the envelope is in JSON."""
    name = value.DESCRIPTOR.name if hasattr(value, "DESCRIPTOR") else ""
    if name == "Position":
        return [value.epoch, value.seq] if value.epoch else None
    if name == "Resume":
        positions = {channel: _own(getattr(value, channel)) for channel in ("inbox", "all")}
        return {**positions, "rooms": {room: _own(value.rooms[room]) for room in value.rooms}}
    return _base64(value) if isinstance(value, bytes) else value


def _base64(data: bytes) -> str:
    """Bytes as JSON has them."""
    return base64.b64encode(data).decode()
