"""Puts large messages together again from the chunks they travel in (protocol.md §7)."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from hubbub.client.wire import Chunk, NotAMessage

__all__ = ["Chunks"]

_MOST_TRANSFERS: Final = 4
_MOST_PARTS: Final = 4_096
_PART_SIZE: Final = 32_768
_SIZE: Final = 16 * 2**20
_TIME: Final = 60.0


class _Transfer(Struct):
    total: int
    until: float
    parts: list[bytes]


class Chunks:
    """The unfinished transfers of one connection, bounded in number, size and time."""

    def __init__(self) -> None:
        self._transfers: dict[str, _Transfer] = {}

    def add(self, chunk: Chunk, now: float) -> bytes | None:
        """The whole message, where `chunk` was its last part; raises `NotAMessage`."""
        for id in [id for id, transfer in self._transfers.items() if now >= transfer.until]:
            del self._transfers[id]
        transfer = self._transfers.get(chunk.id)
        if transfer is None:
            if len(self._transfers) == _MOST_TRANSFERS or not 1 <= chunk.total <= _MOST_PARTS:
                raise NotAMessage("too many chunks")
            transfer = self._transfers[chunk.id] = _Transfer(chunk.total, now + _TIME, [])
        if chunk.total != transfer.total or chunk.index != len(transfer.parts):
            raise NotAMessage("a chunk out of order")
        if not 1 <= len(chunk.data) <= _PART_SIZE:
            raise NotAMessage("a chunk of a wrong size")
        transfer.parts.append(chunk.data)
        if sum(map(len, transfer.parts)) > _SIZE:
            raise NotAMessage("chunks of a message that is too large")
        if len(transfer.parts) < transfer.total:
            return None
        del self._transfers[chunk.id]
        return b"".join(transfer.parts)
