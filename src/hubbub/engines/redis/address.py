"""Where Redis is, and what it wants to hear first: read from a URL, whose passwords are never shown."""

from __future__ import annotations

import re
import ssl
from typing import Final
from urllib.parse import unquote

from msgspec import Struct

from hubbub.engines.shared.tls import PARAMETERS, client_context
from hubbub.engines.shared.url import hosts, parameters
from hubbub.errors import ConfigError

__all__ = ["Address", "Endpoint"]

_FORM: Final = (
    "write redis://user:password@host:6379/0, where all but the host may be missing (rediss: in TLS), "
    "redis+sentinel://user:password@host1:26379,host2:26379/name-of-the-primary/0, "
    "or redis+cluster://user:password@host1:6379,host2:6379"
)
_URL: Final = re.compile(
    r"(?P<secure>rediss|redis)(?P<kind>\+sentinel|\+cluster)?://"
    r"(?:(?P<user>[^/?#:]*)(?::(?P<password>[^/?#]*))?@)?"
    r"(?P<hosts>[^/?#@]*)(?:/(?P<path>[^?#]*))?(?:\?(?P<query>[^#]*))?"
)

# Parameters of the URL, by the names that redis-py gives them, like those of TLS.
_SENTINEL: Final = ("sentinel_user", "sentinel_password")
_WHICH: Final = (
    "ssl_ca_certs, ssl_certfile and ssl_keyfile with rediss, sentinel_user and sentinel_password with +sentinel"
)


class Endpoint(Struct, frozen=True):
    """One server, and its port."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class Address(Struct, frozen=True, kw_only=True):
    """Where Redis is; its text is without the passwords."""

    # One Redis; or sentinels, which know where it is; or some members of a cluster.
    endpoints: tuple[Endpoint, ...]
    cluster: bool = False
    # What sentinels call the primary; nothing where there are none.
    primary: str = ""
    database: int = 0
    user: str = ""
    password: str = ""
    # What the sentinels themselves want to hear.
    sentinel_user: str = ""
    sentinel_password: str = ""
    # A file of authorities in TLS, empty for those of the system; None: no TLS.
    authorities: str | None = None
    # Files of a certificate of our own and its key, for a Redis that asks for one.
    certificate: str = ""
    key: str = ""

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read a URL; raises `ConfigError`, which does not repeat it."""
        parts = _URL.fullmatch(url)
        if parts is None:
            raise ConfigError(f"the URL of the engine cannot be read: {_FORM}")
        sentinels, cluster = parts["kind"] == "+sentinel", parts["kind"] == "+cluster"
        secure = parts["secure"] == "rediss"
        path = (parts["path"] or "").rstrip("/").split("/")
        primary = unquote(path.pop(0)) if sentinels else ""
        database = "/".join(path) or "0"
        if sentinels and not primary:
            raise ConfigError(f"the engine's URL does not say what the sentinels call the primary: {_FORM}")
        if not (database.isascii() and database.isdigit()):
            raise ConfigError(f"the engine's URL names no database: {_FORM}")
        if cluster and int(database):
            raise ConfigError(f"the engine's URL names a database, and a cluster has none: {_FORM}")
        allowed = (*(PARAMETERS if secure else ()), *(_SENTINEL if sentinels else ()))
        more = parameters(parts["query"], allowed, _WHICH, _FORM)
        places = hosts(parts["hosts"], 26379 if sentinels else 6379, _FORM)
        if len(places) > 1 and not (sentinels or cluster):
            raise ConfigError(f"the engine's URL names several hosts, which only sentinels and a cluster have: {_FORM}")
        return cls(
            endpoints=tuple(Endpoint(host, port) for host, port in places),
            cluster=cluster,
            primary=primary,
            database=int(database),
            user=unquote(parts["user"] or ""),
            password=unquote(parts["password"] or ""),
            sentinel_user=more.get("sentinel_user", ""),
            sentinel_password=more.get("sentinel_password", ""),
            authorities=more.get("ssl_ca_certs", "") if secure else None,
            certificate=more.get("ssl_certfile", ""),
            key=more.get("ssl_keyfile", ""),
        )

    def context(self) -> ssl.SSLContext | None:
        """How TLS is spoken, or None; raises `ConfigError` where a file cannot be read."""
        if self.authorities is None:
            return None
        return client_context(self.authorities, self.certificate, self.key)

    def __str__(self) -> str:
        places = ", ".join(map(str, self.endpoints))
        if self.primary:
            return f"{self.primary} of the sentinels at {places}"
        return f"the cluster of {places}" if self.cluster else places

    def __repr__(self) -> str:
        return f"<Redis at {self}>"
