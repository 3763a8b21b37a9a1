"""Direct gets: what stands in a stream, asked of JetStream without a consumer; any number may be on their way."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from hubbub.engines.nats.acks import Error
from hubbub.engines.nats.link import Answer, Link
from hubbub.engines.nats.notes import pending_of, seq_of
from hubbub.engines.nats.streams import Stream, Streams
from hubbub.engines.shared.answers import settle
from hubbub.errors import Unavailable

__all__ = ["TOO_MANY", "Gets", "Part"]

T = TypeVar("T")

TOO_MANY: Final = 413
"""The status of a `Part` that was asked for the newest of more subjects than are answered at once."""

# Questions that are on their way at once, and bytes of what may answer; and those that wait for their turn. NATS cuts
# off whoever has asked for more than it keeps for one connection (`max_pending`, 64 MB), and the bus needs some of it.
# Where it is less, fewer bytes are asked for after the interruption, and then more and more.
_AT_ONCE: Final = 64
_AT_ONCE_BYTES: Final = 40_000_000
# Bytes of a thousand entries about users, of which each is small.
_ENTRIES: Final = 524_288
_WAITING: Final = 50_000
_NOTHING: Final = 404
_END: Final = 204
_GONE: Final = 503


class Part(Struct, frozen=True):
    """Some messages, and how many follow that were asked for, too."""

    answers: list[Answer]
    pending: int = 0
    # `TOO_MANY`, or 0.
    status: int = 0

    @property
    def count(self) -> int:
        """How many there are in all."""
        return len(self.answers) + self.pending

    @property
    def first(self) -> int:
        """Where the first of them stands, 0 where there is none."""
        return seq_of(self.answers[0].head) if self.answers else 0


class _Question(Struct):
    """One that has its turn, or waits for it."""

    subject: str
    body: bytes
    # Bytes that may answer: nobody knows before how large a message is, but for what its stream takes.
    size: int
    # Whether any number of messages answer, and what they are for who asked; raises `Unavailable`.
    batch: bool
    read: Callable[[Any], Any]
    found: asyncio.Future[Any]


class _Message(Struct, frozen=True):
    seq: int
    data: bytes = b""


class _Newest(Struct, frozen=True):
    message: _Message | None = None
    error: Error | None = None


class _Gone(Unavailable):
    """Nobody answers for the stream."""


class Gets:
    """Asks for messages of streams; each question raises `Unavailable`."""

    def __init__(self, link: Link, streams: Streams) -> None:
        self._link = link
        self._streams = streams
        # Any server that has a copy answers, and may be behind. Only the one that leads knows what is newest.
        self.copies = streams.replicas > 1
        # How many are on their way, how many bytes may answer them, and no more than that; and what waits for its turn.
        self._under_way = self._bytes = 0
        self._most_bytes = _AT_ONCE_BYTES
        self._turn: deque[_Question] = deque()

    async def one(self, stream: Stream, **asked: Any) -> Answer | None:
        """One message, or None: at `seq`; from there on the `next_by_subj`; or the `last_by_subj`."""
        return await self._sure(stream, partial(self._ask, stream, asked, _one))

    async def last(self, stream: Stream, subjects: str) -> tuple[int, bytes]:
        """Where the newest message under `subjects` stands, and what is in it; 0 where there is none."""
        if not self.copies:
            answer = await self.one(stream, last_by_subj=subjects)
            return (0, b"") if answer is None else (seq_of(answer.head), answer.body)
        await self._streams.ready(stream)
        return await self._ask(stream, {"last_by_subj": subjects}, _newest, leader=True)

    async def many(self, stream: Stream, **asked: Any) -> Part:
        """A `batch` of messages from `seq` on (`next_by_subj`), or the newest of each subject (`multi_last`)."""
        return await self._sure(stream, partial(self._ask, stream, asked, _many, batch=True))

    def away(self) -> None:
        """The connection has ended, perhaps because it could not take what was asked."""
        self._most_bytes //= 4

    async def _sure(self, stream: Stream, ask: Callable[[], Awaitable[T]]) -> T:
        await self._streams.ready(stream)
        try:
            return await ask()
        except _Gone:
            # It is made anew where it has been deleted; for one that is only on its way to another server, this waits.
            await self._streams.make_sure(stream)
            return await ask()

    def _ask(
        self,
        stream: Stream,
        asked: dict[str, Any],
        read: Callable[[Any], T],
        *,
        batch: bool = False,
        leader: bool = False,
    ) -> asyncio.Future[T]:
        if len(self._turn) >= _WAITING:
            raise Unavailable("too much waits to be read")
        found: asyncio.Future[T] = self._link.loop.create_future()
        subject = f"$JS.API.{'STREAM.MSG' if leader else 'DIRECT'}.GET.{stream.name}"
        largest = min(stream.largest, self._link.max_payload)
        # The leader says it in base64; and of a batch, the message with which it gets too large is the last.
        size = largest * 4 // 3 if leader else largest + asked.get("max_bytes", _ENTRIES if batch else 0)
        self._turn.append(_Question(subject, msgspec.json.encode(asked), size, batch, read, found))
        self._go_on()
        return found

    def _go_on(self) -> None:
        while self._turn and self._under_way < _AT_ONCE:
            question = self._turn[0]
            if self._under_way and self._bytes + question.size > self._most_bytes and not question.found.done():
                return
            self._turn.popleft()
            if question.found.done():
                # Nobody waits for it any more.
                continue
            try:
                answered = partial(self._answered, question)
                self._link.ask(question.subject, question.body, answered, batch=question.batch)
            except Unavailable as error:
                settle(question.found, error)
            else:
                self._under_way += 1
                self._bytes += question.size

    def _answered(self, question: _Question, outcome: Any) -> None:
        self._under_way -= 1
        self._bytes -= question.size
        if isinstance(outcome, Exception):
            settle(question.found, Unavailable("NATS does not answer"))
        else:
            self._most_bytes = min(_AT_ONCE_BYTES, self._most_bytes + question.size)
            try:
                settle(question.found, question.read(outcome))
            except Unavailable as error:
                settle(question.found, error)
        self._go_on()


def _one(answer: Answer) -> Answer | None:
    if answer.status not in (0, _NOTHING):
        raise _failure(answer.status)
    return None if answer.status else answer


def _many(found: list[Answer]) -> Part:
    *answers, last = found
    if last.status in (_END, _NOTHING):
        return Part(answers, pending_of(last.head))
    if last.status == TOO_MANY:
        return Part([], status=TOO_MANY)
    raise _failure(last.status)


def _newest(answer: Answer) -> tuple[int, bytes]:
    if answer.status:
        raise Unavailable("JetStream is away")
    found = msgspec.json.decode(answer.body, type=_Newest)
    if found.error is not None and found.error.code != _NOTHING:
        raise Unavailable(f"JetStream cannot be read: {found.error.description}")
    return (0, b"") if found.message is None else (found.message.seq, found.message.data)


def _failure(status: int) -> Unavailable:
    return _Gone("JetStream is away") if status == _GONE else Unavailable(f"JetStream cannot be read (status {status})")
