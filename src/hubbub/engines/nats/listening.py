"""The channels that this node hears: those that somebody listens to, and for a second more, whoever comes back at once.

Each is told from the bus, filled from the log where the bus has lost something, and compared with the log now and then.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from hubbub.engines.base import Listener
from hubbub.engines.nats.link import Link
from hubbub.engines.nats.live import Ears, Live
from hubbub.engines.nats.notes import Note
from hubbub.engines.nats.places import Places
from hubbub.engines.nats.reading import Reader
from hubbub.engines.nats.streams import Stream
from hubbub.engines.shared.answers import settle
from hubbub.engines.shared.canary import is_canary
from hubbub.errors import Unavailable
from hubbub.types import Publication

__all__ = ["Listening"]

log = logging.getLogger("hubbub.engines.nats")

# Seconds after which what the bus has not brought is looked for in the log.
_LATE: Final = 0.1
# Seconds after which nobody waits any longer for what cannot be had.
_PATIENCE: Final = 2.0
# Seconds for which a channel is still heard when nobody listens: whoever comes back at once finds it.
_LINGER: Final = 1.0
# Seconds in which each channel is compared with its log once.
_ROUND: Final = 60.0
# Publications of one reading that fills a gap; channels that are read or compared at once.
_PAGE: Final = 200
_AT_ONCE: Final = 200


class Listening:
    """What this node hears, and tells its listener."""

    def __init__(self, link: Link, reader: Reader, places: Places, run: str) -> None:
        self._link = link
        self._reader = reader
        self._places = places
        self._run = run
        self._loop = asyncio.get_running_loop()

        # Who is told; None: nobody.
        self.listener: Listener | None = None
        # How often the log was read because something was late; what came and was no note; notes on this node's canary.
        self.fills = 0
        self.garbage = 0
        self.canaries = 0

        # By channel, those first that were compared with the log longest ago.
        self._live: dict[str, Live] = {}
        # Those that nobody listens to any more, with when they need not be heard either.
        self._leaving: dict[str, float] = {}
        # Those where somebody waits for what should have been told.
        self._waiting: dict[Live, None] = {}
        # Those that have to be compared, each with the first place in its stream; see `Live.compared`.
        self._due: dict[Live, int] = {}
        # What is being read, bounded by `_AT_ONCE`, and those that wait for their turn.
        self._tasks: set[asyncio.Task[None]] = set()
        self._unread: dict[Live, None] = {}

        self._ears = Ears(self._tell, self._lost, self._fill)
        self._compared = self._loop.time()

    def __len__(self) -> int:
        """How many channels are heard."""
        return len(self._live)

    def get(self, channel: str) -> Live | None:
        """The channel, where somebody listens to it."""
        live = self._live.get(channel)
        return live if live is not None and live.wanted else None

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

    def unlisten(self, channels: Sequence[str]) -> None:
        """See `Engine.unlisten`."""
        until = self._loop.time() + _LINGER
        for channel in channels:
            live = self._live.get(channel)
            if live is not None:
                live.wanted = False
                self._leaving[channel] = until

    async def close(self) -> None:
        """Hear nothing more; whoever waits is answered."""
        self.listener = None
        for live in list(self._live.values()):
            self._forget(live)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def told(self, channel: str, epoch: str, seq: int) -> None:
        """Wait until everything up to `seq` has been told, where somebody listens; raises `Unavailable`."""
        live = self.get(channel)
        if live is not None and live.epoch:
            told: asyncio.Future[None] = self._loop.create_future()
            live.wait(epoch, seq, partial(settle, told), self._loop.time())
            if not told.done():
                self.watch(live)
                await told

    def watch(self, live: Live) -> None:
        """Somebody waits for what should have been told in `live`."""
        self._waiting[live] = None

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
        """Called several times a second: what is late is looked for, what is not needed goes."""
        for live in list(self._waiting):
            live.give_up(now - _PATIENCE)
            late = live.late
            if live.behind or (late is not None and now - late > _LATE):
                self.fills += 1
                live.fill()
            elif late is None:
                del self._waiting[live]
        for channel, until in list(self._leaving.items()):
            if until > now:
                break
            self._forget(self._live[channel])
        # A part of all each time, so that each has its turn in one round.
        part = int(len(self._live) * (now - self._compared) / _ROUND)
        if part and self._link.serves:
            self._compared = now
            for live in [live for live, _ in zip(self._live.values(), range(part), strict=False)]:
                self._live[live.name] = self._live.pop(live.name)
                self._due.setdefault(live, 0)
        self._work()

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
        except (ValueError, IndexError, msgspec.DecodeError):
            if not self.garbage:
                log.error("something came by the bus that no node of this version says, and is ignored")
            self.garbage += 1
        except Exception:
            # A fault of ours, or of the node's: what it was about is read from the log.
            log.exception("what came by the bus could not be told")
            live.fill()

    def _tell(self, channel: str, publication: Publication, origin: str | None) -> None:
        if self.listener is not None and not is_canary(channel):
            self.listener.publication(channel, publication, origin, None)

    def _lost(self, channel: str) -> None:
        if self.listener is not None and not is_canary(channel):
            self.listener.lost(channel)

    # --------------------------------------------------------------------------------------------- reading

    def _fill(self, live: Live) -> None:
        """Read the log of `live` after what has been told; where that fails, it is tried again with the next tick."""
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
            live.failed()
        except Exception:
            log.exception("the log of a channel could not be read")
            live.failed()

    async def _compare(self, live: Live, first: int) -> None:
        try:
            live.compared(await self._reader.end(live.name), first)
        except Unavailable:
            # It has been said, and there is a next time.
            pass
        except Exception:
            log.exception("a channel could not be compared with its log")

    def _forget(self, live: Live) -> None:
        if self._live.get(live.name) is live:
            del self._live[live.name]
        self._waiting.pop(live, None)
        self._leaving.pop(live.name, None)
        self._due.pop(live, None)
        self._unread.pop(live, None)
        live.close()
        self._link.unsubscribe(live.sid)
