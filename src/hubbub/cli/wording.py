"""How what comes over the wire becomes lines for a terminal, such that nothing in them can steer it."""

from __future__ import annotations

import re
import time
import zlib
from typing import Any, Final

import msgspec

from hubbub.client import Message

__all__ = ["NEXT_LINE", "Line", "colour", "content_text", "message_line", "plain", "visible", "visible_json"]

Line = list[tuple[str, str]]
"""Pieces of text, each with the name of its style."""

# What moves the cursor, changes colours or titles, answers in the user's name (control characters of both
# ranges), turns the direction of what follows, or breaks a line unseen. A tab is harmless.
_STEERING: Final = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb\ud800-\udfff]"
)

NEXT_LINE: Final = "\n      | "
"""Goes before the second line of a message's text: indented, none can pretend to be somebody else's message."""

_COLOURS: Final = 6


def visible(text: str) -> str:
    """`text` with everything in it that could steer a terminal written out, such as `\\x1b`."""
    return _STEERING.sub(_written_out, text)


def visible_json(text: str) -> str:
    """The same for JSON, which stays what it was: what is written out stands inside of strings."""
    return _STEERING.sub(lambda found: " " if found.group() in "\r\n" else f"\\u{ord(found.group()):04x}", text)


def _written_out(found: re.Match[str]) -> str:
    code = ord(found.group())
    if code == 0x0A:
        return "\\n"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def content_text(content: Any) -> str:
    """A message's content for people: text as it is, bytes by their number, the rest as JSON."""
    if isinstance(content, str):
        return content
    if isinstance(content, bytes):
        return f"<{len(content)} bytes>"
    return "" if content is None else msgspec.json.encode(content).decode()


def colour(name: str) -> str:
    """The style of a user's name: always the same for the same name."""
    return f"class:name{zlib.crc32(name.encode(errors='replace')) % _COLOURS}"


def message_line(message: Message, *, room: str | None, me: str, mark: str = "", timed: bool = True) -> Line:
    """One line for a message; `room` is where the reader is, and needs no saying."""
    line: Line = []
    if timed and message.time is not None:
        line.append(("class:time", time.strftime("%H:%M ", time.localtime(message.time / 1000))))
    if message.room is not None and message.room != room:
        line.append(("class:where", f"#{visible(message.room)} "))
    elif message.room is None and message.to is None:
        line.append(("class:where", "to everyone "))
    sender = message.from_ or "the hub"
    line.append((colour(sender), visible(sender)))
    if message.to is not None:
        line.append(("class:where", " to you" if message.to == me else f" to {visible(message.to)}"))
    if message.type != "chat":
        line.append(("class:where", f" [{visible(message.type)}]"))
    line.append(("", ": "))
    first, *more = content_text(message.content).split("\n")
    line.append(("", visible(first)))
    for part in more:
        line += [("class:where", NEXT_LINE), ("", visible(part))]
    if mark:
        line.append(("class:mark", f" {mark}"))
    return line


def plain(line: Line) -> str:
    """A line without its styles."""
    return "".join(text for _, text in line)
