"""Hooks are called in the order of registration, within their time, and where they block in a thread."""

from __future__ import annotations

import asyncio
import threading

import pytest

from hubbub.errors import HubbubError, Reject
from hubbub.hub.hooks import Credentials, Hooks
from hubbub.hub.pipeline import Threads

PATIENCE = 10.0


def call(hooks: Hooks, *registered: object, timeout: float = PATIENCE) -> None:
    async def main() -> None:
        hooks.pipeline.threads = threads = Threads(1, 8)
        try:
            await hooks.call(list(registered), timeout, "argument")  # type: ignore[arg-type]  # any callables
        finally:
            threads.close()

    asyncio.run(main())


def test_they_are_called_in_order_with_the_same_arguments() -> None:
    calls: list[tuple[str, str]] = []

    async def first(argument: str) -> None:
        await asyncio.sleep(0)
        calls.append(("first", argument))

    def second(argument: str) -> None:
        calls.append(("second", argument))

    call(Hooks(), first, second, first)

    assert calls == [("first", "argument"), ("second", "argument"), ("first", "argument")]


def test_the_first_that_refuses_ends_it() -> None:
    calls: list[str] = []

    def refuses(argument: str) -> None:
        raise Reject("forbidden", "not you")

    def later(argument: str) -> None:
        calls.append("later")

    with pytest.raises(Reject, match="not you"):
        call(Hooks(), refuses, later)

    assert calls == []


def test_all_together_have_one_time() -> None:
    """A hook that waits for ever must not keep its session's other messages waiting for ever."""

    async def waits(argument: str) -> None:
        await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        call(Hooks(), waits, timeout=0.01)


def test_a_plain_function_runs_in_a_thread() -> None:
    where: list[threading.Thread] = []

    def hook(argument: str) -> None:
        where.append(threading.current_thread())

    call(Hooks(), hook)

    assert where[0] is not threading.main_thread()


def test_one_hook_returns_what_it_returns() -> None:
    """As `authenticate` does."""

    async def hook(token: str) -> str:
        return f"user of {token}"

    assert asyncio.run(Hooks().call_one(hook, "t")) == "user of t"


def test_a_plain_function_needs_the_running_hub() -> None:
    with pytest.raises(HubbubError, match="not running"):
        asyncio.run(Hooks().call_one(lambda: None))


def test_credentials_keep_their_secret() -> None:
    """They end up in logs and tracebacks; whether there was a token may be seen."""
    assert "s3cret" not in repr(Credentials("s3cret", None))
    assert repr(Credentials("s3cret", None)) != repr(Credentials(None, None))
