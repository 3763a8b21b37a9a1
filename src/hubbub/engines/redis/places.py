"""Where each channel is in Redis, and how much of it is kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final

from msgspec import Struct

from hubbub.core.log import HistoryLimits, Retention
from hubbub.engines.redis.address import Address
from hubbub.engines.redis.slots import slot_of, tags
from hubbub.engines.shared.canary import is_canary
from hubbub.errors import ConfigError

__all__ = ["Place", "Places", "all_places"]

# Milliseconds for which a channel's head is kept beyond what is in it; it is touched once in each round.
_REST: Final = 3_600_000
_CLASSIC: Final = "PUBLISH", "SUBSCRIBE", "UNSUBSCRIBE"
_SHARDED: Final = "SPUBLISH", "SSUBSCRIBE", "SUNSUBSCRIBE"
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
    """The places of the channels of one partition, under one root; those used lately are remembered."""

    def __init__(
        self,
        root: str,
        database: int,
        limits: HistoryLimits,
        retention: Callable[[str], Retention] | None,
        slot: int | None = None,
    ) -> None:
        """`slot`: that of a cluster in which all of them lie; None: there is no cluster."""
        self.slot = slot
        # In a cluster a message goes to the servers of its slot; with the words of old it would go to all of them.
        self.publish, self.subscribe, self.unsubscribe = _SHARDED if slot is not None else _CLASSIC
        self.store = f"{root}store"
        self.nodes = f"{root}nodes"
        # Where all nodes hear what concerns all channels. Redis tells on one bus for all of its databases.
        self.control = f"{root}control:{database}"
        self.root = root
        self._database = database
        self._limits = limits
        self._retention = retention or limits.retention
        self.of = lru_cache(_PLACES)(self._of)

    def _of(self, channel: str) -> Place:
        retention = Retention(size=1, age=60.0) if is_canary(channel) else self._retention(channel)
        key = f"{self.root}{channel}:"
        age = max(1, int(retention.age * 1000))
        return Place(
            (self.store, *(key + part for part in ("head", "log", "ids", "ids-before", "due"))),
            f"{key}bus:{self._database}",
            retention.size,
            max(age, int(self._limits.dedupe_window * 2000)) + _REST,
            age,
        )


def all_places(
    prefix: str, address: Address, limits: HistoryLimits, retention: Callable[[str], Retention] | None
) -> list[Places]:
    """The partitions of the Redis at `address`; raises `ConfigError` where a cluster cannot have the prefix."""
    if not address.cluster:
        return [Places(prefix, address.database, limits, retention)]
    if "{" in prefix or "}" in prefix:
        raise ConfigError("redis_prefix has a brace in it, and in a cluster those say where a key is: leave it out")
    return [Places(f"{prefix}{{{tag}}}:", 0, limits, retention, slot_of(tag)) for tag in tags()]
