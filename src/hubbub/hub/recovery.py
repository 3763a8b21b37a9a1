"""How a session catches up with a channel: what it missed first, then live, with no gap and no double."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Literal, cast

from hubbub.core.channel import Channel
from hubbub.core.log import Page
from hubbub.core.outbox import Format, Outbox
from hubbub.eager import in_task
from hubbub.hub.transfers import catch_up, format_of, send_large
from hubbub.protocol.codes import CloseCode
from hubbub.protocol.envelope import Ack
from hubbub.types import Position, Publication

if TYPE_CHECKING:
    from hubbub.hub.formats import Framed
    from hubbub.hub.node import Node
    from hubbub.hub.session import Session

__all__ = ["Recovery", "fan_out_large"]

# Publications that one read of the backlog takes.
_PAGE: Final = 100

# Bytes of backlog to write before looking whether the socket still takes them.
_BACKLOG_STEP: Final = 65_536


class Recovery:
    """One session getting into one channel; from its making on, live publications are kept aside.

    First `begin`, `latest` or `fresh`, which say where the session stands; then, when the client has been
    told, `finish`.
    """

    def __init__(self, node: Node, session: Session, name: str) -> None:
        self.name = name

        # The end of the channel's log when it was read: what a client that recovers nothing starts from.
        self.position = Position("", 0)

        # Whether everything that was missed follows; None where nothing was asked.
        self.recovered: bool | None = None

        # The seqs, first and last, of unread messages that are gone; only of an inbox.
        self.missing: tuple[int, int] | None = None

        # How far the session has been brought.
        self.seq = 0

        self._node = node
        self._session = session
        # The engine must have been told to listen: see `Node.channel`.
        self._channel = node.channels[name]
        node.call_off(session, self._channel)
        self._hold = self._channel.hold(session.outbox)
        self._page: Page | None = None

        # Those who wait until the session has what had come by then: the seq of that, and who.
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

        # Whether the session was live when this began.
        self._live = False

    @property
    def inbox(self) -> bool:
        """Whether the channel is a user's inbox."""
        return self._channel.inbox

    def go_on_with(self, publication: Publication) -> None:
        """Start with `publication`, which has just come: the session has been live so far, and had what is before."""
        self._live = True
        # Not into the hold, which forgets where too much comes.
        self._page = Page([publication], self.position, complete=True, more=False)

    async def fresh(self) -> None:
        """Start from now: nothing was asked."""
        self.position = await self._node.engine.position(self.name)
        self.seq = self.position.seq

    async def unrecovered(self) -> None:
        """Start from now, though more was asked: it may not be told."""
        await self.fresh()
        self.recovered = False

    async def begin(self, since: Position) -> None:
        """Start after `since`, if everything that followed it is still there."""
        page = await self._node.engine.after(self.name, since.seq, _PAGE)
        self.position = page.position
        self.recovered = page.complete and since.epoch == page.position.epoch
        if self.recovered:
            self._page = page
            self.seq = since.seq
        else:
            # Never a partial recovery: the client starts at `position` and refetches its own state.
            self.seq = page.position.seq

    async def unread(self, cursor: int) -> None:
        """Start the inbox where its user got to: what is unread follows, as far as it is still there."""
        page = await self._node.engine.after(self.name, cursor, _PAGE)
        first = page.publications[0] if page.publications else None
        if page.complete:
            self.seq = cursor
        else:
            # Some of what is unread is gone: before the oldest that is kept, or at the end.
            self.recovered = False
            self.seq = page.position.seq
            if first is not None:
                self.seq = _before(first)
            if self.seq > cursor:
                self.missing = (cursor + 1, self.seq)
        self.position = Position(page.position.epoch, self.seq)
        self._page = page

    async def latest(self, count: int) -> None:
        """Start with the last `count` publications."""
        page = await self._node.engine.before(self.name, None, count)
        self.position = page.position
        self.recovered = True
        self._page = Page(page.publications, page.position, complete=True, more=False)
        self.seq = _before(page.publications[0]) if page.publications else page.position.seq
        if page.more and 0 < len(page.publications) < count:
            await self._go_back(page, count - len(page.publications))

    async def _go_back(self, page: Page, count: int) -> None:
        """Start `count` before `page`, which an engine has cut short because it is large; and keep nothing of it."""
        first = page.publications[0]
        earlier = page
        while count > 0 and earlier.more:
            earlier = await self._node.engine.before(self.name, first.seq, count)
            if not earlier.publications:
                break
            first = earlier.publications[0]
            count -= len(earlier.publications)
        self.seq = _before(first)
        self._page = Page([], self.position, complete=True, more=True)

    @property
    def called_off(self) -> bool:
        """Whether the session has left the channel meanwhile, or begun anew."""
        return self._channel.hold_of(self._session.outbox) is not self._hold

    async def finish(self) -> bool:
        """Send what was missed, then what came meanwhile, and go live; False when the session ended."""
        page = self._page
        while not self.called_off:
            if page is not None:
                if not await self._send(self._not_held(page.publications)):
                    return await self.abandon()
                if not page.publications and not page.more:
                    self.seq = max(self.seq, page.position.seq)
                self._passed()
            since = self._hold.since
            if page is None or not page.more or (since is not None and since <= self.seq):
                held, waiting = self._hold.merge(self.seq), len(self._waiting)
                if held == []:
                    break
                if held is not None:
                    # As slowly as the backlog, for more may come meanwhile.
                    if not await self._send(held):
                        return await self.abandon()
                    self._let_go(self._waiting[:waiting])
                    page = None
                    continue
                if self._live:
                    # Nothing with a place has been sent yet: what the session had ends before the first that came.
                    self.seq = max(self.seq, self._hold.before or 0)
            page = await self._node.engine.after(self.name, self.seq, _PAGE)
            if not page.complete and not self.called_off:
                # Retention overtook a reader that is slower than the channel: it resumes, and is told.
                self._session.close(CloseCode.SLOW_CONSUMER, "the backlog was dropped before it could be sent")
                return await self.abandon()
        # No wait from the merge to the end: nothing can come in between.
        if self._session.ending:
            return await self.abandon()
        if not self.called_off:
            self._channel.listen(self._session.outbox)
        return True

    def _not_held(self, publications: list[Publication]) -> list[Publication]:
        """Those of the log that are not in the hold, which also has what is volatile, in its place."""
        since = self._hold.since
        if since is None:
            return publications
        return [publication for publication in publications if publication.seq is None or publication.seq <= since]

    async def _send(self, messages: Sequence[Publication | Ack]) -> bool:
        """Send them, no faster than the socket takes it, until it is called off; False when the session ended."""
        node, session, hold = self._node, self._session, self._hold
        outbox, small = session.outbox, node.large.small
        unsent = 0
        for message in messages:
            told = hold.instead_of(message)
            publication = told if isinstance(told, Publication) else None
            if publication is not None and memoryview(publication.content).nbytes > small:
                outgoing = node.large.outgoing(publication, format_of(session))
                if not await send_large(node, session, outgoing, publication, self):
                    return False
                unsent = 0
            else:
                frame = outbox.format.encode(told)
                unsent += len(frame)
                if unsent > _BACKLOG_STEP:
                    unsent = len(frame)
                    outbox.flush()
                    # A reader that keeps up must not keep everybody else waiting.
                    await in_task()
                # Behind a blocked socket it would count against the outbox's bounds. The write deadline ends the
                # session if this takes too long.
                if outbox.blocked and not await session.writable():
                    return False
                if not self.called_off:
                    session.put_frame(frame, publication, self.name, told.seq)
            if self.called_off:
                break
            hold.told(told)
            if told.seq is not None:
                self.seq = max(self.seq, told.seq)
        return True

    def reach(self) -> asyncio.Future[None]:
        """Done when the session has what has come so far, or gets no more of it; `let_go` must be called at the end."""
        reached = self._node.loop.create_future()
        self._waiting.append((max(self.seq, self.position.seq, self._hold.newest or 0), reached))
        return reached

    def _passed(self) -> None:
        # Beyond what they wait for, for something volatile may follow that.
        self._let_go([waiting for waiting in self._waiting if waiting[0] < self.seq])

    def let_go(self) -> None:
        """Nobody has to wait any more: this is over."""
        self._let_go(self._waiting)

    def _let_go(self, those: list[tuple[int, asyncio.Future[None]]]) -> None:
        self._waiting = [waiting for waiting in self._waiting if waiting not in those]
        for _, reached in those:
            reached.set_result(None)

    async def abandon(self) -> Literal[False]:
        """Let go of the channel again."""
        await self._node.unlisten(self._session, self.name)
        return False


def _before(publication: Publication) -> int:
    """The place that a publication of the log follows."""
    assert publication.seq is not None
    return publication.seq - 1 if publication.prev is None else publication.prev


def fan_out_large(
    node: Node,
    channel: Channel[Session],
    publication: Publication,
    skip: Outbox[Session] | None,
    record: bytes | None,
) -> None:
    """`Channel.fan_out` of a publication that may be too large for one message of some who listen.

    They get it in chunks, and what comes in this channel meanwhile behind it.
    """
    large = node.large
    frames: dict[Format, bytes | None] = {
        format: cast("Framed", format).fit(publication, record, large.most)
        for format in {outbox.format for outbox in channel.listeners}
    }
    for outbox in channel.fan_out_framed(publication, node.turn, frames, skip):
        session = outbox.owner
        format = format_of(session)
        outgoing = large.outgoing(publication, format, format.native(publication, record))
        recovery = Recovery(node, session, channel.name)
        recovery.go_on_with(publication)
        session.transfers.catch_up(recovery, catch_up(node, session, recovery, outgoing))
