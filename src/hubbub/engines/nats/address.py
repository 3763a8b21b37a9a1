"""Where NATS is, and what it wants to hear first: read from a URL, whose password and token are never shown."""

from __future__ import annotations

import ssl
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

from msgspec import Struct

from hubbub.errors import ConfigError

__all__ = ["Address"]

_FORM: Final = "write nats://user:password@host:4222, where all but the host may be missing (tls: in TLS)"


class Address(Struct, frozen=True, kw_only=True):
    """Where NATS is, in one or several places; its text is without what is secret."""

    # Host and port of each server, in the order in which they are tried.
    hosts: tuple[tuple[str, int], ...]
    user: str = ""
    password: str = ""
    token: str = ""
    # A file of authorities in TLS, empty for those of the system; None: no TLS.
    authorities: str | None = None

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read a URL; several hosts stand with commas between them. Raises `ConfigError`, which does not repeat it."""
        scheme, separator, rest = url.partition("://")
        if scheme not in ("nats", "tls") or not separator:
            raise ConfigError(f"the engine's URL does not begin with nats:// or tls://: {_FORM}")
        rest, _, query = rest.partition("?")
        secrets, _, places = rest.rpartition("@")
        try:
            hosts = tuple(_host(place) for place in places.removesuffix("/").split(","))
            parameters = parse_qs(query, strict_parsing=True) if query else {}
        except ValueError:
            raise ConfigError(f"the URL of the engine cannot be read: {_FORM}") from None
        if not all(host for host, _ in hosts):
            raise ConfigError(f"the engine's URL names no host: {_FORM}")
        authorities = parameters.pop("ssl_ca_certs", [""])[-1]
        if parameters or (authorities and scheme == "nats"):
            raise ConfigError("the engine's URL may have no parameter but ssl_ca_certs, and that only with tls://")
        user, password = secrets.partition(":")[::2]
        alone = ":" not in secrets
        return cls(
            hosts=hosts,
            # What stands alone before the host is a token: so NATS' own programs read it.
            user="" if alone else unquote(user),
            password=unquote(password),
            token=unquote(user) if alone else "",
            authorities=authorities if scheme == "tls" else None,
        )

    def context(self) -> ssl.SSLContext | None:
        """How TLS is spoken, or None; raises `ConfigError` where the authorities cannot be read."""
        if self.authorities is None:
            return None
        try:
            return ssl.create_default_context(cafile=self.authorities or None)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"the authorities in {self.authorities} cannot be read ({error}): name a PEM file in ssl_ca_certs"
            ) from None

    def __str__(self) -> str:
        return ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)

    def __repr__(self) -> str:
        return f"<NATS at {self}>"


def _host(place: str) -> tuple[str, int]:
    parts = urlsplit(f"//{place}")
    if parts.path or parts.username is not None:
        raise ValueError("no host and port")
    return parts.hostname or "", parts.port or 4222
