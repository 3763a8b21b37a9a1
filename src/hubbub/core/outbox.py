"""What waits to be written to one connection: coalesced per loop turn, bounded behind a blocked socket.

A broadcast writes to a thousand connections, and nine tenths of its cost are a thousand system calls. So
what one turn of the event loop has for a connection goes out as one write when the turn ends, and the writes of
all connections follow each other, so that whoever reads them wakes up once. Only in quiet times, when the last
turn had a single message, the first message goes out at once: company is unlikely.

When a socket takes no more, messages are held here, up to a bound; the channel's policy says what happens
beyond it. Nobody who writes ever waits for a reader.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any, Generic, Protocol, TypeVar

from msgspec import Meta, Struct

from hubbub.protocol.envelope import Gap
from hubbub.types import ALL, Publication, room_of

__all__ = ["Format", "Held", "Outbox", "OutboxLimits", "OutboxStatistics", "Overflow", "Sink", "Turn"]

Owner = TypeVar("Owner")


class Overflow(StrEnum):
    """What happens to a publication when the outbox of a blocked connection is full."""

    DISCONNECT = "disconnect"
    """The session ends with 4000; it comes back and resumes where it was."""

    DROP_OLDEST = "drop_oldest"
    """The oldest held publication makes room; a `gap` tells the reader."""

    DROP_NEWEST = "drop_newest"
    """The new publication is dropped; a `gap` tells the reader."""

    LATEST = "latest"
    """Of each `type` and sender only the newest is held, from the first blocked moment on; a `gap` tells."""


class OutboxLimits(Struct, frozen=True, kw_only=True):
    """How much may wait behind one blocked socket, and what happens then."""

    outbox_bytes: Annotated[int, Meta(ge=1024, description="bytes that may wait for a blocked connection")] = 1_048_576
    outbox_messages: Annotated[int, Meta(ge=1, description="messages that may wait for a blocked connection")] = 256
    write_deadline: Annotated[
        float, Meta(gt=0, description="seconds in which a blocked connection must take something")
    ] = 10.0
    overflow: Annotated[
        Overflow,
        Meta(
            description="what a room does with messages for a full outbox: disconnect, drop_oldest, drop_newest, latest"
        ),
    ] = Overflow.DISCONNECT


class OutboxStatistics(Struct, frozen=True):
    """The state of an outbox at one moment."""

    held: int
    held_bytes: int
    blocked: bool
    dropped: int


class Format(Protocol):
    """How messages become a connection's bytes: a codec and a framing. One object for all who share both."""

    def encode(self, message: object) -> bytes:
        """One message, encoded and framed."""

    def encode_publication(self, publication: Publication, encoded: bytes | None) -> bytes:
        """The same for a publication, whose record (`hubbub.core.record`) may be at hand."""


class Sink(Protocol):
    """Where an outbox writes: the transport's end of the connection (`hubbub.transports.base.Writer`)."""

    send: Callable[[bytes], int]

    def write(self, frames: bytes, /) -> None:
        """Send what the kernel did not take at once."""


