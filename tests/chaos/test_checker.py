"""The checker of the kill test finds whatever is planted in the books, and nothing in clean ones."""

from __future__ import annotations

import pytest

from chaos.checker import Fault, Verdict, check
from chaos.ledger import STRAY, Ledger, Reading, digest

ROOM = "room:r"
INBOX = "user:carol"
MEMBERS = ("alice", "bob", "carol")


class Books:
    """The books of a run in which ten messages to a room and five to an inbox came to everyone."""

    def __init__(self) -> None:
        self.ledger = Ledger({ROOM: MEMBERS, INBOX: ("carol",)})
        for number in range(15):
            channel = ROOM if number < 10 else INBOX
            content = b'{"n":%d}' % number
            self.ledger.send(channel, "alice", content)
            seq = number + 1 if number < 10 else number - 9
            self.ledger.acknowledge(number, "e1", seq)
            for reader in self.ledger.readers[channel]:
                if seq == 1:
                    self.start(reader, channel, 0)
                self.deliver(reader, channel, seq, number)

    def start(self, reader: str, channel: str, seq: int, *, epoch: str = "e1") -> None:
        self.ledger.start(self.ledger.reading(reader, channel), epoch, seq)

    def deliver(
        self, reader: str, channel: str, seq: int, number: int, *, epoch: str = "e1", by: str = "alice"
    ) -> None:
        reading = self.ledger.reading(reader, channel)
        self.ledger.deliver(reading, epoch, seq, number, digest(by, b'{"n":%d}' % number))

    def take(self, reader: str, channel: str, row: int) -> tuple[int, int, int, int]:
        """Remove a delivery, as if it had never come."""
        reading = self.ledger.readings[reader, channel]
        return reading.epochs.pop(row), reading.seqs.pop(row), reading.numbers.pop(row), reading.digests.pop(row)

    def put(self, reader: str, channel: str, row: int, delivery: tuple[int, int, int, int]) -> None:
        """Put a delivery in, before `row`."""
        reading = self.ledger.readings[reader, channel]
        for column, value in zip(
            (reading.epochs, reading.seqs, reading.numbers, reading.digests), delivery, strict=True
        ):
            column.insert(row, value)

    def found(self) -> dict[Fault, int]:
        return dict(check(self.ledger).findings.counts)


@pytest.fixture
def books() -> Books:
    return Books()


def told(verdict: Verdict, fault: Fault) -> list[str]:
    return [text for kind, text in verdict.findings.told if kind is fault]


def test_clean_books_are_clean(books: Books) -> None:
    """Nothing is found where everything came once and in order."""
    verdict = check(books.ledger)

    assert verdict.clean
    assert (verdict.sent, verdict.acknowledged, verdict.unacknowledged, verdict.delivered) == (15, 15, 0, 35)


def test_a_loss_is_found_and_named(books: Books) -> None:
    """The last one of a channel leaves no hole behind it; it is missed all the same."""
    books.take("bob", ROOM, 9)
    verdict = check(books.ledger)

    assert dict(verdict.findings.counts) == {Fault.LOST: 1}
    assert told(verdict, Fault.LOST) == ["bob never got 9, room:r e1:10"]


def test_a_reader_that_got_nothing_lost_everything(books: Books) -> None:
    """Whoever is a reader by the plan and is not in the books at all is not forgotten."""
    del books.ledger.readings["carol", INBOX]

    assert books.found() == {Fault.LOST: 5}


def test_a_loss_in_the_middle_is_a_hole_too(books: Books) -> None:
    """`seq` says where it is missing."""
    books.take("carol", ROOM, 4)

    assert books.found() == {Fault.LOST: 1, Fault.HOLED: 1}


def test_a_hole_of_what_nobody_acknowledged_is_found(books: Books) -> None:
    """Something stood there: others may have it."""
    for reader in MEMBERS:
        books.deliver(reader, ROOM, 12, books.ledger.send(ROOM, "alice", b'{"n":15}')[0])
        break

    assert books.found() == {Fault.HOLED: 1}


