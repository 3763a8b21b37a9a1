"""Reading logs: direct gets, which any number of may be on their way, and what they say about what is gone.

JetStream does not say whether something between two messages has been dropped. But what is dropped is always the oldest
of a channel, and one more is stored than people are shown. So nothing behind a place is missing where a message at or
before that place is still there; and nothing is, where the stream begins no later and has all that it may keep.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec
from msgspec import Struct

from hubbub.engines.nats.link import Answer, Link, settle
from hubbub.engines.nats.notes import Note, pending_of, seconds, seq_of
from hubbub.engines.nats.places import Place, Places
from hubbub.engines.nats.streams import Stream, Streams
from hubbub.errors import Unavailable

__all__ = ["Ends", "Found", "Reader"]

log = logging.getLogger("hubbub.engines.nats")

# Bytes of one answer, beyond which JetStream cuts it short.
_BYTES: Final = 4_194_304
# Messages that are read rather than to look for the right place once more.
_WASTE: Final = 200
# Guesses at where a page begins.
_GUESSES: Final = 40


class Ends(Struct, frozen=True, gc=False):
    """Where a channel ends."""

    epoch: str
    # The newest message that is there, 0 where none is; and a place that nothing of the channel is behind.
    last: int
    seq: int


class Found(Struct, frozen=True):
    """Part of a log, oldest first."""

    epoch: str
    notes: list[Note]
    # Whether nothing between the asked place and these was dropped, and whether there is more.
    complete: bool
    more: bool


class _Part(Struct, frozen=True):
    # What came, and how many messages of the channel follow it.
    answers: list[Answer]
    pending: int

    @property
    def count(self) -> int:
        return len(self.answers) + self.pending

    @property
    def first(self) -> int:
        return seq_of(self.answers[0].head) if self.answers else 0


class Reader:
    """Reads logs."""

    def __init__(self, link: Link, streams: Streams, places: Places) -> None:
        self._link = link
        self._streams = streams
        self._places = places
        # What was in logs and could not be read.
        self.garbage = 0

    async def stream(self, channel: str) -> tuple[Stream, Place]:
        """The stream of a channel, which is there; raises `Unavailable`."""
        place = self._places.of(channel)
        stream = self._streams.of(place.kind, place.retention)
        if not stream.epoch:
            await self._streams.look(stream)
        return stream, place

    async def end(self, channel: str) -> Ends:
        """Where the channel ends; raises `Unavailable`."""
        stream, place = await self.stream(channel)
        # Seen before it is asked: so where the channel has nothing, it has nothing up to there.
        epoch, seen = stream.epoch, stream.seen
        last = await self._last(stream, place.subject)
        return Ends(epoch, last, last or seen)

    async def after(self, channel: str, seq: int, limit: int) -> Found:
        """Up to `limit` messages that follow `seq`; raises `Unavailable`."""
        stream, place = await self.stream(channel)
        epoch, size = stream.epoch, place.retention.size
        part = await self._part(stream, place, max(seq, 1), limit + 2)
        answers, before = part.answers, seq
        if part.first == seq != 0:
            complete = True
            answers = answers[1:]
        elif part.count > size:
            complete = False
            before = part.first
            answers = answers[1:]
        else:
            complete = await self._whole(stream, place, seq)
            if not complete:
                # Whatever was before the first, nobody is told of it.
                before = part.first - 1
        notes = self._notes(answers[:limit], before)
        young = self._young(notes, place)
        complete = complete and len(young) == len(notes)
        return Found(epoch, young, complete, len(answers) + part.pending > limit)

    async def before(self, channel: str, seq: int | None, limit: int) -> Found:
        """The last `limit` messages before `seq`, or of all; raises `Unavailable`."""
        stream, place = await self.stream(channel)
        epoch = stream.epoch
        whole = await self._part(stream, place, 1, 1)
        beyond = 0 if seq is None else (await self._part(stream, place, max(seq, 1), 1)).count
        # Those before `seq`; the oldest of all is not shown where it is one too many.
        there = max(0, whole.count - beyond)
        hidden = max(0, whole.count - place.retention.size)
        wanted = min(limit, max(0, there - hidden))
        if not wanted:
            return Found(epoch, [], complete=True, more=there > hidden)
        begin, end = 1, seq
        if there > wanted + _WASTE:
            if end is None:
                end = await self._last(stream, place.subject) + 1
            # With the one before them, if there is one.
            begin = await self._begin(stream, place, (whole.first, whole.count), (end, beyond), wanted + 1)
        answers: list[Answer] = []
        more = True
        while more:
            part = await self._part(stream, place, begin, _WASTE + wanted + 1)
            answers += [answer for answer in part.answers if seq is None or seq_of(answer.head) < seq]
            more = part.pending > beyond
            if part.answers:
                begin = seq_of(part.answers[-1].head) + 1
        kept = answers[-wanted:]
        at = len(answers) - len(kept)
        before = seq_of(answers[at - 1].head) if at else seq_of(kept[0].head) - 1
        notes = self._notes(kept, before)
        young = self._young(notes, place)
        return Found(epoch, young, complete=True, more=there - hidden > wanted and len(young) == len(notes))

    async def _begin(
        self, stream: Stream, place: Place, low: tuple[int, int], high: tuple[int, int], wanted: int
    ) -> int:
        """A place from which on there are at least `wanted` and not many more up to `high`: each a seq and a count."""
        for guess in range(_GUESSES):
            span, count = high[0] - low[0], low[1] - high[1]
            if low[1] - high[1] <= wanted + _WASTE or span < 2:
                break
            # As if they were equally far apart; then the half, for they need not be.
            share = (wanted + _WASTE / 2) / count if guess < 3 else 0.5
            middle = min(high[0] - 1, max(low[0] + 1, high[0] - int(span * share)))
            part = await self._part(stream, place, middle, 1)
            if part.count - high[1] >= wanted:
                low = (part.first, part.count)
            elif middle == high[0]:
                break
            else:
                high_count = part.count
                wanted -= high_count - high[1]
                high = (middle, high_count)
        return low[0]

    async def _whole(self, stream: Stream, place: Place, seq: int) -> bool:
        """Whether nothing behind `seq` has been dropped, where not too many of the channel are there."""
        before, first = await asyncio.gather(self._before(stream, place, seq), self.first(stream))
        return before or first <= seq + 1

    async def first(self, stream: Stream) -> int:
        """The first place in the stream where something is, or will be; raises `Unavailable`."""
        first = await self._get(stream, {"seq": 1, "next_by_subj": ">"})
        return seq_of(first.head) if first is not None else await self._streams.beginning(stream)

    async def _before(self, stream: Stream, place: Place, seq: int) -> bool:
        """Whether a message of the channel is there that is not behind `seq`."""
        if not seq:
            return False
        asked = {"multi_last": [place.subject], "up_to_seq": seq, "batch": 1}
        return bool((await self._batch(stream, asked)).answers)

    # ---------------------------------------------------------------------------------------- direct gets

    async def _last(self, stream: Stream, subject: str) -> int:
        answer = await self._get(stream, {"last_by_subj": subject})
        return 0 if answer is None else seq_of(answer.head)

    async def _part(self, stream: Stream, place: Place, seq: int, limit: int) -> _Part:
        asked = {"seq": seq, "next_by_subj": place.subject, "batch": limit, "max_bytes": _BYTES}
        return await self._batch(stream, asked)

    def _get(self, stream: Stream, asked: dict[str, Any]) -> asyncio.Future[Answer | None]:
        """One message, or None; raises `Unavailable`, perhaps later."""
        found: asyncio.Future[Answer | None] = self._link.loop.create_future()
        self._link.ask(_direct(stream), msgspec.json.encode(asked), partial(_one, partial(settle, found)))
        return found

    def _batch(self, stream: Stream, asked: dict[str, Any]) -> asyncio.Future[_Part]:
        found: asyncio.Future[_Part] = self._link.loop.create_future()
        done = partial(_many, partial(settle, found))
        self._link.ask(_direct(stream), msgspec.json.encode(asked), done, batch=True)
        return found

    def _notes(self, answers: list[Answer], before: int) -> list[Note]:
        """The messages with their places; `before` is that of whatever precedes them."""
        notes = []
        for answer in answers:
            seq = seq_of(answer.head)
            try:
                note = Note.read(answer.head, answer.body)
            except (msgspec.DecodeError, ValueError, IndexError):
                if not self.garbage:
                    log.error("a message in a log cannot be read, and is passed over")
                self.garbage += 1
                continue
            # Each answer says what precedes it, but for the first.
            note.publication.prev = None if before == seq - 1 else before
            notes.append(msgspec.structs.replace(note, prev=before))
            before = seq
        return notes

    def _young(self, notes: list[Note], place: Place) -> list[Note]:
        """Those that are shown: where ids are known for longer than messages, these are stored for longer, too."""
        if place.retention.age >= self._places.limits.dedupe_window:
            return notes
        oldest = time.time() - place.retention.age
        return [note for note in notes if seconds(note.stamp) > oldest]


def _direct(stream: Stream) -> str:
    return f"$JS.API.DIRECT.GET.{stream.name}"


def _one(done: Callable[[Any], object], outcome: Answer | Exception) -> None:
    if isinstance(outcome, Answer):
        if outcome.status and outcome.status != 404:
            done(Unavailable("JetStream is away"))
        else:
            done(None if outcome.status else outcome)
    else:
        done(Unavailable("NATS does not answer"))


def _many(done: Callable[[Any], object], outcome: list[Answer] | Exception) -> None:
    if not isinstance(outcome, list):
        done(Unavailable("NATS does not answer"))
        return
    *answers, last = outcome
    if last.status not in (204, 404):
        done(Unavailable("JetStream is away"))
    else:
        done(_Part(answers, pending_of(last.head)))
