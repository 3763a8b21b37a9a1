"""What the machine tells its user, and what it wants done: plain values."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final, Literal

from msgspec import Struct

from hubbub.client.places import Item
from hubbub.errors import HubbubError
from hubbub.protocol.envelope import Fault, MemberJoined, MemberLeft, Receipt

__all__ = [
    "Action",
    "AskToken",
    "Connect",
    "Deliver",
    "Drop",
    "Dropped",
    "Event",
    "EventName",
    "Missed",
    "Reason",
    "Recovered",
    "RoomLeft",
    "Settle",
    "State",
    "StateChange",
    "Tell",
    "Unanswered",
    "Write",
]


class State(StrEnum):
    """Where a client is in its life (spec/client.md §1)."""

    IDLE = "idle"
    """Never opened."""

    CONNECTING = "connecting"
    """A socket is under way."""

    OPENING = "opening"
    """A socket is open, and `hello` on it without an answer yet."""

    OPEN = "open"
    """Connected."""

    WAITING = "waiting"
    """Not connected; the time of the next try is set."""

    CLOSED = "closed"
    """Its user called close()."""

    FAILED = "failed"
    """Trying again is useless; the reason says why."""


class Reason(Struct, frozen=True):
    """Why a connection ended or was not had."""

    # A close code, an HTTP status, or a word: of protocol.md §6.1, `unreachable` or `token_expired`.
    code: int | str
    message: str


_WHY: Final = {
    "dropped": "it was never sent: there was no connection for too long, or too much waited for one",
    "unknown": "the connection was lost, and whether the message was accepted cannot be found out",
    "not_connected": "there is no connection",
    "disconnected": "the connection was lost before the answer came",
    "timeout": "the server did not answer in time",
    "too_many": "too many are waiting for an answer already",
}


class Unanswered(HubbubError):
    """The server said neither yes nor no; `code` says why there is no answer.

    Of messages: `dropped`, `not_connected` and `too_many` were never sent; `unknown` was, and may have been
    accepted. Of requests, which may be made again: `disconnected`, `timeout`, `not_connected`, `too_many`.
    `disconnected` is also what a wait for an acknowledgement ends with when the client does.
    """

    def __init__(self, code: str) -> None:
        super().__init__(_WHY[code])
        self.code = code


# ------------------------------------------------------------------------------------ what is told (§9)


class StateChange(Struct, frozen=True, kw_only=True):
    """`state`: the client is in another state."""

    state: State
    was: State
    # How many tries have failed since the last good connection.
    attempt: int = 0
    # In `waiting`: when the next try comes, in seconds on the event loop's clock.
    retry_at: float | None = None
    # In `waiting` and `failed`.
    reason: Reason | None = None


class Recovered(Struct, frozen=True):
    """`recovered`: whether what was missed on a channel (`inbox`, `all`, `room:<name>`) follows.

    False: it is gone, so what was built from the channel's messages must be fetched afresh.
    """

    channel: str
    recovered: bool


class Missed(Struct, frozen=True):
    """`gap`: the server dropped the messages `from_`–`to` of a channel for this slow connection."""

    channel: str
    from_: int
    to: int


class RoomLeft(Struct, frozen=True):
    """`left`: the server ended a membership, or did not let the client in again."""

    room: str
    code: str


class Dropped(Struct, frozen=True):
    """`dropped`: the queue was full, and this message was the oldest in it."""

    id: str
    # The envelope, encoded: as text where the codec is JSON.
    message: str | bytes


Event = StateChange | Recovered | Missed | RoomLeft | Dropped | Receipt | MemberJoined | MemberLeft | Fault | Exception

EventName = Literal["state", "recovered", "gap", "left", "receipt", "member-joined", "member-left", "dropped", "error"]


# ---------------------------------------------------------------------------------------- what is to be done


class Connect(Struct, frozen=True):
    """Ask for a token, where there is a function for it, and open a socket; this is its number."""

    socket: int


class Write(Struct, frozen=True):
    """Send this message on the socket."""

    message: str | bytes


class Drop(Struct, frozen=True):
    """Close this socket with this code, and report nothing of it any more."""

    socket: int
    code: int


class AskToken(Struct, frozen=True):
    """Ask for a new token, then call `renewed` or `token_failed`."""


class Deliver(Struct, frozen=True):
    """Hand out a message; call `handled` with the item afterwards."""

    channel: str
    item: Item


class Settle(Struct, frozen=True):
    """The outcome of a message or a request: an answer, or an exception."""

    id: str
    outcome: Any


class Tell(Struct, frozen=True):
    """Tell whoever listens to this event."""

    name: EventName
    event: Event


Action = Connect | Write | Drop | AskToken | Deliver | Settle | Tell
