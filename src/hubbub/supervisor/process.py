"""One process that is supervised: it is started, says that it is ready, and ends."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Final

__all__ = ["Child", "Voice", "how"]

# Linux: the signal that a process gets when its parent dies (prctl(2)).
_PR_SET_PDEATHSIG: Final = 1


class Child:
    """A process in a session of its own: what is typed at the terminal reaches the supervisor alone."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid
        self.began = asyncio.get_running_loop().time()
        self.ended: asyncio.Task[int] = asyncio.get_running_loop().create_task(process.wait())

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        environment: Mapping[str, str],
        files: Sequence[int] = (),
        *,
        stderr: int | None = None,
    ) -> Child:
        """Start it with these open files besides the standard ones; raises `OSError`."""
        # Looked up before the fork: nothing may be imported behind it.
        prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
        parent = os.getpid()

        def dies_with_us() -> None:
            if prctl is not None:
                prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
                if os.getppid() != parent:
                    # It has died already, and nobody will be told.
                    os._exit(1)

        process = await asyncio.create_subprocess_exec(
            *command,
            env=dict(environment),
            pass_fds=files,
            stdin=asyncio.subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
            preexec_fn=dies_with_us,
        )
        return cls(process)

    @property
    def lives(self) -> bool:
        """Whether it has not ended."""
        return not self.ended.done()

    @property
    def lived(self) -> float:
        """Seconds since it was started."""
        return asyncio.get_running_loop().time() - self.began

    @property
    def errors(self) -> asyncio.StreamReader | None:
        """Its standard error, where that was asked for."""
        return self._process.stderr

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it is still there."""
        if self.lives:
            with contextlib.suppress(ProcessLookupError):
                # Not the process's own method: that would take its exit status from whoever waits for it.
                os.kill(self.pid, number)

    async def end(self, within: float) -> int:
        """Wait for its end, and kill it where that takes longer than so many seconds; its exit status."""
        try:
            return await asyncio.wait_for(asyncio.shield(self.ended), within)
        except TimeoutError:
            self.signal(signal.SIGKILL)
            return await self.ended


def how(status: int) -> str:
    """How a process ended, in words."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        # One of the real-time signals, which have no names.
        return f"signal {-status}"


class Voice(asyncio.Protocol):
    """What a process says through a pipe: a line, and from then on that it lives, with whatever else comes."""

    def __init__(self) -> None:
        self._begun = b""
        self._line: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._heard = False
        self._transport: asyncio.BaseTransport | None = None

    @classmethod
    async def of(cls, file: int) -> Voice:
        """The voice of whoever writes to this pipe, whose reading end is its own from now on."""
        _, voice = await asyncio.get_running_loop().connect_read_pipe(cls, os.fdopen(file, "rb", buffering=0))
        return voice

    async def line(self) -> str:
        """The line; empty where the process that should write it ends before."""
        # Not to the end of the pipe, which processes may hold that it has started.
        return await asyncio.shield(self._line)

    def heard(self) -> bool:
        """Whether it has said anything since this was asked last."""
        heard, self._heard = self._heard, False
        return heard

    def close(self) -> None:
        """Listen no more; harmless twice."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._heard = True
        if not self._line.done():
            self._begun += data
            line, end, _ = self._begun.partition(b"\n")
            if end:
                self._line.set_result(line.decode().strip())

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        if not self._line.done():
            self._line.set_result("")
