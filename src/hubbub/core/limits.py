"""How many may come in, counted exactly: in all, per user, per address; and how much in chunks."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

from msgspec import Meta, Struct

from hubbub.core.addresses import block_of

__all__ = ["ConnectionCounts", "ConnectionLimits", "TransferLimits"]


class ConnectionLimits(Struct, frozen=True, kw_only=True):
    """How many connections this node takes; 0 means no limit of that kind."""

    connections: Annotated[int, Meta(ge=0, description="connections in all; 0: no limit")] = 100_000
    # Each waits for the engine a few times. Where twenty nodes have so many, one Redis is two seconds behind; a client
    # waits for five, and what is done for one that has given up is done in vain.
    connections_opening: Annotated[
        int, Meta(ge=0, description="connections whose sessions are being opened at the same time; 0: no limit")
    ] = 500
    connections_per_user: Annotated[int, Meta(ge=0, description="connections of one user; 0: no limit")] = 100
    # Many people share one address behind a proxy or a provider's NAT: off unless the operator knows better.
    connections_per_ip: Annotated[int, Meta(ge=0, description="connections from one address; 0: no limit")] = 0


class TransferLimits(Struct, frozen=True, kw_only=True):
    """What clients may send in chunks (protocol.md §7)."""

    # In another codec a message may be six times as large, and that has to go into 4,096 parts, too.
    large_message_size: Annotated[
        int, Meta(ge=0, le=20_971_520, description="bytes of one message that comes in chunks; 0: none may")
    ] = 16_777_216
    transfers_per_session: Annotated[
        int, Meta(ge=1, description="messages in chunks that one session may have under way")
    ] = 4
    transfer_timeout: Annotated[float, Meta(gt=0, description="seconds for all chunks of a message to come")] = 60.0
    transfer_bytes: Annotated[
        int, Meta(ge=0, description="bytes of all messages together that have come in part; then more are refused")
    ] = 268_435_456


class ConnectionCounts:
    """How many connections there are, by user and by address."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits

        # All open connections, greeted or not.
        self.total = 0

        # The sessions that are on their way to their `welcome`, and wait for the engine or the application.
        self._opening: set[str] = set()
        self._users: Counter[str] = Counter()
        self._ips: Counter[str] = Counter()

    def full(self) -> bool:
        """Whether there is no place for anybody."""
        return 0 < self.limits.connections <= self.total

    def opening_full(self) -> bool:
        """Whether whoever came now would have to wait behind too many others."""
        return 0 < self.limits.connections_opening <= len(self._opening)

    def ip_full(self, ip: str) -> bool:
        """Whether there is no place for one more from this address."""
        return 0 < self.limits.connections_per_ip <= self._ips[block_of(ip)]

    def user_full(self, user: str) -> bool:
        """Whether there is no place for one more of this user's."""
        return 0 < self.limits.connections_per_user <= self._users[user]

    def add(self, ip: str) -> None:
        """Count a connection."""
        self.total += 1
        if self.limits.connections_per_ip:
            self._ips[block_of(ip)] += 1

    def remove(self, ip: str) -> None:
        """Count a connection no more."""
        self.total -= 1
        if self.limits.connections_per_ip:
            block = block_of(ip)
            self._ips[block] -= 1
            if self._ips[block] <= 0:
                del self._ips[block]

    def opens(self, session: str) -> None:
        """A session is being opened."""
        self._opening.add(session)

    def opened(self, session: str) -> None:
        """It is, or has ended; harmless twice."""
        self._opening.discard(session)

    def add_user(self, user: str) -> None:
        """Count a session of `user`, once it is known whose it is."""
        if self.limits.connections_per_user:
            self._users[user] += 1

    def remove_user(self, user: str) -> None:
        """Count a session of `user` no more."""
        if self.limits.connections_per_user:
            self._users[user] -= 1
            if self._users[user] <= 0:
                del self._users[user]
