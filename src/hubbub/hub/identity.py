"""Who somebody is: the application is asked about what a client shows, and whoever can read tokens."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from hubbub import audit
from hubbub.eager import in_task
from hubbub.errors import HubbubError, Reject
from hubbub.hub.hooks import Credentials
from hubbub.hub.pipeline import user_named
from hubbub.protocol.codes import ErrorCode
from hubbub.types import Identity, token_id

if TYPE_CHECKING:
    from hubbub.hub.hooks import Hooks
    from hubbub.hub.node import Node
    from hubbub.hub.session import Session
    from hubbub.transports.base import Handshake

__all__ = ["Shown", "check", "identify", "not_proven", "not_shown", "record_failure", "shown_by"]

# The year 1973 in milliseconds, the year 5138 in seconds.
_SURELY_SECONDS: Final = 100_000_000_000

_BEARER: Final = "bearer."


class Shown(NamedTuple):
    """A token, and how it was shown; without one it is up to the application."""

    token: str | None
    # header, query, subprotocol, cookie, hello, auth, application.
    by: str


def shown_by(handshake: Handshake, cookie: str) -> Shown:
    """The token that a handshake carries; `cookie` is the name of the cookie that may, empty where none may."""
    scheme, _, token = handshake.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return Shown(token.strip(), "header")
    if handshake.query.get("token"):
        return Shown(handshake.query["token"], "query")
    for name in handshake.subprotocols:
        if name.startswith(_BEARER) and name != _BEARER:
            return Shown(name.removeprefix(_BEARER), "subprotocol")
    if cookie and (token := handshake.cookies.get(cookie, "")):
        return Shown(token, "cookie")
    return Shown(None, "application")


def not_proven(why: str) -> Reject:
    """The refusal of whoever has proved nothing; the client is not told what was wrong with what was shown."""
    return Reject(ErrorCode.UNAUTHORIZED, "the token is missing, expired or not valid", why=why)


def not_shown() -> Reject:
    """The refusal of whoever has shown nothing, with the remedy: there is no secret in that."""
    return Reject(
        ErrorCode.UNAUTHORIZED,
        "there is no token: show one in `Authorization: Bearer`, `?token=`, `?ticket=` or `hello`",
        why="nothing was shown",
    )


async def identify(
    node: Node, hooks: Hooks, shown: Shown, handshake: Handshake | None, ip: str, session: Session | None = None
) -> Identity | None:
    """Who shows this; None where nothing was shown that could be wrong.

    What fails is recorded here; what succeeds by the caller, in the record of what comes of it. Raises `Reject` for
    what is not good, `TimeoutError` where the application took too long.
    """
    try:
        identity = await _ask(node, hooks, shown.token, handshake)
        if identity is not None:
            check(node, identity)
        elif shown.token is not None:
            raise not_proven("nobody here knows it")
    except Reject as error:
        record_failure(error, shown.by, ip, session)
        raise
    return identity


def record_failure(error: Reject, by: str, ip: str, session: Session | None = None) -> None:
    """Record that a proof was not good, and why; a `session` is one that stands."""
    id, user = (None, None) if session is None else (session.id, session.user or None)
    audit.record("authentication", outcome=error.code, by=by, session=id, user=user, ip=ip, why=error.why)


async def _ask(node: Node, hooks: Hooks, token: str | None, handshake: Handshake | None) -> Identity | None:
    if hooks.authenticate is not None:
        await in_task()
        async with asyncio.timeout(node.options.hook_timeout):
            answer = await hooks.call_one(hooks.authenticate, Credentials(token, handshake))
        identity = _vouched(answer, token, node.now_ms())
        if identity is not None:
            return identity
    if token is not None and node.authenticator is not None:
        return await node.authenticator.identify(token, time.time())
    return None


def _vouched(answer: object, token: str | None, now: int) -> Identity | None:
    """What an authenticate hook has answered; raises `HubbubError` for what it cannot mean."""
    if isinstance(answer, Identity):
        user_named(answer.user)
        try:
            # msgspec checks what it converts, not what Python code makes.
            identity = msgspec.convert(msgspec.to_builtins(answer), Identity)
        except msgspec.ValidationError as error:
            raise HubbubError(f"the authenticate hook returned an identity that cannot be: {error}") from None
    else:
        user = user_named(answer)
        if not user:
            return None
        identity = Identity(user=user)
    if identity.expires is not None and identity.expires < _SURELY_SECONDS:
        raise HubbubError("the authenticate hook returned `expires` in seconds: all times of day are in milliseconds")
    # The application is asked each time, so it vouches as of now, unless it says otherwise.
    issued = now if identity.issued is None else identity.issued
    name = identity.token_id or (token_id(token) if token is not None else "")
    return msgspec.structs.replace(identity, issued=issued, token_id=name)


def check(node: Node, identity: Identity) -> None:
    """Raise `Reject` where a proof that was good is good no more."""
    if identity.expires is not None and identity.expires <= node.now_ms():
        raise not_proven("it has expired")
    if node.revocations.concern(identity):
        raise not_proven("it has been revoked")
