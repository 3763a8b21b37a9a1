"""What happened to a fleet, counted: not the messages, but the misfortunes and what came of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from chaos.misfortune import Misfortune

__all__ = ["Tally"]


@dataclass
class Tally:
    """One run's incidents."""

    # How often each has done anything.
    happened: Counter[Misfortune] = field(default_factory=Counter)
    # Sessions beyond the first of each client.
    reconnects: int = 0
    # Publications sent again, with the same id.
    repeats: int = 0
    # Publications that were due while their sender had too many without an `ack`.
    held_back: int = 0
    # Close codes of the server, and codes of its errors.
    closes: Counter[int] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    # One sentence for each channel that could not be resumed.
    unrecovered: list[str] = field(default_factory=list)
    # What a client could make no sense of.
    nonsense: list[str] = field(default_factory=list)
    # Seconds from each kill until the server listened again, and until nine clients of ten had a session.
    restarts: list[float] = field(default_factory=list)
    returns: list[float] = field(default_factory=list)
    # Seconds that each drain took.
    rolls: list[float] = field(default_factory=list)
