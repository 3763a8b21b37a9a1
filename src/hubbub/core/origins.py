"""Which pages may connect: a browser names the page in `Origin`, and only exact origins are let in.

A browser lets every page open a WebSocket to every server, and sends that server's cookies along. The origin is the
one thing that a page cannot choose, so it is compared byte for byte, as browsers write it (RFC 6454 §6.2), and
nothing is guessed or made alike.
"""

from __future__ import annotations

import re
from enum import StrEnum
from ipaddress import IPv6Address
from typing import Annotated, Final

from msgspec import Meta, Struct

from hubbub.errors import ConfigError

__all__ = ["ANY", "OriginOptions", "Standing", "standing"]

ANY: Final = "any"
"""Instead of origins: every page may connect."""


class OriginOptions(Struct, frozen=True, kw_only=True):
    """Which pages may connect, beside those of the server's own host; raises `ConfigError` for what is no origin."""

    origins: Annotated[
        tuple[str, ...],
        Meta(
            description="pages of these origins may connect, such as https://app.example.com; "
            "none: only those of the server's own host; `any`: all, and their cookies count for nothing"
        ),
    ] = ()
    require_origin: Annotated[
        bool, Meta(description="refuse clients that send no origin: those that are no browsers")
    ] = False

    def __post_init__(self) -> None:
        if ANY in self.origins:
            if len(self.origins) > 1:
                raise ConfigError(f"{ANY!r} stands alone among origins: leave it out, or everything else")
            return
        for origin in self.origins:
            wrong = _what_is_wrong(origin)
            if wrong:
                raise ConfigError(f"the origin {origin!r} {wrong}")


class Standing(StrEnum):
    """How a page stands to the server that it wants to connect to."""

    # Of the server's own host.
    OWN = "own"
    # On the operator's list, or, in dev mode, of the developer's own machine.
    LISTED = "listed"
    # Let in because everybody is: whatever the browser sent by itself proves nothing.
    FOREIGN = "foreign"
    # No page at all, as far as one can tell.
    ABSENT = "absent"
    REFUSED = "refused"


_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?"
_HOST: Final = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-f:.]+\])"
_PLACE: Final = re.compile(rf"(?P<host>{_HOST})(?::(?P<port>[1-9][0-9]{{0,4}}))?")
_ORIGIN: Final = re.compile(rf"(?P<scheme>[a-z][a-z0-9+.-]*)://{_PLACE.pattern}")
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}

# The developer's own machine, whatever serves the page there.
_LOCAL: Final = re.compile(r"https?://(?:localhost|127\.0\.0\.1|\[::1\])(?::[1-9][0-9]{0,4})?")

# Hosts whose name nobody far away can have: an address, a name without a dot, one of the local network.
_NEAR: Final = re.compile(r"\[.*\]|[0-9.]+|[^.]+|.*\.(?:localhost|local)")


def standing(options: OriginOptions, origin: str | None, host: str, *, secure: bool, dev: bool) -> Standing:
    """How the page with this `Origin` header (None: there was none) stands to a request with this `Host` header.

    `secure`: the connection is known to have come over TLS, which no page of plain `http` on the same host may use.
    """
    if origin is None:
        return Standing.REFUSED if options.require_origin else Standing.ABSENT
    if _is_own(origin, host, secure) and (not dev or _is_near(host)):
        return Standing.OWN
    if origin in options.origins or (dev and _LOCAL.fullmatch(origin)):
        return Standing.LISTED
    # A sandboxed page, or one from a file, is "null".
    if ANY in options.origins and (origin == "null" or _ORIGIN.fullmatch(origin)):
        return Standing.FOREIGN
    return Standing.REFUSED


def _is_own(origin: str, host: str, secure: bool) -> bool:
    place = _PLACE.fullmatch(host)
    if place is None:
        return False
    for scheme in ("https",) if secure else ("https", "http"):
        # Some proxies write the port that browsers leave out.
        shown = place["host"] if place["port"] == _DEFAULT_PORTS[scheme] else host
        if origin == f"{scheme}://{shown}":
            return True
    return False


def _is_near(host: str) -> bool:
    # In dev mode nobody proves anything, and a page can have its own name lead to this machine (DNS rebinding):
    # then both headers hold that name.
    place = _PLACE.fullmatch(host)
    return place is not None and _NEAR.fullmatch(place["host"]) is not None


def _what_is_wrong(origin: str) -> str:
    """Why a browser would never send this; empty where it could."""
    if origin == "null":
        return "is what every sandboxed page sends: leave it out"
    if "*" in origin:
        return "has a wildcard: list each origin, or `any` alone"
    if not origin.isascii():
        return "has letters that browsers write in ASCII: give the host in its xn-- form"
    if "://" not in origin:
        return f"has no scheme: write https://{origin.lower()}"
    if origin != origin.lower():
        return f"has capitals, and browsers send none: write {origin.lower()}"
    read = _ORIGIN.fullmatch(origin)
    if read is None:
        begun = _ORIGIN.match(origin)
        if begun is not None and origin[begun.end() :].startswith("/"):
            return f"has a path, and an origin has none, not even a slash: write {begun[0]}"
        return "is no origin: write scheme, host and perhaps a port, such as https://app.example.com:8443"
    if read["port"] == _DEFAULT_PORTS.get(read["scheme"]) and read["port"]:
        return f"has its scheme's own port, which browsers leave out: write {read['scheme']}://{read['host']}"
    if read["port"] and int(read["port"]) > 65_535:
        return "has a port above 65535"
    if read["host"].startswith("["):
        return _what_is_wrong_in_ipv6(read["host"][1:-1])
    return ""


def _what_is_wrong_in_ipv6(address: str) -> str:
    try:
        shortest = IPv6Address(address).compressed
    except ValueError:
        return "has no IPv6 address between its brackets"
    return "" if shortest == address else f"is not the shortest form, which browsers send: write [{shortest}]"
