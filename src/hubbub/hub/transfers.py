"""Large messages in chunks, in and out (protocol.md §7): bounded, and so that nobody else waits for them.

What comes in is collected, decoded aside, and then handled like a message that has just come. What goes out is a
publication or an answer that is too large for one message of the receiver's codec: it is written a chunk at a time, as
fast as the socket takes it, while what is small goes by. The order within a channel holds, because the channel is held
back for that receiver meanwhile: see `hubbub.hub.recovery`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import TYPE_CHECKING, Any, Final, TypeVar
from weakref import WeakValueDictionary

from hubbub.core.wheel import Timer
from hubbub.eager import in_task
from hubbub.hub.formats import Framed
from hubbub.protocol.chunks import PART_SIZE, TransferRefused, Transfers, parts_of
from hubbub.protocol.codes import CloseCode, ErrorCode
from hubbub.protocol.conversation import read_whole
from hubbub.protocol.envelope import Ack, Chunk, Fault, HistoryPage, PongAnswer, ServerChunk
from hubbub.types import Publication

if TYPE_CHECKING:
    from hubbub.hub.node import Node
    from hubbub.hub.recovery import Recovery
    from hubbub.hub.session import Session

__all__ = ["LargeMessages", "Outgoing", "SessionTransfers", "answer", "chunk", "format_of", "send_backlog"]

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

# Bytes of backlog to write before looking whether the socket still takes them.
_BACKLOG_STEP: Final = 65_536


class LargeMessages:
    """All large messages of a node: what they weigh, and the thread that reads and makes them."""

    def __init__(self, node: Node) -> None:
        # Bytes that have come in chunks and are no message yet, of all sessions.
        self.held = 0

        # Larger encodings travel in chunks.
        self.most = node.options.message_size + _ADDED

        # A record, or a content, that is no larger than this cannot be too large in any codec.
        self.small = self.most // _GROWTH

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
            found = self._outgoing[key] = Outgoing(f"c{next(self._ids)}", message, format, encoded)
        return found


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

    async def encode(self, large: LargeMessages) -> bytes:
        """The encoded message; whoever asks first has it made, aside."""
        if self._encoded is None:
            if self._encoding is None:
                self._encoding = large.aside(self._format.encoding, self.message)
            # One who gives up must not take it from the others.
            self._encoded = await asyncio.shield(self._encoding)
            self._encoding = None
        return self._encoded

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

    __slots__ = ("_catching_up", "_node", "_session", "_timer", "_transfers", "writing")

    def __init__(self, node: Node, session: Session) -> None:
        # One message in chunks after the other: a client takes only so many at once.
        self.writing = asyncio.Lock()

        self._node = node
        self._session = session

        limits = node.options.transfers
        self._transfers = Transfers(limits.large_message_size, limits.transfers_per_session, limits.transfer_timeout)

        # Until the first of them must be finished.
        self._timer: Timer | None = None

        # Channels that are held back while something large is sent: each is done when they go on.
        self._catching_up: set[asyncio.Future[None]] = set()

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

    def spoilt(self, id: str | None) -> None:
        """There was something wrong with what bears this id: where that is a transfer, it cannot be finished."""
        if id is not None and id in self._transfers:
            before = self._transfers.held
            self._transfers.refuse(id)
            self._node.large.held += self._transfers.held - before

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
        before = self._transfers.held
        late = self._transfers.expire(self._node.wheel.now)
        self._node.large.held += self._transfers.held - before
        self._watch()
        for id in late:
            self._session.wrong(Fault(ErrorCode.BAD_MESSAGE, "the rest of this message did not come in time", id))

    # ----------------------------------------------------------------------------------------------- out

    def catch_up(self, recovery: Recovery, outgoing: Outgoing) -> None:
        """Bring the session through a channel in which something large has come; `outgoing` is that, and is kept."""
        done = self._node.loop.create_future()
        self._catching_up.add(done)
        self._node.spawn(self._catch_up(recovery, outgoing, done))

    async def _catch_up(self, recovery: Recovery, outgoing: Outgoing, done: asyncio.Future[None]) -> None:
        session = self._session
        try:
            if await recovery.finish() and recovery.inbox and not session.full and not session.ending:
                self._node.owe(session, recovery.seq)
        except Exception:
            log.exception("a large message could not be sent to session %s", session.id)
            session.close(CloseCode.TRY_LATER, "what came with a large message cannot be read now", retry_after=1)
        finally:
            del outgoing
            self._catching_up.discard(done)
            done.set_result(None)

    async def caught_up(self) -> None:
        """Wait until the session has everything that has come so far."""
        if self._catching_up:
            await asyncio.wait(list(self._catching_up))


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
    session.received_whole(event)


async def answer(node: Node, session: Session, message: HistoryPage | PongAnswer) -> None:
    """Answer a request with what may be large; returns when it is written, or nearly so."""
    if _weight(message) <= node.large.small:
        session.send(message)
    elif not session.ending:
        await _send_large(node, session, node.large.outgoing(message, format_of(session)))


async def send_backlog(node: Node, session: Session, messages: Iterable[Publication | Ack], channel: str) -> bool:
    """Send what was missed, no faster than the socket takes it; False when the session ended meanwhile."""
    outbox, small = session.outbox, node.large.small
    unsent = 0
    for message in messages:
        if not isinstance(message, Publication):
            publication = None
        elif memoryview(message.content).nbytes <= small:
            publication = message
        else:
            if not await _send_large(node, session, node.large.outgoing(message, format_of(session)), message, channel):
                return False
            unsent = 0
            continue
        frame = outbox.format.encode(message)
        unsent += len(frame)
        if unsent > _BACKLOG_STEP:
            unsent = len(frame)
            outbox.flush()
            # A reader that keeps up must not keep everybody else waiting.
            await in_task()
        # Behind a blocked socket it would count against the outbox's bounds. The write deadline ends the session if
        # this takes too long.
        if outbox.blocked and not await session.writable():
            return False
        session.put_frame(frame, publication, channel, message.seq)
    return True


async def _send_large(
    node: Node, session: Session, outgoing: Outgoing, publication: Publication | None = None, channel: str = ""
) -> bool:
    """Send what may be too large for one message; False when the session ended meanwhile."""
    large = node.large
    size = len(await outgoing.encode(large))
    if size <= large.most:
        if not await session.writable():
            return False
        session.put_frame(outgoing.whole(), publication, channel)
        return True
    async with session.transfers.writing:
        index, parts = 0, parts_of(size)
        while index < parts:
            if not await session.writable():
                return False
            async with large.turns:
                # While it waited for its turn, the socket may have been filled.
                if not session.outbox.blocked:
                    session.put_frame(outgoing.frame(index))
                    session.outbox.flush()
                    index += 1
                await in_task()
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
