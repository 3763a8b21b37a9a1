"""The opening handshake: a request's head, read strictly, and the answers to it (RFC 6455 §4).

Pure functions over bytes. Whoever speaks first on a connection is a stranger, so nothing is guessed: a head
that is not exactly HTTP/1 is refused, and no answer repeats what was sent.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote

import msgspec
from msgspec import Struct

from hubbub.protocol.deflate import Deflate, Offer, read_offers
from hubbub.transports.base import Handshake, Refuse

__all__ = [
    "HEAD_END",
    "HEAD_SIZE",
    "HEAD_WINDOW",
    "TOO_LARGE",
    "Head",
    "is_hopeless",
    "read_handshake",
    "read_head",
    "refusal",
    "switching",
]

HEAD_END = b"\r\n\r\n"

# Bytes of a head, the empty line not counted, and header lines in it.
HEAD_SIZE = 16_384
# The largest head with its end: where there is none in so many bytes, the head is too large.
HEAD_WINDOW = HEAD_SIZE + len(HEAD_END)
_HEADER_COUNT = 100

_REQUEST_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~]+) HTTP/1\.([01])")
_HEADER_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([ -~\t]*)")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# A byte that no head has: a control character, a line feed without its carriage return, or not ASCII.
_IMPOSSIBLE = re.compile(rb"[^\t\r\n -~]|(?<!\r)\n")

# Headers of which a second one would let two readers of the same request disagree about it.
_SINGLE = frozenset(
    (
        "authorization",
        "content-length",
        "host",
        "origin",
        "sec-websocket-key",
        "sec-websocket-version",
        "transfer-encoding",
        "upgrade",
    )
)

# RFC 6455 §1.3: proves to the client that the server knows WebSocket.
_ACCEPT_SUFFIX = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

TOO_LARGE = Refuse(status=431, code="too_large", message="The request's head is too large.")


def _bad(message: str) -> Refuse:
    return Refuse(status=400, code="bad_message", message=message)


class Head(Struct, frozen=True):
    """A request's head: what every HTTP request begins with."""

    method: str
    # As sent: a path, perhaps with a query.
    target: str
    # The digit after "HTTP/1.".
    minor: int
    # By lower-case name; what came in several lines is joined with commas (RFC 9110 §5.3).
    headers: dict[str, str]

    @property
    def path(self) -> str:
        """The target without its query, percent-decoding done."""
        return unquote(self.target.partition("?")[0])

    @property
    def wants_websocket(self) -> bool:
        """Whether the client asks to go on in WebSocket (rightly or not: `read_handshake` tells)."""
        return "websocket" in self.tokens("upgrade")

    def tokens(self, name: str) -> list[str]:
        """The elements of a comma-separated header, in lower case."""
        return [part.strip(" \t").lower() for part in self.headers.get(name, "").split(",")]


def is_hopeless(part: bytes | bytearray, start: int) -> bool:
    """Whether an unfinished head can no longer become a good one, looking at it from `start` on."""
    return _IMPOSSIBLE.search(part, start, HEAD_WINDOW) is not None


def read_head(data: bytes) -> Head | Refuse:
    """Read a head, given without the empty line that ends it."""
    if len(data) > HEAD_SIZE:
        return TOO_LARGE
    try:
        first, *lines = data.decode("ascii").split("\r\n")
    except UnicodeDecodeError:
        return _bad("The request's head is not plain ASCII.")
    request = _REQUEST_LINE.fullmatch(first)
    if request is None:
        return _bad("The request line is not HTTP/1.")
    if len(lines) > _HEADER_COUNT:
        # Had it come in pieces, an impossible byte would have been seen before it was known how many there are.
        return _bad("A header line is malformed.") if is_hopeless(data, 0) else TOO_LARGE
    headers: dict[str, str] = {}
    for line in lines:
        header = _HEADER_LINE.fullmatch(line)
        if header is None:
            return _bad("A header line is malformed.")
        name, value = header[1].lower(), header[2].rstrip(" \t")
        if name not in headers:
            headers[name] = value
        elif name in _SINGLE:
            return _bad("A header that may come only once came twice.")
        else:
            headers[name] += ("; " if name == "cookie" else ", ") + value
    return Head(request[1], request[2], int(request[3]), headers)


