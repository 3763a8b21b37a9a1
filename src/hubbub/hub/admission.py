"""Who comes in: a handshake is checked against limits and proof of identity, and becomes a session or a refusal."""

from __future__ import annotations

import logging
import math
import secrets
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from hubbub import audit
from hubbub.core.tickets import LIFE
from hubbub.errors import Reject
from hubbub.hub.commands import CROWDED
from hubbub.hub.door import screen
from hubbub.hub.formats import CODECS, subprotocol_of
from hubbub.hub.hooks import Hooks
from hubbub.hub.identity import check, identify, not_shown, record_failure, shown_by
from hubbub.hub.session import Session
from hubbub.hub.tickets import give, redeem
from hubbub.protocol import json
from hubbub.protocol.codes import HANDSHAKE, RETRYABLE, ErrorCode
from hubbub.protocol.conversation import is_name
from hubbub.transports.base import Accept, Handshake, Refuse
from hubbub.types import Identity

if TYPE_CHECKING:
    from hubbub.hub.node import Node

__all__ = ["Ticket", "admit", "give_ticket"]

log = logging.getLogger("hubbub.hub")

# The HTTP status that says what a code says; of two, the one that is not about HTTP itself.
_status: Final[dict[str, int]] = {code: status for status, code in sorted(HANDSHAKE.items(), reverse=True)}

# Seconds to stay away where the application did not say how many.
_RETRY_AFTER: Final = 5


class Ticket(Struct, frozen=True):
    """What `POST /api/tickets` answers: good once, as `?ticket=`, until `expires` (ms since the Unix epoch)."""

    ticket: str
    expires: int


async def admit(node: Node, hooks: Hooks, handshake: Handshake) -> Accept | Refuse:
    """Let the client in as a session, or say why not."""
    arrived = _arrive(node, handshake)
    if isinstance(arrived, Refuse):
        return arrived
    handshake = arrived
    refusal = _no_place(node, handshake)
    if refusal is not None:
        return refusal
    subprotocol = subprotocol_of(handshake.subprotocols)
    if handshake.subprotocols and subprotocol is None:
        return Refuse(
            status=400,
            code=ErrorCode.BAD_MESSAGE,
            message="none of the offered subprotocols is spoken here: "
            f"offer one of {', '.join(CODECS)}, or none for the plain way",
        )
    try:
        identity, by = await _identify(node, hooks, handshake)
        if identity is None and subprotocol is None:
            raise not_shown()
        # Again: authentication may have waited, and the last place gone, or the token been revoked meanwhile.
        # From here on nothing waits.
        if identity is not None:
            check(node, identity)
    except Reject as error:
        return _refusal(error)
    except TimeoutError:
        return _too_slow()
    refusal = _no_place(node, handshake)
    if refusal is not None:
        return refusal
    if identity is not None and node.counts.user_full(identity.user):
        return Refuse(
            status=429,
            code=ErrorCode.RATE_LIMITED,
            message="this user has too many connections",
            retry_after=10,
        )
    session = Session(
        node,
        hooks,
        identity=identity,
        proved_by=by,
        ip=handshake.ip,
        device=handshake.headers.get("user-agent", "")[:200],
        codec=CODECS[subprotocol or json.NAME],
        full=subprotocol is not None,
    )
    if session.full:
        session.handshake = handshake
    return Accept(session, subprotocol)


def _arrive(node: Node, handshake: Handshake) -> Handshake | Refuse:
    """What everybody passes before anything costly is done: not too often, and from where one may come."""
    return node.arrivals.take(handshake.ip) or screen(node.options, handshake)


