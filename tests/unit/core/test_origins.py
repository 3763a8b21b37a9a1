"""Which pages may connect: exactly those that were named, and those of the server's own host."""

from __future__ import annotations

import re

import pytest

from hubbub.core.origins import OriginOptions, Standing, standing
from hubbub.errors import ConfigError
from support.origins import NEVER

LISTED = OriginOptions(
    origins=(
        "https://app.example.com",
        "https://app.example.com:8443",
        "http://plain.example",
        "https://xn--mnchen-3ya.example",
        "https://[2001:db8::1]:444",
        "chrome-extension://abcdefghijklmnop",
        "capacitor://localhost",
    )
)
NONE = OriginOptions()
ANY = OriginOptions(origins=("any",))

OWN = "chat.example.com"


@pytest.mark.parametrize("options", [LISTED, NONE], ids=["listed", "own host only"])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("origin", NEVER.values(), ids=NEVER)
def test_nothing_that_only_looks_like_it(origin: str, secure: bool, options: OriginOptions) -> None:
    assert standing(options, origin, OWN, secure=secure, dev=False) is Standing.REFUSED


@pytest.mark.parametrize("name", [name for name in NEVER if name not in ("plain http", "the port of http")])
def test_nothing_that_looks_like_the_own_host(name: str) -> None:
    """The same tricks about the server's own name, which nobody had to list; plain `http` has a test of its own."""
    origin = NEVER[name].replace("app.example.com", OWN)

    assert standing(NONE, origin, OWN, secure=False, dev=False) is Standing.REFUSED


@pytest.mark.parametrize("origin", LISTED.origins)
def test_what_is_listed_comes_in(origin: str) -> None:
    assert standing(LISTED, origin, OWN, secure=True, dev=False) is Standing.LISTED
    assert standing(NONE, origin, OWN, secure=True, dev=False) is Standing.REFUSED


@pytest.mark.parametrize("options", [NONE, LISTED, ANY], ids=["none", "listed", "any"])
@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://chat.example.com", "chat.example.com"),
        ("https://chat.example.com", "chat.example.com:443"),
        ("https://chat.example.com:8443", "chat.example.com:8443"),
        ("https://chat.example.com:80", "chat.example.com:80"),
        ("https://10.0.0.7:8000", "10.0.0.7:8000"),
        ("https://[2001:db8::1]:8000", "[2001:db8::1]:8000"),
        ("https://my_host", "my_host"),
    ],
)
def test_the_own_host_comes_in(origin: str, host: str, options: OriginOptions) -> None:
    assert standing(options, origin, host, secure=True, dev=False) is Standing.OWN
    assert standing(options, origin, host, secure=False, dev=False) is Standing.OWN


def test_a_plain_page_of_the_own_host_only_where_tls_is_not_known_of() -> None:
    """Whoever is between the browser and that page could have put anything into it."""
    page = "http://chat.example.com"

    assert standing(NONE, page, OWN, secure=False, dev=False) is Standing.OWN
    assert standing(NONE, page, OWN + ":80", secure=False, dev=False) is Standing.OWN
    assert standing(NONE, page, OWN, secure=True, dev=False) is Standing.REFUSED
    # A plain page that was listed was meant.
    assert standing(LISTED, "http://plain.example", OWN, secure=True, dev=False) is Standing.LISTED


@pytest.mark.parametrize("host", ["", "evil@chat.example.com", "chat.example.com/", "chat.example.com.", "a b", "CHAT"])
def test_a_host_that_is_none_is_nobodys_own(host: str) -> None:
    assert standing(NONE, f"https://{host}", host, secure=False, dev=False) is Standing.REFUSED


def test_who_sends_no_origin() -> None:
    """No browser, and so no page that somebody else has made."""
    required = OriginOptions(require_origin=True)

    for options in (NONE, LISTED, ANY):
        assert standing(options, None, OWN, secure=False, dev=False) is Standing.ABSENT
    assert standing(required, None, OWN, secure=False, dev=False) is Standing.REFUSED
    assert standing(required, "https://chat.example.com", OWN, secure=False, dev=False) is Standing.OWN


@pytest.mark.parametrize("origin", ["https://evil.example", "http://localhost:3000", "null", "capacitor://localhost"])
def test_any_page_is_foreign(origin: str) -> None:
    """It comes in, and what its browser sent by itself counts for nothing."""
    assert standing(ANY, origin, OWN, secure=False, dev=False) is Standing.FOREIGN


