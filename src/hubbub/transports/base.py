"""What the hub and a transport promise each other: a handshake in, whole messages in, written frames out.

A transport turns connections into calls on a `Receiver`, one per connection, and gives the receiver a
`Writer`. All calls happen on the event loop's thread. A transport knows nothing of rooms, users or
envelopes; the hub knows nothing of sockets or frames.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Protocol

from msgspec import Meta, Struct

__all__ = ["Accept", "Admit", "Handshake", "Receiver", "Refuse", "TransportLimits", "Writer"]


class Handshake(Struct, frozen=True, kw_only=True):
    """What a client said when it asked for a WebSocket.

    Header names are in lower case, and several lines of one name are joined with commas (RFC 9110 §5.3);
    `query` holds the first value of each name.
    """

    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    # In the client's order of preference, as offered in Sec-WebSocket-Protocol.
    subprotocols: tuple[str, ...]
    # The client's address without its port: the peer's, or behind a proxy that is trusted the one that it says.
    ip: str
    # Whether the client's connection is over TLS, as far as we or such a proxy can see.
    secure: bool = False

    def __repr__(self) -> str:
        # Its headers, its query and its subprotocols hold secrets, and this may end up in a log.
        return f"Handshake(path={self.path!r}, ip={self.ip!r})"

    @property
    def cookies(self) -> dict[str, str]:
        """The request's cookies by name, the first of each name (RFC 6265 §5.4)."""
        found: dict[str, str] = {}
        for part in self.headers.get("cookie", "").split(";"):
            name, separator, value = part.strip().partition("=")
            if separator:
                found.setdefault(name, value)
        return found


class Writer(Protocol):
    """The hub's end of one connection: everything here returns at once, and only `send` raises.

    After the connection is gone `send` raises `BrokenPipeError`, and every method does nothing.
    """

    # Straight into the kernel: takes framed bytes, returns how many of them it took, and raises `OSError`
    # (`BlockingIOError` where it takes none). Only while the receiver is not `blocked`; what is left over
    # goes to `write`. It may be kept and called until `Receiver.closed`, or until `close` or `abort`.
    send: Callable[[bytes], int]

    def write(self, frames: bytes, /) -> None:
        """Send bytes that are already framed, one or many frames together, behind what was written before.

        What the socket does not take at once stays in the transport; the transport then calls
        `Receiver.blocked`, from within this call even, and until `Receiver.unblocked` the hub writes only
        control messages.
        """

    def unsent(self) -> int:
        """How many bytes wait in the transport: fewer than a while ago, and the peer is reading."""

    def framing(self, binary: bool) -> Callable[[bytes], bytes]:
        """What makes a whole message into this transport's bytes: one function for all that take the same bytes.

        So one publication is framed, and perhaps compressed, once, and written to a thousand connections.
        """

    def ping(self) -> None:
        """Ask for a sign of life; any frame that comes back counts as one."""

    def close(self, code: int, reason: str) -> None:
        """Start a clean end: what was written before goes out first, then the close frame.

        Messages that arrive afterwards are dropped. The transport ends the connection when the peer
        answers, or after `TransportLimits.close_timeout`; `Receiver.closed` follows either way.
        """

    def abort(self) -> None:
        """End the connection now, without a close frame and without waiting for unsent bytes."""

    def pause_reading(self) -> None:
        """Take no more from the socket, so that the peer feels it; what has been read still comes."""

    def resume_reading(self) -> None:
        """Go on reading."""


class Receiver(Protocol):
    """What the hub does with one connection; a transport calls these in this order of life.

    `opened` once, then any number of the middle ones, then `closed` once. A receiver in an `Accept` is always
    told both, even if the client has left meanwhile. None of them raises.
    """

    def opened(self, writer: Writer) -> None:
        """The connection stands: the response to the handshake has been written."""

    def received(self, message: str | bytes) -> None:
        """One whole message: `str` when it was text (already checked to be UTF-8), `bytes` when binary."""

    def alive(self) -> None:
        """A sign of life that is no message: a ping or a pong frame."""

    def blocked(self) -> None:
        """The socket takes no more: hold back until `unblocked`."""

    def unblocked(self) -> None:
        """Everything handed over has left: write again."""

    def closed(self, code: int, reason: str) -> None:
        """Nothing more comes or goes: the peer has closed or broken the rules, or the connection is gone.

        `code` is the close code that the peer sent, or the one that the transport or the hub sent first;
        1005 for a close frame without a code, 1006 when the connection went away without one (RFC 6455 §7.1.5).
        """


class Accept(Struct, frozen=True):
    """Let the client in: `subprotocol` goes into the response, `receiver` gets what follows."""

    receiver: Receiver
    subprotocol: str | None = None


class Refuse(Struct, frozen=True, kw_only=True):
    """Answer the handshake with an HTTP error: a JSON body `{"error":{"code","message"}}` and no upgrade."""

    status: int
    code: str
    message: str
    # Seconds, for the Retry-After header.
    retry_after: int | None = None
    # For whoever runs the server; it is not sent.
    why: str | None = None


# May wait (for a user's authentication hook); the transport bounds the wait with `handshake_timeout`.
Admit = Callable[[Handshake], Awaitable[Accept | Refuse]]


class TransportLimits(Struct, frozen=True, kw_only=True):
    """What one connection may ask of a transport."""

    handshake_timeout: Annotated[
        float, Meta(gt=0, description="seconds from the TCP connection to the end of the handshake")
    ] = 5.0
    message_size: Annotated[int, Meta(ge=125, description="bytes of one message from a client")] = 65_536
    message_fragments: Annotated[int, Meta(ge=1, description="frames that one message may be cut into")] = 128
    message_timeout: Annotated[
        float, Meta(gt=0, description="seconds from the first frame of a message to its last")
    ] = 60.0
    # Without it, each of 100,000 connections could have a message begun, and keep 64 KiB: 6 GiB.
    unfinished_size: Annotated[
        int, Meta(ge=125, description="bytes of messages whose last frame has not come, of all clients together")
    ] = 67_108_864
    # A burst, and then so many per second: the rest of a flood would be work for nothing.
    control_frames_per_second: Annotated[
        float, Meta(gt=0, description="ping and pong frames a client may send per second")
    ] = 10.0
    control_frames_burst: Annotated[int, Meta(ge=1, description="ping and pong frames it may send at once")] = 100
    close_timeout: Annotated[float, Meta(gt=0, description="seconds for a client to answer a close frame")] = 5.0
