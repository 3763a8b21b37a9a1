"""One publication reaches all listeners of a channel, encoded once, and a latecomer gets what came meanwhile."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from hubbub.core.channel import Channel, Hold
from hubbub.core.outbox import Format, Outbox, OutboxLimits, Overflow, Turn
from hubbub.protocol.envelope import Ack
from hubbub.types import Publication, room_channel
from unit.core.wire import Lines, Socket, a_publication


class Listener:
    """An outbox with a socket of its own, on a turn that it shares."""

    def __init__(self, name: str, format: Format, turn: Turn, limits: OutboxLimits = OutboxLimits()) -> None:
        self.socket = Socket()
        self.outbox = Outbox(name, self.socket, format, turn, limits)
        self.socket.outbox = self.outbox

    @property
    def seqs(self) -> list[Any]:
        return [message.get("seq") for message in self.socket.messages]


@pytest.fixture
def turn() -> Turn:
    return Turn(lambda: None)


@pytest.fixture
def channel() -> Channel[str]:
    return Channel(room_channel("lobby"))


def test_everyone_hears_it(channel: Channel[str], turn: Turn) -> None:
    format = Lines()
    listeners = [Listener(f"user-{number}", format, turn) for number in range(5)]
    for listener in listeners:
        channel.listen(listener.outbox)
    channel.fan_out(a_publication(1), turn)

    assert [listener.seqs for listener in listeners] == [[1]] * 5


def test_it_is_encoded_once_for_each_format(channel: Channel[str], turn: Turn) -> None:
    """However many listen, and in whichever order the formats come: not once for each receiver."""
    formats = [Lines(), Lines(), Lines()]
    listeners = [Listener(f"user-{number}", formats[number % 3], turn) for number in range(30)]
    for listener in listeners:
        channel.listen(listener.outbox)
    publication = a_publication(1)
    channel.fan_out(publication, turn)

    assert [format.encoded for format in formats] == [[publication]] * 3
    assert all(listener.seqs == [1] for listener in listeners)


def test_what_is_encoded_already_is_not_encoded_again(channel: Channel[str], turn: Turn) -> None:
    """The engine has it as JSON: a format of JSON only frames that."""
    format = Lines()
    listener = Listener("alice", format, turn)
    channel.listen(listener.outbox)
    channel.fan_out(a_publication(1), turn, encoded=b'{"seq":1}')

    assert format.encoded == []
    assert listener.seqs == [1]


def test_nothing_is_encoded_for_nobody(channel: Channel[str]) -> None:
    """A channel without listeners costs nothing, not even the end of a turn."""
    opened: list[None] = []
    turn = Turn(lambda: opened.append(None))
    channel.fan_out(a_publication(1), turn)

    assert opened == []


def test_the_session_that_sent_it_can_be_left_out(channel: Channel[str], turn: Turn) -> None:
    """`echo` false: not to the session it came from, and to every other one."""
    format = Lines()
    sender, other = Listener("alice", format, turn), Listener("alice", format, turn)
    channel.listen(sender.outbox)
    channel.listen(other.outbox)
    channel.fan_out(a_publication(1), turn, skip=sender.outbox)

    assert (sender.seqs, other.seqs) == ([], [1])


def test_nothing_is_encoded_for_who_is_left_out(channel: Channel[str], turn: Turn) -> None:
    """Where nobody else listens in its format, which may be a compressed one."""
    own, others = Lines(), Lines()
    sender = Listener("alice", own, turn)
    listeners = [Listener("bob", others, turn), sender, Listener("carol", others, turn)]
    for listener in listeners:
        channel.listen(listener.outbox)
    channel.fan_out(a_publication(1), turn, skip=sender.outbox)

    assert (len(own.encoded), len(others.encoded)) == (0, 1)
    assert [listener.seqs for listener in listeners] == [[1], [], [1]]


def test_the_first_to_listen_is_told_first(channel: Channel[str], turn: Turn) -> None:
    order: list[str] = []

    class Noting(Socket):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def take(self, frames: bytes) -> int:
            order.append(self.name)
            return super().take(frames)

    format = Lines()
    for name in ("carol", "alice", "bob"):
        channel.listen(Outbox(name, Noting(name), format, turn, OutboxLimits()))
    channel.fan_out(a_publication(1), turn)

    assert order == ["carol", "alice", "bob"]


def test_listening_twice_hears_it_once(channel: Channel[str], turn: Turn) -> None:
    listener = Listener("alice", Lines(), turn)
    channel.listen(listener.outbox)
    channel.listen(listener.outbox)
    channel.fan_out(a_publication(1), turn)

    assert len(channel) == 1
    assert listener.seqs == [1]


def test_who_stops_listening_hears_no_more(channel: Channel[str], turn: Turn) -> None:
    listener = Listener("alice", Lines(), turn)
    channel.listen(listener.outbox)
    channel.unlisten(listener.outbox)
    channel.unlisten(listener.outbox)
    channel.fan_out(a_publication(1), turn)

    assert len(channel) == 0
    assert listener.outbox not in channel
    assert listener.seqs == []


@pytest.mark.parametrize(
    ("overflow", "seen"), [(None, []), (Overflow.DROP_OLDEST, [2]), (Overflow.DROP_NEWEST, [1])], ids=str
)
def test_the_channel_says_what_a_full_outbox_does(overflow: Overflow | None, seen: list[int], turn: Turn) -> None:
    """And where it says nothing the outbox's own policy holds, here `disconnect`."""
    channel: Channel[str] = Channel(room_channel("lobby"), overflow)
    listener = Listener("alice", Lines(), turn, OutboxLimits(outbox_messages=1))
    channel.listen(listener.outbox)
    listener.outbox.blocked = True
    for seq in (1, 2):
        channel.fan_out(a_publication(seq), turn)
    listener.socket.drain()

    assert [seq for seq in listener.seqs if seq is not None] == seen
    assert bool(turn.full) is (overflow is None)


