"""What all partitions of one node share: its name, its lease, and one bound and one voice for all of them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from hubbub.engines.base import Listener
from hubbub.errors import Unavailable

__all__ = ["Load", "Node", "Outages"]

log = logging.getLogger("hubbub.engines.redis")

# Commands on their way, and bytes of theirs; beyond, `Unavailable`.
_MOST: Final = 20_000
_MOST_BYTES: Final = 67_108_864


class Load:
    """What is on its way, bounded for all partitions together: each of them may have a large message."""

    def __init__(self) -> None:
        self.commands = 0
        self._bytes = 0

    def add(self, size: int) -> None:
        """One command more; raises `Unavailable` where that is too much."""
        if self.commands >= _MOST or self._bytes + size > _MOST_BYTES:
            raise Unavailable("Redis is behind with what it has to do")
        self.commands += 1
        self._bytes += size

    def remove(self, size: int) -> None:
        """One is answered."""
        self.commands -= 1
        self._bytes -= size


class Outages:
    """What has failed, said once for all connections that find the same, and said to be over when the last is back."""

    def __init__(self, where: str) -> None:
        self._where = where
        # The connections that do not serve; and why, as far as it has been said.
        self._down: set[object] = set()
        self._said: set[str] = set()

    def ended(self, who: object, why: str) -> None:
        """A connection has ended: most likely there is another one in a moment."""
        if not self._down:
            log.warning("a connection to Redis at %s has ended: %s", self._where, why)
        self._down.add(who)

    def away(self, who: object, why: str) -> None:
        """There is none to be had."""
        self._down.add(who)
        if why not in self._said:
            self._said.add(why)
            log.error("Redis at %s is away: %s", self._where, why)

    def over(self, who: object) -> None:
        """There is one again."""
        self._down.discard(who)
        if self._said and not self._down:
            self._said.clear()
            log.warning("Redis at %s is back", self._where)


class Node:
    """This node, as its partitions know it."""

    def __init__(
        self,
        name: str,
        lease: float,
        where: str,
        inspect: Callable[[dict[str, str]], None],
        listener: Listener,
    ) -> None:
        """`where` Redis is, for logs; `listener` is told who has gone, and who is back.

        `inspect` gets what a server says about itself, and raises `ConfigError` where it cannot be used.
        """
        self.name = name
        # Milliseconds.
        self.lease = int(lease * 1000)
        self.load = Load()
        self.outages = Outages(where)
        self.inspect = inspect
        self.gone = listener.gone
        self.came = listener.came
