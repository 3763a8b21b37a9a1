"""A stepped coroutine behaves as in a task: values, exceptions, cancellation and timeouts reach it alike."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Coroutine
from typing import Any

import pytest

from hubbub.eager import in_task, step


def run(main: Coroutine[Any, Any, None]) -> None:
    """On asyncio's own loop, where whatever is never awaited or retrieved is an error."""
    faults: list[dict[str, Any]] = []
    with asyncio.Runner() as runner:
        runner.get_loop().set_exception_handler(lambda _, context: faults.append(context))
        runner.run(main)
    gc.collect()

    assert faults == []


def test_one_that_never_waits_has_run_when_step_returns() -> None:
    """Without a loop, a task or a turn: that is what it is for."""
    steps: list[str] = []

    async def never_waits() -> None:
        steps.append("done")

    rest = step(never_waits())

    assert rest is None
    assert steps == ["done"]


def test_what_it_raises_comes_out_of_step() -> None:
    async def fails() -> None:
        raise LookupError("at once")

    with pytest.raises(LookupError, match="at once"):
        step(fails())


def test_one_that_waits_goes_on_in_a_task() -> None:
    """It is stepped to its first wait here, and from there in the task, with what it waited for."""

    async def main() -> None:
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        steps: list[str] = []

        async def waits() -> None:
            steps.append("before")
            steps.append(await future)
            await asyncio.sleep(0)
            steps.append("after")

        rest = step(waits())
        assert rest is not None
        at_once = list(steps)
        task = asyncio.create_task(rest)
        future.set_result("value")
        await task

        assert at_once == ["before"]
        assert steps == ["before", "value", "after"]

    run(main())


def test_a_future_that_was_done_before_the_task_began_is_not_missed() -> None:
    async def main() -> None:
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        got: list[str] = []

        async def waits() -> None:
            got.append(await future)

        rest = step(waits())
        assert rest is not None
        future.set_result("early")
        await asyncio.create_task(rest)

        assert got == ["early"]

    run(main())


def test_an_exception_of_what_it_waits_for_can_be_caught() -> None:
    async def main() -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        caught: list[str] = []

        async def waits() -> None:
            try:
                await future
            except LookupError as error:
                caught.append(str(error))
            # And may go on waiting afterwards.
            await asyncio.sleep(0)
            caught.append("went on")

        rest = step(waits())
        assert rest is not None
        task = asyncio.create_task(rest)
        future.set_exception(LookupError("away"))
        await task

        assert caught == ["away", "went on"]

    run(main())


def test_an_exception_later_comes_out_of_the_rest() -> None:
    async def main() -> None:
        async def fails() -> None:
            await asyncio.sleep(0)
            raise LookupError("later")

        rest = step(fails())
        assert rest is not None
        with pytest.raises(LookupError, match="later"):
            await asyncio.create_task(rest)

    run(main())


@pytest.mark.parametrize("turns", [0, 1, 2], ids=["before the task began", "in its first turn", "later"])
def test_a_cancellation_reaches_it_wherever_it_waits(turns: int) -> None:
    """Also before the task has taken its first step: what was begun must be able to clean up."""

    async def main() -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        steps: list[str] = []

        async def waits() -> None:
            try:
                await future
            except asyncio.CancelledError:
                steps.append("cancelled")
                raise
            finally:
                # Cleaning up may wait, as leaving a room does.
                await asyncio.sleep(0)
                steps.append("cleaned up")

        rest = step(waits())
        assert rest is not None
        task = asyncio.create_task(rest)
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert steps == ["cancelled", "cleaned up"]

    run(main())


def test_what_it_waits_for_is_called_off_with_it() -> None:
    """Also before the task has taken its first step: where it fails later, nobody is there to be told."""

    async def main() -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def waits() -> None:
            await future

        rest = step(waits())
        assert rest is not None
        task = asyncio.create_task(rest)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert future.cancelled()

    run(main())


def test_it_may_refuse_to_be_cancelled() -> None:
    async def main() -> None:
        steps: list[str] = []

        async def stubborn() -> None:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                steps.append("no")
            await asyncio.sleep(0)
            steps.append("done")

        rest = step(stubborn())
        assert rest is not None
        task = asyncio.create_task(rest)
        await asyncio.sleep(0)
        task.cancel()
        await task

        assert steps == ["no", "done"]

    run(main())


def test_in_task_gives_it_a_task() -> None:
    """Before it there is none of its own, after it there is."""

    async def main() -> None:
        tasks: list[asyncio.Task[Any] | None] = []

        async def wants_a_task() -> None:
            await in_task()
            tasks.append(asyncio.current_task())

        rest = step(wants_a_task())
        assert rest is not None
        task = asyncio.create_task(rest)
        await task

        assert tasks == [task]

    run(main())


def test_a_timeout_works_after_in_task() -> None:
    """`asyncio.timeout` needs a task to cancel, and what it raises is what the code inside sees."""

    async def main() -> None:
        outcome: list[str] = []

        async def times_out() -> None:
            await in_task()
            try:
                async with asyncio.timeout(0):
                    await asyncio.sleep(3600)
            except TimeoutError:
                outcome.append("timed out")

        rest = step(times_out())
        assert rest is not None
        await asyncio.create_task(rest)

        assert outcome == ["timed out"]

    run(main())


def test_a_rest_that_nobody_runs_is_closed() -> None:
    """Dropped like any coroutine: its `finally` runs."""
    steps: list[str] = []

    async def waits() -> None:
        try:
            await in_task()
        finally:
            steps.append("closed")

    rest = step(waits())
    assert rest is not None
    rest.close()
    del rest
    gc.collect()

    assert steps == ["closed"]


def test_nothing_is_kept_when_it_is_done() -> None:
    """No cycle holds on to what the coroutine held: ten thousand sessions go through here."""

    class Held:
        pass

    async def main() -> None:
        held = Held()
        reference = weakref.ref(held)

        async def waits(held: Held) -> None:
            await asyncio.sleep(0)

        rest = step(waits(held))
        assert rest is not None
        del held
        await asyncio.create_task(rest)
        del rest
        gc.disable()
        try:
            await asyncio.sleep(0)

            assert reference() is None
        finally:
            gc.enable()

    run(main())
