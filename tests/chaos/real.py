"""The client that users have, `hubbub.connect`, as one of the fleet: its queue, retries and resume in earnest."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial

import msgspec

from chaos.ledger import Ledger, digest
from chaos.misfortune import stall
from chaos.tally import Tally
from hubbub.client import Ack, Client, Message, Recovered, State, StateChange, Unanswered
from hubbub.client.wire import CodecName
from hubbub.errors import ConnectError, Reject
from hubbub.types import Position, inbox_channel, room_channel
from support.resetting import reset

__all__ = ["RealClient"]


class RealClient:
    """One user with one device, in one room, with the client of the package."""

    most_unsettled = 150
    """Publications without an `ack` beyond which it holds back: more than the client keeps unsent, which is 100."""

    def __init__(
        self, name: str, room: str, address: tuple[str, int], ledger: Ledger, tally: Tally, codec: CodecName
    ) -> None:
        self.name = name
        self.room = room
        self.tally = tally
        self._ledger = ledger
        self._readings = {
            channel: ledger.reading(name, channel) for channel in (inbox_channel(name), room_channel(room))
        }
        self._client = Client("ws://{}:{}/ws?user_id={}".format(*address, name), tries=None, codec=codec)
        self._client.on("recovered", self._recovered)
        self._client.on("state", self._state)

        # By number: what is sent again until it is acknowledged; and what waits for that.
        self._outgoing: dict[int, partial[asyncio.Future[Ack]]] = {}
        self._given_up: list[int] = []
        self._joined = False
        self._sessions = 0
        # Waits for the connection that was hurried; more than one where a hurried try failed, too.
        self._opening: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<{self.name} {self._client.state}, {len(self._outgoing)} unsettled>"

    @property
    def connected(self) -> bool:
        """Whether it has a session, and is in its room."""
        return self._client.connected and self._joined

    @property
    def unsettled(self) -> int:
        """Publications without an `ack`."""
        return len(self._outgoing)

    synced = connected

    async def run(self) -> None:
        """Be connected until cancelled."""
        try:
            async with self._client:
                await self._client.join(self.room)
                for channel in self._readings:
                    self._start(channel)
                self._joined = True
                async for message in self._client:
                    self._publication(message)
        finally:
            await asyncio.gather(*self._opening)

    def _publication(self, message: Message) -> None:
        channel = inbox_channel(self.name) if message.room is None else room_channel(message.room)
        position = self._position(channel)
        if position is None or message.seq is None or channel not in self._readings:
            self.tally.nonsense.append(f"{self.name}: a message of {channel} without a beginning")
            return
        content = digest(message.from_, msgspec.json.encode(message.content))
        number = self._ledger.number(message.id)
        self._ledger.deliver(self._readings[channel], position.epoch, message.seq, number, content, message.prev)

    def _recovered(self, event: Recovered) -> None:
        if not event.recovered:
            self.tally.unrecovered.append(f"{self.name}: {event.channel}")
            channel = inbox_channel(self.name) if event.channel == "inbox" else event.channel
            if channel in self._readings:
                self._start(channel)

    def _start(self, channel: str) -> None:
        position = self._position(channel)
        assert position is not None
        self._ledger.start(self._readings[channel], *position)

    def _position(self, channel: str) -> Position | None:
        # The client calls its own inbox so.
        return self._client.position("inbox" if channel == inbox_channel(self.name) else channel)

    def _state(self, change: StateChange) -> None:
        if change.state is State.OPEN:
            self.tally.reconnects += self._sessions > 0
            self._sessions += 1

    # ------------------------------------------------------------------------------------------- sending

    def publish(self, number: int, id: str, content: bytes, *, room: str | None = None, to: str | None = None) -> None:
        """Send a publication, until it is acknowledged."""
        self._outgoing[number] = partial(
            self._client.send, "chat", msgspec.json.decode(content), id=id, room=room, to=to
        )
        self._send(number)

    def _send(self, number: int) -> None:
        if number in self._outgoing:
            try:
                self._outgoing[number]().add_done_callback(partial(self._settled, number))
            except Reject as error:
                # Its queue is full.
                self._later(number, error.code)

    def _settled(self, number: int, future: asyncio.Future[Ack]) -> None:
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            ack = future.result()
            assert ack.epoch is not None and ack.seq is not None
            self._outgoing.pop(number, None)
            self._ledger.acknowledge(number, ack.epoch, ack.seq)
        elif isinstance(error, Reject | Unanswered):
            self._later(number, error.code)
        else:
            raise error

    def _later(self, number: int, code: str) -> None:
        self.tally.errors[code] += 1
        self._given_up.append(number)

    def tick(self) -> None:
        """Called about once a second: send again what the client has given up, as its user would."""
        if self.connected:
            given_up, self._given_up = self._given_up, []
            self.tally.repeats += len(given_up)
            for number in given_up:
                self._send(number)

    # ---------------------------------------------------------------------------------------- misfortune

    def _transport(self) -> asyncio.Transport | None:
        # Nothing public leads to the socket, and nothing should.
        socket = self._client._socket
        picows = None if socket is None else socket._transport
        return None if picows is None else picows.underlying_transport

    def reset(self) -> bool:
        """Lose the connection; whether there was one."""
        return reset(self._transport())

    def stall(self, seconds: float) -> bool:
        """Read nothing from the socket for a while; whether there was one."""
        return stall(self._transport(), seconds)

    def hurry(self) -> None:
        """The application knows that the network is back: the delay, up to 30 s after many failures, is over."""
        if self._client.state is State.WAITING:
            task = asyncio.get_running_loop().create_task(self._open())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open(self) -> None:
        with contextlib.suppress(ConnectError):
            await self._client.open()

    def sync(self) -> None:
        """Nothing: what it has is what its position says."""
