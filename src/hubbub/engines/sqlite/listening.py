"""Which channels the node listens to, and with which epoch each begins, as the loop and the writer both need it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence

__all__ = ["Listening"]


class Listening:
    """The channels that the node listens to; a position in an empty one may have been given away, with its epoch.

    The lock is held for a few assignments, and by the writer together with what decides about new epochs: a channel
    that is forgotten in the very moment in which somebody listens to it must not begin with the epoch that it had.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._epochs: dict[str, str] = {}

    def __contains__(self, channel: str) -> bool:
        return channel in self._epochs

    def epoch(self, channel: str) -> str | None:
        """The epoch with which the channel begins; None where nobody listens."""
        return self._epochs.get(channel)

    def add(self, channels: Sequence[str], new_epoch: Callable[[], str]) -> None:
        """Listen to `channels`, which begin with what `new_epoch` says."""
        with self._lock:
            for channel in channels:
                self._epochs.setdefault(channel, new_epoch())

    def remove(self, channels: Sequence[str]) -> None:
        """Listen to `channels` no more."""
        with self._lock:
            for channel in channels:
                self._epochs.pop(channel, None)

    def forget(self, channels: Iterable[str], change: Callable[[], str]) -> None:
        """`channels` were forgotten: `change` makes it so, and returns the epoch that they begin with from now on."""
        with self._lock:
            epoch = change()
            for channel in channels:
                if channel in self._epochs:
                    self._epochs[channel] = epoch
