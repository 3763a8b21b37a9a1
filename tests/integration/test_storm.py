"""More clients than there is room for, from several processes at once: exact, and those who are in go on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from support.client import connect
from support.loop import run
from support.server import Child, get

pytestmark = [
    pytest.mark.alone,
    pytest.mark.timeout(240),
    pytest.mark.skipif(sys.platform != "linux", reason="what else a loopback does with 19,000 connections"),
]

ATTEMPTS, ROOM, PROCESSES = 19_000, 10_000, 4
PATIENCE = 180.0


@contextlib.contextmanager
def many_files() -> Iterator[None]:
    """As many files as the system allows, for this process and its children."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < ROOM + 1_000:
        pytest.skip(f"{ROOM:,} connections need more files than a process may open here: {hard:,}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.asynccontextmanager
async def crowd(address: str) -> AsyncIterator[list[Process]]:
    """Processes whose clients come when they are told to, and stay until the block is left."""
    host, _, port = address.partition("://")[2].rpartition(":")
    tests = Path(__file__).parents[1]
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, str(tests / "integration" / "storming.py"), host, port),
            stdin=PIPE,
            stdout=PIPE,
            env={**os.environ, "PYTHONPATH": str(tests)},
        )
        for _ in range(PROCESSES)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            # Reads what is left, so that the pipes are closed.
            await process.communicate()


async def come(process: Process, count: int) -> Counter[str]:
    """Let as many come, one after the other as fast as it goes; what became of them."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(b"%d 0\n" % count)
    async with asyncio.timeout(PATIENCE):
        return Counter(json.loads(await process.stdout.readline()))


def test_nineteen_thousand_come_where_ten_thousand_may_be() -> None:
    """Exactly 10,000 are in, each of the others is told when to come again, and nobody who is in notices."""

    async def main() -> None:
        options = ("--dev", "--rate-limit", "off", "--connections", str(ROOM), "--connections-per-user", "0")
        async with Child.spawned(*options) as child, connect(child.address, "alice") as alice:
            async with crowd(child.address) as processes:
                storm = asyncio.gather(*(come(process, (ATTEMPTS - 1) // PROCESSES) for process in processes))
                answered = 0
                while not storm.done():
                    assert (await alice.ask("ping"))["type"] == "pong"
                    answered += 1
                found: Counter[str] = sum(await storm, Counter())
                rest = ATTEMPTS - 1 - sum(found.values())
                found += await come(processes[0], rest)

                assert found == {"in": ROOM - 1, "refused": ATTEMPTS - ROOM}
                assert answered > 100
                metrics = (await get(child.address, "/metrics")).body.decode().splitlines()
                assert f"websocket_active_connections {ROOM:.1f}" in metrics
                # One who is in speaks to all of them.
                await alice.say("to everyone")
                await alice.expect("chat", content="to everyone")
                assert (await come(processes[0], 1))["refused"] == 1
            assert child.errors() == ""

    with many_files():
        run(main(), timeout=200)
