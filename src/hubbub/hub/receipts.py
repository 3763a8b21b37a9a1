"""What the server itself sends and wants acknowledged: who waits for whose receipt.

A receipt goes to the inbox of the sender, and the server is the sender without a name. So it has an inbox like
everybody, and a receipt comes from whichever node the recipient is on, the way that all receipts go.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from hubbub.engines.base import Accepted, Engine
from hubbub.errors import AckTimeout, HubbubError, Unavailable
from hubbub.types import Acknowledged, Publication, inbox_channel

__all__ = ["SERVER_INBOX", "Acknowledgements", "Receipts"]

SERVER_INBOX: Final = inbox_channel("")
"""The inbox of the server itself: no client can have the empty name."""

# Receipts that may be waited for at once on a node; beyond, the call is refused and nothing is sent.
_MOST: Final = 10_000
# How many messages of one call are on their way into the engine at once.
_BATCH: Final = 100


class Acknowledgements(Struct, frozen=True, kw_only=True):
    """What became of a message to several users: each of them is in one of the three."""

    # The message's: with it the same call may be made again for some of them, and sends nothing twice.
    id: str
    acknowledged: dict[str, Acknowledged]
    # The message is in their inboxes, and they have not acknowledged it in time.
    missing: tuple[str, ...]
    # The message is not in their inboxes; the errors say why.
    unavailable: dict[str, Unavailable]


class _Wait:
    """One call's interest in one message."""

    __slots__ = ("acknowledged", "id", "place", "publication", "user")

    def __init__(self, user: str, id: str, publication: Publication) -> None:
        self.user = user
        self.id = id
        self.publication = publication

        # Where the message stands in the inbox, or why it does not; None before it is known.
        self.place: Accepted | Unavailable | None = None

        # When the message was acknowledged, None where that was before the call; cancelled when the hub stops.
        self.acknowledged: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

    def settle(self, time: int | None) -> None:
        if not self.acknowledged.done():
            self.acknowledged.set_result(time)

    def outcome(self) -> Acknowledged | AckTimeout | Unavailable:
        place = self.place
        if place is None:
            return AckTimeout(self.user, self.id)
        if isinstance(place, Unavailable):
            return place
        # Only volatile messages have no seq.
        assert place.seq is not None
        if not self.acknowledged.done():
            return AckTimeout(self.user, self.id, place.epoch, place.seq)
        return Acknowledged(self.user, place.seq, place.epoch, self.acknowledged.result())


class Receipts:
    """The receipts that somebody on this node waits for, bounded: beyond, whoever asks is refused at once."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

        # By user and message id: a retry waits beside the call that it repeats.
        self._waits: dict[tuple[str, str], list[_Wait]] = {}

        # How many there are in all.
        self._count = 0

        # From the first call on this node listens to the server's inbox, and goes on: to listen anew for each
        # call would be a way to the engine and back, and nothing comes there but what somebody asked for.
        self._listening = False
        self._listen_once = asyncio.Lock()

    def came(self, receipt: Publication) -> None:
        """A receipt has come into the server's inbox, for a call on this node or on another."""
        for wait in self._waits.get((receipt.from_, receipt.id or ""), ()):
            wait.settle(receipt.time)

    def stop(self) -> None:
        """Nothing will be acknowledged any more: end every wait at once."""
        for waits in self._waits.values():
            for wait in waits:
                wait.acknowledged.cancel()

    async def send(
        self, id: str, publications: Sequence[tuple[str, Publication]], timeout: float
    ) -> list[Acknowledged | AckTimeout | Unavailable]:
        """Publish to the inbox of each user, and wait until all have acknowledged it; what became of each.

        Waits at most `timeout` seconds. Raises `Unavailable` before anything is published, where too many
        wait already, and `HubbubError` when the hub stops.
        """
        if self._count + len(publications) > _MOST:
            raise Unavailable("too many messages wait for an acknowledgement")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        waits = [_Wait(user, id, publication) for user, publication in publications]
        for wait in waits:
            # Before it is published: the receipt may be here first.
            self._waits.setdefault((wait.user, id), []).append(wait)
        self._count += len(waits)
        try:
            # What is given up on its way may still be stored: it waits in the inbox, and the same id finds it.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(deadline):
                    await self._listen()
                    await self._publish_all(waits)
            pending = [wait.acknowledged for wait in waits if isinstance(wait.place, Accepted)]
            if pending:
                await asyncio.wait(pending, timeout=max(0.0, deadline - loop.time()))
            if any(acknowledged.cancelled() for acknowledged in pending):
                raise HubbubError("the hub has stopped, and what was sent has not been acknowledged by everybody")
            return [wait.outcome() for wait in waits]
        finally:
            for wait in waits:
                self._forget(wait)

    def _forget(self, wait: _Wait) -> None:
        key = (wait.user, wait.id)
        self._waits[key].remove(wait)
        self._count -= 1
        if not self._waits[key]:
            del self._waits[key]

    async def _listen(self) -> None:
        if self._listening:
            return
        async with self._listen_once:
            if not self._listening:
                await self._engine.listen([SERVER_INBOX])
                self._listening = True

    async def _publish_all(self, waits: list[_Wait]) -> None:
        if len(waits) == 1:
            await self._publish(waits[0])
            return
        for start in range(0, len(waits), _BATCH):
            # Together, so that an engine that commits many as one can do so.
            async with asyncio.TaskGroup() as group:
                for wait in waits[start : start + _BATCH]:
                    group.create_task(self._publish(wait))

    async def _publish(self, wait: _Wait) -> None:
        try:
            accepted = await self._engine.publish(inbox_channel(wait.user), wait.publication)
            if accepted.duplicate and accepted.seq is not None:
                # A retry: where the cursor has passed it, the one receipt has been given.
                cursor = await self._engine.cursor(wait.user)
                if cursor is not None and cursor >= accepted.seq:
                    wait.settle(None)
            wait.place = accepted
        except Unavailable as error:
            wait.place = error
