"""What do ten thousand who are in notice of thousands more who want to come in?"""

import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import (
    BUILD,
    CONTENT,
    LOAD_WITHIN,
    PATH,
    Bench,
    Budget,
    MeasurementError,
    Result,
    Row,
    figures,
    pinned,
    serving,
    tail,
)

TESTS = Path(__file__).resolve().parents[1] / "tests"

# All of the load are in one room, and what one of them says there goes to all of the load.
JOIN = '{"type":"join","room":"busy"}'
TO_THE_ROOM = '{"type":"chat","room":"busy","content":"' + CONTENT + '"}'

# Messages a second, by the clock: the server is busy for about a third of the time. In a closed loop a crowded core of
# the clients would send less, and the storm would seem to make everything quicker.
RATE = 100

# How many want to come in each second.
ATTEMPTS = 500

# As many at a time, each waiting for its answer.
PROCESSES = 4

FULL_WITHIN = 30.0  # seconds; for all of the load to be let in

# The limits that hold others back must not hold these back, nobody here answers pings, and who comes is no news.
OPTIONS = (
    *("--rate-limit", "off", "--connections-per-user", "0", "--no-presence-events"),
    *("--ping-interval", "3600", "--silence-limit", "7200"),
)


def ask(bench: Bench) -> Iterator[Row]:
    """The same load without the storm and with it, in turns, on one server that has no place left.

    A thousand of those who are in keep it busy; they are let in again for each turn.
    """
    room, busy = bench.size(10_000, 60), bench.size(1_000, 20)
    command = [*bench.server, *OPTIONS, "--connections", str(room)]
    quiet: list[Result] = []
    stormy: list[Result] = []
    refused = 0
    with serving(command, bench.cores[0]) as (pid, port, output), crowd(bench, port) as come:
        try:
            if come(room - busy, 0) != {"in": room - busy, "refused": 0}:
                raise MeasurementError("not all came in")
            for _ in range(1 if bench.quick else bench.rounds):
                quiet.append(load(bench, pid, port, busy))
                found: dict[str, int] = {}
                storm = threading.Thread(target=rush, args=(port, room, come, found))
                storm.start()
                stormy.append(load(bench, pid, port, busy))
                storm.join()
                # The last of each process finds a place of those who have gone.
                if found.keys() != {"in", "refused"} or found["in"] != PROCESSES:
                    raise MeasurementError(f"not all were refused: {found}")
                refused += found["refused"]
        except MeasurementError as error:
            raise MeasurementError(f"{error}\n{tail(output)}".rstrip()) from None
    for name, share, budget in (("half", "p50", None), ("99 %", "p99", Budget(1.2))):
        yield Row(
            f"{room:,} in and {refused:,} refused, {ATTEMPTS}/s: {name} of the deliveries within",
            "ms",
            figures(quiet, "latency_ms", share),
            figures(stormy, "latency_ms", share),
            budget,
        )


def load(bench: Bench, pid: int, port: int, connections: int) -> Result:
    """Messages to a room by the clock, as `Bench.measure` has them, on a server that is there already."""
    command = [str(BUILD / "load"), "fanout", "--path", PATH, "--pid", str(pid), "--port", str(port)]
    command += ["--connections", str(connections), "--rate", str(RATE), "--greeting", JOIN, "--text", TO_THE_ROOM]
    command += ["--warmup", str(bench.size(50, 8)), "--messages", str(bench.size(500, 100))]
    with pinned(bench.cores[1]):
        done = subprocess.run(command, capture_output=True, text=True, timeout=LOAD_WITHIN, check=False)
    if done.returncode:
        raise MeasurementError(done.stderr.strip())
    result: Result = json.loads(done.stdout)
    return result


Come = Callable[[int, int], dict[str, int]]


def rush(port: int, room: int, come: Come, found: dict[str, int]) -> None:
    """Once there is no place left, come and come again until there is one."""
    wanted = f"websocket_active_connections {room:.1f}"
    deadline = time.monotonic() + FULL_WITHIN
    while time.monotonic() < deadline:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            if wanted in answer.read().decode().splitlines():
                found.update(come(0, ATTEMPTS))
                return
        time.sleep(0.05)


@contextmanager
def crowd(bench: Bench, port: int) -> Iterator[Come]:
    """Clients in processes of their own: a function that lets some come, and says what became of them."""
    program = [sys.executable, str(TESTS / "integration" / "storming.py"), "127.0.0.1", str(port)]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    with pinned(bench.cores[1]):
        processes = [
            subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
            for _ in range(PROCESSES)
        ]

    def come(count: int, per_second: int) -> dict[str, int]:
        found: Counter[str] = Counter({"in": 0, "refused": 0})
        for process in processes:
            print(count // PROCESSES, per_second // PROCESSES, file=process.stdin, flush=True)
        for process in processes:
            assert process.stdout is not None
            found.update(json.loads(process.stdout.readline()))
        return dict(found)

    try:
        yield come
    finally:
        for process in processes:
            process.kill()
            process.communicate()
