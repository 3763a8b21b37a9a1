"""Attacks that others have fallen to, with what each may cost us in time and memory.

The server is a process of its own, so that its CPU time and memory can be told from ours.
"""

from __future__ import annotations

import contextlib
import resource
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.transports.harness import (
    CONTINUATION,
    PONG,
    TEXT,
    frame,
    handshake,
)

pytestmark = pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="measures with Linux's /proc")

PATIENCE = 20.0
MIB = 1 << 20


class Attacked:
    """A running server and what it has used."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process = process
        self.number = int(process.stdout.readline())
        # The first connection loads code and fills caches; it is not to be counted.
        with self.websocket() as sock:
            sock.sendall(frame(TEXT, b"x"))
            assert read_until_close(sock, most=3) == b"\x81\x01x"

    @property
    def cpu(self) -> float:
        """Seconds of CPU that the server's main thread has used."""
        return int(Path(f"/proc/{self.process.pid}/schedstat").read_text().split()[0]) / 1e9

    @property
    def memory(self) -> int:
        """Bytes of memory that the server holds."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * resource.getpagesize()

    @property
    def files(self) -> int:
        """Open files, sockets included."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def connect(self) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.number), timeout=PATIENCE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def websocket(self, *lines: str) -> socket.socket:
        """An open WebSocket; `lines` are further headers of its handshake."""
        with contextlib.ExitStack() as cleanup:
            sock = cleanup.enter_context(self.connect())
            sock.sendall(handshake("/ws", *lines))
            head = b""
            while not head.endswith(b"\r\n\r\n") and (data := sock.recv(4_096)):
                head += data

            assert head.startswith(b"HTTP/1.1 101 ")
            cleanup.pop_all()
        return sock

    def is_well(self) -> None:
        """It still serves."""
        with self.websocket() as sock:
            sock.sendall(frame(TEXT, b"well"))
            assert read_until_close(sock, most=6) == b"\x81\x04well"

    def settle(self, files: int) -> None:
        """Wait until the server has closed what the attack opened."""
        deadline = time.monotonic() + PATIENCE
        while self.files > files:
            assert time.monotonic() < deadline
            select.select([], [], [], 0.01)


@contextlib.contextmanager
def _attacked(loop: str, files: int | None = None) -> Iterator[Attacked]:
    limit = None if files is None else lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("attacked.py")), loop],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=limit,
    )
    try:
        yield Attacked(process)
        rest, _ = process.communicate(timeout=PATIENCE)

        # No task but the server's own.
        assert rest == "1\n"
        assert process.returncode == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


