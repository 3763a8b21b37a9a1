"""A channel that is listened to, where the bus may lose anything: who waits for what, and what does not follow yet.

Whatever the bus brings is told where it follows what has been told, and kept aside until the log has been read where it
does not. How a note shows whether it follows is each engine's own. Nothing here waits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from msgspec import Struct, structs

from hubbub.engines.base import Accepted
from hubbub.errors import Unavailable
from hubbub.types import Publication

__all__ = ["Ears", "LiveChannel", "Submission", "Wait"]

# What an engine's bus brings, and what the engine calls a publication on its way.
N = TypeVar("N")
T = TypeVar("T", bound=str | int)

# Notes that are kept aside while the log is read. Beyond, the oldest go: what they tell is in the log.
_MOST: Final = 1_000


class Submission(Struct, Generic[T], eq=False):
    """A publication on its way; `done` is called once."""

    publication: Publication
    # What this node calls it.
    tag: T
    # None once it has been called.
    done: Callable[[Accepted | Exception], object] | None

    def finish(self, outcome: Accepted | Exception) -> None:
        """Answer it, if that has not been done."""
        done, self.done = self.done, None
        if done is not None:
            if type(outcome) is Accepted and not outcome.duplicate:
                self.publication.seq, self.publication.prev = outcome.seq, outcome.prev
            done(outcome)


class Wait(Struct, frozen=True, gc=False):
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
    # Read the log of the channel (an engine's own kind) after what has been told, and call `filled` or `failed`.
    read: Callable[[Any], None]


class LiveChannel(ABC, Generic[N, T]):
    """One channel that is listened to; `wanted` says whether somebody still does.

    An engine adds `open`, `filled` and `answered`, for what they decide by is its own.
    """

    __slots__ = (
        "_ears",
        "_held",
        "_kept",
        "_reading",
        "_waits",
        "epoch",
        "name",
        "submissions",
        "told",
        "wanted",
    )

    def __init__(self, name: str, ears: Ears) -> None:
        self.name = name
        self.wanted = True
        self._ears = ears

        # Up to where everything has been told; no epoch before the log's end is known.
        self.epoch = ""
        self.told = 0

        # Publications of this node that are on their way, by their tags.
        self.submissions: dict[T, Submission[T]] = {}
        # Those of them that the server has answered and nobody has been told of, with the time of that; in that order.
        self._held: dict[T, tuple[Submission[T], Accepted, float]] = {}
        # Who waits until something has been told, in the order of coming.
        self._waits: list[Wait] = []

        # What came and does not follow; None while everything does.
        self._kept: deque[N] | None = deque(maxlen=_MOST)
        self._reading = False

    def heard(self, note: N) -> None:
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

    def wait(self, epoch: str, seq: int, told: Callable[[Exception | None], None], now: float) -> None:
        """Call `told` when everything up to `seq` has been told, perhaps at once; or with `Unavailable`."""
        if self._passed(epoch, seq):
            told(None)
        else:
            self._waits.append(Wait(epoch, seq, told, now))

    def finish(self, submission: Submission[T], outcome: Accepted | Exception) -> None:
        """Answer a submission."""
        self.submissions.pop(submission.tag, None)
        self._held.pop(submission.tag, None)
        submission.finish(outcome)

    def give_up(self, since: float, why: str) -> None:
        """Whoever has waited since then has waited long enough: neither the bus nor the log can be had."""
        for submission, accepted, held in list(self._held.values()):
            if held <= since:
                # The server has it, whenever the listeners will be told, the sender's session among them.
                self.finish(submission, structs.replace(accepted, duplicate=True))
        for wait in [wait for wait in self._waits if wait.since <= since]:
            self._waits.remove(wait)
            wait.told(Unavailable(why))

    def close(self) -> None:
        """Nobody listens any more, and nothing more comes: whoever waits has waited long enough."""
        self.epoch = ""
        self._kept = deque(maxlen=_MOST)
        self._release()
        for submission, accepted, _ in list(self._held.values()):
            self.finish(submission, accepted)

    @abstractmethod
    def _take(self, note: N) -> bool:
        """Tell what follows; False where something is missing before it, and it was kept aside."""

    def _lose(self) -> None:
        if self.wanted:
            self._ears.lost(self.name)

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
