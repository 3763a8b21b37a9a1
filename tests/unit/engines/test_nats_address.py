"""A URL says where NATS is and what it wants to hear; nothing that is secret is ever shown."""

from __future__ import annotations

import pytest

from hubbub.engines.nats.address import Address
from hubbub.errors import ConfigError


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("nats://host", Address(hosts=(("host", 4222),))),
        ("nats://host:1/", Address(hosts=(("host", 1),))),
        ("nats://a,b:2,[::1]:3", Address(hosts=(("a", 4222), ("b", 2), ("::1", 3)))),
        ("nats://secret@host", Address(hosts=(("host", 4222),), token="secret")),
        ("nats://hub:p%40ss%2F@host", Address(hosts=(("host", 4222),), user="hub", password="p@ss/")),
        ("tls://host", Address(hosts=(("host", 4222),), authorities="")),
        (
            "tls://host?ssl_ca_certs=/ca.pem&ssl_certfile=/c.pem&ssl_keyfile=/k.pem",
            Address(hosts=(("host", 4222),), authorities="/ca.pem", certificate="/c.pem", key="/k.pem"),
        ),
    ],
)
def test_what_a_url_says(url: str, address: Address) -> None:
    """What stands alone before the host is a token, as NATS' own programs have it."""
    assert Address.parse(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "http://hub:secret@host",
        "nats://",
        "nats://hub:secret@",
        "nats://hub:secret@host:0",
        "nats://hub:secret@host:99999",
        "nats://hub:secret@a,,b",
        "nats://hub:secret@host/path",
        "nats://hub:secret@host?ssl_ca_certs=/ca.pem",
        "tls://hub:secret@host?other=1",
        "tls://hub:secret@host?nonsense",
    ],
)
def test_what_cannot_be_read_is_not_repeated(url: str) -> None:
    """There may be a password in it."""
    with pytest.raises(ConfigError) as caught:
        Address.parse(url)

    assert "secret" not in str(caught.value)


def test_its_text_is_without_secrets() -> None:
    address = Address.parse("nats://hub:secret@a:1,[::1]:2")

    assert (str(address), repr(address)) == ("a:1,[::1]:2", "<NATS at a:1,[::1]:2>")
