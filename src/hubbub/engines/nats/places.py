"""Where each channel is in JetStream: which stream, which subjects, and how much of it is kept."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from msgspec import Struct

from hubbub.core.log import HistoryLimits, Retention
from hubbub.engines.shared.canary import is_canary
from hubbub.types import ALL, inbox_channel, room_channel, room_of, user_of

__all__ = ["Place", "Places", "token"]

# Channels whose names of subjects are remembered.
_PLACES: Final = 20_000
# Characters of a token; three of them have to fit into one subject.
_LONGEST: Final = 400
# What stands for itself in a token of a subject: NATS reads meaning into dots, stars and angle brackets.
_PLAIN: Final = re.compile(r"[^A-Za-z0-9_:@+-]")


class Place(Struct, frozen=True):
    """Where a channel is in JetStream, and how much of it is kept."""

    # The kind of channel, each of which is a stream; see `Places.kind`.
    kind: str
    # Where it is stored, and where each stored message is told.
    subject: str
    bus: str
    retention: Retention


class Places:
    """The places of all channels, under one prefix; those used lately are remembered."""

    def __init__(self, prefix: str, limits: HistoryLimits, retention: Callable[[str], Retention] | None) -> None:
        self.prefix = prefix
        # Where all nodes hear what concerns all channels.
        self.control = f"{prefix}.control"
        self.limits = limits
        self._retention = retention or limits.retention
        self.of = lru_cache(_PLACES)(self._of)

    def usual(self) -> list[tuple[str, Retention]]:
        """The kinds of channels that every server has, and how much of them is kept."""
        names = ALL, room_channel(""), inbox_channel("")
        return [(self._kind(name, kept), kept) for name in names for kept in (self.limits.retention(name),)]

    def _of(self, channel: str) -> Place:
        retention = Retention(size=1, age=60.0) if is_canary(channel) else self._retention(channel)
        kind = self._kind(channel, retention)
        name = f"{kind}.{token(channel)}"
        return Place(kind, f"{self.prefix}.log.{name}", f"{self.prefix}.bus.{name}", retention)

    def _kind(self, channel: str, retention: Retention) -> str:
        if room_of(channel) is not None:
            # A stream keeps of each of its channels equally much.
            usual = retention == self.limits.retention(channel)
            pinned = "-pinned" if retention.pinned else ""
            return "rooms" if usual else f"rooms-{retention.size}-{retention.age:.0f}{pinned}"
        if user_of(channel) is not None:
            return "inboxes"
        # Such as `server:ticket:…`: one stream for each sort.
        return _PLAIN.sub("_", "-".join(channel.split(":")[:2])).replace(":", "_")


def token(name: str) -> str:
    """`name` as one token of a subject, whatever is in it."""
    found = _PLAIN.sub(_escaped, name)
    if len(found) <= _LONGEST:
        return found
    # A line of NATS' protocol has an end.
    return "=" + hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=20).hexdigest()


def _escaped(found: re.Match[str]) -> str:
    return "".join(f"={byte:02X}" for byte in found[0].encode(errors="surrogatepass"))
