"""What waits for one connection: one write per turn, bounds behind a blocked socket, nothing dropped in silence."""

from __future__ import annotations

import pytest

from hubbub.core.outbox import Outbox, OutboxLimits, OutboxStatistics, Overflow, Turn
from hubbub.types import ALL, Publication, inbox_channel, room_channel
from unit.core.wire import Lines, Socket, Wire, a_publication

DROPPING = [Overflow.DROP_OLDEST, Overflow.DROP_NEWEST, Overflow.LATEST]


def a_wire(messages: int = 256, size: int = 1_048_576, overflow: Overflow = Overflow.DISCONNECT) -> Wire:
    return Wire(OutboxLimits(outbox_messages=messages, outbox_bytes=size, overflow=overflow))


def a_blocked_wire(messages: int = 256, size: int = 1_048_576, overflow: Overflow = Overflow.DISCONNECT) -> Wire:
    wire = a_wire(messages, size, overflow)
    wire.block()
    return wire


class TestTurn:
    """Messages of one turn of the event loop leave together, except that the first of a quiet time is not kept."""

    def test_the_first_message_of_a_quiet_turn_goes_at_once(self) -> None:
        wire = a_wire()

        assert wire.put(b"one") is True
        assert wire.socket.sends == [b"one"]

    def test_the_rest_of_a_turn_is_one_write_at_its_end(self) -> None:
        wire = a_wire()
        for frame in (b"one", b"two", b"three"):
            wire.put(frame)
        before = list(wire.socket.sends)
        wire.turn.flush()

        assert before == [b"one"]
        assert wire.socket.sends == [b"one", b"twothree"]

    def test_after_a_busy_turn_even_the_first_message_waits(self) -> None:
        """Company is likely: the whole turn becomes one write."""
        wire = a_wire()
        for _ in range(2):
            for frame in (b"one", b"two"):
                wire.put(frame)
            wire.turn.flush()

        assert wire.socket.sends == [b"one", b"two", b"onetwo"]

    def test_after_a_turn_with_one_message_it_is_quiet_again(self) -> None:
        wire = a_wire()
        for frames in ((b"one", b"two"), (b"three",), (b"four",)):
            for frame in frames:
                wire.put(frame)
            wire.turn.flush()
        wire.put(b"five")

        assert wire.socket.sends == [b"one", b"two", b"three", b"four", b"five"]

    def test_one_message_to_many_is_no_busy_turn(self) -> None:
        """What is busy is a connection: ten that got one message each get their next one at once."""
        turn = Turn(lambda: None)
        wires = [Wire() for _ in range(10)]
        outboxes = [Outbox("alice", wire.socket, wire.format, turn, wire.limits) for wire in wires]
        for frame in (b"one", b"two"):
            turn.begin()
            turn.collect(len(frame))
            for outbox in outboxes:
                outbox.put(frame)
            if frame == b"one":
                turn.flush()

        assert [wire.socket.sends for wire in wires] == [[b"one", b"two"]] * 10

    def test_a_turn_is_opened_once(self) -> None:
        """Its end is one callback, however much is put in it; the next turn has its own."""
        wire = a_wire()
        for _ in range(3):
            wire.put(b"one")
        in_first = wire.opened
        wire.turn.flush()
        wire.put(b"two")

        assert in_first == 1
        assert wire.opened == 2

    def test_a_turn_that_collects_too_much_is_flushed_early(self) -> None:
        """A burst cannot pile up without bound: what does not fit writes what is there, and begins anew."""
        wire = a_wire()
        wire.turn.limit = 10
        for frame in (b"1", b"22222", b"3333", b"4"):
            wire.put(frame)
        early = list(wire.socket.sends)
        wire.turn.flush()

        assert early == [b"1", b"222223333"]
        assert wire.socket.sends == [b"1", b"222223333", b"4"]

    def test_what_flushed_a_turn_early_counts_for_the_rest_of_it(self) -> None:
        wire = a_wire()
        wire.turn.limit = 10
        for frame in (b"1", b"2222222222", b"333333333", b"44"):
            wire.put(frame)

        assert wire.socket.sends == [b"1", b"2222222222", b"333333333"]

    def test_an_outbox_with_nothing_to_write_is_left_alone(self) -> None:
        wire = a_wire()
        wire.put(b"one")
        wire.turn.flush()
        wire.turn.flush()
        wire.outbox.flush()

        assert wire.socket.sends == [b"one"]


