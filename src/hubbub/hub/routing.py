"""The way of an application's message: through its handlers, if there are any, into its channel."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from hubbub.eager import in_task
from hubbub.errors import NotJoined, Reject
from hubbub.hub.pipeline import Message, Next
from hubbub.protocol.codes import ErrorCode
from hubbub.protocol.envelope import Ack, Envelope, Fault
from hubbub.types import ALL, Publication

if TYPE_CHECKING:
    from hubbub.engines.base import Accepted
    from hubbub.hub.node import Node
    from hubbub.hub.session import Session

__all__ = ["fault_of", "route"]

log = logging.getLogger("hubbub.hub")


def route(node: Node, session: Session, envelope: Envelope) -> Coroutine[Any, Any, None] | None:
    """Bring a message as far as it gets without waiting; what has to wait is returned, for the session to run.

    Most messages never wait: no handler is registered for them, and the engine has a place for them at once.
    So most messages cost no coroutine.
    """
    try:
        pipeline = session.hooks.pipeline
        if pipeline.used:
            chain = pipeline.chain(envelope.type)
            if chain is not None:
                return _handle(node, session, envelope, chain)
        if node.strict and not pipeline.handles(envelope.type):
            raise Reject(ErrorCode.UNKNOWN_TYPE, "no handler is registered for this type")
        return _publish(node, session, envelope)
    except Exception as error:
        session.fault(fault_of(error, envelope, session))
        return None


def _publish(node: Node, session: Session, envelope: Envelope) -> Coroutine[Any, Any, None] | None:
    room, to = envelope.room, envelope.to
    if room is not None:
        if session.room_names is None or room not in session.room_names:
            raise NotJoined
        channel = "room:" + room
    else:
        channel = ALL if to is None else "user:" + to
    if not node.turn.open:
        node.turn.begin()
    publication = Publication(
        envelope.type,
        session.user,
        to,
        room,
        envelope.content,
        envelope.binary,
        envelope.id,
        envelope.receipt,
        None,
        None,
        node.turn_ms,
    )
    volatile, origin = envelope.volatile is True, None if envelope.echo else session.id
    accepted = node.engine.publish_now(channel, publication, volatile, origin)
    if accepted is None:
        return _publish_later(node, session, envelope, channel, publication)
    if envelope.id is not None or origin is not None:
        _acknowledge(node, session, envelope, channel, accepted)
    return None


async def _publish_later(
    node: Node, session: Session, envelope: Envelope, channel: str, publication: Publication
) -> None:
    try:
        accepted = await node.engine.publish(
            channel,
            publication,
            volatile=envelope.volatile is True,
            origin=None if envelope.echo else session.id,
        )
        _acknowledge(node, session, envelope, channel, accepted)
    except Exception as error:
        session.fault(fault_of(error, envelope, session))


def _acknowledge(node: Node, session: Session, envelope: Envelope, channel: str, accepted: Accepted) -> None:
    # Without an echo the ack stands for the message in the sequence of a channel that the sender listens to,
    # so a full client gets it even if it did not ask (protocol.md §5.4).
    stands_for_it = not envelope.echo and session.full and accepted.seq is not None and node.hears(session, channel)
    if envelope.id is not None or stands_for_it:
        epoch = None if accepted.seq is None else accepted.epoch
        ack = Ack(envelope.id, envelope.to, envelope.room, accepted.seq, epoch, accepted.duplicate)
        if envelope.echo or accepted.duplicate:
            session.send(ack)
        else:
            session.send(ack, channel, accepted.seq)


async def _handle(node: Node, session: Session, envelope: Envelope, chain: Next) -> None:
    try:
        if envelope.id is not None:
            channel = _channel_of(envelope)
            accepted = await node.engine.accepted(channel, session.user, envelope.id)
            if accepted is not None:
                # A retry of what the application has seen already: not again.
                _acknowledge(node, session, envelope, channel, accepted)
                return
        await in_task()
        message = Message[Any](envelope, session)
        async with asyncio.timeout(node.options.hook_timeout):
            result = await chain(message)
        if result is None:
            # The application keeps it.
            if envelope.id is not None:
                session.send(Ack(envelope.id, envelope.to, envelope.room))
            return
        publishing = _publish(node, session, _envelope(result, envelope))
        if publishing is not None:
            await publishing
    except Exception as error:
        session.fault(fault_of(error, envelope, session))


def _channel_of(envelope: Envelope) -> str:
    if envelope.room is not None:
        return "room:" + envelope.room
    return ALL if envelope.to is None else "user:" + envelope.to


def _envelope(message: Message[Any], was: Envelope) -> Envelope:
    return Envelope(
        message.type,
        message.to,
        message.room,
        message.raw(),
        message.id,
        message.receipt,
        message.echo,
        message.volatile,
        was.binary,
    )


def fault_of(error: Exception, about: object, session: Session) -> Fault:
    """What to tell the sender of `about`, an envelope or a request."""
    id = getattr(about, "id", None)
    room = getattr(about, "room", None)
    if isinstance(error, Reject):
        return Fault(error.code, error.message or error.code, id, room, error.retry_after, error.where)
    kind = getattr(about, "type", None) or type(about).__name__
    if isinstance(error, TimeoutError):
        log.error("a handler took too long: %s from session %s", kind, session.id)
        return Fault(ErrorCode.UNAVAILABLE, "the application took too long", id, room, retry_after=1.0)
    log.error("a handler failed: %s from session %s", kind, session.id, exc_info=error)
    return Fault(ErrorCode.INTERNAL, "something failed on the server; it has been logged", id, room)
