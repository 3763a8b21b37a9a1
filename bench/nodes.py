"""What does it cost that there are several nodes?"""

import asyncio
import contextlib
import multiprocessing
import select
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import pairwise
from typing import cast

import uvloop
from msgspec import Raw

from client import HANDSHAKE, PATIENCE, Client, frame
from engines import Shared, shared
from harness import Bench, Budget, MeasurementError, Row, pinned, serving
from hubbub.engines.base import Accepted
from hubbub.types import Publication

CONTENT = "hubbub " * 9 + "h"
RATE = 2_000
"""Messages a second, of which the latency is measured."""
WINDOW = 1_000
"""Publications on their way into the engine at a time."""
NODES = (1, 2, 4, 8)
MEMBERS = 100
"""Of a room; half of them on each of its two nodes."""
ROOM_RATE = 20
"""Publications a second into a room."""


def ask(bench: Bench) -> Iterator[Row]:
    """By the clock from node to node, into the engine as fast as it goes, and in CPU with more and more nodes."""
    for engine in shared():
        yield from _latency(bench, engine)
        yield from _throughput(bench, engine)
        yield from _scaling(bench, engine)


# ---------------------------------------------------------------------------------------------- latency


def _latency(bench: Bench, engine: Shared) -> Iterator[Row]:
    """One user writes to another: on one node alone, and on two that share the engine, in turns."""
    alone: list[list[float]] = []
    across: list[list[float]] = []
    count = bench.size(5 * RATE, 200)
    for _ in range(1 if bench.quick else bench.rounds):
        with serving(bench.server, bench.cores[0]) as (_, port, _output), pinned(bench.cores[1]):
            alone.append(_exchange(port, port, count))
        with engine.run(bench.cores[1]) as url, contextlib.ExitStack() as nodes:
            command = [*bench.server, "--engine", url]
            ports = [nodes.enter_context(serving(command, bench.cores[0]))[1] for _ in range(2)]
            with pinned(bench.cores[1]):
                across.append(_exchange(ports[0], ports[1], count))
    for share, most in ((50, 1.0), (99, 5.0)):
        one, two = ([_percentile(times, share) for times in found] for found in (alone, across))
        added = [far - near for near, far in zip(one, two, strict=True)]
        yield Row(
            f"{engine.name}: two nodes at {RATE:,}/s, p{share} added to that of one alone",
            "ms",
            [],
            added,
            Budget(most, of="ours"),
        )


