"""The codes and the reserved types of the wire protocol, as constants.

Generated from spec/codes.json by tools/codes.py. Do not edit: change that file and run the tool.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Final

__all__ = [
    "CLOSE_REASON",
    "COME_BACK",
    "ERROR_MESSAGE",
    "HANDSHAKE",
    "RECONNECT",
    "RESERVED_FROM_CLIENT",
    "RESERVED_FROM_SERVER",
    "RETRYABLE",
    "STAY_AWAY",
    "CloseCode",
    "ErrorCode",
]


class ErrorCode(StrEnum):
    """What an `error` says went wrong; the connection stays."""

    BAD_MESSAGE = "bad_message"
    """Not an envelope of this codec, a field of the wrong type or outside its limits, or a reserved type used
    wrongly. The 10th within a minute closes with 4500.
    """

    UNKNOWN_TYPE = "unknown_type"
    """Only in strict mode, where the application has named every type that it takes."""

    UNAUTHORIZED = "unauthorized"
    """Who you are is not proven. The same token fails again: get a new one."""

    FORBIDDEN = "forbidden"
    """Who you are is known, and it is not enough."""

    NOT_JOINED = "not_joined"
    """Messages to a room, its history and its presence are for the sessions that have joined it."""

    ROOM_FULL = "room_full"
    """The room has as many users as it may have. A place becomes free when one leaves."""

    NOT_FOUND = "not_found"
    """For applications and handshakes: a room or an inbox comes into being when it is named."""

    TOO_LARGE = "too_large"
    """Larger than `limits.message`, or a chunked transfer larger than its own limit."""

    RATE_LIMITED = "rate_limited"
    """A limit over time, or on connections of one user or address. `retry_after` says when to come again;
    what comes sooner is refused, too.
    """

    INVALID_CONTENT = "invalid_content"
    """The application's model of the type refused it; `where` is the path to the first wrong place."""

    CONFLICT = "conflict"
    """For instance `hello` on an open session, or a new token that belongs to another user."""

    UNAVAILABLE = "unavailable"
    """The engine is away, a queue is full, or the server drains. `retry_after` says when to come again."""

    INTERNAL = "internal"
    """An exception in the application or in the server. Whether anything was stored is unknown, so retry with
    the same `id`.
    """


class CloseCode(IntEnum):
    """Why a connection ended: the code of a WebSocket close frame and of a `goodbye`."""

    NORMAL = 1000
    """The side that sends it is done. A client that called close() stays away because it wanted to, not
    because of the code.
    """

    GOING_AWAY = 1001
    """A page was left, or the server is being stopped for good."""

    PROTOCOL_ERROR = 1002
    """Frames that RFC 6455 does not allow."""

    UNSUPPORTED_DATA = 1003
    """Not used by Hubbub, where a message of the wrong kind is a bad_message; proxies use it."""

    NO_STATUS = 1005
    """Never on the wire: what is reported for a close frame without a code."""

    ABNORMAL = 1006
    """Never on the wire: what is reported when the connection went away without a close frame."""

    INVALID_PAYLOAD = 1007
    """A text message that is not UTF-8, or a compressed one that is not compressed as agreed."""

    POLICY_VIOLATION = 1008
    """Not used by Hubbub, which says what was violated (4500 and up); proxies use it."""

    TOO_BIG = 1009
    """A frame or a message larger than the connection's limit, inflated too, in too many fragments, or
    without its last one for too long.
    """

    INTERNAL = 1011
    """The server failed in a way that costs this connection."""

    RESTART = 1012
    """The server drains before a restart; the goodbye says when to come back."""

    TRY_LATER = 1013
    """The server is full, also of fragments that wait for their last, what it needs is away, or messages are
    lost.
    """

    SLOW_CONSUMER = 4000
    """The outbox of the session was full, or a write took longer than its deadline."""

    NO_PONG = 4001
    """The other side was silent for too long."""

    REBALANCED = 4002
    """This one session is asked to connect again, so that the load spreads."""

    TOKEN_EXPIRED = 4003
    """Come back with a new token."""

    PROTOCOL_VIOLATION = 4500
    """A first message that is no valid hello, ten bad messages in a minute, a flood of control frames, or one
    of messages in spite of rate_limited.
    """

    UNAUTHORIZED = 4501
    """The token of the hello was refused, or that of the session has been revoked."""

    FORBIDDEN = 4503
    """Known, but not allowed to connect."""

    DISCONNECTED = 4504
    """An operator or the application ended the session."""

    REPLACED = 4505
    """Where a user may have one session, the newest one stays."""

    NO_HELLO = 4506
    """Full way: 10 seconds passed after the handshake without a hello."""


# Errors after which the same message, sent again unchanged, may be accepted.
RETRYABLE: Final[frozenset[ErrorCode]] = frozenset(
    {
        ErrorCode.ROOM_FULL,
        ErrorCode.RATE_LIMITED,
        ErrorCode.UNAVAILABLE,
        ErrorCode.INTERNAL,
    }
)

