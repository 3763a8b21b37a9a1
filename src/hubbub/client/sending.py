"""The client's own messages, from send() to an outcome: kept over lost connections, sent again, settled once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Final

from msgspec import Struct

from hubbub.client import wire
from hubbub.client.agenda import Agenda
from hubbub.client.events import Dropped, Unanswered, Write
from hubbub.client.line import Line
from hubbub.client.retry import can_help, resend_delay
from hubbub.errors import Reject
from hubbub.protocol.chunks import MOST_PARTS, parts_of
from hubbub.protocol.codes import ErrorCode
from hubbub.protocol.envelope import Fault

__all__ = ["MOST", "MOST_UNSENT", "Sending", "Sent", "rejection"]

MOST: Final = 1_000
"""How many messages may be without an outcome."""

MOST_UNSENT: Final = 100
"""How many may wait for a connection; beyond, the oldest is dropped."""

_MOST_RETRIES: Final = 3
_ANSWER_TIMEOUT: Final = 10.0

# And so much more for one in chunks: as long as the server waits for all of them.
_TRANSFER_TIMEOUT: Final = 60.0

# What stands for all volatile messages among the types that are held.
_VOLATILE: Final = ""

# From the first time on the wire: a retry within it cannot become a double, for the server remembers ids a
# little longer (protocol.md §5.3).
_REMEMBERED: Final = 270.0


class Sent(Struct, kw_only=True, eq=False):
    """One message on its way."""

    id: str
    type: str
    # Encoded at once, so that later changes to the content do not make a retry another message.
    message: str | bytes
    echo: bool = True

    # When it was first on the wire; None where it never was, or was refused in a way that says the same.
    since: float | None = None
    # Whether it was on the wire once and got no answer: nobody knows what became of it then.
    doubtful: bool = False
    # While on the wire: when to send it again for want of an answer.
    answer_due: float | None = None
    # After an error: when to send it again.
    retry_due: float | None = None
    retries: int = 0
    # The last error, if there was one.
    fault: Fault | None = None


class Sending:
    """Messages without an outcome, oldest first."""

    def __init__(self, agenda: Agenda, line: Line) -> None:
        # Bytes that the server takes in one message, and in one that comes in chunks.
        self.limit = 65_536
        self.large_limit = 0

        self._agenda = agenda
        self._line = line
        self._messages: dict[str, Sent] = {}

        # How many of them were never on the wire.
        self._unsent = 0

        # The types of volatile ones whose sender asked for an `ack`, by id.
        self._volatile: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._messages)

    def send(self, envelope: dict[str, Any], now: float, *, connected: bool) -> str:
        """Take a message; returns the id under which it will be settled."""
        id = envelope.get("id")
        if id in self._messages or id in self._volatile:
            raise Reject(ErrorCode.CONFLICT, f"a message with the id {id!r} is on its way already")
        if envelope.get("volatile"):
            return self._send_volatile(envelope, id, now, connected=connected)
        if id is None:
            id = self._agenda.new_id()
        encoded = self._agenda.wire.encode({**envelope, "id": id})
        message = Sent(id=id, type=envelope["type"], message=encoded, echo=envelope.get("echo", True))
        if len(self._messages) >= MOST:
            self._agenda.settle(id, Unanswered("too_many"))
            return id
        self._messages[id] = message
        self._unsent += 1
        if connected:
            self._line_up(message, now)
        elif self._unsent > MOST_UNSENT:
            oldest = next(message for message in self._messages.values() if message.since is None)
            self._settle(oldest, Unanswered("dropped"))
            self._agenda.tell("dropped", Dropped(oldest.id, oldest.message))
        return id

    def _send_volatile(self, envelope: dict[str, Any], id: str | None, now: float, *, connected: bool) -> str:
        """It is for now or never."""
        encoded = self._agenda.wire.encode(envelope)
        held = self._line.held(envelope["type"], now) or self._line.held(_VOLATILE, now)
        named = id if id is not None else self._agenda.new_id()
        if not connected:
            self._agenda.settle(named, Unanswered("not_connected"))
        elif (part := self._part_size(named, encoded)) is None:
            self._agenda.settle(named, self._too_large())
        elif held is not None:
            said = "the server takes no more of this type for a while"
            self._agenda.settle(named, Reject(ErrorCode.RATE_LIMITED, said, retry_after=held))
        else:
            self._write(named, encoded, part)
            if id is not None:
                self._volatile[id] = envelope["type"]
            else:
                self._agenda.settle(named, wire.Ack(to=envelope.get("to"), room=envelope.get("room")))
        return named

    # ------------------------------------------------------------------------------------------ the connection

    def connected(self, now: float) -> None:
        """There is a session: everything goes out, in order; what was out before is no retry for that."""
        for message in list(self._messages.values()):
            self._line_up(message, now)

    def disconnected(self) -> None:
        """No answer comes any more."""
        for message in self._messages.values():
            message.doubtful = message.doubtful or message.answer_due is not None
            message.answer_due = message.retry_due = None
        for id in sorted(self._volatile):
            self._agenda.settle(id, Unanswered("unknown"))
        self._volatile.clear()

    def end(self) -> None:
        """Nobody will send them again."""
        for message in list(self._messages.values()):
            self._settle(message, Unanswered("dropped" if message.since is None else "unknown"))

    def acked(self, ack: wire.Ack) -> Sent | None:
        """An `ack` came; the message, where it is one of these that is kept."""
        message = self._messages.get(ack.id) if ack.id is not None else None
        if message is not None:
            self._settle(message, ack)
        elif ack.id is not None and ack.id in self._volatile:
            del self._volatile[ack.id]
            self._agenda.settle(ack.id, ack)
        return message

    def refused(self, fault: Fault, now: float) -> bool:
        """An `error` came; whether it was about one of these."""
        if fault.id is None:
            if fault.code == ErrorCode.RATE_LIMITED:
                # Of a volatile message without an id: which type it had is not said.
                self._line.refuse(None, _VOLATILE, fault.retry_after, now)
            return False
        message = self._messages.get(fault.id)
        if message is None:
            if fault.id not in self._volatile:
                return False
            type = self._volatile.pop(fault.id)
            if fault.code == ErrorCode.RATE_LIMITED:
                self._line.refuse(None, type, fault.retry_after, now)
            self._agenda.settle(fault.id, rejection(fault))
        elif fault.code == ErrorCode.RATE_LIMITED:
            self._hold_back(message, fault, now)
        elif can_help(fault.code):
            message.fault = fault
            # After this one it is unknown, too, what became of it (protocol.md §5.2).
            message.doubtful = message.doubtful or fault.code == ErrorCode.INTERNAL
            self._retry(message, now, fault.retry_after)
        else:
            self._settle(message, rejection(fault))
        return True

    # ------------------------------------------------------------------------------------------------- time

    def tick(self, now: float, *, connected: bool) -> None:
        """Do what is due."""
        for message in list(self._messages.values()):
            if message.since is not None and now >= message.since + _REMEMBERED:
                self._settle(message, Unanswered("unknown"))
            elif connected and message.retry_due is not None and now >= message.retry_due:
                self._line_up(message, now)
            elif connected and message.answer_due is not None and now >= message.answer_due:
                message.doubtful = True
                self._retry(message, now, 0.0)

    def dues(self) -> Iterator[float | None]:
        """When something is to be done."""
        for message in self._messages.values():
            yield message.answer_due
            yield message.retry_due
            yield None if message.since is None else message.since + _REMEMBERED

    def _line_up(self, message: Sent, now: float) -> None:
        message.retry_due = None
        if self._part_size(message.id, message.message) is None:
            self._settle(message, self._too_large())
        else:
            self._line.add(message.id, message.type, partial(self._put_on_wire, message), now)

    def _put_on_wire(self, message: Sent, now: float) -> None:
        part = self._part_size(message.id, message.message) or 0
        self._write(message.id, message.message, part)
        if message.since is None:
            message.since = now
            self._unsent -= 1
        message.answer_due = self._agenda.at(now + _ANSWER_TIMEOUT + (_TRANSFER_TIMEOUT if part else 0.0))

    def _write(self, id: str, encoded: str | bytes, part: int) -> None:
        messages = self._agenda.wire.chunks(id, encoded, part) if part else (encoded,)
        for message in messages:
            self._agenda.add(Write(message))

    def _hold_back(self, message: Sent, fault: Fault, now: float) -> None:
        """The server takes no more for now: back into the line, which costs it nothing."""
        message.answer_due = None
        if not message.doubtful and message.since is not None:
            # Nothing was stored, this time or before: as if it had never been sent.
            message.since = None
            self._unsent += 1
        if not self._line.refuse(message.id, message.type, fault.retry_after, now):
            # A late answer: it was given up, and is to be sent again already.
            message.fault = fault

    def _retry(self, message: Sent, now: float, after: float | None) -> None:
        if message.retries == _MOST_RETRIES:
            self._settle(message, rejection(message.fault) if message.fault is not None else Unanswered("unknown"))
            return
        message.retries += 1
        message.answer_due = None
        self._line.remove(message.id)
        wait = resend_delay(message.retries, self._agenda.random(), after)
        if wait:
            message.retry_due = self._agenda.at(now + wait)
        else:
            self._line_up(message, now)

    def _settle(self, message: Sent, outcome: Any) -> None:
        del self._messages[message.id]
        self._line.remove(message.id)
        if message.since is None:
            self._unsent -= 1
        self._agenda.settle(message.id, outcome)

    def _part_size(self, id: str, encoded: str | bytes) -> int | None:
        """How many bytes of a message go into each chunk; 0 where it goes as it is, None where it cannot go."""
        wire = self._agenda.wire
        size = wire.size(encoded)
        if size <= self.limit:
            return 0
        part = wire.part_size(id, self.limit)
        return part if size <= self.large_limit and part and parts_of(size, part) <= MOST_PARTS else None

    def _too_large(self) -> Reject:
        most = max(self.limit, self.large_limit)
        return Reject(
            ErrorCode.TOO_LARGE,
            f"the message is larger than the {most} bytes that the server takes: "
            "put it where both sides can reach it, and send its address",
        )


def rejection(fault: Fault) -> Reject:
    """An `error` of the server as what send() or a request raises."""
    return Reject(fault.code, fault.message, retry_after=fault.retry_after, where=fault.where)