class TestSocket:
    """What the kernel does not take goes to the transport, in order, whatever the kernel says."""

    def test_the_rest_of_a_partial_send_is_written_behind_it(self) -> None:
        wire = a_wire()
        wire.socket.room = 2
        wire.put(b"hello")

        assert (wire.socket.arrived, wire.socket.buffer) == (b"he", b"llo")

    def test_a_kernel_that_takes_nothing_leaves_all_to_the_transport(self) -> None:
        wire = a_wire()
        wire.socket.room = 0
        wire.put(b"hello")

        assert (wire.socket.arrived, wire.socket.buffer) == (b"", b"hello")

    def test_a_broken_connection_raises_nothing(self) -> None:
        """The transport knows what to do with it: a fan-out goes on to the next listener."""
        wire = a_wire()

        def broken(frames: bytes) -> int:
            raise BrokenPipeError

        wire.socket.send = broken
        outbox = Outbox("alice", wire.socket, wire.format, wire.turn, wire.limits)
        outbox.put(b"one")
        outbox.put(b"two")
        outbox.flush()

        assert wire.socket.buffer == b"onetwo"

    def test_a_partial_write_at_the_end_of_a_turn_keeps_the_order(self) -> None:
        wire = a_wire()
        wire.put(b"one")
        wire.put(b"two")
        wire.put(b"three")
        wire.socket.room = 4
        wire.turn.flush()
        wire.put(b"four")
        wire.socket.drain()

        assert wire.socket.arrived == b"onetwothreefour"

    def test_what_was_put_first_is_read_first(self) -> None:
        """At once, then the turn's, then what the transport keeps, then what was held: one order for all."""
        wire = a_wire()
        wire.put(b"1 at once ")
        wire.put(b"2 in the turn ")
        wire.block()
        wire.put(b"3 held ")
        wire.turn.flush()
        wire.put(b"4 held ")
        wire.socket.drain()
        wire.put(b"5 in the turn ")
        wire.turn.flush()

        assert wire.socket.arrived == b"1 at once 2 in the turn 3 held 4 held 5 in the turn "

    def test_unblocking_in_the_middle_of_a_turn_writes_what_the_turn_had_first(self) -> None:
        wire = a_wire()
        wire.put(b"1")
        wire.put(b"2")
        wire.block()
        wire.put(b"3")
        wire.socket.drain()

        assert wire.socket.arrived == b"123"

    def test_what_was_held_leaves_as_one_write(self) -> None:
        wire = a_blocked_wire()
        for frame in (b"one", b"two", b"three"):
            assert wire.put(frame) is False
        written = wire.socket.drain()

        assert wire.socket.sends == [b"onetwothree"]
        assert [entry.frame for entry in written] == [b"one", b"two", b"three"]

    def test_a_socket_that_blocks_again_holds_again(self) -> None:
        """It took a part of what was held: the rest is the transport's, and what follows is held anew."""
        wire = a_blocked_wire()
        wire.put(b"one")
        wire.socket.room, wire.socket.buffer = 1, b""
        wire.outbox.unblock()
        wire.put(b"two")

        assert (wire.socket.arrived, wire.socket.buffer) == (b"o", b"ne")
        assert wire.outbox.statistics().held == 1

    def test_unblocking_without_anything_held_writes_nothing(self) -> None:
        wire = a_blocked_wire()

        assert wire.socket.drain() == []
        assert wire.socket.sends == []
        assert wire.outbox.blocked is False


