"""What this node publishes: pipelined, answered in order, and nothing volatile overtakes what is stored.

A message that is stored goes to the stream and from there to the bus; a volatile one goes to the bus at once. So a
volatile one waits until what was submitted before it to the same channel is stored, and what is submitted after it
waits behind it.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

from hubbub.core import record
from hubbub.engines.base import Accepted
from hubbub.engines.nats.acks import IN_PROCESS, TOO_LARGE, UNKNOWN_ID, ack_of
from hubbub.engines.nats.link import Answer, Link
from hubbub.engines.nats.listening import Listening
from hubbub.engines.nats.live import Live
from hubbub.engines.nats.notes import body_of
from hubbub.engines.nats.places import Places
from hubbub.engines.nats.streams import Stream, Streams
from hubbub.engines.shared.answers import unknown
from hubbub.engines.shared.live import Submission
from hubbub.errors import HubbubError, Reject, Unavailable
from hubbub.protocol.codes import ErrorCode
from hubbub.types import Publication

__all__ = ["Publishing"]

log = logging.getLogger("hubbub.engines.nats")

# Publications that wait behind others, or for the bus to bring them back; and bytes of those that wait.
_MOST: Final = 8_000
_MOST_BYTES: Final = 67_108_864
# Seconds after which what the bus has not brought back is lost.
_PATIENCE: Final = 2.0
# What of the largest message that the server takes is left to heads.
_HEADS: Final = 1_024


class _Outgoing(Submission[int], eq=False):
    """A publication on its way, with what it takes to send it."""

    channel: str
    volatile: bool
    body: bytes
    # When it was sent (the loop's clock); and the channel, where this node listens to it.
    since: float = 0.0
    live: Live | None = None


class Publishing:
    """Publications on their way to JetStream."""

    def __init__(self, link: Link, streams: Streams, places: Places, listening: Listening, run: str) -> None:
        self._link = link
        self._streams = streams
        self._places = places
        self._listening = listening
        self._run = run
        self._numbers = itertools.count(1)

        # By channel: how many are being stored, and who has to wait for that.
        self._storing: dict[str, int] = {}
        self._queues: dict[str, deque[_Outgoing]] = {}
        self._queued = self._queued_bytes = 0
        # By stream that is not known yet, or takes no such large messages: the channels that wait for it.
        self._opening: dict[str, list[str]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # Volatile ones that are on their way back, in the order of sending.
        self._moments: dict[int, _Outgoing] = {}

    def submit(
        self,
        channel: str,
        publication: Publication,
        volatile: bool,
        origin: str | None,
        done: Callable[[Accepted | Exception], object],
    ) -> None:
        """See `Engine.submit`."""
        if not self._link.serves:
            raise Unavailable("NATS is away")
        # JetStream gives it its number.
        publication.seq = publication.prev = None
        number = next(self._numbers)
        body = body_of(self._run, number, origin, record.encode(publication))
        most = self._link.max_payload - _HEADS
        if len(body) > most:
            raise Reject(
                ErrorCode.TOO_LARGE,
                f"NATS takes no message of more than {most} bytes: raise max_payload in its settings",
            )
        submission = _Outgoing(publication, number, done, channel, volatile, body)
        queue = self._queues.get(channel)
        if queue is None and not self._must_wait(submission):
            self._send(submission)
            return
        if self._queued >= _MOST or self._queued_bytes + len(body) > _MOST_BYTES:
            raise Unavailable("too much waits to be published")
        self._queued += 1
        self._queued_bytes += len(body)
        if queue is None:
            queue = self._queues[channel] = deque()
        queue.append(submission)

    def tick(self, now: float) -> None:
        """Called several times a second: what the bus does not bring back is lost."""
        for number, submission in list(itertools.islice(self._moments.items(), 1_000)):
            if submission.since > now - _PATIENCE:
                break
            self._moments.pop(number, None)
            _finish(submission, Unavailable("NATS does not answer"))

    def away(self) -> None:
        """The connection has ended: nothing of what waits has been sent."""
        queues, self._queues = self._queues, {}
        self._queued = self._queued_bytes = 0
        moments, self._moments = self._moments, {}
        self._opening.clear()
        for submission in (*(one for queue in queues.values() for one in queue), *moments.values()):
            _finish(submission, Unavailable("NATS is away"))

    async def close(self) -> None:
        """Nothing more is published."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.away()

    async def accepted(self, channel: str, from_: str, id: str) -> Accepted | None:
        """See `Engine.accepted`: a publication that can never be stored, unless it is known already."""
        place = self._places.of(channel)
        stream = self._streams.of(place.kind, place.retention)
        await self._streams.ready(stream)
        epoch = stream.epoch
        head = _head(_name(channel, from_, id), never=True)
        try:
            answer = await self._link.call(place.subject, b"", headers=head)
        except TimeoutError:
            raise Unavailable("NATS does not answer") from None
        if answer.status:
            raise Unavailable("JetStream is away")
        ack = ack_of(answer.body)
        if ack.error is None:
            return Accepted(epoch, ack.seq, True)
        if ack.error.err_code != UNKNOWN_ID:
            raise Unavailable(f"JetStream does not answer: {ack.error.description}")
        return None

    # --------------------------------------------------------------------------------------------- sending

    def _must_wait(self, submission: _Outgoing) -> bool:
        channel, place = submission.channel, self._places.of(submission.channel)
        if not submission.volatile:
            stream = self._streams.of(place.kind, place.retention)
            size = len(submission.body) + _HEADS
            if not stream.sure or size > stream.largest:
                self._open(stream, channel, size)
                return True
            return False
        return channel in self._storing

    def _open(self, stream: Stream, channel: str, size: int) -> None:
        """Look for the stream, and that it takes so many bytes; then the channel goes on."""
        channels = self._opening.get(stream.kind)
        if channels is not None:
            channels.append(channel)
            return
        self._opening[stream.kind] = [channel]

        async def look() -> None:
            error: Exception | None = None
            try:
                await self._streams.ready(stream)
                if size > stream.largest:
                    await self._streams.make_room(stream, size)
            except HubbubError as raised:
                log.warning("%s", raised)
                error = Unavailable(str(raised))
            except Exception as raised:
                log.exception("the stream %s could not be looked at", stream.name)
                error = raised
            for one in self._opening.pop(stream.kind, ()):
                if error is None:
                    self._go_on(one)
                else:
                    for submission in self._take(one):
                        _finish(submission, error)

        task = self._link.loop.create_task(look())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _take(self, channel: str) -> deque[_Outgoing]:
        queue = self._queues.pop(channel, deque())
        self._queued -= len(queue)
        self._queued_bytes -= sum(len(submission.body) for submission in queue)
        return queue

    def _go_on(self, channel: str) -> None:
        """Whatever waits in the channel follows, until something has to wait again."""
        queue = self._queues.get(channel)
        while queue:
            submission = queue[0]
            if self._must_wait(submission):
                return
            queue.popleft()
            self._queued -= 1
            self._queued_bytes -= len(submission.body)
            try:
                self._send(submission)
            except HubbubError as error:
                _finish(submission, error)
        if queue is not None and self._queues.get(channel) is queue:
            del self._queues[channel]

    def _send(self, submission: _Outgoing) -> None:
        channel, place = submission.channel, self._places.of(submission.channel)
        live = self._listening.get(channel)
        submission.since = self._link.loop.time()
        if submission.volatile:
            if len(self._moments) >= _MOST:
                raise Unavailable("too much waits to be heard")
            self._link.tell(place.bus, submission.body)
            if live is None:
                submission.finish(Accepted(self._run, None))
                return
            self._wait_for(submission)
        else:
            publication = submission.publication
            head = b"" if publication.id is None else _head(_name(channel, publication.from_, publication.id))
            self._link.ask(place.subject, submission.body, partial(self._answered, submission), headers=head)
            self._storing[channel] = self._storing.get(channel, 0) + 1
        submission.body = b""
        if live is not None:
            submission.live = live
            live.submissions[submission.tag] = submission

    def _wait_for(self, submission: _Outgoing) -> None:
        """Nobody acknowledges what is volatile: it is answered when the bus has brought it back."""
        number, done = submission.tag, submission.done
        assert done is not None

        def heard(outcome: Accepted | Exception) -> None:
            self._moments.pop(number, None)
            done(outcome)

        self._moments[number] = submission
        submission.done = heard

    def _answered(self, submission: _Outgoing, answer: Answer | Exception) -> None:
        """JetStream has taken a publication, or not."""
        channel, place = submission.channel, self._places.of(submission.channel)
        stream = self._streams.of(place.kind, place.retention)
        outcome = self._outcome(stream, answer)
        live = submission.live
        if submission.done is None:
            # The bus was faster.
            pass
        elif live is None:
            submission.finish(outcome)
        elif isinstance(outcome, Exception) or not live.epoch:
            live.finish(submission, outcome)
        else:
            live.answered(submission, outcome, self._link.loop.time())
            self._listening.watch(live)
        left = self._storing[channel] - 1
        if left:
            self._storing[channel] = left
        else:
            del self._storing[channel]
            if channel in self._queues:
                self._go_on(channel)

    def _outcome(self, stream: Stream, answer: Answer | Exception) -> Accepted | Exception:
        if not isinstance(answer, Answer):
            return unknown()
        if answer.status:
            # Nobody was there to take it. It is looked for with the next one.
            stream.doubted = True
            return Unavailable("JetStream is away")
        ack = ack_of(answer.body)
        if ack.error is None:
            if not ack.duplicate and ack.seq < stream.heard:
                # A number that has been: it is another log, and this node does not know which.
                stream.doubted = True
            if stream.doubted:
                return unknown()
            stream.heard = max(stream.heard, ack.seq)
            stream.saw(ack.seq, b"")
            return Accepted(stream.epoch, ack.seq, ack.duplicate)
        if ack.error.err_code == IN_PROCESS:
            # By another node, which may fail yet.
            return unknown()
        if ack.error.err_code == TOO_LARGE:
            # Another node has changed it in the moment in which it was made to take that.
            stream.doubted = True
            return Unavailable("JetStream has to be made to take messages as large as that")
        if ack.error.code >= 500 or ack.error.code == 429:
            return Unavailable(f"JetStream cannot take it: {ack.error.description}")
        return HubbubError(f"JetStream does not take it: {ack.error.description}")


def _finish(submission: _Outgoing, outcome: Accepted | Exception) -> None:
    if submission.live is not None:
        submission.live.finish(submission, outcome)
    else:
        submission.finish(outcome)


def _name(channel: str, from_: str, id: str) -> bytes:
    """A name for a message by which its retries are known. Of any text: what people write is never part of a head."""
    digest = hashlib.blake2b(f"{channel}\0{from_}\0{id}".encode(errors="surrogatepass"), digest_size=18).digest()
    return base64.urlsafe_b64encode(digest)


def _head(name: bytes, *, never: bool = False) -> bytes:
    expected = b"Nats-Expected-Last-Msg-Id: never\r\n" if never else b""
    return b"NATS/1.0\r\nNats-Msg-Id: %b\r\n%b\r\n" % (name, expected)
