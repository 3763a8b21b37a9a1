"""Plays with a machine: a clock to turn, a server to speak for, and a short notation for what the machine does."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from hubbub.client.events import (
    Action,
    AskToken,
    Connect,
    Deliver,
    Drop,
    Settle,
    State,
    Tell,
    Unanswered,
    Write,
)
from hubbub.client.machine import Machine
from hubbub.client.places import Item
from hubbub.client.wire import Ack
from hubbub.errors import Reject

__all__ = ["Player"]


class Player:
    """One machine and everything around it; chance is always 1, so that delays are their bounds."""

    def __init__(self, *, renews: bool = True, chance: float = 1.0) -> None:
        self.now = 1_000.0
        self.chance = chance
        self.machine = Machine("x", lambda: self.chance, renews=renews)

        # The newest socket's number, and what was written on it.
        self.socket = 0
        self.written: list[dict[str, Any]] = []

        # Handed out and not handled yet: channel and item.
        self.out: list[tuple[str, Item]] = []
        self.outcomes: dict[str, Any] = {}
        self.told: list[tuple[str, Any]] = []

    # ------------------------------------------------------------------------------------------- what it does

    def did(self) -> list[str]:
        """What the machine did since the last call, in short words."""
        words = [self._note(action) for action in self.machine.actions()]
        # A change of state is looked at by itself.
        return [word for word in words if word != "tell state"]

    def _note(self, action: Action) -> str:
        match action:
            case Connect(socket):
                self.socket = socket
                return "connect"
            case Write(text):
                envelope = json.loads(text)
                self.written.append(envelope)
                details = [str(envelope[key]) for key in ("id", "room", "seq") if key in envelope]
                return _nameless(" ".join(["write", envelope["type"], *details]))
            case Drop(_, code):
                return f"drop {code}"
            case AskToken():
                return "ask token"
            case Deliver(channel, item):
                self.out.append((channel, item))
                return f"deliver {item.seq or item.message.type}"
            case Settle(id, outcome):
                self.outcomes[id] = outcome
                return _nameless(f"settle {id} {_short(outcome)}")
            case Tell(name, event):
                self.told.append((name, event))
                return f"tell {name}"

    # -------------------------------------------------------------------------------------- what happens to it

    def later(self, seconds: float) -> None:
        """Let time pass, calling `tick` at every moment that the machine asks for."""
        until = self.now + seconds
        last = float("-inf")
        while (due := self.machine.due) is not None and due <= until:
            assert due > last, "the machine spins"
            self.now = max(self.now, due)
            self.machine.tick(self.now)
            last = due
        self.now = until

    def silent(self, seconds: float) -> list[str]:
        """Let time pass and return what the machine did."""
        self.later(seconds)
        return self.did()

    def hear(self, type: str, **fields: Any) -> None:
        """The server says something."""
        envelope = {"type": type, **{key.rstrip("_"): value for key, value in fields.items()}}
        self.machine.received(self.socket, json.dumps(envelope), self.now)

    def chat(self, seq: int, room: str | None = "lobby", **fields: Any) -> None:
        """A publication comes, by default in the lobby."""
        where = {} if room is None else {"room": room}
        self.hear("chat", from_="bob", content=seq, seq=seq, time=1, **where, **fields)

    def handle(self) -> list[Any]:
        """Handle all that was handed out; returns the contents, in order."""
        out, self.out = self.out, []
        for channel, item in out:
            self.machine.handled(channel, item, self.now)
        return [item.message.content for _, item in out]

    def send(self, type: str = "chat", **envelope: Any) -> str:
        """Send a message, to the lobby where nothing else is said."""
        if not envelope.keys() & {"to", "room"}:
            envelope["room"] = "lobby"
        return self.machine.send({"type": type, **envelope}, self.now)

    def welcome(
        self,
        *,
        inbox: tuple[str, int] = ("k3", 17),
        all: tuple[str, int] = ("k1", 9),
        rooms: dict[str, tuple[str, int]] | None = None,
        recovered: dict[str, Any] | None = None,
        **fields: Any,
    ) -> None:
        """The server opens the session."""
        positions = {"inbox": inbox, "all": all, "rooms": rooms or {}}
        named = {"inbox": None, "all": None, "rooms": dict.fromkeys(rooms or {}), **(recovered or {})}
        self.hear("welcome", session="s-1", user="alice", time=5_000, ping=25_000, limits={"message": 65_536},
                  positions=positions, recovered=named, **fields)  # fmt: skip

    # ------------------------------------------------------------------------------------------ ways to a state

    def to(self, state: State, before: Callable[[Player], object] | None = None) -> Player:
        """Bring it into a state; returns itself.

        Except for `idle` it has been open and in the lobby at 41, and `before` has happened there.
        """
        if state is State.IDLE:
            return self
        self.machine.open(self.now)
        self.did()
        self.machine.opened(self.socket, self.now, "t0")
        self.welcome()
        id = self.machine.join("lobby", self.now)
        self.hear("joined", room="lobby", position=["p9", 41], recovered=None, count=1, members=[], id=id)
        if before is not None:
            before(self)
        self.did()
        match state:
            case State.CLOSED:
                self.machine.close()
            case State.FAILED:
                self.machine.closed(self.socket, 4504, "", self.now)
            case State.WAITING | State.CONNECTING | State.OPENING:
                self.hear("goodbye", code=1012, reason="server restart", retry_after=300)
        if state in (State.CONNECTING, State.OPENING):
            self.machine.open(self.now)
            self.did()
        if state is State.OPENING:
            self.machine.opened(self.socket, self.now, "t1")
        self.did()
        self.told.clear()
        self.written.clear()

        assert self.is_in(state)
        return self

    def again(self, **welcome: Any) -> None:
        """From `waiting` to `open`, in the lobby unless `welcome` says otherwise."""
        welcome = {
            "rooms": {"lobby": ("p9", 41)},
            "recovered": {"inbox": True, "all": True, "rooms": {"lobby": True}},
            **welcome,
        }
        self.machine.open(self.now)
        self.did()
        self.machine.opened(self.socket, self.now, "t1")
        self.welcome(**welcome)

        assert self.is_in(State.OPEN)

    def is_in(self, state: State) -> bool:
        """Whether that is its state now."""
        return self.machine.state is state

    @property
    def resume(self) -> dict[str, Any]:
        """The `resume` of the last `hello`."""
        hello = next(envelope for envelope in reversed(self.written) if envelope["type"] == "hello")
        resume: dict[str, Any] = hello.get("resume", {})
        return resume


def _short(outcome: object) -> str:
    if isinstance(outcome, Ack):
        return "accepted"
    if isinstance(outcome, Reject):
        return f"refused:{outcome.code}"
    if isinstance(outcome, Unanswered):
        return outcome.code
    return type(outcome).__name__.lower()


def _nameless(words: str) -> str:
    """Ids that the machine made look alike."""
    return re.sub(r"\bx-\d+", "x", words)
