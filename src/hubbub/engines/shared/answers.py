"""What is answered: to whoever waits for it, and where nobody can say what has become of a publication."""

from __future__ import annotations

import asyncio
from typing import Any

from hubbub.errors import Reject
from hubbub.protocol.codes import ErrorCode

__all__ = ["settle", "unknown"]


def settle(future: asyncio.Future[Any], outcome: Any) -> None:
    """Give `outcome` to who waits for it, if anybody still does."""
    if not future.done():
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)


def unknown() -> Reject:
    """Nobody can say whether it was done: the answer was lost. The same `id` again finds out."""
    said = "the engine did not answer: whether it has the message is unknown"
    return Reject(ErrorCode.INTERNAL, said, retry_after=1.0)
