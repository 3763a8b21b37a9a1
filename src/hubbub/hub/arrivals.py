"""How often clients may come: the rates of handshakes."""

from __future__ import annotations

import math
from collections.abc import Callable

from hubbub.core.addresses import block_of
from hubbub.core.rates import Meters, RateLimits, Refused
from hubbub.protocol.codes import ErrorCode
from hubbub.transports.base import Refuse

__all__ = ["Arrivals"]


class Arrivals:
    """What every handshake has to pass before anything is done for it."""

    def __init__(self, limits: RateLimits, clock: Callable[[], float]) -> None:
        self._clock = clock
        off = limits.rate_limit.off
        self._all = None if off else limits.handshake_rate.meter()
        self._ips = None if off or limits.handshake_rate_ip.off else Meters(limits.handshake_rate_ip)

    def __len__(self) -> int:
        """How many addresses have a meter."""
        return len(self._ips or ())

    def take(self, ip: str) -> Refuse | None:
        """Count a handshake of the client with this address; or say that there are too many."""
        now = self._clock()
        mine = None if self._ips is None else self._ips.of(block_of(ip), now)
        # By address first: one that is over its own rate uses up nothing of everybody's.
        refused = None if mine is None else mine.take(now)
        if isinstance(refused, Refused):
            return _too_many("too many connections from this address: wait a little", refused)
        refused = None if self._all is None else self._all.take(now)
        if isinstance(refused, Refused):
            if mine is not None:
                mine.give_back()
            return _too_many("too many are connecting: wait a little", refused)
        return None


def _too_many(message: str, refused: Refused) -> Refuse:
    retry_after = max(1, math.ceil(refused.seconds))
    return Refuse(status=429, code=ErrorCode.RATE_LIMITED, message=message, retry_after=retry_after)
