"""The engine that needs nothing: channels live in this process, and are gone with it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from itertools import islice

from msgspec import Struct

from hubbub.core.log import HistoryLimits, Log, Page, Retention
from hubbub.core.presence import Members
from hubbub.engines.base import Accepted, Capabilities, Listener
from hubbub.errors import Unavailable
from hubbub.protocol.envelope import Member
from hubbub.types import Place, Position, Publication, inbox_channel, user_of

__all__ = ["MemoryEngine", "MemoryStatistics"]

# How many logs one call of `sweep` looks at, and the seconds between two calls where the table is full.
_SWEEP = 1000
_SWEEP_PAUSE = 1.0
# How many logs give way to one publication that no longer fits.
_SHRINK = 100


class MemoryStatistics(Struct, frozen=True):
    """The state of a memory engine at one moment."""

    channels: int
    history_bytes: int
    rooms: int


class MemoryEngine:
    """Channels in this process: `seq` counts by one, and an `ack` means "in this process"."""

    capabilities = Capabilities(durable=False, shared=False)

    def __init__(
        self,
        limits: HistoryLimits = HistoryLimits(),  # frozen
        *,
        retention: Callable[[str], Retention] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`retention` says how much a channel keeps, by its full name; None: what `limits` say."""
        self._limits = limits
        self._retention = retention or limits.retention
        self._clock = clock

        # Only channels that were written to. The least lately written come first, roughly: a log moves to
        # the end when `_make_room` passes it by.
        self._logs: dict[str, Log] = {}

        # When the table was last swept because it was full.
        self._swept = clock() - _SWEEP_PAUSE

        # Of what all logs hold.
        self._bytes = 0

        # New logs get the current epoch. It changes when a log is forgotten, for a channel of that name
        # would begin again at 1.
        self._start = secrets.token_hex(4)
        self._generation = 0

        self._members = Members()
        self._node = ""

        self._cursors: dict[str, int] = {}

        # The channels that this node listens to, each with the epoch of a log that begins while it does: a
        # position in the empty channel may have been given away.
        self._listening: dict[str, str] = {}
        self._listener: Listener | None = None

    @property
    def epoch(self) -> str:
        """The epoch that a log begun now would have."""
        return f"{self._start}.{self._generation}"

    async def start(self, listener: Listener, node: str) -> None:
        """See `Engine.start`."""
        self._listener = listener
        self._node = node

    async def stop(self) -> None:
        """See `Engine.stop`."""
        self._listener = None

    async def check(self) -> None:
        """See `Engine.check`: in one process the way round is this call."""
        if self._listener is None:
            raise Unavailable("the engine is not running")

    async def publish(
        self, channel: str, publication: Publication, *, volatile: bool = False, origin: str | None = None
    ) -> Accepted:
        """See `Engine.publish`."""
        return self.publish_now(channel, publication, volatile, origin)

    def publish_now(self, channel: str, publication: Publication, volatile: bool, origin: str | None) -> Accepted:
        """See `Engine.publish_now`: memory never waits."""
        if volatile:
            if channel in self._listening and self._listener is not None:
                self._listener.publication(channel, publication, origin, None)
            return Accepted(self.epoch, None)
        now = self._clock()
        log = self._logs.get(channel)
        if log is None:
            log = self._begin(channel)
        elif publication.id is not None:
            known = log.known(publication.from_, publication.id, now)
            if known is not None:
                return Accepted(log.epoch, known, True)
        size = log.size
        limits = self._limits
        encoded = log.append(publication, now, limits.dedupe_window, limits.dedupe_size)
        self._bytes += log.size - size
        if self._bytes > limits.history_bytes:
            self._make_room()
        if channel in self._listening and self._listener is not None:
            self._listener.publication(channel, publication, origin, encoded)
        return Accepted(log.epoch, publication.seq)

    def submit(
        self,
        channel: str,
        publication: Publication,
        volatile: bool,
        origin: str | None,
        done: Callable[[Accepted | Exception], object],
    ) -> None:
        """See `Engine.submit`."""
        try:
            outcome: Accepted | Exception = self.publish_now(channel, publication, volatile, origin)
        except Exception as error:
            outcome = error
        done(outcome)

    async def accepted(self, channel: str, from_: str, id: str) -> Accepted | None:
        """See `Engine.accepted`."""
        log = self._logs.get(channel)
        seq = None if log is None else log.known(from_, id, self._clock())
        return None if log is None or seq is None else Accepted(log.epoch, seq, True)

    async def position(self, channel: str) -> Position:
        """See `Engine.position`."""
        log = self._logs.get(channel)
        return self._empty(channel) if log is None else log.position

    async def after(self, channel: str, seq: int, limit: int) -> Page:
        """See `Engine.after`."""
        log = self._fresh(channel)
        if log is None:
            return Page([], self._empty(channel), complete=seq == 0, more=False)
        return log.after(seq, limit)

    async def before(self, channel: str, seq: int | None, limit: int) -> Page:
        """See `Engine.before`."""
        log = self._fresh(channel)
        if log is None:
            return Page([], self._empty(channel), complete=True, more=False)
        return log.before(seq, limit)

    async def listen(self, channels: Sequence[str]) -> None:
        """See `Engine.listen`."""
        for channel in channels:
            self._listening.setdefault(channel, self.epoch)

    async def unlisten(self, channels: Sequence[str]) -> None:
        """See `Engine.unlisten`."""
        for channel in channels:
            self._listening.pop(channel, None)

    async def enter(self, channel: str, user: str, session: str, now: int, capacity: int) -> bool:
        """See `Engine.enter`."""
        return self._members.enter(channel, user, session, now, capacity)

    async def leave(self, channel: str, user: str, session: str, seen: int = 0) -> bool:
        """See `Engine.leave`."""
        return self._members.leave(channel, user, session, seen)

    async def members(self, channel: str, limit: int) -> tuple[list[Member], int]:
        """See `Engine.members`."""
        return self._members.of(channel, limit)

    async def places(self, channel: str, user: str) -> list[Place]:
        """See `Engine.places`."""
        return self._members.places(channel, user, self._node)

    async def last_seen(self, user: str) -> int | None:
        """See `Engine.last_seen`."""
        return self._members.last_seen(user)

    async def cursor(self, user: str) -> int | None:
        """See `Engine.cursor`."""
        return self._cursors.get(user)

    async def set_cursor(self, user: str, seq: int) -> list[Publication] | None:
        """See `Engine.set_cursor`."""
        log = self._logs.get(inbox_channel(user))
        if seq > (0 if log is None else log.position.seq):
            return None
        if seq <= self._cursors.get(user, 0):
            return []
        self._cursors[user] = seq
        return [] if log is None else log.pass_receipts(seq)

    def sweep(self) -> None:
        """Forget what nobody would miss; called now and then, it looks at a part of the logs each time."""
        now = self._clock()
        for channel in list(islice(self._logs, _SWEEP)):
            log = self._logs.pop(channel)
            size = log.size
            # Whoever listens holds a position in it: it would not survive another epoch.
            if log.idle(now) and channel not in self._listening:
                self._forget(channel, size)
            else:
                self._bytes += log.size - size
                self._logs[channel] = log

    def statistics(self) -> MemoryStatistics:
        """How much is kept."""
        return MemoryStatistics(len(self._logs), self._bytes, len(self._members))

    def _begin(self, channel: str) -> Log:
        if len(self._logs) >= self._limits.channels:
            now = self._clock()
            if now >= self._swept + _SWEEP_PAUSE:
                # Not at each refusal: whoever fills the table must not make everybody else pay.
                self._swept = now
                self.sweep()
            if len(self._logs) >= self._limits.channels:
                raise Unavailable("too many channels have a history", retry_after=60)
        log = Log(self._empty(channel).epoch, self._retention(channel))
        self._logs[channel] = log
        self._bytes += log.size
        return log

    def _empty(self, channel: str) -> Position:
        """The position of a channel that has no log."""
        return Position(self._listening.get(channel, self.epoch), 0)

    def _fresh(self, channel: str) -> Log | None:
        log = self._logs.get(channel)
        if log is not None:
            size = log.size
            log.trim(self._clock())
            self._bytes += log.size - size
        return log

    def _make_room(self) -> None:
        """Drop old publications of the channels at the front until the bytes fit again."""
        for channel in list(islice(self._logs, _SHRINK)):
            log = self._logs.pop(channel)
            size = log.size
            # A tenth at a time, so that no single channel pays for all.
            for _ in range(0 if self._retention(channel).pinned else min(len(log), max(1, len(log) // 10))):
                log.drop_oldest()
            self._bytes += log.size - size
            self._logs[channel] = log
            if self._bytes <= self._limits.history_bytes:
                break

    def _forget(self, channel: str, size: int) -> None:
        self._bytes -= size
        self._generation += 1
        user = user_of(channel)
        if user is not None:
            self._cursors.pop(user, None)
