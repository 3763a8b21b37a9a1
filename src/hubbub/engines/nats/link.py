"""What goes to NATS and what comes: publications that are acknowledged, questions, and what is listened to.

All on one connection, so that what a stream tells and what it answers come in the order in which it did them: the
answer to a publication never overtakes the publication itself.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from hubbub.engines.nats.address import Address
from hubbub.engines.nats.supervised import Supervised
from hubbub.engines.shared.answers import settle
from hubbub.errors import Unavailable

__all__ = ["Answer", "Link"]

log = logging.getLogger("hubbub.engines.nats")

T = TypeVar("T")

# Questions and publications on their way, and bytes of theirs; beyond, `Unavailable`. A stream itself takes up 10,000
# from all nodes together before it refuses.
_MOST: Final = 8_000
_MOST_BYTES: Final = 67_108_864
# Seconds for an answer.
_TIMEOUT: Final = 2.0
# Seconds of silence after which the server is asked for a sign of life, and more after which it counts as away.
_QUIET: Final = 1.0
_SILENT: Final = 2.0


class Answer(Struct, frozen=True, gc=False):
    """One message that answers."""

    head: bytes
    body: bytes

    @property
    def status(self) -> int:
        """0 for an answer with something in it; else what is wrong, or that it was the last."""
        return int(self.head[9:12]) if self.head[8:9] == b" " else 0


class _Asked:
    """A question on its way; `done` gets its answer, or an exception."""

    __slots__ = ("batch", "deadline", "done", "parts", "size")

    def __init__(self, done: Callable[[Any], object], batch: bool, size: int, deadline: float) -> None:
        self.done = done
        # Whether the answer is any number of messages, and those that have come.
        self.batch = batch
        self.parts: list[Answer] = []
        self.size = size
        self.deadline = deadline


class Link(Supervised):
    """The connection, and whoever waits for something that comes by it."""

    def __init__(self, address: Address, name: str, run: str) -> None:
        """`run` names this start of this node, which no other has or had."""
        super().__init__(address, name)
        self.loop = asyncio.get_running_loop()
        # Awaited whenever there is a connection, before anybody else may use it; and called when everybody may.
        self.look: Callable[[], Awaitable[None]] | None = None
        self.again: Callable[[], None] = lambda: None
        # Told when the connection has ended.
        self.away: Callable[[], None] = lambda: None

        # Whether everybody may use the connection; before that, `look` does.
        self.serves = False
        self._prepares = False

        self._inbox = f"_INBOX.{run}.".encode()
        self._numbers = itertools.count(1)
        self._asked: dict[int, _Asked] = {}
        self._bytes = 0

        # By number: the subject, and who hears what comes. The first is for answers.
        self._sids = itertools.count(2)
        self._heard: dict[int, tuple[str, Callable[[bytes, bytes], None]]] = {}

    @property
    def waiting(self) -> int:
        """What is on its way and not answered yet."""
        return len(self._asked)

    @property
    def max_payload(self) -> int:
        """Bytes of the largest message that the server takes."""
        info = self.connection.info if self.connection is not None else None
        return 1_048_576 if info is None else info.max_payload

    # ---------------------------------------------------------------------------------------------- asking

    def ask(
        self, subject: str, body: bytes, done: Callable[[Any], object], *, headers: bytes = b"", batch: bool = False
    ) -> None:
        """Send, and give the answer to `done`: an `Answer`, or a list of them where it is a `batch`.

        Raises `Unavailable` where that cannot be, and then nothing was sent. `done` gets a `TimeoutError` where nobody
        can say whether it was done.
        """
        connection = self.connection
        if connection is None or not (self.serves or self._prepares):
            raise Unavailable("NATS is away")
        size = 300 + len(headers) + len(body)
        if len(self._asked) >= _MOST or self._bytes + size > _MOST_BYTES:
            raise Unavailable("NATS is behind with what it has to do")
        number = next(self._numbers)
        self._asked[number] = _Asked(done, batch, size, self.loop.time() + _TIMEOUT)
        self._bytes += size
        if headers:
            sizes = len(headers), len(headers) + len(body)
            line = b"HPUB %b %b%d %d %d\r\n" % (subject.encode(), self._inbox, number, *sizes)
            connection.write(line, headers, body, b"\r\n")
        else:
            connection.write(b"PUB %b %b%d %d\r\n" % (subject.encode(), self._inbox, number, len(body)), body, b"\r\n")

    def tell(self, subject: str, body: bytes) -> None:
        """Send what nobody answers; raises `Unavailable`."""
        if self.connection is None or not (self.serves or self._prepares):
            raise Unavailable("NATS is away")
        if self.connection.unsent > _MOST_BYTES:
            raise Unavailable("NATS is behind with what it has to do")
        self.connection.write(b"PUB %b %d\r\n" % (subject.encode(), len(body)), body, b"\r\n")

    def call(self, subject: str, body: bytes = b"", *, headers: bytes = b"") -> asyncio.Future[Answer]:
        """`ask` with a future; `Unavailable` comes at once, or later out of it, and so does `TimeoutError`."""
        answer: asyncio.Future[Answer] = self.loop.create_future()
        self.ask(subject, body, partial(settle, answer), headers=headers)
        return answer

    def read(self, subject: str, body: bytes) -> asyncio.Future[list[Answer]]:
        """`call` where the answer is any number of messages, the last of which has a status."""
        answer: asyncio.Future[list[Answer]] = self.loop.create_future()
        self.ask(subject, body, partial(settle, answer), batch=True)
        return answer

    async def api(self, what: str, said: Any, kind: type[T]) -> T:
        """Ask JetStream something that is answered in JSON; raises `Unavailable` where nobody answers."""
        try:
            answer = await self.call(f"$JS.API.{what}", msgspec.json.encode(said) if said else b"")
        except TimeoutError:
            raise Unavailable("JetStream does not answer") from None
        if answer.status:
            raise Unavailable("JetStream is away")
        return msgspec.json.decode(answer.body, type=kind)

    # ------------------------------------------------------------------------------------------- listening

    def subscribe(self, subject: str, heard: Callable[[bytes, bytes], None]) -> int:
        """Hear `subject`, also after an interruption; returns the number under which that can be ended.

        `heard` gets the head and the body of each message, and raises nothing. A question that is asked later is
        answered when whatever comes is heard.
        """
        sid = next(self._sids)
        self._heard[sid] = subject, heard
        if self.connection is not None:
            self.connection.write(_sub(subject, sid))
        return sid

    def unsubscribe(self, sid: int) -> None:
        """Hear it no more."""
        if self._heard.pop(sid, None) is not None and self.connection is not None:
            self.connection.write(b"UNSUB %d\r\n" % sid)

    # ------------------------------------------------------------------------------------ the connection

    async def prepare(self) -> None:
        """See `Supervised.prepare`: everything is heard again, and then it is looked what is still there."""
        connection = self.connection
        assert connection is not None
        connection.message = self._message
        connection.write(b"SUB %b* 1\r\n" % self._inbox)
        connection.write(*(_sub(subject, sid) for sid, (subject, _) in self._heard.items()))
        self._prepares = True
        try:
            if self.look is not None:
                await self.look()
        finally:
            self._prepares = False

    def begin(self) -> None:
        """See `Supervised.begin`."""
        self.serves = True
        self.again()

    def end(self) -> None:
        """See `Supervised.end`: whoever waits learns that the answer is lost."""
        self.serves = False
        asked, self._asked, self._bytes = self._asked, {}, 0
        for one in asked.values():
            self._finish(one, TimeoutError("the connection to NATS was lost"))
        self.away()

    def tick(self, now: float) -> None:
        """Called several times a second: who does not answer is given up, and a server that is silent, too."""
        connection = self.connection
        if connection is not None:
            if connection.pinged and now - connection.pinged > _SILENT:
                connection.abort("it is silent", silent=True)
            elif not connection.pinged and now - connection.heard > _QUIET:
                connection.ping()
        # In the order of asking.
        for number, asked in list(itertools.islice(self._asked.items(), 1_000)):
            if asked.deadline > now:
                break
            self._forget(number)
            self._finish(asked, TimeoutError("NATS does not answer"))

    def _message(self, sid: int, subject: bytes, head: bytes, body: bytes) -> None:
        if sid != 1:
            found = self._heard.get(sid)
            if found is not None:
                found[1](head, body)
            return
        try:
            number = int(subject[len(self._inbox) :])
        except ValueError:
            return
        asked = self._asked.get(number)
        if asked is None:
            return
        answer = Answer(head, body)
        if not asked.batch:
            self._forget(number)
            self._finish(asked, answer)
            return
        asked.parts.append(answer)
        if answer.status:
            self._forget(number)
            self._finish(asked, asked.parts)

    def _forget(self, number: int) -> None:
        self._bytes -= self._asked.pop(number).size

    def _finish(self, asked: _Asked, outcome: Any) -> None:
        try:
            asked.done(outcome)
        except Exception:
            # They promise to raise nothing; if one does, the others must still be answered.
            log.exception("an answer of NATS could not be handled")


def _sub(subject: str, sid: int) -> bytes:
    return b"SUB %b %d\r\n" % (subject.encode(), sid)
