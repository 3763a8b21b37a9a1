"""A channel's log against a plain list: what is kept, what a page holds, and which retries are known."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec import Raw

from hubbub.core.log import Log, Retention
from hubbub.types import Position, Publication

REMEMBER = 5.0
MOST = 3
RETENTION = Retention(size=6, age=10.0)


def a_publication(id: str | None = None, from_: str = "alice", content: bytes = b"1") -> Publication:
    return Publication("chat", from_, room="lobby", id=id, content=Raw(content))


def a_log(*, size: int = 1000, age: float = 1000.0, count: int = 0) -> Log:
    log = Log("epoch", Retention(size=size, age=age))
    for _ in range(count):
        log.append(a_publication(), 0.0, REMEMBER, MOST)
    return log


def seqs(publications: list[Publication]) -> list[int | None]:
    return [publication.seq for publication in publications]


def as_json(publications: list[Publication]) -> list[bytes]:
    return [msgspec.json.encode(publication) for publication in publications]


class LogMachine(RuleBasedStateMachine):
    """Appends, retries, reads and time, against a list of everything that was ever appended."""

    def __init__(self) -> None:
        super().__init__()
        self.log = Log("epoch", RETENTION)
        self.now = 100.0

        # Each publication ever appended, with its time: the seq is the place in the list.
        self.all: list[tuple[float, Publication]] = []

        # The ids in the order of their last acceptance: (from, id), its seq and when.
        self.ids: list[tuple[tuple[str, str], int, float]] = []

    def kept(self) -> list[int]:
        """The seqs that retention keeps, by its definition."""
        newest = range(max(1, len(self.all) - RETENTION.size + 1), len(self.all) + 1)
        return [seq for seq in newest if self.all[seq - 1][0] > self.now - RETENTION.age]

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 4.0, 11.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(content=st.none() | st.text(max_size=20))
    def append(self, content: str | None) -> None:
        self.add(a_publication(content=msgspec.json.encode(content)))

    @rule(from_=st.sampled_from(["alice", "bob"]), id=st.sampled_from(["a", "b", "c", "d"]))
    def append_unless_known(self, from_: str, id: str) -> None:
        """As an engine does: a retry is looked up first."""
        key = (from_, id)
        expected = self.known(key)
        found = self.log.known(from_, id, self.now)
        if expected is not None:
            assert found in expected
        if found is None:
            self.add(a_publication(id, from_))
            self.ids = [entry for entry in self.ids if entry[0] != key]
            self.ids.append((key, len(self.all), self.now))

    def known(self, key: tuple[str, str]) -> tuple[int | None, ...]:
        """What `known` may say: a seq while it must be remembered, None once it must not, else either."""
        for newer, (other, seq, when) in enumerate(reversed(self.ids)):
            if other == key:
                if when + REMEMBER <= self.now:
                    return (None,)
                return (seq,) if newer < MOST else (seq, None)
        return (None,)

    def add(self, publication: Publication) -> None:
        encoded = self.log.append(publication, self.now, REMEMBER, MOST)
        self.all.append((self.now, publication))

        assert publication.seq == len(self.all)
        assert encoded == msgspec.json.encode(publication)

    @rule(seq=st.integers(0, 60), limit=st.integers(1, 10))
    def read_after(self, seq: int, limit: int) -> None:
        self.log.trim(self.now)
        page = self.log.after(seq, limit)
        kept = self.kept()
        following = [number for number in kept if number > seq]

        assert page.position == Position("epoch", len(self.all))
        assert seqs(page.publications) == following[:limit]
        assert as_json(page.publications) == [self.as_it_was(seq) for seq in following[:limit]]
        assert page.more is (len(following) > limit)
        assert page.complete is (seq <= len(self.all) and len(following) == len(self.all) - seq)

    def as_it_was(self, seq: int) -> bytes:
        return msgspec.json.encode(self.all[seq - 1][1])

    @rule(seq=st.none() | st.integers(0, 60), limit=st.integers(1, 10))
    def read_before(self, seq: int | None, limit: int) -> None:
        self.log.trim(self.now)
        page = self.log.before(seq, limit)
        preceding = [number for number in self.kept() if seq is None or number < seq]

        assert page.position == Position("epoch", len(self.all))
        assert seqs(page.publications) == preceding[-limit:]
        assert page.more is (len(preceding) > limit)

    @rule()
    def drop_oldest(self) -> None:
        """As an engine that is short of memory does: to the list it is as if the message were too old."""
        self.log.trim(self.now)
        kept = self.kept()
        if kept:
            self.log.drop_oldest()
            publication = self.all[kept[0] - 1][1]
            self.all[kept[0] - 1] = (-1e9, publication)

    @invariant()
    def it_knows_how_much_it_holds(self) -> None:
        self.log.trim(self.now)
        kept = self.kept()

        assert len(self.log) == len(kept)
        if not self.ids:
            assert (self.log.size == Log("another", RETENTION).size) is (not kept)
        assert self.log.size >= sum(memoryview(self.all[seq - 1][1].content).nbytes for seq in kept)

    @invariant()
    def it_is_idle_when_nothing_would_be_missed(self) -> None:
        remembers = any(self.known(key) == (seq,) for key, seq, _ in self.ids)
        may_remember = any(self.known(key) != (None,) for key, _, _ in self.ids)
        idle = self.log.idle(self.now)

        if self.kept() or remembers:
            assert not idle
        elif not may_remember:
            assert idle


TestLog = LogMachine.TestCase
TestLog.settings = settings(max_examples=150, stateful_step_count=40)


def test_a_log_that_nobody_wrote_to_is_at_0() -> None:
    log = a_log()

    assert log.position == Position("epoch", 0)
    assert log.after(0, 10).complete
    assert log.idle(0.0)


def test_what_is_as_old_as_the_age_goes() -> None:
    """To the tick: the age is how long a message is kept, and not a moment longer."""
    log = a_log(age=10.0, count=1)
    log.trim(9.999)
    kept = len(log)
    log.trim(10.0)

    assert (kept, len(log)) == (1, 0)


def test_seqs_go_on_when_nothing_is_kept() -> None:
    """A log that keeps nothing still numbers: who listens must see each message's place."""
    log = a_log(size=0, count=3)

    assert log.position.seq == 3
    assert log.after(3, 10).complete
    assert not log.after(2, 10).complete


