"""The test vectors of the specification, as cases for pytest (spec/vectors/README.md)."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec
import pytest
from msgspec import Raw

from hubbub.protocol.envelope import REQUESTS, Envelope, Request, Resume

__all__ = ["Mismatch", "cases", "fill_in", "joined", "match", "understood"]

VECTORS: Final = Path(__file__).resolve().parents[2] / "spec" / "vectors"

# Every word that a case may need, and whether this server has it.
NEEDS: Final = {"chunk": "chunk" in REQUESTS, "drain": True, "own_numbers": True}

# What is left out of a case's `accept` where it has its default value.
_DEFAULTS: Final = {"echo": True, "receipt": False, "volatile": False, "binary": False, "limit": 100}

_TYPES: Final = {kind: type for type, kind in REQUESTS.items()}

_variable = re.compile(r"\$[a-z]+\Z")

Case: TypeAlias = Mapping[str, Any]


def cases(file: str, key: str) -> list[Any]:
    """The cases of a file as parameters named by themselves; what the server cannot do yet is skipped.

    Raises `ValueError` for a need that nobody has heard of, and for a name that occurs twice.
    """
    found: list[Any] = []
    names: set[str] = set()
    for case in json.loads((VECTORS / file).read_text(encoding="utf-8"))[key]:
        name, needs = case["name"], case.get("needs", [])
        if name in names:
            raise ValueError(f"{file} has two cases named {name!r}")
        names.add(name)
        if not NEEDS.keys() >= set(needs):
            raise ValueError(f"{name!r} in {file} has an unknown need: {needs}")
        missing = [need for need in needs if not NEEDS[need]]
        marks = [pytest.mark.skip(reason=f"the server does not have this yet: {', '.join(missing)}")] if missing else []
        found.append(pytest.param(case, id=name, marks=marks))
    return found


def joined(text: str | Sequence[Any]) -> str:
    """A text of the vectors: a string, or parts to be joined, each a string or `[string, count]`."""
    if isinstance(text, str):
        return text
    return "".join(part if isinstance(part, str) else part[0] * part[1] for part in text)


class Mismatch(AssertionError):
    """What came is not what the pattern says; the text says where."""


def match(pattern: object, value: object, names: dict[str, object] | None = None, path: str = "$") -> None:
    """Raise `Mismatch` unless `value` matches.

    `names` are what each `$name` stands for, and grow; None: the pattern is no pattern, and stands for itself.
    """
    if names is not None and isinstance(pattern, str):
        if pattern in ("*", "?"):
            return
        if _variable.match(pattern):
            pattern = names.setdefault(pattern, value)
    if isinstance(pattern, dict) and isinstance(value, dict):
        _match_object(pattern, value, names, path)
    elif isinstance(pattern, list) and isinstance(value, list) and len(pattern) == len(value):
        for index, (item, found) in enumerate(zip(pattern, value, strict=True)):
            match(item, found, names, f"{path}[{index}]")
    elif _kind(pattern) is not _kind(value) or pattern != value:
        raise Mismatch(f"{path} is {value!r} and not {pattern!r}")


def understood(event: Envelope | Request) -> dict[str, Any]:
    """The fields of a client's message as a case writes them; `content` as it is encoded, bytes where there are any."""
    fields: dict[str, Any] = {} if isinstance(event, Envelope) else {"type": _TYPES[type(event)]}
    for name in event.__struct_fields__:
        value = getattr(event, name)
        if isinstance(value, Raw):
            value = bytes(value) or None
        elif isinstance(value, Resume):
            value = {key: found for key, found in json.loads(msgspec.json.encode(value)).items() if found}
        elif isinstance(value, bytes):
            value = base64.b64encode(value).decode()
        elif isinstance(value, tuple):
            value = list(value)
        if value is not None and (name not in _DEFAULTS or value != _DEFAULTS[name]):
            fields[name] = value
    return fields


def fill_in(message: Any, names: Mapping[str, object]) -> Any:
    """`message` with each `$name` replaced by what it stands for."""
    if isinstance(message, dict):
        return {key: fill_in(value, names) for key, value in message.items()}
    if isinstance(message, list):
        return [fill_in(item, names) for item in message]
    return names[message] if isinstance(message, str) and _variable.match(message) else message


def _match_object(pattern: Case, value: Case, names: dict[str, object] | None, path: str) -> None:
    missing = sorted(key for key in pattern.keys() - value.keys() if names is None or pattern[key] != "?")
    unexpected = sorted(value.keys() - pattern.keys())
    if missing or unexpected:
        raise Mismatch(f"{path} lacks {missing} and has {unexpected} too many: {value!r}")
    for key in pattern.keys() & value.keys():
        match(pattern[key], value[key], names, f"{path}.{key}")


def _kind(value: object) -> type:
    """Numbers are compared as numbers, but `true` is none."""
    return float if isinstance(value, int) and not isinstance(value, bool) else type(value)
