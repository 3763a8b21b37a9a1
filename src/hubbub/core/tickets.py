"""Tickets: for a browser that must not put its token into an address, something that is good once, for a moment.

A ticket stands for the identity that it was given to. Full, or a user with too many: a new one is refused, and
those that are out stay good; half a minute later there is room again.
"""

from __future__ import annotations

from collections import Counter, OrderedDict

from hubbub.errors import Reject, Unavailable
from hubbub.protocol.codes import ErrorCode
from hubbub.types import Identity, token_id

__all__ = ["LIFE", "Tickets"]

LIFE = 30_000
"""How long a ticket is good, in milliseconds."""


class Tickets:
    """The tickets that are out; times are in milliseconds, on any clock."""

    def __init__(self, capacity: int = 100_000, per_user: int = 100) -> None:
        self.capacity = capacity
        self.per_user = per_user

        # By the name of the ticket and not by itself, as with tokens; in the order in which they end.
        self._out: OrderedDict[str, tuple[int, Identity]] = OrderedDict()
        self._users: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._out)

    def issue(self, ticket: str, identity: Identity, now: int) -> int:
        """Let `ticket`, which nobody can guess, stand for `identity`; returns when it ends.

        Raises `Reject` where the user has too many, `Unavailable` where there are too many in all.
        """
        self._sweep(now)
        if self._users[identity.user] >= self.per_user:
            raise Reject(ErrorCode.RATE_LIMITED, "this user has too many tickets that nobody has used", retry_after=30)
        if len(self._out) >= self.capacity:
            raise Unavailable("there are too many tickets that nobody has used", retry_after=30)
        self._out[token_id(ticket)] = (now + LIFE, identity)
        self._users[identity.user] += 1
        return now + LIFE

    def redeem(self, ticket: str, now: int) -> Identity | None:
        """Whom `ticket` was given to, once; None for one that is not good, or no more."""
        self._sweep(now)
        found = self._out.pop(token_id(ticket), None)
        if found is None:
            return None
        ends, identity = found
        self._forget(identity)
        # The clock may have been set back since, so that the sweep stopped before it.
        return identity if ends > now else None

    def _sweep(self, now: int) -> None:
        while self._out:
            name, (ends, identity) = next(iter(self._out.items()))
            if ends > now:
                return
            del self._out[name]
            self._forget(identity)

    def _forget(self, identity: Identity) -> None:
        self._users[identity.user] -= 1
        if self._users[identity.user] <= 0:
            del self._users[identity.user]
