"""What a dead node has left: who has gone with it is told, and its places are taken away, part by part.

So what stands in the stream is what is still to be done, and whoever has to go on with it finds that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

import msgspec
from msgspec import Struct

from hubbub.engines.nats.acks import ack_of
from hubbub.engines.nats.link import Link
from hubbub.engines.nats.nodes import Nodes
from hubbub.engines.nats.places import token
from hubbub.engines.nats.room import UNKNOWN, Entry
from hubbub.engines.nats.streams import Stream
from hubbub.engines.nats.watching import Watching
from hubbub.errors import Unavailable

__all__ = ["Clearing"]

# Users of one part.
_PART: Final = 200


class _Dead(Struct, eq=False):
    """A node that this one has found dead and clears away."""

    node: str
    # It is about what it had entered from one place in the stream up to another.
    begin: int
    bar: int
    # Who has gone with it, and it was not said yet, with where each was last: in that order; None until it is read.
    users: list[tuple[str, str, int]] | None = None

    def held(self, entry: Entry) -> bool:
        """Whether a place of the node's was taken until then."""
        place = entry.ends or entry.seq
        return max(self.begin, UNKNOWN + 1) <= place < self.bar and (entry.seq > self.bar or not entry.ends)


class Clearing:
    """The dead nodes that this one clears away, one after the other."""

    def __init__(
        self,
        link: Link,
        stream: Stream,
        nodes: Nodes,
        watching: Watching,
        prefix: str,
        gone: Callable[[str, str], None],
        do: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        """`gone` is told of each who has gone, with the room; `do` does things behind everybody's back."""
        self._link = link
        self._stream = stream
        self._nodes = nodes
        self._watching = watching
        self._prefix = prefix
        self._gone = gone
        self._do = do
        self._dead: list[_Dead] = []
        self._task: asyncio.Task[None] | None = None

    def clear(self, node: str, begin: int, bar: int) -> None:
        """Clear away what a dead node had entered from one place in the stream up to another."""
        self._dead.append(_Dead(node, begin, bar))
        self.go_on()

    def go_on(self) -> None:
        """Where NATS was away meanwhile, it goes on where it was."""
        if self._dead and (self._task is None or self._task.done()):
            self._task = self._do(self._clear_all())

    def drop(self) -> None:
        """The stream is another one, or others do what this node was to do."""
        self._dead.clear()

    async def _clear_all(self) -> None:
        while self._dead:
            await self._clear_one(self._dead[0])

    async def _clear_one(self, dead: _Dead) -> None:
        """Say who has gone with a dead node, and take away what it has left.

        Where this node dies over it, those of the last part have been told and are told once more.
        """
        subjects = f"{self._prefix}.places.*.{token(dead.node)}.>"
        if dead.users is None:
            # Also who has left by it since then: it was in nobody's room any more.
            held = [one for one in await self._watching.entries(subjects) if dead.held(one)]
            last = {(one.channel, one.user): one.seq for one in held}
            dead.users = sorted(((*who, seq) for who, seq in last.items()), key=lambda one: one[2])
        while dead in self._dead:
            if not dead.users:
                await self._take_away(subjects, dead.bar)
                if dead in self._dead:
                    self._dead.remove(dead)
                    self._nodes.cleared(dead.node, dead.bar)
                return
            part = dead.users[:_PART]
            asked = (self._stays(channel, user, dead.node, dead.bar) for channel, user, _ in part)
            stays = await asyncio.gather(*asked, return_exceptions=True)
            for failed in stays:
                if isinstance(failed, BaseException):
                    raise failed
            if dead in self._dead:
                # In one turn: nobody is told twice.
                del dead.users[:_PART]
                for (channel, user, _), stay in zip(part, stays, strict=True):
                    if not stay:
                        self._gone(channel, user)
                await self._take_away(subjects, min(part[-1][2] + 1, dead.bar))

    async def _take_away(self, subjects: str, before: int) -> None:
        """Take from the stream what stands in it before a place; raises `Unavailable`."""
        purge = msgspec.json.encode({"filter": subjects, "seq": before})
        answer = await self._link.call(f"$JS.API.STREAM.PURGE.{self._stream.name}", purge)
        if answer.status or ack_of(answer.body).error is not None:
            raise Unavailable("JetStream cannot take it")

    async def _stays(self, channel: str, user: str, node: str, bar: int) -> bool:
        """Whether the user was in the room by another node, too, in the moment in which this one was declared dead.

        Or has come by another one since: that was told, and is the last word. Or is in again by this one: it does not
        wait for ever to be cleared away.
        """
        subjects = f"{self._prefix}.places.{token(channel)}.*.{token(user)}.>"
        return any(
            # Who has left since then was told so, by its own node.
            entry.seq > bar or not entry.ends if entry.node != node else entry.seq > bar and not entry.ends
            for entry in await self._watching.entries(subjects)
            if entry.seq >= self._nodes.bar(entry.node)
        )
