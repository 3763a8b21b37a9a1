"""nginx and HAProxy for tests: the configurations that are shipped, on free ports, with what a test sets in them."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from support.certificates import AUTHORITY
from support.loop import PATIENCE

__all__ = ["CONFIGURATIONS", "Proxy", "free_port", "proxying"]

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"

CONFIGURATIONS = {"nginx": DEPLOY / "nginx" / "nginx.conf", "haproxy": DEPLOY / "haproxy" / "haproxy.cfg"}
"""What is shipped, by the name of the program that reads it."""

# Where Debian has them, which is in nobody's PATH but root's.
_FOLDERS = "/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin"


class Proxy:
    """A proxy that runs, in front of two servers."""

    def __init__(self, program: str, port: int, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self.program = program
        self.port = port
        self.process = process
        self._folder = folder

    @property
    def address(self) -> str:
        """Where clients find it."""
        return f"https://127.0.0.1:{self.port}"

    def logged(self) -> str:
        """All that it has written anywhere so far."""
        return "".join(log.read_text() for log in self._folder.glob("*.log"))

    def is_up(self, server: str) -> bool:
        """Whether HAProxy sends anybody to this one of its servers."""
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(str(self._folder / "admin.sock"))
            line.sendall(b"show servers state hubbub\n")
            answer = b"".join(iter(lambda: line.recv(65_536), b"")).decode()
        # Each line: the backend's number and name, the server's number and name, its address, its state.
        states = {words[3]: words[5] for words in map(str.split, answer.splitlines()[2:]) if words}
        # 0: it is down. While it is starting slowly it gets somebody, too.
        return states[server] != "0"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


@contextlib.contextmanager
def proxying(program: str, servers: tuple[int, int], changes: Mapping[str, str] | None = None) -> Iterator[Proxy]:
    """`program` in front of servers on these two ports, with the shipped configuration.

    In that ports, paths and sizes are replaced, and what `changes` name.
    """
    executable = shutil.which(program, path=_FOLDERS)
    if executable is None:
        pytest.fail(f"These tests need {program}: apt-get install nginx haproxy")
    # Not the test's own folder, whose name is too long for a socket's.
    with tempfile.TemporaryDirectory(prefix="hubbub-") as name:
        folder, port = Path(name), free_port()
        pair = AUTHORITY.signs()
        (folder / "fullchain.pem").write_bytes(pair.cert)
        (folder / "privkey.pem").write_bytes(pair.key)
        (folder / "haproxy.pem").write_bytes(pair.cert + pair.key)
        file = folder / CONFIGURATIONS[program].name
        file.write_text(_rewritten(program, folder, port, servers, changes or {}))
        with (folder / "output.log").open("wb") as output:
            process = subprocess.Popen([executable, *_arguments(program, file)], stdout=output, stderr=output)
        try:
            _wait(process, port, folder)
            yield Proxy(program, port, folder, process)
        finally:
            # At once, whoever is connected; nginx' own processes end with it.
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(PATIENCE)
            finally:
                process.kill()
                process.wait()


def _arguments(program: str, file: Path) -> tuple[str, ...]:
    if program == "nginx":
        return ("-e", "stderr", "-p", str(file.parent), "-c", str(file), "-g", "daemon off;")
    return ("-db", "-f", str(file))


def _rewritten(program: str, folder: Path, port: int, servers: tuple[int, int], changes: Mapping[str, str]) -> str:
    """The shipped configuration for an ordinary user, in `folder`; everything to be replaced must be there once."""
    replaced = {f"127.0.0.1:{8001 + number}": f"127.0.0.1:{server}" for number, server in enumerate(servers)}
    if program == "nginx":
        replaced |= {
            "user www-data;\n": "",
            "/run/nginx.pid": f"{folder}/nginx.pid",
            "/var/log/nginx/access.log": f"{folder}/access.log",
            "/var/log/nginx/error.log": f"{folder}/error.log",
            "/etc/nginx/tls/fullchain.pem": f"{folder}/fullchain.pem",
            "/etc/nginx/tls/privkey.pem": f"{folder}/privkey.pem",
            "worker_rlimit_nofile 200000;\n": "",
            "worker_connections 100000": "worker_connections 1000",
            "listen 443 ": f"listen 127.0.0.1:{port} ",
            # Not every machine has IPv6.
            "        listen [::]:443 ssl reuseport backlog=4096;\n": "",
        }
    else:
        replaced |= {
            # What takes root to do.
            "    user haproxy\n    group haproxy\n    chroot /var/lib/haproxy\n": "",
            "/run/haproxy/admin.sock": f"{folder}/admin.sock",
            "/etc/haproxy/tls/": f"{folder}/haproxy.pem",
            "maxconn 100000": "maxconn 1000",
            "bind :::443 v4v6": f"bind 127.0.0.1:{port}",
        }
    text = CONFIGURATIONS[program].read_text()
    for shipped, tested in {**changes, **replaced}.items():
        assert text.count(shipped) == 1, f"{program}: {shipped!r}"
        text = text.replace(shipped, tested)
    return text


def _wait(process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
    """Return when it listens."""
    deadline = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), PATIENCE):
            return
        assert process.poll() is None and time.monotonic() < deadline, (folder / "output.log").read_text()
        time.sleep(0.01)
