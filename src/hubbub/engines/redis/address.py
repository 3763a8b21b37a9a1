"""Where Redis is, and what it wants to hear first: read from a URL, whose password is never shown."""

from __future__ import annotations

import ssl
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

from msgspec import Struct

from hubbub.errors import ConfigError

__all__ = ["Address"]

_FORM: Final = "write redis://user:password@host:6379/0, where all but the host may be missing (rediss: in TLS)"


class Address(Struct, frozen=True, kw_only=True):
    """Where Redis is; its text is without the password."""

    host: str
    port: int = 6379
    database: int = 0
    user: str = ""
    password: str = ""
    # A file of authorities in TLS, empty for those of the system; None: no TLS.
    authorities: str | None = None

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read a URL; raises `ConfigError`, which does not repeat it."""
        try:
            parts = urlsplit(url)
            port = parts.port or 6379
            query = parse_qs(parts.query, strict_parsing=True) if parts.query else {}
            database = int(parts.path.strip("/") or 0)
        except ValueError:
            raise ConfigError(f"the URL of the engine cannot be read: {_FORM}") from None
        if parts.scheme not in ("redis", "rediss"):
            raise ConfigError(f"the engine's URL does not begin with redis:// or rediss://: {_FORM}")
        if not parts.hostname:
            raise ConfigError(f"the engine's URL names no host: {_FORM}")
        if database < 0:
            raise ConfigError(f"the engine's URL names no database: {_FORM}")
        authorities = query.pop("ssl_ca_certs", [""])[-1]
        if query or (authorities and parts.scheme == "redis"):
            raise ConfigError("the engine's URL may have no parameter but ssl_ca_certs, and that only with rediss://")
        return cls(
            host=parts.hostname,
            port=port,
            database=database,
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            authorities=authorities if parts.scheme == "rediss" else None,
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
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __repr__(self) -> str:
        return f"<Redis at {self}>"