class TestBounds:
    """What may wait is exact, in messages and in bytes; what is over it is the policy's affair."""

    def test_as_many_messages_as_the_limit_may_wait(self) -> None:
        wire = a_blocked_wire(messages=3)
        for _ in range(3):
            wire.put(b"x")

        assert wire.turn.full == []
        assert wire.outbox.statistics() == OutboxStatistics(held=3, held_bytes=3, blocked=True, dropped=0)

    def test_as_many_bytes_as_the_limit_may_wait(self) -> None:
        wire = a_blocked_wire(size=1024)
        wire.put(b"x" * 1000)
        wire.put(b"x" * 24)

        assert wire.turn.full == []
        assert wire.outbox.statistics().held_bytes == 1024

    @pytest.mark.parametrize("policy", Overflow)
    def test_answers_are_never_dropped(self, policy: Overflow) -> None:
        """Under every policy one answer too many ends the session: who asked must not wait for ever."""
        wire = a_blocked_wire(messages=2, overflow=policy)
        for _ in range(3):
            wire.put(b"answer")

        assert wire.turn.full == [wire.outbox]
        assert wire.outbox.closed

    @pytest.mark.parametrize("policy", Overflow)
    def test_one_answer_too_large_ends_the_session(self, policy: Overflow) -> None:
        wire = a_blocked_wire(size=1024, overflow=policy)
        wire.put(b"x" * 1025)

        assert wire.turn.full == [wire.outbox]

    @pytest.mark.parametrize("policy", DROPPING)
    def test_publications_make_room_for_an_answer(self, policy: Overflow) -> None:
        wire = a_blocked_wire(messages=2, overflow=policy)
        for seq in (1, 2):
            wire.publish(a_publication(seq, from_=f"user-{seq}"))
        wire.put(b'{"type":"answer","seq":-1}\n')
        wire.socket.drain()

        assert wire.seen() == [(1, 1), 2, -1]

    @pytest.mark.parametrize("policy", DROPPING)
    def test_one_publication_too_large_is_dropped_alone(self, policy: Overflow) -> None:
        """Larger than the whole outbox: it can never wait, and does not cost the session."""
        wire = a_blocked_wire(size=1024, overflow=policy)
        wire.publish(a_publication(1, type="t" * 1024))
        wire.publish(a_publication(2))
        wire.socket.drain()

        assert wire.turn.full == []
        assert wire.seen() == [(1, 1), 2]

    def test_many_small_ones_go_for_one_large(self) -> None:
        """The bound in bytes: as many of the oldest go as are needed, and not one more."""
        wire = a_blocked_wire(size=1024, overflow=Overflow.DROP_OLDEST)
        small = len(wire.format.encode(a_publication(1)))
        for seq in range(1, 8):
            wire.publish(a_publication(seq))
        large = len(wire.format.encode(a_publication(8, type="t" * 700)))
        wire.publish(a_publication(8, type="t" * 700))
        wire.socket.drain()
        kept = (1024 - large) // small

        assert 0 < kept < 7
        assert wire.seen() == [(1, 7 - kept), *range(8 - kept, 9)]

    def test_dropped_messages_take_no_memory(self) -> None:
        """An answer at the front stays; what was dropped behind it must not pile up there."""
        wire = a_blocked_wire(messages=4, overflow=Overflow.DROP_OLDEST)
        wire.put(b"answer")
        for seq in range(1, 2000):
            wire.publish(a_publication(seq))
        waiting = wire.outbox._held

        assert waiting is not None
        assert len(waiting) < 100

    def test_latest_forgets_the_senders_whose_messages_were_dropped(self) -> None:
        """As many senders as like may pass while the socket is blocked: only those whose message waits count."""
        wire = a_blocked_wire(messages=4, overflow=Overflow.LATEST)
        for seq in range(1, 2000):
            wire.publish(a_publication(seq, from_=f"user-{seq}"))
        latest = wire.outbox._latest

        assert latest is not None
        assert len(latest) == 4


