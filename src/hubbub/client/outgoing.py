"""The messages that were sent and have no outcome yet: in order, bounded, each with its one id."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from hubbub.protocol.envelope import Fault

__all__ = ["ANSWER_TIMEOUT", "MOST", "MOST_RETRIES", "MOST_UNSENT", "REMEMBERED", "Outgoing", "Sent"]

MOST: Final = 1_000
"""How many messages may be without an outcome."""

MOST_UNSENT: Final = 100
"""How many may wait for a connection; beyond, the oldest is dropped."""

MOST_RETRIES: Final = 3

ANSWER_TIMEOUT: Final = 10.0
"""Seconds to wait for an answer before a message is sent again."""

REMEMBERED: Final = 270.0
"""Seconds from the first time on the wire in which a retry cannot become a double: the server remembers ids a
little longer (protocol.md §5.3)."""


class Sent(Struct, kw_only=True, eq=False):
    """One message on its way."""

    id: str
    # Encoded, so that a change to what was sent does not change a retry.
    text: str
    to: str | None = None
    room: str | None = None
    echo: bool = True

    # When it was first on the wire, on the machine's clock.
    since: float | None = None
    # While on the wire: when to send it again for want of an answer.
    answer_due: float | None = None
    # After an error: when to send it again.
    retry_due: float | None = None
    retries: int = 0
    # The last error, if there was one.
    fault: Fault | None = None

    @property
    def next_due(self) -> float | None:
        """The earliest moment at which something is to be done about it."""
        times = [self.answer_due, self.retry_due, None if self.since is None else self.since + REMEMBERED]
        return min((time for time in times if time is not None), default=None)


class Outgoing:
    """Messages without an outcome, oldest first."""

    def __init__(self) -> None:
        self._messages: dict[str, Sent] = {}

        # How many of them were never on the wire.
        self.unsent = 0

    def __len__(self) -> int:
        return len(self._messages)

    def __iter__(self) -> Iterator[Sent]:
        # Of a copy: whoever goes through them settles some on the way.
        return iter(list(self._messages.values()))

    def __contains__(self, id: str) -> bool:
        return id in self._messages

    def get(self, id: str | None) -> Sent | None:
        """The message with this id."""
        return None if id is None else self._messages.get(id)

    def add(self, message: Sent) -> None:
        """Add one that was not on the wire yet."""
        self._messages[message.id] = message
        self.unsent += 1

    def on_wire(self, message: Sent, now: float) -> None:
        """Note that it has been written."""
        if message.since is None:
            message.since = now
            self.unsent -= 1
        message.answer_due = now + ANSWER_TIMEOUT
        message.retry_due = None

    def oldest_unsent(self) -> Sent:
        """The first of those that were never on the wire; there must be one."""
        return next(message for message in self._messages.values() if message.since is None)

    def remove(self, message: Sent) -> None:
        """It has an outcome."""
        del self._messages[message.id]
        if message.since is None:
            self.unsent -= 1

    def connection_lost(self) -> None:
        """No answer comes any more: the next session sends all of them again, which is no retry of theirs."""
        for message in self._messages.values():
            message.answer_due = message.retry_due = None
