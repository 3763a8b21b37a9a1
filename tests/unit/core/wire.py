"""A socket that takes as much as a test says, a format that can be read back, and an outbox between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from hubbub.core.outbox import Held, Outbox, OutboxLimits, Overflow, Turn
from hubbub.types import Publication, room_channel

__all__ = ["Lines", "Socket", "Wire", "a_publication"]


class Lines:
    """One JSON object a line; counts what it encodes."""

    def __init__(self) -> None:
        self.encoded: list[object] = []

    def encode(self, message: object) -> bytes:
        self.encoded.append(message)
        return msgspec.json.encode(message) + b"\n"

    def encode_publication(self, publication: Publication, encoded: bytes | None) -> bytes:
        return self.encode(publication) if encoded is None else encoded + b"\n"


class Socket:
    """A transport's end of a connection: what the kernel does not take is kept until `drain`."""

    def __init__(self) -> None:
        # How many bytes the kernel still takes; None: all there are.
        self.room: int | None = None

        # Each system call's bytes, as far as they were taken.
        self.sends: list[bytes] = []

        # What the other side can read, and what waits in the transport before it can.
        self.arrived = b""
        self.buffer = b""

        # The outbox at this end, to be told that it is blocked.
        self.outbox: Outbox[Any]

        # As the real one's: something to call, looked up once.
        self.send: Callable[[bytes], int] = self.take

    def take(self, frames: bytes) -> int:
        """The kernel: takes what there is room for."""
        assert not self.buffer, "written past bytes that the transport holds"
        if self.room == 0:
            raise BlockingIOError
        taken = frames if self.room is None else frames[: self.room]
        if self.room is not None:
            self.room -= len(taken)
        self.sends.append(taken)
        self.arrived += taken
        return len(taken)

    def write(self, frames: bytes, /) -> None:
        self.buffer += frames
        self.outbox.blocked = True

    def drain(self) -> list[Held]:
        """The reader has read: everything held leaves, and the outbox hears of it."""
        self.arrived, self.buffer, self.room = self.arrived + self.buffer, b"", None
        return self.outbox.unblock()

    @property
    def messages(self) -> list[dict[str, Any]]:
        """What the reader has got so far, of whole lines."""
        return [msgspec.json.decode(line) for line in self.arrived.splitlines()]


@dataclass
class Wire:
    """One outbox with a socket at one end and a turn of its own at the other."""

    limits: OutboxLimits = field(default_factory=OutboxLimits)
    socket: Socket = field(default_factory=Socket)
    format: Lines = field(default_factory=Lines)
    # How often a turn was opened.
    opened: int = 0

    def __post_init__(self) -> None:
        self.turn = Turn(self._opened)
        self.outbox = Outbox("alice", self.socket, self.format, self.turn, self.limits)
        self.socket.outbox = self.outbox

    def _opened(self) -> None:
        self.opened += 1

    def put(self, frame: bytes, channel: str = "", seq: int | None = None) -> bool:
        """One message that is no publication: an answer, which may concern a channel or stand for a `seq` in it."""
        self.turn.begin()
        self.turn.collect(len(frame))
        return self.outbox.put(frame, channel=channel, seq=seq)

    def publish(self, publication: Publication, channel: str = "", policy: Overflow | None = None) -> bool:
        """One publication, into the channel that it names unless told otherwise."""
        frame = self.format.encode(publication)
        self.turn.begin()
        self.turn.collect(len(frame))
        return self.outbox.put(frame, publication, channel or room_channel(publication.room or ""), policy)

    def block(self) -> None:
        """Fill the socket with something that has nothing to do with the outbox, such as a ping."""
        self.socket.room = 0
        self.socket.write(b"")

    def seen(self) -> list[int | tuple[int, int]]:
        """What the reader got: seqs, and gaps as pairs."""
        return [
            (message["from"], message["to"]) if message["type"] == "gap" else message["seq"]
            for message in self.socket.messages
        ]


def a_publication(
    seq: int | None, *, type: str = "chat", from_: str = "bob", room: str = "lobby", prev: int | None = None
) -> Publication:
    return Publication(type, from_, room=room, seq=seq, prev=prev)
