"""Do eight processes on one port take a hundred thousand connections, and does one broadcast reach them all?"""

import multiprocessing
import re
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path

from client import HANDSHAKE, PATIENCE, Client, frame
from engines import shared
from harness import Bench, MeasurementError, Row, serving

WORKERS = 8
# Of one process: 20,000 files are what many systems allow it.
MOST = 12_500
# Connections that a process is making at a time.
SHAKING = 64
MARK = b'"mark-%d"'
MARKS = re.compile(rb'"mark-\d"')
BROADCASTS = 5
# Seconds within which a message would have come again.
SETTLED = 0.5


def ask(bench: Bench) -> Iterator[Row]:
    """As many processes of clients as workers, all on the cores there are; by the clock.

    Each client has its welcome before the first broadcast: from then on it is told everything.
    """
    each = bench.size(MOST, 50)
    for engine in shared():
        with ExitStack() as stack:
            url = stack.enter_context(engine.run(None))
            # Ports are given by the kernel, and not evenly. Nobody is pinged while others are still coming.
            further = ("--connections", "1000000", "--envelope-ping-interval", "3600")
            command = [*bench.server, *further, "--workers", str(WORKERS), "--engine", url]
            pid, port, _ = stack.enter_context(serving(command, None))
            crowds = [stack.enter_context(_Crowd(port, number, each)) for number in range(WORKERS)]
            start = time.perf_counter()
            for crowd in crowds:
                crowd.ask("ready")
            taken = time.perf_counter() - start
            resident = sum(map(_resident, _family(pid))) / (WORKERS * each)
            sender = Client(port, WORKERS * each)
            times = []
            for number in range(BROADCASTS):
                for crowd in crowds:
                    crowd.go()
                sent = time.perf_counter()
                sender.socket.sendall(frame({"type": "chat", "content": f"mark-{number}"}))
                times.append((max(crowd.ask("heard") for crowd in crowds) - sent) * 1_000)
            for crowd in crowds:
                # What is doubled comes after what was due.
                crowd.ask("exactly once")
        of = f"{engine.name}: {WORKERS} workers, {WORKERS * each:,} connections"
        yield Row(f"{of}: the last has a broadcast within", "ms", [], times)
        yield Row(f"{of}: each takes in memory of the workers", "KiB", [], [resident])
        yield Row(f"{of}: each is welcome, by the clock", "µs", [], [taken / WORKERS / each * 1e6])


class _Crowd:
    """A process full of clients."""

    def __init__(self, port: int, number: int, count: int) -> None:
        ours, theirs = multiprocessing.Pipe()
        self._pipe = ours
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=_run, args=(theirs, port, number, count), daemon=True)

    def __enter__(self) -> "_Crowd":
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()

    def go(self) -> None:
        """Let it begin with what comes next."""
        self._pipe.send(None)

    def ask(self, what: str) -> float:
        """When it was so; raises `MeasurementError` where it is not."""
        if not self._pipe.poll(600):
            raise MeasurementError(f"a process of clients says nothing: {what}")
        said, answer = self._pipe.recv()
        if said != what:
            raise MeasurementError(answer)
        return float(answer)


def _run(pipe: Connection, port: int, number: int, count: int) -> None:
    try:
        clients = _connect(port, number, count)
        pipe.send(("ready", time.perf_counter()))
        for mark in range(BROADCASTS):
            pipe.recv()
            pipe.send(("heard", _hear(clients, MARK % mark, PATIENCE)))
        _hear(clients, MARK % (BROADCASTS - 1), 0.0)
        pipe.send(("exactly once", time.perf_counter()))
        # Until it is ended: who closes now would be in the way of others.
        pipe.poll(None)
    except (MeasurementError, OSError) as error:
        pipe.send(("failed", str(error)))


class _Clients:
    def __init__(self) -> None:
        self.poll = select.epoll()
        self.sockets: dict[int, socket.socket] = {}
        # What has come of a message that is not whole.
        self.begun: dict[int, bytes] = {}


def _connect(port: int, number: int, count: int) -> _Clients:
    """All clients of a process, each welcome; from an address of its own, which has ports for so many."""
    clients, shaking, made = _Clients(), dict[int, bytes](), 0
    deadline = time.monotonic() + 600
    while made < count or shaking:
        while made < count and len(shaking) < SHAKING:
            client = socket.create_connection(("127.0.0.1", port), PATIENCE, (f"127.0.0.{number + 2}", 0))
            client.setblocking(False)
            client.send(HANDSHAKE.format(number=number * count + made).encode() + frame({"type": "hello"}))
            clients.sockets[client.fileno()] = client
            clients.poll.register(client, select.EPOLLIN)
            shaking[client.fileno()] = b""
            made += 1
        for found, _ in clients.poll.poll(1.0):
            data = clients.sockets[found].recv(4_096)
            if found not in shaking:
                raise MeasurementError(f"{data!r} came before anything was said")
            shaking[found] += data
            if b'"welcome"' in shaking[found] and shaking[found].endswith(b"}"):
                del shaking[found]
            elif not data:
                raise MeasurementError("the server refused a handshake, or closed a connection")
        if time.monotonic() > deadline:
            raise MeasurementError("the handshakes take too long")
    return clients


def _hear(clients: _Clients, mark: bytes, patience: float) -> float:
    """Wait until each has the message, once; when the last had it. Without patience: see that nobody has it again."""
    missing = set(clients.sockets) if patience else set()
    last, deadline = 0.0, time.monotonic() + patience
    while missing or not patience:
        events = clients.poll.poll(min(1.0, patience) if patience else SETTLED)
        if not events and (not patience or time.monotonic() > deadline):
            break
        for found, _ in events:
            data = clients.begun.pop(found, b"") + clients.sockets[found].recv(65_536)
            last = time.perf_counter()
            marks = MARKS.findall(data)
            if not marks:
                clients.begun[found] = data
            elif found not in missing or marks != [mark]:
                raise MeasurementError("a message came twice")
            else:
                missing.discard(found)
            if not data:
                raise MeasurementError("the server closed a connection")
    if missing:
        raise MeasurementError(f"{len(missing)} of {len(clients.sockets)} did not get a broadcast")
    return last


def _family(pid: int) -> Iterator[int]:
    """The processes that a process has started, and those."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield int(child)
            yield from _family(int(child))


def _resident(pid: int) -> float:
    """KiB of memory of a process of ours; 0 for any other."""
    if "python" not in Path(f"/proc/{pid}/comm").read_text():
        return 0.0
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("Pss:"))
