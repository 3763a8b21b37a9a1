"""What a run is: who, how much, how long, and which chance."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from chaos.server import SERVE

__all__ = ["Plan"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One run of the kill test. The same seed makes the same choices; what falls between them is never the same."""

    seed: int
    # Where the server keeps its data and its log; it exists.
    directory: Path

    # Of publishing, with the storm around it; coming to rest takes longer.
    seconds: float = 180.0
    # Publications per second of all clients together.
    rate: float = 2000.0
    clients: int = 200
    rooms: int = 20
    # So many of the clients are the package's own.
    real: int = 40

    # Seconds from one kill to the next: at least, at most. None: nothing is killed.
    kills: tuple[float, float] | None = (3.0, 8.0)
    # Per second.
    resets: float = 2.0
    stalls: float = 1.0

    # Seconds for everyone to come to the end of everything.
    rest: float = 90.0

    # `full`, `normal`; None: the memory engine, which loses everything with each kill.
    durability: str | None = "full"
    command: tuple[str, ...] = SERVE
    # Further options of `hubbub serve`.
    options: tuple[str, ...] = ()

    @property
    def data(self) -> Path:
        """The server's folder."""
        return self.directory / "data"

    def serve(self) -> list[str]:
        """The server's command, without the port."""
        durable = ["--data", str(self.data), "--durability", self.durability] if self.durability else []
        # Whoever is away for half a minute can still resume; whoever reads nothing for some seconds is given up.
        room = ["--history-size", "100000", "--inbox-size", "100000", "--write-deadline", "3"]
        return [*self.command, *room, *durable, *self.options]
