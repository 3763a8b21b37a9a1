"""Large messages in chunks, in and out (protocol.md §7): bounded, and so that nobody else waits for them.

What comes in is collected, decoded aside, and then handled like a message that has just come. What goes out is a
publication or an answer that is too large for one message of the receiver's codec: it is written a chunk at a time, as
fast as the socket takes it, while what is small goes by. The order within a channel holds, because the channel is held
back for that receiver meanwhile: see `hubbub.hub.recovery`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import TYPE_CHECKING, Any, Final, TypeVar
from weakref import WeakValueDictionary

from hubbub.core.wheel import Timer
from hubbub.eager import in_task, step
from hubbub.errors import Unavailable
from hubbub.hub.formats import Framed
from hubbub.protocol.chunks import MOST_PARTS, PART_SIZE, TransferRefused, Transfers, parts_of
from hubbub.protocol.codes import CloseCode, ErrorCode
from hubbub.protocol.conversation import BadChunk, read_whole
from hubbub.protocol.envelope import Chunk, Fault, Gap, HistoryPage, PongAnswer, ServerChunk
from hubbub.types import ALL, Publication, room_of

if TYPE_CHECKING:
    from hubbub.hub.node import Node
    from hubbub.hub.recovery import Recovery
    from hubbub.hub.session import Session

__all__ = [
    "LargeMessages",
    "Outgoing",
    "SessionTransfers",
    "answer",
    "bring",
    "catch_up",
    "chunk",
    "format_of",
    "send_large",
]

log = logging.getLogger("hubbub.hub")

T = TypeVar("T")

# What the server adds to a message: its sender, its place, the time.
_ADDED: Final = 2_048

# How many times larger a message can be in another codec: a control character is one byte in MessagePack, six in JSON.
_GROWTH: Final = 8

# How many chunks one turn of the event loop writes, for all sessions; and how many bytes of chunks it takes from them.
_AT_ONCE: Final = 8
_TAKEN_AT_ONCE: Final = 131_072

# How many of the newest frames of a message are kept for whoever is a little behind.
_FRAMES: Final = 16

# Seconds after which a transfer that is late is looked at again, where it is the server that takes its time.
_LATER: Final = 1.0


class LargeMessages:
    """All large messages of a node: what they weigh, and the thread that reads and makes them."""

    def __init__(self, node: Node) -> None:
        # Bytes that have come in chunks and are no message yet, of all sessions.
        self.held = 0

        # Larger encodings travel in chunks.
        self.most = node.options.message_size + _ADDED

        # A record, or a content, that is no larger than this cannot be too large in any codec.
        self.small = self.most // _GROWTH

        # The largest content that the application may publish.
        self.largest = max(node.options.message_size, node.options.transfers.large_message_size)

        # Chunks that are being written in this turn of the event loop: so many, and then whoever else has something.
        self.turns = asyncio.Semaphore(_AT_ONCE)

        # Bytes of chunks that this turn of the event loop has taken, and the sessions that wait for the next one.
        self._taken = 0
        self._waiting: list[Session] = []

        self._node = node
        self._ids = count(1)

        # By publication and format, as long as somebody sends them.
        self._outgoing: WeakValueDictionary[tuple[int, Framed], Outgoing] = WeakValueDictionary()

        # One thread, made with the first large message; each session waits for one thing at a time.
        self._thread: ThreadPoolExecutor | None = None

    def aside(self, function: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
        """Call a function that takes long where it holds nobody up; it must be pure."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="hubbub-large")
        return self._node.loop.run_in_executor(self._thread, function, *arguments)

    def took(self, session: Session, size: int) -> None:
        """So many bytes of a chunk were taken; after many, the rest of this session's comes in the next turn.

        A socket may hold megabytes of them, and they would all be read before anybody else is.
        """
        if not self._taken:
            self._node.loop.call_soon(self._next_turn)
        self._taken += size
        if self._taken > _TAKEN_AT_ONCE:
            session.pause()
            self._waiting.append(session)

    def _next_turn(self) -> None:
        self._taken = 0
        waiting, self._waiting = self._waiting, []
        for session in waiting:
            if not session.busy:
                session.go_on()

    def stop(self) -> None:
        """Begin nothing more."""
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def outgoing(self, message: object, format: Framed, encoded: bytes | None = None) -> Outgoing:
        """A message on its way to all receivers of one format: one object for all of them."""
        key = (id(message), format)
        # It keeps the message, so that nothing else can have its id meanwhile.
        found = self._outgoing.get(key)
        if found is None:
            if encoded is not None:
                encoded = self.readable(encoded)
            found = self._outgoing[key] = Outgoing(f"c{next(self._ids)}", message, format, encoded)
        return found

    def readable(self, encoded: bytes) -> bytes:
        """What is encoded, or nothing where it would be too large for any receiver."""
        if len(encoded) <= self.most or parts_of(len(encoded)) <= MOST_PARTS:
            return encoded
        log.error("a message of %d bytes cannot be sent: it would need more than %d chunks", len(encoded), MOST_PARTS)
        return b""


