"""What a run is: who, how much, how long, what goes wrong, and which chance."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from chaos.engines import SHARED
from chaos.misfortune import Misfortune
from chaos.server import SERVE

__all__ = ["ENGINES", "Hand", "Plan", "hands"]

ENGINES = ("sqlite", "memory", *SHARED)
"""What a run can be on; the first two are one node's own."""


@dataclass(frozen=True)
class Hand:
    """A deck of misfortunes, dealt one after the other: all of them, shuffled, and again."""

    deck: tuple[Misfortune, ...]
    # Seconds from one to the next: at least, at most.
    pause: tuple[float, float]


def hands(engine: str, *, forgets: bool, hurry: float = 1.0) -> tuple[Hand, ...]:
    """What goes wrong on `engine`, all hands at once; `hurry`: so many times as often."""
    kind = Misfortune
    if engine not in SHARED:
        return (Hand((kind.KILL,), (3.0 / hurry, 8.0 / hurry)),)
    of_engine = [kind.HANG, kind.RESTART]
    of_engine += [kind.DEAFEN] * SHARED[engine].deafens + [kind.EMPTY] * forgets
    return (
        Hand((kind.KILL, kind.ROLL, kind.FREEZE), (4.0 / hurry, 12.0 / hurry)),
        Hand(tuple(of_engine), (6.0 / hurry, 18.0 / hurry)),
        Hand((kind.CUT, kind.SWALLOW_OUT, kind.SWALLOW_BACK, kind.SWALLOW, kind.SLOW), (4.0 / hurry, 10.0 / hurry)),
    )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One run of the kill test. The same seed makes the same choices; what falls between them is never the same."""

    seed: int
    # Where servers keep their data and their logs; it exists.
    directory: Path

    # One of `ENGINES`. `forgets`: it keeps nothing over a restart, and nothing is lost without a word.
    engine: str = "sqlite"
    forgets: bool = False
    # How many nodes are one, where the engine can be shared.
    nodes: int = 1

    # Of publishing, with the storm around it; coming to rest takes longer.
    seconds: float = 180.0
    # Publications per second of all clients together.
    rate: float = 2000.0
    clients: int = 200
    rooms: int = 20
    # So many of the clients are the package's own.
    real: int = 40

    hands: tuple[Hand, ...] = hands("sqlite", forgets=False)
    # Seconds that something lasts which goes away by itself: at least, at most.
    lasts: tuple[float, float] = (0.5, 5.0)
    # Per second.
    resets: float = 2.0
    stalls: float = 1.0

    # Seconds for everyone to come to the end of everything.
    rest: float = 90.0

    # Of SQLite: `full` or `normal`.
    durability: str = "full"
    command: tuple[str, ...] = SERVE
    # Further options of `hubbub serve`.
    options: tuple[str, ...] = ()

    @property
    def data(self) -> Path:
        """The folder of a server that keeps its data itself."""
        return self.directory / "data"

    @property
    def misfortunes(self) -> list[Misfortune]:
        """All that has to happen at least once."""
        dealt = [kind for hand in self.hands for kind in hand.deck]
        return [Misfortune.RESET] * (self.resets > 0) + [Misfortune.STALL] * (self.stalls > 0) + dealt

    def serve(self) -> list[str]:
        """The server's command, without the port."""
        kept = ["--data", str(self.data), "--durability", self.durability] if self.engine == "sqlite" else []
        # Whoever is away for half a minute can still resume; whoever reads nothing for some seconds is given up.
        room = ["--history-size", "100000", "--inbox-size", "100000", "--write-deadline", "3"]
        return [*self.command, *room, *kept, *self.options]
