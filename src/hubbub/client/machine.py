"""The client's state machine: events in, actions out, as spec/client.md draws it.

Nothing here waits, knows the time or touches a socket. Whoever runs it calls a method for each event, with
the time in seconds on any clock that only goes forward, carries out what `actions` returns, and calls
`tick` when `due` is there. So a test can play a year of bad networks in a second.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from msgspec import Struct

from hubbub.client import wire
from hubbub.client.chunks import Chunks
from hubbub.client.events import (
    Action,
    AskToken,
    Connect,
    Deliver,
    Drop,
    Dropped,
    Event,
    EventName,
    Missed,
    Reason,
    Recovered,
    RoomLeft,
    Settle,
    State,
    StateChange,
    Tell,
    Unanswered,
    Write,
)
from hubbub.client.outgoing import MOST, MOST_RETRIES, MOST_UNSENT, REMEMBERED, Outgoing, Sent
from hubbub.client.places import HELD_LIMIT, Item, Place
from hubbub.client.retry import can_help, delay, is_final, resend_delay
from hubbub.errors import Reject
from hubbub.protocol.codes import CLOSE_REASON, HANDSHAKE, CloseCode, ErrorCode
from hubbub.protocol.envelope import (
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
from hubbub.types import ALL, Position, room_channel, room_of

__all__ = ["CONNECT_TIMEOUT", "INBOX", "Machine"]

CONNECT_TIMEOUT: Final = 5.0
"""Seconds for a token and a socket, and again for the `welcome`."""

INBOX: Final = "inbox"
"""The client's own inbox among its channels; the others are `all` and `room:<name>`."""

_REQUEST_TIMEOUT: Final = 10.0
_PROBE_TIMEOUT: Final = 5.0
_SILENCE: Final = 60.0
_STEADY: Final = 10.0
_HOLE_TIMEOUT: Final = 1.0
_ACK_DELAY: Final = 1.0
_ACK_COUNT: Final = 32
_RENEW_BEFORE: Final = 60.0
_RENEW_AGAIN: Final = 10.0
_RENEW_AT_ONCE: Final = 30.0
_MOST_REQUESTS: Final = 100
_MOST_ROOMS: Final = 100
_MOST_PENDING: Final = 10_000

# Types that come only where the session is open already.
_PRESENCE: Final[dict[type, EventName]] = {
    Receipt: "receipt",
    MemberJoined: "member-joined",
    MemberLeft: "member-left",
}


class _Request(Struct, kw_only=True):
    """A question without an answer yet."""

    id: str
    type: str
    room: str | None = None
    # When to give up; None: not on the wire yet.
    due: float | None = None
    # Whether somebody waits for the answer, or the machine asked for itself.
    awaited: bool = True