class Turn:
    """One turn of the event loop, shared by all outboxes of a hub.

    `flush` must be called once after `opened` was called back: at the end of the turn.
    """

    __slots__ = ("_busy", "_collected", "_messages", "_opened", "direct", "dirty", "full", "limit", "open")

    def __init__(self, opened: Callable[[], object], limit: int = 262_144) -> None:
        # Messages of this turn so far, each counted once for all its receivers.
        self._messages = 0

        # Whether the last turn had several: then this one collects from its first message on.
        self._busy = False

        # Whether the message that is being put now goes out at once: the first of a turn, in quiet times.
        self.direct = False

        # Whether anything was put in this turn, so that its end must be acted on.
        self.open = False

        # Outboxes with frames to write at the end of the turn.
        self.dirty: list[Outbox[Any]] = []

        # Outboxes that overflowed; their sessions end after whatever is going on, because a fan-out
        # may be walking the very set that ending a session changes.
        self.full: list[Outbox[Any]] = []

        # Bytes that one turn may collect, for all messages once: what any one outbox collects is part of
        # them. Beyond, the turn is flushed early, so that a burst cannot pile up without bound.
        self.limit = limit

        self._collected = 0
        self._opened = opened

    def begin(self) -> None:
        """Note that something is written in this turn; call it before the first `put` of anything."""
        if not self.open:
            self.open = True
            self._opened()

    def collect(self, size: int, messages: int = 1) -> None:
        """Count a message of `size` bytes, before it is put into any number of outboxes.

        `messages` is 0 for a further format of the same message.
        """
        self._messages += messages
        self.direct = self._messages == 1 and not self._busy
        self._collected += size
        if self._collected > self.limit:
            self._write()
            self._collected = size

    def flush(self) -> None:
        """End the turn: one write for each outbox that collected something."""
        # First: whatever happens below, the next message begins a new turn.
        self.open = False
        self._write()
        self._collected = 0
        self._busy = self._messages > 1
        self._messages = 0

    def _write(self) -> None:
        if self.dirty:
            dirty, self.dirty = self.dirty, []
            for outbox in dirty:
                outbox.flush()


# Behind all of a channel, until it is joined again.
_END = 2**63


class _Run(Struct, gc=False):
    """An unbroken run of dropped seqs in one channel."""

    # The seq before the run's first: not always one less, engines may leave numbers out.
    before: int
    first: int
    last: int


class Held(Struct, gc=False):
    """One framed message behind a blocked socket."""

    frame: bytes
    # None for what is not a publication: answers are never dropped.
    publication: Publication | None
    # The channel that the publication came through.
    channel: str
    # Its place there: the publication's, that of the message for which an `ack` stands, or `_END`.
    seq: int | None = None
    # What has been dropped of the channel since it was last joined.
    runs: list[_Run] | None = None
    # Whether it may make room for others: what `disconnect` guards may not.
    droppable: bool = False
    dropped: bool = False


