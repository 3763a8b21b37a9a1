"""Whether a session may do what it asks for: the application's hook first, then what its roles and token grant."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from hubbub.core.permissions import denied
from hubbub.eager import in_task
from hubbub.errors import HubbubError, Reject, Unavailable
from hubbub.types import Action

if TYPE_CHECKING:
    from hubbub.hub.node import Node
    from hubbub.hub.session import Session
    from hubbub.protocol.envelope import Envelope

__all__ = ["authorize", "authorize_envelope", "may", "refuse_envelope"]

log = logging.getLogger("hubbub.hub")


async def authorize(node: Node, session: Session, action: Action, name: str) -> None:
    """Raise `Reject` with `forbidden` unless `session` may do `action` with the room or user `name`."""
    hook = session.hooks.authorize
    if hook is not None:
        await in_task()
        async with asyncio.timeout(node.options.hook_timeout):
            answer = await session.hooks.call_one(hook, session, action, name)
        if answer is True:
            return
        if answer is False:
            raise _denied(node, session, "You may not do this: the authorize hook returned False.")
        if answer is not None:
            # Not guessed at: what is not clearly a yes is none.
            raise HubbubError(f"the authorize hook returned {type(answer).__name__}: return True, False or None")
        if session.permissions is None:
            raise _denied(
                node,
                session,
                "You may not do this: the authorize hook returned None, and there are no policies besides it.",
            )
    _check(node, session, action, name)


async def may(node: Node, session: Session, action: Action, name: str) -> bool:
    """Whether `session` may do it; raises what a hook that fails raises, and `Unavailable` where it cannot be asked."""
    try:
        await authorize(node, session, action, name)
    except Unavailable:
        raise
    except Reject:
        return False
    return True


async def authorize_envelope(node: Node, session: Session, envelope: Envelope) -> None:
    """Raise `Reject` with `forbidden` unless `session` may send `envelope` where it goes."""
    action, name = _aim(envelope)
    if not _own(session, action, name):
        await authorize(node, session, action, name)


def refuse_envelope(node: Node, session: Session, envelope: Envelope) -> None:
    """The same where no hook has to be asked."""
    action, name = _aim(envelope)
    if not _own(session, action, name):
        _check(node, session, action, name)


def _aim(envelope: Envelope) -> tuple[Action, str]:
    if envelope.room is not None:
        return Action.PUBLISH, envelope.room
    return (Action.BROADCAST, "") if envelope.to is None else (Action.SEND, envelope.to)


def _own(session: Session, action: Action, name: str) -> bool:
    # One's own devices are nobody else's business.
    return action == Action.SEND and name == session.user


def _check(node: Node, session: Session, action: Action, name: str) -> None:
    permissions = session.permissions
    if permissions is not None and not permissions.allow(action, name):
        assert session.identity is not None
        raise _denied(node, session, node.policies.why_not(session.identity, action, name))


def _denied(node: Node, session: Session, why: str) -> Reject:
    """The refusal; the reason is for who develops, and for who has to find out."""
    log.debug("denied to session %s: %s", session.id, why)
    return denied(why if node.options.dev else "")