def test_an_id_that_comes_back_after_its_time_is_new() -> None:
    """And is then known under its new seq, for the whole time again."""
    log = a_log()
    log.append(a_publication("a"), 0.0, REMEMBER, MOST)
    log.append(a_publication("b"), 4.0, REMEMBER, MOST)
    log.append(a_publication("a"), 6.0, REMEMBER, MOST)

    assert log.known("alice", "a", 10.9) == 3
    assert log.known("alice", "b", 8.9) == 2
    assert log.known("alice", "b", 9.0) is None
    assert log.known("alice", "a", 11.0) is None


def test_ids_are_known_within_bounds() -> None:
    """A sender that never repeats itself: the longest known go first, and no more than `most` stay."""
    log = a_log()
    for number in range(1000):
        log.append(a_publication(str(number)), 0.0, REMEMBER, MOST)
    known = [number for number in range(1000) if log.known("alice", str(number), 0.0) is not None]

    assert known == [997, 998, 999]


def test_expired_ids_take_no_memory() -> None:
    log = a_log(size=1)
    for number in range(1000):
        log.append(a_publication(str(number)), float(number), REMEMBER, 100_000)

    assert len(log._known or ()) <= REMEMBER + 1


@given(count=st.integers(0, 300), limit=st.integers(1, 50), size=st.integers(1, 300))
def test_pages_forward_make_the_whole_log(count: int, limit: int, size: int) -> None:
    """Each page begins where the last one ended; `more` says when to stop."""
    log = a_log(size=size, count=count)
    seq, read, more = log.position.seq - len(log), list[int | None](), len(log) > 0
    while more:
        page = log.after(seq, limit)
        read += seqs(page.publications)
        seq = page.publications[-1].seq or 0
        more = page.more

        assert page.complete

    assert read == list(range(count - len(log) + 1, count + 1))


@given(count=st.integers(0, 300), limit=st.integers(1, 50), size=st.integers(1, 300))
def test_pages_backward_make_the_whole_log(count: int, limit: int, size: int) -> None:
    log = a_log(size=size, count=count)
    before: int | None = None
    read: list[int | None] = []
    more = len(log) > 0
    while more:
        page = log.before(before, limit)
        read = seqs(page.publications) + read
        before = page.publications[0].seq
        more = page.more

    assert read == list(range(count - len(log) + 1, count + 1))
