"""How many tickets are out, so that nobody takes them all; what a ticket is, see `hubbub.hub.tickets`.

Full, or a user with too many: a new one is refused, and those that are out stay good; half a minute later there is
room again.
"""

from __future__ import annotations

from collections import Counter, OrderedDict

from hubbub.errors import Reject, Unavailable
from hubbub.protocol.codes import ErrorCode

__all__ = ["LIFE", "Tickets"]

LIFE = 30_000
"""How long a ticket is good, in milliseconds."""


class Tickets:
    """The tickets that this node has given and does not know to be used; times are in milliseconds, on any clock."""

    def __init__(self, capacity: int = 100_000, per_user: int = 100) -> None:
        self.capacity = capacity
        self.per_user = per_user

        # By the name of the ticket and not by itself, as with tokens; in the order in which they end.
        self._out: OrderedDict[str, tuple[int, str]] = OrderedDict()
        self._users: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._out)

    def give(self, name: str, user: str, now: int) -> None:
        """The ticket with this name is given to `user`.

        Raises `Reject` where the user has too many, `Unavailable` where there are too many in all.
        """
        while self._out:
            oldest, (ends, _) = next(iter(self._out.items()))
            if ends > now:
                break
            self.use(oldest)
        if self._users[user] >= self.per_user:
            raise Reject(ErrorCode.RATE_LIMITED, "this user has too many tickets that nobody has used", retry_after=30)
        if len(self._out) >= self.capacity:
            raise Unavailable("there are too many tickets that nobody has used", retry_after=30)
        self._out[name] = (now + LIFE, user)
        self._users[user] += 1

    def use(self, name: str) -> None:
        """The ticket with this name is out no more; harmless where another node has given it."""
        found = self._out.pop(name, None)
        if found is not None:
            self._users[found[1]] -= 1
            if self._users[found[1]] <= 0:
                del self._users[found[1]]
