"""One message as it lies in the file: sealed with a checksum, so that a damaged one is never taken for a message."""

from __future__ import annotations

from typing import Final
from zlib import crc32

from msgspec import Struct

from hubbub.errors import HubbubError

__all__ = ["SEPARATOR", "Damaged", "Opened", "check_of", "open_record", "open_records", "seal"]

SEPARATOR: Final = b"\x1e"
"""Between records that are read together: a control character, which JSON text cannot contain (RFC 8259 §7)."""

# Hexadecimal digits of the checksum at a record's beginning.
_CHECK: Final = 8


class Damaged(HubbubError):
    """The file does not say what was written to it."""


class Opened(Struct, frozen=True, gc=False):
    """A record that is as it was written."""

    seq: int
    # Milliseconds since the Unix epoch, when it was appended.
    time: int
    # The publication, as JSON.
    body: bytes


def seal(channel: int, seq: int, time: int, body: bytes) -> bytes:
    """The record of a publication; its place is sealed in, so that no record can pass for another."""
    return b"%08x%b" % (crc32(body, crc32(b"%d %d %d" % (channel, seq, time))), body)


def open_record(channel: int, seq: int, time: int, record: bytes) -> bytes:
    """The publication in `record`, as JSON; raises `Damaged`."""
    body = record[_CHECK:]
    if record[:_CHECK] != b"%08x" % crc32(body, crc32(b"%d %d %d" % (channel, seq, time))):
        raise Damaged(f"message {seq} of channel {channel} is not as it was written")
    return body


def open_records(channel: int, joined: bytes | None, *, newest_first: bool = False) -> list[Opened]:
    """What was read as `seq time record`, joined by `SEPARATOR`; oldest first.

    Raises `Damaged`, also where a message is missing.
    """
    opened: list[Opened] = []
    lines = joined.split(SEPARATOR) if joined else []
    if newest_first:
        lines.reverse()
    for line in lines:
        try:
            first, second, record = line.split(b" ", 2)
            seq, time = int(first), int(second)
        except ValueError:
            raise Damaged(f"a message of channel {channel} is not as it was written") from None
        if opened and seq != opened[-1].seq + 1:
            raise Damaged(f"messages of channel {channel} are missing before {seq}")
        opened.append(Opened(seq, time, open_record(channel, seq, time, record)))
    return opened


def check_of(*fields: object) -> int:
    """The checksum of a row."""
    return crc32(repr(fields).encode())
