"""The channels that this node hears: those that somebody listens to, and for a second more, whoever comes back at once.

Each is told from the bus, filled from the log where the bus has lost something, and compared with the log now and then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from typing import Final

import msgspec

from hubbub.engines.base import Listener
from hubbub.engines.redis.bus import Bus, Note
from hubbub.engines.redis.commands import Commands
from hubbub.engines.redis.live import Ears, Entries, Live
from hubbub.engines.redis.places import Places
from hubbub.engines.redis.reading import Reader
from hubbub.engines.shared.answers import settle
from hubbub.engines.shared.canary import is_canary
from hubbub.errors import Unavailable
from hubbub.types import Publication

__all__ = ["Listening"]

log = logging.getLogger("hubbub.engines.redis")

# Seconds after which what the bus has not brought is looked for in the log.
_LATE: Final = 0.1
# Seconds after which nobody waits any longer for what cannot be had.
_PATIENCE: Final = 2.0
# Seconds for which a channel is still heard when nobody listens: whoever comes back at once finds it.
_LINGER: Final = 1.0
# Seconds in which each channel is compared with its log once.
_ROUND: Final = 60.0
# Publications of one reading that fills a gap.
_PAGE: Final = 200


class Listening:
    """What this node hears, and tells its listener."""

    def __init__(self, commands: Commands, bus: Bus, reader: Reader, places: Places) -> None:
        self._commands = commands
        self._bus = bus
        self._reader = reader
        self._places = places
        self._loop = asyncio.get_running_loop()
        bus.heard, bus.again = self._heard, self._rejoined

        # Who is told; None: nobody.
        self.listener: Listener | None = None
        # How often the log was read because something was late; what came and was no note; notes on this node's canary.
        self.fills = 0
        self.garbage = 0
        self.canaries = 0

        # By channel, those first that were compared with the log longest ago; and by the name of the bus.
        self._live: dict[str, Live] = {}
        self._by_bus: dict[str, Live] = {}
        # Those that nobody listens to any more, with when they need not be heard either.
        self._leaving: dict[str, float] = {}
        # Those where somebody waits for what should have been told.
        self._waiting: dict[Live, None] = {}

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
        for channel in channels:
            self._leaving.pop(channel, None)
            live = self._live.get(channel)
            if live is None:
                bus = self._places.of(channel).bus
                live = self._live[channel] = self._by_bus[bus] = Live(channel, bus, self._ears)
                new.append(live)
            live.wanted = True
        if not new:
            return
        try:
            await self._bus.subscribe([live.bus for live in new])
            ends = await asyncio.gather(*(self._reader.read(live.name, "position") for live in new))
            for live, end in zip(new, ends, strict=True):
                live.open(end.epoch, end.seq)
        except BaseException:
            for live in new:
                self._forget(live)
            raise

    def unlisten(self, channels: Sequence[str]) -> None:
        """See `Engine.unlisten`."""
        until = self._loop.time() + _LINGER
        for channel in channels:
            live = self._live.get(channel)
            if live is not None:
                live.wanted = False
                self._leaving[channel] = until

    def close(self) -> None:
        """Hear nothing more; whoever waits is answered."""
        self.listener = None
        for live in list(self._live.values()):
            self._forget(live)

    async def told(self, channel: str, found: Entries) -> None:
        """Wait until what was `found` has been told, where somebody listens; raises `Unavailable`."""
        live = self.get(channel)
        if live is not None and live.epoch:
            told: asyncio.Future[None] = self._loop.create_future()
            live.wait(found.epoch, found.seq, partial(settle, told), self._loop.time())
            if not told.done():
                self.watch(live)
                await told

    def watch(self, live: Live) -> None:
        """Somebody waits for what should have been told in `live`."""
        self._waiting[live] = None

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
        if part:
            self._compared = now
            for live in [live for live, _ in zip(self._live.values(), range(part), strict=False)]:
                self._live[live.name] = self._live.pop(live.name)
                live.fill()

    # --------------------------------------------------------------------------------------------- hearing

    def _heard(self, bus: str, data: bytes) -> None:
        """Something came by the bus."""
        live = self._by_bus.get(bus)
        try:
            if live is not None:
                note = Note.read(data)
                # Of another run it would say nothing about what is lost with this one.
                if self._bus.run == self._commands.run:
                    self._commands.seen(note.count)
                self.canaries += is_canary(live.name)
                live.heard(note)
            elif bus == self._places.control and data == b"lost":
                self._commands.forget_count()
                self._fill_all()
        except (ValueError, IndexError, msgspec.DecodeError):
            if not self.garbage:
                log.error("something came by the bus that no node of this version says, and is ignored")
            self.garbage += 1
        except Exception:
            # A fault of ours, or of the node's: what it was about is read from the log.
            log.exception("what came by the bus could not be told")
            if live is not None:
                live.fill()

    def _rejoined(self) -> None:
        """The bus is heard again after an interruption."""
        for live in self._live.values():
            live.rejoined()
        self._fill_all()

    def _fill_all(self) -> None:
        for live in list(self._live.values()):
            live.fill()

    def _tell(self, channel: str, publication: Publication, origin: str | None) -> None:
        if self.listener is not None and not is_canary(channel):
            self.listener.publication(channel, publication, origin, None)

    def _lost(self, channel: str) -> None:
        if self.listener is not None and not is_canary(channel):
            self.listener.lost(channel)

    def _fill(self, live: Live) -> None:
        """Read the log of `live` after what has been told; where that fails, it is tried again with the next tick."""
        self.watch(live)

        def done(found: Entries | Exception) -> None:
            if isinstance(found, Exception):
                live.failed()
            else:
                live.filled(found)

        try:
            self._reader.ask(live.name, "after", live.told, _PAGE, done)
        except Unavailable:
            live.failed()

    def _forget(self, live: Live) -> None:
        if self._live.get(live.name) is live:
            del self._live[live.name], self._by_bus[live.bus]
        self._waiting.pop(live, None)
        self._leaving.pop(live.name, None)
        live.close()
        self._bus.unsubscribe([live.bus])
