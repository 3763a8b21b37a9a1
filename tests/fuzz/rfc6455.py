"""A second reading of RFC 6455 (and 7692), as a server does it: a whole stream of bytes in, what must come of it out.

It shares nothing with the package, is slow, and is to be read beside the document. Where a frame breaks several
rules at once, any of their codes is right.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from fuzz import rfc1951

__all__ = ["Limits", "Outcome", "read"]

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

# RFC 3629 §4: whole characters, and then perhaps the beginning of one more.
_UTF8 = re.compile(
    rb"(?:[\x00-\x7f]|[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]{2}"
    rb"|\xed[\x80-\x9f][\x80-\xbf]|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}"
    rb"|\xf4[\x80-\x8f][\x80-\xbf]{2})*"
)
_BEGUN = re.compile(
    rb"[\xc2-\xdf]|\xe0[\xa0-\xbf]?|[\xe1-\xec\xee\xef][\x80-\xbf]?|\xed[\x80-\x9f]?"
    rb"|\xf0(?:[\x90-\xbf][\x80-\xbf]?)?|[\xf1-\xf3][\x80-\xbf]{0,2}|\xf4(?:[\x80-\x8f][\x80-\xbf]?)?"
)


@dataclass(frozen=True)
class Limits:
    """What a server allows beyond the RFC: bytes and frames of a message, control frames in all."""

    size: int
    fragments: int
    controls: int
    # Whether permessage-deflate was agreed on, and how many last blocks deflate may have in one message.
    compressed: bool = False
    last_blocks: int = 64


@dataclass
class Outcome:
    """What a server makes of a stream that ends with it."""

    messages: list[str | bytes] = field(default_factory=list)
    # The payloads of the pings, which come back.
    pongs: list[bytes] = field(default_factory=list)
    # How the connection ends, one of these; 1006: without a close frame (§7.1.5).
    codes: set[int] = field(default_factory=lambda: {1006})


@dataclass
class Frame:
    """One frame of a client; of a bad one perhaps only the beginning (§5.2)."""

    fin: bool
    rsv: int
    opcode: int
    payload: bytes = b""
    # What the header alone says against it.
    wrong: set[int] = field(default_factory=set)


def read(stream: bytes, limits: Limits) -> Outcome:
    """Read a client's side of a connection, from behind the handshake to its end."""
    outcome = Outcome()
    controls = 0
    # The unfinished message: its opcode, whether it is compressed, and its fragments.
    opcode, compressed, parts = CONTINUATION, False, list[bytes]()
    for frame in _frames(stream, limits):
        wrong = set(frame.wrong)
        begins = frame.opcode in (TEXT, BINARY)
        # RSV1 says that the message is compressed (RFC 7692 §6).
        if frame.rsv and not (limits.compressed and begins and frame.rsv == 4):
            wrong.add(1002)
        if frame.opcode >= CLOSE:
            if not wrong and frame.opcode == CLOSE:
                outcome.codes = _close(frame.payload)
                return outcome
            if frame.opcode == CLOSE:
                # The same frame may have a bad code or reason, too.
                wrong |= _close(frame.payload) & {1007}
            elif not wrong:
                controls += 1
                if controls > limits.controls:
                    wrong.add(4500)
                elif frame.opcode == PING:
                    outcome.pongs.append(frame.payload)
        else:
            if (frame.opcode == CONTINUATION) is (opcode == CONTINUATION):
                # Nothing to continue, or something unfinished (§5.4).
                wrong.add(1002)
            if frame.opcode != CONTINUATION:
                opcode, compressed, parts = frame.opcode, frame.rsv == 4, []
            parts.append(frame.payload)
            whole = b"".join(parts)
            if len(whole) > limits.size or len(parts) > limits.fragments:
                wrong.add(1009)
            if compressed and frame.fin and not wrong:
                try:
                    whole = rfc1951.inflate(whole, limits.size, limits.last_blocks) if whole else b""
                except (rfc1951.NotDeflate, rfc1951.TooLong):
                    # What is found first depends on how far beyond the limit somebody looks.
                    wrong |= {1007, 1009}
            if opcode == TEXT and (frame.fin or not compressed) and not _is_text(whole, finished=frame.fin):
                wrong.add(1007)
            if not wrong and frame.fin:
                outcome.messages.append(whole.decode() if opcode == TEXT else whole)
                opcode = CONTINUATION
        if wrong:
            outcome.codes = wrong
            return outcome
    return outcome


def _frames(stream: bytes, limits: Limits) -> Iterator[Frame]:
    """The frames that have come whole, or far enough to be wrong."""
    at = 0
    while len(stream) - at >= 2:
        first, second = stream[at], stream[at + 1]
        frame = Frame(first >= 0x80, (first >> 4) & 7, first & 15)
        size, at = second & 0x7F, at + 2
        control = frame.opcode >= CLOSE
        if (
            frame.opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG)
            or second < 0x80  # not masked (§5.1)
            or (control and (not frame.fin or size > 125))  # §5.5
        ):
            frame.wrong.add(1002)
            yield frame
            return
        if size > 125:
            width = 2 if size == 126 else 8
            if len(stream) - at < width:
                return
            size, at = int.from_bytes(stream[at : at + width]), at + width
            # The shortest form, and the highest bit is 0 (§5.2).
            if size < (126 if width == 2 else 65_536) or size >= 2**63:
                frame.wrong.add(1002)
            elif size > limits.size:
                frame.wrong.add(1009)
            if frame.wrong:
                yield frame
                return
        elif size > limits.size and not control:
            frame.wrong.add(1009)
            yield frame
            return
        if len(stream) - at < 4 + size:
            return
        mask, masked = stream[at : at + 4], stream[at + 4 : at + 4 + size]
        frame.payload = bytes(byte ^ mask[index % 4] for index, byte in enumerate(masked))
        at += 4 + size
        yield frame


def _close(payload: bytes) -> set[int]:
    """The code that a close frame is answered with; 1005: one without a code (§5.5.1, §7.4)."""
    if not payload:
        return {1005}
    code = int.from_bytes(payload[:2])
    known = code in (1000, 1001, 1002, 1003, *range(1007, 1015)) or 3000 <= code <= 4999
    wrong = set()
    if len(payload) < 2 or not known:
        wrong.add(1002)
    if len(payload) > 2 and not _is_text(payload[2:], finished=True):
        wrong.add(1007)
    return wrong or {code}


def _is_text(data: bytes, *, finished: bool) -> bool:
    """Whether this is UTF-8, or, unless it is finished, can become it."""
    whole = _UTF8.match(data)
    assert whole is not None
    rest = data[whole.end() :]
    return not rest or (not finished and _BEGUN.fullmatch(rest) is not None)
