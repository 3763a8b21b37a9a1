"""A client of the full way that costs little, believes nothing and writes down everything it gets.

Unlike a good client it repairs nothing: what comes twice, too early or not at all goes into the books as it came.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any, cast

import msgspec
from msgspec import Raw, Struct, field

from chaos.frames import CLOSE, PING, TEXT, BadFrameError, Frames, framed
from chaos.ledger import Ledger, digest
from chaos.misfortune import stall
from chaos.tally import Tally
from hubbub.types import inbox_channel, room_channel
from support.resetting import reset

__all__ = ["LeanClient"]

# Seconds: for a connection and its `welcome`; before the next try, at most; without an `ack` before a retry.
_OPEN_WITHIN = 5.0
_PAUSE = 0.5
_ACK_WITHIN = 10.0
# One of so many publications to a room asks for no echo.
_SILENT = 20

# Bytes. With small segments and a small window a reader that stalls is noticed within seconds: the kernel gives
# a loopback connection megabytes otherwise.
_SEGMENT = 536
_WINDOW = 4096


class _Message(Struct):
    """Whatever the server says: the fields that matter here."""

    type: str
    id: str | None = None
    from_: str | int = field(name="from", default="")
    to: str | int | None = None
    room: str | None = None
    content: Raw = Raw(b"")
    seq: int | None = None
    prev: int | None = None
    epoch: str = ""
    duplicate: bool = False
    code: str | int = ""
    retry_after: float = 1.0
    positions: Any = None
    recovered: Any = None


_decode = msgspec.json.Decoder(_Message).decode


class _Outgoing:
    """A publication without an `ack`."""

    __slots__ = ("again_at", "echo", "frame")

    def __init__(self, frame: bytes, echo: bool) -> None:
        self.frame = frame
        self.echo = echo
        # When it is repeated, on the loop's clock, where the connection lasts.
        self.again_at = 0.0


class Connection(asyncio.Protocol):
    """One connection: handshake, frames in and out, and its end."""

    def __init__(self, owner: LeanClient) -> None:
        self._owner = owner
        self._frames = Frames()
        self._head: bytes | None = b""
        self._transport: asyncio.Transport | None = None
        self.gone = asyncio.Event()

        # Whether there was a `welcome`.
        self.open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is one by its methods, not by its class.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(
            f"GET /ws?user_id={self._owner.name} HTTP/1.1\r\nHost: chaos\r\nConnection: Upgrade\r\n"
            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            "Sec-WebSocket-Protocol: hubbub.v1.json\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        if self._head is not None:
            head, end, data = (self._head + data).partition(b"\r\n\r\n")
            if not end:
                self._head = head
                return
            self._head = None
            if not head.startswith(b"HTTP/1.1 101 "):
                self._owner.tally.errors[head[9:12].decode()] += 1
                self.abort()
                return
            self.write(self._owner.hello())
        try:
            for first, payload in self._frames.feed(data):
                if first == TEXT:
                    self._owner.received(self, payload)
                elif first == PING:
                    self.write(framed(payload, 0x8A))
                elif first == CLOSE:
                    self._owner.tally.closes[int.from_bytes(payload[:2], "big")] += 1
                    self.write(framed(payload, CLOSE))
                    self.abort()
                if self.gone.is_set() or self._transport is None:
                    break
        except (BadFrameError, msgspec.MsgspecError) as error:
            self._owner.tally.nonsense.append(f"{self._owner.name}: {error}")
            self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self.gone.set()

    def write(self, data: bytes) -> None:
        """Send; nothing happens where the connection is gone."""
        if self._transport is not None:
            self._transport.write(data)

    def abort(self) -> None:
        """End it and hear nothing more from it."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def reset(self) -> bool:
        """End it as a failing network does."""
        transport, self._transport = self._transport, None
        return reset(transport)

    def stall(self, seconds: float) -> bool:
        """Read nothing from the socket for a while."""
        return stall(self._transport, seconds)


def _same(connection: Connection) -> Connection:
    return connection


