"""The channels in Redis that this node hears: by one connection that hears them all, read by the one for commands."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from hubbub.engines.redis.bus import Bus, Note
from hubbub.engines.redis.commands import Commands
from hubbub.engines.redis.live import Entries, Live
from hubbub.engines.redis.places import Places
from hubbub.engines.redis.reading import Reader
from hubbub.engines.shared.canary import is_canary
from hubbub.engines.shared.listening import HeardChannels
from hubbub.errors import Unavailable

__all__ = ["Listening"]

# Publications of one reading that fills a gap.
_PAGE: Final = 200


class Listening(HeardChannels[Live]):
    """See `HeardChannels`; all are read again when the bus was interrupted."""

    def __init__(self, commands: Commands, bus: Bus, reader: Reader, places: Places) -> None:
        super().__init__("Redis")
        self._commands = commands
        self._bus = bus
        self._reader = reader
        self._places = places
        bus.heard, bus.again = self._heard, self._rejoined

        # Those that are heard, by the name of the bus.
        self._by_bus: dict[str, Live] = {}

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

    def tick(self, now: float) -> None:
        """See `HeardChannels.tick`."""
        super().tick(now)
        for live in self._next(now):
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
        except Exception as error:
            self._not_told(live, error)

    def _rejoined(self) -> None:
        """The bus is heard again after an interruption."""
        for live in self._live.values():
            live.rejoined()
        self._fill_all()

    def _fill_all(self) -> None:
        for live in list(self._live.values()):
            live.fill()

    def _fill(self, live: Live) -> None:
        """See `HeardChannels._fill`."""
        self.watch(live)

        def done(found: Entries | Exception) -> None:
            if isinstance(found, Exception):
                self._failed(live)
            else:
                live.filled(found)

        try:
            self._reader.ask(live.name, "after", live.told, _PAGE, done)
        except Unavailable:
            self._failed(live)

    def _forget(self, live: Live) -> None:
        if self._by_bus.get(live.bus) is live:
            del self._by_bus[live.bus]
        super()._forget(live)
        self._bus.unsubscribe([live.bus])
