"""The client's state machine: events in, actions out, as spec/client.md draws it.

Nothing here waits, knows the time or touches a socket. Whoever runs it calls a method for each event, with
the time in seconds on a clock that only goes forward, carries out what `actions` returns, and calls `tick`
when `due` is there. So a test can play a year of bad networks in a second.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any, Final

from hubbub.client import wire
from hubbub.client.agenda import Agenda
from hubbub.client.events import (
    Action,
    AskToken,
    Connect,
    Drop,
    EventName,
    Reason,
    State,
    StateChange,
    Unanswered,
)
from hubbub.client.line import Line
from hubbub.client.places import Item
from hubbub.client.receiving import INBOX, Receiving
from hubbub.client.requests import Request, Requests, Rooms
from hubbub.client.retry import delay, is_final
from hubbub.client.sending import Sending
from hubbub.protocol import json
from hubbub.protocol.chunks import MOST_PARTS, PART_SIZE, TransferRefused, Transfers
from hubbub.protocol.codec import Codec
from hubbub.protocol.codes import CLOSE_REASON, CloseCode, ErrorCode
from hubbub.protocol.envelope import (
    Chunk,
    Fault,
    Gap,
    Goodbye,
    Joined,
    MemberJoined,
    MemberLeft,
    PongAnswer,
    PresenceList,
    Receipt,
    ServerPing,
    UsersOnline,
)
from hubbub.types import ALL, Position

__all__ = ["CONNECT_TIMEOUT", "Machine"]

CONNECT_TIMEOUT: Final = 5.0
"""Seconds for a token and a socket, and again for the `welcome`."""

_SILENCE: Final = 60.0
_PROBE_TIMEOUT: Final = 5.0
_STEADY: Final = 10.0
_RENEW_BEFORE: Final = 60.0
_RENEW_AGAIN: Final = 10.0
_RENEW_AT_ONCE: Final = 30.0

_TOLD: Final[dict[type, EventName]] = {
    Receipt: "receipt",
    MemberJoined: "member-joined",
    MemberLeft: "member-left",
}


class Machine:
    """One client: its state, what it has sent, and where it is in each channel."""

    def __init__(
        self,
        prefix: str,
        random: Callable[[], float],
        *,
        renews: bool = False,
        acknowledges: bool = True,
        client: str = "hubbub-python",
        codec: Codec = json,
    ) -> None:
        """`prefix` begins each id; `random` gives numbers from 0 to 1; `renews`: there is a token function."""
        self.state = State.IDLE
        self.user = ""
        self.session = ""

        # Why there is no connection, and how many tries in a row have failed.
        self.reason: Reason | None = None
        self.attempt = 0

        # How many tries in a row may fail; None: as many as it takes.
        self.tries: int | None = None

        self._wire = wire.Wire(codec)
        self._agenda = Agenda(prefix, random, self._wire)
        self._line = Line(self._agenda)
        self._sending = Sending(self._agenda, self._line)
        self._receiving = Receiving(self._agenda, acknowledges=acknowledges)
        self._requests = Requests(self._agenda, self._line)
        self._rooms = Rooms(self._agenda, self._requests, self._receiving)
        self._transfers = _transfers()
        self._renews = renews
        self._client = client

        # Counts sockets: what an older one reports is of the past. Whether the newest is still there.
        self._socket = 0
        self._has_socket = False

        # The last `error` before `welcome`: it says more than the close code that follows.
        self._fault: Fault | None = None

        # Moments: of the next try, or of giving up this one; of the last sign of life; when a probe has
        # failed; when the connection counts as good; of the last and the next renewal of the token.
        self._deadline: float | None = None
        self._heard = 0.0
        self._probe_due: float | None = None
        self._steady_at: float | None = None
        self._renewed_at: float | None = None
        self._renew_at: float | None = None

        # The server's clock, in ms, minus ours.
        self._server_offset = 0.0

    # ------------------------------------------------------------------------------------------ looking at it

    @property
    def connected(self) -> bool:
        """Whether there is a session."""
        return self.state is State.OPEN

    @property
    def due(self) -> float | None:
        """When to call `tick`, at the latest; earlier does no harm."""
        return self._agenda.due

    @property
    def retry_at(self) -> float | None:
        """While it waits: when it tries again."""
        return self._deadline if self.state is State.WAITING else None

    @property
    def rooms(self) -> tuple[str, ...]:
        """The rooms that the client wants to be in."""
        return tuple(self._rooms.wanted)

    @property
    def unsettled(self) -> int:
        """How many messages have no outcome yet."""
        return len(self._sending)

    def position(self, channel: str) -> Position | None:
        """The last position handled in `inbox`, `all` or `room:<name>`."""
        return self._receiving.position(channel)

    def actions(self) -> list[Action]:
        """What is to be done, in this order; each is returned once."""
        return self._agenda.take()

    # ------------------------------------------------------------------------------------------- its user (3.1)

    def open(self, now: float) -> None:
        """Connect, now if it is waiting to."""
        if self.state in (State.CLOSED, State.FAILED):
            self.attempt = 0
        if self.state not in (State.CONNECTING, State.OPENING, State.OPEN):
            self._start(now)

    def close(self) -> None:
        """Disconnect and stay away; what is needed to resume is kept."""
        if self.state is State.OPEN:
            self._receiving.acknowledge()
            self._requests.fail()
        self._drop(CloseCode.NORMAL)
        self._enter(State.CLOSED)

    def end(self) -> None:
        """It will not be opened again soon: whatever has no outcome yet gets one."""
        self._requests.fail()
        self._sending.end()

    def new_id(self) -> str:
        """An id for a message, for whoever must know it before it is sent."""
        return self._agenda.new_id()

    def send(self, envelope: dict[str, Any], now: float) -> str:
        """Send a message (protocol.md §1.1) when there is a connection; returns the id under which it is settled.

        Raises `HubbubError` where the content is not for JSON, and `Reject` where its id is in use.
        """
        return self._sending.send(envelope, now, connected=self.connected)

    def join(self, room: str, now: float, last: int | None = None) -> str:
        """Be in a room from now on, through every reconnection; returns the id under which it is answered."""
        return self._rooms.join(room, last, now, connected=self.connected)

    def leave(self, room: str, now: float) -> str:
        """Be in a room no longer; returns the id under which it is answered."""
        return self._rooms.leave(room, now, connected=self.connected, opening=self.state is State.OPENING)

    def request(self, type: str, fields: dict[str, Any], now: float) -> str:
        """Ask for `history`, `presence` or `users`; returns the id under which it is answered."""
        id = self._agenda.new_id()
        if not self.connected:
            self._agenda.settle(id, Unanswered("not_connected"))
        elif self._requests.full:
            self._agenda.settle(id, Unanswered("too_many"))
        else:
            self._requests.ask(Request(id=id, type=type), fields, now)
        return id

    def handled(self, channel: str, item: Item, now: float) -> None:
        """The message of a `Deliver` has been handled."""
        self._receiving.handled(channel, item, now)
        self._resume_if_needed(now)

    # ---------------------------------------------------------------------------------------- the socket (3.2)

    def token_failed(self, error: Exception, now: float) -> None:
        """The function that gives tokens failed."""
        if self.state is State.CONNECTING:
            self._back_off(now, Reason("unauthorized", f"no token could be had: {error}"))
        elif self.state is State.OPEN:
            self._agenda.tell("error", error)
            self._renew_at = self._agenda.at(now + _RENEW_AGAIN)

    def renewed(self, token: str, now: float) -> None:
        """The function that gives tokens gave one for the connection that stands."""
        if self.state is State.OPEN:
            self._requests.ask(Request(id=self._agenda.new_id(), type="auth", awaited=False), {"token": token}, now)

    def opened(self, socket: int, now: float, token: str | None = None) -> None:
        """The socket is open."""
        if socket != self._socket or self.state is not State.CONNECTING:
            return
        self._heard = now
        self._deadline = self._agenda.at(now + CONNECT_TIMEOUT)
        hello: dict[str, Any] = {"type": "hello", "client": self._client}
        if token is not None:
            hello["token"] = token
        positions = {channel: self.position(channel) for channel in (INBOX, ALL)}
        resume: dict[str, Any] = {channel: position for channel, position in positions.items() if position}
        rooms = self._rooms.resume()
        if rooms:
            resume["rooms"] = rooms
        if resume:
            hello["resume"] = resume
        self._agenda.write(hello)
        self._enter(State.OPENING)

    def refused(self, socket: int, status: int, reason: Reason, retry_after: float | None, now: float) -> None:
        """The handshake was answered with an HTTP status that is not 101."""
        if socket != self._socket or self.state is not State.CONNECTING:
            return
        if status in (401, 403):
            self._fail(reason)
        else:
            self._back_off(now, reason, retry_after)

    def broken(self, socket: int, message: str, now: float) -> None:
        """The socket could not be opened, or is gone without a close frame."""
        self.closed(socket, CloseCode.ABNORMAL, message, now)

    def closed(self, socket: int, code: int, text: str, now: float) -> None:
        """The server closed the connection, with this code."""
        if socket == self._socket and self._has_socket:
            self._ended(code, text, None, now)

    def _ended(self, code: int, text: str, retry_after: float | None, now: float) -> None:
        reason = Reason(code, text or _reason(code))
        fault = self._fault
        if fault is not None and code != CloseCode.TOKEN_EXPIRED:
            reason = Reason(fault.code, fault.message)
            retry_after = fault.retry_after if retry_after is None else retry_after
        if code == CloseCode.TOKEN_EXPIRED and self.state is not State.CONNECTING:
            self._renew(now)
        elif is_final(code):
            self._fail(reason)
        elif self.state is State.OPEN:
            self._lost(now, reason, retry_after)
        else:
            self._back_off(now, reason, retry_after)

    # ------------------------------------------------------------------------------- the server's messages (3.3)

    def alive(self, socket: int, now: float) -> None:
        """A WebSocket ping or pong came: a sign of life."""
        if socket == self._socket:
            self._heard = now
            self._probe_due = None

    def received(self, socket: int, text: str | bytes, now: float) -> None:
        """A message came; bytes where it was binary."""
        if socket != self._socket or self.state not in (State.OPENING, State.OPEN):
            return
        self.alive(socket, now)
        try:
            message = self._read(text, now)
        except wire.NotAMessage as error:
            self._makes_no_sense(now, str(error))
            return
        if message is None:
            return
        if self.state is State.OPENING:
            self._received_opening(message, now)
        else:
            self._received_open(message, now)
            self._line.go_on(now)
            self._resume_if_needed(now)

    def _read(self, text: str | bytes, now: float) -> Any:
        message = self._wire.decode(text)
        if not isinstance(message, Chunk) or self.state is State.OPENING:
            return message
        try:
            blocks = self._transfers.add(message, now)
        except TransferRefused as refused:
            raise wire.NotAMessage(str(refused)) from None
        inside = self._wire.decode_joined(b"".join(blocks)) if blocks is not None else None
        if isinstance(inside, Chunk):
            raise wire.NotAMessage("chunks in a chunk")
        return inside

    def _received_opening(self, message: Any, now: float) -> None:
        match message:
            case wire.Welcome():
                self._welcomed(message, now)
            case Fault():
                self._fault = message
            case Goodbye():
                self._drop(CloseCode.NORMAL)
                self._ended(message.code, message.reason, message.retry_after, now)
            case _:
                self._makes_no_sense(now, "the first message is not `welcome`")

    def _received_open(self, message: Any, now: float) -> None:
        match message:
            case wire.Message():
                self._receiving.publication(message, now)
            case wire.Ack():
                self._acked(message, now)
            case Fault():
                self._error(message, now)
            case ServerPing():
                self._agenda.write({"type": "pong"})
            case Joined():
                self._rooms.joined(message)
                self._answer(message)
            case wire.Left() if message.id is None:
                self._rooms.left(message)
            case wire.Left() | wire.History() | PresenceList() | UsersOnline() | PongAnswer():
                self._answer(message)
            case Receipt() | MemberJoined() | MemberLeft():
                self._agenda.tell(_TOLD[type(message)], message)
            case Gap():
                self._receiving.gap(message, now)
            case Goodbye():
                self._drop(CloseCode.NORMAL)
                self._ended(message.code, message.reason, message.retry_after, now)
            case _:
                self._makes_no_sense(now, "a second `welcome`")

    def _makes_no_sense(self, now: float, message: str) -> None:
        reason = Reason(int(CloseCode.PROTOCOL_VIOLATION), f"what the server sends makes no sense: {message}")
        self._drop(CloseCode.PROTOCOL_VIOLATION)
        if self.state is State.OPEN:
            self._lost(now, reason)
        else:
            self._back_off(now, reason)

    def _acked(self, ack: wire.Ack, now: float) -> None:
        request = self._requests.take(ack.id)
        if request is not None:
            # Of the requests only `auth` is answered so.
            self._set_expiry(ack.expires, now)
            return
        message = self._sending.acked(ack)
        if ack.id is None or (message is not None and not message.echo and not ack.duplicate):
            self._receiving.ack(ack, self.user, now)

    def _error(self, fault: Fault, now: float) -> None:
        if self._sending.refused(fault, now):
            return
        if fault.code == ErrorCode.RATE_LIMITED and self._requests.hold_back(fault, now):
            return
        request = self._requests.take(fault.id)
        if request is not None and request.type != "auth":
            self._rooms.refused(request, fault, now)
            return
        if request is not None:
            self._renew_at = self._agenda.at(now + _RENEW_AGAIN)
        elif fault.id is None and self._rooms.not_resumed(fault, now):
            return
        self._agenda.tell("error", fault)

    def _answer(self, answer: Any) -> None:
        request = self._requests.take(answer.id)
        if request is not None:
            self._requests.settle(request, answer)

    # ------------------------------------------------------------------------------------------------ time (3.4)

    def tick(self, now: float) -> None:
        """Do what is due."""
        if self._deadline is not None and now >= self._deadline:
            if self.state is State.WAITING:
                self._start(now)
            else:
                self._back_off(now, Reason(int(CloseCode.ABNORMAL), "the server does not answer"))
        self._sending.tick(now, connected=self.connected)
        if self.connected:
            self._tick_open(now)
        self._agenda.due = min((time for time in self._dues() if time is not None), default=None)

    def _tick_open(self, now: float) -> None:
        if now >= self._heard + _SILENCE or (self._probe_due is not None and now >= self._probe_due):
            self._drop(CloseCode.NO_PONG)
            self._lost(now, Reason(int(CloseCode.NO_PONG), "the server fell silent"))
            return
        if self._receiving.tick(now):
            self._lost(now, Reason(int(CloseCode.NORMAL), "a message is missing"))
            return
        self._rooms.tick(now)
        self._line.go_on(now)
        if self._steady_at is not None and now >= self._steady_at:
            self._steady_at = None
            self.attempt = 0
        if self._renew_at is not None and now >= self._renew_at:
            self._renew_at = None
            self._agenda.add(AskToken())

    def _dues(self) -> chain[float | None]:
        own = [self._deadline, self._probe_due, self._steady_at, self._renew_at]
        if self.connected:
            own.append(self._heard + _SILENCE)
        parts = (self._line, self._sending, self._receiving, self._requests, self._rooms)
        return chain(own, *(part.dues() for part in parts))

    # ------------------------------------------------------------------------------------ the surroundings (3.5)

    def network_changed(self, now: float, *, online: bool) -> None:
        """The system says that there is a network again, or none: a hint, not the truth."""
        if self.state is State.OPEN:
            # The connection may be on another network.
            self._agenda.write({"type": "ping"})
            if self._probe_due is None:
                self._probe_due = self._agenda.at(now + _PROBE_TIMEOUT)
        elif self.state is State.WAITING and online:
            self._start(now)

    # ------------------------------------------------------------------------------------------- procedures (4)

    def _start(self, now: float) -> None:
        self._socket += 1
        self._has_socket = True
        self._fault = None
        self._deadline = self._agenda.at(now + CONNECT_TIMEOUT)
        self._enter(State.CONNECTING)
        self._agenda.add(Connect(self._socket))

    def _welcomed(self, welcome: wire.Welcome, now: float) -> None:
        self.user, self.session = welcome.user, welcome.session
        self.reason = self._fault = self._deadline = None
        self._steady_at = self._agenda.at(now + _STEADY)
        self._agenda.at(now + _SILENCE)
        self._server_offset = welcome.time - now * 1000
        self._set_expiry(welcome.expires, now)
        self._enter(State.OPEN)
        positions, recovered = welcome.positions, welcome.recovered
        self._receiving.recovered(INBOX, positions.inbox, recovered.inbox)
        self._receiving.recovered(ALL, positions.all, recovered.all)
        self._receiving.connected(positions.inbox, recovered.inbox, now)
        self._rooms.welcomed(positions.rooms, recovered.rooms, now)
        self._sending.limit = welcome.limits.message
        self._sending.large_limit = welcome.limits.large_message
        self._sending.connected(now)

    def _set_expiry(self, expires: int | None, now: float) -> None:
        self._renew_at = None
        if expires is not None and self._renews:
            life = max(0.0, (expires - self._server_offset) / 1000 - now)
            self._renew_at = self._agenda.at(now + life - min(_RENEW_BEFORE, life / 5))

    def _back_off(self, now: float, reason: Reason, at_least: float | None = None) -> None:
        self._drop(CloseCode.NORMAL)
        self.attempt += 1
        if self.tries is not None and self.attempt >= self.tries:
            self._fail(Reason("unreachable", reason.message))
        else:
            self._wait(now + delay(self.attempt, self._agenda.random(), at_least), reason)

    def _wait(self, until: float, reason: Reason) -> None:
        self.reason = reason
        self._deadline = self._agenda.at(until)
        self._enter(State.WAITING)

    def _lost(self, now: float, reason: Reason, at_least: float | None = None) -> None:
        self._requests.fail()
        self._back_off(now, reason, at_least)

    def _resume_if_needed(self, now: float) -> None:
        if self.connected and self._receiving.must_resume:
            self._lost(now, Reason(int(CloseCode.NORMAL), "messages came faster than they were handled"))

    def _renew(self, now: float) -> None:
        reason = Reason("token_expired", "the token has expired")
        if not self._renews:
            self._fail(reason)
        elif self._renewed_at is None or now - self._renewed_at > _RENEW_AT_ONCE:
            self._renewed_at = now
            self._requests.fail()
            self._drop(CloseCode.NORMAL)
            self._wait(now, reason)
        else:
            self._lost(now, reason)

    def _fail(self, reason: Reason) -> None:
        self._requests.fail()
        self._drop(CloseCode.NORMAL)
        self.reason = reason
        self._enter(State.FAILED)

    def _drop(self, code: CloseCode) -> None:
        """Forget the socket, if there is one, and all that goes with it."""
        if self._has_socket:
            self._has_socket = False
            self._agenda.add(Drop(self._socket, int(code)))
        self._line.clear()
        self._sending.disconnected()
        self._receiving.disconnected()
        self._rooms.disconnected()
        self._transfers = _transfers()
        self._deadline = self._probe_due = self._steady_at = self._renew_at = None

    def _enter(self, state: State) -> None:
        if state is self.state:
            return
        was, self.state = self.state, state
        change = StateChange(
            state=state,
            was=was,
            attempt=self.attempt,
            retry_at=self.retry_at,
            reason=self.reason if state in (State.WAITING, State.FAILED) else None,
        )
        self._agenda.tell("state", change)


def _transfers() -> Transfers:
    """What the server may send in chunks: as much as they hold, for another codec can make more of what it takes.

    For as long as it takes: a server that gives up closes the connection.
    """
    return Transfers(MOST_PARTS * PART_SIZE, timeout=float("inf"))


def _reason(code: int) -> str:
    try:
        return CLOSE_REASON[CloseCode(code)]
    except ValueError:
        return "the server closed the connection"