@contextlib.contextmanager
def _many_files() -> Iterator[int]:
    """Raise the limit of open files, for this process and its children: how many connections that allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield hard - 500
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(params=["uvloop", "asyncio"])
def attacked(request: pytest.FixtureRequest) -> Iterator[Attacked]:
    with _attacked(request.param) as server:
        yield server


def read_until_close(sock: socket.socket, most: int = MIB) -> bytes:
    """What comes until the connection ends (a reset is an end), or until there is enough."""
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while len(got) < most and (data := sock.recv(most - len(got))):
            got += data
    return got


def flood(sock: socket.socket, block: bytes, times: int) -> int:
    """Send `block` up to so many times, until the server cuts the connection; how often it went."""
    for count in range(times):
        try:
            sock.sendall(block)
        except (BrokenPipeError, ConnectionResetError):
            return count
    return times


@pytest.mark.alone
@pytest.mark.parametrize("rsv", [0, 4], ids=["plain", "compressed"])
@pytest.mark.parametrize(
    ("fragment", "count"),
    [
        pytest.param(frame(CONTINUATION, b"x" * 1_000, fin=False), 1_000_000, id="1 KB each"),
        pytest.param(frame(CONTINUATION, b"", fin=False), 1_000_000, id="empty"),
        pytest.param(frame(PONG, b""), 100_000, id="unsolicited pongs"),
        pytest.param(frame(PONG, b"x" * 125), 100_000, id="long unsolicited pongs"),
    ],
)
def test_endless_streams_end_at_the_limits(attacked: Attacked, fragment: bytes, count: int, rsv: int) -> None:
    """10^6 fragments without an end, 10^5 pongs that nobody asked for: at most 50 ms of CPU, no memory."""
    block = fragment * max(1, 65_536 // len(fragment))
    files, cpu, memory = attacked.files, attacked.cpu, attacked.memory
    with attacked.websocket("Sec-WebSocket-Extensions: permessage-deflate") as sock:
        sock.sendall(frame(TEXT, b"begin", fin=False, rsv=rsv))
        flood(sock, block, count * len(fragment) // len(block))
        # By the server: this end is still open.
        attacked.settle(files)

    assert attacked.cpu - cpu <= 0.050
    assert attacked.memory - memory < MIB
    attacked.is_well()


@pytest.mark.alone
def test_a_broken_stream_costs_nothing_more(attacked: Attacked) -> None:
    """Framing that makes no sense, again and again: read as nonsense once."""
    files, cpu, memory = attacked.files, attacked.cpu, attacked.memory
    for _ in range(10):
        with attacked.websocket() as sock:
            flood(sock, frame(3) * 10_000, 10_000)
            attacked.settle(files)

    assert attacked.cpu - cpu <= 0.150
    assert attacked.memory - memory < 2 * MIB
    attacked.is_well()


@pytest.mark.parametrize("length", [2**63 - 1, 2**63, 2**64 - 1, 1 << 40, 65_537, 65_535, 126, 125, 0])
def test_a_length_is_refused_before_memory_is_taken(attacked: Attacked, length: int) -> None:
    """Lengths of 64 bits: too much, impossible, or what should have been said in fewer (RFC 6455 §5.2)."""
    files, memory = attacked.files, attacked.memory
    with attacked.websocket() as sock:
        sock.sendall(b"\x82\xff" + length.to_bytes(8))
        code = int.from_bytes(read_until_close(sock)[2:4])
        attacked.settle(files)

    assert code == (1009 if 65_536 <= length < 2**63 else 1002)
    assert attacked.memory - memory < MIB


@pytest.mark.alone
@pytest.mark.parametrize(
    "head",
    [
        pytest.param(handshake("/ws", *["X: a"] * 2_000), id="2000 headers"),
        pytest.param(handshake("/ws", "X: " + "a" * MIB), id="1 MiB header"),
        pytest.param(handshake("/" + "a" * MIB), id="1 MiB path"),
        pytest.param(b"\0" * MIB, id="1 MiB of NUL"),
        pytest.param(b"a" * MIB, id="1 MiB of a word"),
        pytest.param(handshake("/ws", "X: a\0b"), id="NUL"),
        pytest.param(handshake("/ws", "X: a\nY: b"), id="bare LF"),
        pytest.param(handshake("/ws", "X: a", " folded"), id="obs-fold"),
        pytest.param(handshake("/ws", "X: \xe9"), id="0x80 and beyond"),
    ],
)
def test_a_flood_of_headers_is_refused(attacked: Attacked, head: bytes) -> None:
    """Too many, too long, or with what no header has; twenty times in a row, without memory and with little work."""
    files, cpu, memory = attacked.files, attacked.cpu, attacked.memory
    for _ in range(20):
        with attacked.connect() as sock:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                sock.sendall(head)
            answer = read_until_close(sock)

        assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 431 "))
    attacked.settle(files)

    assert attacked.cpu - cpu <= 0.100
    assert attacked.memory - memory < MIB
    attacked.is_well()


@pytest.mark.alone
@pytest.mark.parametrize("pause", [0.0, 100e-6], ids=["fast", "paced"])
def test_a_dribbled_head_costs_little(attacked: Attacked, pause: float) -> None:
    """16 KiB, one byte a write: at most 50 ms, whether the bytes meet in the socket or each wakes the server."""
    cpu = attacked.cpu
    with attacked.connect() as sock:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for byte in b"GET /ws HTTP/1.1\r\nX: ".ljust(16_384 + 4, b"a"):
                sock.send(bytes((byte,)))
                until = time.perf_counter() + pause
                while time.perf_counter() < until:
                    pass
        answer = read_until_close(sock)

    assert attacked.cpu - cpu <= 0.050
    # A reset may have overtaken the answer.
    assert answer == b"" or answer.startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 "))
    attacked.is_well()


@pytest.mark.alone
def test_slow_strangers_do_not_delay_a_good_client() -> None:
    """Slow-loris: 5,000 connections, a byte a second each; a good client is served at once, they are gone in 6 s."""
    strangers: list[socket.socket] = []
    with _many_files() as most, _attacked("uvloop") as server:
        try:
            files, memory = server.files, server.memory
            crowd = min(5_000, most)
            while len(strangers) < crowd:
                strangers.append(server.connect())
            started = time.monotonic()
            waits: list[float] = []
            head = handshake()
            for second in range(4):
                due = time.monotonic() + 1
                for sock in strangers:
                    sock.send(head[second : second + 1])
                    if len(waits) < 50 * (second + 1) and time.monotonic() < due:
                        before = time.perf_counter()
                        server.is_well()
                        waits.append(time.perf_counter() - before)
                select.select([], [], [], max(0.0, due - time.monotonic()))
            server.settle(files)
            gone = time.monotonic() - started

            # 5 s from the first of them, and a turn of the wheel.
            assert gone < 6.5
            assert sorted(waits)[int(len(waits) * 0.99)] < 0.050
            assert (server.memory - memory) / crowd < 4_096
        finally:
            for sock in strangers:
                sock.close()


@pytest.mark.alone
def test_an_idle_connection_is_small() -> None:
    """10,000 of them, each having sent a message: at most 7 KiB apiece, which leaves 2 KiB for the hub."""
    crowd: list[socket.socket] = []
    with _many_files() as most, _attacked("uvloop") as server:
        try:
            number = min(10_000, most)
            files, memory = server.files, server.memory
            while len(crowd) < number:
                crowd.append(server.websocket())
            for sock in crowd:
                sock.sendall(frame(TEXT, b"hello"))
            for sock in crowd:
                sock.recv(99)

            assert (server.memory - memory) / number <= 7 * 1_024
        finally:
            for sock in crowd:
                sock.close()
        server.settle(files)


@pytest.mark.alone
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_no_files_left_is_not_the_end(loop: str) -> None:
    """More connections than the server may have files: the rest is turned away, and it goes on when some leave."""
    with _attacked(loop, files=64) as server:
        crowd = [socket.create_connection(("127.0.0.1", server.number), timeout=PATIENCE) for _ in range(200)]
        for sock in crowd:
            sock.close()
        deadline = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError, AssertionError):
                server.is_well()
                break

            assert time.monotonic() < deadline
