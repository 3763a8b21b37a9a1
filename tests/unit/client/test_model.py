"""Over a network that is cut anywhere, each message is accepted once and handed out once, in order.

A machine against a small server that keeps the promises of protocol.md: one room, its log, and what it
remembers of ids. Hypothesis plays the network, the clock and everybody's patience.
"""

from __future__ import annotations

import json
from collections import deque
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from hubbub.client.events import State, Unanswered
from hubbub.client.wire import Ack
from unit.client.player import Player


class Hub:
    """The server's side: a log, and the session of one client."""

    def __init__(self) -> None:
        self.log: list[dict[str, Any]] = []
        self.accepted: dict[str, dict[str, Any]] = {}
        # What it has written to its session, in order; None: no session.
        self.written: deque[dict[str, Any]] | None = None
        self.in_room = False

    def publish(self, envelope: dict[str, Any]) -> int:
        publication = {**envelope, "seq": len(self.log) + 1, "time": 1}
        self.log.append(publication)
        return len(self.log)

    def read(self, envelope: dict[str, Any]) -> None:
        """Handle a message of the session."""
        assert self.written is not None
        match envelope["type"]:
            case "hello":
                since = envelope.get("resume", {}).get("rooms", {}).get("lobby")
                self.in_room = "lobby" in envelope.get("resume", {}).get("rooms", {})
                self.written.append(self._welcome(since))
                self._catch_up(since)
            case "join":
                self.in_room = True
                since = envelope.get("since")
                joined = {"type": "joined", "room": "lobby", "position": ["p9", len(self.log)], "count": 1}
                self.written.append({**joined, "recovered": True if since else None, "id": envelope["id"]})
                self._catch_up(since)
            case "chat":
                self._chat(envelope)

    def _welcome(self, since: list[Any] | None) -> dict[str, Any]:
        end = ["p9", len(self.log)]
        rooms = {"lobby": end} if self.in_room else {}
        positions = {"inbox": ["k3", 0], "all": ["k1", 0], "rooms": rooms}
        recovered = {"inbox": None, "all": None, "rooms": dict.fromkeys(rooms, True if since else None)}
        fixed = {"session": "s", "user": "alice", "time": 1, "ping": 25_000, "limits": {"message": 65_536}}
        return {"type": "welcome", **fixed, "positions": positions, "recovered": recovered}

    def _catch_up(self, since: list[Any] | None) -> None:
        if since is not None and self.written is not None:
            self.written.extend(self.log[since[1] :])

    def _chat(self, envelope: dict[str, Any]) -> None:
        assert self.written is not None
        where = {"room": "lobby", "epoch": "p9"}
        before = self.accepted.get(envelope["id"])
        if before is not None:
            self.written.append({**before, "duplicate": True})
            return
        if not self.in_room:
            self.written.append({"type": "error", "code": "internal", "message": "", "id": envelope["id"]})
            return
        echo = envelope.pop("echo", True)
        seq = self.publish({**envelope, "from": "alice"})
        ack = {"type": "ack", "id": envelope["id"], **where, "seq": seq}
        self.accepted[envelope["id"]] = ack
        if echo:
            self.written.append(self.log[-1])
        self.written.append(ack)


