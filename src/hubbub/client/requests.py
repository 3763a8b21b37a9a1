"""The questions that wait for an answer, and the rooms that the client wants to be in."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Final

from msgspec import Struct

from hubbub.client import wire
from hubbub.client.agenda import Agenda
from hubbub.client.events import RoomLeft, Unanswered
from hubbub.client.line import Line
from hubbub.client.receiving import Receiving
from hubbub.client.retry import can_help, delay
from hubbub.client.sending import rejection
from hubbub.protocol.codes import ErrorCode
from hubbub.protocol.envelope import Fault, Joined
from hubbub.types import Position, room_channel

__all__ = ["Request", "Requests", "Rooms"]

_TIMEOUT: Final = 10.0
# Seconds for one to be asked, where the server holds it up.
_PATIENCE: Final = 60.0
_MOST_REQUESTS: Final = 100
_MOST_ROOMS: Final = 100


class Request(Struct, kw_only=True, eq=False):
    """A question without an answer yet."""

    id: str
    type: str
    room: str | None = None
    # When to give up; None: there is no session yet.
    due: float | None = None
    # Why it was held up, where it was.
    fault: Fault | None = None
    # Whether somebody waits for the answer, or the machine asked for itself.
    awaited: bool = True


class Requests:
    """Questions without an answer, by id."""

    def __init__(self, agenda: Agenda, line: Line) -> None:
        self._agenda = agenda
        self._line = line
        self._waiting: dict[str, Request] = {}

    @property
    def full(self) -> bool:
        """Whether no more may wait."""
        return len(self._waiting) >= _MOST_REQUESTS

    def of_type(self, type: str, room: str | None = None) -> list[Request]:
        """Those of one type, perhaps of one room."""
        return [request for request in self._waiting.values() if request.type == type and room in (None, request.room)]

    def add(self, request: Request) -> None:
        """One that cannot be asked yet."""
        self._waiting[request.id] = request

    def ask(self, request: Request, fields: dict[str, Any], now: float) -> None:
        """Put it on the wire when it is its turn."""
        request.due = self._agenda.at(now + _PATIENCE)
        self._waiting[request.id] = request
        envelope = {"type": request.type, **fields, "id": request.id}
        self._line.add(request.id, request.type, partial(self._put_on_wire, request, envelope), now)

    def _put_on_wire(self, request: Request, envelope: dict[str, Any], now: float) -> None:
        request.due = self._agenda.at(now + _TIMEOUT)
        self._agenda.write(envelope)

    def hold_back(self, fault: Fault, now: float) -> bool:
        """The server takes no more for now; whether it was about one of these, which is asked again."""
        request = self._waiting.get(fault.id) if fault.id is not None else None
        if request is None or not self._line.refuse(request.id, request.type, fault.retry_after, now):
            return False
        request.fault = fault
        request.due = self._agenda.at(now + _PATIENCE)
        return True

    def take(self, id: str | None) -> Request | None:
        """The one with this id, which has its answer now."""
        request = self._waiting.pop(id, None) if id is not None else None
        if request is not None:
            self._line.remove(request.id)
        return request

    def settle(self, request: Request, outcome: Any) -> None:
        """Answer one."""
        self._waiting.pop(request.id, None)
        self._line.remove(request.id)
        if request.awaited:
            self._agenda.settle(request.id, outcome)

    def fail(self) -> None:
        """The connection that they were asked on is gone."""
        for request in list(self._waiting.values()):
            self.settle(request, Unanswered("disconnected"))

    def expired(self, now: float) -> list[Request]:
        """Those that have waited for too long; they are settled."""
        late = [request for request in self._waiting.values() if request.due is not None and now >= request.due]
        for request in late:
            self.settle(request, Unanswered("timeout") if request.fault is None else rejection(request.fault))
        return late

    def dues(self) -> Iterator[float | None]:
        """When something is to be done."""
        for request in self._waiting.values():
            yield request.due


class Rooms:
    """The rooms to be in, through every reconnection."""

    def __init__(self, agenda: Agenda, requests: Requests, receiving: Receiving) -> None:
        # By name, with how many old messages were asked for.
        self.wanted: dict[str, int | None] = {}

        self._agenda = agenda
        self._requests = requests
        self._receiving = receiving

        # Named in `hello` and not in `welcome`: an `error` for each follows.
        self._missing: set[str] = set()

        # Not joined again, but that may change: when to try, and how often it was tried.
        self._rejoins: dict[str, tuple[float, int]] = {}

    def join(self, room: str, last: int | None, now: float, *, connected: bool) -> str:
        """Want to be in a room; returns the id under which it is answered."""
        id = self._agenda.new_id()
        if self._requests.full or (room not in self.wanted and len(self.wanted) >= _MOST_ROOMS):
            self._agenda.settle(id, Unanswered("too_many"))
            return id
        self.wanted[room] = last
        self._rejoins.pop(room, None)
        self._receiving.follow(room)
        request = Request(id=id, type="join", room=room)
        if connected:
            self._ask_join(request, room, now)
        else:
            self._requests.add(request)
        return id

    def leave(self, room: str, now: float, *, connected: bool, opening: bool) -> str:
        """Want to be in a room no longer; returns the id under which it is answered."""
        id = self._agenda.new_id()
        self._forget(room)
        request = Request(id=id, type="leave", room=room)
        if connected:
            self._requests.ask(request, {"room": room}, now)
        elif opening:
            # `hello` may have named it: known when `welcome` comes.
            self._requests.add(request)
        else:
            self._agenda.settle(id, wire.Left(room=room, id=id))
        return id

    def resume(self) -> dict[str, Position | None]:
        """What `hello` says of rooms; one that begins with old messages is joined after `welcome`."""
        named = {}
        for room, last in self.wanted.items():
            position = self._receiving.position(room_channel(room))
            if position is not None or not last:
                named[room] = position
        self._missing = set(named)
        return named

    def welcomed(self, positions: dict[str, Position], recovered: dict[str, bool | None], now: float) -> None:
        """There is a session, in the rooms of `positions`."""
        self._missing -= positions.keys()
        for room, position in positions.items():
            if room in self.wanted:
                self._receiving.recovered(room_channel(room), position, recovered.get(room))
        for request in self._requests.of_type("leave"):
            assert request.room is not None
            if request.room in positions:
                self._requests.ask(request, {"room": request.room}, now)
            else:
                self._requests.settle(request, wire.Left(room=request.room, id=request.id))
        for request in self._requests.of_type("join"):
            if request.room in positions:
                answer = Joined(request.room, positions[request.room], recovered.get(request.room), 0, id=request.id)
                self._requests.settle(request, answer)
            elif request.room is not None and request.room not in self._missing:
                self._ask_join(request, request.room, now)
        for room in self.wanted:
            if room not in positions and room not in self._missing and not self._requests.of_type("join", room):
                self._join_again(room, now)

    def joined(self, joined: Joined) -> None:
        """The answer to a `join`."""
        self._rejoins.pop(joined.room, None)
        if joined.room in self.wanted:
            self._receiving.joined(joined, self.wanted[joined.room])

    def left(self, left: wire.Left) -> None:
        """The server took the client out of a room."""
        if left.room in self.wanted:
            self._forget(left.room)
            self._agenda.tell("left", RoomLeft(left.room, left.code or ErrorCode.FORBIDDEN))

    def refused(self, request: Request, fault: Fault, now: float) -> None:
        """An `error` answers a request."""
        if request.type == "join" and request.room in self.wanted:
            assert request.room is not None
            if not request.awaited:
                self._not_rejoined(request.room, fault, now)
                return
            self._forget(request.room)
        self._requests.settle(request, rejection(fault))

    def not_resumed(self, fault: Fault, now: float) -> bool:
        """An `error` without a request; whether it is about a room that `hello` named."""
        if fault.room is None or fault.room not in self._missing:
            return False
        self._missing.discard(fault.room)
        waiting = self._requests.of_type("join", fault.room)
        for request in waiting:
            self._requests.settle(request, rejection(fault))
        if waiting:
            self._forget(fault.room)
        elif fault.room in self.wanted:
            self._not_rejoined(fault.room, fault, now)
        return True

    def _not_rejoined(self, room: str, fault: Fault, now: float) -> None:
        if can_help(fault.code):
            self._join_later(room, fault.retry_after, now)
        else:
            self._forget(room)
            self._agenda.tell("left", RoomLeft(room, fault.code))

    def _join_later(self, room: str, at_least: float | None, now: float) -> None:
        tries = self._rejoins.get(room, (0.0, 0))[1] + 1
        self._rejoins[room] = (self._agenda.at(now + delay(tries, self._agenda.random(), at_least)), tries)

    def tick(self, now: float) -> None:
        """Do what is due."""
        for request in self._requests.expired(now):
            if request.type == "join" and not request.awaited and request.room in self.wanted:
                self._join_later(request.room, None, now)
        for room, (when, tries) in list(self._rejoins.items()):
            if now >= when:
                # The number stays, should this try be refused as well.
                self._rejoins[room] = (float("inf"), tries)
                self._join_again(room, now)

    def disconnected(self) -> None:
        """The next `hello` names them all."""
        self._rejoins.clear()
        self._missing.clear()

    def dues(self) -> Iterator[float | None]:
        """When something is to be done."""
        for when, _ in self._rejoins.values():
            yield when

    def _ask_join(self, request: Request, room: str, now: float) -> None:
        fields: dict[str, Any] = {"room": room}
        position = self._receiving.position(room_channel(room))
        if position is not None:
            fields["since"] = position
        elif self.wanted[room] is not None:
            fields["last"] = self.wanted[room]
        self._requests.ask(request, fields, now)

    def _join_again(self, room: str, now: float) -> None:
        self._ask_join(Request(id=self._agenda.new_id(), type="join", room=room, awaited=False), room, now)

    def _forget(self, room: str) -> None:
        self.wanted.pop(room, None)
        self._rejoins.pop(room, None)
        self._receiving.forget(room)