# What an error says where nobody has a better word for it.
ERROR_MESSAGE: Final[Mapping[ErrorCode, str]] = MappingProxyType(
    {
        ErrorCode.BAD_MESSAGE: "This is not a message of the protocol.",
        ErrorCode.UNKNOWN_TYPE: "Nobody here handles messages of this type.",
        ErrorCode.UNAUTHORIZED: "The token is missing, expired or not valid.",
        ErrorCode.FORBIDDEN: "You may not do this.",
        ErrorCode.NOT_JOINED: "Join the room first.",
        ErrorCode.ROOM_FULL: "The room is full.",
        ErrorCode.NOT_FOUND: "What the message names does not exist.",
        ErrorCode.TOO_LARGE: "The message is larger than the limit.",
        ErrorCode.RATE_LIMITED: "Too much at once: wait a little.",
        ErrorCode.INVALID_CONTENT: "The content is not what messages of this type carry.",
        ErrorCode.CONFLICT: "This contradicts what is already so.",
        ErrorCode.UNAVAILABLE: "The server cannot do this right now; nothing was stored.",
        ErrorCode.INTERNAL: "The server failed; the failure has been logged.",
    }
)

# Close codes after which a client that did not ask for the close comes back by itself.
RECONNECT: Final[frozenset[CloseCode]] = frozenset(
    {
        CloseCode.NORMAL,
        CloseCode.GOING_AWAY,
        CloseCode.PROTOCOL_ERROR,
        CloseCode.UNSUPPORTED_DATA,
        CloseCode.NO_STATUS,
        CloseCode.ABNORMAL,
        CloseCode.INVALID_PAYLOAD,
        CloseCode.POLICY_VIOLATION,
        CloseCode.TOO_BIG,
        CloseCode.INTERNAL,
        CloseCode.RESTART,
        CloseCode.TRY_LATER,
        CloseCode.SLOW_CONSUMER,
        CloseCode.NO_PONG,
        CloseCode.REBALANCED,
        CloseCode.TOKEN_EXPIRED,
    }
)

# The reason in a close frame where nobody has a better one.
CLOSE_REASON: Final[Mapping[CloseCode, str]] = MappingProxyType(
    {
        CloseCode.NORMAL: "done",
        CloseCode.GOING_AWAY: "going away",
        CloseCode.PROTOCOL_ERROR: "WebSocket protocol error",
        CloseCode.UNSUPPORTED_DATA: "wrong kind of message",
        CloseCode.NO_STATUS: "",
        CloseCode.ABNORMAL: "",
        CloseCode.INVALID_PAYLOAD: "text is not UTF-8",
        CloseCode.POLICY_VIOLATION: "policy violation",
        CloseCode.TOO_BIG: "message too big",
        CloseCode.INTERNAL: "internal error",
        CloseCode.RESTART: "server restart",
        CloseCode.TRY_LATER: "try again later",
        CloseCode.SLOW_CONSUMER: "reading too slowly",
        CloseCode.NO_PONG: "no answer to ping",
        CloseCode.REBALANCED: "moved to another server",
        CloseCode.TOKEN_EXPIRED: "token expired",
        CloseCode.PROTOCOL_VIOLATION: "protocol violation",
        CloseCode.UNAUTHORIZED: "unauthorized",
        CloseCode.FORBIDDEN: "forbidden",
        CloseCode.DISCONNECTED: "disconnected by an operator",
        CloseCode.REPLACED: "replaced by a newer session",
        CloseCode.NO_HELLO: "no hello in time",
    }
)

# Close codes after which a client comes back and resumes, also those that it does not know.
COME_BACK: Final = range(4000, 4500)

# Close codes after which a client does not come back by itself, also those that it does not know.
STAY_AWAY: Final = range(4500, 5000)

# HTTP statuses that refuse a handshake, and the code in the JSON body of each.
HANDSHAKE: Final[Mapping[int, ErrorCode]] = MappingProxyType(
    {
        400: ErrorCode.BAD_MESSAGE,
        401: ErrorCode.UNAUTHORIZED,
        403: ErrorCode.FORBIDDEN,
        404: ErrorCode.NOT_FOUND,
        426: ErrorCode.BAD_MESSAGE,
        429: ErrorCode.RATE_LIMITED,
        431: ErrorCode.TOO_LARGE,
        500: ErrorCode.INTERNAL,
        503: ErrorCode.UNAVAILABLE,
    }
)

# Types that mean something to the protocol when a client sends them.
RESERVED_FROM_CLIENT: Final[frozenset[str]] = frozenset(
    {
        "hello",
        "auth",
        "ping",
        "pong",
        "join",
        "leave",
        "ack",
        "history",
        "presence",
        "users",
        "chunk",
    }
)

# Types that mean something to the protocol when a server sends them.
RESERVED_FROM_SERVER: Final[frozenset[str]] = frozenset(
    {
        "welcome",
        "ack",
        "receipt",
        "joined",
        "left",
        "history",
        "presence",
        "users",
        "member-joined",
        "member-left",
        "ping",
        "pong",
        "error",
        "gap",
        "goodbye",
        "chunk",
    }
)
