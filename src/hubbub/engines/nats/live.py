"""A channel in NATS that this node listens to: each publication told once, in order, and what was missed read.

The bus says of each publication which one was before it, but not of which log it is: that shows by when it was stored,
or by a look at the stream. Nothing here waits.
"""

from __future__ import annotations

from collections import deque

from hubbub.engines.base import Accepted
from hubbub.engines.nats.notes import Note, seconds
from hubbub.engines.nats.reading import Ends, Found
from hubbub.engines.nats.streams import Stream
from hubbub.engines.shared.live import Ears, LiveChannel, Submission

__all__ = ["Live"]


class Live(LiveChannel[Note, int]):
    """See `LiveChannel`; what follows says what it follows, and when it was stored."""

    __slots__ = ("_anew", "_from", "_opened", "_run", "_stamp", "newest", "sid", "stream")

    def __init__(self, name: str, stream: Stream, run: str, ears: Ears) -> None:
        super().__init__(name, ears)
        self.stream = stream
        # Of the subscription.
        self.sid = 0
        self._run = run

        # When the newest of what was told was published, or in seconds of the Unix epoch, when the channel was opened.
        self._stamp = b""
        self._opened = 0.0
        # Where the newest message stands that was there when the channel was opened, or has been told since; and from
        # where on everything is known.
        self.newest = 0
        self._from = 0
        # Whether the log is another one, of which it is not known yet what has been told.
        self._anew = False

    def open(self, ends: Ends, now: float) -> None:
        """Everything up to there counts as told; what came since the subscription follows."""
        self.epoch = ends.epoch
        self.told = self._from = ends.seq
        self.newest = ends.last
        self._opened = now
        self._go_on()
        # It may have become another one while it was asked where it ends.
        self.begin_anew(self.stream.epoch)

    def filled(self, found: Found) -> None:
        """The log has been read after `told`."""
        self._reading = False
        if not self.epoch:
            return
        if found.epoch != self.epoch:
            # It was read before the log became another one.
            self.fill()
            return
        if not found.complete:
            # Of another log, too: who has begun in that meanwhile may miss something.
            self._lose()
        for index, note in enumerate(found.notes):
            seq = note.seq or 0
            if seq <= self.told:
                continue
            if not index and found.complete:
                # It follows where it was read from, which may be a place where no message stands.
                note.publication.prev = None if self.newest == seq - 1 else self.newest
            if self._anew and seconds(note.stamp) <= self._since():
                # It was in the log before, and has been told.
                self.told = self.newest = seq
            else:
                self._tell(note, seq)
                self._settle(note)
        # What is not shown, for it is too old or garbage, will not be told either.
        self.told = max(self.told, found.read)
        if found.more:
            self.fill()
        else:
            self._anew = False
            self._go_on()

    def compared(self, ends: Ends, first: int) -> None:
        """It has been looked where the log ends; `first`: the first place in the stream, or 0 not to look at that."""
        if not self.epoch:
            return
        if ends.epoch != self.epoch:
            self.begin_anew(ends.epoch)
        if self._kept is not None:
            # It is being read anyway, or should be.
            self.fill()
            return
        if ends.last > self.told:
            self.fill()
            return
        if not ends.last and first > self.told + 1:
            # Nothing is there, and what may have been is gone.
            self._lose()
        # Nothing of the channel is between. A quiet one moves on with its stream, which may drop what is behind.
        self.told = max(self.told, ends.seq)

    def begin_anew(self, epoch: str) -> None:
        """The log is another one, perhaps."""
        if self.epoch and epoch and epoch != self.epoch:
            self._lose()
            self.epoch, self.told, self.newest, self._anew = epoch, 0, 0, True
            self._from = 0
            # What was kept aside is of the log that was: its places would be taken for such of this one.
            self._kept = deque(maxlen=self._kept.maxlen) if self._kept is not None else None
            self.fill()

    def follows(self, epoch: str, seq: int) -> bool:
        """Whether it is certain that nothing between `seq` and what was told has been dropped: there was nothing."""
        return self.epoch == epoch and max(self.newest, self._from) <= seq and self._kept is None

    def answered(self, submission: Submission[int], accepted: Accepted, now: float) -> None:
        """JetStream has taken a publication that was submitted here, and nobody may have been told of it yet."""
        if not self._held and self._passed(accepted.epoch, accepted.seq):
            self.finish(submission, accepted)
        else:
            # In the order of asking: also one that was there before waits for those that were asked for earlier.
            self._held[submission.tag] = submission, accepted, now

    # ------------------------------------------------------------------------------------------------ notes

    def _take(self, note: Note) -> bool:
        """Tell what follows; False where something is missing before it, and it was kept aside."""
        seq = note.seq
        if seq is None:
            if self.wanted:
                self._ears.tell(self.name, note.publication, note.origin)
            self._answer(note)
        elif seq > self.told:
            if note.prev > self.told:
                self.fill()
                self.heard(note)
                return False
            self._tell(note, seq)
            # In the very moment: for a sender without an echo the answer stands for the message.
            self._answer(note)
            self._let_go()
        elif seconds(note.stamp) > self._since():
            # Newer than what was told, with a number that has been: most likely it is another log.
            self.stream.doubted = True
        if self._waits:
            self._release()
        return True

    def _answer(self, note: Note) -> None:
        if note.run == self._run:
            submission = self.submissions.get(note.number)
            if submission is not None:
                self.finish(submission, Accepted(self.epoch, note.seq, prev=note.publication.prev))

    def _tell(self, note: Note, seq: int) -> None:
        publication = note.publication
        if not note.prev and self.newest and publication.prev == 0:
            # What was before it is gone from the log, and has been told all the same.
            publication.prev = None if self.newest == seq - 1 else self.newest
        # Whoever is not to be told gets the answer for it, now. One that was answered otherwise is told: the answer
        # was lost, and an error instead of it.
        answered = note.run == self._run and note.number not in self.submissions
        self.told = self.newest = seq
        self._stamp = note.stamp
        if self.wanted:
            self._ears.tell(self.name, publication, None if answered else note.origin)

    def _settle(self, note: Note) -> None:
        """What was submitted here has been told from the log."""
        self._answer(note)
        self._let_go()

    def _let_go(self) -> None:
        """Answer those that were held, up to the first of which nobody has been told yet."""
        while self._held:
            submission, accepted, _ = next(iter(self._held.values()))
            if not self._passed(accepted.epoch, accepted.seq):
                return
            self.finish(submission, accepted)

    def _since(self) -> float:
        return seconds(self._stamp) if self._stamp else self._opened

    def _go_on(self) -> None:
        """Nothing is missing any more: what was kept aside follows."""
        came, self._kept = self._kept or (), None
        # What is older than the stream was told by the one before it, which has been deleted meanwhile.
        kept = deque(note for note in came if note.seq is None or seconds(note.stamp) >= self.stream.created)
        strange = len(kept) < len(came)
        while kept:
            if not self._take(kept.popleft()):
                for later in kept:
                    self.heard(later)
                return
        if strange:
            # By another clock it may be of this one all the same; then it is in the log.
            self.fill()
            return
        self._release()
        # Whatever the bus has not brought by now it has lost.
        self._let_go()
