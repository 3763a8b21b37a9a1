"""TLS to a server of an engine: whom to trust, and what to show, as its URL names it."""

from __future__ import annotations

import os
import ssl
from functools import lru_cache
from typing import Final

from hubbub.errors import ConfigError

__all__ = ["PARAMETERS", "client_context"]

PARAMETERS: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
"""Parameters of the URL: a file of authorities, and files of a certificate of our own and its key."""


def client_context(authorities: str = "", certificate: str = "", key: str = "") -> ssl.SSLContext:
    """How TLS is spoken; without authorities those of the system. Raises `ConfigError` where a file cannot be read."""
    names = authorities, certificate, key
    changed = tuple(os.stat(name).st_mtime_ns for name in names if name and os.path.exists(name))
    return _context(*names, changed)


@lru_cache(4)
def _context(authorities: str, certificate: str, key: str, changed: tuple[int, ...]) -> ssl.SSLContext:
    """Made once for all connections, until a file has `changed`: those of the system are read for 20 ms."""
    try:
        context = ssl.create_default_context(cafile=authorities or None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"the authorities in {authorities} cannot be read ({error}): name a PEM file in ssl_ca_certs"
        ) from None
    if certificate:
        try:
            context.load_cert_chain(certificate, key or None)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"the certificate in {certificate} cannot be used ({error}): "
                "name PEM files in ssl_certfile and ssl_keyfile"
            ) from None
    return context
