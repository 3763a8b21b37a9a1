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
    connections_per_user: Annotated[int, Meta(ge=0, description="connections of one user; 0: no limit")] = 100
    connections_opening: Annotated[
        int,
        Meta(ge=0, description="connections that may wait for engine and hooks to let them in; 0: no limit"),
    ] = 500
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

        self._users: Counter[str] = Counter()
        self._ips: Counter[str] = Counter()

    def full(self) -> bool:
        """Whether there is no place for anybody."""
        return 0 < self.limits.connections <= self.total

    def opening_full(self, opening: int) -> bool:
        """Whether no session may begin to open beside these."""
        return 0 < self.limits.connections_opening <= opening

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