class Machine:
    """One client: what it is in, what it has sent, and where it is in each channel."""

    def __init__(
        self,
        prefix: str,
        random: Callable[[], float],
        *,
        renews: bool = False,
        acknowledges: bool = True,
        tries: int | None = None,
        client: str = "hubbub-python",
    ) -> None:
        self.state = State.IDLE
        self.user = ""
        self.session = ""

        # Why there is no connection, and how many tries in a row have failed.
        self.reason: Reason | None = None
        self.attempt = 0

        # How many tries in a row may fail; None: as many as it takes.
        self.tries = tries

        # When to call `tick`, at the latest: too early does no harm.
        self.due: float | None = None

        # The rooms to be in, with how many old messages were asked for.
        self.rooms: dict[str, int | None] = {}

        # Messages handed out and not handled yet, of all channels.
        self.pending = 0

        self.outgoing = Outgoing()
        self._random = random
        self._renews = renews
        self._acknowledges = acknowledges
        self._client = client
        self._prefix = prefix
        self._count = 0
        self._actions: list[Action] = []
        self._places: dict[str, Place] = {INBOX: Place(), ALL: Place()}
        self._requests: dict[str, _Request] = {}

        # Volatile messages whose sender asked for an `ack`.
        self._volatile: set[str] = set()

        # Rooms that could not be joined again: when to try once more, and how often that was tried.
        self._rejoins: dict[str, tuple[float, int]] = {}

        # The rooms that `hello` named and `welcome` did not: an `error` for each follows.
        self._missing: set[str] = set()

        # Bytes that the server takes in one message.
        self._limit = 65_536

        # Counts sockets: what an older one reports is of the past.
        self._socket = 0
        self._chunks = Chunks()

        # The last `error` before `welcome`: it says more than the close code that follows.
        self._fault: Fault | None = None

        # Moments, on the caller's clock: of the next try or of giving up a try; of the last sign of life; when
        # a probe has failed; since when it is open; of the last and the next renewal; when to acknowledge.
        self._deadline: float | None = None
        self._heard = 0.0
        self._probe_due: float | None = None
        self._steady_at: float | None = None
        self._renewed_at: float | None = None
        self._renew_at: float | None = None
        self._ack_at: float | None = None
        self._holes: dict[str, float] = {}

        # The inbox's position in the last `ack` of this session, and how many messages it moved since.
        self._acked = 0
        self._unacked = 0

        # The server's clock in ms minus ours.
        self._server_offset = 0.0

    # ------------------------------------------------------------------------------------- looking at it

    @property
    def connected(self) -> bool:
        """Whether there is a session."""
        return self.state is State.OPEN

    def position(self, channel: str) -> Position | None:
        """The last position handled in `inbox`, `all` or `room:<name>`."""
        place = self._places.get(channel)
        return place.position if place is not None else None

    def actions(self) -> list[Action]:
        """What is to be done, in this order; each is returned once."""
        actions, self._actions = self._actions, []
        return actions

    # -------------------------------------------------------------------------------------- its user (3.1)

    def open(self, now: float) -> None:
        """Connect, now if it is waiting to."""
        if self.state in (State.CLOSED, State.FAILED):
            self.attempt = 0
        if self.state in (State.IDLE, State.WAITING, State.CLOSED, State.FAILED):
            self._start(now)

    def close(self, now: float) -> None:
        """Disconnect and stay away; what is needed to resume is kept."""
        if self.state is State.OPEN:
            self._acknowledge(now)
            self._fail_requests("disconnected")
        self._drop(CloseCode.NORMAL)
        self._enter(State.CLOSED)

    def send(
        self,
        type: str,
        fields: dict[str, Any],
        now: float,
        *,
        to: str | None = None,
        room: str | None = None,
        id: str | None = None,
        echo: bool = True,
        volatile: bool = False,
    ) -> str:
        """Send a message, when there is a connection; returns the id under which it is settled.

        `fields` are further ones of protocol.md §1.1. Raises `HubbubError` where the content cannot be
        encoded, and `Reject` where the id is taken.
        """
        wants_ack = id is not None
        id = id or self._new_id()
        if id in self.outgoing or id in self._volatile:
            raise Reject(ErrorCode.CONFLICT, f"a message with the id {id!r} is on its way already")
        envelope: dict[str, Any] = {"type": type}
        envelope |= {"to": to} if to is not None else {"room": room} if room is not None else {}
        envelope |= fields | ({"echo": False} if not echo else {}) | ({"volatile": True} if volatile else {})
        if volatile:
            self._send_volatile(envelope, id, wants_ack)
            return id
        message = Sent(id=id, text=wire.encode(envelope | {"id": id}), to=to, room=room, echo=echo)
        if len(self.outgoing) >= MOST:
            self._settle(id, Unanswered("too_many"))
            return id
        self.outgoing.add(message)
        if self.state is State.OPEN:
            self._put_on_wire(message, now)
        elif self.outgoing.unsent > MOST_UNSENT:
            oldest = self.outgoing.oldest_unsent()
            self._settle_sent(oldest, Unanswered("dropped"))
            self._tell("dropped", Dropped(oldest.id, oldest.text))
        return id

    def _send_volatile(self, envelope: dict[str, Any], id: str, wants_ack: bool) -> None:
        """It is for now or never."""
        if self.state is not State.OPEN:
            self._settle(id, Unanswered("not_connected"))
            return
        text = wire.encode(envelope | ({"id": id} if wants_ack else {}))
        if self._is_too_large(text):
            self._settle(id, self._too_large())
            return
        self._actions.append(Write(text))
        if wants_ack:
            self._volatile.add(id)
        else:
            self._settle(id, wire.Ack(to=envelope.get("to"), room=envelope.get("room")))

    def join(self, room: str, now: float, *, last: int | None = None) -> str:
        """Be in a room from now on, through every reconnection; returns the id under which it is answered."""
        id = self._new_id()
        full = room not in self.rooms and len(self.rooms) >= _MOST_ROOMS
        if full or len(self._requests) >= _MOST_REQUESTS:
            self._settle(id, Unanswered("too_many"))
            return id
        self.rooms[room] = last
        self._rejoins.pop(room, None)
        self._places.setdefault(room_channel(room), Place())
        self._requests[id] = request = _Request(id=id, type="join", room=room)
        if self.state is State.OPEN:
            self._send_join(request, now)
        return id

    def leave(self, room: str, now: float) -> str:
        """Be in a room no longer; returns the id under which it is answered."""
        id = self._new_id()
        self._forget(room)
        if self.state is State.OPEN:
            self._ask(id, "leave", {"room": room}, now)
        elif self.state is State.OPENING:
            # `hello` may have named it: known when `welcome` comes.
            self._requests[id] = _Request(id=id, type="leave", room=room)
        else:
            self._settle(id, wire.Left(room=room, id=id))
        return id

    def request(self, type: str, fields: dict[str, Any], now: float) -> str:
        """Ask for `history`, `presence` or `users`; returns the id under which it is answered."""
        id = self._new_id()
        if self.state is not State.OPEN:
            self._settle(id, Unanswered("not_connected"))
        elif len(self._requests) >= _MOST_REQUESTS:
            self._settle(id, Unanswered("too_many"))
        else:
            self._ask(id, type, fields, now)
        return id

    def handled(self, channel: str, item: Item, now: float) -> None:
        """The message of a `Deliver` has been handled: now the position may move."""
        self.pending -= 1
        place = self._places.get(channel)
        if place is None:
            return
        moved = place.handled(item)
        if channel == INBOX:
            self._inbox_moved(moved, now)

    # ------------------------------------------------------------------------------------ the socket (3.2)

    def token_failed(self, error: Exception, now: float) -> None:
        """The function that gives tokens failed."""
        if self.state is State.CONNECTING:
            self._back_off(now, Reason("unauthorized", f"no token could be had: {error}"))
        elif self.state is State.OPEN:
            self._tell("error", error)
            self._renew_at = self._at(now + _RENEW_AGAIN)

    def renewed(self, token: str, now: float) -> None:
        """The function that gives tokens gave one for the connection that stands."""
        if self.state is State.OPEN:
            self._ask(self._new_id(), "auth", {"token": token}, now, awaited=False)

    def opened(self, socket: int, now: float, token: str | None = None) -> None:
        """The socket is open."""
        if socket != self._socket or self.state is not State.CONNECTING:
            return
        self._heard = now
        self._deadline = self._at(now + CONNECT_TIMEOUT)
        self._missing = set()
        hello: dict[str, Any] = {"type": "hello", "client": self._client}
        if token is not None:
            hello["token"] = token
        resume = self._resume()
        if resume:
            hello["resume"] = resume
        self._write(hello)
        self._enter(State.OPENING)

    def refused(self, socket: int, status: int, reason: Reason, retry_after: float | None, now: float) -> None:
        """The handshake got an HTTP response that is not 101."""
        if socket != self._socket or self.state is not State.CONNECTING:
            return
        if HANDSHAKE.get(status) in (ErrorCode.UNAUTHORIZED, ErrorCode.FORBIDDEN):
            self._fail(reason)
        else:
            self._back_off(now, reason, retry_after)

    def broken(self, socket: int, message: str, now: float) -> None:
        """The socket could not be opened, or is gone without a close frame."""
        if socket != self._socket:
            return
        reason = Reason(int(CloseCode.ABNORMAL), message)
        if self.state in (State.CONNECTING, State.OPENING):
            self._back_off(now, reason, self._fault.retry_after if self._fault else None)
        elif self.state is State.OPEN:
            self._lost(now, reason)

    def closed(self, socket: int, code: int, text: str, now: float) -> None:
        """The server closed the connection."""
        if socket == self._socket and self.state in (State.CONNECTING, State.OPENING, State.OPEN):
            self._ended(code, text, None, now)

    def _ended(self, code: int, text: str, retry_after: float | None, now: float) -> None:
        try:
            text = text or CLOSE_REASON[CloseCode(code)]
        except ValueError:
            # A code that this client does not know; its number says which.
            text = text or "the server closed the connection"
        reason = Reason(code, text)
        fault = self._fault
        if code == CloseCode.TOKEN_EXPIRED and self.state is not State.CONNECTING:
            self._renew(now)
        elif is_final(code):
            self._fail(Reason(fault.code, fault.message) if fault is not None else reason)
        elif self.state is State.OPEN:
            self._lost(now, reason, retry_after)
        else:
            if fault is not None:
                reason = Reason(fault.code, fault.message)
                retry_after = fault.retry_after if retry_after is None else retry_after
            self._back_off(now, reason, retry_after)

    # -------------------------------------------------------------------------- the server's messages (3.3)

    def alive(self, socket: int, now: float) -> None:
        """A WebSocket ping or pong came: a sign of life."""
        if socket == self._socket:
            self._heard = now
            self._probe_due = None

    def received(self, socket: int, text: str | bytes, now: float) -> None:
        """A message came; bytes where it was binary, which this codec never is."""
        if socket != self._socket or self.state not in (State.OPENING, State.OPEN):
            return
        self.alive(socket, now)
        try:
            if isinstance(text, bytes):
                raise wire.NotAMessage("a binary message")
            message = wire.decode(text)
            if self.state is State.OPEN and isinstance(message, wire.Chunk):
                whole = self._chunks.add(message, now)
                if whole is None:
                    return
                message = wire.decode(whole)
                if isinstance(message, wire.Chunk):
                    raise wire.NotAMessage("a chunk in chunks")
        except wire.NotAMessage as error:
            self._makes_no_sense(now, str(error))
            return
        if self.state is State.OPENING:
            self._received_opening(message, now)
        else:
            self._received_open(message, now)

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
                self._makes_no_sense(now, "the server did not begin with `welcome`")

    def _received_open(self, message: Any, now: float) -> None:
        match message:
            case wire.Message():
                self._publication(message, now)
            case wire.Ack():
                self._acked_message(message, now)
            case Fault():
                self._error(message, now)
            case ServerPing():
                self._write({"type": "pong"})
            case Joined():
                self._joined(message, now)
            case wire.Left():
                self._left(message)
            case wire.History() | PresenceList() | UsersOnline() | PongAnswer():
                self._answer(message.id, message)
            case Receipt() | MemberJoined() | MemberLeft():
                self._tell(_PRESENCE[type(message)], message)
            case Gap():
                self._gap(message, now)
            case Goodbye():
                self._drop(CloseCode.NORMAL)
                self._ended(message.code, message.reason, message.retry_after, now)
            case _:
                self._makes_no_sense(now, "a second `welcome`")

    def _makes_no_sense(self, now: float, message: str) -> None:
        reason = Reason(int(CloseCode.PROTOCOL_VIOLATION), f"what the server sent makes no sense: {message}")
        self._drop(CloseCode.PROTOCOL_VIOLATION)
        if self.state is State.OPEN:
            self._lost(now, reason)
        else:
            self._back_off(now, reason)

    def _publication(self, message: wire.Message, now: float) -> None:
        channel = self._channel_of(message.to, message.room)
        if channel not in self._places:
            # On its way when the room was left.
            return
        if message.seq is None:
            # Whoever is slow may miss a volatile message.
            if self.pending < _MOST_PENDING:
                self._deliver(channel, Item(0, 0, message))
            return
        prev = message.seq - 1 if message.prev is None else message.prev
        self._receive(channel, Item(message.seq, prev, message), now)

    def _acked_message(self, ack: wire.Ack, now: float) -> None:
        sent = self.outgoing.get(ack.id)
        if sent is not None:
            self._settle_sent(sent, ack)
            if not sent.echo and not ack.duplicate:
                self._receive_ack(ack, now)
        elif ack.id is None:
            self._receive_ack(ack, now)
        elif ack.id in self._volatile:
            self._volatile.remove(ack.id)
            self._settle(ack.id, ack)
        elif ack.id in self._requests:
            del self._requests[ack.id]
            self._set_expiry(ack.expires, now)

    def _receive_ack(self, ack: wire.Ack, now: float) -> None:
        """The `ack` of a message without echo stands where the message would have come."""
        if ack.seq is None or (ack.to is not None and ack.to != self.user):
            return
        channel = self._channel_of(ack.to, ack.room)
        if channel in self._places:
            self._receive(channel, Item(ack.seq, ack.seq - 1), now)

    def _gap(self, gap: Gap, now: float) -> None:
        channel = ALL if gap.channel == ALL else INBOX if gap.room is None else room_channel(gap.room)
        if channel in self._places:
            self._receive(channel, Item(gap.to, gap.from_ - 1, overlaps=True), now)
            self._tell("gap", Missed(channel, gap.from_, gap.to))

    def _error(self, fault: Fault, now: float) -> None:
        sent = self.outgoing.get(fault.id)
        request = self._requests.pop(fault.id, None) if fault.id is not None else None
        if sent is not None:
            sent.fault = fault
            if can_help(fault.code):
                self._retry(sent, now, fault.retry_after)
            else:
                self._settle_sent(sent, _rejection(fault))
        elif fault.id is not None and fault.id in self._volatile:
            self._volatile.remove(fault.id)
            self._settle(fault.id, _rejection(fault))
        elif request is not None:
            self._request_refused(request, fault, now)
        elif fault.id is None and fault.room in self._missing:
            assert fault.room is not None
            self._missing.discard(fault.room)
            self._not_rejoined(fault.room, fault, now)
        else:
            self._tell("error", fault)

    def _request_refused(self, request: _Request, fault: Fault, now: float) -> None:
        if request.type == "auth":
            self._tell("error", fault)
            self._renew_at = self._at(now + _RENEW_AGAIN)
        elif not request.awaited:
            assert request.room is not None
            if request.type == "join" and request.room in self.rooms:
                self._not_rejoined(request.room, fault, now)
        else:
            if request.type == "join" and request.room is not None:
                self._forget(request.room)
            self._settle(request.id, _rejection(fault))

    def _not_rejoined(self, room: str, fault: Fault, now: float) -> None:
        """A room that the client was in, and is not any more since the connection was lost."""
        waiting = [request for request in self._requests.values() if request.type == "join" and request.room == room]
        if waiting:
            for request in waiting:
                del self._requests[request.id]
                self._settle(request.id, _rejection(fault))
            self._forget(room)
        elif can_help(fault.code):
            _, tries = self._rejoins.get(room, (0.0, 0))
            after = delay(tries + 1, self._random(), fault.retry_after)
            self._rejoins[room] = (self._at(now + after), tries + 1)
        else:
            self._forget(room)
            self._tell("left", RoomLeft(room, fault.code))

    def _joined(self, joined: Joined, now: float) -> None:
        request = self._requests.get(joined.id) if joined.id is not None else None
        if joined.room in self.rooms:
            self._rejoins.pop(joined.room, None)
            channel = room_channel(joined.room)
            place = self._places[channel]
            self._holes.pop(channel, None)
            if place.position is None and self.rooms[joined.room]:
                place.start_with_first(joined.position)
            elif joined.recovered is not True or place.position is None:
                place.start(joined.position)
            else:
                place.held.clear()
            # The answer to `last` is no recovery: nothing was missed.
            asked = request is None or request.awaited
            if joined.recovered is False or (joined.recovered and place.position is not None and not asked):
                self._tell("recovered", Recovered(channel, joined.recovered))
        self._answer(joined.id, joined)

    def _left(self, left: wire.Left) -> None:
        if left.id is not None:
            self._answer(left.id, left)
        elif left.room in self.rooms:
            self._forget(left.room)
            self._tell("left", RoomLeft(left.room, left.code or ErrorCode.FORBIDDEN))

    # -------------------------------------------------------------------------------------------- time (3.4)

    def tick(self, now: float) -> None:
        """Do what is due."""
        if self._deadline is not None and now >= self._deadline:
            if self.state is State.WAITING:
                self._start(now)
            else:
                self._drop(CloseCode.NORMAL)
                self._back_off(now, Reason(int(CloseCode.ABNORMAL), "the server did not answer in time"))
        for message in self.outgoing:
            self._tick_message(message, now)
        if self.state is State.OPEN:
            self._tick_open(now)
        self._find_due()

    def _tick_message(self, message: Sent, now: float) -> None:
        if message.since is not None and now >= message.since + REMEMBERED:
            self._settle_sent(message, Unanswered("unknown"))
        elif self.state is not State.OPEN:
            return
        elif message.retry_due is not None and now >= message.retry_due:
            self._put_on_wire(message, now)
        elif message.answer_due is not None and now >= message.answer_due:
            self._retry(message, now, 0.0)

    def _tick_open(self, now: float) -> None:
        if now >= self._heard + _SILENCE or (self._probe_due is not None and now >= self._probe_due):
            self._drop(CloseCode.NO_PONG)
            self._lost(now, Reason(int(CloseCode.NO_PONG), "the server fell silent"))
            return
        if any(now >= hole for hole in self._holes.values()):
            self._drop(CloseCode.NORMAL)
            self._lost(now, Reason(int(CloseCode.NORMAL), "a message is missing"))
            return
        if self._steady_at is not None and now >= self._steady_at:
            self._steady_at = None
            self.attempt = 0
        for request in list(self._requests.values()):
            if request.due is not None and now >= request.due:
                del self._requests[request.id]
                if request.awaited:
                    self._settle(request.id, Unanswered("timeout"))
        for room, (when, tries) in list(self._rejoins.items()):
            if now >= when:
                # The number of tries stays, should this one be refused as well.
                self._rejoins[room] = (float("inf"), tries)
                self._join_again(room, now)
        if self._ack_at is not None and now >= self._ack_at:
            self._acknowledge(now)
        if self._renew_at is not None and now >= self._renew_at:
            self._renew_at = None
            self._actions.append(AskToken())

    def _find_due(self) -> None:
        times = [self._deadline, *(message.next_due for message in self.outgoing)]
        if self.state is State.OPEN:
            times += [self._heard + _SILENCE, self._probe_due, self._steady_at, self._ack_at, self._renew_at]
            times += [request.due for request in self._requests.values()]
            times += [when for when, _ in self._rejoins.values()]
            times += self._holes.values()
        self.due = min((time for time in times if time is not None), default=None)

    def _at(self, when: float) -> float:
        """Make sure that `tick` is called at this moment."""
        self.due = when if self.due is None else min(self.due, when)
        return when

    # ------------------------------------------------------------------------------- the surroundings (3.5)

    def network_changed(self, now: float, *, online: bool) -> None:
        """The system says that there is a network again, or none; it is a hint, not the truth."""
        if self.state is State.OPEN:
            # The connection may be on another network.
            self._write({"type": "ping"})
            if self._probe_due is None:
                self._probe_due = self._at(now + _PROBE_TIMEOUT)
        elif self.state is State.WAITING and online:
            self._start(now)

    # --------------------------------------------------------------------------------------- procedures (4)

    def _start(self, now: float) -> None:
        self._socket += 1
        self._fault = None
        self._deadline = self._at(now + CONNECT_TIMEOUT)
        self._enter(State.CONNECTING)
        self._actions.append(Connect(self._socket))

    def _back_off(self, now: float, reason: Reason, at_least: float | None = None) -> None:
        self._drop(CloseCode.NORMAL)
        self.attempt += 1
        if self.tries is not None and self.attempt >= self.tries:
            self._fail(Reason("unreachable", reason.message))
            return
        self._wait(now + delay(self.attempt, self._random(), at_least), reason)

    def _wait(self, until: float, reason: Reason) -> None:
        self.reason = reason
        self._deadline = self._at(until)
        self._enter(State.WAITING)

    def _lost(self, now: float, reason: Reason, at_least: float | None = None) -> None:
        self._let_go()
        self._back_off(now, reason, at_least)

    def _let_go(self) -> None:
        """What belonged to the session alone ends with it; `outgoing` stays."""
        self._fail_requests("disconnected")
        for id in sorted(self._volatile):
            self._settle(id, Unanswered("unknown"))
        self._volatile.clear()

    def _renew(self, now: float) -> None:
        reason = Reason("token_expired", "the token has expired")
        if not self._renews:
            self._fail(reason)
        elif self._renewed_at is None or now - self._renewed_at > _RENEW_AT_ONCE:
            self._renewed_at = now
            self._let_go()
            self._drop(CloseCode.NORMAL)
            self._wait(now, reason)
        else:
            self._lost(now, reason)

    def _fail(self, reason: Reason) -> None:
        self._let_go()
        self._drop(CloseCode.NORMAL)
        self.reason = reason
        self._enter(State.FAILED)

    def _drop(self, code: CloseCode) -> None:
        """Forget the socket, if there is one, and all that is timed by it."""
        if self.state in (State.CONNECTING, State.OPENING, State.OPEN) and self._socket:
            self._actions.append(Drop(self._socket, int(code)))
            # The next one gets another number; meanwhile whatever this one reports is ignored.
            self._socket += 1
        for place in self._places.values():
            place.held.clear()
        self._holes.clear()
        self._rejoins.clear()
        self._chunks = Chunks()
        self.outgoing.connection_lost()
        self._deadline = self._probe_due = self._steady_at = self._renew_at = self._ack_at = None

    def _enter(self, state: State) -> None:
        if state is self.state:
            return
        was, self.state = self.state, state
        told = state in (State.WAITING, State.FAILED)
        self._tell(
            "state",
            StateChange(
                state=state,
                was=was,
                attempt=self.attempt,
                retry_at=self._deadline if state is State.WAITING else None,
                reason=self.reason if told else None,
            ),
        )

    def _resume(self) -> dict[str, Any]:
        resume: dict[str, Any] = {}
        for channel in (INBOX, ALL):
            if (position := self.position(channel)) is not None:
                resume[channel] = position
        rooms = {}
        for room, last in self.rooms.items():
            position = self.position(room_channel(room))
            if position is not None or not last:
                rooms[room] = position
        if rooms:
            resume["rooms"] = rooms
            self._missing = set(rooms)
        return resume

    def _welcomed(self, welcome: wire.Welcome, now: float) -> None:
        self.user, self.session, self._limit = welcome.user, welcome.session, welcome.limits.message
        self.reason = None
        self._fault = None
        self._deadline = None
        self._steady_at = self._at(now + _STEADY)
        self._at(self._heard + _SILENCE)
        self._server_offset = welcome.time - now * 1000
        self._set_expiry(welcome.expires, now)
        self._enter(State.OPEN)
        positions, recovered = welcome.positions, welcome.recovered
        self._recovered(INBOX, positions.inbox, recovered.inbox)
        self._recovered(ALL, positions.all, recovered.all)
        for room, position in positions.rooms.items():
            self._missing.discard(room)
            if room in self.rooms:
                self._recovered(room_channel(room), position, recovered.rooms.get(room))
        # An `ack` that was under way when the last connection was lost may not have arrived.
        self._acked, self._unacked = 0, 0
        if recovered.inbox is not True:
            self._acked = positions.inbox.seq
        self._inbox_moved(0, now)
        self._catch_up(positions.rooms, recovered.rooms, now)
        for message in self.outgoing:
            self._put_on_wire(message, now)

    def _catch_up(self, positions: dict[str, Position], recovered: dict[str, bool | None], now: float) -> None:
        """What changed in `rooms` since `hello`, and the joins that `welcome` has answered."""
        asked = {request.room for request in self._requests.values() if request.type == "join"}
        for request in list(self._requests.values()):
            if request.type == "leave" and request.room in positions:
                self._ask(request.id, "leave", {"room": request.room}, now)
            elif request.type == "leave":
                assert request.room is not None
                self._answer(request.id, wire.Left(room=request.room, id=request.id))
            elif request.room in positions:
                assert request.room is not None
                position = positions[request.room]
                self._answer(request.id, Joined(request.room, position, recovered.get(request.room), 0, id=request.id))
            elif request.room not in self._missing:
                self._send_join(request, now)
        for room in self.rooms:
            if room not in positions and room not in self._missing and room not in asked:
                self._join_again(room, now)

    def _recovered(self, channel: str, position: Position, recovered: bool | None) -> None:
        if recovered is not True:
            self._places[channel].start(position)
        if recovered is not None:
            self._tell("recovered", Recovered(channel, recovered))

    def _send_join(self, request: _Request, now: float) -> None:
        assert request.room is not None
        fields: dict[str, Any] = {"room": request.room}
        position = self.position(room_channel(request.room))
        if position is not None:
            fields["since"] = position
        elif (last := self.rooms[request.room]) is not None:
            fields["last"] = last
        self._ask(request.id, "join", fields, now, awaited=request.awaited)

    def _join_again(self, room: str, now: float) -> None:
        self._send_join(_Request(id=self._new_id(), type="join", room=room, awaited=False), now)

    def _ask(self, id: str, type: str, fields: dict[str, Any], now: float, *, awaited: bool = True) -> None:
        due = self._at(now + _REQUEST_TIMEOUT)
        self._requests[id] = _Request(id=id, type=type, room=fields.get("room"), due=due, awaited=awaited)
        self._write({"type": type, **fields, "id": id})

    def _put_on_wire(self, message: Sent, now: float) -> None:
        if self._is_too_large(message.text):
            self._settle_sent(message, self._too_large())
            return
        self._actions.append(Write(message.text))
        self.outgoing.on_wire(message, now)
        assert message.answer_due is not None
        self._at(message.answer_due)

    def _retry(self, message: Sent, now: float, after: float | None) -> None:
        if message.retries == MOST_RETRIES:
            self._settle_sent(message, _rejection(message.fault) if message.fault else Unanswered("unknown"))
            return
        message.retries += 1
        message.answer_due = None
        wait = resend_delay(message.retries, self._random(), after)
        if wait:
            message.retry_due = self._at(now + wait)
        else:
            self._put_on_wire(message, now)

    def _receive(self, channel: str, item: Item, now: float) -> None:
        place = self._places[channel]
        ready = place.take(item)
        for found in ready:
            if found.message is not None:
                self._deliver(channel, found)
        if not place.held:
            self._holes.pop(channel, None)
        elif ready or channel not in self._holes:
            self._holes[channel] = self._at(now + _HOLE_TIMEOUT)
        if channel == INBOX:
            self._inbox_moved(0, now)
        if len(place.held) > HELD_LIMIT or self.pending > _MOST_PENDING:
            # Resuming brings what is missing, or what was too much at once.
            self._drop(CloseCode.NORMAL)
            self._lost(now, Reason(int(CloseCode.NORMAL), "messages come faster than they are handled"))

    def _deliver(self, channel: str, item: Item) -> None:
        self.pending += 1
        self._actions.append(Deliver(channel, item))

    def _inbox_moved(self, count: int, now: float) -> None:
        place = self._places[INBOX]
        if place.seq is None or place.seq <= self._acked or self.state is not State.OPEN or not self._acknowledges:
            return
        self._unacked += count
        if self._unacked >= _ACK_COUNT:
            self._acknowledge(now)
        elif self._ack_at is None:
            self._ack_at = self._at(now + _ACK_DELAY)

    def _acknowledge(self, now: float) -> None:
        place = self._places[INBOX]
        self._ack_at = None
        self._unacked = 0
        if self._acknowledges and place.seq is not None and place.seq > self._acked:
            self._acked = place.seq
            self._write({"type": "ack", "seq": place.seq})

    # ------------------------------------------------------------------------------------------ small things

    def _new_id(self) -> str:
        self._count += 1
        return f"{self._prefix}-{self._count}"

    @staticmethod
    def _channel_of(to: str | None, room: str | None) -> str:
        return room_channel(room) if room is not None else INBOX if to is not None else ALL

    def _set_expiry(self, expires: int | None, now: float) -> None:
        self._renew_at = None
        if expires is None or not self._renews:
            return
        life = (expires - self._server_offset) / 1000 - now
        self._renew_at = self._at(now + life - min(_RENEW_BEFORE, life / 5))

    def _is_too_large(self, text: str) -> bool:
        return len(text) > self._limit or len(text.encode()) > self._limit

    def _too_large(self) -> Reject:
        return Reject(ErrorCode.TOO_LARGE, f"the message is larger than the {self._limit} bytes that the server takes")

    def _forget(self, room: str) -> None:
        self.rooms.pop(room, None)
        self._rejoins.pop(room, None)
        self._places.pop(room_channel(room), None)
        self._holes.pop(room_channel(room), None)

    def _answer(self, id: str | None, answer: Any) -> None:
        request = self._requests.pop(id, None) if id is not None else None
        if request is not None and request.awaited:
            self._settle(request.id, answer)

    def _fail_requests(self, code: str) -> None:
        for request in self._requests.values():
            if request.awaited:
                self._settle(request.id, Unanswered(code))
        self._requests.clear()

    def _settle_sent(self, message: Sent, outcome: Any) -> None:
        self.outgoing.remove(message)
        self._settle(message.id, outcome)

    def _settle(self, id: str, outcome: Any) -> None:
        self._actions.append(Settle(id, outcome))

    def _tell(self, name: EventName, event: Event) -> None:
        self._actions.append(Tell(name, event))

    def _write(self, envelope: dict[str, Any]) -> None:
        self._actions.append(Write(wire.encode(envelope)))


def _rejection(fault: Fault) -> Reject:
    return Reject(fault.code, fault.message, retry_after=fault.retry_after, where=fault.where)
