"""The engine's contract: where channels live, and what every engine promises about them.

An engine keeps each channel's log, tells every node that listens about what is appended, and knows who is
in which room. The hub talks to all engines through this interface alone; the docstrings are the
specification, and `hubbub.testing` tests any engine against it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec import Struct

from hubbub.core.log import Page
from hubbub.protocol.envelope import Member
from hubbub.types import Place, Position, Publication

__all__ = ["Accepted", "Capabilities", "Engine", "Listener"]


class Capabilities(Struct, frozen=True, kw_only=True):
    """What an engine can and cannot do, said before anyone relies on it."""

    # Logs survive the end of this process.
    durable: bool
    # Other processes can share the channels.
    shared: bool
    # Seconds after which a node that has gone without a word is out of all rooms; None where no other node is left
    # behind to see it.
    lease: float | None = None


class Accepted(Struct, frozen=True, gc=False):
    """Where a publication stands in its channel."""

    epoch: str
    # None for a volatile publication: it has no place.
    seq: int | None
    # The same (`from`, `id`) had been accepted before; `seq` is that one's, and nothing was told.
    duplicate: bool = False
    # The `seq` before it in the channel where that is not one less, and this node listens.
    prev: int | None = None


class Listener(Protocol):
    """The node's ear: an engine calls it on the event loop's thread, and it never waits or raises."""

    def publication(self, channel: str, publication: Publication, origin: str | None, encoded: bytes | None) -> None:
        """`publication` has come into `channel`, to which this node listens.

        Per channel in the order of `seq`. `origin` is the session not to tell, where the sender asked so and is on this
        node: an answer stands for it there.
        `encoded` is its record (`hubbub.core.record`), where the engine has that: it need not be made again.
        """

    def lost(self, channel: str) -> None:
        """What this node is told of `channel` does not go on without a hole, and no reading would close it.

        Its log is another one now, with another epoch, or what should follow has been dropped. Who holds a position
        in it has to ask anew. What is in the log and has not been told is told after this, from its beginning or
        from where it goes on.
        """

    def gone(self, channel: str, user: str) -> None:
        """The last session of `user` in `channel` has been taken out, and nobody was answered so.

        It came by a node that has died, or the engine was away when it left. One of the nodes that live is told, and
        not before its `start` has returned; where that one dies over many of them, another is told of the rest, and of
        the last that were told perhaps once more.
        """

    def came(self, channel: str, user: str) -> None:
        """`user` is in `channel`, and nobody was answered so.

        This node was taken for dead, and who had gone by that is back; or an answer was lost. Who was lost with the
        engine's data, so that nobody was told that they had gone, is not told of.
        """


class Engine(Protocol):
    """Where channels live.

    Every method may wait and is cancelled when its caller gives up; each raises `Unavailable` when the
    engine is away or overloaded, and then nothing was stored. Where an engine far away has been told of a publication
    and its answer is lost, that is not known: then `publish` and `submit` give a `Reject` with the code `internal`, and
    whoever repeats it with the same `id` finds out. Every other method does no harm when it is called again. Until
    their first wait they run outside any task (see `hubbub.eager`).
    """

    capabilities: Capabilities

    async def start(self, listener: Listener, node: str) -> None:
        """Be ready for everything below; `listener` hears what comes into the channels listened to.

        `node` names this start of this node, as no other has been named: letters, digits, `.`, `-` and `_`.
        """

    async def stop(self) -> None:
        """Release everything; the listener is not called after this returns. Stopping twice is harmless."""

    async def check(self) -> None:
        """Go the real way round once; raises `Unavailable` when that fails. Readiness asks this."""

    async def publish(
        self, channel: str, publication: Publication, *, volatile: bool = False, origin: str | None = None
    ) -> Accepted:
        """Append to the channel's log and tell all who listen to it, on every node, as one step.

        Sets the publication's `seq` (and `prev` where it is not `seq` - 1). Publications of one channel
        are told in the order of `seq`; between channels there is no order. A (`from`, `id`) that was
        accepted within the last 5 minutes is not appended or told again. When this returns, the
        publication is as safe as the engine's documentation says. `volatile`: told, but not appended,
        numbered or deduplicated, and lost to whoever is cut off.
        """

    def publish_now(
        self, channel: str, publication: Publication, volatile: bool, origin: str | None
    ) -> Accepted | None:
        """`publish`, where the engine can do it without waiting; None where it cannot, and then nothing was done."""

    def submit(
        self,
        channel: str,
        publication: Publication,
        volatile: bool,
        origin: str | None,
        done: Callable[[Accepted | Exception], object],
    ) -> None:
        """`publish` without a coroutine: `done` is called once, with what `publish` would return or raise.

        On the event loop's thread, perhaps before this returns; it raises nothing. What was submitted earlier to the
        same channel is acknowledged earlier; an error waits for nobody. Where this node listens, the answer comes when
        what was submitted has been told, and before anything that follows it is. Raises `Unavailable` at once where too
        much waits already; then nothing was done and `done` is not called.
        """

    async def accepted(self, channel: str, from_: str, id: str) -> Accepted | None:
        """What `publish` answered to the (`from`, `id`) within the last 5 minutes, or None."""

    async def position(self, channel: str) -> Position:
        """The end of the channel's log, behind which only what is new will be; `seq` 0 where nobody has written to it.

        An engine that numbers several channels together may name a place where none of this channel's stands.
        """

    async def after(self, channel: str, seq: int, limit: int) -> Page:
        """Up to `limit` publications that follow `seq`, oldest first.

        `Page.complete` is false when retention has dropped any that follow `seq`, or when `seq` lies
        beyond the log's end. Here and in `position` and `before`: a publication that is in the answer has been
        told, where the node listens, before the answer is given; one that is not will be told later.
        """

    async def before(self, channel: str, seq: int | None, limit: int) -> Page:
        """The last `limit` publications before `seq` (None: of the whole log), oldest first."""

    async def listen(self, channels: Sequence[str]) -> None:
        """Tell this node what comes into `channels`; from the return of this call on, nothing is missed."""

    async def unlisten(self, channels: Sequence[str]) -> None:
        """This node no longer needs `channels`; a few publications may still come.

        About one channel the hub asks one thing at a time: this, or `listen`.
        """

    async def enter(self, channel: str, user: str, session: str, now: int, capacity: int) -> bool:
        """Put a session into the room; whether its user was not in it before.

        At most `capacity` users; raises `RoomFull`. Atomic per channel; entering twice is harmless.
        `now` in milliseconds since the Unix epoch. What a node has entered it holds by a lease that is the
        node's, renewed by the engine, and not each session's: a node whose process has died is out of all rooms
        within `Capabilities.lease` seconds.
        """

    async def leave(self, channel: str, user: str, session: str, seen: int = 0) -> bool:
        """Take a session out of the room; whether that was the last of its user's.

        Where it was, and the channel is the user's inbox, `seen` is remembered for `last_seen`. Where this raises
        `Unavailable` the session is taken out later, and `Listener.gone` is told.
        """

    async def members(self, channel: str, limit: int) -> tuple[list[Member], int]:
        """The first `limit` users in the room, in the order of coming, and how many there are."""

    async def places(self, channel: str, user: str) -> list[Place]:
        """The sessions by which `user` is in the room, in the order of coming, and on which nodes they are."""

    async def last_seen(self, user: str) -> int | None:
        """When the user was seen last, as the last `leave` of the inbox has said; for an hour, where there is room.

        None where that is not known; without meaning while the user is in the inbox.
        """

    async def cursor(self, user: str) -> int | None:
        """How far the user's inbox has been acknowledged by any of the devices; None before the first time."""

    async def set_cursor(self, user: str, seq: int) -> list[Publication] | None:
        """Acknowledge the user's inbox up to `seq`; returns what that passed of those that want a receipt.

        A cursor only moves forward: a smaller `seq` changes nothing, and neither does one beyond the end of the
        inbox, for which None is returned. A publication with `receipt` is returned once, the oldest first; one
        that retention has dropped is not. Atomic, and as safe as a publication. `cursor` sees it from the moment
        of the call on.
        """