async def give_ticket(node: Node, hooks: Hooks, handshake: Handshake) -> Ticket | Refuse:
    """A ticket for whoever asks with a good proof, whose `handshake` is a request like another; or why not."""
    arrived = _arrive(node, handshake)
    if isinstance(arrived, Refuse):
        return arrived
    handshake = arrived
    if node.draining:
        return _draining()
    try:
        # A ticket gets no other: it would be good for ever.
        identity, by = await _identify(node, hooks, handshake, tickets=False)
        if identity is None:
            raise not_shown()
        expires = node.now_ms() + LIFE
        ticket = await give(node, identity)
        audit.record("ticket", by=by, user=identity.user, ip=handshake.ip)
        return Ticket(ticket, expires)
    except Reject as error:
        return _refusal(error)
    except TimeoutError:
        return _too_slow()


def _too_slow() -> Refuse:
    log.error("authentication took too long")
    return Refuse(
        status=503, code=ErrorCode.UNAVAILABLE, message="authentication took too long", retry_after=_RETRY_AFTER
    )


def _draining() -> Refuse:
    return Refuse(
        status=503, code=ErrorCode.UNAVAILABLE, message="the server is shutting down: try another", retry_after=1
    )


def _refusal(error: Reject) -> Refuse:
    """What the application's refusal is in HTTP."""
    later = error.retry_after is not None or error.code in RETRYABLE
    status = _status.get(error.code, 503 if later else 403)
    retry_after = max(1, math.ceil(error.retry_after or _RETRY_AFTER)) if status in (429, 503) else None
    return Refuse(
        status=status, code=error.code, message=error.message or "not allowed", retry_after=retry_after, why=error.why
    )


def _no_place(node: Node, handshake: Handshake) -> Refuse | None:
    if node.draining:
        return _draining()
    if node.counts.full():
        return Refuse(status=503, code=ErrorCode.UNAVAILABLE, message="the server is full", retry_after=10)
    if node.counts.opening_full():
        return Refuse(status=503, code=ErrorCode.UNAVAILABLE, message=CROWDED, retry_after=1)
    if node.counts.ip_full(handshake.ip):
        return Refuse(
            status=429,
            code=ErrorCode.RATE_LIMITED,
            message="this address has too many connections",
            retry_after=10,
        )
    return None


async def _identify(
    node: Node, hooks: Hooks, handshake: Handshake, *, tickets: bool = True
) -> tuple[Identity | None, str]:
    """Whom the handshake proves, and by what; None where it does not say, as where `hello` is going to.

    Raises `Reject`.
    """
    shown = shown_by(handshake, node.options.token_cookie)
    ticket = handshake.query.get("ticket") if tickets else None
    # Before a cookie, which the browser sends whatever the page wants.
    if ticket is not None and (shown.token is None or shown.by == "cookie"):
        return await _redeem(node, ticket, handshake.ip), "ticket"
    named = ""
    if node.options.dev:
        named = handshake.query.get("user_id", "")
        if named and not is_name(named):
            raise Reject(ErrorCode.BAD_MESSAGE, "user_id must be 1 to 128 characters, none of them a control character")
    if hooks.authenticate is None and node.authenticator is None:
        if not node.options.dev:
            raise Reject(ErrorCode.UNAUTHORIZED, "this server knows no way to tell who you are")
        # Nobody here knows tokens, so none can be wrong.
        return Identity(user=named or "guest-" + secrets.token_hex(2), issued=node.now_ms()), "user_id"
    # Whoever shows a token means it: one that is wrong is refused, whatever else would let them in.
    identity = await identify(node, hooks, shown, handshake, handshake.ip)
    if identity is None and named:
        return Identity(user=named, issued=node.now_ms()), "user_id"
    return identity, shown.by


async def _redeem(node: Node, ticket: str, ip: str) -> Identity:
    try:
        identity = await redeem(node, ticket)
        if identity is None:
            raise Reject(
                ErrorCode.UNAUTHORIZED,
                "the ticket is used, expired or not valid: get a new one",
                why="the ticket is used, expired or none",
            )
        check(node, identity)
    except Reject as error:
        record_failure(node, error, "ticket", ip)
        raise
    return identity
