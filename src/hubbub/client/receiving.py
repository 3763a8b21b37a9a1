"""The messages that come: put in order per channel, handed out once each, acknowledged when handled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from hubbub.client import wire
from hubbub.client.agenda import Agenda
from hubbub.client.events import Deliver, Missed, Recovered
from hubbub.client.places import HELD_LIMIT, Item, Place
from hubbub.protocol.envelope import Gap, Joined
from hubbub.types import ALL, Position, room_channel

__all__ = ["INBOX", "MOST_PENDING", "Receiving"]

INBOX: Final = "inbox"
"""The client's own inbox among its channels; the others are `all` and `room:<name>`."""

MOST_PENDING: Final = 10_000
"""How many messages, of all channels, may be handed out and not handled yet; the rest comes by resuming."""

_HOLE_TIMEOUT: Final = 1.0
_ACK_DELAY: Final = 1.0
_ACK_COUNT: Final = 32


class Receiving:
    """Where the client is in each of its channels."""

    def __init__(self, agenda: Agenda, *, acknowledges: bool) -> None:
        # Handed out and not handled yet, of all channels.
        self._pending = 0

        # More came than may wait: from here on everything is let go until the next session. The connection
        # stands meanwhile, for whoever handles messages may be waiting for an answer.
        self._behind = False

        self._agenda = agenda
        self._places: dict[str, Place] = {INBOX: Place(), ALL: Place()}

        # Channels that wait for a missing message, and until when.
        self._holes: dict[str, float] = {}

        # Whether handled messages of the inbox are acknowledged here, or by the application itself.
        self._acknowledges = acknowledges

        # The user's cursor as the server last told it; the inbox's position in the last `ack` of this session,
        # how many messages it moved since, and when to send the next.
        self._cursor = 0
        self._acked = 0
        self._unacked = 0
        self._ack_at: float | None = None

    def position(self, channel: str) -> Position | None:
        """The last position handled in a channel, where there is one."""
        place = self._places.get(channel)
        return place.position if place is not None else None

    @property
    def must_resume(self) -> bool:
        """Whether only a new session brings what is missing: too much is held, or what was let go fits again."""
        if self._behind:
            return self._pending <= MOST_PENDING // 2
        return any(len(place.held) > HELD_LIMIT for place in self._places.values())

    # ------------------------------------------------------------------------------------------ what comes

    def publication(self, message: wire.Message, now: float) -> None:
        """A message of some channel."""
        channel = _channel_of(message.to, message.room)
        if message.seq is not None:
            prev = message.seq - 1 if message.prev is None else message.prev
            self._receive(channel, Item(message.seq, prev, message), now)
        elif self._is_followed(channel) and self._pending < MOST_PENDING:
            # Whoever is slow may miss a volatile message.
            self._deliver(channel, Item(0, 0, message))

    def ack(self, ack: wire.Ack, user: str, now: float) -> None:
        """The `ack` of a message without echo stands where the message would have come."""
        if ack.seq is not None and ack.to in (None, user):
            prev = ack.seq - 1 if ack.prev is None else ack.prev
            self._receive(_channel_of(ack.to, ack.room), Item(ack.seq, prev), now)

    def gap(self, gap: Gap, now: float) -> None:
        """The server dropped some."""
        channel = ALL if gap.channel == ALL else INBOX if gap.room is None else room_channel(gap.room)
        if self._is_followed(channel):
            self._receive(channel, Item(gap.to, gap.from_ - 1), now)
            self._agenda.tell("gap", Missed(channel, gap.from_, gap.to))

    def _is_followed(self, channel: str) -> bool:
        """False for what was on its way when a room was left, also where it is being joined anew."""
        place = self._places.get(channel)
        return place is not None and place.started and not self._behind

    def _receive(self, channel: str, item: Item, now: float) -> None:
        if not self._is_followed(channel):
            return
        if self._pending >= MOST_PENDING:
            self._behind = True
            return
        place = self._places[channel]
        ready = place.take(item)
        for found in ready:
            if found.message is not None:
                self._deliver(channel, found)
        if not place.held:
            self._holes.pop(channel, None)
        elif ready or channel not in self._holes:
            self._holes[channel] = self._agenda.at(now + _HOLE_TIMEOUT)
        if channel == INBOX:
            self._inbox_moved(0, now)

    def _deliver(self, channel: str, item: Item) -> None:
        self._pending += 1
        self._agenda.add(Deliver(channel, item))

    def handled(self, channel: str, item: Item, now: float) -> None:
        """A message has been handled: now the position may move."""
        self._pending -= 1
        place = self._places.get(channel)
        if place is not None:
            moved = place.handled(item)
            if channel == INBOX:
                self._inbox_moved(moved, now)

    # -------------------------------------------------------------------------------- the inbox's cursor (§8)

    def _inbox_moved(self, count: int, now: float) -> None:
        place = self._places[INBOX]
        if not self._acknowledges or place.seq is None or place.seq <= self._acked:
            return
        self._unacked += count
        if self._unacked >= _ACK_COUNT:
            self.acknowledge()
        elif self._ack_at is None:
            self._ack_at = self._agenda.at(now + _ACK_DELAY)

    def acknowledge(self) -> None:
        """Say now how far the inbox has been handled, where it has not been said."""
        place = self._places[INBOX]
        self._ack_at = None
        self._unacked = 0
        if self._acknowledges and place.seq is not None and place.seq > self._acked:
            self._acked = place.seq
            self._agenda.write({"type": "ack", "seq": place.seq})

    # ------------------------------------------------------------------------------------------ the connection

    def follow(self, room: str) -> None:
        """A room is to be joined."""
        self._places.setdefault(room_channel(room), Place())

    def forget(self, room: str) -> None:
        """A room has been left."""
        self._places.pop(room_channel(room), None)
        self._holes.pop(room_channel(room), None)

    def recovered(self, channel: str, position: Position, recovered: bool | None) -> None:
        """The server said where a channel goes on."""
        place = self._places[channel]
        if recovered is not True or not place.started:
            place.start(position)
        if recovered is not None:
            self._agenda.tell("recovered", Recovered(channel, recovered))

    def joined(self, joined: Joined, last: int | None) -> None:
        """A room was joined with `since`, where there was a position, or else with `last`, where it was asked."""
        channel = room_channel(joined.room)
        place = self._places[channel]
        place.held.clear()
        self._holes.pop(channel, None)
        if place.position is None and joined.recovered is True:
            if last:
                place.start_with_first(joined.position)
            else:
                place.start(joined.position)
        self.recovered(channel, joined.position, joined.recovered)

    def connected(self, inbox: Position, recovered: bool | None, now: float) -> None:
        """There is a session, whose inbox is at the server's cursor, or at a position of ours."""
        if recovered is not True:
            self._cursor = inbox.seq
        # An `ack` that was under way when the last connection was lost may not have arrived.
        self._acked = self._cursor
        self._unacked = 0
        self._inbox_moved(0, now)

    def disconnected(self) -> None:
        """What came too early comes again."""
        self._behind = False
        for place in self._places.values():
            place.held.clear()
        self._holes.clear()
        # Nothing is acknowledged without a session, and all of it by the next.
        self._ack_at = None
        self._acked = 2**53

    def tick(self, now: float) -> bool:
        """Do what is due; whether a hole has lasted too long."""
        if self._ack_at is not None and now >= self._ack_at:
            self.acknowledge()
        return any(now >= hole for hole in self._holes.values())

    def dues(self) -> Iterator[float | None]:
        """When something is to be done."""
        yield self._ack_at
        yield from self._holes.values()


def _channel_of(to: str | None, room: str | None) -> str:
    return room_channel(room) if room is not None else INBOX if to is not None else ALL
