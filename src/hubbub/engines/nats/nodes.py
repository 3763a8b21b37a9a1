"""Which nodes live: each says so now and then, and one that is not heard for its lease is declared dead.

It stands in the same stream as the places that the nodes hold, so what a node had entered before its death is over, for
everybody alike, and what it enters when it turns out to be alive is not. Whoever declares it does so on condition that
nothing was heard of it meanwhile: one of all who try succeeds, and clears away what is left. Where that one dies in the
middle the next one declares it again, and goes on with what it finds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Struct

from hubbub.engines.nats.acks import ack_of
from hubbub.engines.nats.gets import Gets
from hubbub.engines.nats.link import Answer, Link
from hubbub.engines.nats.notes import seq_of
from hubbub.engines.nats.places import token
from hubbub.engines.nats.streams import Stream
from hubbub.errors import Unavailable

__all__ = ["Nodes"]

log = logging.getLogger("hubbub.engines.nats")

# How long it stands in the stream that nothing is left of a node: longer than anybody needs to hear of it.
_CLEARED: Final = b"Nats-TTL: 120s\r\n"
# Nodes of which is read.
_MOST: Final = 10_000


class _Beat(Struct, frozen=True, gc=False):
    """What a node says of itself, or another says of it."""

    node: str
    # `alive`, `dead`, or `cleared`: dead, and nothing is left of it.
    state: str
    # What it entered before that place is over; 0 of a dead one: where this stands.
    bar: int = 0
    # Of a dead one: who clears away what is left of it, and from which place on that is.
    by: str = ""
    begin: int = 0


class _Node(Struct):
    state: str
    # Where what it said last stands in the stream, and when that was heard (the loop's clock).
    seq: int
    heard: float
    bar: int
    # Of one that has died, until that is done: who clears away what it had entered, where that was said, and from which
    # place on.
    by: str = ""
    said: int = 0
    begin: int = 0


class Nodes:
    """The nodes as this one sees them."""

    def __init__(self, link: Link, gets: Gets, stream: Stream, prefix: str, node: str, lease: float) -> None:
        self._link = link
        self._gets = gets
        self._stream = stream
        self._subject = f"{prefix}.places.nodes."
        self._bus = f"{prefix}.places-bus.nodes.*"
        self.node = node
        self._lease = lease

        # Told of a node that has died, and up to where that counts; that it was this node itself, and all that it has
        # left is cleared away; that it is for this node to do that, and to say who has gone with it: of what was
        # entered from one place in the stream up to another.
        self.died: Callable[[str, int], None] = lambda node, bar: None
        self.revived: Callable[[], None] = lambda: None
        self.clear: Callable[[str, int, int], None] = lambda node, begin, bar: None

        self._nodes: dict[str, _Node] = {}
        # What this node entered before that place is over.
        self._bar = 0
        # Until when it is left to others to clear that away and to say who has gone; only then may anybody be back.
        self._clearing: float | None = None
        self._beaten = 0.0
        # When it heard itself last: as long as it does not, it cannot know whether the others live.
        self._echoed = 0.0
        # Those that are being declared dead, or cleared away here; none before this node has been started.
        self._trying: set[str] = set()
        self.judges = False

    def bar(self, node: str) -> int:
        """What `node` entered before that place is over."""
        found = self._nodes.get(node)
        return found.bar if found is not None else 0

    @property
    def clearing(self) -> bool:
        """Whether this node was taken for dead, and it is not yet said who has gone with it."""
        return self._clearing is not None

    def listen(self) -> None:
        """Hear of the others from now on."""
        self._link.subscribe(self._bus, self._heard)

    async def load(self) -> None:
        """Read what there is; raises `Unavailable`."""
        part = await self._gets.many(self._stream, seq=1, next_by_subj=f"{self._subject}*", batch=_MOST)
        for answer in part.answers:
            self._heard(answer.head, answer.body)
        self._forgive()
        await self._look_for_itself()

    async def _look_for_itself(self) -> None:
        """What this node has said stands in the stream, or what another has said of it."""
        own, epoch = self._nodes.get(self.node), self._stream.epoch
        if own is not None and own.seq:
            seq, _ = await self._gets.last(self._stream, self._subject + token(self.node))
            if not seq and epoch == self._stream.epoch:
                # It was taken for dead so long ago that nobody says so any more.
                self._revive()

    def begin_anew(self, bar: int) -> None:
        """The stream is another one, or an older copy: what this node has entered before `bar` is over."""
        self._nodes.clear()
        self._trying.clear()
        self._bar, self._clearing = bar, None
        self._nodes[self.node] = _Node("alive", 0, self._link.loop.time(), bar)
        self.beat()

    def beat(self) -> None:
        """Say that this node lives."""
        self._beaten = self._link.loop.time()
        self._say(_Beat(self.node, "alive", self._bar), b"", lambda answer: None)

    def tick(self, now: float) -> None:
        """Called several times a second."""
        if not self._link.serves:
            return
        if now - self._beaten > self._lease / 4:
            self.beat()
        if self._clearing is not None and now > self._clearing:
            # Whoever declared it dead has died as well.
            self._revive()
        for name, node in list(self._nodes.items()):
            silent = now - node.heard
            # A little early: within the lease it has to be over.
            if not self._judges(now) or name == self.node or name in self._trying or silent < 0.9 * self._lease:
                continue
            if node.state == "alive" or self._left(node):
                self._declare(name, node)
            elif silent > 3_600:
                del self._nodes[name]

    def _left(self, node: _Node) -> bool:
        """Whether something may be left of it that nobody clears away: whoever was to do so has died since."""
        by = self._nodes.get(node.by)
        done = node.state != "dead" and not node.by
        return not done and (by is None or by.state != "alive" or by.bar > node.said)

    def _judges(self, now: float) -> bool:
        return self.judges and now - self._echoed < self._lease / 2

    def _forgive(self) -> None:
        """Nobody is judged by what could not be heard."""
        now = self._link.loop.time()
        for node in self._nodes.values():
            node.heard = now

    def cleared(self, name: str, bar: int) -> None:
        """Nothing is left of it of before `bar`."""
        self._trying.discard(name)
        # Or another has found it dead since then, and says so.
        if bar >= self.bar(name):
            self._say(_Beat(name, "cleared", bar), _CLEARED, lambda answer: None)

    def _declare(self, name: str, node: _Node) -> None:
        """Say that it is dead, or if that has been said: that it is for this node now to clear it away."""
        self._trying.add(name)
        begin = node.begin if self._left(node) else node.bar
        beat = _Beat(name, "dead", node.bar if node.state == "dead" else 0, self.node, begin)

        def answered(answer: Answer | Exception) -> None:
            ack = ack_of(answer.body) if isinstance(answer, Answer) and not answer.status else None
            if ack is not None and ack.error is None:
                self._take(ack.seq, beat)
                return
            # It lives, or another was faster: that will be heard. So will this, where nobody knows whether it counts.
            self._trying.discard(name)
            node.heard = self._link.loop.time()

        head = f"Nats-Expected-Last-Subject-Sequence: {node.seq}\r\n"
        if not self._say(beat, head.encode(), answered):
            self._trying.discard(name)

    def _say(self, beat: _Beat, head: bytes, done: Callable[[Answer | Exception], None]) -> bool:
        try:
            self._link.ask(
                self._subject + token(beat.node),
                msgspec.json.encode(beat),
                done,
                headers=b"NATS/1.0\r\n" + head + b"\r\n" if head else b"",
            )
        except Unavailable:
            # There is a next time.
            return False
        return True

    def _heard(self, head: bytes, body: bytes) -> None:
        try:
            seq, beat = seq_of(head), msgspec.json.decode(body, type=_Beat)
        except (ValueError, msgspec.DecodeError):
            return
        self._take(seq, beat)

    def _take(self, seq: int, beat: _Beat) -> None:
        """Take in what was said at `seq`."""
        node = self._nodes.get(beat.node)
        if node is not None and seq <= node.seq:
            return
        now = self._link.loop.time()
        if beat.node == self.node:
            if now - self._echoed > self._lease / 2:
                self._forgive()
            self._echoed = now
        before = self.bar(beat.node)
        bar = beat.bar or seq if beat.state == "dead" else beat.bar
        found = self._nodes[beat.node] = _Node(beat.state, seq, now, max(bar, before))
        if beat.state == "dead":
            found.by, found.said, found.begin = beat.by, seq, beat.begin
        elif node is not None and (beat.state == "alive" or bar < before):
            found.by, found.said, found.begin = node.by, node.said, node.begin
        if bar > before:
            self.died(beat.node, bar)
        if beat.state == "dead" and beat.by == self.node and seq > self._bar:
            log.warning("the node %s has not been heard for %d seconds: it is out of all rooms", beat.node, self._lease)
            self._trying.add(beat.node)
            self.clear(beat.node, beat.begin, bar)
        if beat.node == self.node and beat.state != "alive" and bar > self._bar:
            self._bar = bar
            log.warning("this node was taken for dead: it was not heard for %d seconds", self._lease)
            # What it was to clear away is another's to do.
            self._trying.clear()
            self.beat()
            self._clearing = now + self._lease
            if beat.state == "cleared":
                # That has been done while this node heard nothing.
                self._revive()
        elif beat.node == self.node and beat.state == "cleared" and self._clearing is not None and bar >= self._bar:
            self._revive()

    def _revive(self) -> None:
        self._clearing = None
        self.revived()
