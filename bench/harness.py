"""Starts a server, lets the load generator at it, and puts the figures of floor and ours side by side."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

HERE = Path(__file__).parent
BUILD = HERE / "build"

# 64 characters of content. %m is the mark by which the load generator knows its messages again.
CONTENT = "%m" + "hubbub " * 7 + "hubbu"
PATH = "/ws?user_id=u%d"

# Each message is looked at, and none is refused; all connections come from one address.
RATES = (
    "--rate-limit",
    "1000000/s",
    "--handshake-rate-ip",
    "off",
    "--handshake-rate",
    "off",
    "--connections-opening",
    "0",
)
SERVE = (sys.executable, "-m", "hubbub", "serve", "--dev", "--port", "0", *RATES)

READY = re.compile(r"ready on http://[^\s:]+:(\d+)")
READY_WITHIN = 30.0  # seconds
LOAD_WITHIN = 600.0  # seconds; the load generator itself gives up after 10 s without progress

Result = dict[str, Any]


class MeasurementError(Exception):
    """A figure that cannot be given: something did not start, or a message was lost, doubled or late."""


@dataclass(frozen=True)
class Budget:
    """The most that a figure may be, either ours itself or its ratio to the floor's."""

    most: float
    of: Literal["ratio", "ours"] = "ratio"


@dataclass(frozen=True)
class Row:
    """One line of the table: what the floor took and what ours took, one figure per round, in the same order.

    `floor` is empty where the floor has nothing to compare: memory, since it keeps nothing.
    """

    question: str
    unit: str
    floor: Sequence[float]
    ours: Sequence[float]
    budget: Budget | None = None

    @property
    def ratio(self) -> float | None:
        """Ours by the floor's, of the medians."""
        return median(self.ours) / median(self.floor) if self.floor else None

    @property
    def spread(self) -> tuple[float, float] | None:
        """The smallest and the largest ratio that one round alone would have given."""
        if len(self.floor) < 2:
            return None
        ratios = [ours / floor for ours, floor in zip(self.ours, self.floor, strict=True)]
        return min(ratios), max(ratios)

    @property
    def kept(self) -> bool | None:
        """Whether the budget is kept; `None` without a budget."""
        if self.budget is None:
            return None
        figure = self.ratio if self.budget.of == "ratio" else median(self.ours)
        return figure is not None and figure <= self.budget.most


def choose_cores() -> tuple[int, int]:
    """A core for the server and another for the load; the same one where only one may be used."""
    cores = sorted(os.sched_getaffinity(0))
    return cores[0], cores[-1]


@dataclass(frozen=True)
class Bench:
    """What a question is given: how many rounds, full size or quick, and the command of our server."""

    rounds: int = 5
    quick: bool = False
    server: Sequence[str] = SERVE
    cores: tuple[int, int] = field(default_factory=choose_cores)

    def size(self, full: int, quick: int) -> int:
        """`full` in a measurement, `quick` where the run only has to show that everything works."""
        return quick if self.quick else full

    def compare(
        self, floor: str, mode: str, *, rounds: int | None = None, **options: object
    ) -> tuple[list[Result], list[Result]]:
        """Measure the floor in mode `floor` and ours with the same load in turns, each time a new server.

        In turns, because a machine changes its speed from minute to minute, and with new servers, because
        where memory happens to lie is worth some percent and stays the same for as long as a process lives.
        """
        floors: list[Result] = []
        ours: list[Result] = []
        for _ in range(1 if self.quick else rounds or self.rounds):
            floors.append(self.measure([str(BUILD / "floor"), floor], mode, **options))
            ours.append(self.measure(self.server, mode, **options))
        return floors, ours

    def measure(self, server: Sequence[str], mode: str, **options: object) -> Result:
        """Start `server`, run the load generator against it once, stop it, return what was measured."""
        server_core, load_core = self.cores
        command = [str(BUILD / "load"), mode, "--path", PATH]
        command += [word for name, value in options.items() for word in (f"--{name}", str(value))]
        with serving(server, server_core) as (pid, port, output), pinned(load_core):
            load = subprocess.run(
                [*command, "--pid", str(pid), "--port", str(port)],
                capture_output=True,
                text=True,
                timeout=LOAD_WITHIN,
                check=False,
            )
            if load.returncode:
                raise MeasurementError(f"{load.stderr.strip()}\n{tail(output)}".strip())
        result: Result = json.loads(load.stdout)
        return result


def figures(results: Sequence[Result], *keys: str) -> list[float]:
    """The figure under `keys`, one level per key, of each result."""
    found = []
    for result in results:
        value: Any = result
        for key in keys:
            value = value[key]
        found.append(float(value))
    return found


@contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """Run on one core, and so does every process started meanwhile, from its first instruction on; None: on any."""
    before = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def serving(command: Sequence[str], core: int | None) -> Iterator[tuple[int, int, int]]:
    """Start a server on `core`, or None for any, and wait until it is ready; give its pid, its port and its output."""
    with tempfile.TemporaryFile() as output:
        with pinned(core):
            # A file and not a pipe: nobody reads along, and a server that logs must not block on us.
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment()
            )
        try:
            yield process.pid, wait_until_ready(process, output.fileno()), output.fileno()
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def environment() -> dict[str, str]:
    """Ours without HUBBUB_… variables: what is measured is the defaults and what the command line says."""
    return {name: value for name, value in os.environ.items() if not name.startswith("HUBBUB_")}


def wait_until_ready(process: subprocess.Popen[bytes], output: int) -> int:
    """The port that the server says it is ready on."""
    deadline = time.monotonic() + READY_WITHIN
    while True:
        ended = process.poll() is not None
        if ready := READY.search(tail(output)):
            return int(ready[1])
        if ended or time.monotonic() > deadline:
            raise MeasurementError(f"the server did not come up:\n{tail(output)}".rstrip())
        time.sleep(0.01)


def tail(output: int) -> str:
    """The last of what a server printed."""
    size = os.fstat(output).st_size
    return os.pread(output, 4000, max(0, size - 4000)).decode(errors="replace")


def build() -> None:
    """Compile the floor and the load generator where their source is newer than what was built."""
    BUILD.mkdir(exist_ok=True)
    for source in sorted((HERE / "floor").glob("*.c")):
        program = BUILD / source.stem
        if program.exists() and program.stat().st_mtime > source.stat().st_mtime:
            continue
        # Under another name first, so that a run beside this one never starts half a program.
        unfinished = BUILD / f"{source.stem}.{os.getpid()}"
        compiler = os.environ.get("CC", "cc")
        flags = ("-std=gnu11", "-O2", "-Wall", "-Wextra")
        subprocess.run([compiler, *flags, "-o", unfinished, source], check=True)
        unfinished.replace(program)


def allow_many_files() -> None:
    """Lift the limit of open files as far as it goes; the servers started from here inherit it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
