"""Who comes, and how often: the client's own address behind proxies, and the rates of handshakes."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from ipaddress import ip_address

import msgspec

from hubbub.core.addresses import TrustedProxies, block_of
from hubbub.core.rates import Meters, Rate, RateLimits, Refused
from hubbub.protocol.codes import ErrorCode
from hubbub.transports.base import Handshake, Refuse

__all__ = ["Arrivals"]

log = logging.getLogger("hubbub.hub")


class Arrivals:
    """What every handshake has to pass before anything is done for it."""

    def __init__(self, limits: RateLimits, proxies: TrustedProxies, clock: Callable[[], float]) -> None:
        self._proxies = proxies
        self._clock = clock
        off = limits.rate_limit.off
        self._all = None if off else limits.handshake_rate.meter()
        per_ip: Rate | None = None if off or limits.handshake_rate_ip.off else limits.handshake_rate_ip
        self._ips = None if per_ip is None else Meters(per_ip)

        # Whether the operator has been told of a proxy that looks forgotten.
        self._warned = False

    def __len__(self) -> int:
        """How many addresses have a meter."""
        return len(self._ips or ())

    def resolve(self, handshake: Handshake) -> Handshake:
        """The handshake as the client made it: with its own address, and whether its own connection is over TLS."""
        forwarded = handshake.headers.get("x-forwarded-for", "")
        scheme = handshake.headers.get("x-forwarded-proto", "")
        if not forwarded and not scheme:
            return handshake
        peer = handshake.ip
        if peer not in self._proxies:
            self._warn_of_a_proxy(peer)
            return handshake
        return msgspec.structs.replace(
            handshake,
            ip=self._proxies.client(peer, forwarded),
            secure=self._proxies.secure(peer, handshake.secure, scheme),
        )

    def take(self, handshake: Handshake) -> Refuse | None:
        """Count a handshake, whose address is the client's; or say that there are too many."""
        now = self._clock()
        # By address first: one that is over its own rate uses up nothing of everybody's.
        if self._ips is not None:
            mine = self._ips.of(block_of(handshake.ip), now)
            refused = mine.take(now)
            if isinstance(refused, Refused):
                return _too_many("too many connections from this address: wait a little", refused)
        if self._all is not None:
            refused = self._all.take(now)
            if isinstance(refused, Refused):
                if self._ips is not None:
                    mine.give_back()
                return _too_many("too many are connecting: wait a little", refused)
        return None

    def _warn_of_a_proxy(self, peer: str) -> None:
        # Anybody may send these headers. From the outside nobody has such an address, so this one is the operator's.
        if not self._warned and ip_address(peer).is_private:
            self._warned = True
            log.warning(
                "%s sends X-Forwarded-For or -Proto and is not one of trusted_proxies: all its clients count as one",
                peer,
            )


def _too_many(message: str, refused: Refused) -> Refuse:
    return Refuse(
        status=429,
        code=ErrorCode.RATE_LIMITED,
        message=message,
        retry_after=max(1, math.ceil(refused.seconds)),
    )
