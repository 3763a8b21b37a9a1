"""Readers that stop dead in a crowd: each is gone at its limit, and nobody else is kept waiting.

900 readers that read and 100 that are stopped with SIGSTOP, and messages of 1 KB, in fifty rooms with eighteen healthy
readers in each and two that stop. 2,500 messages a second are 50,000 over the sockets, 50 MB/s, for which a server and
the readers need less than half a core each; 10,000 a second to each of a thousand readers would be 10 GB/s, which no
machine moves. The readers are two processes, one that is stopped and one that is not: a thousand would measure the
scheduler.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import IO

import pytest

pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="measures with Linux's /proc"),
]

CROWD = Path(__file__).parent / "crowd"
ROOMS, HEALTHY, STALLED, RATE = 50, 900, 100, 2_500

# Seconds in which everybody reads; and from when some stop, beyond the 5 s in which 256 messages come to each.
CALM, STORM = 5.0, 12.0
SECOND = 1_000_000_000


class Process:
    """A program of the crowd, and the lines that it prints."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def line(self) -> str:
        """The next line, which must come."""
        line = _pipe(self.process.stdout).readline()

        assert line, "it has ended"
        return line.strip()

    def say(self, line: str) -> None:
        _pipe(self.process.stdin).write(line + "\n")
        _pipe(self.process.stdin).flush()

    def finish(self) -> None:
        _pipe(self.process.stdin).close()

    def late(self, begin: int, end: int) -> float:
        """How late messages were in this time, in ms: the 99th percentile of a second, in the median of its seconds.

        So a second in which the machine was elsewhere does not count.
        """
        slices: list[float] = []
        for moment in range(begin, end - SECOND + 1, SECOND):
            self.say(f"{moment} {moment + SECOND}")
            slices.append(float(self.line()))
        return median(slices)

    @property
    def memory(self) -> int:
        """Bytes that it holds."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * resource.getpagesize()


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


@contextlib.contextmanager
def started(program: str, *arguments: object) -> Iterator[Process]:
    environment = os.environ | {"PYTHONPATH": str(CROWD.parents[1])}
    with subprocess.Popen(
        [sys.executable, str(CROWD / program), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        try:
            yield Process(process)
        finally:
            process.kill()


def test_a_hundred_stopped_readers_cost_nine_hundred_nothing() -> None:
    """Each stopped one is closed within seconds and bounded memory; the others get all, p99 at most twice as late."""
    with started("serve.py", ROOMS, RATE) as server:
        port = server.line()
        with (
            started("read.py", port, HEALTHY, ROOMS, "h") as healthy,
            started("read.py", port, STALLED, ROOMS, "s", "small") as stalled,
        ):
            assert (healthy.line(), stalled.line()) == ("ready", "ready")
            while server.line() != f"sessions {HEALTHY + STALLED}":
                pass
            server.say("go")
            time.sleep(1)
            began = time.monotonic_ns()
            time.sleep(CALM)
            memory = server.memory
            stopped = time.monotonic_ns()
            stalled.process.send_signal(signal.SIGSTOP)
            while server.line() != f"sessions {HEALTHY}":
                pass
            gone = time.monotonic_ns()
            grown = server.memory - memory
            time.sleep(max(0.0, STORM - (gone - stopped) / 1e9))
            server.finish()
            each = int(server.line().removeprefix("each "))
            calm, storm = healthy.late(began, stopped), healthy.late(stopped, gone)
            healthy.finish()
            readers = json.loads(healthy.line())
            stalled.process.send_signal(signal.SIGCONT)
            stalled.finish()
            cut = json.loads(stalled.line())
            print(
                f"p99 {calm:.1f} ms, beside stopped readers {storm:.1f} ms; gone after {(gone - stopped) / 1e9:.1f} s"
            )

            # Otherwise the machine was too busy for anything that follows to mean something.
            assert each >= 0.8 * RATE * (CALM + STORM) / ROOMS
            assert readers == [{"last": each, "holes": 0, "code": 0}] * HEALTHY
            assert all(reader["holes"] == 0 and reader["last"] < each for reader in cut)
            # When 256 messages wait, which is before the write deadline; the kernel takes some before that.
            assert 4.5 < (gone - stopped) / 1e9 < 12
            assert grown < 128 << 20
            # Below 10 ms it is the scheduler that is measured, which has three busy processes for its cores.
            assert storm <= 2 * max(calm, 10.0)