def test_a_fan_out_waits_for_nobody(channel: Channel[str], turn: Turn) -> None:
    """One that overflows in the middle costs the others nothing, and is ended after the fan-out."""
    format = Lines()
    limits = OutboxLimits(outbox_messages=1)
    slow, fast = Listener("slow", format, turn, limits), Listener("fast", format, turn, limits)
    for listener in (slow, fast):
        channel.listen(listener.outbox)
    slow.outbox.blocked = True
    for seq in (1, 2, 3):
        channel.fan_out(a_publication(seq), turn)
        turn.flush()

    assert fast.seqs == [1, 2, 3]
    assert turn.full == [slow.outbox]
    assert slow.outbox in channel


def test_what_is_framed_already_goes_out_and_who_has_no_frame_is_told_of(channel: Channel[str], turn: Turn) -> None:
    """Each format has a frame, or its listeners have to be told in another way; who is left out is left out."""
    framed, other = Lines(), Lines()
    listeners = [Listener(f"user-{number}", (framed, other)[number % 2], turn) for number in range(6)]
    for listener in listeners:
        channel.listen(listener.outbox)
    reading = Listener("late", framed, turn)
    hold = channel.hold(reading.outbox)
    publication = a_publication(1)
    frames: dict[Format, bytes | None] = {framed: framed.encode(publication), other: None}
    left = channel.fan_out_framed(publication, turn, frames, skip=listeners[1].outbox)
    turn.flush()

    assert [listener.seqs for listener in listeners] == [[1], [], [1], [], [1], []]
    assert left == [listeners[3].outbox, listeners[5].outbox]
    assert hold.merge(0) == [publication]


