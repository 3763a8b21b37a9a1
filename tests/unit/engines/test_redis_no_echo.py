"""Who asked for no echo gets one thing for each message, in its place: the answer that stands for it, or itself."""

from __future__ import annotations

from msgspec import Raw

from hubbub.engines.base import Accepted
from hubbub.engines.redis.bus import Note
from hubbub.engines.redis.live import Entries, Live
from hubbub.engines.shared.live import Ears, Submission
from hubbub.errors import Unavailable
from hubbub.types import Publication

EPOCH = "e1"


def publication(seq: int) -> Publication:
    return Publication("chat", "alice", content=Raw(b"%d" % seq), seq=seq)


def note(seq: int, tag: str) -> Note:
    """Of a message that the session s1 does not want to hear."""
    return Note("m", EPOCH, seq, seq, tag, "s1", publication(seq))


def entries(*seqs: int) -> Entries:
    """A reading of the log; all that was found is of s1, who does not want to hear it."""
    found = [publication(seq) for seq in seqs]
    return Entries(EPOCH, -1, seqs[-1], 0, seqs[-1], False, found, ["s1"] * len(found))


class Line:
    """What s1 hears of one channel: `7` a message, `ack 7` an answer that stands for it, `again 7` one for nothing."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.live = Live("room:lobby", "bus", Ears(self._tell, lambda channel: None, lambda live: None))
        self.live.open(EPOCH, 0)

    def sends(self, tag: str) -> Submission[str]:
        submission = Submission(Publication("chat", "alice"), tag, self._answer)
        self.live.submissions[tag] = submission
        return submission

    def _tell(self, channel: str, publication: Publication, origin: str | None) -> None:
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
    line.sends("t1")
    line.live.heard(note(1, "t1"))
    line.live.answered(line.sends("t2"), Accepted(EPOCH, 2), 0.0)
    line.live.fill()
    line.live.filled(entries(2))

    assert line.heard == ["ack 1", "ack 2"]


def test_one_that_was_answered_with_an_error_is_heard() -> None:
    """The answer of Redis was lost: nothing has stood for the message."""
    line = Line()
    for tag in ("t1", "t2"):
        line.live.finish(line.sends(tag), Unavailable("Redis is away"))
    line.live.heard(note(1, "t1"))
    line.live.fill()
    line.live.filled(entries(2))

    assert line.heard == ["error", "error", "1", "2"]


def test_an_answer_to_a_second_try_stands_for_nothing() -> None:
    """The command was sent again, and Redis knew it: the message is heard from the log, whatever the bus says later."""
    for late in (False, True):
        line = Line()
        submission = line.sends("t1")
        if not late:
            line.live.answered(submission, Accepted(EPOCH, 1, duplicate=True), 0.0)
        line.live.fill()
        line.live.filled(entries(1))
        line.live.heard(note(1, "t1"))

        assert line.heard == ["1", "again 1"]


def test_an_answer_that_cannot_wait_for_its_place_stands_for_nothing() -> None:
    """Neither bus nor log can be had: the message is heard when they are back."""
    line = Line()
    line.live.answered(line.sends("t1"), Accepted(EPOCH, 1), 0.0)
    line.live.give_up(0.0, "away")
    line.live.fill()
    line.live.filled(entries(1))

    assert line.heard == ["again 1", "1"]