class TestDisconnect:
    """`disconnect`: the session ends, and resumes later where it was."""

    def test_the_message_over_the_bound_ends_the_session(self) -> None:
        wire = a_blocked_wire(messages=2)
        for seq in (1, 2, 3):
            wire.publish(a_publication(seq))
        wire.publish(a_publication(4))

        assert wire.turn.full == [wire.outbox]
        assert wire.outbox.statistics() == OutboxStatistics(held=0, held_bytes=0, blocked=True, dropped=0)

    def test_nothing_of_what_was_held_is_written(self) -> None:
        """The reader resumes from what it has read; a hole before the end would be worse than the end."""
        wire = a_blocked_wire(messages=1)
        for seq in (1, 2):
            wire.publish(a_publication(seq))

        assert wire.socket.drain() == []
        assert wire.socket.messages == []


class TestDropOldest:
    """`drop_oldest`: what is newest stays."""

    def test_the_oldest_goes_and_a_gap_stands_in_its_place(self) -> None:
        wire = a_blocked_wire(messages=2, overflow=Overflow.DROP_OLDEST)
        for seq in range(1, 6):
            wire.publish(a_publication(seq))
        wire.socket.drain()

        assert wire.seen() == [(1, 3), 4, 5]
        assert wire.outbox.statistics() == OutboxStatistics(held=0, held_bytes=0, blocked=False, dropped=3)

    def test_each_channel_has_its_own_gap(self) -> None:
        wire = a_blocked_wire(messages=2, overflow=Overflow.DROP_OLDEST)
        for seq in (1, 2):
            wire.publish(a_publication(seq, room="lobby"))
            wire.publish(a_publication(seq, room="den"))
        wire.socket.drain()
        got = [(message["type"], message["room"]) for message in wire.socket.messages]

        assert got == [("gap", "lobby"), ("chat", "lobby"), ("gap", "den"), ("chat", "den")]

    def test_an_answer_in_between_keeps_its_place(self) -> None:
        wire = a_blocked_wire(messages=3, overflow=Overflow.DROP_OLDEST)
        wire.publish(a_publication(1))
        wire.publish(a_publication(2))
        wire.put(b'{"type":"answer","seq":-1}\n')
        wire.publish(a_publication(3))
        wire.socket.drain()

        assert wire.seen() == [(1, 1), 2, -1, 3]


class TestDropNewest:
    """`drop_newest`: what came first stays."""

    def test_the_newest_goes_and_a_gap_follows(self) -> None:
        wire = a_blocked_wire(messages=2, overflow=Overflow.DROP_NEWEST)
        for seq in range(1, 6):
            wire.publish(a_publication(seq))
        wire.socket.drain()
        wire.publish(a_publication(6))
        wire.turn.flush()

        assert wire.seen() == [1, 2, (3, 5), 6]
        assert wire.outbox.statistics().dropped == 3

    def test_a_smaller_one_may_still_fit(self) -> None:
        """The bound is in bytes, too: the gap then stands in the middle."""
        wire = a_blocked_wire(size=1024, overflow=Overflow.DROP_NEWEST)
        wire.publish(a_publication(1, type="a" * 800))
        wire.publish(a_publication(2, type="b" * 800))
        wire.publish(a_publication(3))
        wire.socket.drain()

        assert wire.seen() == [1, (2, 2), 3]