class TestHolding:
    """Who reads its backlog hears nothing live until it is done, and misses nothing."""

    def test_what_comes_meanwhile_is_kept(self, channel: Channel[str], turn: Turn) -> None:
        listener = Listener("alice", Lines(), turn)
        hold = channel.hold(listener.outbox)
        for seq in (1, 2):
            channel.fan_out(a_publication(seq), turn)

        assert listener.outbox in channel
        assert listener.seqs == []
        assert [publication.seq for publication in hold.merge(0) or ()] == [1, 2]

    def test_others_hear_it_live(self, channel: Channel[str], turn: Turn) -> None:
        format = Lines()
        reading, live = Listener("alice", format, turn), Listener("bob", format, turn)
        channel.hold(reading.outbox)
        channel.listen(live.outbox)
        channel.fan_out(a_publication(1), turn)

        assert (reading.seqs, live.seqs) == ([], [1])

    def test_from_listen_on_it_is_live(self, channel: Channel[str], turn: Turn) -> None:
        listener = Listener("alice", Lines(), turn)
        hold = channel.hold(listener.outbox)
        channel.fan_out(a_publication(1), turn)
        channel.listen(listener.outbox)
        channel.fan_out(a_publication(2), turn)

        assert listener.seqs == [2]
        assert [publication.seq for publication in hold.merge(0) or ()] == [1]
        assert len(channel) == 1

    def test_one_that_was_live_can_go_back_to_reading(self, channel: Channel[str], turn: Turn) -> None:
        """Joining again repairs a hole: live messages stop, and follow the backlog."""
        listener = Listener("alice", Lines(), turn)
        channel.listen(listener.outbox)
        channel.hold(listener.outbox)
        channel.fan_out(a_publication(1), turn)

        assert listener.seqs == []
        assert len(channel) == 1

    def test_who_goes_while_reading_is_gone(self, channel: Channel[str], turn: Turn) -> None:
        listener = Listener("alice", Lines(), turn)
        hold = channel.hold(listener.outbox)
        channel.unlisten(listener.outbox)
        channel.fan_out(a_publication(1), turn)

        assert len(channel) == 0
        assert hold.merge(0) == []

    def test_its_own_message_without_an_echo_is_not_kept(self, channel: Channel[str], turn: Turn) -> None:
        listener = Listener("alice", Lines(), turn)
        hold = channel.hold(listener.outbox)
        channel.fan_out(a_publication(1), turn, skip=listener.outbox)
        channel.fan_out(a_publication(2), turn)

        assert [publication.seq for publication in hold.merge(0) or ()] == [2]


