"""The first question to whoever comes, on every path: may this page connect at all, and this way?"""

from __future__ import annotations

import logging
from typing import Final

import msgspec

from hubbub.core.origins import Standing, standing
from hubbub.hub.options import HubOptions
from hubbub.protocol.codes import ErrorCode
from hubbub.transports.base import Handshake, Refuse

__all__ = ["over_tls", "screen"]

log = logging.getLogger("hubbub.hub")

_NOT_TLS: Final = Refuse(
    status=403,
    code=ErrorCode.FORBIDDEN,
    message="this server is reached over TLS only: use wss:// or https://",
    why="not over TLS",
)


def over_tls(options: HubOptions, request: Handshake) -> Refuse | None:
    """A refusal for a request that should have come over TLS, and did not."""
    return _NOT_TLS if options.require_tls and not request.secure else None


def screen(options: HubOptions, handshake: Handshake) -> Handshake | Refuse:
    """The handshake to go on with, or why it ends here; before anything in it is believed.

    A page that is let in only because every page is goes on without its cookies: the browser sent them whether or
    not somebody wanted it to.
    """
    refusal = over_tls(options, handshake)
    if refusal is not None:
        return refusal
    headers = handshake.headers
    origin = headers.get("origin")
    found = standing(options.origin, origin, headers.get("host", ""), secure=handshake.secure, dev=options.dev)
    if found is Standing.REFUSED:
        # A page's origin is no secret, but text of a stranger's.
        why = "no origin" if origin is None else f"origin {origin[:200]}"
        message = _explained(origin) if options.dev else "this page may not connect"
        return Refuse(status=403, code=ErrorCode.FORBIDDEN, message=message, why=why)
    if found is Standing.FOREIGN and "cookie" in headers:
        rest = {name: value for name, value in headers.items() if name != "cookie"}
        return msgspec.structs.replace(handshake, headers=rest)
    return handshake


def _explained(origin: str | None) -> str:
    """The refusal in dev mode: for who wrote the page, and in the log, since browsers show no refusal."""
    if origin is None:
        message = "clients without an Origin header may not connect: --require-origin is set"
    elif "://" not in origin:
        message = f"pages of {origin} may not connect: serve them from a web server, not from a file or in a sandbox"
    else:
        message = f"pages of {origin} may not connect: allow them with --origins {origin}"
    log.warning("refused: %s", message)
    return message