class Outbox(Generic[Owner]):
    """Frames waiting for one connection, bounded in bytes and in number."""

    __slots__ = (
        "_count",
        "_dropped",
        "_gaps",
        "_held",
        "_latest",
        "_limits",
        "_pending",
        "_send",
        "_sink",
        "_size",
        "_turn",
        "blocked",
        "broken",
        "closed",
        "format",
        "owner",
    )

    def __init__(self, owner: Owner, sink: Sink, format: Format, turn: Turn, limits: OutboxLimits) -> None:
        # Whose it is: the session to end when it overflows.
        self.owner = owner

        self.format = format

        # Whether the socket takes nothing now; set and reset by the session as the transport says. A closed
        # outbox is blocked, too: one check on the hot path.
        self.blocked = False

        # The connection has refused bytes for good: what was put here last has not been written.
        self.broken = False

        # Nothing is taken or written any more.
        self.closed = False

        self._sink = sink

        # Looked up once and not at each of a thousand deliveries; not used after `close`.
        self._send = sink.send
        self._turn = turn
        self._limits = limits

        # What this turn has collected: nothing, one message, or several, oldest first. No list unless it is
        # needed: 56 bytes times 10,000 connections count, and so does making one for each of 1,000 deliveries.
        self._pending: list[bytes] | bytes | None = None

        # Behind a blocked socket, oldest first; made when it first blocks.
        self._held: deque[Held] | None = None

        # The held entry of each (channel, type, sender), for the policy `latest`.
        self._latest: dict[tuple[str, str, str], Held] | None = None

        # Runs of dropped seqs by channel, oldest first, since the channel was last joined.
        self._gaps: dict[str, list[_Run]] | None = None

        # Messages and bytes held; counted by hand, summing on each put would make a slow reader quadratic.
        self._count = 0
        self._size = 0

        self._dropped = 0

    def put(
        self,
        frame: bytes,
        publication: Publication | None = None,
        channel: str = "",
        policy: Overflow | None = None,
        seq: int | None = None,
    ) -> bool:
        """Take one framed message; whether it is on its way (False: held, dropped or the outbox is closed).

        What is no publication may still concern a channel: with `seq` it stands for that message, without it
        ends what came before, as `joined` and `left` do; the gaps before it go out before it. The caller has
        told the turn (`begin`, `collect`) about the message, once for all outboxes.
        """
        if self.blocked:
            if not self.closed:
                self._hold(frame, publication, channel, policy or self._limits.overflow, seq)
            return False
        turn = self._turn
        pending = self._pending
        if pending is not None:
            if isinstance(pending, list):
                pending.append(frame)
            else:
                self._pending = [pending, frame]
        elif not turn.direct:
            self._pending = frame
            turn.dirty.append(self)
        else:
            # As in `flush`: a call less for each delivery of a broadcast. Fetched first: where it is called on the
            # spot, the interpreter looks it up as a method, which it is not, and that takes longer.
            send = self._send
            try:
                sent = send(frame)
            except OSError as error:
                sent = self._failed(error)
            if sent != len(frame):
                self._sink.write(frame[sent:])
        return True

    @property
    def collecting(self) -> bool:
        """Whether something waits for the end of the turn."""
        return self._pending is not None

    def holds(self, publication: Publication) -> bool:
        """Whether `publication`, the last that was put here, waits behind a blocked socket."""
        held = self._held
        return held is not None and len(held) > 0 and held[-1].publication is publication

    def flush(self) -> None:
        """Write what this turn has collected so far."""
        pending = self._pending
        if pending is not None:
            self._pending = None
            frames = pending if isinstance(pending, bytes) else b"".join(pending)
            sent = 0
            # Blocked here: something else (a ping) filled the socket in the middle of the turn. Behind that.
            if not self.blocked:
                try:
                    sent = self._send(frames)
                except OSError as error:
                    sent = self._failed(error)
            if sent != len(frames):
                self._sink.write(frames[sent:])

    def _failed(self, error: OSError) -> int:
        # The kernel takes nothing, or the connection is broken: the transport knows what to do.
        self.broken = self.broken or not isinstance(error, BlockingIOError)
        return 0

    def unblock(self) -> list[Held]:
        """The socket takes bytes again: write what was held, with the gaps, and return what was written."""
        if self.closed:
            return []
        self.blocked = False
        # A ping can block a socket in the middle of a turn: what the turn collected before is older.
        self.flush()
        return [] if self.blocked else self._let_go()

    def hand_over(self) -> None:
        """Leave everything to the transport, also what is held: for a last word behind it."""
        self.flush()
        self._let_go()

    def _let_go(self) -> list[Held]:
        """Write what was held, with the gaps, and return what was written."""
        held, gaps = self._held, self._gaps or {}
        if not (held or gaps):
            return []
        kept = [entry for entry in held or () if not entry.dropped]
        self._held = self._latest = self._gaps = None
        self._count = self._size = 0
        frames = []
        for entry in kept:
            runs = entry.runs
            if runs and entry.seq is not None:
                # A gap stands before the first message after it, so that the reader sees seqs in order.
                while runs and runs[0].last < entry.seq:
                    frames.append(self._gap(entry.channel, runs.pop(0)))
            frames.append(entry.frame)
        for channel, runs in gaps.items():
            frames.extend(self._gap(channel, run) for run in runs)
        if frames:
            self._pending = frames
            self.flush()
        return kept

    def close(self) -> None:
        """Take and write nothing more, and let go of what waits."""
        self.closed = self.blocked = True
        self._pending = self._held = self._latest = self._gaps = None
        self._count = self._size = 0

    def statistics(self) -> OutboxStatistics:
        """How much waits, and how much was dropped so far."""
        return OutboxStatistics(self._count, self._size, self.blocked, self._dropped)

    def _hold(
        self, frame: bytes, publication: Publication | None, channel: str, policy: Overflow, seq: int | None
    ) -> None:
        held = self._held
        if held is None:
            held = self._held = deque()
        if publication is not None:
            seq = publication.seq
        droppable = publication is not None and policy is not Overflow.DISCONNECT
        gaps = self._gaps
        if gaps is None:
            gaps = self._gaps = {}
        runs = gaps.setdefault(channel, []) if droppable else gaps.get(channel)
        entry = Held(frame, publication, channel, seq, runs, droppable)
        if publication is None and seq is None and runs is not None:
            # What is dropped from now on belongs behind this, and seqs may begin anew.
            entry.seq = _END
            del gaps[channel]
        if publication is not None and policy is Overflow.LATEST:
            self._conflate(entry, publication)
            if self.closed:
                return
        held.append(entry)
        self._count += 1
        self._size += len(frame)
        if self._over():
            if publication is not None and policy is Overflow.DROP_NEWEST:
                self._drop(held.pop())
            elif policy is not Overflow.DISCONNECT:
                self._drop_oldest()
            if self._over():
                self._overflow()
        if len(held) > 2 * self._count + 16 and not self.closed:
            # Dropped entries stay where they are, behind an answer or in the middle: sweep when they outnumber
            # the others.
            self._held = deque(entry for entry in held if not entry.dropped)

    def _over(self) -> bool:
        return self._size > self._limits.outbox_bytes or self._count > self._limits.outbox_messages

    def _drop_oldest(self) -> None:
        """Drop held publications, oldest first, until the bounds are met; answers stay."""
        assert self._held is not None
        for entry in self._held:
            if entry.droppable and not entry.dropped:
                self._drop(entry)
                if not self._over():
                    break
        while self._held and self._held[0].dropped:
            self._held.popleft()

    def _conflate(self, entry: Held, publication: Publication) -> None:
        if self._latest is None:
            self._latest = {}
        key = (entry.channel, publication.type, publication.from_)
        old = self._latest.get(key)
        if old is not None:
            self._drop(old)
        self._latest[key] = entry

    def _drop(self, entry: Held) -> None:
        publication = entry.publication
        assert publication is not None
        entry.dropped = True
        self._dropped += 1
        self._count -= 1
        self._size -= len(entry.frame)
        entry.frame = b""
        if self._latest is not None:
            key = (entry.channel, publication.type, publication.from_)
            if self._latest.get(key) is entry:
                del self._latest[key]
        if publication.seq is not None:
            before = publication.seq - 1 if publication.prev is None else publication.prev
            assert entry.runs is not None
            self._note_gap(entry.runs, before, publication.seq)

    def _note_gap(self, runs: list[_Run], before: int, seq: int) -> None:
        """Remember that `seq`, whose predecessor in the channel is `before`, was dropped."""
        # Mostly it goes on where the last run ended; with `latest` it may fall between two, or join them.
        index = len(runs)
        while index and runs[index - 1].first > seq:
            index -= 1
        earlier = runs[index - 1] if index and runs[index - 1].last == before else None
        later = runs[index] if index < len(runs) and runs[index].before == seq else None
        if earlier is not None:
            earlier.last = seq if later is None else later.last
            if later is not None:
                del runs[index]
        elif later is not None:
            later.before, later.first = before, seq
        else:
            runs.insert(index, _Run(before, seq, seq))
        if len(runs) > self._limits.outbox_messages:
            # Only messages that this reader never gets (its own, with `echo` false) keep so many apart.
            self._overflow()

    def _gap(self, channel: str, run: _Run) -> bytes:
        return self.format.encode(
            # From the place that the reader has reached: where numbers are left out, no message may stand there.
            Gap(run.before + 1, run.last, room=room_of(channel), channel=ALL if channel == ALL else None)
        )

    def _overflow(self) -> None:
        if not self.closed:
            self.close()
            self._turn.full.append(self)
