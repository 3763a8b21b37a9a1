"""A channel that this node listens to: each publication told once, in order, and what was missed read from the log.

The bus may lose anything, and says of each publication which one was before it. So here is what has been told, and
whatever does not follow it is kept aside until the log has been read. Nothing here waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from msgspec import Struct, structs

from hubbub.engines.base import Accepted
from hubbub.engines.nats.notes import Note, seconds
from hubbub.engines.nats.reading import Ends, Found
from hubbub.engines.nats.streams import Stream
from hubbub.errors import Unavailable
from hubbub.types import Publication

__all__ = ["Ears", "Live", "Submission"]

# Notes that are kept aside while the log is read. Beyond, the oldest go: what they tell is in the log.
_MOST: Final = 1_000


class Submission:
    """A publication on its way; `done` is called once."""

    __slots__ = ("body", "channel", "done", "live", "number", "publication", "since", "volatile")

    def __init__(
        self, channel: str, publication: Publication, volatile: bool, done: Callable[[Accepted | Exception], object]
    ) -> None:
        self.channel = channel
        self.publication = publication
        self.volatile = volatile
        self.body = b""
        # What this node calls it, and when it was sent (the loop's clock).
        self.number = 0
        self.since = 0.0
        # The channel, where this node listens to it.
        self.live: Live | None = None
        # None once it has been called.
        self.done: Callable[[Accepted | Exception], object] | None = done

    def finish(self, outcome: Accepted | Exception) -> None:
        """Answer it, if that has not been done."""
        done, self.done = self.done, None
        if done is not None:
            if type(outcome) is Accepted and not outcome.duplicate:
                self.publication.seq, self.publication.prev = outcome.seq, outcome.prev
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
        "_anew",
        "_ears",
        "_from",
        "_held",
        "_kept",
        "_opened",
        "_reading",
        "_run",
        "_stamp",
        "_waits",
        "epoch",
        "name",
        "newest",
        "sid",
        "stream",
        "submissions",
        "told",
        "wanted",
    )

    def __init__(self, name: str, stream: Stream, run: str, ears: Ears) -> None:
        self.name = name
        self.stream = stream
        # Of the subscription.
        self.sid = 0
        self.wanted = True
        self._run = run
        self._ears = ears

        # Up to where everything has been told; no epoch before `open`. When the newest of it was published, or in
        # seconds of the Unix epoch, when the channel was opened.
        self.epoch = ""
        self.told = 0
        # Where the newest message stands that was there when the channel was opened, or has been told since; and from
        # where on everything is known.
        self.newest = 0
        self._from = 0
        self._stamp = b""
        self._opened = 0.0

        # Publications of this node that are on their way, by number.
        self.submissions: dict[int, Submission] = {}
        # Those of them that JetStream has answered and nobody has been told of, with the time of that; in that order.
        self._held: dict[int, tuple[Submission, Accepted, float]] = {}
        # Who waits until something has been told, in the order of coming.
        self._waits: list[_Wait] = []

        # What came and does not follow; None while everything does.
        self._kept: deque[Note] | None = deque(maxlen=_MOST)
        self._reading = False
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
            self.fill()

    def follows(self, epoch: str, seq: int) -> bool:
        """Whether it is certain that nothing between `seq` and what was told has been dropped: there was nothing."""
        return self.epoch == epoch and max(self.newest, self._from) <= seq and self._kept is None

    def wait(self, epoch: str, seq: int, told: Callable[[Exception | None], None], now: float) -> None:
        """Call `told` when everything up to `seq` has been told, perhaps at once; or with `Unavailable`."""
        if self._passed(epoch, seq):
            told(None)
        else:
            self._waits.append(_Wait(epoch, seq, told, now))

    def answered(self, submission: Submission, accepted: Accepted, now: float) -> None:
        """JetStream has taken a publication that was submitted here, and nobody may have been told of it yet."""
        if not self._held and self._passed(accepted.epoch, accepted.seq):
            self.finish(submission, accepted)
        else:
            # In the order of asking: also one that was there before waits for those that were asked for earlier.
            self._held[submission.number] = submission, accepted, now

    def finish(self, submission: Submission, outcome: Accepted | Exception) -> None:
        """Answer a submission."""
        self.submissions.pop(submission.number, None)
        self._held.pop(submission.number, None)
        submission.finish(outcome)

    def give_up(self, since: float) -> None:
        """Whoever has waited since then has waited long enough: neither the bus nor the log can be had."""
        for submission, accepted, held in list(self._held.values()):
            if held <= since:
                # JetStream has it, whenever the listeners will be told, the sender's session among them.
                self.finish(submission, structs.replace(accepted, duplicate=True))
        for wait in [wait for wait in self._waits if wait.since <= since]:
            self._waits.remove(wait)
            wait.told(Unavailable("NATS is away"))

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

    def _lose(self) -> None:
        if self.wanted:
            self._ears.lost(self.name)

    def _since(self) -> float:
        return seconds(self._stamp) if self._stamp else self._opened

    def _go_on(self) -> None:
        """Nothing is missing any more: what was kept aside follows."""
        kept, self._kept = deque(self._kept or ()), None
        while kept:
            if not self._take(kept.popleft()):
                for later in kept:
                    self.heard(later)
                return
        self._release()
        # Whatever the bus has not brought by now it has lost.
        self._let_go()

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
