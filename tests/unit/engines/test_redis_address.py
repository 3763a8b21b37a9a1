"""URLs of Redis: what they say, what is wrong with them in a sentence, and never a password."""

from __future__ import annotations

import pytest

from hubbub.engines.redis.address import Address, Endpoint
from hubbub.errors import ConfigError


def test_one_redis() -> None:
    """All but the host may be missing, and what is escaped is meant."""
    plain = Address.parse("redis://h")
    full = Address.parse("redis://us%3Aer:p%40s%2Fs:w@h:7000/3")

    assert plain == Address(endpoints=(Endpoint("h", 6379),))
    assert full == Address(endpoints=(Endpoint("h", 7000),), database=3, user="us:er", password="p@s/s:w")
    assert Address.parse("redis://:p@[::1]:7000/").endpoints == (Endpoint("::1", 7000),)
    assert plain.context() is None


def test_sentinels() -> None:
    """Several, with the name of the primary; they may have a password of their own."""
    address = Address.parse(
        "redis+sentinel://:pass@a,b:5000,[::1]/my%2Fmaster/2?sentinel_user=watch&sentinel_password=w%26d"
    )

    assert address.endpoints == (Endpoint("a", 26379), Endpoint("b", 5000), Endpoint("::1", 26379))
    assert (address.primary, address.database, address.password) == ("my/master", 2, "pass")
    assert (address.sentinel_user, address.sentinel_password) == ("watch", "w&d")
    assert str(address) == "my/master of the sentinels at a:26379, b:5000, [::1]:26379"


def test_a_cluster() -> None:
    """Several of its servers, and no database."""
    address = Address.parse("rediss+cluster://user:pass@a,b:7000/?ssl_ca_certs=/ca.pem")

    assert address.cluster and address.endpoints == (Endpoint("a", 6379), Endpoint("b", 7000))
    assert address.authorities == "/ca.pem"


def test_tls() -> None:
    """With the authorities of the system or others, and a certificate of our own."""
    address = Address.parse("rediss://h/0?ssl_ca_certs=/ca.pem&ssl_certfile=/c.pem&ssl_keyfile=/k.pem")

    assert (address.authorities, address.certificate, address.key) == ("/ca.pem", "/c.pem", "/k.pem")
    assert Address.parse("rediss://h").authorities == ""
    with pytest.raises(ConfigError, match="ssl_ca_certs"):
        address.context()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://:hidden@h", "cannot be read"),
        ("redis+sentinels://:hidden@h/m", "cannot be read"),
        ("redis://:hidden@", "no host"),
        ("redis://:hidden@a,b/0", "several hosts"),
        ("redis://:hidden@h:x", "no host"),
        ("redis://:hidden@h:70000", "a port that there is not"),
        ("redis://:hidden@h/x", "no database"),
        ("redis://:hidden@h/-1", "no database"),
        ("redis://:hidden@h/1/2", "no database"),
        ("redis+sentinel://:hidden@h", "what the sentinels call the primary"),
        ("redis+sentinel://:hidden@h/m/x", "no database"),
        ("redis+cluster://:hidden@h/1", "a cluster has none"),
        ("redis://:hidden@h?ssl_ca_certs=/ca.pem", "a parameter"),
        ("redis://:hidden@h?sentinel_password=hidden", "a parameter"),
        ("rediss://:hidden@h?password=hidden", "a parameter"),
        ("rediss://:hidden@h?hidden", "behind its"),
    ],
)
def test_what_is_wrong_is_said(url: str, said: str) -> None:
    """With the form that is right, and without repeating anything."""
    with pytest.raises(ConfigError, match=said) as caught:
        Address.parse(url)

    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["redis://u:hidden@h", "redis+sentinel://:hidden@h/m?sentinel_password=hidden", "redis+cluster://:hidden@h"],
)
def test_a_password_is_never_shown(url: str) -> None:
    """Not in a log, and not in a traceback."""
    address = Address.parse(url)

    assert "hidden" not in f"{address} {address!r}"
