"""A second reading of protocol.md §1 and §4: whether a text is a message that a client may send.

It shares nothing with the package, and reads JSON with the standard library.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["SIGNALS", "Reading", "is_text", "parse", "read", "read_content"]

_CODES = json.loads((Path(__file__).parents[2] / "spec" / "codes.json").read_text(encoding="utf-8"))

_FROM_CLIENT = set(_CODES["reserved"]["from_client"])
_FROM_SERVER = set(_CODES["reserved"]["from_server"])

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_MOST = 2**53 - 1


@dataclass(frozen=True)
class Reading:
    """What a text is."""

    # The object, where it is one.
    fields: dict[str, Any] | None
    # Whether it is a message; None where the document leaves it open.
    good: bool | None


class _Bad(Exception):
    pass


class _Doubtful(Exception):
    pass


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise _Doubtful  # a server may look at the earlier value, too (§1.2)
    return dict(pairs)


def _integer(digits: str) -> int:
    # More digits than any limit here has, and than Python converts.
    return int(digits) if len(digits) < 30 else 10**30


def _refuse(constant: str) -> Any:
    raise _Bad


def parse(text: str) -> Any:
    """JSON as RFC 8259 has it; raises `ValueError` for anything else."""
    return json.loads(text, parse_constant=_refuse, parse_int=_integer, object_pairs_hook=_pairs)


def read(text: str) -> Reading:
    """Read one text message of a client."""
    fields = None
    try:
        value = parse(text)
        if not isinstance(value, dict):
            return Reading(None, False)
        _check_values(value, 64)
        fields = value
        _check(value)
    except _Doubtful:
        return Reading(None, None)
    except (ValueError, RecursionError, _Bad):
        return Reading(fields, False)
    return Reading(fields, True)


def read_content(text: str) -> bool | None:
    """Whether this is JSON that may be a content; None where the document leaves it open."""
    try:
        _check_values(parse(text), 63)
    except _Doubtful:
        return None
    except (ValueError, RecursionError, _Bad):
        return False
    return True


def _check_values(value: Any, depth: int) -> None:
    """No unpaired surrogate, and not too deep (§1.3)."""
    if isinstance(value, str) and _SURROGATE.search(value):
        raise _Bad
    if isinstance(value, dict | list):
        _need(depth > 0)
        for inner in [*value, *value.values()] if isinstance(value, dict) else value:
            _check_values(inner, depth - 1)


def _need(condition: object) -> None:
    if not condition:
        raise _Bad


def is_text(value: Any, most: int) -> bool:
    """Whether this is a string of 1 to `most` characters without control characters (§1.2)."""
    return isinstance(value, str) and 1 <= len(value) <= most and not _CONTROL.search(value)


def _text(most: int, control: bool = False) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        _need(is_text(_CONTROL.sub("c", value) if control and isinstance(value, str) else value, most))

    return check


def _number(least: int, most: int = _MOST) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        _need(type(value) is int and least <= value <= most)

    return check


def _boolean(value: Any) -> None:
    _need(isinstance(value, bool))


def _position(value: Any) -> None:
    _need(isinstance(value, list) and len(value) == 2)
    _text(64, control=True)(value[0])
    _number(0)(value[1])


def _resume(value: Any) -> None:
    _need(isinstance(value, dict))
    for channel in ("inbox", "all"):
        if value.get(channel) is not None:
            _position(value[channel])
    rooms = value.get("rooms", {})
    _need(isinstance(rooms, dict))
    for name, position in rooms.items():
        _name(name)
        if position is not None:
            _position(position)


def _ids(value: Any) -> None:
    _need(isinstance(value, list) and len(value) <= 100)
    for name in value:
        _name(name)


def _data(value: Any) -> None:
    _need(isinstance(value, str) and _BASE64.fullmatch(value) and 0 < len(base64.b64decode(value)) <= 32_768)


_name, _id = _text(128), _text(64)

# §1.1: checked in every message.
SENDER = {
    "type": _text(64),
    "to": _name,
    "room": _name,
    "id": _id,
    "receipt": _boolean,
    "echo": _boolean,
    "volatile": _boolean,
    "binary": _boolean,
}

# §3.3, §4 and §7: the fields of each request; the first so many are required.
REQUESTS: dict[str, tuple[int, dict[str, Callable[[Any], None]]]] = {
    "hello": (0, {"token": _text(8192, control=True), "client": _text(128, control=True), "resume": _resume}),
    "auth": (1, {"token": _text(8192, control=True)}),
    "ping": (0, {}),
    "pong": (0, {}),
    "join": (1, {"room": _name, "since": _position, "last": _number(0)}),
    "leave": (1, {"room": _name}),
    "ack": (1, {"seq": _number(1), "room": _name}),
    "history": (0, {"room": _name, "before": _number(0), "after": _number(0), "limit": _number(1, 500)}),
    "presence": (1, {"room": _name}),
    "users": (1, {"ids": _ids}),
    "chunk": (4, {"id": _id, "index": _number(0, 4_095), "total": _number(1, 4_096), "data": _data}),
}


SIGNALS = ("webrtc-offer", "webrtc-answer", "webrtc-ice")
"""Types that are volatile where nothing else is said (§5.5)."""


def _check(message: dict[str, Any]) -> None:
    _need("type" in message)
    for field, check in SENDER.items():
        if field in message:
            check(message[field])
    if message.get("binary"):
        content = message.get("content")
        _need(isinstance(content, str) and _BASE64.fullmatch(content))
    type = message["type"]
    _need(type not in _FROM_SERVER - _FROM_CLIENT)
    if type in REQUESTS:
        required, fields = REQUESTS[type]
        _need(all(field in message for field in list(fields)[:required]))
        for field, check in fields.items():
            if field in message:
                check(message[field])
        _need(not (type == "join" and {"since", "last"} <= message.keys()))
        _need(not (type == "chunk" and message["index"] >= message["total"]))
        return
    _need(not {"to", "room"} <= message.keys())
    if message.get("receipt"):
        volatile = message.get("volatile", type in SIGNALS)
        _need({"to", "id"} <= message.keys() and not volatile)