def test_prev_explains_a_jump(books: Books) -> None:
    """An engine that numbers several channels together leaves numbers out, and says so."""
    number, _ = books.ledger.send(ROOM, "alice", b"1")
    books.ledger.acknowledge(number, "e1", 20)
    for reader in MEMBERS:
        reading = books.ledger.reading(reader, ROOM)
        books.ledger.deliver(reading, "e1", 20, number, digest("alice", b"1"), prev=10)

    assert books.found() == {}


def test_a_double_is_found(books: Books) -> None:
    """The same message at the same place, twice to one reader."""
    books.deliver("bob", ROOM, 10, 9)

    assert books.found() == {Fault.DOUBLED: 2}


def test_a_message_published_twice_is_found(books: Books) -> None:
    """A retry that became a second publication: everybody has it at two places."""
    for reader in MEMBERS:
        books.deliver(reader, ROOM, 11, 9)
    verdict = check(books.ledger)

    assert set(verdict.findings.counts) == {Fault.DOUBLED}
    assert "bob got 9 in room:r again, at 11" in told(verdict, Fault.DOUBLED)


def test_one_never_acknowledged_may_come_but_not_twice(books: Books) -> None:
    """Its sender was cut off before the `ack`: it is in the log once, or not at all."""
    number, _ = books.ledger.send(ROOM, "alice", b'{"n":15}')
    assert books.found() == {}

    for reader in MEMBERS:
        books.deliver(reader, ROOM, 11, number)
    assert books.found() == {}
    assert check(books.ledger).unacknowledged == 1

    for reader in MEMBERS:
        books.deliver(reader, ROOM, 12, number)
    assert set(books.found()) == {Fault.DOUBLED}


def test_two_acks_at_different_places_are_found(books: Books) -> None:
    """A retry gets the first `ack` again."""
    books.ledger.acknowledge(3, "e1", 4)
    assert books.found() == {}

    books.ledger.acknowledge(3, "e1", 11)
    assert books.found() == {Fault.DOUBLED: 1}


def test_an_ack_that_names_another_place_than_the_readers_saw_is_found(books: Books) -> None:
    """Whoever resumes from an `ack` would miss something."""
    books.ledger.ack_seqs[9] = 11

    assert set(books.found()) == {Fault.DOUBLED}


def test_a_swap_is_found(books: Books) -> None:
    """A reader saw `seq` go back."""
    books.put("bob", ROOM, 4, books.take("bob", ROOM, 5))

    assert books.found() == {Fault.REORDERED: 1, Fault.HOLED: 1}


def test_readers_that_differ_are_found(books: Books) -> None:
    """Each saw `seq` grow, and yet not the same messages at the same places."""
    reading = books.ledger.readings["bob", ROOM]
    for column in (reading.numbers, reading.digests):
        column[4], column[5] = column[5], column[4]

    assert books.found() == {Fault.REORDERED: 2}


def test_a_message_to_a_wrong_reader_is_found(books: Books) -> None:
    """What was for somebody else's inbox, or in a room one is not in."""
    books.start("dave", INBOX, 0)
    books.deliver("dave", INBOX, 1, 10)

    assert books.found() == {Fault.ASTRAY: 1}


def test_a_message_in_a_wrong_channel_is_found(books: Books) -> None:
    """It was for the inbox and came in the room."""
    books.deliver("bob", ROOM, 11, 12)

    assert Fault.ASTRAY in books.found()


def test_what_nobody_sent_is_found(books: Books) -> None:
    """With an id that is none of this run, or a number that was never given."""
    books.deliver("bob", ROOM, 11, STRAY)
    books.deliver("carol", ROOM, 11, 99)

    assert books.found() == {Fault.ASTRAY: 2}


def test_a_changed_content_is_found(books: Books) -> None:
    """One bit is enough, and so is another sender's name on it."""
    books.ledger.readings["bob", ROOM].digests[2] ^= 1
    books.take("carol", INBOX, 4)
    books.deliver("carol", INBOX, 5, 14, by="mallory")

    assert books.found() == {Fault.CHANGED: 2}


