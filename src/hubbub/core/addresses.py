"""Whose connection it is: the client's address behind proxies, and which addresses count as one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

from hubbub.errors import ConfigError

__all__ = ["TrustedProxies", "block_of"]

_Address = IPv4Address | IPv6Address

# Bits of an IPv6 address that are its network's: whoever has one such network has 2^64 addresses (RFC 6177).
_NETWORK_BITS = 64


@lru_cache(10_000)
def block_of(ip: str) -> str:
    """What to count an address under: itself, and of IPv6 the /64 that it is in, which is one subscriber's."""
    address = _address(ip)
    if not isinstance(address, IPv6Address):
        return ip
    return str(IPv6Network((address, _NETWORK_BITS), strict=False))


class TrustedProxies:
    """The proxies whose word about their clients is believed: networks such as `10.0.0.0/8`, or single addresses.

    Raises `ConfigError` for what is neither.
    """

    __slots__ = ("_networks",)

    def __init__(self, networks: Iterable[object] = ()) -> None:
        try:
            self._networks = tuple(ip_network(str(network)) for network in networks)
        except ValueError:
            raise ConfigError("write networks such as 10.0.0.0/8 (no bits beyond the 8), or addresses") from None

    def __str__(self) -> str:
        return ", ".join(str(network) for network in self._networks)

    def __repr__(self) -> str:
        return f"TrustedProxies({[str(network) for network in self._networks]})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TrustedProxies) and self._networks == other._networks

    def __hash__(self) -> int:
        return hash(self._networks)

    def __contains__(self, ip: str) -> bool:
        address = _address(ip) if self._networks else None
        return address is not None and self._trusts(address)

    def resolve(self, peer: str, secure: bool, headers: Mapping[str, str]) -> tuple[str, bool]:
        """The client's address, and whether its connection is over TLS, of a request that came from `peer`.

        `secure` is whether that one's connection is; `headers` are by lower-case name.
        """
        if peer not in self:
            return peer, secure
        client = self.client(peer, headers.get("x-forwarded-for", ""))
        return client, self.secure(peer, secure, headers.get("x-forwarded-proto", ""))

    def client(self, peer: str, forwarded: str) -> str:
        """The client's address: `peer` is the connection's, `forwarded` what X-Forwarded-For says, if anything.

        Each proxy has written the address of who spoke to it behind what was there already. So the list is true from
        its right end as far as proxies of ours wrote it, and the first address of somebody else is the client's. What
        is left of that, or of what is no address, anybody may have made up.
        """
        client = peer
        for hop in reversed(forwarded.split(",")):
            if client not in self:
                break
            address = _hop(hop)
            if address is None:
                break
            client = str(address)
        return client

    def secure(self, peer: str, secure: bool, forwarded: str) -> bool:
        """Whether the client's connection is over TLS: `forwarded` is what X-Forwarded-Proto says, if anything.

        Where proxies have made a list of it, all have to say so: the first could be the client's own invention.
        """
        if not forwarded or peer not in self:
            return secure
        return all(scheme.strip().lower() in ("https", "wss") for scheme in forwarded.split(","))

    def _trusts(self, address: _Address) -> bool:
        return any(address in network for network in self._networks)


def _address(text: str) -> _Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    # The same client, however the socket it came by names it (RFC 4291 §2.5.5.2).
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _hop(text: str) -> _Address | None:
    """One entry of X-Forwarded-For; some proxies write a port, too."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    address = _address(text)
    # A zone is a name that only its own machine knows.
    return None if isinstance(address, IPv6Address) and address.scope_id else address