class Outgoing:
    """One message for all receivers of one format: encoded once, and each frame when it is needed."""

    __slots__ = ("__weakref__", "_encoded", "_encoding", "_format", "_frames", "_id", "message")

    def __init__(self, id: str, message: object, format: Framed, encoded: bytes | None) -> None:
        self.message = message
        # The transfer's.
        self._id = id
        self._format = format
        self._encoded = encoded
        self._encoding: asyncio.Future[bytes] | None = None
        self._frames: dict[int, bytes] = {}

    async def encode(self, large: LargeMessages) -> int:
        """Have it encoded, by whoever asks first, aside; how many bytes that are, 0 where nobody could read so many."""
        if self._encoded is None:
            if self._encoding is None:
                self._encoding = large.aside(lambda: large.readable(self._format.encoding(self.message)))
            # One who gives up must not take it from the others.
            self._encoded = await asyncio.shield(self._encoding)
            self._encoding = None
        return len(self._encoded)

    def frame(self, index: int) -> bytes:
        """The part with this number, as it goes over the wire; `encode` came before."""
        frame = self._frames.get(index)
        if frame is None:
            assert self._encoded is not None
            at = index * PART_SIZE
            part = self._encoded[at : at + PART_SIZE]
            frame = self._format.encode(ServerChunk(self._id, index, parts_of(len(self._encoded)), part))
            self._frames[index] = frame
            if len(self._frames) > _FRAMES:
                del self._frames[next(iter(self._frames))]
        return frame

    def whole(self) -> bytes:
        """All of it in one frame; `encode` came before."""
        assert self._encoded is not None
        return self._format.frame(self._encoded)


class SessionTransfers:
    """What one session sends in chunks, and gets in chunks; made with the first."""

    __slots__ = ("_catching_up", "_node", "_session", "_timer", "_transfers", "_under_way", "_waited", "writing")

    def __init__(self, node: Node, session: Session) -> None:
        # One message in chunks after the other: a client takes only so many at once.
        self.writing = asyncio.Lock()

        self._node = node
        self._session = session

        limits = node.options.transfers
        self._transfers = Transfers(limits.large_message_size, limits.transfers_per_session, limits.transfer_timeout)

        # Until the first of them must be finished.
        self._timer: Timer | None = None

        # The server has made the session wait while a transfer was due.
        self._waited = False

        # Channels that are held back while something large is sent.
        self._catching_up: set[Recovery] = set()

        # The channel of what is being written, once the first part is, and when that is done.
        self._under_way: tuple[str, asyncio.Future[None]] | None = None

    # ------------------------------------------------------------------------------------------------ in

    def add(self, chunk: Chunk) -> list[bytes | bytearray] | None:
        """Take a part; with its last one the whole message, to be joined, which counts as held until `let_go`."""
        large, transfers = self._node.large, self._transfers
        room = self._node.options.transfers.transfer_bytes - large.held
        before = transfers.held
        try:
            whole = transfers.add(chunk, self._node.wheel.now, room)
        finally:
            large.held += transfers.held - before
        if whole is not None:
            large.held += sum(map(len, whole))
        if self._timer is None:
            self._watch()
        return whole

    def let_go(self, whole: list[bytes | bytearray]) -> None:
        """A message is decoded: what counts from now on is not ours to count."""
        self._node.large.held -= sum(map(len, whole))

    def spoil(self, bad: BadChunk) -> bool:
        """A part of a transfer is wrong, which cannot be finished; False where that has been told already."""
        assert bad.id is not None
        before = self._transfers.held
        is_new = self._transfers.spoil(bad.id, bad.index)
        self._node.large.held += self._transfers.held - before
        return is_new

    def clear(self) -> None:
        """Free what there is: the session ends."""
        self._node.large.held -= self._transfers.held
        self._transfers.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _watch(self) -> None:
        due = self._transfers.due
        self._timer = None if due is None else self._node.wheel.at(due, self._expire)

    def _expire(self) -> None:
        if self._session.waits:
            # What is late may have come: it is the server that does not look.
            self._waited = True
            self._timer = self._node.wheel.after(_LATER, self._expire)
            return
        if self._waited:
            self._waited = False
            self._transfers.prolong(self._node.wheel.now)
        before = self._transfers.held
        late = self._transfers.expire(self._node.wheel.now)
        self._node.large.held += self._transfers.held - before
        self._watch()
        for id in late:
            self._session.wrong(Fault(ErrorCode.BAD_MESSAGE, "the rest of this message did not come in time", id))

    # ----------------------------------------------------------------------------------------------- out

    def catch_up(self, recovery: Recovery, catching_up: Coroutine[Any, Any, None]) -> None:
        """Own `catching_up`, which brings the session through a channel, until that is done."""
        self._catching_up.add(recovery)
        self._node.spawn(catching_up)

    def caught(self, recovery: Recovery) -> None:
        """That is over: nobody has to wait for it any more."""
        self._catching_up.discard(recovery)
        recovery.let_go()

    async def caught_up(self, channel: str | None = None) -> None:
        """Wait until the session has everything that has come so far, in all channels or in this one."""
        waits_for = [recovery.reach() for recovery in self._catching_up if channel in (None, recovery.name)]
        if waits_for:
            await asyncio.wait(waits_for)

    def begin(self, channel: str) -> None:
        """The first part of something of this channel, or of none (""), is written; `writing` is held until `end`."""
        self._under_way = (channel, self._node.loop.create_future())

    def end(self) -> None:
        """What has begun, if anything has, is written, or never will be."""
        if self._under_way is not None:
            self._under_way[1].set_result(None)
            self._under_way = None

    async def ended(self, channel: str) -> None:
        """Wait until what has begun of this channel is written."""
        if self._under_way is not None and self._under_way[0] == channel:
            await asyncio.wait([self._under_way[1]])


