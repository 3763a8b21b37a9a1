"""Run a coroutine at once, on the spot, and make it a task only if it really waits.

A task per message is the cost that others pay: creating one and going through the event loop takes
longer than routing the message. Most coroutines of the hub never wait (the memory engine never does), so
they are stepped where they stand, and only what is left of one that does wait becomes a task.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator
from typing import Any

__all__ = ["in_task", "step"]


def step(coroutine: Coroutine[Any, Any, None]) -> Coroutine[Any, Any, None] | None:
    """Run `coroutine` until it waits or ends: None when it ended, else the rest of it, to make a task of.

    What it raises comes out of this call, or later out of the rest. Until its first wait it runs outside
    any task: code that needs one (`asyncio.timeout`, most libraries) awaits `in_task` first.
    """
    try:
        waits_for = coroutine.send(None)
    except StopIteration:
        return None
    return _Rest(coroutine, waits_for)


@types.coroutine
def in_task() -> Generator[None, None, None]:
    """Wait until the event loop's next turn, so that a stepped coroutine goes on inside a task."""
    yield


class _Rest(Coroutine[Any, Any, None]):
    """A coroutine that has been started already, for a task to go on with: it waits first for what that waits for."""

    __slots__ = ("_coroutine", "_waits_for")

    def __init__(self, coroutine: Coroutine[Any, Any, None], waits_for: object) -> None:
        self._coroutine = coroutine

        # What the first step ended with; None once a task has been told of it.
        self._waits_for: tuple[object] | None = (waits_for,)

    def send(self, value: Any, /) -> Any:
        if self._waits_for is not None:
            (first,) = self._waits_for
            self._waits_for = None
            return first
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        # A task that is cancelled before its first turn comes straight here, and knows of nothing that it waits for:
        # that is called off here, as the task would have, or nobody ever asks what became of it.
        if self._waits_for is not None:
            (first,) = self._waits_for
            self._waits_for = None
            if asyncio.isfuture(first):
                first.cancel()
        return self._coroutine.throw(*error)

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, None]:
        raise TypeError("the rest of a stepped coroutine is for a task, not for await")