class LeanClient:
    """One user with one device, in one room, who comes back until told to stop."""

    most_unsettled = 50
    """Publications without an `ack` beyond which it holds back: all of them are repeated after each kill."""

    def __init__(
        self,
        name: str,
        room: str,
        address: Callable[[], tuple[str, int]],
        ledger: Ledger,
        tally: Tally,
        seed: str,
    ) -> None:
        """`address` says for each connection where it goes to."""
        self.name = name
        self.room = room
        self.tally = tally
        self._address = address
        self._ledger = ledger
        self._chance = Random(seed)
        self._inbox = ledger.reading(name, inbox_channel(name))
        self._room = ledger.reading(name, room_channel(room))

        # Where it is in its inbox and its room; None before the first `welcome`.
        self._positions: dict[str, list[Any] | None] = {"inbox": None, "room": None}

        # By number, in the order of sending.
        self._outgoing: dict[int, _Outgoing] = {}
        self._connection: Connection | None = None
        self._sessions = 0

        # Up to where the inbox was acknowledged, and the number of the last `ping` that was answered.
        self._acknowledged = 0
        self._pings = 0
        self._pongs = 0

    def __repr__(self) -> str:
        return f"<{self.name} {'open' if self.connected else 'away'}, {len(self._outgoing)} unsettled>"

    @property
    def connected(self) -> bool:
        """Whether it has a session."""
        return self._connection is not None and self._connection.open

    @property
    def unsettled(self) -> int:
        """Publications without an `ack`."""
        return len(self._outgoing)

    @property
    def synced(self) -> bool:
        """Whether the last `sync` has been answered."""
        return self.connected and self._pongs == self._pings

    # --------------------------------------------------------------------------------- coming and going

    async def run(self) -> None:
        """Be connected until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                self._connection = connection = Connection(self)
                if await self.connect(connection):
                    deadline = loop.call_later(_OPEN_WITHIN, self._give_up, connection)
                    await connection.gone.wait()
                    deadline.cancel()
                connection.open = False
                await asyncio.sleep(self._chance.uniform(0, _PAUSE))
        finally:
            connection.abort()

    async def connect(self, connection: Connection) -> bool:
        """Connect a socket to the server, and `connection` to it; whether that worked."""
        loop = asyncio.get_running_loop()
        sock = socket.socket()
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SEGMENT)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _WINDOW)
            async with asyncio.timeout(_OPEN_WITHIN):
                await loop.sock_connect(sock, self._address())
        except BaseException as error:
            # Also where it is cancelled in the middle.
            sock.close()
            if not isinstance(error, OSError):
                raise
            return False
        try:
            await loop.create_connection(partial(_same, connection), sock=sock)
        finally:
            # uvloop closes the descriptor, and may have done so: the server may be dead again. A socket that closed
            # it once more would close whatever has that number by then, such as the connection of another client.
            sock.detach()
        return True

    @staticmethod
    def _give_up(connection: Connection) -> None:
        if not connection.open:
            connection.abort()

    def reset(self) -> bool:
        """Lose the connection; whether there was one."""
        return self._connection is not None and self._connection.reset()

    def stall(self, seconds: float) -> bool:
        """Read nothing from the socket for a while; whether there was one."""
        return self._connection is not None and self._connection.stall(seconds)

    # ------------------------------------------------------------------------------------------- sending

    def hello(self) -> bytes:
        """The greeting, with where it left off."""
        rooms = {self.room: self._positions["room"]}
        resume = {"inbox": self._positions["inbox"], "rooms": rooms}
        return framed(msgspec.json.encode({"type": "hello", "client": "chaos/1", "resume": resume}))

    def publish(self, number: int, id: str, content: bytes, *, room: str | None = None, to: str | None = None) -> None:
        """Send a publication, now or when there is a connection, until it is acknowledged."""
        # Some do not want to hear themselves: then the `ack` is all that they get.
        echo = room is None or self._chance.randrange(_SILENT) > 0
        target = f'"to":"{to}"' if room is None else f'"room":"{room}"'
        silence = "" if echo else ',"echo":false'
        text = f'{{"type":"chat",{target},"id":"{id}"{silence},"content":'
        self._outgoing[number] = outgoing = _Outgoing(framed(b"".join((text.encode(), content, b"}"))), echo)
        if self.connected:
            self._write(outgoing)

    def _write(self, outgoing: _Outgoing) -> None:
        assert self._connection is not None
        outgoing.again_at = asyncio.get_running_loop().time() + _ACK_WITHIN
        self._connection.write(outgoing.frame)

    def tick(self) -> None:
        """Called about once a second: repeat what has no answer, acknowledge the inbox."""
        if not self.connected:
            return
        now = asyncio.get_running_loop().time()
        for outgoing in self._outgoing.values():
            if outgoing.again_at <= now:
                self.tally.repeats += 1
                self._write(outgoing)
        self._acknowledge()

    def _acknowledge(self) -> None:
        position = self._positions["inbox"]
        if position is not None and position[1] > self._acknowledged and self._connection is not None:
            self._acknowledged = position[1]
            self._connection.write(framed(b'{"type":"ack","seq":%d}' % position[1]))

    def sync(self) -> None:
        """Ask for a sign that all that was sent to this session has come: then it is `synced`."""
        self._pings += 1
        if self._connection is not None:
            self._connection.write(framed(b'{"type":"ping","id":"%d"}' % self._pings))

    # ----------------------------------------------------------------------------------------- receiving

    def received(self, connection: Connection, text: bytes) -> None:
        """A message came."""
        message = _decode(text)
        match message.type:
            case "chat":
                self._publication(message)
            case "ack":
                self._ack(message)
            case "welcome":
                self._welcome(connection, message)
            case "error":
                self._error(connection, message)
            case "ping":
                connection.write(framed(b'{"type":"pong"}'))
            case "pong":
                self._pongs = int(message.id or 0)
            case "gap":
                self.tally.unrecovered.append(f"{self.name}: {text.decode()}")
            case "goodbye" | "member-joined" | "member-left" | "receipt":
                pass
            case _:
                self.tally.nonsense.append(f"{self.name}: {text[:200].decode()}")

    def _publication(self, message: _Message) -> None:
        place = "inbox" if message.room is None else "room"
        position = self._positions[place]
        if position is None or message.seq is None or message.room not in (None, self.room):
            self.tally.nonsense.append(f"{self.name}: a message in {message.room or 'the inbox'} without a beginning")
            return
        position[1] = message.seq
        reading = self._inbox if place == "inbox" else self._room
        content = digest(str(message.from_), bytes(message.content))
        number = self._ledger.number(message.id)
        self._ledger.deliver(reading, position[0], message.seq, number, content, message.prev)
        if place == "inbox" and message.seq % 32 == 0:
            self._acknowledge()

    def _ack(self, message: _Message) -> None:
        number = self._ledger.number(message.id)
        if message.seq is None:
            self.tally.nonsense.append(f"{self.name}: an ack of {message.id} without a position")
            return
        self._ledger.acknowledge(number, message.epoch, message.seq)
        outgoing = self._outgoing.pop(number, None)
        position = self._positions["room"]
        stands = outgoing is not None and not outgoing.echo and not message.duplicate
        if stands and position is not None and position[0] == message.epoch:
            # It stands for the message, in the order of the channel (protocol.md §5.4). In an epoch of which this
            # client has not been told it stands for nothing.
            position[1] = message.seq
            sent = self._ledger.sent_digests[number]
            self._ledger.deliver(self._room, message.epoch, message.seq, number, sent, message.prev, stands=True)

    def _welcome(self, connection: Connection, message: _Message) -> None:
        rooms, recovered = message.positions["rooms"], message.recovered["rooms"]
        if self.room not in rooms:
            # An `error` follows that says why; the next try may be luckier.
            connection.abort()
            return
        for place, reading, position, whole in (
            ("inbox", self._inbox, message.positions["inbox"], message.recovered["inbox"]),
            ("room", self._room, rooms[self.room], recovered[self.room]),
        ):
            if whole is not True:
                if self._positions[place] is not None:
                    self.tally.unrecovered.append(f"{self.name}: {place} after {self._positions[place]}: {position}")
                self._positions[place] = list(position)
                self._ledger.start(reading, *position)
        self.tally.reconnects += self._sessions > 0
        self._sessions += 1
        self._acknowledged = 0
        self._pongs, self._pings = 0, 0
        connection.open = True
        for outgoing in self._outgoing.values():
            self.tally.repeats += outgoing.again_at > 0
            self._write(outgoing)

    def _error(self, connection: Connection, message: _Message) -> None:
        self.tally.errors[str(message.code)] += 1
        outgoing = self._outgoing.get(self._ledger.number(message.id))
        if outgoing is not None:
            outgoing.again_at = asyncio.get_running_loop().time() + message.retry_after
        elif message.room is not None:
            connection.abort()