class TestLatest:
    """`latest`: of each type and sender only the newest waits, from the first blocked moment on."""

    def test_a_newer_one_takes_the_place_of_an_older(self) -> None:
        wire = a_blocked_wire(overflow=Overflow.LATEST)
        for seq in (1, 2, 3):
            wire.publish(a_publication(seq))
        wire.socket.drain()

        assert wire.seen() == [(1, 2), 3]

    def test_types_and_senders_and_channels_are_apart(self) -> None:
        wire = a_blocked_wire(overflow=Overflow.LATEST)
        wire.publish(a_publication(1, type="cursor"))
        wire.publish(a_publication(2, type="chat"))
        wire.publish(a_publication(3, from_="carol"))
        wire.publish(a_publication(1, room="den"))
        wire.socket.drain()

        assert wire.seen() == [1, 2, 3, 1]

    def test_every_run_of_dropped_ones_is_told_where_it_was(self) -> None:
        """Two senders take turns, with one of a third between: the gaps stand between what remains."""
        wire = a_blocked_wire(overflow=Overflow.LATEST)
        for seq, sender in enumerate(["a", "b", "c", "a", "b", "a"], start=1):
            wire.publish(a_publication(seq, from_=sender))
        wire.socket.drain()

        assert wire.seen() == [(1, 2), 3, (4, 4), 5, 6]

    def test_runs_that_meet_become_one(self) -> None:
        """Three senders send again in the other order: what falls out between is one unbroken run, so one gap."""
        wire = a_blocked_wire(overflow=Overflow.LATEST)
        for seq, sender in enumerate(["a", "b", "c", "c", "a", "b"], start=1):
            wire.publish(a_publication(seq, from_=sender))
        wire.socket.drain()

        assert wire.seen() == [(1, 3), 4, 5, 6]

    def test_runs_that_meet_across_numbers_that_are_left_out_become_one(self) -> None:
        wire = a_blocked_wire(overflow=Overflow.LATEST)
        for seq, prev, sender in ((10, 0, "a"), (20, 10, "b"), (30, 20, "b"), (40, 30, "a")):
            wire.publish(a_publication(seq, from_=sender, prev=prev))
        wire.socket.drain()

        assert wire.seen() == [(1, 20), 30, 40]

    def test_what_was_put_before_the_socket_blocked_is_not_touched(self) -> None:
        wire = a_wire(overflow=Overflow.LATEST)
        for seq in (1, 2):
            wire.publish(a_publication(seq))
        wire.block()
        wire.publish(a_publication(3))
        wire.publish(a_publication(4))
        wire.socket.drain()

        assert wire.seen() == [1, 2, (3, 3), 4]

    def test_it_starts_anew_each_time_the_socket_blocks(self) -> None:
        wire = a_blocked_wire(overflow=Overflow.LATEST)
        wire.publish(a_publication(1))
        wire.socket.drain()
        wire.block()
        wire.publish(a_publication(2))
        wire.socket.drain()

        assert wire.seen() == [1, 2]

    def test_a_long_stall_keeps_little(self) -> None:
        """Ten thousand messages of ten senders: ten wait."""
        wire = a_blocked_wire(overflow=Overflow.LATEST)
        for seq in range(1, 10_001):
            wire.publish(a_publication(seq, from_=f"user-{seq % 10}"))
        waiting = wire.outbox._held
        statistics = wire.outbox.statistics()
        wire.socket.drain()

        assert waiting is not None
        assert len(waiting) < 100
        assert (statistics.held, statistics.dropped) == (10, 9_990)
        assert wire.seen() == [(1, 9_990), *range(9_991, 10_001)]


