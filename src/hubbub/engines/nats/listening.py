"""The channels in NATS that this node hears: each by a subscription of its own, not too many of them read at once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any, Final

from hubbub.engines.nats.link import Link
from hubbub.engines.nats.live import Live
from hubbub.engines.nats.notes import Note
from hubbub.engines.nats.places import Places
from hubbub.engines.nats.reading import Reader
from hubbub.engines.nats.streams import Stream
from hubbub.engines.shared.canary import is_canary
from hubbub.engines.shared.listening import HeardChannels
from hubbub.errors import Unavailable

__all__ = ["Listening"]

log = logging.getLogger("hubbub.engines.nats")

# Publications of one reading that fills a gap; channels that are read or compared at once.
_PAGE: Final = 200
_AT_ONCE: Final = 200


class Listening(HeardChannels[Live]):
    """See `HeardChannels`; each belongs to a stream, which may come to be another one."""

    def __init__(self, link: Link, reader: Reader, places: Places, run: str) -> None:
        super().__init__("NATS")
        self._link = link
        self._reader = reader
        self._places = places
        self._run = run

        # Those that have to be compared, each with the first place in its stream; see `Live.compared`.
        self._due: dict[Live, int] = {}
        # What is being read, bounded by `_AT_ONCE`, and those that wait for their turn.
        self._tasks: set[asyncio.Task[None]] = set()
        self._unread: dict[Live, None] = {}

    async def listen(self, channels: Sequence[str]) -> None:
        """See `Engine.listen`."""
        new = []
        lingering: dict[str, float] = {}
        streams = [await self._reader.stream(channel) for channel in channels]
        for channel, (stream, place) in zip(channels, streams, strict=True):
            if channel in self._leaving:
                lingering[channel] = self._leaving.pop(channel)
            live = self._live.get(channel)
            if live is None:
                live = self._live[channel] = Live(channel, stream, self._run, self._ears)
                live.sid = self._link.subscribe(place.bus, partial(self._heard, live))
                new.append(live)
            live.wanted = True
        try:
            # Asked behind the subscription: what is not in the answer will be heard.
            for begin in range(0, len(new), _AT_ONCE):
                part = new[begin : begin + _AT_ONCE]
                ends = await asyncio.gather(*(self._reader.end(live.name) for live in part))
                for live, end in zip(part, ends, strict=True):
                    live.open(end, time.time())
                    # It may be another log already: that of one was read after that of another.
                    live.begin_anew(live.stream.epoch)
        except BaseException:
            for live in new:
                self._forget(live)
            # Nobody will say again that these are not needed.
            for channel, until in lingering.items():
                self._live[channel].wanted = False
                self._leaving[channel] = until
            raise

    def again(self, first: dict[str, int]) -> None:
        """Everything is heard again after an interruption; `first`: the first place of each kind of stream."""
        for live in self._live.values():
            self._due[live] = first.get(live.stream.kind, 0)
        self._work()

    def streams(self) -> set[Stream]:
        """Those of the channels that are heard."""
        return {live.stream for live in self._live.values()}

    def begin_anew(self, stream: Stream) -> None:
        """A stream is not the one that it was."""
        for live in list(self._live.values()):
            if live.stream is stream:
                live.begin_anew(stream.epoch)

    def tick(self, now: float) -> None:
        """See `HeardChannels.tick`."""
        super().tick(now)
        if self._link.serves:
            for live in self._next(now):
                self._due.setdefault(live, 0)
        self._work()

    async def stop(self) -> None:
        """`close`, and nothing is read any more when this returns."""
        self.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --------------------------------------------------------------------------------------------- hearing

    def _heard(self, live: Live, head: bytes, body: bytes) -> None:
        """Something came by the bus."""
        try:
            note = Note.read(head, body)
            if note.seq is not None:
                live.stream.saw(note.seq, note.stamp)
                live.stream.heard = max(live.stream.heard, note.seq)
            self.canaries += is_canary(live.name)
            live.heard(note)
        except Exception as error:
            self._not_told(live, error)

    # --------------------------------------------------------------------------------------------- reading

    def _fill(self, live: Live) -> None:
        """See `HeardChannels._fill`."""
        self.watch(live)
        self._unread[live] = None
        self._work()

    def _work(self) -> None:
        """Read and compare what there is to, not too much of it at once."""
        while self._unread and len(self._tasks) < _AT_ONCE:
            live = next(iter(self._unread))
            del self._unread[live]
            self._start(self._read(live))
        while self._due and len(self._tasks) < _AT_ONCE and self._link.serves:
            live = next(iter(self._due))
            self._start(self._compare(live, self._due.pop(live)))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._work()

    async def _read(self, live: Live) -> None:
        try:
            live.filled(await self._reader.after(live.name, live.told, _PAGE))
        except Unavailable:
            self._failed(live)
        except Exception:
            log.exception("the log of a channel could not be read")
            self._failed(live)

    async def _compare(self, live: Live, first: int) -> None:
        try:
            live.compared(await self._reader.end(live.name), first)
        except Unavailable:
            # It has been said, and there is a next time.
            pass
        except Exception:
            log.exception("a channel could not be compared with its log")

    def _forget(self, live: Live) -> None:
        super()._forget(live)
        self._due.pop(live, None)
        self._unread.pop(live, None)
        self._link.unsubscribe(live.sid)
