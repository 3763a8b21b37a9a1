"""Messages of one session that wait while an earlier one is handled."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from hubbub.protocol.envelope import Envelope, Fault, Request

__all__ = ["First", "Waiting"]

First = Envelope | Request | Fault | Callable[[], Coroutine[Any, Any, None]]
"""What comes before all that waits: a message that came in chunks, or what the server does in the session's turn."""

# How many messages of the largest size may wait, whatever the bound in number says: that is one of small ones.
_LARGE_ONES = 4


class Waiting:
    """A queue, bounded in number and in bytes: when it is full, the session is read no further."""

    __slots__ = ("_messages", "size")

    def __init__(self) -> None:
        # Each with when it came; one that came in chunks has been decoded already.
        self._messages: deque[tuple[str | bytes | First, float]] = deque()

        # Bytes of those that have not been decoded.
        self.size = 0

    def __len__(self) -> int:
        return len(self._messages)

    def add(self, message: str | bytes, arrived: float) -> None:
        """Put one at the end."""
        self._messages.append((message, arrived))
        # In memory a character may take four bytes.
        self.size += sys.getsizeof(message)

    def add_first(
        self, item: Envelope | Request | Fault | Callable[[], Coroutine[Any, Any, None]], arrived: float
    ) -> None:
        """Put one before all others: it has been there, in parts, before they came, or is the server's."""
        self._messages.appendleft((item, arrived))

    def take(self) -> tuple[str | bytes | First, float]:
        """Take the first one, and when it came."""
        message, arrived = self._messages.popleft()
        if isinstance(message, str | bytes):
            self.size -= sys.getsizeof(message)
        return message, arrived

    def is_full(self, most: int, largest: int) -> bool:
        """Whether `most` wait, or as much as some that are as large as one may be."""
        return len(self._messages) >= most or self.size >= _LARGE_ONES * largest
