"""How a session catches up with a channel: what it missed first, then live, with no gap and no double."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, cast

from hubbub.core.channel import Channel
from hubbub.core.log import Page
from hubbub.core.outbox import Format, Outbox
from hubbub.hub.transfers import format_of, send_backlog
from hubbub.protocol.codes import CloseCode
from hubbub.protocol.envelope import Ack
from hubbub.types import Position, Publication

if TYPE_CHECKING:
    from hubbub.hub.formats import Framed
    from hubbub.hub.node import Node
    from hubbub.hub.session import Session

__all__ = ["Recovery", "fan_out_large"]

# Publications that one read of the backlog takes.
_PAGE = 100


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
        self._hold = self._channel.hold(session.outbox)
        self._page: Page | None = None

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
            if first is not None and first.seq is not None:
                self.seq = first.seq - 1 if first.prev is None else first.prev
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
        self.seq = page.position.seq - len(page.publications)
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
        self.seq = (first.seq or 1) - 1 if first.prev is None else first.prev
        self._page = Page([], self.position, complete=True, more=True)

    async def finish(self) -> bool:
        """Send what was missed, then what came meanwhile, and go live; False when the session ended."""
        page = self._page
        while not self._called_off:
            if page is not None:
                if not await self._send(page.publications):
                    return await self.abandon()
                if not page.publications and not page.more:
                    self.seq = max(self.seq, page.position.seq)
            if page is None or not page.more:
                held = self._hold.merge(self.seq)
                # As slowly as the backlog, for more may come meanwhile.
                while held and not self._called_off:
                    if not await self._send(held):
                        return await self.abandon()
                    held = self._hold.merge(self.seq)
                if held is not None:
                    break
                if self._live:
                    # Nothing with a place has been sent yet: what the session had ends before the first that came.
                    self.seq = max(self.seq, self._hold.before or 0)
            page = await self._node.engine.after(self.name, self.seq, _PAGE)
            if not page.complete:
                # Retention overtook a reader that is slower than the channel: it resumes, and is told.
                self._session.close(CloseCode.SLOW_CONSUMER, "the backlog was dropped before it could be sent")
                return await self.abandon()
        # No wait from the merge to the end: nothing can come in between.
        if self._session.ending:
            return await self.abandon()
        if not self._called_off:
            self._channel.listen(self._session.outbox)
        return True

    @property
    def _called_off(self) -> bool:
        """Whether the session has left the channel meanwhile, or begun anew."""
        return self._channel.hold_of(self._session.outbox) is not self._hold

    async def _send(self, messages: Sequence[Publication | Ack]) -> bool:
        if not await send_backlog(self._node, self._session, self._wanted(messages), self.name):
            return False
        # The last may be volatile, without a place of its own.
        self.seq = max((told.seq for told in messages if told.seq is not None), default=self.seq)
        return True

    def _wanted(self, messages: Sequence[Publication | Ack]) -> Iterator[Publication | Ack]:
        hold_of, outbox, hold = self._channel.hold_of, self._session.outbox, self._hold
        for message in messages:
            if hold_of(outbox) is not hold:
                return
            yield message

    async def abandon(self) -> Literal[False]:
        """Let go of the channel again."""
        await self._node.unlisten(self._session, self.name)
        return False


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
        session.transfers.catch_up(recovery, outgoing)