class TestGaps:
    """A `gap` names what is missing exactly: the first and the last seq that were dropped."""

    def test_a_run_goes_over_the_numbers_that_an_engine_leaves_out(self) -> None:
        """With `prev`, 10, 20 and 30 are neighbours: one run, and one gap, which begins where the reader is."""
        wire = a_blocked_wire(messages=1, overflow=Overflow.DROP_OLDEST)
        for seq, prev in ((10, 0), (20, 10), (30, 20), (40, 30)):
            wire.publish(a_publication(seq, prev=prev))
        wire.socket.drain()

        assert wire.seen() == [(1, 30), 40]

    def test_a_message_between_that_was_not_for_this_reader_parts_two_runs(self) -> None:
        """Its own message with `echo` false: the `ack` stood for it, so it is not missing."""
        wire = a_blocked_wire(messages=2, overflow=Overflow.DROP_OLDEST)
        for seq in (1, 3, 4, 5):
            wire.publish(a_publication(seq))
        wire.socket.drain()

        assert wire.seen() == [(1, 1), (3, 3), 4, 5]

    def test_an_answer_that_stands_for_a_message_has_its_place(self) -> None:
        """The `ack` of one's own message without an echo: what was dropped before it is named before it."""
        wire = a_blocked_wire(messages=2, overflow=Overflow.DROP_OLDEST)
        wire.publish(a_publication(1))
        wire.put(b'{"type":"ack","seq":2}\n', room_channel("lobby"), 2)
        wire.publish(a_publication(3))
        wire.publish(a_publication(4))
        wire.socket.drain()

        assert wire.seen() == [(1, 1), 2, (3, 3), 4]

    def test_joining_again_ends_what_was_before(self) -> None:
        """`joined` begins anew: gaps of before stand before it, and those of after it behind, with the same seqs."""
        wire = a_blocked_wire(messages=2, overflow=Overflow.DROP_OLDEST)
        for seq in (1, 2):
            wire.publish(a_publication(seq))
        wire.put(b'{"type":"joined","seq":-1}\n', room_channel("lobby"))
        for seq in (1, 2, 3):
            wire.publish(a_publication(seq))
        wire.socket.drain()

        assert wire.seen() == [(1, 2), -1, (1, 2), 3]

    def test_an_answer_about_one_channel_moves_nothing_in_another(self) -> None:
        wire = a_blocked_wire(messages=2, overflow=Overflow.DROP_OLDEST)
        wire.publish(a_publication(1))
        wire.put(b'{"type":"left","seq":-1}\n', room_channel("den"))
        wire.publish(a_publication(2))
        wire.socket.drain()

        assert wire.seen() == [-1, (1, 1), 2]

    def test_volatile_messages_are_dropped_without_a_gap(self) -> None:
        wire = a_blocked_wire(messages=1, overflow=Overflow.DROP_OLDEST)
        for seq in (None, None, 1):
            wire.publish(a_publication(seq))
        wire.socket.drain()

        assert wire.seen() == [1]
        assert wire.outbox.statistics().dropped == 2

    def test_a_gap_of_everyone_names_the_channel_and_one_of_the_inbox_names_nothing(self) -> None:
        wire = a_blocked_wire(messages=1)
        everyone = [Publication("chat", "bob", seq=seq) for seq in (1, 2)]
        inbox = [Publication("chat", "bob", to="alice", seq=seq) for seq in (5, 6)]
        for publication in everyone:
            wire.publish(publication, ALL, Overflow.DROP_NEWEST)
        for publication in inbox:
            wire.publish(publication, inbox_channel("alice"), Overflow.DROP_NEWEST)
        wire.socket.drain()

        assert [message for message in wire.socket.messages if message["type"] == "gap"] == [
            {"type": "gap", "from": 2, "to": 2, "channel": "all"},
            {"type": "gap", "from": 5, "to": 6},
        ]

    def test_as_many_gaps_as_messages_may_wait_and_no_more(self) -> None:
        """Each run that something stands between needs a range: those are bounded like messages."""
        wire = a_blocked_wire(messages=2, overflow=Overflow.DROP_OLDEST)
        for seq in range(1, 20, 2):
            wire.publish(a_publication(seq))

        assert wire.turn.full == [wire.outbox]


