"""Whether a session may do what it asks for: the application's hook first, then what its roles and token grant."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from hubbub.core.permissions import BROADCAST, SEND, denied
from hubbub.eager import in_task
from hubbub.errors import HubbubError, Reject
from hubbub.types import Action

if TYPE_CHECKING:
    from hubbub.hub.node import Node
    from hubbub.hub.session import Session
    from hubbub.protocol.envelope import Envelope

__all__ = ["authorize", "authorize_envelope", "may", "refuse_envelope"]


async def authorize(node: Node, session: Session, deed: str, name: str) -> None:
    """Raise `Reject` with `forbidden` unless `session` may do `deed` with the room or user `name`."""
    hook = session.hooks.authorize
    if hook is not None:
        await in_task()
        async with asyncio.timeout(node.options.hook_timeout):
            answer = await session.hooks.call_one(hook, session, deed, name)
        if answer is True:
            return
        if answer is False:
            raise denied(_explained(node, "the authorize hook returned False"))
        if answer is not None:
            # Not guessed at: what is not clearly a yes is none.
            raise HubbubError(f"the authorize hook returned {type(answer).__name__}: return True, False or None")
        if session.permissions is None:
            raise denied(_explained(node, "the authorize hook returned None, and there are no policies besides it"))
    _check(node, session, deed, name)


async def may(node: Node, session: Session, deed: str, name: str) -> bool:
    """Whether `session` may do it; raises what a hook that fails raises."""
    try:
        await authorize(node, session, deed, name)
    except Reject:
        return False
    return True


async def authorize_envelope(node: Node, session: Session, envelope: Envelope) -> None:
    """Raise `Reject` with `forbidden` unless `session` may send `envelope` where it goes."""
    deed, name = _aim(envelope)
    if not _own(session, deed, name):
        await authorize(node, session, deed, name)


def refuse_envelope(node: Node, session: Session, envelope: Envelope) -> None:
    """The same where no hook has to be asked."""
    deed, name = _aim(envelope)
    if not _own(session, deed, name):
        _check(node, session, deed, name)


def _aim(envelope: Envelope) -> tuple[str, str]:
    if envelope.room is not None:
        return Action.PUBLISH, envelope.room
    return (BROADCAST, "") if envelope.to is None else (SEND, envelope.to)


def _own(session: Session, deed: str, name: str) -> bool:
    # One's own devices are nobody else's business.
    return deed == SEND and name == session.user


def _check(node: Node, session: Session, deed: str, name: str) -> None:
    permissions = session.permissions
    if permissions is not None and not permissions.allow(deed, name):
        assert session.identity is not None
        raise denied(node.policies.why_not(session.identity, deed, name) if node.options.dev else "")


def _explained(node: Node, why: str) -> str:
    return f"You may not do this: {why}." if node.options.dev else ""
