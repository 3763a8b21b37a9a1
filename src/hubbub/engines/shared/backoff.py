"""How long to wait before a connection is tried again."""

from __future__ import annotations

import asyncio
import random
from typing import Final

__all__ = ["Backoff"]

# Seconds to wait before another try: at first and at most, each time half as long again, and spread.
_FIRST: Final = 0.05
_MOST: Final = 2.0
# Seconds that a connection must have stood for the next one to be tried at once.
_AT_ONCE: Final = 1.0


class Backoff:
    """Ever longer waits between tries that fail."""

    def __init__(self) -> None:
        self._wait = _FIRST

    def reset(self) -> None:
        """A connection has served: the next try that fails is a first one."""
        self._wait = _FIRST

    async def pause(self, stood: float) -> None:
        """Wait until the next try; `stood`: seconds that the last connection has served, 0 where there was none."""
        if stood > _AT_ONCE:
            # It worked until now: most likely it, or another of the servers, does again.
            return
        await asyncio.sleep(self._wait * random.uniform(0.5, 1.5))  # noqa: S311  # spread, not secret
        self._wait = min(_MOST, self._wait * 1.5)
