"""Where each channel is in Redis, and how much of it is kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final

from msgspec import Struct

from hubbub.core.log import HistoryLimits, Retention

__all__ = ["Place", "Places", "canary", "is_canary"]

# Milliseconds for which a channel's head is kept beyond what is in it; it is touched once in each round.
_REST: Final = 3_600_000
# Channels whose names of keys are remembered.
_PLACES: Final = 20_000


class Place(Struct, frozen=True):
    """Where a channel is in Redis, and how much of it is kept."""

    keys: tuple[str, ...]
    bus: str
    # Number of publications, and milliseconds: of the head, and of each publication.
    size: int
    kept: int
    age: int


class Places:
    """The places of all channels, under one prefix; those used lately are remembered."""

    def __init__(
        self, prefix: str, database: int, limits: HistoryLimits, retention: Callable[[str], Retention] | None
    ) -> None:
        self.store = f"{prefix}store"
        # Where all nodes hear what concerns all channels. Redis tells on one bus for all of its databases.
        self.control = f"{prefix}control:{database}"
        self._prefix = prefix
        self._database = database
        self._limits = limits
        self._retention = retention or limits.retention
        self.of = lru_cache(_PLACES)(self._of)

    def _of(self, channel: str) -> Place:
        retention = Retention(size=1, age=60.0) if is_canary(channel) else self._retention(channel)
        key = f"{self._prefix}{{{channel}}}:"
        age = max(1, int(retention.age * 1000))
        return Place(
            (self.store, *(key + part for part in ("head", "log", "ids", "ids-before", "due"))),
            f"{key}bus:{self._database}",
            retention.size,
            max(age, int(self._limits.dedupe_window * 2000)) + _REST,
            age,
        )


def canary(node: str) -> str:
    """The channel on which a node tries the way round: its own, and of nobody else's concern."""
    return f"server:canary:{node}"


def is_canary(channel: str) -> bool:
    """Whether the channel is one of those."""
    return channel.startswith("server:canary:")
