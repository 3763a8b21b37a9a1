"""Run a coroutine at once, on the spot, and make it a task only if it really waits.

A task per message is the cost that others pay: creating one and going through the event loop takes
longer than routing the message. Most coroutines of the hub never wait (the memory engine never does), so
they are stepped where they stand, and only what is left of one that does wait becomes a task.
"""

from __future__ import annotations

import types
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

__all__ = ["in_task", "step"]

T = TypeVar("T")


def step(coroutine: Coroutine[Any, Any, None]) -> Coroutine[Any, Any, None] | None:
    """Run `coroutine` until it waits or ends: None when it ended, else the rest of it, to make a task of.

    What it raises comes out of this call, or later out of the rest. Until its first wait it runs outside
    any task: code that needs one (`asyncio.timeout`, most libraries) awaits `in_task` first.
    """
    try:
        waits_for = coroutine.send(None)
    except StopIteration:
        return None
    return _rest(coroutine, waits_for)


@types.coroutine
def in_task() -> Generator[None, None, None]:
    """Wait until the event loop's next turn, so that a stepped coroutine goes on inside a task."""
    yield


async def _rest(coroutine: Coroutine[Any, Any, None], waits_for: object) -> None:
    await _resume(coroutine, waits_for)


@types.coroutine
def _resume(coroutine: Coroutine[Any, Any, None], waits_for: object) -> Generator[object, object, None]:
    # PEP 380's `yield from`, entered after its first yield: what the coroutine waited for is handed to
    # the task, and what the task throws in (a cancellation) goes to the coroutine.
    try:
        while True:
            try:
                sent = yield waits_for
            except GeneratorExit:
                raise
            except BaseException as error:
                waits_for = coroutine.throw(error)
            else:
                waits_for = coroutine.send(sent)
    except StopIteration:
        return
    finally:
        coroutine.close()