def test_a_new_epoch_begins_at_one_again(books: Books) -> None:
    """A log that was lost starts anew: its order is its own, and its readers are told."""
    number, _ = books.ledger.send(ROOM, "alice", b'{"n":15}')
    books.ledger.acknowledge(number, "e2", 1)
    for reader in MEMBERS:
        books.start(reader, ROOM, 0, epoch="e2")
        books.deliver(reader, ROOM, 1, number, epoch="e2")

    assert books.found() == {}


def test_a_new_epoch_that_nobody_was_told_of_is_found(books: Books) -> None:
    """Its numbers say nothing to whoever holds a position in the old one."""
    number, _ = books.ledger.send(ROOM, "alice", b'{"n":15}')
    books.ledger.acknowledge(number, "e2", 11)
    for reader in MEMBERS:
        books.deliver(reader, ROOM, 11, number, epoch="e2")

    assert books.found() == {Fault.HOLED: 3}


def test_a_gap_that_was_told_is_no_loss(books: Books) -> None:
    """Acknowledged, lost with the engine, and every reader was told before it got anything else."""
    for number in (15, 16):
        books.ledger.send(ROOM, "alice", b'{"n":%d}' % number)
    books.ledger.acknowledge(15, "e1", 11)
    books.ledger.acknowledge(16, "e2", 2)
    for reader in MEMBERS:
        books.start(reader, ROOM, 1, epoch="e2")
        books.deliver(reader, ROOM, 2, 16, epoch="e2")
    verdict = check(books.ledger)

    assert verdict.clean
    assert verdict.told == 3


def test_a_gap_says_nothing_of_what_comes_after_it(books: Books) -> None:
    """Neither of what is lost later in the new epoch, nor of an epoch that came when nobody was told any more."""
    for number, (epoch, seq) in enumerate((("e2", 3), ("e3", 1)), 15):
        books.ledger.send(ROOM, "alice", b"x")
        if number == 15:
            for reader in MEMBERS:
                books.start(reader, ROOM, 2, epoch="e2")
        books.ledger.acknowledge(number, epoch, seq)

    assert books.found() == {Fault.LOST: 6}


def test_a_gap_says_nothing_of_what_was_told_before_it(books: Books) -> None:
    """A hole in the middle stays one."""
    books.take("bob", ROOM, 4)
    reading = books.ledger.readings["bob", ROOM]
    books.start("bob", ROOM, 0, epoch="e2")

    assert reading.starts[-1][0] == 9
    assert books.found() == {Fault.LOST: 1, Fault.HOLED: 1}


def test_a_message_repeated_to_a_log_that_forgot_it_is_no_double(books: Books) -> None:
    """Its first `ack` was lost, and then the log: it has a place in both epochs, and in each only one."""
    number, _ = books.ledger.send(ROOM, "alice", b'{"n":15}')
    for epoch in ("e1", "e2"):
        books.ledger.acknowledge(number, epoch, 11)
        for reader in MEMBERS:
            if epoch == "e2":
                books.start(reader, ROOM, 10, epoch=epoch)
            books.deliver(reader, ROOM, 11, number, epoch=epoch)
    assert books.found() == {}

    books.deliver("bob", ROOM, 12, number, epoch="e2")
    assert set(books.found()) == {Fault.DOUBLED}


def test_many_faults_are_counted_and_few_told(books: Books) -> None:
    """A run that loses everything does not print everything."""
    for number in range(15, 1015):
        books.ledger.send(ROOM, "alice", b"x")
        books.ledger.acknowledge(number, "e1", number - 4)
    verdict = check(books.ledger)

    assert verdict.findings.counts[Fault.LOST] == 3000
    assert len(verdict.findings.told) == 10


def test_ids_are_unique_and_lead_back() -> None:
    """An id of somebody else is a stray."""
    ledger = Ledger({ROOM: ("alice",)})
    ids = [ledger.send(ROOM, "alice", b"x")[1] for _ in range(100)]

    assert [ledger.number(id) for id in ids] == list(range(100))
    assert {ledger.number(id) for id in (None, "", "k-", "k-x", "q-1", "k--1")} == {STRAY}


def test_a_reading_is_small() -> None:
    """Three minutes at 20,000 deliveries a second have to fit."""
    reading = Reading()
    columns = (reading.epochs, reading.seqs, reading.numbers, reading.digests)

    assert sum(column.itemsize for column in columns) <= 28
