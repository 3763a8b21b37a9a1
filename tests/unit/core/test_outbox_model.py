"""Whatever happens to a connection, its reader sees each channel in order, and every hole is named once."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hubbub.core.outbox import OutboxLimits, Overflow
from hubbub.types import Publication, room_channel
from unit.core.wire import Wire

ROOMS = ["lobby", "den"]
LIMITS = OutboxLimits(outbox_messages=5, outbox_bytes=1024)


class OutboxMachine(RuleBasedStateMachine):
    """Publications, answers, partial sends and blocked sockets in any order, under any policy."""

    def __init__(self) -> None:
        super().__init__()
        self.wire = Wire(LIMITS)

        # By room: the seqs that this reader must see, as messages or as what stands for them, and the log's end.
        self.published: dict[str, list[int]] = {room: [] for room in ROOMS}
        self.ends: dict[str, int] = dict.fromkeys(ROOMS, 0)
        self.policies: dict[str, Overflow] = {}
        self.volatile = 0
        self.stand_ins = 0
        self.answers = 0

    @initialize(policies=st.tuples(st.sampled_from(Overflow), st.sampled_from(Overflow)))
    def choose_policies(self, policies: tuple[Overflow, Overflow]) -> None:
        self.policies = dict(zip(ROOMS, policies, strict=True))

    @rule(
        room=st.sampled_from(ROOMS),
        type=st.sampled_from(["chat", "cursor"]),
        sender=st.sampled_from(["bob", "carol"]),
        jump=st.sampled_from([1, 1, 1, 1, 5]),
        padding=st.sampled_from([0, 0, 0, 300, 1200]),
        sent=st.sampled_from([True, True, True, True, False]),
    )
    def publish(self, room: str, type: str, sender: str, jump: int, padding: int, sent: bool) -> None:
        """`sent` false: the reader's own message without an echo, for which its `ack` stands."""
        before = self.ends[room]
        seq = self.ends[room] = before + jump
        self.published[room].append(seq)
        if not sent:
            self.stand_ins += 1
            ack = msgspec.json.encode({"type": "ack", "room": room, "seq": seq}) + b"\n"
            self.wire.put(ack, room_channel(room), seq)
            return
        publication = Publication(type, sender, room=room, seq=seq, prev=None if jump == 1 else before)
        if padding:
            publication.content = msgspec.Raw(msgspec.json.encode("x" * padding))
        self.wire.publish(publication, room_channel(room), self.policies[room])

    @rule(room=st.sampled_from(ROOMS))
    def publish_volatile(self, room: str) -> None:
        self.volatile += 1
        self.wire.publish(Publication("volatile", "bob", room=room), room_channel(room), self.policies[room])

    @rule()
    def answer(self) -> None:
        self.answers += 1
        self.wire.put(msgspec.json.encode({"type": "answer", "number": self.answers}) + b"\n")

    @rule()
    def end_turn(self) -> None:
        self.wire.turn.flush()

    @rule(room=st.integers(0, 200))
    def fill_the_socket(self, room: int) -> None:
        """From now on the kernel takes so many bytes more."""
        if not self.wire.socket.buffer:
            self.wire.socket.room = room

    @precondition(lambda self: not self.wire.outbox.blocked)
    @rule()
    def block(self) -> None:
        self.wire.block()

    @rule(room=st.none() | st.integers(0, 300))
    def drain(self, room: int | None) -> None:
        """The transport's bytes leave; the kernel then takes `room` more, or as many as there are."""
        socket = self.wire.socket
        socket.arrived, socket.buffer, socket.room = socket.arrived + socket.buffer, b"", room
        socket.outbox.unblock()

    @invariant()
    def the_bounds_hold(self) -> None:
        statistics = self.wire.outbox.statistics()

        assert statistics.held <= LIMITS.outbox_messages
        assert statistics.held_bytes <= LIMITS.outbox_bytes

    @invariant()
    def an_overflow_ends_the_session_once(self) -> None:
        assert self.wire.turn.full == ([self.wire.outbox] if self.wire.outbox.closed else [])

    @invariant()
    def what_arrived_is_in_order(self) -> None:
        for room in ROOMS:
            self.check_order(room, self.arrived())

    def teardown(self) -> None:
        """At the end everything leaves: now nothing may be missing that no gap names."""
        self.wire.turn.flush()
        self.wire.socket.drain()
        if self.wire.outbox.closed:
            return
        arrived = self.arrived()
        for room in ROOMS:
            seen, covered = self.check_order(room, arrived)

            assert sorted(seen + covered) == self.published[room]
        answers = [message["number"] for message in arrived if message["type"] == "answer"]
        dropped = self.wire.outbox.statistics().dropped
        came = sum(1 for message in arrived if "seq" in message or message["type"] == "volatile")

        acks = sum(1 for message in arrived if message["type"] == "ack")

        assert acks == self.stand_ins
        assert answers == list(range(1, self.answers + 1))
        assert came + dropped == self.volatile + sum(map(len, self.published.values()))

    def arrived(self) -> list[dict[str, Any]]:
        """The whole messages that the reader has."""
        return [msgspec.json.decode(line) for line in self.wire.socket.arrived.split(b"\n")[:-1]]

    def before(self, room: str, later: int) -> int:
        """The seq that was published before this one."""
        return max((seq for seq in self.published[room] if seq < later), default=0)

    def check_order(self, room: str, arrived: list[dict[str, Any]]) -> tuple[list[int], list[int]]:
        """Seqs only go up, over gaps too; a gap begins behind what came before it, and ends with what was dropped."""
        position = 0
        seen: list[int] = []
        covered: list[int] = []
        for message in arrived:
            if message.get("room") != room or message["type"] == "volatile":
                continue
            is_gap = message["type"] == "gap"
            first, last = (message["from"], message["to"]) if is_gap else (message["seq"], message["seq"])

            assert position < first <= last
            inside = [seq for seq in self.published[room] if first <= seq <= last]

            assert inside
            assert inside[-1] == last
            assert first == (self.before(room, inside[0]) + 1 if is_gap else inside[0])
            skipped = [seq for seq in self.published[room] if position < seq < first]

            assert not skipped, "a hole that no gap names"
            position = last
            (covered if is_gap else seen).extend(inside)
        return seen, covered


TestOutbox = OutboxMachine.TestCase
TestOutbox.settings = settings(max_examples=150, stateful_step_count=40)
