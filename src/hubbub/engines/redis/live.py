"""A channel that this node listens to: each publication told once, in order, and what was missed read from the log.

The bus may lose anything, and says of each publication where it stands. So here is what has been told, and whatever
does not follow it is kept aside until the log has been read. Pure but for the callbacks: nothing here waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from msgspec import Struct, structs

from hubbub.engines.base import Accepted
from hubbub.engines.redis.bus import Note
from hubbub.errors import Unavailable
from hubbub.types import Publication

__all__ = ["Ears", "Entries", "Live", "Submission"]

# Notes that are kept aside while the log is read. Beyond, the oldest go: what they tell is in the log.
_MOST: Final = 1_000


class Entries(Struct, frozen=True, gc=False):
    """What a reading of the log found."""

    epoch: str
    # Where the epoch began (-1: with an empty log), where the log ends, and the newest seq that has been dropped.
    base: int
    seq: int
    dropped: int
    # How many publications the store had seen.
    count: int
    more: bool
    publications: list[Publication]
    # Of each.
    origins: list[str | None]


class Submission:
    """A publication on its way; `done` is called once."""

    __slots__ = ("done", "publication", "tag")

    def __init__(self, publication: Publication, tag: str, done: Callable[[Accepted | Exception], object]) -> None:
        self.publication = publication
        self.tag = tag
        # None once it has been called.
        self.done: Callable[[Accepted | Exception], object] | None = done

    def finish(self, outcome: Accepted | Exception) -> None:
        """Answer it, if that has not been done."""
        done, self.done = self.done, None
        if done is not None:
            if type(outcome) is Accepted and not outcome.duplicate:
                self.publication.seq = outcome.seq
            done(outcome)


class _Wait(Struct, frozen=True, gc=False):
    """Somebody who waits until everything up to a place has been told."""

    epoch: str
    seq: int
    # Gets None, or what is wrong.
    told: Callable[[Exception | None], None]
    since: float


class Ears(Struct, frozen=True):
    """Whom a channel tells, and what it asks for; none of them raises anything."""

    tell: Callable[[str, Publication, str | None], None]
    lost: Callable[[str], None]
    # Read the log of the channel after what has been told, and call `filled` or `failed`.
    read: Callable[[Live], None]


class Live:
    """One channel that is listened to; `wanted` says whether somebody still does."""

    __slots__ = (
        "_ears",
        "_held",
        "_joined",
        "_kept",
        "_reading",
        "_waits",
        "bus",
        "epoch",
        "name",
        "submissions",
        "told",
        "wanted",
    )

    def __init__(self, name: str, bus: str, ears: Ears) -> None:
        self.name = name
        self.bus = bus
        self.wanted = True
        self._ears = ears

        # Up to where everything has been told; no epoch before `open`.
        self.epoch = ""
        self.told = 0

        # Publications of this node that are on their way, by their tags.
        self.submissions: dict[str, Submission] = {}
        # Those of them that Redis has answered and nobody has been told of, with the time of that; in that order.
        self._held: dict[str, tuple[Submission, Accepted, float]] = {}
        # Who waits until something has been told, in the order of coming.
        self._waits: list[_Wait] = []

        # What came and does not follow; None while everything does.
        self._kept: deque[Note] | None = deque(maxlen=_MOST)
        self._reading = False

        # Where `told` stood when the bus was joined last: what was told since then is of the log as it is now.
        self._joined = 0

    def open(self, epoch: str, seq: int) -> None:
        """Everything up to `seq` counts as told; what came since the subscription follows."""
        self.epoch = epoch
        self.told = self._joined = seq
        self._go_on(0)

    def rejoined(self) -> None:
        """The bus is heard again after an interruption, perhaps that of another server."""
        self._joined = self.told

    def heard(self, note: Note) -> None:
        """Something came by the bus."""
        if self._kept is not None:
            self._kept.append(note)
        else:
            self._take(note)

    def fill(self) -> None:
        """Read what follows in the log: something is missing, or may be."""
        if self._kept is None:
            self._kept = deque(maxlen=_MOST)
        if not self._reading and self.epoch:
            self._reading = True
            self._ears.read(self)

    @property
    def late(self) -> float | None:
        """Since when somebody waits for what should have been told by now (the loop's clock); None: nobody does."""
        since = [self._waits[0].since] if self._waits else []
        if self._held:
            since.append(next(iter(self._held.values()))[2])
        return min(since, default=None)

    @property
    def behind(self) -> bool:
        """Whether something is missing that is not being read."""
        return self._kept is not None and not self._reading and bool(self.epoch)

    def failed(self) -> None:
        """The log could not be read: somebody will have to try again."""
        self._reading = False

    def filled(self, found: Entries) -> None:
        """The log has been read after `told`."""
        self._reading = False
        if not self.epoch:
            return
        if found.epoch != self.epoch or found.seq < self.told:
            self._lose()
            # What is new is behind the place where the epoch began, and some of it has been told in the one before.
            told = found.base
            if found.base >= 0 and self.told > self._joined:
                told = max(told, self.told)
            self.epoch = found.epoch
            self.told = self._joined = min(found.seq, max(told, found.dropped))
            self.fill()
            return
        if found.dropped > self.told:
            self._lose()
            self.told = found.dropped
        for publication, origin in zip(found.publications, found.origins, strict=True):
            seq = publication.seq or 0
            if seq > self.told:
                settled = self._held_at(seq)
                instead = any(not accepted.duplicate for _, accepted in settled)
                self._tell(publication, origin if instead else None, seq)
                for submission, accepted in settled:
                    self.finish(submission, accepted)
        if found.more:
            self.fill()
        else:
            self._go_on(found.count)

    def wait(self, epoch: str, seq: int, told: Callable[[Exception | None], None], now: float) -> None:
        """Call `told` when everything up to `seq` has been told, perhaps at once; or with `Unavailable`."""
        if epoch == self.epoch and seq <= self.told:
            told(None)
            return
        self._waits.append(_Wait(epoch, seq, told, now))
        if epoch != self.epoch:
            self.fill()

    def answered(self, submission: Submission, accepted: Accepted, now: float) -> None:
        """Redis has taken a publication that was submitted here, and nobody may have been told of it yet."""
        if self._passed(accepted.epoch, accepted.seq) and accepted.seq is not None and not accepted.duplicate:
            self.finish(submission, accepted)
        else:
            self._held[submission.tag] = submission, accepted, now

    def finish(self, submission: Submission, outcome: Accepted | Exception) -> None:
        """Answer a submission."""
        self.submissions.pop(submission.tag, None)
        self._held.pop(submission.tag, None)
        submission.finish(outcome)

    def give_up(self, since: float) -> None:
        """Whoever has waited since then has waited long enough: neither the bus nor the log can be had."""
        for submission, accepted, held in list(self._held.values()):
            if held <= since:
                # Redis has it, whenever the listeners will be told, the sender's session among them.
                self.finish(submission, structs.replace(accepted, duplicate=True))
        for wait in [wait for wait in self._waits if wait.since <= since]:
            self._waits.remove(wait)
            wait.told(Unavailable("Redis is away"))

    def close(self) -> None:
        """Nobody listens any more, and nothing more comes: whoever waits has waited long enough."""
        self.epoch = ""
        self._kept = deque(maxlen=_MOST)
        self._release()
        for submission, accepted, _ in list(self._held.values()):
            self.finish(submission, accepted)

    # ------------------------------------------------------------------------------------------------ notes

    def _take(self, note: Note) -> bool:
        """Tell what follows; False where something is missing before it, and it was kept aside."""
        submission = self.submissions.get(note.tag) if note.tag else None
        again = note.kind == "d"
        if note.kind == "m":
            if note.epoch != self.epoch or note.seq > self.told + 1:
                self.fill()
                self.heard(note)
                return False
            if note.seq > self.told:
                assert note.publication is not None
                # Whoever is not to be told gets the answer for it, now. One that was answered otherwise is told: the
                # answer was lost, and an error instead of it.
                answered = bool(note.tag) and submission is None
                self._tell(note.publication, None if answered else note.origin, note.seq)
            else:
                # It has been told from the log, to all: the answer to the first try was lost.
                again = True
        elif note.publication is not None and self.wanted:
            self._ears.tell(self.name, note.publication, note.origin)
        if submission is not None:
            # In the very moment: for a sender without an echo the answer stands for the message.
            self.finish(submission, Accepted(note.epoch, None if note.kind == "v" else note.seq, again))
        if self._waits:
            self._release()
        return True

    def _tell(self, publication: Publication, origin: str | None, seq: int) -> None:
        self.told = seq
        if self.wanted:
            self._ears.tell(self.name, publication, origin)

    def _held_at(self, seq: int) -> list[tuple[Submission, Accepted]]:
        """What was submitted here, and stands at `seq`."""
        return [
            (submission, accepted)
            for submission, accepted, _ in self._held.values()
            if accepted.seq == seq and accepted.epoch == self.epoch
        ]

    def _lose(self) -> None:
        if self.wanted:
            self._ears.lost(self.name)

    def _go_on(self, count: int) -> None:
        """Nothing is missing any more: what was kept aside follows."""
        kept, self._kept = deque(self._kept or ()), None
        newer = False
        while kept:
            note = kept.popleft()
            if note.kind == "m" and note.epoch != self.epoch:
                # Of the log that was, or of one that came after this reading.
                newer = newer or note.count > count
            elif not self._take(note):
                for later in kept:
                    self.heard(later)
                return
        if newer:
            self.fill()
        else:
            self._release()
            # Whatever the bus has not brought by now it has lost.
            for submission, accepted, _ in list(self._held.values()):
                if self._passed(accepted.epoch, accepted.seq):
                    self.finish(submission, accepted)

    def _passed(self, epoch: str, seq: int | None) -> bool:
        """Whether nothing will be told that comes before this place."""
        return seq is None or epoch != self.epoch or seq <= self.told

    def _release(self) -> None:
        waits, self._waits = self._waits, []
        for wait in waits:
            if self._passed(wait.epoch, wait.seq):
                wait.told(None)
            else:
                self._waits.append(wait)
