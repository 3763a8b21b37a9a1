"""Who was here, and until when: last-seen times of users, bounded and forgotten after a while."""

from __future__ import annotations

__all__ = ["LastSeen"]


class LastSeen:
    """When users that are offline were last seen; the longest gone are forgotten first.

    Times are milliseconds since the Unix epoch.
    """

    def __init__(self, size: int = 100_000, age: int = 1_800_000) -> None:
        self._size = size
        self._age = age
        # In the order of leaving, so also of age.
        self._times: dict[str, int] = {}

    def note(self, user: str, now: int) -> None:
        """`user` has just gone."""
        self._times.pop(user, None)
        self._times[user] = now
        while len(self._times) > self._size:
            del self._times[next(iter(self._times))]

    def get(self, user: str, now: int) -> int | None:
        """When `user` was last seen; None where that is unknown or too long ago."""
        seen = self._times.get(user)
        return seen if seen is not None and seen > now - self._age else None

    def __len__(self) -> int:
        return len(self._times)