async def bring(node: Node, session: Session, recovery: Recovery) -> None:
    """Send what has come so far; what comes meanwhile follows, and nobody waits for that."""
    reached = recovery.reach()
    rest = step(catch_up(node, session, recovery))
    if rest is not None:
        session.transfers.catch_up(recovery, rest)
        await asyncio.wait([reached])


async def catch_up(node: Node, session: Session, recovery: Recovery, outgoing: Outgoing | None = None) -> None:
    """Bring the session through a channel until it is live; `outgoing`, something large that has come, is kept."""
    try:
        if await recovery.finish() and recovery.inbox and not session.full and not session.ending:
            node.owe(session, recovery.seq)
    except Exception as error:
        if not isinstance(error, Unavailable):
            log.exception("session %s could not be sent what has come", session.id)
        session.close(CloseCode.TRY_LATER, "what has come cannot be read now", retry_after=1)
    finally:
        del outgoing
        session.caught(recovery)


async def chunk(node: Node, session: Session, request: Chunk) -> None:
    """A part of a large message; with the last one, it is a message like any other."""
    transfers = session.transfers
    try:
        node.large.took(session, len(request.data))
        whole = transfers.add(request)
    except TransferRefused as refused:
        fault = Fault(refused.code, str(refused), request.id)
        if refused.code == ErrorCode.BAD_MESSAGE:
            session.wrong(fault)
            return
        if refused.code == ErrorCode.UNAVAILABLE:
            fault.retry_after = 1.0
        session.fault(fault)
        return
    if whole is None:
        return
    try:
        event = await node.large.aside(read_whole, format_of(session).codec, whole, request.id)
    finally:
        transfers.let_go(whole)
    session.put_first(event)


async def answer(node: Node, session: Session, message: HistoryPage | PongAnswer) -> None:
    """Answer a request with what may be large; returns when it is written, or nearly so."""
    if _weight(message) <= node.large.small:
        session.send(message)
    elif not session.ending:
        outgoing = node.large.outgoing(message, format_of(session))
        if not await outgoing.encode(node.large):
            session.fault(Fault(ErrorCode.TOO_LARGE, "the answer is too large to be sent", message.id))
            return
        await send_large(node, session, outgoing)


async def send_large(
    node: Node,
    session: Session,
    outgoing: Outgoing,
    publication: Publication | None = None,
    recovery: Recovery | None = None,
) -> bool:
    """Send what may be too large for one message; False when the session ended meanwhile.

    A publication is sent in a recovery of its channel: nothing of it where that is called off before it has begun.
    """
    large = node.large
    channel = "" if recovery is None else recovery.name
    size = await outgoing.encode(large)
    if size <= large.most:
        if not await session.writable():
            return False
        if recovery is None or not recovery.called_off:
            if size:
                session.put_frame(outgoing.whole(), publication, channel)
            elif publication is not None and publication.seq is not None:
                seq = publication.seq
                first = seq if publication.prev is None else publication.prev + 1
                told = Gap(first, seq, room=room_of(channel), channel=ALL if channel == ALL else None)
                session.send(told, channel, seq)
        return True
    transfers = session.transfers
    async with transfers.writing:
        try:
            index, parts = 0, parts_of(size)
            while index < parts:
                if not await session.writable():
                    return False
                async with large.turns:
                    if not index and recovery is not None and recovery.called_off:
                        return True
                    # While it waited for its turn, the socket may have been filled.
                    if not session.outbox.blocked:
                        if not index:
                            transfers.begin(channel)
                        session.put_frame(outgoing.frame(index))
                        session.outbox.flush()
                        index += 1
                    await in_task()
        finally:
            transfers.end()
    return True


def format_of(session: Session) -> Framed:
    """The format of a session that stands."""
    format = session.outbox.format
    assert isinstance(format, Framed)
    return format


def _weight(message: HistoryPage | PongAnswer) -> int:
    if isinstance(message, PongAnswer):
        return memoryview(message.content).nbytes
    return sum(memoryview(publication.content).nbytes for publication in message.messages)
