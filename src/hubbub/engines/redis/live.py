"""A channel in Redis that this node listens to: each publication told once, in order, and what was missed read.

The bus says of each publication where it stands, and an answer may come before it or behind it: they are of two
connections. Pure but for the callbacks: nothing here waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from msgspec import Struct

from hubbub.engines.base import Accepted
from hubbub.engines.redis.bus import Note
from hubbub.engines.shared.live import Ears, LiveChannel, Submission, Wait
from hubbub.types import Publication

__all__ = ["Entries", "Live"]


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


class Live(LiveChannel[Note, str]):
    """See `LiveChannel`; what follows has the next number in the same epoch."""

    __slots__ = ("_joined", "bus")

    def __init__(self, name: str, bus: str, ears: Ears) -> None:
        super().__init__(name, ears)
        self.bus = bus
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
        """See `LiveChannel.wait`."""
        if epoch == self.epoch:
            super().wait(epoch, seq, told, now)
        else:
            # It was found in another log, of which nothing has been told.
            self._waits.append(Wait(epoch, seq, told, now))
            self.fill()

    def answered(self, submission: Submission[str], accepted: Accepted, now: float) -> None:
        """Redis has taken a publication that was submitted here, and nobody may have been told of it yet."""
        if self._passed(accepted.epoch, accepted.seq) and accepted.seq is not None and not accepted.duplicate:
            self.finish(submission, accepted)
        else:
            self._held[submission.tag] = submission, accepted, now

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

    def _held_at(self, seq: int) -> list[tuple[Submission[str], Accepted]]:
        """What was submitted here, and stands at `seq`."""
        return [
            (submission, accepted)
            for submission, accepted, _ in self._held.values()
            if accepted.seq == seq and accepted.epoch == self.epoch
        ]

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
