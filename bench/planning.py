"""What are the figures that `hubbub plan` counts with, as far as no other question asks for them?

In the column of the floor stands what one of its deliveries takes: on a busy machine everything takes longer, and the
ratio is what holds.
"""

import asyncio
import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import uvloop

from client import HANDSHAKE, PATIENCE, Client, frame
from engines import Shared, shared
from harness import BUILD, Bench, MeasurementError, Row, pinned, serving

CONTENT = "hubbub " * 9 + "h"
ROOM = 30
"""Sessions that come into one room."""
COMING = 64
"""Sessions that are coming at a time."""
ROOMS = 64
"""Rooms that are published to."""
WINDOW = 400
"""Publications on their way at a time."""
NODES = (1, 2, 4)

# Nobody is pinged, nobody hears who comes, and a session that has gone is gone.
OPTIONS = (
    *("--no-presence-events", "--presence-grace", "0", "--connections-per-user", "0"),
    *("--ping-interval", "3600", "--silence-limit", "7200", "--envelope-ping-interval", "3600"),
)


def ask(bench: Bench) -> Iterator[Row]:
    """Processes, sessions and publications, on one node alone and on nodes that share an engine."""
    yield from _sessions(bench, None)
    yield from _refusals(bench)
    for engine in shared():
        yield from _sessions(bench, engine)
        yield from _publications(bench, engine)


class _Process:
    """What a process of ours has used since it was looked at first."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._cpu, self.resident = self._look()

    def _look(self) -> tuple[float, float]:
        lines = Path(f"/proc/{self._pid}/smaps_rollup").read_text().splitlines()
        resident = next(float(line.split()[1]) for line in lines if line.startswith("Rss:"))
        # The CPU clock of all of its threads (see clock_getcpuclockid).
        return time.clock_gettime(~self._pid << 3 | 2), resident

    def used(self, count: int) -> tuple[float, float]:
        """Microseconds of CPU and KiB of memory for each of `count`."""
        cpu, resident = self._look()
        return (cpu - self._cpu) / count * 1e6, (resident - self.resident) / count


@contextlib.contextmanager
def _nodes(bench: Bench, engine: Shared | None, count: int) -> Iterator[tuple[list[int], list[int], int | None]]:
    """So many nodes: their pids, their ports, and the pid of the engine's server."""
    with contextlib.ExitStack() as stack:
        command, server = [*bench.server, *OPTIONS], None
        if engine is not None:
            before = _children()
            command += ["--engine", stack.enter_context(engine.run(bench.cores[1]))]
            (server,) = _children() - before
        found = [stack.enter_context(serving(command, bench.cores[0])) for _ in range(count)]
        yield [pid for pid, _, _ in found], [port for _, port, _ in found], server


def _floor(bench: Bench) -> float:
    """CPU in µs of a delivery of the floor, now."""
    messages = bench.size(100, 10)
    found = bench.measure([str(BUILD / "floor"), "fanout"], "fanout", connections=1_000, messages=messages)
    return float(found["cpu_us"])


