"""Who comes in: a handshake is checked against limits and proof of identity, and becomes a session or a refusal."""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
from typing import TYPE_CHECKING, Final

from hubbub.eager import in_task
from hubbub.errors import Reject
from hubbub.hub.door import screen
from hubbub.hub.formats import CODECS, subprotocol_of
from hubbub.hub.hooks import Credentials, Hooks
from hubbub.hub.pipeline import user_named
from hubbub.hub.session import Session
from hubbub.protocol.codes import HANDSHAKE, RETRYABLE, ErrorCode
from hubbub.protocol.conversation import is_name
from hubbub.transports.base import Accept, Handshake, Refuse

if TYPE_CHECKING:
    from hubbub.hub.node import Node

__all__ = ["admit", "token_of"]

log = logging.getLogger("hubbub.hub")

_BEARER: Final = "bearer."

# The HTTP status that says what a code says; of two, the one that is not about HTTP itself.
_status: Final[dict[str, int]] = {code: status for status, code in sorted(HANDSHAKE.items(), reverse=True)}

# Seconds to stay away where the application did not say how many.
_RETRY_AFTER: Final = 5


def token_of(handshake: Handshake) -> str | None:
    """The bearer token that a handshake carries: in a header, the query or the list of subprotocols."""
    scheme, _, token = handshake.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    if handshake.query.get("token"):
        return handshake.query["token"]
    riding = (name.removeprefix(_BEARER) for name in handshake.subprotocols if name.startswith(_BEARER))
    return next((token for token in riding if token), None)


async def admit(node: Node, hooks: Hooks, handshake: Handshake) -> Accept | Refuse:
    """Let the client in as a session, or say why not."""
    screened = screen(node.options, handshake)
    if isinstance(screened, Refuse):
        return screened
    handshake = screened
    refusal = _no_place(node, handshake)
    if refusal is not None:
        return refusal
    subprotocol = subprotocol_of(handshake.subprotocols)
    if handshake.subprotocols and subprotocol is None:
        return Refuse(
            status=400,
            code=ErrorCode.BAD_MESSAGE,
            message=f"none of the offered subprotocols is spoken here: offer {CODECS[0]}, or none for the plain way",
        )
    try:
        user = await _identify(node, hooks, handshake, full=subprotocol is not None)
    except Reject as error:
        return _refusal(error)
    except TimeoutError:
        log.error("authentication took too long")
        return Refuse(
            status=503, code=ErrorCode.UNAVAILABLE, message="authentication took too long", retry_after=_RETRY_AFTER
        )
    # Again: authentication may have waited, and the last place gone meanwhile. From here on nothing waits.
    refusal = _no_place(node, handshake)
    if refusal is not None:
        return refusal
    if user and node.counts.user_full(user):
        return Refuse(
            status=429,
            code=ErrorCode.RATE_LIMITED,
            message="this user has too many connections",
            retry_after=10,
        )
    session = Session(
        node,
        hooks,
        user=user,
        ip=handshake.ip,
        device=handshake.headers.get("user-agent", "")[:200],
        full=subprotocol is not None,
    )
    if session.full:
        session.handshake = handshake
    return Accept(session, subprotocol)


def _refusal(error: Reject) -> Refuse:
    """What the application's refusal is in HTTP."""
    later = error.retry_after is not None or error.code in RETRYABLE
    status = _status.get(error.code, 503 if later else 403)
    retry_after = max(1, math.ceil(error.retry_after or _RETRY_AFTER)) if status in (429, 503) else None
    return Refuse(status=status, code=error.code, message=error.message or "not allowed", retry_after=retry_after)


def _no_place(node: Node, handshake: Handshake) -> Refuse | None:
    if node.draining:
        return Refuse(
            status=503,
            code=ErrorCode.UNAVAILABLE,
            message="the server is shutting down: try another",
            retry_after=1,
        )
    if node.counts.full():
        return Refuse(status=503, code=ErrorCode.UNAVAILABLE, message="the server is full", retry_after=10)
    if node.counts.ip_full(handshake.ip):
        return Refuse(
            status=429,
            code=ErrorCode.RATE_LIMITED,
            message="this address has too many connections",
            retry_after=10,
        )
    return None


async def _identify(node: Node, hooks: Hooks, handshake: Handshake, *, full: bool) -> str:
    """The user that the handshake proves; empty where `hello` is going to say it; raises `Reject`."""
    named = ""
    if node.options.dev:
        named = handshake.query.get("user_id", "") or "guest-" + secrets.token_hex(2)
        if not is_name(named):
            raise Reject(ErrorCode.BAD_MESSAGE, "user_id must be 1 to 128 characters, none of them a control character")
    if hooks.authenticate is None:
        if not named:
            raise Reject(ErrorCode.UNAUTHORIZED, "this server knows no way to tell who you are")
        return named
    token = token_of(handshake)
    await in_task()
    async with asyncio.timeout(node.options.hook_timeout):
        user = user_named(await hooks.call_one(hooks.authenticate, Credentials(token, handshake)))
    if user:
        return user
    # Whoever shows a token means it: one that is wrong is refused, whatever else would let them in.
    if token is None:
        if named and handshake.query.get("user_id"):
            return named
        if full:
            # `hello` may bring the token.
            return ""
    raise Reject(ErrorCode.UNAUTHORIZED, "the token is missing or not valid")
