"""Reading logs: direct gets, which any number of may be on their way, and what they say about what is gone.

JetStream does not say whether something between two messages has been dropped. But what is dropped is always the oldest
of a channel, and one more is stored than people are shown. So nothing behind a place is missing where a message at or
before that place is still there; and nothing is, where the stream begins no later and has all that it may keep.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeVar

import msgspec
from msgspec import Struct

from hubbub.engines.nats.gets import Gets, Part
from hubbub.engines.nats.link import Answer
from hubbub.engines.nats.notes import Note, seconds, seq_of
from hubbub.engines.nats.places import Place, Places
from hubbub.engines.nats.streams import Stream, Streams

__all__ = ["Ends", "Found", "Reader"]

log = logging.getLogger("hubbub.engines.nats")

T = TypeVar("T")

# Bytes of one answer, beyond which JetStream cuts it short.
_BYTES: Final = 262_144
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
    # Everything up to there has been looked at, whether it is shown or not.
    read: int = 0


class Reader:
    """Reads logs."""

    def __init__(self, gets: Gets, streams: Streams, places: Places) -> None:
        self._gets = gets
        self._streams = streams
        self._places = places
        # What was in logs and could not be read.
        self.garbage = 0

    async def stream(self, channel: str) -> tuple[Stream, Place]:
        """The stream of a channel, which is there; raises `Unavailable`."""
        place = self._places.of(channel)
        stream = self._streams.of(place.kind, place.retention)
        await self._streams.ready(stream)
        return stream, place

    async def end(self, channel: str) -> Ends:
        """Where the channel ends; raises `Unavailable`."""
        return await self.of_one_log(channel, partial(self._end, channel))

    async def after(self, channel: str, seq: int, limit: int) -> Found:
        """Up to `limit` messages that follow `seq`; raises `Unavailable`."""
        return await self.of_one_log(channel, partial(self._after, channel, seq, limit))

    async def before(self, channel: str, seq: int, limit: int) -> Found:
        """The last `limit` messages before `seq`; raises `Unavailable`."""
        return await self.of_one_log(channel, partial(self._before, channel, seq, limit))

    async def of_one_log(self, channel: str, read: Callable[[], Awaitable[T]]) -> T:
        """What `read` finds in several steps, all of it of one log; raises `Unavailable`.

        Where the stream turns out to be another one meanwhile, or may be, it is read again: whoever was given a place
        in the old one as a position in the new would miss what is before it there.
        """
        while True:
            stream, _ = await self.stream(channel)
            epoch = stream.epoch
            found = await read()
            if stream.sure and stream.epoch == epoch:
                return found

    async def _end(self, channel: str) -> Ends:
        stream, place = await self.stream(channel)
        # Seen before it is asked: so where the channel has nothing, it has nothing up to there.
        epoch, seen = stream.epoch, stream.seen
        last, _ = await self._gets.last(stream, place.subject)
        return Ends(epoch, last, last or seen)

    async def _after(self, channel: str, seq: int, limit: int) -> Found:
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
            complete = await self._whole(stream, place, seq, part.count)
            if not complete:
                # Whatever was before the first, nobody is told of it.
                before = part.first - 1
        pending, read = part.pending, max(seq, part.first)
        while True:
            shown, more = answers[:limit], len(answers) > limit or pending > 0
            notes = self._notes(shown, before)
            young = self._young(notes, place)
            complete = complete and len(young) == len(notes)
            read = seq_of(shown[-1].head) if shown else read
            if young or not more:
                return Found(epoch, young, complete, more, read)
            # Nothing of that is shown: it is too old or garbage, or what is at the place came alone, being large.
            part = await self._part(stream, place, read + 1, limit + 1)
            answers, pending, before = part.answers, part.pending, read

    async def _before(self, channel: str, seq: int, limit: int) -> Found:
        stream, place = await self.stream(channel)
        epoch = stream.epoch
        begin = await self._begin(stream, place, seq, limit + 1)
        answers, beyond = await self._between(stream, place, begin, seq)
        if begin > 1 and len(answers) <= limit:
            # What was counted has changed meanwhile.
            begin = 1
            answers, beyond = await self._between(stream, place, begin, seq)
        # The oldest of all is not shown where it is one too many.
        hidden = begin == 1 and len(answers) + beyond > place.retention.size
        shown = answers[hidden:]
        kept = shown[max(0, len(shown) - limit) :]
        at = len(answers) - len(kept)
        # What is before the first of all that are there is not known: nothing, or something that was dropped.
        before = seq_of(answers[at - 1].head) if at else (seq_of(kept[0].head) - 1 if kept else 0)
        notes = self._notes(kept, before)
        young = self._young(notes, place)
        return Found(epoch, young, complete=True, more=at > hidden and len(young) == len(notes))

    async def _between(self, stream: Stream, place: Place, begin: int, seq: int) -> tuple[list[Answer], int]:
        """The messages from `begin` on before `seq`, and how many more there are."""
        answers: list[Answer] = []
        while True:
            part = await self._part(stream, place, begin, _WASTE)
            earlier = [answer for answer in part.answers if seq_of(answer.head) < seq]
            answers += earlier
            if len(earlier) < len(part.answers) or not part.pending:
                return answers, part.count - len(earlier)
            begin = seq_of(part.answers[-1].head) + 1

    async def _begin(self, stream: Stream, place: Place, seq: int, wanted: int) -> int:
        """A place from which on there are at least `wanted` and not many more up to `seq`; 1 where that is all."""
        part, end = await asyncio.gather(self._part(stream, place, 1, 1), self._part(stream, place, seq, 1))
        # Each a place, and how many there are from there on.
        oldest = low = (part.first, part.count)
        high = (seq, end.count)
        for guess in range(_GUESSES):
            span, count = high[0] - low[0], low[1] - end.count
            if count <= wanted + _WASTE or span < 2:
                break
            # As if they were equally far apart; then the half, for they need not be.
            share = (wanted + _WASTE / 2 - high[1] + end.count) / (low[1] - high[1]) if guess < 3 else 0.5
            middle = min(high[0] - 1, max(low[0] + 1, high[0] - int(span * share)))
            part = await self._part(stream, place, middle, 1)
            if part.count - end.count >= wanted:
                low = (middle, part.count)
            else:
                high = (middle, part.count)
        return 1 if low[0] <= oldest[0] else low[0]

    async def _whole(self, stream: Stream, place: Place, seq: int, count: int) -> bool:
        """Whether nothing behind `seq` has been dropped, where not too many of the channel are there."""
        before, first = await asyncio.gather(self._there(stream, place, seq), self.first(stream))
        resized, most = stream.resized
        # Where less was kept at that time: what is there now is fewer than that.
        return before or (first <= seq + 1 and (seq >= resized or count < most))

    async def extent(self, channel: str) -> int:
        """How far the stream of the channel goes: nobody can stand beyond that. Raises `Unavailable`."""
        stream, _ = await self.stream(channel)
        _, last = await self._streams.extent(stream)
        return last

    async def first(self, stream: Stream) -> int:
        """The first place in the stream where something is, or will be; raises `Unavailable`."""
        first = await self._gets.one(stream, seq=1, next_by_subj=">")
        return seq_of(first.head) if first is not None else (await self._streams.extent(stream))[0]

    async def _there(self, stream: Stream, place: Place, seq: int) -> bool:
        """Whether a message of the channel is there that is not behind `seq`."""
        if not seq:
            return False
        return bool((await self._gets.many(stream, multi_last=[place.subject], up_to_seq=seq, batch=1)).answers)

    async def _part(self, stream: Stream, place: Place, seq: int, limit: int) -> Part:
        return await self._gets.many(stream, seq=seq, next_by_subj=place.subject, batch=limit, max_bytes=_BYTES)

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
