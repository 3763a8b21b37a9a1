"""What is told on the bus of a channel, and what stands in its log: a publication, and who published it from where.

A body is `<run> <number> <origin>`, a line's end, and the record. JetStream tells each message that it has stored with
its place in the stream, and with that of the one before it of the same channel.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from msgspec import Struct

from hubbub.core import record
from hubbub.types import Publication

__all__ = ["Note", "body_of", "pending_of", "seconds", "seq_of", "stamp_of"]

_SEQ: Final = b"\r\nNats-Sequence: "
_BEFORE: Final = b"\r\nNats-Last-Sequence: "
_STAMP: Final = b"\r\nNats-Time-Stamp: "
_PENDING: Final = b"\r\nNats-Num-Pending: "
# What numbers no message of any stream.
_NO_SEQ: Final = 2**63


class Note(Struct, frozen=True, gc=False):
    """One publication as it came by the bus, or as it was read."""

    # None for a volatile one: it has no place.
    seq: int | None
    # The place of the one before it; 0 where that is gone, or there was none.
    prev: int
    # When JetStream took it, as it says so.
    stamp: bytes
    # Of the node that published it, and what that calls it.
    run: str
    number: int
    origin: str | None
    # With its place.
    publication: Publication

    @classmethod
    def read(cls, head: bytes, body: bytes) -> Note:
        """Read what came; raises `ValueError` where it is none."""
        first, _, encoded = body.partition(b"\n")
        run, number, origin = first.decode("ascii").split(" ")
        publication = record.decode(encoded)
        seq, prev, stamp = None, 0, b""
        if head:
            seq, prev, stamp = seq_of(head), int(_field(head, _BEFORE)), stamp_of(head)
            # JetStream says all three of each message; of anything else nothing may be believed.
            if not 0 <= prev < seq < _NO_SEQ or not seconds(stamp):
                raise ValueError("not from a stream")
            publication.prev = None if prev == seq - 1 else prev
        publication.seq = seq
        return cls(seq, prev, stamp, run, int(number), origin or None, publication)


def body_of(run: str, number: int, origin: str | None, encoded: bytes) -> bytes:
    """What is stored, or told."""
    return f"{run} {number} {origin or ''}\n".encode() + encoded


def _field(head: bytes, name: bytes) -> bytes:
    """One field of a head, or nothing. What a node says of itself stands behind what JetStream says in none of them."""
    begin = head.rfind(name)
    if begin < 0:
        return b""
    begin += len(name)
    return head[begin : head.find(b"\r\n", begin)]


def seq_of(head: bytes) -> int:
    """The place in the stream; raises `ValueError`."""
    return int(_field(head, _SEQ))


def stamp_of(head: bytes) -> bytes:
    """When JetStream took the message."""
    return _field(head, _STAMP)


def pending_of(head: bytes) -> int:
    """How many more of the same channel follow in the log."""
    return int(_field(head, _PENDING) or 0)


def seconds(stamp: bytes) -> float:
    """Such a time as seconds of the Unix epoch; raises `ValueError`."""
    return datetime.fromisoformat(stamp.decode()).timestamp()