@pytest.mark.parametrize(
    "name", ["empty", "a list", "a user", "a path", "a space behind", "a capital in the host", "data", "a star"]
)
def test_any_page_is_still_a_page(name: str) -> None:
    """What no browser sends is not let in by accident."""
    assert standing(ANY, NEVER[name], OWN, secure=False, dev=False) is Standing.REFUSED


class TestDevelopment:
    """On the developer's own machine whatever serves the page may: and no page from elsewhere."""

    @pytest.mark.parametrize(
        "origin",
        [
            "http://localhost:5173",
            "https://localhost:5173",
            "http://localhost",
            "http://127.0.0.1:3000",
            "http://[::1]:3000",
            "https://[::1]",
        ],
    )
    def test_the_own_machine(self, origin: str) -> None:
        assert standing(NONE, origin, "localhost:8000", secure=False, dev=True) is Standing.LISTED
        assert standing(NONE, origin, "localhost:8000", secure=False, dev=False) is Standing.REFUSED

    @pytest.mark.parametrize(
        "origin",
        [
            "http://localhost.evil.example",
            "http://localhost:5173.evil.example",
            "http://evil-localhost:8000",
            "http://127.0.0.1.evil.example",
            "http://127.0.0.2:3000",
            "http://localhost:0",
            "http://localhost:",
            "ws://localhost:5173",
            "null",
        ],
    )
    def test_nothing_that_only_looks_like_it(self, origin: str) -> None:
        assert standing(NONE, origin, "localhost:8000", secure=False, dev=True) is Standing.REFUSED

    @pytest.mark.parametrize(
        "host", ["localhost:8000", "192.168.0.7:8000", "[fe80::1]:8000", "laptop:8000", "laptop.local", "a.localhost"]
    )
    def test_a_host_that_is_near(self, host: str) -> None:
        assert standing(NONE, f"http://{host}", host, secure=False, dev=True) is Standing.OWN

    @pytest.mark.parametrize("host", ["evil.example:8000", "localhost.evil.example", "10.0.0.evil.example"])
    def test_a_page_whose_own_name_leads_here(self, host: str) -> None:
        """DNS rebinding: to the browser it is one host. Elsewhere a proof is asked for, which such a page has not."""
        assert standing(NONE, f"http://{host}", host, secure=False, dev=True) is Standing.REFUSED
        named = OriginOptions(origins=(f"http://{host}",))
        assert standing(named, f"http://{host}", host, secure=False, dev=True) is Standing.LISTED


@pytest.mark.parametrize(
    ("origin", "said"),
    [
        ("null", "is what every sandboxed page sends: leave it out"),
        ("https://*.example.com", "has a wildcard: list each origin, or `any` alone"),
        ("*", "has a wildcard"),
        ("app.example.com", "has no scheme: write https://app.example.com"),
        ("localhost:3000", "has no scheme: write https://localhost:3000"),
        ("https://App.example.com", "has capitals, and browsers send none: write https://app.example.com"),
        ("https://münchen.example", "give the host in its xn-- form"),
        ("https://app.example.com/", "not even a slash: write https://app.example.com"),
        ("https://app.example.com:8443/chat?x", "write https://app.example.com:8443"),
        ("https://app.example.com:443", "which browsers leave out: write https://app.example.com"),
        ("http://app.example.com:80", "which browsers leave out: write http://app.example.com"),
        ("https://app.example.com:65536", "has a port above 65535"),
        ("https://app.example.com:0", "is no origin: write scheme, host and perhaps a port"),
        ("https://app.example.com:", "is no origin"),
        ("https://app.example.com.", "is no origin"),
        ("https://user@app.example.com", "is no origin"),
        ("https://a.example b.example", "is no origin"),
        ("https://", "is no origin"),
        ("file://", "is no origin"),
        ("https://[2001:DB8::1]", "has capitals"),
        ("https://[2001:db8:0::1]", "is not the shortest form, which browsers send: write [2001:db8::1]"),
        ("https://[1.2.3.4]", "has no IPv6 address between its brackets"),
        ("", "has no scheme"),
    ],
)
def test_an_origin_that_no_browser_sends_is_refused_at_the_start(origin: str, said: str) -> None:
    """It would let nobody in, and its operator would look for the reason elsewhere."""
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        OriginOptions(origins=("https://fine.example", origin))

    assert str(caught.value).startswith(f"the origin {origin!r} ")


def test_any_stands_alone() -> None:
    with pytest.raises(ConfigError, match="'any' stands alone among origins"):
        OriginOptions(origins=("any", "https://app.example.com"))
