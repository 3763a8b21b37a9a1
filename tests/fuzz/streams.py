"""Inputs with a shape: from the bytes that a fuzzer makes to frames and envelopes that are nearly right.

Random bytes are hardly ever a masked frame or an envelope, so they come no further than the first check. Here each
byte is a choice instead, most of them good ones.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from typing import Any

__all__ = [
    "CLAIMS",
    "GOOD",
    "HEADER",
    "ODD",
    "SAID",
    "WELCOME",
    "conversation",
    "deflated",
    "envelope",
    "frame",
    "frames",
    "head",
    "message",
    "token",
]

_KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
_GOOD_LINES = ("Host: a", "Upgrade: websocket", "Connection: keep-alive, Upgrade", "Sec-WebSocket-Version: 13", _KEY)
_REQUEST_LINES = (
    *("GET /ws HTTP/1.1", "GET /ws?a=b&a=%C3%A9 HTTP/1.1", "GET /%77s?%ff HTTP/1.1", "GET /else HTTP/1.1"),
    *("GET /ws HTTP/1.0", "POST /ws HTTP/1.1", "GET  /ws HTTP/1.1", "GET http://a/ws HTTP/1.1", "GET * HTTP/2.0", ""),
)
_LINES = (
    *(*_GOOD_LINES, "Host:", "Upgrade: h2c", "upgrade: WebSocket, h2c", "Connection: close", "Connection: , upgrade"),
    *("Sec-WebSocket-Version: 8", "Sec-WebSocket-Key: short", "Sec-WebSocket-Key: " + "=" * 24, "Origin: null"),
    *("Origin: http://a", "Origin: https://a.example", "X-Forwarded-For: 10.0.0.1, [::1]:8, fe80::1%a, x"),
    *("X-Forwarded-For: " + "192.0.2.1," * 200, "X-Forwarded-Proto: https, http"),
    *("Sec-WebSocket-Protocol: hubbub.v1.json, bearer.x", "Sec-WebSocket-Protocol: a,,b", "Content-Length: 0"),
    *("Content-Length: 5", "Transfer-Encoding: chunked", "Cookie: a=b; c=d", "Cookie: e", "X:\ta\tb\t", "X: a\x00b"),
    *("X: a\nY: b", "X: a\rY: b", "X: \x7f", "X: \xe9", " folded", "\tfolded", "X : a", ": a", "no colon", ""),
    *("X: a\r\n" * 99 + "X: a", "X: " + "a" * 8_000, "\r", "\n", "\n\n"),
)


def head(choices: bytes) -> bytes:
    """The head of a request: its first line, how long it is to be, and then headers, behind those of a handshake."""
    if len(choices) < 2:
        return choices
    lines = [_REQUEST_LINES[choices[0] % len(_REQUEST_LINES)]]
    if choices[1] & 1:
        lines += _GOOD_LINES
    lines += (_LINES[choice % len(_LINES)] for choice in choices[2:])
    if choices[1] >= 0xE0:
        # Beside the limit.
        size = sum(len(line) + 2 for line in lines)
        lines.append("X: ".ljust(16_384 + choices[1] % 16 - 8 - size, "a"))
    end = ("\r\n\r\n", "\r\n\r\nmore", "\r\n", "\n\n")[choices[1] >> 1 & 3]
    return ("\r\n".join(lines) + end).encode("latin-1")


# Bytes of a stream: enough for the largest messages, and more would only be slower.
_MOST = 200_000

_OPCODES = (1, 0, 2, 9, 1, 0, 10, 8)
_SIZES = (125, 126, 127, 300, 511, 512, 513, 2_000, 65_535, 65_536, 65_537)
_LENGTHS = (2**63 - 1, 2**63, 2**64 - 1, 1 << 32, 65_536, 65_535, 126, 125, 0)
_PAYLOADS = (
    b"",
    b"a",
    "né😀".encode(),
    b"\xf0\x9f\x98",
    b"\xed\xa0\x80",
    b"\xc0\xaf",
    b"\x03\xe8bye",
    b"\x03\xee",
    b"\x03",
)


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bytes = b"\x5a\x00\xff\x11"
) -> bytes:
    """A client's frame."""
    first, size = (0x80 if fin else 0) | rsv << 4 | opcode, len(payload)
    if size < 126:
        header = bytes((first, 0x80 | size))
    elif size < 65_536:
        header = bytes((first, 0xFE)) + size.to_bytes(2)
    else:
        header = bytes((first, 0xFF)) + size.to_bytes(8)
    key = int.from_bytes((mask * (size // 4 + 1))[:size])
    return header + mask + (int.from_bytes(payload) ^ key).to_bytes(size)


def deflated(message: bytes) -> bytes:
    """A compressed payload."""
    stream = zlib.compressobj(wbits=-15)
    return (stream.compress(message) + stream.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\x00\x00\xff\xff")


def frames(choices: bytes) -> bytes:
    """A stream of frames, three choices each: its kind and what is odd about it, its size, its content."""
    stream = bytearray()
    for piece in _frames(choices):
        stream += piece
        if len(stream) > _MOST:
            break
    return bytes(stream)


def _frames(choices: bytes) -> Iterator[bytes]:
    for at in range(0, len(choices) - 2, 3):
        kind, size, content = choices[at : at + 3]
        opcode, fin, oddity = _OPCODES[kind & 7], not kind & 8, kind >> 4
        if content < len(_PAYLOADS):
            payload = _PAYLOADS[content]
        else:
            length = size if size < 126 else _SIZES[size % len(_SIZES)]
            payload = (choices[at + 2 :] * (length // (len(choices) - at - 2) + 1))[:length]
            if content & 1:
                payload = bytes(byte & 0x7F for byte in payload)
        match oddity:
            case 15:
                yield frame(opcode, payload, fin=fin, rsv=1 + size % 7)
            case 9:
                yield frame(opcode, deflated(payload), fin=fin, rsv=4)
            case 14:
                yield frame(3 + size % 5 if content & 1 else 11 + size % 5, payload, fin=fin)
            case 13:
                # Without a mask.
                yield bytes((0x80 | opcode, min(len(payload), 125))) + payload[:125]
            case 12:
                yield bytes((0x80 | opcode, 0xFF)) + _LENGTHS[size % len(_LENGTHS)].to_bytes(8)
            case 11:
                yield bytes((0x80 | opcode, 0xFE)) + (size % 127).to_bytes(2)
            case 10:
                # Not all of it.
                yield frame(opcode, payload, fin=fin)[: 1 + size % 8]
            case _:
                yield frame(opcode, payload, fin=fin or oddity > 6)


GOOD: list[dict[str, Any]] = [
    {"type": "chat", "content": {"a": [1, 2.5e3, None, "é"]}, "room": "lobby", "id": "i"},
    {"type": "chat", "to": "bob", "id": "i", "receipt": True, "echo": False, "volatile": False},
    {"type": "chat", "content": "AP8=", "binary": True},
    {"type": "webrtc-offer", "to": "bob", "content": {}},
    {
        "type": "hello",
        "token": "t",
        "client": "c",
        "resume": {"inbox": ["e", 1], "all": None, "rooms": {"r": ["e", 2]}},
    },
    {"type": "hello"},
    {"type": "auth", "token": "t", "id": "i"},
    {"type": "ping", "content": 1},
    {"type": "pong"},
    {"type": "join", "room": "r", "since": ["e", 3]},
    {"type": "join", "room": "r", "last": 3},
    {"type": "leave", "room": "r"},
    {"type": "ack", "seq": 1, "room": "r"},
    {"type": "history", "room": "r", "before": 9, "after": 1, "limit": 50},
    {"type": "presence", "room": "r"},
    {"type": "users", "ids": ["alice", "bob"]},
    {"type": "chunk", "id": "t", "index": 0, "total": 1, "data": "e30="},
    {"type": "welcome"},
    {"type": "error", "id": "i", "room": "r", "code": "x", "message": "y"},
]
"""What a client may send, of every type, and some of what it may not."""

ODD: list[Any] = [
    *(None, True, False, 0, -1, 1, 1.0, 1e308, 2**53 - 1, 2**53, 2**63, 2**64, 10**400),
    *("", "a", "a\x00b", "\x7f", "\x9f", "\u2028", "😀" * 64, "x" * 64, "x" * 65, "x" * 128, "x" * 129, "x" * 8193),
    *("\ud800", "__class__", "AA==", "AA=", "A===", "AAAA=", "hello", "welcome", "webrtc-ice"),
    *([], {}, [[]], ["e", 1], ["e", -1], ["e", 2**53], ["e"], ["e", 1, 1], [1, "e"], ["a"] * 101, [None]),
    *({"__class__": "os.system"}, {"rooms": {"": None}}, {"rooms": {"r": ["e", "1"]}}, {"rooms": {"a\n": None}}),
]
"""Values for fields that expect something else."""

WELCOME: dict[str, Any] = {
    "type": "welcome",
    "session": "s",
    "user": "alice",
    "time": 1_766_200_000_000,
    "ping": 25_000,
    "limits": {"message": 65_536},
    "positions": {"inbox": ["e", 1], "all": ["e", 1], "rooms": {"r": ["e", 1]}},
    "recovered": {"inbox": True, "all": None, "rooms": {"r": None}},
}
"""A session begins."""

SAID: list[dict[str, Any]] = [
    WELCOME,
    WELCOME | {"expires": 1_766_200_090_000},
    {"type": "chat", "from": "bob", "room": "r", "content": [1], "seq": 2, "time": 1},
    {"type": "chat", "from": "bob", "room": "r", "content": [1], "seq": 4, "prev": 2, "time": 1},
    {
        "type": "chat",
        "from": "bob",
        "to": "alice",
        "content": "AP8=",
        "binary": True,
        "seq": 2,
        "time": 1,
        "receipt": True,
    },
    {"type": "chat", "content": 1, "seq": 3},
    {"type": "ack", "id": "x-2", "room": "r", "seq": 2, "epoch": "e"},
    {"type": "ack", "id": "x-4", "expires": 1_766_200_090_000},
    {"type": "receipt", "id": "x-2", "by": "bob", "time": 1},
    {"type": "joined", "room": "r", "position": ["e", 5], "recovered": None, "count": 1, "id": "x-1"},
    {"type": "left", "room": "r", "code": "forbidden"},
    {"type": "history", "messages": [{"type": "chat", "seq": 1}], "position": ["e", 5], "more": False, "id": "x-3"},
    {"type": "presence", "room": "r", "members": [{"user": "bob", "sessions": 1, "since": 1}], "count": 1, "id": "x-3"},
    {"type": "users", "users": {"bob": {"online": True, "since": 1}}, "id": "x-3"},
    {"type": "member-joined", "room": "r", "user": "bob"},
    {"type": "ping"},
    {"type": "pong", "content": 1},
    {"type": "error", "code": "rate_limited", "message": "m", "retry_after": 1.5, "id": "x-2", "room": "r"},
    {"type": "error", "code": "forbidden", "message": "m", "room": "r"},
    {"type": "gap", "room": "r", "from": 2, "to": 3},
    {"type": "goodbye", "code": 1012, "reason": "restart", "retry_after": 2.5},
    {"type": "goodbye", "code": 4003, "reason": "token expired"},
    {"type": "chunk", "id": "t", "index": 0, "total": 2, "data": "eyJ0eXBlIjoi"},
    {"type": "chunk", "id": "t", "index": 1, "total": 2, "data": "cGluZyJ9"},
]
"""What a server may send, of every type."""


def envelope(choices: bytes) -> str:
    """A client's message with some fields changed: a message, then for each change a field and its value."""
    return _text(GOOD, choices, ascii=bool(len(choices) & 1))


def message(choices: bytes) -> dict[str, Any]:
    """The same as an object, for other codecs."""
    return _changed(GOOD, choices)


HEADER: dict[str, Any] = {"alg": "HS256", "typ": "JWT"}
CLAIMS: dict[str, Any] = {
    "sub": "alice",
    "aud": "hub",
    "exp": 1_800_000_600,
    "iat": 1_800_000_000,
    "nbf": 1_800_000_000,
    "roles": ["member"],
    "rooms": {"game:*": ["join", "publish"]},
}
"""A token that is good at `support.tokens.NOW`."""


def token(choices: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """The header and the claims of a token, with some of them changed; the header where the first choice is odd."""
    header = choices[:3] if choices and choices[0] & 1 else b""
    return _changed([HEADER], header or b"\0"), _changed([CLAIMS], b"\0" + choices[3:])


def conversation(choices: bytes) -> list[str]:
    """What a server says: for each message how many of its fields are changed, and then as for `envelope`."""
    said: list[str] = []
    at = 0
    while at < len(choices) - 1:
        # Half of them are as they should be.
        end = at + 2 + 2 * max(0, choices[at] % 6 - 2)
        said.append(_text(SAID, choices[at + 1 : end], ascii=True))
        at = end
    return said


def _text(messages: list[dict[str, Any]], choices: bytes, *, ascii: bool) -> str:
    message = _changed(messages, choices)
    text = json.dumps(message)
    # A surrogate alone can only come as an escape.
    return text if ascii or "\\ud800" in text else json.dumps(message, ensure_ascii=False)


def _changed(messages: list[dict[str, Any]], choices: bytes) -> dict[str, Any]:
    message = dict(messages[choices[0] % len(messages)]) if choices else {}
    fields = sorted(
        {field for message in messages for field in message} | {"from", "seq", "time", "prev", "x", "__class__"}
    )
    for at in range(1, len(choices) - 1, 2):
        field, value = choices[at : at + 2]
        name = fields[field % len(fields)]
        if value < len(ODD):
            message[name] = ODD[value]
        elif value == 0xFF:
            message.pop(name, None)
        elif value > 0xC0:
            # A good value, of another message perhaps.
            message[name] = messages[value % len(messages)].get(name, name)
        else:
            message[name] = _nested(value)
    return message


def _nested(depth: int) -> Any:
    inner: Any = 0
    for level in range(depth):
        inner = [inner] if level & 1 else {"a": inner}
    return inner
