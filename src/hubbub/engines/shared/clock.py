"""The clock of an engine: everything that has a deadline is looked at several times a second."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

__all__ = ["TICK", "tick"]

TICK: Final = 0.05
"""Seconds between two looks."""

# Seconds between two looks after which it was this process that stood still, and not whoever is waited for.
_ASLEEP: Final = 0.5


async def tick(looks: Sequence[Callable[[float], None]], log: logging.Logger) -> None:
    """Call each of `looks` with the loop's time, every `TICK` seconds, for ever.

    After a turn of the loop that took very long one look is left out: the answer that would be late may have come and
    not been read. One only, for the sockets have been read by the next one.
    """
    loop = asyncio.get_running_loop()
    looked, slept = loop.time(), False
    while True:
        await asyncio.sleep(TICK)
        now = loop.time()
        slept, looked = now - looked > _ASLEEP and not slept, now
        if slept:
            continue
        for look in looks:
            try:
                look(now)
            except Exception:
                # A fault of ours, in one part: the others, and the next look, must come.
                log.exception("the engine's clock failed")
