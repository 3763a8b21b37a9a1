"""What several processes have counted, where each of them can read it: a file in memory that has no name.

Each process writes into a place of its own, again and again; the supervisor's says whose the others are. So nobody who
reads waits for anybody, and of one that hangs there is what it had counted until then.
"""

from __future__ import annotations

import os
import struct
import sys
import tempfile
import time
from typing import Final
from zlib import crc32

import msgspec
from msgspec import Struct

__all__ = ["LARGEST", "SUPERVISOR", "Record", "Roster", "Scoreboard"]

SUPERVISOR: Final = 0
"""The place of the supervisor, where its `Roster` is."""

# When it was written, and how many bytes it has; then the checksum of these and of the record.
_HEAD: Final = struct.Struct("<dI")
_CHECK: Final = struct.Struct("<I")
_BEGIN: Final = _HEAD.size + _CHECK.size

# Each place has two halves, written in turn: whoever comes while one is being written reads the other. What nobody
# has written to takes no memory.
_HALF: Final = 65_536

LARGEST: Final = _HALF - _BEGIN
"""The most bytes of a record: statistics have about a thousand, a roster twenty for each worker."""


class Roster(Struct, frozen=True, kw_only=True):
    """What the supervisor says of the workers, each by its number."""

    # How often another had to be started because one had ended or hung; of all that there should be.
    restarts: dict[int, int] = {}
    # The places of those that live and are ready.
    serving: dict[int, int] = {}
    # The places of their predecessors that still drain.
    leaving: dict[int, int] = {}


class Record(Struct, frozen=True):
    """What a process wrote last."""

    # Seconds since it did.
    age: float
    content: bytes


class Scoreboard:
    """The file as one process has it, which writes in its own place and reads in all."""

    def __init__(self, file: int, place: int = SUPERVISOR) -> None:
        """`file` is the number of the open file, for those who inherit it."""
        self.file = file
        self._place = place
        # The one that was not written last.
        self._half = 0

    @classmethod
    def made(cls) -> Scoreboard:
        """An empty one, for a supervisor; raises `OSError`."""
        if sys.platform == "linux" and hasattr(os, "memfd_create"):
            return cls(os.memfd_create("hubbub-scoreboard"))
        # There is no path to it, either.
        with tempfile.TemporaryFile() as file:
            return cls(os.dup(file.fileno()))

    def write(self, content: object) -> None:
        """Replace what is in the own place, by this in JSON; raises `ValueError` for more than `LARGEST` bytes."""
        encoded = msgspec.json.encode(content)
        if len(encoded) > LARGEST:
            raise ValueError(f"a record has at most {LARGEST} bytes and not {len(encoded)}")
        # A clock that is the same for all processes of a machine, and that nobody sets.
        head = _HEAD.pack(time.monotonic(), len(encoded))
        check = _CHECK.pack(crc32(head + encoded))
        os.pwrite(self.file, head + check + encoded, self._begin(self._place, self._half))
        self._half = 1 - self._half

    def read(self, place: int) -> Record | None:
        """What was written in a place last; None: nothing yet."""
        written = max(filter(None, (self._read(place, half) for half in (0, 1))), default=None)
        return None if written is None else Record(max(0.0, time.monotonic() - written[0]), written[1])

    def roster(self) -> Roster:
        """What the supervisor said last."""
        found = self.read(SUPERVISOR)
        return Roster() if found is None else msgspec.json.decode(found.content, type=Roster)

    def close(self) -> None:
        """Let go of the file, which is gone when all processes have."""
        os.close(self.file)

    def _read(self, place: int, half: int) -> tuple[float, bytes] | None:
        """When it was written, and the record; None where there is none, or none that is whole."""
        begin = self._begin(place, half)
        head = os.pread(self.file, _BEGIN, begin)
        if len(head) < _BEGIN:
            return None
        when, size = _HEAD.unpack_from(head)
        content = os.pread(self.file, min(size, LARGEST), begin + _BEGIN)
        return (
            (when, content) if _CHECK.unpack_from(head, _HEAD.size)[0] == crc32(head[: _HEAD.size] + content) else None
        )

    @staticmethod
    def _begin(place: int, half: int) -> int:
        return (2 * place + half) * _HALF
