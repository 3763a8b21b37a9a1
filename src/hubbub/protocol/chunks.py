"""Large messages in parts: cut on one side, put together again on the other (protocol.md §7).

Both sides use this: the server for what its clients send, the client for what the server sends. It knows no clock: the
time comes in as an argument.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from hubbub.protocol.codes import ErrorCode
from hubbub.protocol.envelope import Chunk

__all__ = ["MOST_PARTS", "PART_SIZE", "TransferRefused", "Transfers", "cut", "parts_of"]

MOST_PARTS: Final = 4_096
"""How many parts one message may come in."""

PART_SIZE: Final = 32_768
"""How many bytes one part may hold."""

# Parts of more bytes are kept as they came.
_SMALL: Final = PART_SIZE // 4

# How many refused transfers are remembered. More than are unfinished at once: of each, parts may be on their way.
_MOST_REFUSED: Final = 16


class TransferRefused(Exception):  # it is an answer to the sender, not a failure
    """A transfer ends without a message: `code` is an error's (protocol.md §6.1), the text is for people."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class _Transfer(Struct, gc=False):
    total: int
    # When it must be finished.
    until: float
    # How many parts have come, and how many bytes.
    parts: int = 0
    size: int = 0
    # What they hold: small ones together in the last block, so that a million of single bytes are no million objects.
    blocks: list[bytes | bytearray] = []

    def add(self, data: bytes) -> None:
        self.parts += 1
        self.size += len(data)
        last = self.blocks[-1] if self.blocks else b""
        if isinstance(last, bytearray) and len(last) + len(data) <= PART_SIZE:
            last += data
        else:
            self.blocks.append(data if len(data) > _SMALL else bytearray(data))


class Transfers:
    """The unfinished transfers of one session in one direction, bounded in number, size and time.

    A refusal is told once. The rest of a refused transfer is on its way by then: it is ignored, until a transfer of
    this id begins anew.
    """

    __slots__ = ("_most", "_refused", "_size", "_timeout", "_unfinished", "held")

    def __init__(self, size: int, most: int = 4, timeout: float = 60.0) -> None:
        """`size` bytes is the most that one message may have, `timeout` seconds the longest that it may take."""
        # Bytes of all unfinished transfers.
        self.held = 0

        self._size = size
        self._most = most
        self._timeout = timeout
        self._unfinished: dict[str, _Transfer] = {}

        # The ids of transfers that were refused, the last of them at the end.
        self._refused: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._unfinished)

    def __contains__(self, id: str) -> bool:
        return id in self._unfinished

    @property
    def due(self) -> float | None:
        """When the first of them must be finished."""
        return min((transfer.until for transfer in self._unfinished.values()), default=None)

    def add(self, chunk: Chunk, now: float, room: int | None = None) -> list[bytes | bytearray] | None:
        """Take a part at `now` (seconds); the whole message, to be joined, where it was the last one.

        `room`: how many bytes there is place for, where others share it. Raises `TransferRefused`; what was collected
        of that transfer is freed then.
        """
        if chunk.index and chunk.id in self._refused:
            if chunk.index == chunk.total - 1:
                del self._refused[chunk.id]
            return None
        transfer = self._unfinished.get(chunk.id)
        try:
            if transfer is None:
                transfer = self._begin(chunk, now)
            elif (chunk.index, chunk.total) != (transfer.parts, transfer.total):
                raise TransferRefused(
                    ErrorCode.BAD_MESSAGE, "the parts of a message come in order, all with the same `total`"
                )
            if transfer.size + len(chunk.data) > self._size:
                raise TransferRefused(
                    ErrorCode.TOO_LARGE, f"the message is larger than the {self._size} bytes that are taken in chunks"
                )
            if room is not None and len(chunk.data) > room:
                raise TransferRefused(ErrorCode.UNAVAILABLE, "too many large messages are on their way")
        except TransferRefused:
            self.refuse(chunk.id)
            raise
        transfer.add(chunk.data)
        self.held += len(chunk.data)
        if transfer.parts < transfer.total:
            return None
        self._free(chunk.id)
        return transfer.blocks

    def _begin(self, chunk: Chunk, now: float) -> _Transfer:
        self._refused.pop(chunk.id, None)
        if chunk.index:
            raise TransferRefused(ErrorCode.BAD_MESSAGE, "the first part of a message is number 0")
        if not self._size:
            raise TransferRefused(ErrorCode.TOO_LARGE, "no message is taken in chunks")
        if len(self._unfinished) >= self._most:
            raise TransferRefused(ErrorCode.TOO_LARGE, f"{self._most} messages are on their way in chunks already")
        transfer = self._unfinished[chunk.id] = _Transfer(chunk.total, now + self._timeout)
        return transfer

    def refuse(self, id: str) -> None:
        """Free what there is of a transfer, and ignore the rest of it."""
        self._free(id)
        self._refused[id] = None
        if len(self._refused) > _MOST_REFUSED:
            del self._refused[next(iter(self._refused))]

    def spoil(self, id: str, index: int) -> bool:
        """Refuse a transfer of which a part, with this `index`, cannot be read; False where it was refused before."""
        if index and id in self._refused:
            return False
        self.refuse(id)
        return True

    def prolong(self, now: float) -> None:
        """Give the unfinished ones their whole time anew: it was not their sender's fault."""
        for transfer in self._unfinished.values():
            transfer.until = now + self._timeout

    def expire(self, now: float) -> list[str]:
        """Refuse what has not been finished in time; the ids."""
        late = [id for id, transfer in self._unfinished.items() if now >= transfer.until]
        for id in late:
            self.refuse(id)
        return late

    def clear(self) -> None:
        """Free everything: nothing more comes."""
        self._unfinished.clear()
        self._refused.clear()
        self.held = 0

    def _free(self, id: str) -> None:
        transfer = self._unfinished.pop(id, None)
        if transfer is not None:
            self.held -= transfer.size


def parts_of(size: int, part: int = PART_SIZE) -> int:
    """How many parts of at most `part` bytes a message of `size` bytes has."""
    return -(-size // part)


def cut(whole: bytes, part: int = PART_SIZE) -> Iterator[bytes]:
    """The parts of an encoded message, at most `part` bytes each."""
    return (whole[at : at + part] for at in range(0, len(whole), part))
