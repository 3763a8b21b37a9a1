"""What can be done with chunks to a server that is a process of its own: bounded, freed, and nobody else notices."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import resource
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.transports.harness import TEXT, frame, handshake
from support.client import Client, connect
from support.loop import PATIENCE, run
from support.server import Child, get

pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(sys.platform != "linux", reason="measures with Linux's /proc"),
]

MIB = 1 << 20


def a_chunk(id: str, index: int, total: int, data: bytes) -> bytes:
    text = base64.b64encode(data).decode()
    chunk = {"type": "chunk", "id": id, "index": index, "total": total, "data": text}
    return frame(TEXT, json.dumps(chunk).encode())


def cpu(child: Child) -> float:
    """Seconds of CPU that the server's main thread has used."""
    return int(Path(f"/proc/{child.process.pid}/schedstat").read_text().split()[0]) / 1e9


def memory(child: Child) -> int:
    """Bytes of memory that the server holds."""
    return int(Path(f"/proc/{child.process.pid}/statm").read_text().split()[1]) * resource.getpagesize()


async def metric(child: Child, name: str) -> int:
    metrics = (await get(child.address, "/metrics")).body.decode()
    found = re.search(rf"^{name} (\S+)$", metrics, re.MULTILINE)

    assert found is not None
    return int(float(found[1]))


async def held(child: Child) -> int:
    return await metric(child, "hubbub_transfer_bytes")


async def freed(child: Child) -> None:
    """Wait until only the good client is left, and nothing of what the others sent."""
    async with asyncio.timeout(PATIENCE):
        while await metric(child, "websocket_active_connections") > 1 or await held(child):
            await asyncio.sleep(0.02)


def opened(child: Child, user: str) -> socket.socket:
    """A plain session."""
    host, _, port = child.address.partition("://")[2].rpartition(":")
    sock = socket.create_connection((host, int(port)), PATIENCE)
    sock.sendall(handshake(f"/ws?user_id={user}"))
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(4_096)

    assert head.startswith(b"HTTP/1.1 101")
    return sock


@contextlib.contextmanager
def many_files() -> Iterator[int]:
    """Raise the limit of open files, for this process and its children: how many connections that allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield hard - 500
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def served(good: Client, times: int) -> float:
    """A good client speaks and hears itself; the longest time in seconds that this took."""
    longest = 0.0
    for _ in range(times):
        before = time.perf_counter()
        await good.sync()
        longest = max(longest, time.perf_counter() - before)
        await asyncio.sleep(0.01)
    return longest


def test_a_million_chunks_of_a_byte_each_wait_for_their_turn() -> None:
    """A thousand at once and a thousand a second are taken, and the rest is not read: no CPU, no memory."""

    async def main() -> None:
        async with Child.spawned("--dev", "--rate-limit", "1000/s") as child, connect(child.address, "good") as good:
            await served(good, 10)
            with opened(child, "bad") as sock:
                sock.setblocking(False)
                used, size = cpu(child), memory(child)
                block = b"".join(a_chunk(f"t{index // 4_096}", index % 4_096, 4_096, b"x") for index in range(16_384))
                sent = index = 0
                until = time.monotonic() + 3
                while time.monotonic() < until:
                    with contextlib.suppress(BlockingIOError):
                        index += sock.send(block[index:])
                        if index == len(block):
                            index, sent = 0, sent + 16_384
                    longest = await served(good, 1)

                    assert longest < 0.2
                assert cpu(child) - used < 1.0
                assert memory(child) - size < 8 * MIB
                assert sent < 1_000_000
            await freed(child)

    run(main())


def test_thousands_of_sessions_with_half_a_transfer_each_have_one_bound() -> None:
    """What is over `transfer_bytes` is refused; when they go everything is free, and again the same costs no more."""

    async def main(most: int) -> None:
        limit = 32 * MIB
        crowd = min(5_000, most)
        options = ("--dev", "--handshake-rate", "off", "--handshake-rate-ip", "off", "--transfer-bytes", str(limit))
        async with Child.spawned(*options) as child, connect(child.address, "good") as good:
            half = a_chunk("t1", 0, 2, b"x" * 32_768)
            before, after = memory(child), list[int]()
            for _ in range(3):
                sessions = []
                try:
                    for number in range(crowd):
                        sessions.append(opened(child, f"u{number}"))
                        if number % 500 == 0:
                            await good.sync()
                    for number, sock in enumerate(sessions):
                        sock.sendall(half)
                        if number % 100 == 0:
                            await good.sync()
                    for sock in sessions[-10:]:
                        assert b'"unavailable"' in sock.recv(4_096)
                    taken = await held(child)

                    assert limit - 32_768 < taken <= limit
                    # Each connection costs 10 KiB, and the buffer that its largest frame was read into.
                    assert memory(child) - before < 2 * limit + crowd * (10_240 + 65_536)
                finally:
                    for sock in sessions:
                        sock.close()
                await freed(child)
                await good.sync()
                after.append(memory(child))

            # The first time the allocator takes its places.
            assert after[2] - after[1] < 32 * MIB

    with many_files() as most:
        run(main(most), timeout=120)


def test_lies_about_chunks_cost_a_session_and_nothing_else() -> None:
    """Ever new transfers that begin in the middle: ten bad messages, and the end. Those who finish nothing: freed."""

    async def main() -> None:
        async with Child.spawned("--dev", "--rate-limit", "off") as child, connect(child.address, "good") as good:
            await served(good, 10)
            size = memory(child)
            for number in range(50):
                async with connect(child.address, f"bad{number}") as bad:
                    for index in range(4):
                        part = base64.b64encode(b"x" * 32_768).decode()
                        await bad.send({"type": "chunk", "id": f"t{index}", "index": 0, "total": 4_096, "data": part})
                    for index in range(20):
                        with contextlib.suppress(Exception):
                            await bad.send({"type": "chunk", "id": f"u{index}", "index": 1, "total": 2, "data": "AA=="})

                    assert (await bad.closed())[0] == 4500
            await freed(child)
            longest = await served(good, 10)

            assert longest < 0.2
            assert memory(child) - size < 8 * MIB

    run(main())


@pytest.mark.parametrize(
    "content",
    [b'"' + b"x" * 15 * MIB + b'"', b"[" + b"[]," * 5 * MIB + b"1]", b"[" * 7 * MIB + b"]" * 7 * MIB, b'"\\' * 7 * MIB],
    ids=["a string", "five million lists", "seven million deep", "no JSON"],
)
def test_sixteen_megabytes_of_anything_hold_nobody_up(content: bytes) -> None:
    """Whatever it is: it is read aside, a good client is served meanwhile, and all is freed."""

    async def main() -> None:
        whole = b'{"type":"doc","to":"nobody","volatile":true,"id":"d1","content":' + content + b"}"
        total = -(-len(whole) // 32_768)
        async with Child.spawned("--dev", "--rate-limit", "off") as child, connect(child.address, "good") as good:
            async with connect(child.address, "bad") as bad:
                for index in range(total):
                    part = base64.b64encode(whole[index * 32_768 : (index + 1) * 32_768]).decode()
                    chunk = {"type": "chunk", "id": "d1", "index": index, "total": total, "data": part}
                    await bad.send(chunk)
                answer = asyncio.ensure_future(bad.expect(id="d1"))
                longest = 0.0
                while not answer.done():
                    longest = max(longest, await served(good, 1))

                assert (await answer)["type"] in ("ack", "error")
                # One call of C over all of it is the longest.
                assert longest < 0.25
            await freed(child)

    run(main())
