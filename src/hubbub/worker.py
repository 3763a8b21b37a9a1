"""What a worker has from its supervisor: a number, the sockets to listen on, two pipes and a scoreboard."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import MutableMapping
from typing import Final

import msgspec
from msgspec import Struct

from hubbub.config import Config
from hubbub.engines.options import EngineOptions

__all__ = ["FOLDER", "LEAVE", "VARIABLE", "Worker"]

VARIABLE: Final = "_HUBBUB_WORKER"
"""The variable of the environment that holds it, from process to process."""

LEAVE: Final = signal.SIGUSR1
"""What a supervisor sends to a worker whose successor listens on the same sockets: drain, and take nobody new."""

FOLDER: Final = "nats"
"""The folder within `data` in which workers keep what they share; a server alone keeps its files beside it."""


class Worker(Struct, frozen=True, kw_only=True):
    """One of several processes on one port; files are numbers of open files."""

    # From 1.
    number: int
    count: int
    # Bound, and listening already: what comes before this process is ready waits in them.
    sockets: tuple[int, ...]
    # To be written to when the worker is ready: its address. And then, as a sign of life, a byte again and again.
    status: int
    # Ends when the supervisor does.
    lifeline: int
    # Where it writes what it has counted, and in which place there.
    scoreboard: int
    place: int
    # The URL of what the workers share, where the configuration names none.
    engine: str = ""
    # Seconds between two signs of life; 0: nobody waits for them.
    beat: float = 0.0

    @classmethod
    def inherited(cls, environment: MutableMapping[str, str]) -> Worker | None:
        """What this process has inherited, or None where nobody supervises it; children of its own inherit nothing."""
        text = environment.pop(VARIABLE, None)
        if text is None:
            return None
        worker = msgspec.json.decode(text, type=cls)
        for file in worker.files:
            os.set_inheritable(file, False)
        return worker

    @property
    def files(self) -> tuple[int, ...]:
        """All that it is given, open."""
        return (*self.sockets, self.status, self.lifeline, self.scoreboard)

    def encode(self) -> str:
        """The value of the variable."""
        return msgspec.json.encode(self).decode()

    def listening(self) -> list[socket.socket]:
        """The sockets, which this process then owns."""
        return [socket.socket(fileno=file) for file in self.sockets]

    def ready(self, address: str) -> None:
        """Tell the supervisor, once."""
        os.write(self.status, address.encode() + b"\n")
        # From here on nobody waits for whoever does not read.
        os.set_blocking(self.status, False)

    def alive(self) -> None:
        """Give the supervisor a sign of life, unless it is gone or has enough of them."""
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(self.status, b".")

    def share(self, config: Config) -> Config:
        """The configuration as it is for one of several: its share of the connections, and a name of its own."""
        hub = config.hub
        most = -(-hub.limits.connections // self.count)
        limits = msgspec.structs.replace(hub.limits, connections=most)
        name = f"{hub.node_name}-{self.number}" if hub.node_name else ""
        hub = msgspec.structs.replace(hub, limits=limits, node_name=name)
        engine = EngineOptions(engine=self.engine) if self.engine else config.engine
        return msgspec.structs.replace(config, hub=hub, engine=engine)
