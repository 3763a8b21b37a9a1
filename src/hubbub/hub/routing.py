"""The way of an application's message: through its handlers, if there are any, into its channel."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec

from hubbub.core.permissions import denied
from hubbub.eager import in_task
from hubbub.errors import AckTimeout, NotJoined, Reject
from hubbub.hub.authorization import authorize_envelope, refuse_envelope
from hubbub.hub.pipeline import Message, Next, Outcome, envelope_of, pass_on
from hubbub.protocol.codec import BadMessage
from hubbub.protocol.codes import RESERVED_FROM_CLIENT, ErrorCode
from hubbub.protocol.conversation import check
from hubbub.protocol.envelope import Ack, Envelope, Fault
from hubbub.types import ALL, NOTHING, Publication

if TYPE_CHECKING:
    from hubbub.engines.base import Accepted
    from hubbub.hub.node import Node
    from hubbub.hub.session import Session

__all__ = ["fault_of", "route"]

log = logging.getLogger("hubbub.hub")

_INTERNAL: Final = "something failed on the server; it has been logged"


def route(node: Node, session: Session, envelope: Envelope) -> Coroutine[Any, Any, None] | None:
    """Bring a message as far as it gets without waiting; what has to wait is returned, for the session to run.

    Most messages never wait: no handler is registered for them, and the engine has a place for them at once.
    So most messages cost no coroutine.
    """
    try:
        pipeline = session.hooks.pipeline
        if node.strict and not pipeline.handles(envelope.type):
            raise Reject(ErrorCode.UNKNOWN_TYPE, "no handler is registered for this type")
        if session.guarded:
            if session.hooks.authorize is not None:
                return _route_guarded(node, session, envelope)
            refuse_envelope(node, session, envelope)
        return _route(node, session, envelope)
    except Exception as error:
        session.fault(fault_of(error, envelope, session))
        return None


def _route(node: Node, session: Session, envelope: Envelope) -> Coroutine[Any, Any, None] | None:
    pipeline = session.hooks.pipeline
    if pipeline.used:
        chain = pipeline.chain(envelope.type)
        if chain is not None:
            return _handle(node, session, envelope, chain)
    return _publish(node, session, envelope)


async def _route_guarded(node: Node, session: Session, envelope: Envelope) -> None:
    try:
        await authorize_envelope(node, session, envelope)
    except Exception as error:
        session.fault(fault_of(error, envelope, session))
    else:
        if session.expelled:
            return
        # It may be a task by now: what waits for the engine has to be waited for here.
        await _handle(node, session, envelope, session.hooks.pipeline.chain(envelope.type) or pass_on)


def _publish(node: Node, session: Session, envelope: Envelope) -> Coroutine[Any, Any, None] | None:
    room, to, volatile = envelope.room, envelope.to, envelope.volatile is True
    if room is not None:
        if session.room_names is None or room not in session.room_names:
            raise NotJoined
        if node.patterns.some_volatile:
            volatile = volatile or node.is_volatile(room)
        channel = "room:" + room
    else:
        channel = ALL if to is None else "user:" + to
    publication = _publication(node, session, envelope)
    origin = None if envelope.echo else session.id
    accepted = node.engine.publish_now(channel, publication, volatile, origin)
    if accepted is None:
        # One at a time, so that what this session sends stays in order.
        session.wait()
        try:
            node.engine.submit(
                channel, publication, volatile, origin, partial(_accepted, node, session, envelope, channel)
            )
        except BaseException:
            session.wait(False)
            raise
        return None
    if envelope.id is not None or origin is not None:
        _acknowledge(node, session, envelope, channel, accepted, envelope.id)
    return None


def _publication(node: Node, session: Session, envelope: Envelope) -> Publication:
    if not node.turn.open:
        node.turn.begin()
    return envelope.published(
        envelope.type,
        session.user,
        envelope.to,
        envelope.room,
        envelope.content,
        envelope.binary,
        envelope.id,
        envelope.receipt,
        None,
        None,
        node.turn_ms,
    )


def _accepted(node: Node, session: Session, envelope: Envelope, channel: str, outcome: Accepted | Exception) -> None:
    """The engine has had to wait, and now has a place for the message, or none."""
    if isinstance(outcome, Exception):
        session.fault(fault_of(outcome, envelope, session))
    else:
        _acknowledge(node, session, envelope, channel, outcome, envelope.id)
    session.go_on()


def _acknowledge(
    node: Node, session: Session, envelope: Envelope, channel: str, accepted: Accepted, id: str | None
) -> None:
    """Acknowledge `envelope` under the `id` that its sender gave it, whatever a handler made of that."""
    # Without an echo the ack stands for the message in the sequence of a channel that the sender listens to,
    # so a full client gets it even if it did not ask (protocol.md §5.4).
    stands_for_it = not envelope.echo and session.full and accepted.seq is not None and node.hears(session, channel)
    if id is not None or stands_for_it:
        epoch = None if accepted.seq is None else accepted.epoch
        prev = accepted.prev if stands_for_it else None
        ack = Ack(id, envelope.to, envelope.room, accepted.seq, epoch, accepted.duplicate, prev)
        if envelope.echo or accepted.duplicate:
            session.send(ack)
        else:
            node.put_in_place(session, ack, channel)


async def _handle(node: Node, session: Session, envelope: Envelope, chain: Next) -> None:
    if envelope.id is None:
        _answer(node, session, envelope, await _go_through(node, session, envelope, chain))
        return
    handling, key = session.hooks.pipeline.handling, (_channel_of(envelope), session.user, envelope.id)
    known = node.retries.get(key, node.wheel.now)
    if known is not None:
        _answer(node, session, envelope, known, again=True)
        return
    first = handling.get(key)
    if first is not None:
        # A retry of what is still being handled, from a session that took this one's place: not again.
        _answer(node, session, envelope, await asyncio.shield(first), again=True)
        return
    first = handling[key] = node.loop.create_future()
    try:
        outcome = await _go_through(node, session, envelope, chain)
        first.set_result(outcome)
        if not (isinstance(outcome, Fault) or envelope.volatile or _in_the_log(envelope, outcome)):
            # Without the content, which a retry's answer does not need.
            made = msgspec.structs.replace(outcome.envelope, content=NOTHING)
            node.retries.note(key, Outcome(made, outcome.accepted), node.wheel.now)
        _answer(node, session, envelope, outcome)
    finally:
        del handling[key]
        # Where the server stopped meanwhile.
        first.cancel()


def _in_the_log(envelope: Envelope, outcome: Outcome) -> bool:
    """Whether the engine knows of `envelope` by its channel and id: not if it was kept, or sent on as another."""
    made, accepted = outcome
    if accepted is None or accepted.seq is None:
        return False
    return made.id == envelope.id and _channel_of(made) == _channel_of(envelope)


async def _go_through(node: Node, session: Session, envelope: Envelope, chain: Next) -> Outcome | Fault:
    """Let a message through the application, and publish what comes out; raises nothing."""
    try:
        # Now: a client that has lost its connection meanwhile has still been in the room when it wrote to it.
        joined = session.room_names is not None and envelope.room in session.room_names
        if envelope.id is not None:
            accepted = await node.engine.accepted(_channel_of(envelope), session.user, envelope.id)
            if accepted is not None:
                # A retry of what the application has seen already: not again.
                return Outcome(envelope, accepted)
        await in_task()
        message = Message[Any](envelope, session)
        async with asyncio.timeout(node.options.hook_timeout):
            result = await chain(message)
        if result is None:
            return Outcome(envelope, None)
        if session.expelled:
            raise denied()
        made = _made(result, node.large.largest)
        still_joined = made.room is None or (session.room_names is not None and made.room in session.room_names)
        if not still_joined and not (joined and made.room == envelope.room):
            raise NotJoined
        accepted = await node.engine.publish(
            _channel_of(made),
            _publication(node, session, made),
            volatile=made.volatile is True or node.is_volatile(made.room),
            origin=None if made.echo else session.id,
        )
        return Outcome(made, accepted)
    except BadMessage as error:
        log.error("what the handler of %s returned cannot be sent: %s", envelope.type, error)
        return Fault(ErrorCode.INTERNAL, _INTERNAL, envelope.id, envelope.room)
    except Exception as error:
        return fault_of(error, envelope, session)


def _answer(node: Node, session: Session, envelope: Envelope, outcome: Outcome | Fault, *, again: bool = False) -> None:
    if isinstance(outcome, Fault):
        session.fault(outcome)
        return
    made, accepted = outcome
    if accepted is None:
        if envelope.id is not None:
            session.send(Ack(envelope.id, envelope.to, envelope.room, duplicate=again))
        return
    if again and not accepted.duplicate:
        accepted = msgspec.structs.replace(accepted, duplicate=True)
    _acknowledge(node, session, made, _channel_of(made), accepted, envelope.id)


def _channel_of(envelope: Envelope) -> str:
    if envelope.room is not None:
        return "room:" + envelope.room
    return ALL if envelope.to is None else "user:" + envelope.to


def _made(message: object, largest: int) -> Envelope:
    """What a handler made of a message, checked as strictly as what a client sends; raises `BadMessage`.

    Its content may have `largest` bytes, as what the application publishes.
    """
    if not isinstance(message, Message):
        raise BadMessage(f"expected the message or None, got {type(message).__name__}")
    fields = {
        "type": message.type,
        "to": message.to,
        "room": message.room,
        "id": message.id,
        "receipt": message.receipt,
        "echo": message.echo,
        "volatile": message.volatile,
    }
    try:
        envelope = envelope_of(message, {name: value for name, value in fields.items() if value is not None})
    except msgspec.ValidationError as error:
        raise BadMessage(str(error)) from None
    if memoryview(envelope.content).nbytes > largest:
        raise BadMessage(f"its content is larger than {largest} bytes")
    if envelope.type in RESERVED_FROM_CLIENT:
        raise BadMessage(f"{envelope.type} is a type of the protocol itself")
    check(envelope)
    return envelope


def fault_of(error: Exception, about: object, session: Session) -> Fault:
    """What to tell the sender of `about`, an envelope or a request."""
    id = getattr(about, "id", None)
    room = getattr(about, "room", None)
    if isinstance(error, Reject):
        return Fault(error.code, error.message or error.code, id, room, error.retry_after, error.where)
    kind = getattr(about, "type", None) or type(about).__name__
    if isinstance(error, TimeoutError) and not isinstance(error, AckTimeout):
        log.error("a handler took too long: %s from session %s", kind, session.id)
        return Fault(ErrorCode.UNAVAILABLE, "the application took too long", id, room, retry_after=1.0)
    log.error("a handler failed: %s from session %s", kind, session.id, exc_info=error)
    return Fault(ErrorCode.INTERNAL, _INTERNAL, id, room)