class TestMerge:
    """Backlog and live meet without a hole and without a double."""

    def test_what_the_backlog_had_is_not_told_again(self) -> None:
        hold = Hold()
        for seq in (4, 5, 6):
            hold.add(a_publication(seq))

        assert [publication.seq for publication in hold.merge(5) or ()] == [6]

    def test_volatile_ones_are_in_no_backlog(self) -> None:
        """They keep their place, or do not come."""
        hold = Hold()
        for seq in (None, 4, None, 5):
            hold.add(a_publication(seq))
        hold.stand_in(Ack("a1", seq=6))
        hold.add(a_publication(None))

        assert [told.seq for told in hold.merge(4) or ()] == [None, 5, 6, None]

    @pytest.mark.parametrize(("read", "told"), [(40, [None, 50]), (41, [50])])
    def test_a_volatile_one_before_an_ack_behind_a_jump(self, read: int, told: list[int | None]) -> None:
        """Its place is behind the `prev` of the message that the ack stands for."""
        hold = Hold()
        hold.add(a_publication(None))
        hold.stand_in(Ack("a1", seq=50, prev=40))

        assert [message.seq for message in hold.merge(read) or ()] == told

    @pytest.mark.parametrize("read", [5, 7])
    def test_a_volatile_one_that_comes_too_late_does_not_come(self, read: int) -> None:
        """The backlog had what is behind it."""
        hold = Hold()
        for seq in (None, 4, None, 5):
            hold.add(a_publication(seq))

        assert hold.merge(read) == []

    def test_what_was_forgotten_is_read_from_the_log(self) -> None:
        """The hold is bounded: after a flood it says `None`, and the reader reads on before it asks again."""
        hold = Hold()
        for seq in range(1, 1001):
            hold.add(a_publication(seq))
        too_early = hold.merge(10)
        later = hold.merge(900)

        assert too_early is None
        assert [publication.seq for publication in later or ()] == list(range(901, 1001))

    def test_one_that_was_forgotten_is_one_too_many(self) -> None:
        """The place where the hold is short is exact: the reader must have read just that one."""
        hold = Hold()
        for seq in range(1, 258):
            hold.add(a_publication(seq))
        short_of_one = hold.merge(0)
        exactly = hold.merge(1)

        assert short_of_one is None
        assert [publication.seq for publication in exactly or ()] == list(range(2, 258))

    def test_what_was_taken_is_not_taken_again(self) -> None:
        """A reader takes more than once, for more may come while it sends: each time only what is new."""
        hold = Hold()
        hold.add(a_publication(1))
        first = hold.merge(0)
        hold.add(a_publication(None))
        second = hold.merge(1)

        assert [publication.seq for publication in first or ()] == [1]
        assert [publication.seq for publication in second or ()] == [None]
        assert hold.merge(1) == []

    def test_large_ones_are_forgotten_sooner(self) -> None:
        """The bound is one of bytes, too; the newest is kept, however large it is."""
        hold = Hold()
        for seq in range(1, 11):
            hold.add(Publication("doc", content=Raw(b"x" * 1_000_000), seq=seq))
        first = hold.merge(0)
        rest = hold.merge(6)
        hold.add(Publication("doc", content=Raw(b"x" * 5_000_000), seq=11))

        assert first is None
        assert [told.seq for told in rest or ()] == [7, 8, 9, 10]
        assert [told.seq for told in hold.merge(10) or ()] == [11]

    def test_an_ack_that_stands_for_a_message_is_in_its_place(self) -> None:
        hold = Hold()
        hold.add(a_publication(4))
        hold.stand_in(Ack("a1", seq=5))
        hold.add(a_publication(6))

        assert [told.seq for told in hold.merge(4) or ()] == [5, 6]

    def test_an_ack_is_not_forgotten(self) -> None:
        """However much comes: it is told instead of the message that the log has, or given back."""
        hold = Hold()
        for seq in range(1, 1001, 2):
            hold.stand_in(Ack(f"a{seq}", seq=seq))
            hold.add(a_publication(seq + 1))
        read = [hold.instead_of(a_publication(seq)) for seq in range(1, 401)]
        for told in read:
            hold.told(told)

        assert [type(told) for told in read] == [Ack, Publication] * 200
        assert hold.merge(400) is None
        rest = hold.merge(600)
        late = [told for told in rest or () if isinstance(told, Ack) and told.duplicate]
        assert [told.seq for told in late] == list(range(401, 601, 2))
        assert [told.seq for told in rest or ()][len(late) :] == list(range(601, 1001))
        assert [ack.seq for ack in hold.give_up()] == list(range(401, 1001, 2))
        assert hold.give_up() == []

    def test_an_ack_that_nobody_asked_for_is_of_no_use_out_of_its_place(self) -> None:
        hold = Hold()
        for seq in (1, 2):
            hold.stand_in(Ack(None, seq=seq))

        assert [told.seq for told in hold.merge(1) or ()] == [2]
        assert hold.give_up() == []

    def test_there_may_be_only_so_many_acks(self) -> None:
        hold = Hold()
        kept = [hold.stand_in(Ack(f"a{seq}", seq=seq)) for seq in range(1, 1026)]

        assert kept == [True] * 1_024 + [False]

    @pytest.mark.parametrize(("count", "since"), [(1, 0), (256, 0), (257, 1), (1_000, 744)])
    def test_it_knows_from_where_on_it_has_everything(self, count: int, since: int) -> None:
        """What is read of the log need not go further than that."""
        hold = Hold()
        for seq in range(1, count + 1):
            hold.add(a_publication(seq))

        assert hold.since == since
        assert [told.seq for told in hold.merge(since) or ()] == list(range(since + 1, count + 1))

    def test_it_knows_what_was_before_the_first_that_came(self) -> None:
        """For who was live so far: that is where reading on begins, where something was forgotten."""
        hold = Hold()
        hold.add(a_publication(None))

        assert hold.before is None
        hold.add(Publication("chat", room="lobby", seq=9, prev=4))
        hold.add(a_publication(10))
        assert hold.before == 4

    @given(
        arrivals=st.lists(st.booleans(), max_size=700),
        reads=st.lists(st.integers(1, 300), min_size=1, max_size=5),
    )
    def test_nothing_is_lost_and_nothing_comes_twice(self, arrivals: list[bool], reads: list[int]) -> None:
        """Live messages (and volatile ones) arrive while a reader pages; its pages and the rest are the log."""
        hold = Hold()
        end = 0
        for numbered in arrivals:
            end += numbered
            hold.add(Publication("chat", room="lobby", seq=end if numbered else None))
        position = 0
        steps = [*reads, end]
        merged = hold.merge(position)
        while merged is None:
            position = min(end, position + steps.pop(0))
            merged = hold.merge(position)

        assert [publication.seq for publication in merged if publication.seq] == list(range(position + 1, end + 1))
