"""Where NATS is, and what it wants to hear first: read from a URL, whose password and token are never shown."""

from __future__ import annotations

import re
import ssl
from typing import Final
from urllib.parse import unquote

from msgspec import Struct

from hubbub.engines.shared.tls import PARAMETERS, client_context
from hubbub.engines.shared.url import hosts, parameters
from hubbub.errors import ConfigError

__all__ = ["Address"]

_FORM: Final = (
    "write nats://user:password@host:4222, where all but the host may be missing, or several hosts with commas between "
    "them (tls: in TLS)"
)
_URL: Final = re.compile(
    r"(?P<scheme>nats|tls)://(?:(?P<user>[^/?#:]*)(?::(?P<password>[^/?#]*))?@)?"
    r"(?P<hosts>[^/?#@]*)/?(?:\?(?P<query>[^#]*))?"
)
_WHICH: Final = "ssl_ca_certs, ssl_certfile and ssl_keyfile with tls"


class Address(Struct, frozen=True, kw_only=True):
    """Where NATS is, in one or several places; its text is without what is secret."""

    # Host and port of each server, in the order in which they are tried.
    hosts: tuple[tuple[str, int], ...]
    user: str = ""
    password: str = ""
    token: str = ""
    # A file of authorities in TLS, empty for those of the system; None: no TLS.
    authorities: str | None = None
    # Files of a certificate of our own and its key, for a NATS that asks for one.
    certificate: str = ""
    key: str = ""

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read a URL; several hosts stand with commas between them. Raises `ConfigError`, which does not repeat it."""
        parts = _URL.fullmatch(url)
        if parts is None:
            raise ConfigError(f"the URL of the engine cannot be read: {_FORM}")
        secure = parts["scheme"] == "tls"
        more = parameters(parts["query"], PARAMETERS if secure else (), _WHICH, _FORM)
        # What stands alone before the host is a token: so NATS' own programs read it.
        user, token = (parts["user"] or "", "") if parts["password"] is not None else ("", parts["user"] or "")
        return cls(
            hosts=tuple(hosts(parts["hosts"], 4222, _FORM)),
            user=unquote(user),
            password=unquote(parts["password"] or ""),
            token=unquote(token),
            authorities=more.get("ssl_ca_certs", "") if secure else None,
            certificate=more.get("ssl_certfile", ""),
            key=more.get("ssl_keyfile", ""),
        )

    def context(self) -> ssl.SSLContext | None:
        """How TLS is spoken, or None; raises `ConfigError` where a file cannot be read."""
        return None if self.authorities is None else client_context(self.authorities, self.certificate, self.key)

    def __str__(self) -> str:
        return ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)

    def __repr__(self) -> str:
        return f"<NATS at {self}>"
