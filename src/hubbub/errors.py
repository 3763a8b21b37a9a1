"""Everything that Hubbub raises, as a tree: catch `HubbubError` for all of it, a leaf for one thing.

HubbubError
├── ConfigError              an option is wrong; the message says which and what to do
├── Reject                   what a handler or a hook raises to refuse, with a code for the client
│   ├── NotJoined
│   ├── RoomFull
│   └── Unavailable          the engine is away, a queue is full: a retry can help
├── AckTimeout               a message is not acknowledged by its recipient in time; also the builtin `TimeoutError`
└── ConnectError             (client) no connection; `final` says that trying again is pointless
"""

from __future__ import annotations

__all__ = [
    "AckTimeout",
    "ConfigError",
    "ConnectError",
    "HubbubError",
    "NotJoined",
    "Reject",
    "RoomFull",
    "Unavailable",
]


class HubbubError(Exception):
    """The root of all errors that Hubbub raises on purpose."""


class ConfigError(HubbubError):
    """An option is wrong, or two contradict each other: one sentence, with the remedy."""


class Reject(HubbubError):
    """Refuse a message, a join or a connection; the client gets an `error` with this code and text.

    Raise it in a handler, middleware or hook. `code` is one of `hubbub.protocol.codes.ErrorCode` or a word
    of your own; `retry_after` (seconds) says when another try can help.
    """

    def __init__(
        self,
        code: str,
        message: str = "",
        *,
        retry_after: float | None = None,
        where: str | None = None,
        why: str | None = None,
    ) -> None:
        super().__init__(code, message)
        self.code = str(code)
        self.message = message
        self.retry_after = retry_after
        # For invalid content: the path of the first wrong value, such as `$.price`.
        self.where = where
        # For whoever runs the server: in the audit of what is refused at the door. The client is not told.
        self.why = why

    def __str__(self) -> str:
        return f"{self.code}: {self.message}" if self.message else self.code


class NotJoined(Reject):
    """The session is not in the room that it wrote to or asked about."""

    def __init__(self, message: str = "join the room first") -> None:
        super().__init__("not_joined", message)


class RoomFull(Reject):
    """The room has as many users as its capacity allows."""

    def __init__(self, message: str = "the room is full") -> None:
        super().__init__("room_full", message)


class Unavailable(Reject):
    """What is needed is away or overloaded; nothing was stored, and a retry can help."""

    def __init__(self, message: str = "try again later", *, retry_after: float = 1.0) -> None:
        super().__init__("unavailable", message, retry_after=retry_after)


class AckTimeout(HubbubError, TimeoutError):
    """`user` has not acknowledged the message `id` in time, which may only mean that nobody is there.

    It is in the user's inbox, at `seq` of the log `epoch`, and waits there. Both are None where the server has
    not said yet that it is: a client without a connection sends it when it has one. The same call with the same
    `id` waits on, and sends nothing twice.
    """

    def __init__(self, user: str, id: str, epoch: str | None = None, seq: int | None = None) -> None:
        where = "the server has not accepted it yet" if seq is None else "it stays in the inbox"
        super().__init__(f"{user} has not acknowledged the message {id} in time: {where}")
        self.user = user
        self.id = id
        self.epoch = epoch
        self.seq = seq


class ConnectError(HubbubError):
    """A client could not connect, or was told to stay away.

    `final` is true where another try with the same URL and token would fail the same way.
    """

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final
