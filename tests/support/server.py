"""Servers for tests: one in the test's own event loop, or one as its own process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from hubbub import Hub
from hubbub.config import load
from hubbub.server import Server
from support.certificates import AUTHORITY
from support.loop import PATIENCE

__all__ = ["UNLIMITED", "Answer", "Child", "command", "defaults", "get", "serving"]


UNLIMITED = {"rate_limit": "off"}
"""For servers of tests: a test says in a moment what a person says in a minute, and comes from one address. The tests
of rate limits set them themselves."""

defaults: dict[str, Any] = {}
"""Options of every server that `serving` makes; set by a fixture, for the tests that run on every engine."""


@contextlib.asynccontextmanager
async def serving(hub: Hub | None = None, *, sndbuf: int | None = None, **options: Any) -> AsyncIterator[Server]:
    """A server in this event loop, on a free port, in dev mode unless `options` say otherwise.

    `options` are those of `hubbub serve`, by name. The same hub may be served again afterwards: that is a
    restart. `sndbuf` bounds the kernel's send buffers, so that a client that does not read is noticed soon.
    """
    server = Server(hub or Hub(), load({"dev": True, "port": 0, **UNLIMITED, **defaults, **options}, {}))
    await server.start()
    try:
        if sndbuf is not None:
            # Accepted sockets inherit it from the listening one.
            assert server._port is not None
            for listening in server._port._servers[0].sockets:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, sndbuf)
        yield server
    finally:
        await server.stop()


# What stands before each record.
_AUDIT = " INFO hubbub.audit: "


@dataclass
class Child:
    """`hubbub serve` as a process of its own."""

    process: Process
    stderr: IO[bytes]
    # Where it listens, as `http://host:port` or `https://…`; empty before `ready`.
    address: str = ""

    async def ready(self) -> str:
        """Wait until it says where it listens."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            while line := (await self.process.stdout.readline()).decode():
                if match := re.search(r"ready on (https?://\S+)", line):
                    self.address = match.group(1)
                    return self.address
        raise AssertionError(f"the server did not start: {self.errors()}")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    async def exit_status(self, within: float = PATIENCE) -> int:
        """Wait for its end, at most `within` seconds."""
        async with asyncio.timeout(within):
            return await self.process.wait()

    def errors(self) -> str:
        """What it has written to standard error so far, without its audit."""
        return "".join(line for line in self._lines() if _AUDIT not in line)

    def audit(self) -> list[dict[str, Any]]:
        """The records of its audit so far, oldest first."""
        return [json.loads(line.partition(_AUDIT)[2]) for line in self._lines() if _AUDIT in line]

    def logged(self) -> str:
        """All that it has written to standard error so far."""
        return "".join(self._lines())

    def _lines(self) -> list[str]:
        # Without moving the place at which the process writes on, which is the same for both.
        file = self.stderr.fileno()
        return os.pread(file, os.fstat(file).st_size, 0).decode().splitlines(keepends=True)

    @classmethod
    @contextlib.asynccontextmanager
    async def spawned(
        cls, *arguments: str, cwd: Path | None = None, stdin: int = DEVNULL, **variables: str
    ) -> AsyncIterator[Child]:
        """`hubbub serve --port 0 …` in `cwd`, ready; killed at the end of the block if it still runs.

        `stdin` is its standard input. `variables` are added to its environment, which otherwise has none of Hubbub's.
        """
        with tempfile.TemporaryFile() as stderr:
            child = cls(await _start(("serve", "--port", "0", *arguments), cwd, stderr, variables, stdin), stderr)
            try:
                await child.ready()
                yield child
            finally:
                if child.process.returncode is None:
                    child.process.kill()
                # Reads what is left of its output, so that the pipe is closed.
                await child.process.communicate()


async def command(*arguments: str, cwd: Path | None = None, **variables: str) -> tuple[int, str, str]:
    """Run `hubbub` to its end: exit status, standard output, standard error.

    `variables` are added to its environment, which otherwise has none of Hubbub's.
    """
    process = await _start(arguments, cwd, PIPE, variables)
    try:
        async with asyncio.timeout(PATIENCE):
            out, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), errors.decode()


async def _start(
    arguments: tuple[str, ...],
    cwd: Path | None,
    stderr: IO[bytes] | int,
    variables: dict[str, str],
    stdin: int = DEVNULL,
) -> Process:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HUBBUB_")}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "hubbub",
        *arguments,
        stdin=stdin,
        stdout=PIPE,
        stderr=stderr,
        cwd=cwd,
        env=environment | {"HUBBUB_RATE_LIMIT": UNLIMITED["rate_limit"]} | variables,
    )


@dataclass(frozen=True)
class Answer:
    """An HTTP response."""

    status: int
    # By lower-case name.
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, which must be JSON."""
        return json.loads(self.body)


async def get(address: str, path: str, *lines: str, method: str = "GET") -> Answer:
    """GET `path` from the server at `address` with extra header `lines`; raises OSError where nobody listens."""
    scheme, _, place = address.partition("://")
    host, _, port = place.rpartition(":")
    tls = AUTHORITY.trusted if scheme == "https" else None
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(host, int(port), ssl=tls)
        try:
            request = [f"{method} {path} HTTP/1.1", f"Host: {host}", *(lines or ("Connection: close",)), "", ""]
            writer.write("\r\n".join(request).encode())
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
    first, *rest = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
    return Answer(int(first.split()[1]), headers, body)
