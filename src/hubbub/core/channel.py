"""Who listens to a channel on this node, and how one publication reaches all of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

from msgspec import structs

from hubbub.core.outbox import Format, Outbox, Overflow, Turn
from hubbub.protocol.envelope import Ack
from hubbub.types import Publication

__all__ = ["Channel", "Hold"]

# How many live publications are kept aside for a listener that is still reading its backlog.
_MOST_HELD = 256
# And how many bytes of content, but never less than one publication.
_MOST_BYTES = 4_194_304
# How many acks that stand for the listener's own messages.
_MOST_ACKS = 1_024

Owner = TypeVar("Owner")


class Hold:
    """Live publications kept aside while a listener's backlog is read, so that they follow it.

    Bounded: past its size the oldest are forgotten, which `merge` notices; they are in the log, so the
    reader reads on. The acks that stand for the listener's own messages are in no log, and are not forgotten.
    """

    __slots__ = ("_acks", "_held", "_overflowed", "_size", "before", "newest", "since")

    def __init__(self) -> None:
        # Each with its seq; a volatile one with that of what came before it, None where nothing did.
        self._held: deque[tuple[int | None, Publication]] = deque()

        # By seq: in the order in which they came.
        self._acks: dict[int, Ack] = {}

        # Bytes of content in it.
        self._size = 0

        # The seq before the first message that came, and that of the newest; None before there is one.
        self.before: int | None = None
        self.newest: int | None = None

        # The seq after which everything is here; None before something came.
        self.since: int | None = None

        # The last thing that was forgotten, as the seq of a publication; 0 for none.
        self._overflowed = 0

    def add(self, publication: Publication) -> None:
        """Keep one live publication aside."""
        held = self._held
        if publication.seq is not None:
            self._note(publication.seq, publication.prev)
        held.append((self.newest, publication))
        self._size += memoryview(publication.content).nbytes
        while len(held) > _MOST_HELD or (self._size > _MOST_BYTES and len(held) > 1):
            _, gone = held.popleft()
            self._size -= memoryview(gone.content).nbytes
            if gone.seq is not None:
                self._overflowed = self.since = gone.seq

    def stand_in(self, ack: Ack) -> bool:
        """Keep the `ack` that stands for a message of the listener's own; False where there are too many of them."""
        assert ack.seq is not None
        self._note(ack.seq, ack.prev)
        self._acks[ack.seq] = ack
        return len(self._acks) <= _MOST_ACKS

    def _note(self, seq: int, prev: int | None) -> None:
        if self.before is None:
            self.before = self.since = seq - 1 if prev is None else prev
        self.newest = seq if self.newest is None else max(self.newest, seq)

    def merge(self, seq: int) -> list[Publication | Ack] | None:
        """Take what follows a backlog that was read up to `seq`: no gap and no double. Acks stay until they are `told`.

        None where something between was forgotten: read on from `seq`, then ask again. Volatile messages that should
        have come before `seq` come no more.
        """
        if self._overflowed > seq:
            self._overflowed = 0
            return None
        following: list[Publication | Ack] = []
        acks = deque(sorted(self._acks.items()))
        while acks and acks[0][0] <= seq:
            # The log had the message before its ack was here.
            _, ack = acks.popleft()
            if ack.id is None:
                del self._acks[ack.seq or 0]
            else:
                following.append(_out_of_place(ack))
        for place, publication in self._held:
            if place is None:
                place = seq if self.before is None else self.before
            if publication.seq is None:
                if place < seq:
                    continue
                # Behind the one that it came behind.
                place += 1
            elif place <= seq:
                continue
            while acks and acks[0][0] < place:
                following.append(acks.popleft()[1])
            following.append(publication)
        following.extend(ack for _, ack in acks)
        self._held.clear()
        self._size = 0
        return following

    def instead_of(self, message: Publication | Ack) -> Publication | Ack:
        """What to tell of a message of the log: where it is the listener's own, the `ack` that stands for it."""
        if message.seq is None or isinstance(message, Ack):
            return message
        return self._acks.get(message.seq, message)

    def told(self, message: Publication | Ack) -> None:
        """`message` is on its way."""
        if message.seq is not None:
            self._acks.pop(message.seq, None)

    def give_up(self) -> list[Ack]:
        """Nothing of this comes any more: what is left are the acks that were asked for, which stand for nothing."""
        left = [_out_of_place(ack) for ack in self._acks.values() if ack.id is not None]
        self._acks.clear()
        return left


def _out_of_place(ack: Ack) -> Ack:
    return structs.replace(ack, duplicate=True)


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

    def hold_of(self, outbox: Outbox[Owner]) -> Hold | None:
        """Where what comes for `outbox` is kept aside now, if it is."""
        return None if self._holds is None else self._holds.get(outbox)

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
            if outbox is skip:
                # Before it is encoded, and perhaps compressed: it may be the only one with its format.
                continue
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
            outbox.put(frame, publication, name, overflow)

    def fan_out_framed(
        self,
        publication: Publication,
        turn: Turn,
        frames: Mapping[Format, bytes | None],
        skip: Outbox[Owner] | None = None,
    ) -> list[Outbox[Owner]]:
        """`fan_out` of what is framed already, for each format among the listeners.

        Where there is None for a format, it cannot be told so: those listeners are returned, and have got nothing.
        """
        for outbox, hold in (self._holds or {}).items():
            if outbox is not skip:
                hold.add(publication)
        turn.begin()
        for index, frame in enumerate(filter(None, frames.values())):
            turn.collect(len(frame), 0 if index else 1)
        left = []
        for outbox in self.listeners:
            if outbox is not skip:
                found = frames[outbox.format]
                if found is None:
                    left.append(outbox)
                else:
                    outbox.put(found, publication, self.name, self.overflow)
        return left

    def _unhold(self, outbox: Outbox[Owner]) -> None:
        if self._holds is not None:
            self._holds.pop(outbox, None)
            if not self._holds:
                self._holds = None