def _exchange(port: int, other: int, count: int) -> list[float]:
    """Milliseconds from when each message was due to when it was there."""
    sender, receiver = Client(port, 1), Client(other, 2)
    for client in (sender, receiver):
        client.socket.setblocking(False)
    times: list[float] = []
    sent = 0
    start = time.perf_counter()
    progress = start
    while len(times) < count:
        now = time.perf_counter()
        while sent < count and now >= start + sent / RATE:
            message = {"type": "chat", "to": "u2", "id": f"m{sent}", "content": CONTENT}
            sender.socket.sendall(frame(message))
            sent += 1
        wait = max(0.0, start + sent / RATE - time.perf_counter()) if sent < count else 1.0
        select.select([sender.socket, receiver.socket], [], [], wait)
        with contextlib.suppress(BlockingIOError):
            while len(times) < count:
                message_ = receiver.receive()
                if b'"content"' in message_:
                    times.append((time.perf_counter() - start - len(times) / RATE) * 1_000)
                    progress = time.perf_counter()
        with contextlib.suppress(BlockingIOError):
            while True:
                if b'"error"' in (answer := sender.receive()):
                    raise MeasurementError(answer.decode())
        if time.perf_counter() > progress + PATIENCE:
            raise MeasurementError("a message did not come")
    return times[count // 10 :]


def _percentile(times: Sequence[float], share: int) -> float:
    return sorted(times)[min(len(times) - 1, len(times) * share // 100)]


# ------------------------------------------------------------------------------------------- throughput


def _throughput(bench: Bench, engine: Shared) -> Iterator[Row]:
    """One node publishes, with ids, to a thousand channels, of which it listens to none or to all."""
    count = bench.size(100_000, 1_000)
    most = {"Redis": 20_000, "NATS": 15_000}[engine.name]
    for listens in (False, True):
        taken: list[float] = []
        for _ in range(1 if bench.quick else bench.rounds):
            with (
                engine.run(bench.cores[1]) as url,
                pinned(bench.cores[0]),
                ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as node,
            ):
                taken.append(node.submit(_publish, engine.name, url, count, listens).result() / count * 1e6)
        yield Row(
            f"{engine.name}: each publication of one node, pipelined"
            + (", and heard there" if listens else f" (≤ {1e6 / most:.0f} µs: {most:,}/s)"),
            "µs",
            [],
            taken,
            None if listens else Budget(1e6 / most, of="ours"),
        )


def _publish(name: str, url: str, count: int, listens: bool) -> float:
    """In a process of its own; seconds."""
    engine = next(found for found in shared() if found.name == name).make(url)

    class Ear:
        def publication(self, *_: object) -> None:
            pass

        def lost(self, channel: str) -> None:
            raise MeasurementError(f"a log was lost: {channel}")

        def gone(self, channel: str, user: str) -> None:
            pass

        def came(self, channel: str, user: str) -> None:
            pass

    async def main() -> float:
        await engine.start(Ear(), "node.1")
        channels = [f"room:{number}" for number in range(1_000)]
        if listens:
            await engine.listen(channels)
        over = asyncio.get_running_loop().create_future()
        done = 0

        def publish(number: int) -> None:
            publication = Publication("chat", "alice", room="r", content=content, id=f"m{number}", time=1)
            engine.submit(channels[number % len(channels)], publication, False, None, partial(accepted, number))

        def accepted(number: int, outcome: Accepted | Exception) -> None:
            nonlocal done
            if isinstance(outcome, Exception):
                over.set_exception(outcome)
                return
            done += 1
            if number + WINDOW < count:
                publish(number + WINDOW)
            elif done == count:
                over.set_result(None)

        content = Raw(f'"{CONTENT}"'.encode())
        start = time.perf_counter()
        for number in range(min(WINDOW, count)):
            publish(number)
        await over
        taken = time.perf_counter() - start
        await engine.stop()
        return taken

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


# ---------------------------------------------------------------------------------------------- scaling


def _scaling(bench: Bench, engine: Shared) -> Iterator[Row]:
    """As many rooms as nodes, each living on two of them; CPU of all nodes by what their members get."""
    seconds = bench.size(10, 1)
    figures: dict[int, list[float]] = {nodes: [] for nodes in NODES}
    for _ in range(1 if bench.quick else bench.rounds):
        for nodes, found in figures.items():
            with engine.run(bench.cores[1]) as url, contextlib.ExitStack() as running:
                command = [*bench.server, "--engine", url]
                servers = [running.enter_context(serving(command, bench.cores[0])) for _ in range(nodes)]
                with pinned(bench.cores[1]):
                    crowd = _Crowd([port for _, port, _ in servers])
                    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                        found.append(runner.run(crowd.measure([pid for pid, _, _ in servers], seconds)))
    base = figures[2]
    for nodes, found in figures.items():
        yield Row(
            f"{engine.name}: rooms of {MEMBERS} on two of {nodes} nodes, CPU each delivery (floor: of 2)"
            if nodes > 1
            else f"{engine.name}: rooms of {MEMBERS} on one node (floor: on two)",
            "µs",
            base,
            found,
            Budget(1.15) if nodes > 1 else None,
        )


class _Crowd:
    """Members of rooms on several nodes."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = ports
        self.expected = 0
        self.delivered = 0
        self.changed = asyncio.Event()

    async def measure(self, pids: Sequence[int], seconds: int) -> float:
        """CPU of all nodes in microseconds for each message that a member got."""
        loop = asyncio.get_running_loop()
        pairs = list(pairwise((*self._ports, self._ports[0])))
        senders: list[asyncio.Transport] = []
        members: list[_Member] = []
        for number in range(len(pairs)):
            room = f"room-{number}"
            for place in range(MEMBERS):
                port = pairs[number][place % 2]
                member = _Member(self, len(members), room)
                transport, _ = await loop.create_connection(partial(_same, member), "127.0.0.1", port)
                await asyncio.wait_for(member.joined, PATIENCE)
                members.append(member)
                if place < 2:
                    senders.append(transport)
        # Once unmeasured: everything has run then.
        for measured in (False, True):
            before, self.delivered = sum(map(_cpu, pids)), 0
            start, sent = loop.time(), 0
            count = (seconds if measured else 1) * ROOM_RATE * len(pairs)
            while sent < count:
                due = min(count, int((loop.time() - start) * ROOM_RATE * len(pairs)))
                for turn in range(sent, due):
                    # Of each room now the one, now the other of two members, who are on its two nodes.
                    place, side = turn % len(pairs), turn // len(pairs) % 2
                    message = {"type": "chat", "room": f"room-{place}", "id": f"m{measured}{turn}", "content": CONTENT}
                    senders[2 * place + side].write(frame(message))
                sent = due
                await asyncio.sleep(0.001)
            async with asyncio.timeout(PATIENCE):
                while self.delivered < count * MEMBERS:
                    self.changed.clear()
                    await self.changed.wait()
            if self.delivered != count * MEMBERS:
                raise MeasurementError(f"{self.delivered} messages came where {count * MEMBERS} were due")
        taken = sum(map(_cpu, pids)) - before
        for member in members:
            member.transport.abort()
        return taken / self.delivered * 1e6


def _same(member: "_Member") -> "_Member":
    return member


class _Member(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, crowd: _Crowd, number: int, room: str) -> None:
        self._crowd = crowd
        self._hello = HANDSHAKE.format(number=number).encode() + frame({"type": "hello"})
        self._join = frame({"type": "join", "room": room})
        self._data = bytearray()
        self.joined: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop has a class of its own.
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._hello + self._join)

    def data_received(self, data: bytes) -> None:
        held = self._data
        held += data
        if not self.joined.done():
            if b'"joined"' in held and held.endswith(b"}"):
                self.joined.set_result(None)
                held.clear()
            return
        crowd = self._crowd
        while len(held) >= 2:
            size = held[1]
            head = 2
            if size == 126:
                head, size = 4, int.from_bytes(held[2:4])
            if len(held) < head + size:
                break
            message = bytes(held[head : head + size])
            del held[: head + size]
            if b'"error"' in message:
                raise MeasurementError(message.decode())
            if b'"content"' in message:
                crowd.delivered += 1
                crowd.changed.set()


def _cpu(pid: int) -> float:
    """Seconds of CPU of all threads of a process, from its CPU clock (see clock_getcpuclockid)."""
    return time.clock_gettime(~pid << 3 | 2)