class Network(RuleBasedStateMachine):
    """One client, one server, and everything that can go wrong between them."""

    def __init__(self) -> None:
        super().__init__()
        self.hub = Hub()
        self.player = Player()
        self.sent: dict[str, bool] = {}
        self.handled: list[Any] = []
        # Written by the client and not yet read by the server.
        self.under_way: deque[dict[str, Any]] = deque()
        self.dialled = False
        self.player.machine.join("lobby", self.player.now)
        self.player.machine.open(self.player.now)
        self.look()

    def look(self) -> None:
        """Carry what the client did to where it goes."""
        for words in self.player.did():
            if words == "connect":
                self.dialled = True
            elif words.startswith("drop"):
                self.hub.written = None
                self.under_way.clear()
                self.dialled = False
        if self.hub.written is not None:
            self.under_way.extend(self.player.written)
        self.player.written.clear()

    @rule(echo=st.booleans())
    def send(self, echo: bool) -> None:
        content = f"own {len(self.sent)}"
        id = self.player.send(content=content, echo=echo)
        self.sent[id] = echo
        self.look()

    @rule()
    def somebody_else_speaks(self) -> None:
        seq = self.hub.publish({"type": "chat", "from": "bob", "room": "lobby", "content": len(self.hub.log)})
        if self.hub.written is not None and self.hub.in_room:
            self.hub.written.append(self.hub.log[seq - 1])

    @precondition(lambda self: self.dialled)
    @rule(works=st.booleans())
    def dial(self, works: bool) -> None:
        self.dialled = False
        if works:
            self.hub.written = deque()
            self.hub.in_room = False
            self.player.machine.opened(self.player.socket, self.player.now)
        else:
            self.player.machine.broken(self.player.socket, "refused", self.player.now)
        self.look()

    @precondition(lambda self: self.under_way)
    @rule(count=st.integers(1, 5))
    def server_reads(self, count: int) -> None:
        for _ in range(min(count, len(self.under_way))):
            self.hub.read(self.under_way.popleft())

    @precondition(lambda self: self.hub.written)
    @rule(count=st.integers(1, 5))
    def client_reads(self, count: int) -> None:
        for _ in range(count):
            if self.hub.written:
                text = json.dumps(self.hub.written.popleft())
                self.player.machine.received(self.player.socket, text, self.player.now)
                self.look()

    @precondition(lambda self: self.hub.written is not None)
    @rule()
    def cut(self) -> None:
        self.player.machine.broken(self.player.socket, "cut", self.player.now)
        self.look()

    @precondition(lambda self: self.player.out)
    @rule(count=st.integers(1, 3))
    def handle(self, count: int) -> None:
        for _ in range(min(count, len(self.player.out))):
            channel, item = self.player.out.pop(0)
            self.handled.append(item.message.seq)
            self.player.machine.handled(channel, item, self.player.now)
        self.look()

    @rule(seconds=st.sampled_from([0.3, 1, 4, 11]))
    def time_passes(self, seconds: float) -> None:
        self.player.later(seconds)
        self.look()

    def teardown(self) -> None:
        """The network heals; then the promises are looked at."""
        for _ in range(60):
            if self.dialled:
                self.dial(True)
            self.server_reads(len(self.under_way))
            self.client_reads(len(self.hub.written or ()))
            self.handle(len(self.player.out))
            self.player.later(1)
            self.look()
            if self.hub.written is not None:
                self.hub.written.append({"type": "ping"})

        assert self.player.is_in(State.OPEN)
        assert self.player.machine.unsettled == 0
        self.check_outcomes()
        self.check_what_was_handled()

    def check_outcomes(self) -> None:
        counts = {id: sum(entry.get("id") == id for entry in self.hub.log) for id in self.sent}
        for id, count in counts.items():
            outcome = self.player.outcomes[id]
            if isinstance(outcome, Ack):
                assert count == 1
                assert outcome.seq is not None
                assert self.hub.log[outcome.seq - 1]["id"] == id
            elif isinstance(outcome, Unanswered) and outcome.code == "dropped":
                assert count == 0
            else:
                assert count <= 1

    def check_what_was_handled(self) -> None:
        """From where the client first came in, everything but what it did not want to hear from itself."""
        first = self.handled[0] if self.handled else len(self.hub.log) + 1
        unheard = {id for id, echo in self.sent.items() if not echo}
        expected = [entry["seq"] for entry in self.hub.log[first - 1 :] if entry.get("id") not in unheard]

        assert self.handled == sorted(set(self.handled))
        assert set(expected) <= set(self.handled)
        position = self.player.machine.position("room:lobby")
        assert position is not None
        # Where an ack without echo came after its sender had given up, the position is before that message.
        assert all(entry.get("id") in unheard for entry in self.hub.log[position.seq :])


TestNetwork = Network.TestCase
TestNetwork.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