class TestPolicy:
    """The channel says what happens to its messages; where it does not, the outbox's own limits do."""

    def test_the_channels_policy_comes_first(self) -> None:
        wire = a_blocked_wire(messages=1, overflow=Overflow.DISCONNECT)
        for seq in (1, 2):
            wire.publish(a_publication(seq), policy=Overflow.DROP_OLDEST)
        wire.socket.drain()

        assert wire.seen() == [(1, 1), 2]

    def test_without_one_the_limits_decide(self) -> None:
        wire = a_blocked_wire(messages=1, overflow=Overflow.DROP_OLDEST)
        for seq in (1, 2):
            wire.publish(a_publication(seq), policy=None)
        wire.socket.drain()

        assert wire.seen() == [(1, 1), 2]

    def test_what_may_not_be_dropped_is_not_dropped_for_others(self) -> None:
        """An inbox disconnects: a room that drops its oldest must not make room at the inbox's cost."""
        wire = a_blocked_wire(messages=2, overflow=Overflow.DROP_OLDEST)
        letter = Publication("chat", "bob", to="alice", seq=1)
        wire.publish(letter, inbox_channel("alice"), Overflow.DISCONNECT)
        for seq in (1, 2):
            wire.publish(a_publication(seq), policy=Overflow.DROP_OLDEST)
        wire.socket.drain()

        assert [(message["type"], message.get("to")) for message in wire.socket.messages] == [
            ("chat", "alice"),
            ("gap", 1),
            ("chat", None),
        ]


class TestHandOver:
    """Before the last word everything is left to the transport, so that the last word comes last."""

    def test_what_waits_goes_first(self) -> None:
        wire = a_wire()
        wire.put(b"1 at once ")
        wire.put(b"2 in the turn ")
        wire.block()
        wire.put(b"3 held ")
        wire.outbox.hand_over()
        wire.socket.write(b"4 goodbye")
        wire.outbox.close()

        assert wire.socket.arrived + wire.socket.buffer == b"1 at once 2 in the turn 3 held 4 goodbye"

    def test_what_was_dropped_is_named(self) -> None:
        wire = a_blocked_wire(messages=1, overflow=Overflow.DROP_OLDEST)
        for seq in (1, 2):
            wire.publish(a_publication(seq))
        wire.outbox.hand_over()
        wire.socket.drain()

        assert wire.seen() == [(1, 1), 2]

    def test_it_leaves_nothing_behind(self) -> None:
        wire = a_blocked_wire()
        wire.put(b"held")
        wire.outbox.hand_over()

        assert wire.outbox.statistics() == OutboxStatistics(held=0, held_bytes=0, blocked=True, dropped=0)


class TestClosed:
    """A closed outbox takes nothing, writes nothing and keeps nothing."""

    def test_what_waits_is_let_go(self) -> None:
        wire = a_blocked_wire()
        wire.put(b"held")
        wire.outbox.close()

        assert wire.outbox.statistics() == OutboxStatistics(held=0, held_bytes=0, blocked=True, dropped=0)
        assert wire.socket.drain() == []
        assert wire.socket.arrived == b""

    def test_nothing_more_is_taken(self) -> None:
        wire = a_wire()
        wire.outbox.close()

        assert wire.put(b"late") is False
        assert wire.outbox.statistics().held == 0

    def test_what_the_turn_collected_is_not_written(self) -> None:
        """Who wants it written flushes first: after the close frame nothing may follow."""
        wire = a_wire()
        wire.put(b"one")
        wire.put(b"two")
        wire.outbox.close()
        wire.turn.flush()

        assert wire.socket.sends == [b"one"]

    def test_it_overflows_once(self) -> None:
        wire = a_blocked_wire(messages=1)
        for seq in range(1, 6):
            wire.publish(a_publication(seq))

        assert wire.turn.full == [wire.outbox]


def test_the_fakes_are_what_an_outbox_asks_for() -> None:
    """The socket and the format of these tests satisfy the protocols of the real ones (checked by mypy)."""
    turn = Turn(lambda: None)
    outbox = Outbox("alice", Socket(), Lines(), turn, OutboxLimits())

    assert outbox.owner == "alice"
