"""Rooms by pattern: which options hold in a room, out of those of `lobby`, `game:*` and their like.

In a pattern `*` stands for any characters, none included, wherever it is and as often; nothing else is special.
Of several patterns that match a room the more specific counts, for each option by itself: the one whose every room
the other matches, too. Where neither is, and they differ, nobody could say what holds: that is refused at the start.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Mapping
from functools import lru_cache
from itertools import combinations
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from hubbub.core.log import HistoryLimits, Retention
from hubbub.core.outbox import Overflow
from hubbub.errors import ConfigError
from hubbub.protocol.codec import CONTROL
from hubbub.types import room_of

__all__ = ["RoomOptions", "RoomPatterns", "common", "matches", "room_options"]

# Characters of the longest name of a room (protocol.md §1.2), hence also of a pattern.
_LONGEST = 128

# Rooms whose options are remembered; beyond, the one used least lately is forgotten, and found anew when it is needed.
_MOST_REMEMBERED = 10_000


class RoomOptions(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a pattern says about its rooms; None leaves it to less specific patterns, and in the end to the server."""

    history_size: Annotated[int, Meta(ge=0, description="messages that the room keeps")] | None = None
    history_age: Annotated[float, Meta(gt=0, description="seconds for which it keeps them")] | None = None
    capacity: Annotated[int, Meta(ge=1, description="users in the room")] | None = None
    presence_events: Annotated[bool, Meta(description="its members hear who comes and goes")] | None = None
    overflow: (
        Annotated[
            Overflow,
            Meta(
                description="what it does with messages for a full outbox: disconnect, drop_oldest, drop_newest, latest"
            ),
        ]
        | None
    ) = None
    volatile: Annotated[bool, Meta(description="every message is volatile, whatever its sender says")] | None = None


_NAMES = [field.name for field in msgspec.structs.fields(RoomOptions)]
_HINTS = typing.get_type_hints(RoomOptions, include_extras=True)
_NOTHING = RoomOptions()


def room_options(pattern: str, values: Mapping[str, Any]) -> RoomOptions:
    """The options of one pattern, checked; raises `ConfigError` that says what is wrong and what was meant."""
    if not 1 <= len(pattern) <= _LONGEST or CONTROL.search(pattern):
        raise ConfigError(
            f"a room pattern is 1 to {_LONGEST} characters, none of them a control character: {pattern[:_LONGEST]!r}"
        )
    if "**" in pattern:
        raise ConfigError(f"the room pattern {pattern!r} has two stars in a row: one means the same")
    for name, value in values.items():
        if name not in _NAMES:
            close = difflib.get_close_matches(str(name).replace("-", "_"), _NAMES, n=1)
            meant = f"did you mean {close[0]}?" if close else f"there are {', '.join(_NAMES)}"
            raise ConfigError(f"rooms {pattern!r} have no option {name!r}: {meant}")
        try:
            msgspec.convert({name: value}, RoomOptions, strict=False)
        except msgspec.ValidationError as error:
            # Such as "Expected `int` >= 1 - at `$.capacity`".
            said = str(error).partition(" - at")[0].replace(" | null", "")
            raise ConfigError(
                f"{name} of rooms {pattern!r} cannot be {value!r}: {said[0].lower()}{said[1:]} ({_described(name)})"
            ) from None
    return msgspec.convert(dict(values), RoomOptions, strict=False)


def _described(name: str) -> str:
    optional, _ = typing.get_args(_HINTS[name])
    (meta,) = optional.__metadata__
    return str(meta.description)


def matches(pattern: str, name: str) -> bool:
    """Whether `pattern` matches the name of a room; or, given a pattern, whether it matches all that one matches.

    For the latter it is enough to look at the text: what stands for a star of the one may be a character that the
    other does not have, so that only a star of the other can stand for it.
    """
    first, *middle = pattern.split("*")
    if not middle:
        return pattern == name
    last = middle.pop()
    start, end = len(first), len(name) - len(last)
    if start > end or not name.startswith(first) or not name.endswith(last):
        return False
    for part in middle:
        # The first place is as good as any: it leaves most to those that follow.
        start = name.find(part, start, end)
        if start < 0:
            return False
        start += len(part)
    return True


