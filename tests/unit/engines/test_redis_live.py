"""A channel that is heard from a bus which may lose anything: each publication told once and in order, or said lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from hubbub.engines.base import Accepted
from hubbub.engines.redis.bus import Note
from hubbub.engines.redis.live import Entries, Live
from hubbub.engines.shared.live import Ears, Submission
from hubbub.errors import Unavailable
from hubbub.types import Publication

EPOCH = "e1"


def publication(text: str, seq: int | None = None) -> Publication:
    return Publication("chat", "alice", content=Raw(text.encode()), seq=seq)


def note(seq: int, *, epoch: str = EPOCH, tag: str = "", count: int = 0, origin: str | None = None) -> Note:
    """A publication whose text is its number."""
    return Note("m", epoch, seq, count or seq, tag, origin, publication(str(seq), seq))


def volatile(text: str, tag: str = "") -> Note:
    return Note("v", "-", 0, 0, tag, None, publication(text))


def entries(
    *seqs: int, end: int, epoch: str = EPOCH, base: int = -1, dropped: int = 0, more: bool = False, count: int = 0
) -> Entries:
    """A reading of the log that found these."""
    found = [publication(str(seq), seq) for seq in seqs]
    return Entries(epoch, base, end, dropped, count or end, more, found, [None] * len(found))


class Heard:
    """A channel, with what it tells and asks for written down."""

    def __init__(self, told: int | None = 0) -> None:
        # What is told, in order; `lost` where that is told.
        self.told: list[str] = []
        # After which places the log is being read, or has been.
        self.readings: list[int] = []
        self.origins: list[str | None] = []
        self.live = Live("room:lobby", "bus", Ears(self._tell, self._lost, self._read))
        if told is not None:
            self.live.open(EPOCH, told)

    def hears(self, *notes: Note) -> None:
        for one in notes:
            self.live.heard(one)

    def _tell(self, channel: str, publication: Publication, origin: str | None) -> None:
        self.told.append(bytes(publication.content).decode())
        self.origins.append(origin)

    def _lost(self, channel: str) -> None:
        self.told.append("lost")

    def _read(self, live: Live) -> None:
        self.readings.append(live.told)


class Sent:
    """A submission of this node, and what it was answered."""

    def __init__(self, heard: Heard, tag: str = "t1") -> None:
        self.answers: list[Accepted | Exception] = []
        # How much had been told when it was answered.
        self.told_before: list[int] = []
        self._heard = heard
        self.publication = publication("mine")
        self.submission = Submission(self.publication, tag, self._done)
        heard.live.submissions[tag] = self.submission

    def _done(self, outcome: Accepted | Exception) -> None:
        self.answers.append(outcome)
        self.told_before.append(len(self._heard.told))


# ---------------------------------------------------------------------------------------------------- in order


def test_what_follows_is_told_at_once() -> None:
    """With whom not to tell, and without a look at the log."""
    heard = Heard()
    heard.hears(note(1), note(2, origin="s1"))

    assert heard.told == ["1", "2"]
    assert heard.origins == [None, "s1"]
    assert heard.readings == []


def test_what_came_before_the_place_is_known_waits_for_it() -> None:
    """The subscription is older than the reading of where the log ends."""
    heard = Heard(told=None)
    heard.hears(note(4), note(5), note(6))
    heard.live.open(EPOCH, 4)

    assert heard.told == ["5", "6"]


def test_nothing_is_told_twice() -> None:
    """What has been told may come again: the log was faster than the bus."""
    heard = Heard(told=2)
    heard.hears(note(2), note(3), note(3), note(1))

    assert heard.told == ["3"]


def test_volatile_ones_have_no_place_and_wait_for_none() -> None:
    """They are told where they come, but not ahead of what came earlier and is kept aside."""
    heard = Heard()
    heard.hears(note(1), volatile("now"), note(3), volatile("later"))

    assert heard.told == ["1", "now"]

    heard.live.filled(entries(2, 3, end=3))

    assert heard.told == ["1", "now", "2", "3", "later"]


def test_nobody_is_told_when_nobody_listens_any_more() -> None:
    """The place goes on, for whoever comes back."""
    heard = Heard()
    heard.live.wanted = False
    heard.hears(note(1), volatile("now"))
    heard.live.wanted = True
    heard.hears(note(2))

    assert heard.told == ["2"]


# ------------------------------------------------------------------------------------------------------- holes


def test_a_hole_is_filled_from_the_log() -> None:
    """What came behind it is kept aside, and follows."""
    heard = Heard()
    heard.hears(note(1), note(4), note(5))

    assert (heard.told, heard.readings) == (["1"], [1])

    heard.live.filled(entries(2, 3, 4, end=4))
    heard.hears(note(6))

    assert heard.told == ["1", "2", "3", "4", "5", "6"]
    assert heard.readings == [1]


def test_a_long_hole_is_read_page_by_page() -> None:
    """One reading at a time."""
    heard = Heard()
    heard.hears(note(5), note(6))
    heard.live.filled(entries(1, 2, end=6, more=True))
    heard.live.filled(entries(3, 4, end=6, more=True))
    heard.live.filled(entries(5, 6, end=6))

    assert heard.told == ["1", "2", "3", "4", "5", "6"]
    assert heard.readings == [0, 2, 4]


def test_a_hole_behind_a_hole() -> None:
    """Found when what was kept aside is told."""
    heard = Heard()
    heard.hears(note(2), note(5))
    heard.live.filled(entries(1, 2, 3, end=3))

    assert (heard.told, heard.readings) == (["1", "2", "3"], [0, 3])

    heard.live.filled(entries(4, 5, end=5))

    assert heard.told == ["1", "2", "3", "4", "5"]


def test_a_reading_that_fails_is_owed() -> None:
    """Nothing is told until it has been done, and somebody is asked to try again."""
    heard = Heard()
    heard.hears(note(2))
    heard.live.failed()
    heard.hears(note(3))

    assert heard.live.behind and heard.told == []

    heard.live.fill()
    heard.live.filled(entries(1, 2, 3, end=3))

    assert heard.told == ["1", "2", "3"] and not heard.live.behind


def test_what_is_kept_aside_is_bounded() -> None:
    """The oldest go first, and are read from the log: nothing is missing in the end."""
    heard = Heard()
    heard.hears(*(note(seq) for seq in range(2, 3_000)))
    heard.live.filled(entries(1, 2, end=2))
    heard.live.filled(entries(*range(3, 3_000), end=2_999))

    assert heard.told == [str(seq) for seq in range(1, 3_000)]


@given(st.lists(st.sampled_from(["told", "lost", "read"]), max_size=60), st.integers(1, 5))
def test_whatever_the_bus_loses_everything_is_told_in_order(steps: list[str], page: int) -> None:
    """However late the log is read, and in however many pages."""
    heard, end = Heard(), 0

    def read() -> None:
        begin = heard.readings[-1] + 1
        last = min(end, begin + page - 1)
        heard.live.filled(entries(*range(begin, last + 1), end=end, more=last < end))

    for step in steps:
        if step != "read":
            end += 1
        if step == "told":
            heard.hears(note(end))
        elif step == "read" and heard.live._reading:
            read()
    heard.live.fill()
    while heard.live._reading:
        read()

    assert heard.told == [str(seq) for seq in range(1, end + 1)]


# -------------------------------------------------------------------------------------------------------- lost


def test_what_retention_has_dropped_is_lost() -> None:
    """Told before what is there still, and once."""
    heard = Heard()
    heard.hears(note(9))
    heard.live.filled(entries(7, 8, 9, end=9, dropped=6))

    assert heard.told == ["lost", "7", "8", "9"]


def test_a_log_that_begins_anew_is_told_from_its_beginning() -> None:
    """With another epoch; what the bus told of it before is told in its place."""
    heard = Heard(told=5)
    heard.hears(note(1, epoch="e2", count=6), note(2, epoch="e2", count=7))

    assert heard.told == []

    heard.live.filled(entries(end=2, epoch="e2", count=7))
    heard.live.filled(entries(1, 2, end=2, epoch="e2", count=7))

    assert heard.told == ["lost", "1", "2"]


def test_what_is_left_of_the_old_log_is_not_told_again() -> None:
    """The new epoch began behind what was kept: the log goes on with the numbers that it had."""
    heard = Heard(told=5)
    heard.live.rejoined()
    heard.live.fill()
    heard.live.filled(entries(end=4, epoch="e2", base=3))
    heard.live.filled(entries(4, end=4, epoch="e2", base=3))

    assert heard.told == ["lost", "4"]


def test_a_log_that_is_shorter_than_what_was_told_is_another_one() -> None:
    """Also where it calls itself the same."""
    heard = Heard(told=5)
    heard.live.fill()
    heard.live.filled(entries(end=3))
    heard.live.filled(entries(1, 2, 3, end=3))

    assert heard.told[0] == "lost"


def test_a_late_note_of_the_old_log_is_dropped() -> None:
    """It comes when the new one is already known, and starts nothing."""
    heard = Heard(told=5)
    heard.hears(note(1, epoch="e2", count=9))
    heard.live.filled(entries(end=1, epoch="e2", count=9))
    heard.hears(note(6, count=8))
    heard.live.filled(entries(1, end=1, epoch="e2", count=9))

    assert heard.told == ["lost", "1"]
    assert not heard.live.behind


# ----------------------------------------------------------------------------------------------------- answers


def test_a_sender_is_answered_in_the_moment_of_the_message() -> None:
    """Behind what comes before, ahead of what comes after: for whoever gets no echo the answer stands for it."""
    heard = Heard()
    sent = Sent(heard)
    heard.hears(note(1), note(2, tag="t1"), note(3))

    assert sent.answers == [Accepted(EPOCH, 2)]
    assert sent.told_before == [2]
    assert sent.publication.seq == 2


def test_an_answer_that_is_ahead_of_the_bus_waits_for_it() -> None:
    """The connection for commands was faster."""
    heard = Heard()
    sent = Sent(heard)
    heard.live.answered(sent.submission, Accepted(EPOCH, 2), 0.0)

    assert sent.answers == [] and heard.live.late == 0.0

    heard.hears(note(1), note(2, tag="t1"))

    assert sent.answers == [Accepted(EPOCH, 2)] and heard.live.late is None


def test_an_answer_whose_message_the_bus_has_lost_comes_with_the_log() -> None:
    """In its place, too."""
    heard = Heard()
    sent = Sent(heard)
    heard.live.answered(sent.submission, Accepted(EPOCH, 2), 0.0)
    heard.live.fill()
    heard.live.filled(entries(1, 2, 3, end=3))

    assert sent.answers == [Accepted(EPOCH, 2)]
    assert sent.told_before == [2]


def test_a_retry_is_answered_by_its_own_note() -> None:
    """And nothing is told of it."""
    heard = Heard(told=7)
    sent = Sent(heard)
    heard.hears(Note("d", EPOCH, 3, 7, "t1", None, None))

    assert sent.answers == [Accepted(EPOCH, 3, True)]
    assert heard.told == []


def test_who_waits_too_long_is_answered_with_what_is_known() -> None:
    """A publication is in Redis, whenever it is told, so the answer stands for nothing; a reading cannot be given."""
    heard = Heard()
    sent = Sent(heard)
    waited: list[Exception | None] = []
    heard.live.answered(sent.submission, Accepted(EPOCH, 2), 1.0)
    heard.live.wait(EPOCH, 2, waited.append, 1.5)
    heard.live.give_up(1.0, "away")

    assert sent.answers == [Accepted(EPOCH, 2, True)] and waited == []

    heard.live.give_up(1.5, "away")

    assert [type(error) for error in waited] == [Unavailable]


def test_a_reading_waits_until_its_answer_has_been_told() -> None:
    """At once, where it has; and where the epoch is another one, the log is looked at."""
    heard = Heard(told=2)
    waited: list[Exception | None] = []
    heard.live.wait(EPOCH, 2, waited.append, 0.0)

    assert waited == [None]

    heard.live.wait(EPOCH, 3, waited.append, 0.0)
    heard.hears(note(3))

    assert waited == [None, None]

    heard.live.wait("e2", 1, waited.append, 0.0)

    assert heard.readings == [3] and len(waited) == 2

    heard.live.filled(entries(end=1, epoch="e2"))
    heard.live.filled(entries(1, end=1, epoch="e2"))

    assert waited == [None, None, None]


def test_when_nobody_listens_any_more_nobody_waits() -> None:
    """Everybody is answered, once."""
    heard = Heard()
    sent = Sent(heard)
    waited: list[Exception | None] = []
    heard.live.answered(sent.submission, Accepted(EPOCH, 5), 0.0)
    heard.live.wait(EPOCH, 5, waited.append, 0.0)
    heard.live.close()
    heard.live.close()

    assert sent.answers == [Accepted(EPOCH, 5)] and waited == [None]
