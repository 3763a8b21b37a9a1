"""WebSocket frames: messages into the bytes that carry them, and frames back into whole messages.

RFC 6455 without a socket: nothing here knows where the bytes come from. A server's frames are not masked,
so the frame of a message is the same bytes for every connection.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable

from msgspec import Struct

from hubbub.protocol.deflate import CompressionOptions, compress, inflate, is_dense

__all__ = [
    "BINARY",
    "CLOSE",
    "CONTINUATION",
    "PING",
    "PING_FRAME",
    "PONG",
    "TEXT",
    "Assembly",
    "Close",
    "Violation",
    "binary_frame",
    "close_frame",
    "compressing",
    "pong_frame",
    "read_close",
    "text_frame",
]

# Opcodes (RFC 6455 §5.2); those from 8 on are control frames.
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

# "This message is compressed": the first of the reserved bits (RFC 7692 §6).
_RSV1 = 0x40

# A longer message would hold everybody else up for longer than it is worth: this much, the largest message of a client
# with its envelope, takes up to 1.7 ms at the default level.
_MOST_COMPRESSED = 69_632

# What a control frame may carry at most (§5.5).
_CONTROL_SIZE = 125

_MEDIUM = struct.Struct("!BBH")
_LONG = struct.Struct("!BBQ")
_CODE = struct.Struct("!H")

PING_FRAME = bytes((0x80 | PING, 0))


def text_frame(payload: bytes) -> bytes:
    """A whole text message in one frame; `payload` is UTF-8."""
    size = len(payload)
    return (_TEXT_HEADERS[size] if size < _READY_MADE else _header(TEXT, size)) + payload


def binary_frame(payload: bytes) -> bytes:
    """A whole binary message in one frame."""
    return _header(BINARY, len(payload)) + payload


def compressing(binary: bool, window: int, options: CompressionOptions) -> Callable[[bytes], bytes]:
    """What makes whole messages into frames for everybody who agreed on a window of so many bits (RFC 7692 §6).

    A message is compressed where it is long enough for that, does not look dense, and becomes shorter by it.
    """
    opcode, plain = (BINARY, binary_frame) if binary else (TEXT, text_frame)
    threshold, level = options.compression_threshold, options.compression_level

    def frame(payload: bytes) -> bytes:
        if threshold <= len(payload) <= _MOST_COMPRESSED and not is_dense(payload):
            smaller = compress(payload, window, level)
            if len(smaller) < len(payload):
                return _header(_RSV1 | opcode, len(smaller)) + smaller
        return plain(payload)

    return frame


def pong_frame(payload: bytes) -> bytes:
    """The answer to a ping that carried `payload`, at most 125 bytes."""
    return bytes((0x80 | PONG, len(payload))) + payload


def close_frame(code: int, reason: str = "") -> bytes:
    """A close frame; 1005 stands for "no code" and makes it empty (§7.1.5), a long reason is cut to fit."""
    if code == 1005:
        return bytes((0x80 | CLOSE, 0))
    text = reason.encode()[: _CONTROL_SIZE - 2]
    if len(text) == _CONTROL_SIZE - 2:
        # The cut may have gone through a character.
        text = text.decode(errors="ignore").encode()
    return bytes((0x80 | CLOSE, 2 + len(text))) + _CODE.pack(code) + text


def _header(opcode: int, size: int) -> bytes:
    if size < 126:
        return bytes((0x80 | opcode, size))
    if size < 65_536:
        return _MEDIUM.pack(0x80 | opcode, 126, size)
    return _LONG.pack(0x80 | opcode, 127, size)


class Violation(Struct, frozen=True, gc=False):
    """What the peer did against the protocol: the code and reason to close the connection with."""

    code: int
    reason: str


class Close(Struct, frozen=True, gc=False):
    """What a close frame says; code 1005 when it says nothing."""

    code: int
    reason: str


def read_close(payload: bytes) -> Close | Violation:
    """Read a close frame's payload (§5.5.1), checking its code (§7.4) and that its reason is UTF-8."""
    if not payload:
        return Close(1005, "")
    if len(payload) == 1:
        return Violation(1002, "half a close code")
    (code,) = _CODE.unpack_from(payload)
    # 1004 is reserved, 1005 and 1006 are never sent; 1012 to 1014 were registered after the RFC.
    if not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        return Violation(1002, "no such close code")
    try:
        return Close(code, payload[2:].decode())
    except UnicodeDecodeError:
        return Violation(1007, "the reason is not UTF-8")


