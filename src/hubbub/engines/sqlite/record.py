"""One message as it lies in the file: sealed with a checksum, so that a damaged one is never taken for a message."""

from __future__ import annotations

from typing import Final, NamedTuple
from zlib import crc32

from hubbub.core.record import is_json
from hubbub.errors import HubbubError

__all__ = ["SEPARATOR", "Damaged", "Opened", "check_of", "open_record", "open_records", "seal"]

SEPARATOR: Final = b"\x1e"
"""Between records that are read together: a control character, which JSON text cannot contain (RFC 8259 §7)."""

# In MessagePack it may stand anywhere: there it is written as two bytes, and so is the first of those.
_ESCAPE: Final = b"\x1b"
_ESCAPED_ESCAPE: Final = b"\x1b["
_ESCAPED_SEPARATOR: Final = b"\x1b]"

# Hexadecimal digits of the checksum at a record's beginning.
_CHECK: Final = 8


class Damaged(HubbubError):
    """The file does not say what was written to it."""


class Opened(NamedTuple):
    """A record that is as it was written."""

    channel: int
    seq: int
    # Milliseconds since the Unix epoch, when it was appended.
    time: int
    # The publication: see `hubbub.core.record`.
    body: bytes


def seal(channel: int, seq: int, time: int, body: bytes) -> bytes:
    """The record of a publication; its place is sealed in, so that no record can pass for another."""
    if not is_json(body):
        body = body.replace(_ESCAPE, _ESCAPED_ESCAPE).replace(SEPARATOR, _ESCAPED_SEPARATOR)
    sealed = b"%d %d %d %b" % (channel, seq, time, body)
    return b"%08x%b" % (crc32(sealed), sealed)


def open_record(record: bytes) -> Opened:
    """What was sealed in `record`; raises `Damaged`."""
    sealed = record[_CHECK:]
    try:
        if int(record[:_CHECK], 16) == crc32(sealed):
            channel, seq, time, body = sealed.split(b" ", 3)
            if not is_json(body):
                body = body.replace(_ESCAPED_SEPARATOR, SEPARATOR).replace(_ESCAPED_ESCAPE, _ESCAPE)
            return Opened(int(channel), int(seq), int(time), body)
    except (ValueError, IndexError):
        pass
    raise Damaged("a message is not as it was written")


def open_records(channel: int, joined: bytes | None, *, newest_first: bool = False) -> list[Opened]:
    """What was sealed in records of `channel` that are joined by `SEPARATOR`; oldest first.

    Raises `Damaged`, also where one between them is missing.
    """
    if not joined:
        return []
    opened = [open_record(record) for record in joined.split(SEPARATOR)]
    if newest_first:
        opened.reverse()
    before = opened[0].seq - 1
    for record in opened:
        if record.channel != channel or record.seq != before + 1:
            raise Damaged(f"message {before + 1} of channel {channel} is not in its place")
        before += 1
    return opened


def check_of(*fields: object) -> int:
    """The checksum of a row."""
    return crc32(repr(fields).encode())
