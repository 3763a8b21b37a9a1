"""A thread with a queue: it takes all the jobs that wait at once, and brings them back to the event loop together.

So the cost of waking a thread is shared by all that came meanwhile. The busier it gets, the more each turn takes:
that is the whole of group commit.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final, Generic, TypeVar

from hubbub.errors import Unavailable

__all__ = ["Worker"]

log = logging.getLogger("hubbub.engines.sqlite")

J = TypeVar("J")
R = TypeVar("R")

# Jobs after which the thread takes no more at once: the first should not wait too long for the last.
_ENOUGH: Final = 1000
# Seconds for the thread to finish what it has when it is stopped.
_PATIENCE: Final = 30.0


class Worker(Generic[J, R]):
    """Performs jobs in a thread of its own, in order; bounded: beyond `most` waiting jobs `put` refuses."""

    def __init__(
        self, name: str, perform: Callable[[list[J]], R], deliver: Callable[[list[J], R], None], most: int
    ) -> None:
        # In the thread; raises nothing.
        self._perform = perform
        # On the loop's thread, with what was performed, in the order of `put`, and what `perform` said of it all.
        self._deliver = deliver
        self._most = most

        # Jobs that were put and not delivered yet; only the loop's thread counts.
        self.waiting = 0

        self._name = name
        # What this turn of the event loop has put: the thread is woken once, when the turn ends. Woken by the first,
        # it would take the interpreter's lock at once, and do that one alone.
        self._gathered: list[J] = []
        # What each turn has put; None: no more comes.
        self._jobs: SimpleQueue[list[J] | None] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Future[None] | None = None

    @property
    def running(self) -> bool:
        """Whether it takes jobs."""
        return self._loop is not None

    def start(self) -> None:
        """Start the thread; results come back to the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        threading.Thread(target=self._run, args=(self._loop, self._ended), name=self._name, daemon=True).start()

    def put(self, job: J) -> None:
        """Let `job` be performed; raises `Unavailable` when too many wait, or the worker does not run."""
        if self._loop is None:
            raise Unavailable("the store is not open")
        if self.waiting >= self._most:
            raise Unavailable("the store is behind with what it has to do", retry_after=1.0)
        self.waiting += 1
        if not self._gathered:
            self._loop.call_soon(self._hand_over)
        self._gathered.append(job)

    def _hand_over(self) -> None:
        if self._gathered:
            gathered, self._gathered = self._gathered, []
            self._jobs.put(gathered)

    async def stop(self) -> bool:
        """Finish what waits and end the thread; harmless when it does not run. False where it does not end in time."""
        if self._loop is None or self._ended is None:
            return True
        self._loop = None
        self._hand_over()
        self._jobs.put(None)
        done, _ = await asyncio.wait([self._ended], timeout=_PATIENCE)
        if not done:
            log.error("%s does not end: the disk does not answer", self._name)
        return bool(done)

    def _run(self, loop: asyncio.AbstractEventLoop, ended: asyncio.Future[None]) -> None:
        jobs, more = self._jobs, True
        try:
            while more:
                taken, more = _take(jobs)
                if taken:
                    loop.call_soon_threadsafe(self._finish, taken, self._perform(taken))
            loop.call_soon_threadsafe(_resolve, ended)
        except RuntimeError:
            # The event loop was closed under us: there is nobody left to bring anything to.
            if not loop.is_closed():
                raise

    def _finish(self, done: list[J], said: R) -> None:
        try:
            self._deliver(done, said)
        finally:
            # Not before: until all of it is told, what is said meanwhile belongs behind it.
            self.waiting -= len(done)


def _take(jobs: SimpleQueue[list[J] | None]) -> tuple[list[J], bool]:
    """Wait for jobs; they and those behind them, and whether more may come."""
    taken: list[J] = []
    some = jobs.get()
    try:
        while some is not None:
            taken += some
            if len(taken) >= _ENOUGH:
                return taken, True
            some = jobs.get_nowait()
    except Empty:
        return taken, True
    return taken, False


def _resolve(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)
