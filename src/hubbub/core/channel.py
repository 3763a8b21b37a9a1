"""Who listens to a channel on this node, and how one publication reaches all of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

from hubbub.core.outbox import Format, Outbox, Overflow, Turn
from hubbub.types import Publication

__all__ = ["Channel", "Hold"]

# How many live publications are kept aside for a listener that is still reading its backlog.
_MOST_HELD = 256

Owner = TypeVar("Owner")


class Hold:
    """Live publications kept aside while a listener's backlog is read, so that they follow it.

    Bounded: past its size the oldest are forgotten, which `merge` notices; they are in the log, so the
    reader reads on.
    """

    __slots__ = ("_held", "_overflowed")

    def __init__(self) -> None:
        self._held: deque[Publication] = deque(maxlen=_MOST_HELD)

        # The last thing that was forgotten, as the seq of a publication; 0 for none.
        self._overflowed = 0

    def add(self, publication: Publication) -> None:
        """Keep one live publication aside."""
        if len(self._held) == _MOST_HELD:
            self._overflowed = max(self._overflowed, self._held[0].seq or 0)
        self._held.append(publication)

    def merge(self, seq: int) -> list[Publication] | None:
        """Take what follows a backlog that was read up to `seq`: no gap and no double.

        None where something between was forgotten: read on from `seq`, then ask again.
        """
        if self._overflowed > seq:
            self._overflowed = 0
            return None
        following = [held for held in self._held if held.seq is None or held.seq > seq]
        self._held.clear()
        return following


class Channel(Generic[Owner]):
    """The listeners of one channel on this node."""

    __slots__ = ("_holds", "inbox", "listeners", "name", "overflow")

    def __init__(self, name: str, overflow: Overflow | None = None, *, inbox: bool = False) -> None:
        self.name = name

        # Whether it is a user's inbox, whose listeners are the user's sessions.
        self.inbox = inbox

        # What happens when a listener's outbox is full; None: as the outbox itself says.
        self.overflow = overflow

        # In the order in which they came. Only changed between fan-outs: `Turn.full` explains.
        self.listeners: dict[Outbox[Owner], None] = {}

        # Those that are reading their backlog; None while there are none, as nearly always.
        self._holds: dict[Outbox[Owner], Hold] | None = None

    def __len__(self) -> int:
        return len(self.listeners) + (len(self._holds) if self._holds else 0)

    def __iter__(self) -> Iterator[Outbox[Owner]]:
        """All of them, those that are still reading their backlog last."""
        yield from self.listeners
        if self._holds is not None:
            yield from self._holds

    def __contains__(self, outbox: Outbox[Owner]) -> bool:
        return outbox in self.listeners or (self._holds is not None and outbox in self._holds)

    def hold(self, outbox: Outbox[Owner]) -> Hold:
        """Keep what comes for `outbox` aside until `listen`; it hears nothing live meanwhile."""
        self.listeners.pop(outbox, None)
        if self._holds is None:
            self._holds = {}
        hold = self._holds[outbox] = Hold()
        return hold

    def listen(self, outbox: Outbox[Owner]) -> None:
        """From now on `outbox` hears the channel live."""
        self._unhold(outbox)
        self.listeners[outbox] = None

    def unlisten(self, outbox: Outbox[Owner]) -> None:
        """`outbox` hears the channel no more; harmless where it did not."""
        self._unhold(outbox)
        self.listeners.pop(outbox, None)

    def fan_out(
        self,
        publication: Publication,
        turn: Turn,
        skip: Outbox[Owner] | None = None,
        encoded: bytes | None = None,
    ) -> None:
        """Put `publication` into every listener's outbox: encoded once per format, waiting for nobody.

        `encoded`: its record, where somebody has made that already.
        """
        if self._holds:
            for outbox, hold in self._holds.items():
                if outbox is not skip:
                    hold.add(publication)
        listeners = self.listeners
        if not listeners:
            return
        if not turn.open:
            turn.begin()
        if len(listeners) == 1:
            # Most inboxes: without what a room full of formats needs.
            (outbox,) = listeners
            if outbox is not skip:
                frame = outbox.format.encode_publication(publication, encoded)
                turn.collect(len(frame))
                outbox.put(frame, publication, self.name, self.overflow)
            return
        frames: dict[Format, bytes] | None = None
        format: Format | None = None
        frame = b""
        name, overflow = self.name, self.overflow
        for outbox in listeners:
            if outbox.format is not format:
                # Nearly always once: most channels have listeners of one format.
                more = format is not None
                if format is not None:
                    frames = frames or {}
                    frames[format] = frame
                format = outbox.format
                known = frames.get(format) if frames else None
                if known is None:
                    frame = format.encode_publication(publication, encoded)
                    turn.collect(len(frame), 0 if more else 1)
                else:
                    frame = known
            if outbox is not skip:
                outbox.put(frame, publication, name, overflow)

    def _unhold(self, outbox: Outbox[Owner]) -> None:
        if self._holds is not None:
            self._holds.pop(outbox, None)
            if not self._holds:
                self._holds = None
