"""The transports run on two event loops, in TLS and without, and every test of the contract on all four."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest
import uvloop

from contract.transports.harness import Run, encryption
from hubbub.transports.tls import TlsOptions, server_context
from support.certificates import AUTHORITY


@pytest.fixture(scope="session")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ssl.SSLContext]:
    """What both sides speak TLS with."""
    options = TlsOptions(**AUTHORITY.signs().written(tmp_path_factory.mktemp("tls")))
    server = server_context(options)

    assert server is not None
    return {"server": server, "client": AUTHORITY.trusted}


@pytest.fixture(params=["uvloop", "asyncio", "uvloop with TLS", "asyncio with TLS"])
def run(request: pytest.FixtureRequest, contexts: dict[str, ssl.SSLContext]) -> Iterator[Run]:
    """Run a coroutine on an event loop of its own; what the loop finds wrong fails the test."""

    def run(coroutine: Coroutine[Any, Any, None]) -> None:
        faults: list[dict[str, Any]] = []
        factory = uvloop.new_event_loop if request.param.startswith("uvloop") else asyncio.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.get_loop().set_exception_handler(lambda _, context: faults.append(context))
            runner.run(coroutine)

        assert faults == []

    if request.param.endswith("TLS"):
        encryption.update(contexts)
    yield run
    encryption.clear()
