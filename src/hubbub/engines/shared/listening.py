"""The channels that a node hears: those that somebody listens to, and for a second more, whoever comes back at once.

Each is told from the bus, filled from the log where the bus has lost something, and compared with the log now and then.
How it is subscribed to and read is each engine's own.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from itertools import islice
from typing import Any, Final, Generic, TypeVar

import msgspec

from hubbub.engines.base import Listener
from hubbub.engines.shared.answers import settle
from hubbub.engines.shared.canary import is_canary
from hubbub.engines.shared.live import Ears, LiveChannel
from hubbub.types import Publication

__all__ = ["HeardChannels"]

log = logging.getLogger("hubbub.engines")

L = TypeVar("L", bound=LiveChannel[Any, Any])

# Seconds after which what the bus has not brought is looked for in the log.
_LATE: Final = 0.1
# Seconds after which nobody waits any longer for what cannot be had.
_PATIENCE: Final = 2.0
# Seconds for which a channel is still heard when nobody listens: whoever comes back at once finds it.
_LINGER: Final = 1.0
# Seconds in which each channel is compared with its log once.
_ROUND: Final = 60.0


class HeardChannels(ABC, Generic[L]):
    """What a node hears, and tells its listener."""

    def __init__(self, server: str) -> None:
        """`server`: the name of what is away when it is."""
        self._away = f"{server} is away"
        self._loop = asyncio.get_running_loop()

        # Who is told; None: nobody.
        self.listener: Listener | None = None
        # How often the log was read because something was late; what came and was no note; notes on this node's canary.
        self.fills = 0
        self.garbage = 0
        self.canaries = 0

        # By channel, those first that were compared with the log longest ago.
        self._live: dict[str, L] = {}
        # Those that nobody listens to any more, with when they need not be heard either.
        self._leaving: dict[str, float] = {}
        # Those where somebody waits for what should have been told.
        self._waiting: dict[L, None] = {}

        self._ears = Ears(self._tell, self._lost, self._fill)
        self._compared = self._loop.time()

    def __len__(self) -> int:
        """How many channels are heard."""
        return len(self._live)

    def get(self, channel: str) -> L | None:
        """The channel, where somebody listens to it."""
        live = self._live.get(channel)
        return live if live is not None and live.wanted else None

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

    async def told(self, channel: str, epoch: str, seq: int) -> None:
        """Wait until everything up to `seq` has been told, where somebody listens; raises `Unavailable`."""
        live = self.get(channel)
        if live is not None and live.epoch:
            told: asyncio.Future[None] = self._loop.create_future()
            live.wait(epoch, seq, partial(settle, told), self._loop.time())
            if not told.done():
                self.watch(live)
                await told

    def watch(self, live: L) -> None:
        """Somebody waits for what should have been told in `live`."""
        self._waiting[live] = None

    def tick(self, now: float) -> None:
        """Called several times a second: what is late is looked for, what is not needed goes."""
        for live in list(self._waiting):
            live.give_up(now - _PATIENCE, self._away)
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

    def _next(self, now: float) -> list[L]:
        """Those whose turn it is to be compared: a part of all each time, so that each has its turn in one round."""
        part = int(len(self._live) * (now - self._compared) / _ROUND)
        if part:
            self._compared = now
        turn = list(islice(self._live.values(), part))
        for live in turn:
            self._live[live.name] = self._live.pop(live.name)
        return turn

    @abstractmethod
    def _fill(self, live: L) -> None:
        """Read the log of `live` after what has been told; where that fails, it is tried again with the next tick."""

    def _failed(self, live: L) -> None:
        """The log of `live` could not be read."""
        live.failed()
        # Again: while it was read, nobody may have waited for anything.
        if live.epoch:
            self.watch(live)

    def _forget(self, live: L) -> None:
        """Hear it no more."""
        if self._live.get(live.name) is live:
            del self._live[live.name]
        self._waiting.pop(live, None)
        self._leaving.pop(live.name, None)
        live.close()

    def _not_told(self, live: L | None, error: Exception) -> None:
        """What came by the bus raised `error`, which is being handled."""
        if isinstance(error, ValueError | IndexError | msgspec.DecodeError):
            if not self.garbage:
                log.error("something came by the bus that no node of this version says, and is ignored")
            self.garbage += 1
            return
        # A fault of ours, or of the node's: what it was about is read from the log.
        log.exception("what came by the bus could not be told")
        if live is not None:
            live.fill()

    def _tell(self, channel: str, publication: Publication, origin: str | None) -> None:
        if self.listener is not None and not is_canary(channel):
            self.listener.publication(channel, publication, origin, None)

    def _lost(self, channel: str) -> None:
        if self.listener is not None and not is_canary(channel):
            self.listener.lost(channel)
