"""A node of a run: a process that is killed without warning and comes back at the same place."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["SERVE", "DeadServerError", "Server"]

# All come from one address, each in a hurry.
SERVE = (sys.executable, "-m", "hubbub", "serve", "--dev", "--rate-limit", "off")
"""The command that starts a server; `--port` and more options are added to it."""

_READY = re.compile(rb"ready on http://([^\s:]+):(\d+)")
_READY_WITHIN = 30.0
# Seconds for a drain: longer than anything that an engine or a link suffers.
_GONE_WITHIN = 30.0

_PEAK = re.compile(rb"VmHWM:\s+(\d+) kB")


class DeadServerError(Exception):
    """The server did not start, or ended by itself."""


class Server:
    """`hubbub serve` as a process of its own, on one port from the first start on."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self._command = tuple(command)
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

        # Variables that are added to its environment, which otherwise has none of Hubbub's.
        self.environment: dict[str, str] = {}

        # Reads what it prints, so that it never waits for us; ends with the process.
        self._reading: asyncio.Task[None] | None = None
        self.address = ("localhost", 0)

        # Bytes of memory that any of its lives had at most; 0 where the system does not say.
        self.memory = 0

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start it and wait until it listens; raises `DeadServerError`."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HUBBUB_")}
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                "--port",
                str(self.address[1]),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment | self.environment,
            )
        ready = asyncio.get_running_loop().create_future()
        self._reading = asyncio.create_task(self._read(self._process, ready))
        try:
            async with asyncio.timeout(_READY_WITHIN):
                self.address = await ready
        except TimeoutError:
            await self.kill()
            raise DeadServerError(f"the server was not ready within {_READY_WITHIN:g} s") from None

    async def _read(self, process: asyncio.subprocess.Process, ready: asyncio.Future[tuple[str, int]]) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            if (match := _READY.search(line)) and not ready.done():
                ready.set_result((match.group(1).decode(), int(match.group(2))))
        if not ready.done():
            ready.set_exception(DeadServerError(f"the server ended with {await process.wait()} before it was ready"))

    def check(self) -> None:
        """Raise `DeadServerError` where it has ended without having been killed."""
        if self._process is not None and self._process.returncode is not None:
            raise DeadServerError(f"the server ended by itself with {self._process.returncode}")

    async def kill(self) -> None:
        """End it in the middle of whatever it does."""
        assert self._process is not None
        self.check()
        self._note_memory()
        self._process.kill()
        await self._gone()

    async def roll(self) -> None:
        """End it politely, as for another version; raises `DeadServerError` where that is not a good end in time."""
        assert self._process is not None
        self.check()
        self._note_memory()
        self._process.terminate()
        try:
            async with asyncio.timeout(_GONE_WITHIN):
                status = await self._process.wait()
        except TimeoutError:
            raise DeadServerError(f"the server did not end within {_GONE_WITHIN:g} s of SIGTERM") from None
        await self._gone()
        if status:
            raise DeadServerError(f"the server ended with {status} after SIGTERM")

    def freeze(self) -> None:
        """Stop the process until `thaw`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    async def stop(self) -> None:
        """End it politely, if it runs; after some seconds in the other way."""
        if self._process is not None and self._process.returncode is None:
            self._note_memory()
            self._process.terminate()
            try:
                async with asyncio.timeout(10):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
        await self._gone()

    async def _gone(self) -> None:
        if self._process is not None:
            await self._process.wait()
        if self._reading is not None:
            with contextlib.suppress(DeadServerError):
                await self._reading

    def _note_memory(self) -> None:
        with contextlib.suppress(OSError):
            found = _PEAK.search(Path(f"/proc/{self.pid}/status").read_bytes())
            self.memory = max(self.memory, 1024 * int(found.group(1)) if found else 0)

    def log_tail(self, lines: int = 40) -> str:
        """The newest of what it wrote to standard error, over all its lives."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])