def read_handshake(head: Head, ip: str, secure: bool = False) -> tuple[Handshake, str, list[Offer]] | Refuse:
    """Check that a request is a WebSocket handshake (RFC 6455 §4.2.1): what it says, its key, and its extensions.

    `ip` and `secure` are the transport's to know, as is what becomes of the rest: the key is for `switching`.
    """
    headers = head.headers
    if head.method != "GET" or head.minor != 1 or not head.target.startswith("/"):
        return _bad("A WebSocket handshake is a GET request of HTTP/1.1 for a path.")
    if "host" not in headers:
        return _bad("The Host header is missing.")
    if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
        return _bad("A WebSocket handshake has no body.")
    # Firefox sends "keep-alive, Upgrade".
    if "upgrade" not in head.tokens("connection") or head.tokens("upgrade") != ["websocket"]:
        return _bad("A WebSocket handshake has the headers Connection: Upgrade and Upgrade: websocket.")
    if headers.get("sec-websocket-version") != "13":
        return Refuse(status=426, code="bad_message", message="Only version 13 of WebSocket is spoken here.")
    key = headers.get("sec-websocket-key", "")
    if not _is_key(key):
        return _bad("Sec-WebSocket-Key must be 16 bytes in base64.")
    subprotocols = _subprotocols(headers)
    if subprotocols is None:
        return _bad("Sec-WebSocket-Protocol is not a list of names.")
    # Also where none would be taken: what is refused shall not depend on an option.
    offers = read_offers(headers.get("sec-websocket-extensions", ""))
    if offers is None:
        return _bad("Sec-WebSocket-Extensions is not a list of extensions.")
    try:
        query = parse_qsl(head.target.partition("?")[2], keep_blank_values=True, errors="strict")
        path = unquote(head.target.partition("?")[0], errors="strict")
    except ValueError:
        return _bad("The address is not UTF-8.")
    handshake = Handshake(
        path=path,
        # Reversed: of several values the first stays.
        query=dict(reversed(query)),
        headers=headers,
        subprotocols=subprotocols,
        ip=ip,
        secure=secure,
    )
    return handshake, key, offers


def _is_key(key: str) -> bool:
    try:
        return len(binascii.a2b_base64(key, strict_mode=True)) == 16
    except binascii.Error:
        return False


def _subprotocols(headers: dict[str, str]) -> tuple[str, ...] | None:
    offered = headers.get("sec-websocket-protocol")
    if offered is None:
        return ()
    names = tuple(name.strip(" \t") for name in offered.split(","))
    return names if all(_TOKEN.fullmatch(name) for name in names) else None


def switching(key: str, subprotocol: str | None, deflate: Deflate | None = None) -> bytes:
    """The response that opens the WebSocket (RFC 6455 §4.2.2); `key` is the client's, `deflate` what was agreed on."""
    proof = hashlib.sha1(key.encode() + _ACCEPT_SUFFIX, usedforsecurity=False).digest()
    chosen = "" if subprotocol is None else f"Sec-WebSocket-Protocol: {subprotocol}\r\n"
    if deflate is not None:
        chosen += f"Sec-WebSocket-Extensions: {deflate.response}\r\n"
    return (
        "HTTP/1.1 101 Switching Protocols\r\n"
        "Upgrade: websocket\r\n"
        "Connection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {base64.b64encode(proof).decode()}\r\n"
        f"{chosen}\r\n"
    ).encode("ascii")


def refusal(refuse: Refuse) -> bytes:
    """The response that says no, in JSON, and ends the connection."""
    body = msgspec.json.encode({"error": {"code": refuse.code, "message": refuse.message}})
    lines = [
        f"HTTP/1.1 {refuse.status} {HTTPStatus(refuse.status).phrase}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    if refuse.retry_after is not None:
        lines.append(f"Retry-After: {refuse.retry_after}")
    if refuse.status == 401:
        lines.append("WWW-Authenticate: Bearer")
    if refuse.status == 426:
        lines += ["Upgrade: websocket", "Sec-WebSocket-Version: 13"]
    return "\r\n".join(lines).encode("ascii") + HEAD_END + body
