"""A few bytes beside the file that say how far it had come, so that an end that was lost is noticed.

SQLite takes a write-ahead log that is cut off or damaged for one whose end was never written, and goes on from an
earlier state without a word. The seqs after that state would be given a second time, in the same epoch: a
client with a position among them would miss messages for ever. So after each transaction its number is written here,
and who starts compares.
"""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import sys
from pathlib import Path
from zlib import crc32

from msgspec import Struct

__all__ = ["Mark", "Marked", "boot"]

# The number of the last transaction, whether it may be lost in a power cut, whether the store was closed
# in order, which boot of the machine it was; then the checksum of these.
_LAYOUT = struct.Struct("<QBB16s")
_CHECK = struct.Struct("<I")


class Marked(Struct, frozen=True):
    """What the mark said when the store was opened."""

    commits: int
    # Transactions may be missing without a trace.
    doubtful: bool


def boot() -> bytes:
    """Which boot of the machine this is, 16 bytes; zeros where the system does not say."""
    name = b""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        if sys.platform == "darwin":
            name = subprocess.run(  # a fixed command
                ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"], capture_output=True, timeout=5, check=True
            ).stdout
        else:
            name = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    return bytes.fromhex(name.decode().strip().replace("-", "")) if name else bytes(16)


class Mark:
    """The open mark of a store."""

    def __init__(self, path: Path, *, safe: bool) -> None:
        # Whether what is committed is on disk.
        self._safe = safe
        self._boot = boot()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def read(self) -> Marked:
        """What was written last. Where nobody did, as in a copy of the database alone, its end is in doubt."""
        found = os.pread(self._file, _LAYOUT.size + _CHECK.size, 0)
        if len(found) < _LAYOUT.size + _CHECK.size or _CHECK.unpack_from(found, _LAYOUT.size)[0] != crc32(
            found[: _LAYOUT.size]
        ):
            return Marked(0, doubtful=True)
        commits, safe, clean, booted = _LAYOUT.unpack_from(found)
        same = booted == self._boot and booted != bytes(16)
        return Marked(commits, doubtful=not (safe or clean or same))

    def write(self, commits: int, *, clean: bool = False, sync: bool = False) -> None:
        """Transaction number `commits` is done. Without `sync` it survives the process, with it a power cut."""
        fields = _LAYOUT.pack(commits, self._safe, clean, self._boot)
        os.pwrite(self._file, fields + _CHECK.pack(crc32(fields)), 0)
        if sync:
            os.fsync(self._file)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)
