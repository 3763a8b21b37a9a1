"""Run one test on an event loop of its own, as the server runs: uvloop, bounded in time, nothing unnoticed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import uvloop

__all__ = ["PATIENCE", "eventually", "run"]

T = TypeVar("T")

PATIENCE = 20.0
"""Seconds for what should happen at once: long enough for a busy machine, short enough to fail a test."""


class _Errors(logging.Handler):
    """Collects what the server logs as its own fault."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


def run(main: Coroutine[Any, Any, T], *, timeout: float = 90.0, logs_errors: bool = False) -> T:
    """Run `main` to its end on a new loop, at most `timeout` seconds; returns what it returns.

    What the loop finds wrong fails the test, and so does an error in the server's log, except where
    `logs_errors` says that there must be one.
    """
    faults: list[dict[str, Any]] = []
    errors = _Errors()
    log = logging.getLogger("hubbub")
    log.addHandler(errors)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.get_loop().set_exception_handler(lambda _, context: faults.append(context))
            result = runner.run(_bounded(main, timeout))
    finally:
        log.removeHandler(errors)

    assert faults == []
    assert bool(errors.lines) == logs_errors, errors.lines
    return result


async def _bounded(main: Coroutine[Any, Any, T], timeout: float) -> T:
    async with asyncio.timeout(timeout):
        return await main


async def eventually(condition: Callable[[], object], patience: float = PATIENCE) -> None:
    """Wait until `condition` is true, for state of the server that announces itself to nobody."""
    async with asyncio.timeout(patience):
        while not condition():
            await asyncio.sleep(0.005)
