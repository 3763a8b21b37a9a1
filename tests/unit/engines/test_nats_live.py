"""A channel heard from a stream: what whoever asked for no echo gets in the place of a message, and what is `prev`."""

from __future__ import annotations

from msgspec import Raw, structs

from hubbub.engines.base import Accepted
from hubbub.engines.nats.live import Live
from hubbub.engines.nats.notes import Note, seconds
from hubbub.engines.nats.reading import Ends, Found
from hubbub.engines.nats.streams import Stream
from hubbub.engines.shared.live import Ears, Submission
from hubbub.errors import Unavailable
from hubbub.types import Publication

EPOCH, RUN = "e1", "run1"
STAMP = b"2026-01-01T00:00:00Z"


def note(seq: int, number: int, prev: int | None = None) -> Note:
    """Of a message that the session s1 does not want to hear."""
    prev = seq - 1 if prev is None else prev
    publication = Publication("chat", "alice", content=Raw(b"%d" % seq), seq=seq)
    publication.prev = None if prev == seq - 1 else prev
    return Note(seq, prev, STAMP, RUN, number, "s1", publication)


class Line:
    """What s1 hears of one channel: `7` a message, `ack 7` an answer that stands for it, `again 7` one for nothing."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.prevs: list[int | None] = []
        self.stream = Stream("rooms", "hubbub-rooms", {})
        self.stream.epoch = EPOCH
        ears = Ears(self._tell, lambda channel: self.heard.append("lost"), lambda live: None)
        self.live = Live("room:lobby", self.stream, RUN, ears)
        self.live.open(Ends(EPOCH, 0, 0), 0.0)

    def sends(self, number: int) -> Submission[int]:
        submission = Submission(Publication("chat", "alice"), number, self._answer)
        self.live.submissions[number] = submission
        return submission

    def reads(self, *notes: Note) -> None:
        self.live.fill()
        self.live.filled(Found(EPOCH, list(notes), complete=True, more=False))

    def _tell(self, channel: str, publication: Publication, origin: str | None) -> None:
        self.prevs.append(publication.prev)
        if origin != "s1":
            self.heard.append(f"{publication.seq}")

    def _answer(self, outcome: Accepted | Exception) -> None:
        if isinstance(outcome, Exception):
            self.heard.append("error")
        else:
            self.heard.append(f"{'again' if outcome.duplicate else 'ack'} {outcome.seq}")


def test_the_answer_stands_for_the_message() -> None:
    """By the bus, or from the log where the bus has lost it."""
    line = Line()
    line.sends(1)
    line.live.heard(note(1, 1))
    line.live.answered(line.sends(2), Accepted(EPOCH, 2), 0.0)
    line.reads(note(2, 2))

    assert line.heard == ["ack 1", "ack 2"]


def test_one_that_was_answered_with_an_error_is_heard() -> None:
    """The answer of JetStream was lost: nothing has stood for the message."""
    line = Line()
    for number in (1, 2):
        line.live.finish(line.sends(number), Unavailable("NATS is away"))
    line.live.heard(note(1, 1))
    line.reads(note(2, 2))

    assert line.heard == ["error", "error", "1", "2"]


def test_an_answer_that_cannot_wait_for_its_place_stands_for_nothing() -> None:
    """Neither bus nor log can be had: the message is heard when they are back."""
    line = Line()
    line.live.answered(line.sends(1), Accepted(EPOCH, 1), 0.0)
    line.live.give_up(0.0, "away")
    line.reads(note(1, 1))

    assert line.heard == ["again 1", "1"]


def test_a_place_where_no_message_stands_is_no_prev() -> None:
    """A quiet channel moves on with its stream, and its readers do not: they would see a hole before the first message.

    But one whose messages were dropped names the last of them: whoever is not there has missed it.
    """
    for told in (0, 3):
        line = Line()
        if told:
            line.live.heard(note(told, 9, prev=0))
        line.live.compared(Ends(EPOCH, 0, 10), 0)
        line.live.heard(note(11, 9, prev=0))

        assert line.prevs[-1] == told

        line.live.compared(Ends(EPOCH, 11, 20), 0)
        line.reads(note(21, 9, prev=20))

        assert line.prevs[-1] == 11


def test_a_log_that_becomes_another_one_while_it_is_opened_is_told() -> None:
    """Where it ended says nothing any more: who has a position is asked to come back, and nothing is passed over."""
    line = Line()
    line.live = Live("room:lobby", line.stream, RUN, line.live._ears)
    line.stream.epoch = "e2"
    line.live.begin_anew("e2")
    line.live.open(Ends(EPOCH, 0, 500), 0.0)
    line.live.filled(Found("e2", [note(7, 9)], complete=True, more=False))
    line.live.heard(note(8, 9))

    assert (line.live.epoch, line.live.told) == ("e2", 8)
    assert line.heard[0] == "lost"


def test_what_was_read_of_the_log_before_is_read_again() -> None:
    """The reading began before it became another one, and does not make it the old one again."""
    line = Line()
    line.live.fill()
    line.live.begin_anew("e2")
    line.live.filled(Found(EPOCH, [note(3, 9)], complete=True, more=False))

    assert line.live.epoch == "e2" and not line.live.behind
    assert line.heard == ["lost"]


def test_what_was_kept_aside_is_not_taken_for_the_next_logs() -> None:
    """It has the places of a log that was, where something else stands in the one that is."""
    line = Line()
    line.live.heard(note(1, 1))
    # While it is read, what does not follow is kept aside; and then the log is another one.
    line.live.heard(note(64, 2, prev=63))
    line.live.begin_anew("e2")
    new = structs.replace(note(63, 3, prev=0), stamp=b"2026-01-01T00:00:01Z")
    line.live.filled(Found("e2", [new], complete=True, more=False))

    assert line.heard == ["1", "lost", "63"]
    assert line.live.told == 63


def test_what_is_older_than_its_stream_is_of_another() -> None:
    """Heard since the subscription, and before it was asked where the log ends: that is another one's end."""
    line = Line()
    line.stream.created = seconds(STAMP) + 1
    live = Live("room:lobby", line.stream, RUN, line.live._ears)
    live.heard(note(64, 2, prev=30))
    live.open(Ends(EPOCH, 30, 30), 0.0)
    # Which is looked at once more: by another clock it may be of this one.
    assert live._reading
    live.filled(Found(EPOCH, [], complete=True, more=False))

    assert line.heard == [] and live.told == 30
