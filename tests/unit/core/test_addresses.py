"""Whose connection it is, whatever a client writes into the headers that proxies write."""

from __future__ import annotations

import pytest

from hubbub.core.addresses import TrustedProxies, block_of
from hubbub.errors import ConfigError

PROXIES = TrustedProxies(["10.0.0.0/8", "2001:db8:1::/48", "192.0.2.7"])


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        # Nobody else's word counts.
        ("198.51.100.9", "203.0.113.5", "198.51.100.9"),
        ("198.51.100.9", "10.0.0.1", "198.51.100.9"),
        ("192.0.2.8", "203.0.113.5", "192.0.2.8"),
        ("2001:db8:2::1", "203.0.113.5", "2001:db8:2::1"),
        # One proxy.
        ("10.1.2.3", "203.0.113.5", "203.0.113.5"),
        ("192.0.2.7", "203.0.113.5", "203.0.113.5"),
        ("2001:db8:1::1", "2001:db8:9::5", "2001:db8:9::5"),
        ("10.1.2.3", "", "10.1.2.3"),
        # What stands left of the client's own address is the client's invention.
        ("10.1.2.3", "1.1.1.1, 203.0.113.5", "203.0.113.5"),
        ("10.1.2.3", "10.0.0.1, 203.0.113.5", "203.0.113.5"),
        ("10.1.2.3", "203.0.113.5, 198.51.100.9", "198.51.100.9"),
        ("10.1.2.3", "127.0.0.1,::1 , 203.0.113.5", "203.0.113.5"),
        # Several proxies, all ours; one of them not.
        ("10.1.2.3", "203.0.113.5, 192.0.2.7, 10.9.9.9", "203.0.113.5"),
        ("10.1.2.3", "203.0.113.5, 192.0.2.8, 10.9.9.9", "192.0.2.8"),
        # Nobody but proxies: whoever is furthest.
        ("10.1.2.3", "10.5.5.5, 10.9.9.9", "10.5.5.5"),
        # What is no address ends the walk where it is.
        ("10.1.2.3", "unknown", "10.1.2.3"),
        ("10.1.2.3", "203.0.113.5, unknown", "10.1.2.3"),
        ("10.1.2.3", "203.0.113.5, , 10.9.9.9", "10.9.9.9"),
        ("10.1.2.3", "203.0.113.5;10.9.9.9", "10.1.2.3"),
        ("10.1.2.3", "203.0.113.05", "10.1.2.3"),
        ("10.1.2.3", "203.0.113", "10.1.2.3"),
        ("10.1.2.3", "3405803781", "10.1.2.3"),
        ("10.1.2.3", "fe80::1%eth0", "10.1.2.3"),
        ("10.1.2.3", "evil.example", "10.1.2.3"),
        ("10.1.2.3", "203.0.113.5\t", "203.0.113.5"),
        # With a port, as some write it.
        ("10.1.2.3", "203.0.113.5:4711", "203.0.113.5"),
        ("10.1.2.3", "[2001:db8:9::5]:4711", "2001:db8:9::5"),
        ("10.1.2.3", "[2001:db8:9::5]", "2001:db8:9::5"),
        # The same address in other words.
        ("10.1.2.3", "::ffff:203.0.113.5", "203.0.113.5"),
        ("10.1.2.3", "2001:DB8:9:0:0:0:0:5", "2001:db8:9::5"),
        ("::ffff:10.1.2.3", "203.0.113.5", "203.0.113.5"),
        ("10.1.2.3", "::ffff:10.5.5.5, 10.9.9.9", "10.5.5.5"),
    ],
)
def test_x_forwarded_for(peer: str, forwarded: str, client: str) -> None:
    """From the right, over proxies of ours, to the first address of somebody else."""
    assert PROXIES.client(peer, forwarded) == client


def test_without_trusted_proxies_the_peer_is_the_client() -> None:
    for peer in ("127.0.0.1", "::1", "10.1.2.3"):
        assert TrustedProxies().client(peer, "203.0.113.5") == peer
        assert TrustedProxies().secure(peer, False, "https") is False


@pytest.mark.parametrize(
    ("peer", "secure", "forwarded", "found"),
    [
        ("198.51.100.9", False, "https", False),
        ("198.51.100.9", True, "http", True),
        ("10.1.2.3", False, "https", True),
        ("10.1.2.3", False, "HTTPS", True),
        ("10.1.2.3", False, "wss", True),
        ("10.1.2.3", False, "http", False),
        # TLS between the proxy and us says nothing about the client's connection.
        ("10.1.2.3", True, "http", False),
        ("10.1.2.3", True, "", True),
        ("10.1.2.3", False, "", False),
        # A list: one of them was not, or was made up.
        ("10.1.2.3", False, "https, http", False),
        ("10.1.2.3", False, "http, https", False),
        ("10.1.2.3", False, "https, https", True),
        ("10.1.2.3", False, "https,", False),
        ("10.1.2.3", False, "on", False),
    ],
)
def test_x_forwarded_proto(peer: str, secure: bool, forwarded: str, found: bool) -> None:
    assert PROXIES.secure(peer, secure, forwarded) is found


@pytest.mark.parametrize("network", ["nonsense", "10.0.0.1/8", "10.0.0.0/33", "", "localhost", "10.0.0.0-10.0.0.9"])
def test_what_is_no_network_is_refused(network: str) -> None:
    """Also one with bits beyond its length: it is not clear what was meant."""
    with pytest.raises(ConfigError, match="write networks such as 10"):
        TrustedProxies([network])


def test_it_says_what_it_holds() -> None:
    assert str(PROXIES) == "10.0.0.0/8, 2001:db8:1::/48, 192.0.2.7/32"
    assert "10.0.0.0/8" in repr(PROXIES)
    assert PROXIES == TrustedProxies(str(PROXIES).split(", ")) != TrustedProxies()
    assert hash(TrustedProxies()) == hash(TrustedProxies([]))


@pytest.mark.parametrize(
    ("ip", "block"),
    [
        ("203.0.113.5", "203.0.113.5"),
        ("2001:db8:9:1:a:b:c:d", "2001:db8:9:1::/64"),
        ("2001:db8:9:1::", "2001:db8:9:1::/64"),
        ("2001:db8:9:2::", "2001:db8:9:2::/64"),
        ("::1", "::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("somewhere", "somewhere"),
    ],
)
def test_an_ipv6_subscriber_counts_as_one(ip: str, block: str) -> None:
    """Who has one address has 2^64 of them."""
    assert block_of(ip) == block