class Assembly:
    """The frames of one connection, put together into messages (§5.4).

    It holds nothing between two messages: who keeps a connection's memory small makes one when a
    fragmented message begins and drops it when `unfinished` is False again.
    """

    __slots__ = ("_collected", "_compressed", "_count", "_decoder", "_max_count", "_max_size", "_opcode")

    def __init__(self, max_size: int, max_count: int) -> None:
        # Limits of one message: bytes in all, and frames, for empty ones are work too.
        self._max_size = max_size
        self._max_count = max_count

        # What the unfinished message is; CONTINUATION, which begins none, stands for "there is none".
        self._opcode = CONTINUATION
        self._compressed = False
        self._count = 0
        # Bytes and not a list of parts: a fragment of one byte shall cost one byte.
        self._collected = bytearray()
        # Text is looked at as it comes, so that bad UTF-8 is found in the fragment it is in (§8.1).
        self._decoder: codecs.IncrementalDecoder | None = None

    @property
    def unfinished(self) -> bool:
        """Whether a message has begun and not ended."""
        return self._opcode != CONTINUATION

    @property
    def compressed(self) -> bool:
        """Whether the last message that has begun is compressed."""
        return self._compressed

    @property
    def size(self) -> int:
        """The bytes of the unfinished message so far, as they came."""
        return len(self._collected)

    def add(
        self, opcode: int, fin: bool, rsv: bool, payload: bytes, compressed: bool = False
    ) -> str | bytes | Violation | None:
        """Take the next frame: the message that it completes, what is wrong with it, or None.

        `rsv` says whether any of the three reserved bits is set for no reason that was agreed on, `compressed`
        whether the first one is, and that was. A control frame may come between two fragments; it is checked and
        changes nothing. After a violation the assembly is of no more use.
        """
        if rsv or (compressed and opcode not in (TEXT, BINARY)):
            # Compressed is the whole message, and its first frame says so (RFC 7692 §6.1).
            return Violation(1002, "a reserved bit is set")
        if opcode >= CLOSE:
            return self._check_control(opcode, fin, payload)
        if opcode == CONTINUATION:
            if not self.unfinished:
                return Violation(1002, "nothing to continue")
        elif opcode > BINARY:
            return Violation(1002, "no such opcode")
        elif self.unfinished:
            return Violation(1002, "the last message is unfinished")
        else:
            self._begin(opcode, compressed, fin)
        return self._collect(fin, payload)

    @staticmethod
    def _check_control(opcode: int, fin: bool, payload: bytes) -> Violation | None:
        if opcode > PONG:
            return Violation(1002, "no such opcode")
        if not fin or len(payload) > _CONTROL_SIZE:
            return Violation(1002, "a control frame must be short and whole")
        return None

    def _begin(self, opcode: int, compressed: bool, fin: bool) -> None:
        self._opcode = opcode
        self._compressed = compressed
        self._count = 0
        checked = opcode == TEXT and not compressed and not fin
        self._decoder = codecs.getincrementaldecoder("utf-8")() if checked else None

    def _collect(self, fin: bool, payload: bytes) -> str | bytes | Violation | None:
        self._count += 1
        if len(self._collected) + len(payload) > self._max_size:
            return _TOO_BIG
        if self._count > self._max_count:
            return Violation(1009, "the message has too many fragments")
        if self._decoder is not None:
            try:
                self._decoder.decode(payload, final=fin)
            except UnicodeDecodeError:
                return _NOT_TEXT
        if self._count > 1 or not fin:
            self._collected += payload
        if not fin:
            return None
        whole = payload
        if self._count > 1:
            whole = bytes(self._collected)
            self._collected = bytearray()
        opcode, self._opcode = self._opcode, CONTINUATION
        return self._finish(opcode, whole)

    def _finish(self, opcode: int, whole: bytes) -> str | bytes | Violation:
        if self._compressed:
            try:
                inflated = inflate(whole, self._max_size)
            except ValueError as error:
                # The frames are as they should be; it is what they carry that is not what it says it is (§7.4.1).
                return Violation(1007, str(error))
            if inflated is None:
                return _TOO_BIG
            whole = inflated
        if opcode == BINARY:
            return whole
        try:
            return whole.decode()
        except UnicodeDecodeError:
            return _NOT_TEXT


_TOO_BIG = Violation(1009, "the message is too big")
_NOT_TEXT = Violation(1007, "the text is not UTF-8")

# The headers of text messages of nearly every size that a hub sends, ready made: 40 KiB for half the cost.
_READY_MADE = 1024
_TEXT_HEADERS = [_header(TEXT, size) for size in range(_READY_MADE)]