def _slab() -> float:
    """KiB that the kernel has for its own objects, such as sockets."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("Slab:"))


def _children() -> set[int]:
    return {int(pid) for pid in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()}


# ------------------------------------------------------------------------------------------------ sessions


def _sessions(bench: Bench, engine: Shared | None) -> Iterator[Row]:
    """Full sessions come, once into no room and once into one each."""
    count = bench.size(5_000, 100)
    where = "one node alone" if engine is None else engine.name
    for rooms in (0, 1):
        node: list[tuple[float, float]] = []
        server: list[tuple[float, float]] = []
        empty: list[float] = []
        kernel: list[float] = []
        floor: list[float] = []
        for _ in range(1 if bench.quick else bench.rounds):
            floor.append(_floor(bench))
            with _nodes(bench, engine, 1) as (pids, ports, engine_pid):
                running = _Process(pids[0])
                shared_ = _Process(engine_pid) if engine_pid is not None else None
                empty.append(running.resident / 1024)
                slab = _slab()
                with pinned(bench.cores[1]), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                    clients = runner.run(_come(ports[0], count, rooms))
                    node.append(running.used(count))
                    # A connection of the server's, and one of the client's.
                    kernel.append((_slab() - slab) / count / 2)
                    if shared_ is not None:
                        server.append(shared_.used(count))
                    for client in clients:
                        client.transport.abort()
        what = f"{where}: a session comes into {'a room' if rooms else 'no room'}"
        if not rooms:
            yield Row(f"{where}: a process without sessions", "MiB", [], empty)
            yield Row(f"{where}: a connection, in the kernel", "KiB", [], kernel)
        yield Row(what, "µs", floor, [cpu for cpu, _ in node])
        yield Row(what, "KiB", [], [memory for _, memory in node])
        if server:
            yield Row(f"{what}, in the engine", "µs", floor, [cpu for cpu, _ in server])
            yield Row(f"{what}, in the engine", "KiB", [], [memory for _, memory in server])


async def _come(port: int, count: int, rooms: int) -> list["_Client"]:
    """So many clients, each of which is in `rooms` rooms."""
    places = asyncio.Semaphore(COMING)
    loop = asyncio.get_running_loop()

    async def come(number: int) -> _Client:
        async with places:
            client = _Client(number, [f"r{number // ROOM}-{room}" for room in range(rooms)])
            await loop.create_connection(lambda: client, "127.0.0.1", port)
            await asyncio.wait_for(client.there, PATIENCE)
            return client

    return await asyncio.gather(*map(come, range(count)))


class _Client(asyncio.Protocol):
    """A full session that counts what it hears, and publishes the next message when one is acknowledged."""

    transport: asyncio.Transport

    def __init__(self, number: int, rooms: list[str]) -> None:
        self._number = number
        self._rooms = rooms
        loop = asyncio.get_running_loop()
        # Until it is where it wants to be: after `welcome`, and `joined` for each room.
        self.there: asyncio.Future[None] = loop.create_future()
        # Until all that it publishes is acknowledged.
        self.done: asyncio.Future[None] = loop.create_future()
        self.heard = 0
        self._data = bytearray()
        self._shaken = False
        self._missing = 1 + len(rooms)
        self._due = self._sent = self._acknowledged = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop has a class of its own.
        self.transport = cast(asyncio.Transport, transport)
        joins = b"".join(frame({"type": "join", "room": room}) for room in self._rooms)
        self.transport.write(HANDSHAKE.format(number=self._number).encode() + frame({"type": "hello"}) + joins)

    def data_received(self, data: bytes) -> None:
        self._data += data
        if not self._shaken:
            head, end, rest = bytes(self._data).partition(b"\r\n\r\n")
            if not end:
                return
            if b" 101 " not in head:
                raise MeasurementError("the server refused a handshake")
            self._data, self._shaken = bytearray(rest), True
        before = self._acknowledged
        for message in _messages(self._data):
            self._take(message)
        self._send(self._acknowledged - before)
        if self._acknowledged == self._due and not self.done.done():
            self.done.set_result(None)

    def publish(self, count: int, window: int) -> None:
        """Publish so many messages, `window` of them on their way."""
        self._due += count
        self.done = asyncio.get_running_loop().create_future()
        self._send(window)

    def _send(self, count: int) -> None:
        frames = []
        for number in range(self._sent, min(self._sent + count, self._due)):
            message = {"type": "chat", "room": self._rooms[number % len(self._rooms)], "content": CONTENT}
            # Without an echo: its `ack` stands for it.
            frames.append(frame({**message, "id": f"{self._number}-{number}", "echo": False}))
        self._sent += len(frames)
        self.transport.write(b"".join(frames))

    def _take(self, message: bytes) -> None:
        type_ = json.loads(message)["type"]
        if type_ == "chat":
            self.heard += 1
        elif type_ == "ack":
            self._acknowledged += 1
        elif type_ in ("welcome", "joined"):
            self._missing -= 1
            if not self._missing:
                self.there.set_result(None)
        elif type_ == "error":
            raise MeasurementError(message.decode())


def _messages(data: bytearray) -> Iterator[bytes]:
    """Take the whole messages out of what has come."""
    while len(data) >= 2:
        head, size = 2, data[1]
        if size in (126, 127):
            head = 4 if size == 126 else 10
            size = int.from_bytes(data[2:head])
        if len(data) < head + size:
            return
        yield bytes(data[head : head + size])
        del data[: head + size]


def _refusals(bench: Bench) -> Iterator[Row]:
    """Handshakes that are refused because there is no place."""
    count = bench.size(5_000, 100)
    floor, refused = [], []
    for _ in range(1 if bench.quick else bench.rounds):
        floor.append(_floor(bench))
        with serving([*bench.server, "--connections", "1"], bench.cores[0]) as (pid, port, _), pinned(bench.cores[1]):
            only = Client(port, 0)
            running = _Process(pid)
            for number in range(count):
                with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
                    client.sendall(HANDSHAKE.format(number=number).encode())
                    if b" 503 " not in client.recv(4_096):
                        raise MeasurementError("a handshake was not refused")
            refused.append(running.used(count)[0])
            only.socket.close()
    yield Row("one node alone: a handshake is refused", "µs", floor, refused)


# ------------------------------------------------------------------------------------------- publications


def _publications(bench: Bench, engine: Shared) -> Iterator[Row]:
    """All on one node, into rooms that have a member on one node, on two and on four."""
    count = bench.size(40_000, 640)
    for nodes in NODES:
        here: list[float] = []
        there: list[float] = []
        server: list[tuple[float, float]] = []
        floor: list[float] = []
        for _ in range(1 if bench.quick else bench.rounds):
            floor.append(_floor(bench))
            with _nodes(bench, engine, nodes) as (pids, ports, engine_pid):
                assert engine_pid is not None
                with pinned(bench.cores[1]), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                    used = runner.run(_publish(ports, [*pids, engine_pid], count))
            here.append(used[0][0])
            there.append(sum(cpu for cpu, _ in used[1:-1]) / max(1, nodes - 1))
            server.append(used[-1])
        what = f"{engine.name}: a publication into a room on {nodes} node{'s' * (nodes > 1)}"
        yield Row(f"{what}, where it is published", "µs", floor, here)
        if nodes > 1:
            yield Row(f"{what}, on each of the others", "µs", floor, there)
        yield Row(f"{what}, in the engine", "µs", floor, [cpu for cpu, _ in server])
        if nodes == 1:
            yield Row(f"{engine.name}: a message that is kept, in the engine", "KiB", [], [kept for _, kept in server])


async def _publish(ports: list[int], pids: list[int], count: int) -> list[tuple[float, float]]:
    """CPU and memory of each process for each publication."""
    loop = asyncio.get_running_loop()
    rooms = [f"r{number}" for number in range(ROOMS)]
    clients = [_Client(number, rooms) for number in range(len(ports))]
    for client, port in zip(clients, ports, strict=True):
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)  # type: ignore[misc]  # mypy knows no default of a lambda
        await asyncio.wait_for(client.there, PATIENCE)
    # Once unmeasured: everything has run then.
    for due in (count // 10, count):
        processes = [_Process(pid) for pid in pids]
        for client in clients:
            client.heard = 0
        clients[0].publish(due, WINDOW)
        await clients[0].done
        while any(client.heard < due for client in clients[1:]):
            await asyncio.sleep(0.01)
    used = [process.used(count) for process in processes]
    for client in clients:
        client.transport.abort()
    return used
