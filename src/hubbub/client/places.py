"""Where a client is in one channel: order, holes and doubles (spec/client.md §6)."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from typing import Any, Final

from msgspec import Struct

from hubbub.types import Position

__all__ = ["HELD_LIMIT", "Item", "Place"]

HELD_LIMIT: Final = 256
"""How many messages of one channel may wait for one that is missing."""


class Item(Struct, eq=False):
    """What stands at `seq` of a channel: a message, or something that only moves the position."""

    seq: int
    # The seq before it; of a `gap`, before the first that is gone.
    prev: int
    # None: an `ack` that stands for a message, or a `gap`.
    message: Any = None
    # Its handlers have returned.
    handled: bool = False


class Place:
    """The position in one channel, which moves only when what stands there has been handled.

    Two marks: what comes in order is *taken* at once and handed out; the position, which is what a resume
    names, follows when it has been *handled*. So nothing is handed out twice, and nothing unhandled is
    skipped after a restart.
    """

    def __init__(self) -> None:
        self.epoch = ""

        # The last one handled; None: not known yet.
        self.seq: int | None = None

        # The last one handed out.
        self._taken: int | None = None

        # After a join with `last`: the first message may begin no later than behind this.
        self._latest_start: int | None = None

        # Handed out, oldest first: the position stays before the first of them that is not handled.
        self._out: deque[Item] = deque()

        # What came too early, by seq.
        self.held: list[Item] = []

    @property
    def position(self) -> Position | None:
        """What a resume names; None where there is nothing to name."""
        return None if self.seq is None else Position(self.epoch, self.seq)

    @property
    def started(self) -> bool:
        """Whether the server has said where it begins: nothing comes before that."""
        return bool(self.epoch)

    def start(self, position: Position) -> None:
        """Go on after `position`, and forget what was before."""
        self.epoch, self.seq = position
        self._taken = position.seq
        self._latest_start = None
        self._out = deque()
        self.held = []

    def start_with_first(self, end: Position) -> None:
        """The first message to come says where this begins: at the latest after `end`."""
        self.start(end)
        if end.seq:
            self.seq = self._taken = None
            self._latest_start = end.seq

    def take(self, item: Item) -> list[Item]:
        """What can be handed out now that `item` came, in order."""
        if self._taken is None:
            first = item.prev if self._latest_start is None else min(item.prev, self._latest_start)
            self.seq = self._taken = first
        at = bisect_left(self.held, item.seq, key=_seq)
        if at == len(self.held) or self.held[at].seq != item.seq:
            self.held.insert(at, item)
        ready = []
        # Everything up to `prev` has been taken: equal to it, or beyond it where a `gap` covered more, or where
        # the engine counts what is not a message of this channel.
        while self.held and self.held[0].prev <= self._taken:
            found = self.held.pop(0)
            if found.seq > self._taken:
                self._taken = found.seq
                ready.append(found)
        self._out.extend(ready)
        for item in ready:
            if item.message is None:
                self.handled(item)
        return ready

    def handled(self, item: Item) -> int:
        """`item` has been handled: by how many the position moved."""
        item.handled = True
        moved = 0
        while self._out and self._out[0].handled:
            self.seq = self._out.popleft().seq
            moved += 1
        return moved


def _seq(item: Item) -> int:
    return item.seq