def common(one: str, other: str) -> str | None:
    """The shortest name of a room that both patterns match, or None where there is none."""
    # From the ends to the front: the shortest text that what follows a place in each matches.
    below: list[str | None] = []
    for i in range(len(one), -1, -1):
        row: list[str | None] = [None] * (len(other) + 1)
        for j in range(len(other), -1, -1):
            mine, theirs = one[i : i + 1], other[j : j + 1]
            if not mine and not theirs:
                row[j] = ""
                continue
            ways = []
            if mine == "*":
                # It ends here, or stands for one character more of the other's.
                ways.append(below[j])
                if theirs and theirs != "*":
                    ways.append(_then(theirs, row[j + 1]))
            if theirs == "*":
                ways.append(row[j + 1])
                if mine and mine != "*":
                    ways.append(_then(mine, below[j]))
            if mine == theirs != "*":
                ways.append(_then(mine, below[j + 1]))
            row[j] = min((way for way in ways if way is not None), key=len, default=None)
        below = row
    found = below[0]
    if found == "":
        # Two stars; but no room has an empty name.
        return "x"
    return found if found is not None and len(found) <= _LONGEST else None


def _then(character: str, rest: str | None) -> str | None:
    return None if rest is None else character + rest


class RoomPatterns:
    """Which options hold in which room: the patterns of the configuration and of the application together.

    Raises `ConfigError` where two patterns contradict each other.
    """

    def __init__(self, *sources: Mapping[str, RoomOptions]) -> None:
        merged: dict[str, dict[str, Any]] = {}
        for source in sources:
            for pattern, options in source.items():
                _merge(pattern, merged.setdefault(pattern, {}), options)
        for one, other in combinations(merged, 2):
            _check(one, merged[one], other, merged[other])

        # The more specific first: whatever contains a pattern contains what that one contains, so it has fewer above.
        order = sorted(merged, key=lambda pattern: sum(matches(other, pattern) for other in merged), reverse=True)
        self._patterns = {pattern: merged[pattern] for pattern in order}

        # Whether there is a room in which everything is volatile: where not, a message need not ask for its own.
        self.some_volatile = any(options.get("volatile") for options in merged.values())

        # Bounded, for rooms come and go; and safe to ask from several threads, as an engine may.
        self._remembered = lru_cache(_MOST_REMEMBERED)(self._find)

    def of(self, room: str) -> RoomOptions:
        """What the patterns say about `room`; None for the options that none of them sets."""
        if not self._patterns:
            return _NOTHING
        return self._remembered(room)

    def retention(self, channel: str, limits: HistoryLimits) -> Retention:
        """How much of `channel` (its full name, such as `room:lobby`) is kept; `limits` where no pattern says it."""
        kept = limits.retention(channel)
        room = room_of(channel)
        if room is None:
            return kept
        options = self.of(room)
        return Retention(
            size=kept.size if options.history_size is None else options.history_size,
            age=kept.age if options.history_age is None else options.history_age,
        )

    def _find(self, room: str) -> RoomOptions:
        values: dict[str, Any] = {}
        for pattern, options in self._patterns.items():
            if matches(pattern, room):
                values = {**options, **values}
        return RoomOptions(**values) if values else _NOTHING


def _merge(pattern: str, values: dict[str, Any], options: RoomOptions) -> None:
    for name in _NAMES:
        value = getattr(options, name)
        if value is None:
            continue
        if values.setdefault(name, value) != value:
            raise ConfigError(
                f"{name} of rooms {pattern!r} is set twice, to {_text(values[name])} and to {_text(value)}: "
                "leave one of them out"
            )


def _check(one: str, mine: dict[str, Any], other: str, theirs: dict[str, Any]) -> None:
    differ = [name for name, value in mine.items() if theirs.get(name, value) != value]
    if not differ or matches(one, other) or matches(other, one):
        return
    example = common(one, other)
    if example is not None:
        name = differ[0]
        raise ConfigError(
            f"the room patterns {one!r} and {other!r} both match {example!r}, and set {name} to "
            f"{_text(mine[name])} and to {_text(theirs[name])}: neither is more specific, so let them agree, "
            "or match no room in common"
        )


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
