"""The clock of an engine goes on whatever is looked at, and does not blame others for its own sleep."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest

from hubbub.engines.shared.clock import TICK, tick
from support.loop import eventually, run

log = logging.getLogger("hubbub.test.clock")


def test_a_look_is_left_out_after_a_sleep() -> None:
    """What is due may have come and not been read; but the next look is not left out, too."""

    async def main() -> None:
        looks: list[float] = []
        ticking = asyncio.create_task(tick((looks.append,), log))
        await eventually(lambda: len(looks) > 1)
        many = len(looks)
        time.sleep(0.6)  # noqa: ASYNC251 - this is what is tested
        woken = time.monotonic()
        await eventually(lambda: len(looks) > many)
        ticking.cancel()

        assert looks[many] >= woken + TICK / 2

    run(main())


def test_a_look_that_fails_is_in_nobodys_way(caplog: pytest.LogCaptureFixture) -> None:
    """Neither in that of the others nor in its own next time; and it is said."""

    async def main() -> None:
        good: list[float] = []
        bad: list[float] = []

        def fails(now: float) -> None:
            bad.append(now)
            raise ValueError("of ours")

        ticking = asyncio.create_task(tick((fails, good.append), log))
        await eventually(lambda: len(good) > 1)
        ticking.cancel()

        assert len(bad) >= 2
        assert "the engine's clock failed" in caplog.text

    run(main(), logs_errors=True)
