"""Which tokens are good no more, though their time has not come: single ones, and all of a user's up to a moment.

What is remembered ends by itself, when the last token that it concerns would have. It is bounded and never forgets
early: when it is full, it takes no more, and whoever wants to revoke is told.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct
from msgspec.structs import replace

from hubbub.types import Identity

__all__ = ["CAPACITY", "Revocation", "Revocations"]

CAPACITY = 100_000
"""Revocations that are remembered at once."""


class Revocation(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One token, or every token of a user that was made until `at`; all times in milliseconds since the Unix epoch."""

    at: int
    # Until when it must be remembered.
    until: int
    user: str | None = None
    token_id: str | None = None

    def concerns(self, identity: Identity) -> bool:
        """Whether it is this proof that is revoked.

        One that does not say when it was made may have been made before.
        """
        if self.token_id is not None:
            return identity.token_id == self.token_id
        return identity.user == self.user and (identity.issued is None or identity.issued <= self.at)


class Revocations:
    """All revocations that still matter."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
        self._users: dict[str, Revocation] = {}
        self._tokens: dict[str, Revocation] = {}

    def __len__(self) -> int:
        return len(self._users) + len(self._tokens)

    def __iter__(self) -> Iterator[Revocation]:
        yield from self._users.values()
        yield from self._tokens.values()

    def add(self, revocation: Revocation, now: int) -> bool:
        """Remember `revocation`, if it still matters; of two for the same the later counts. False: it is full."""
        if revocation.user is not None:
            kept, name = self._users, revocation.user
        else:
            kept, name = self._tokens, revocation.token_id or ""
        known = kept.get(name)
        if revocation.until <= now:
            return True
        if known is not None:
            # Of each the later: neither takes anything back.
            kept[name] = replace(known, at=max(known.at, revocation.at), until=max(known.until, revocation.until))
            return True
        if len(self) >= self.capacity:
            return False
        kept[name] = revocation
        return True

    def knows(self, revocation: Revocation) -> bool:
        """Whether everybody whom `revocation` concerns is concerned already."""
        if revocation.user is None:
            return revocation.token_id in self._tokens
        known = self._users.get(revocation.user)
        return known is not None and known.at >= revocation.at

    def concern(self, identity: Identity) -> bool:
        """Whether `identity` is proved by something that has been revoked."""
        if not self._users and not self._tokens:
            return False
        by_user, by_token = self._users.get(identity.user), self._tokens.get(identity.token_id)
        return (by_user is not None and by_user.concerns(identity)) or by_token is not None

    def sweep(self, now: int) -> None:
        """Forget what has ended."""
        for kept in (self._users, self._tokens):
            for name in [name for name, revocation in kept.items() if revocation.until <= now]:
                del kept[name]
