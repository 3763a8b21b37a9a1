"""What a session asks for, and what the hub does about it: one function per reserved type."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, TypeVar

from hubbub import audit
from hubbub.eager import in_task
from hubbub.errors import NotJoined, Reject, Unavailable
from hubbub.hub.authorization import authorize, may
from hubbub.hub.identity import Shown, check, identify, not_shown, record_failure
from hubbub.hub.presence import come, go, keep_place, put_in, take_out, take_over, tell_members, user_online
from hubbub.hub.recovery import Recovery
from hubbub.hub.routing import fault_of
from hubbub.hub.transfers import answer, bring, chunk
from hubbub.protocol.codes import RETRYABLE, CloseCode, ErrorCode
from hubbub.protocol.envelope import (
    Ack,
    AckUpTo,
    Auth,
    Chunk,
    Fault,
    Gap,
    Hello,
    History,
    HistoryPage,
    Join,
    Joined,
    Leave,
    Left,
    Ping,
    Pong,
    PongAnswer,
    Presence,
    PresenceList,
    Request,
    Resume,
    Users,
    UsersOnline,
    Welcome,
)
from hubbub.types import ALL, Action, Position, Publication, inbox_channel, room_channel

if TYPE_CHECKING:
    from hubbub.hub.node import Node
    from hubbub.hub.session import Session

__all__ = [
    "CROWDED",
    "HANDLERS",
    "Command",
    "acknowledge",
    "authenticate",
    "depart",
    "hello",
    "history",
    "join",
    "kick_out",
    "leave",
    "leave_room",
    "open_plain",
    "ping",
    "pong",
    "presence",
    "users",
]

log = logging.getLogger("hubbub.hub")

R = TypeVar("R", bound=Request)

CROWDED: Final = "too many are being let in: wait a little"
"""What is said to who comes while too many sessions are on their way to their `welcome`."""

Command = Callable[["Node", "Session", Any], Coroutine[Any, Any, None]]

# Members that a `joined` lists; beyond, the client asks with `presence`.
_MEMBERS_IN_JOINED: Final = 100
# Members that a `presence` lists; `count` says how many there are.
_MEMBERS_IN_PRESENCE: Final = 1000


def _answers(command: Callable[[Node, Session, R], Awaitable[None]]) -> Command:
    """A command whose failure costs its sender an `error`, the operator a log line, nobody else anything."""

    @wraps(command)
    async def answering(node: Node, session: Session, request: Any) -> None:
        try:
            await command(node, session, request)
        except Exception as error:
            session.fault(fault_of(error, request, session))

    return answering


# ------------------------------------------------------------------------------------- coming and going


async def open_plain(node: Node, session: Session) -> None:
    """A plain session is open from the handshake on; its inbox's backlog follows at once."""
    try:
        if session.hooks.connect:
            await in_task()
            await session.hooks.call(session.hooks.connect, node.options.hook_timeout, session)
        if session.ending:
            return
        _open(node, session)
        # At once: the client has its 101, and need not have been told anything before it hears others.
        node.channels[ALL].listen(session.outbox)
        await come(node, session)
        recovery = await _recover_inbox(node, session, None)
        # What is left depends on how fast the client reads.
        node.counts.opened(session.id)
        start = recovery.seq
        if recovery.missing is not None:
            session.send(Gap(*recovery.missing))
        if await recovery.finish() and recovery.seq > start and not session.ending:
            # A plain client says nothing about what it handled: written is acknowledged, when this turn ends.
            node.owe(session, recovery.seq)
    except Exception as error:
        fault = fault_of(error, None, session)
        session.fault(fault)
        session.close(_close_code(error), fault.message)
    finally:
        node.counts.opened(session.id)
        if session.ending:
            # `depart` may not have seen what it has come to listen to since.
            await _unlisten_own(node, session)


async def hello(node: Node, session: Session, request: Hello) -> None:
    """The first message of the full way: who it is, and where it left off."""
    try:
        if not await _authenticate_hello(node, session, request):
            return
        if request.client is not None:
            session.device = request.client
        if session.hooks.connect:
            await in_task()
            await session.hooks.call(session.hooks.connect, node.options.hook_timeout, session)
        if session.ending:
            return
        _open(node, session)
        await come(node, session)
        await _welcome(node, session, request)
    except Exception as error:
        fault = fault_of(error, request, session)
        session.fault(fault)
        session.close(_close_code(error), fault.message)
    finally:
        node.counts.opened(session.id)
        if session.ending:
            # `depart` may not have seen what it has come to listen to since.
            await _unlisten_own(node, session)


def _open(node: Node, session: Session) -> None:
    # Others of this user may have come in since the handshake was looked at.
    if node.counts.user_full(session.user):
        raise Reject(ErrorCode.RATE_LIMITED, "this user has too many connections", retry_after=10)
    # And others at all: of those who came in one moment, every handshake found a place.
    if node.counts.opening_full():
        raise Unavailable(CROWDED)
    node.counts.opens(session.id)
    session.open()


def _close_code(error: Exception) -> CloseCode:
    """How a session ends that could not be opened."""
    if isinstance(error, TimeoutError):
        return CloseCode.TRY_LATER
    if not isinstance(error, Reject):
        return CloseCode.INTERNAL
    if error.retry_after is not None or error.code in RETRYABLE:
        return CloseCode.TRY_LATER
    return CloseCode.UNAUTHORIZED if error.code == ErrorCode.UNAUTHORIZED else CloseCode.FORBIDDEN


async def _authenticate_hello(node: Node, session: Session, request: Hello) -> bool:
    """Find out whose session it is; False where it has ended meanwhile."""
    shown = Shown(request.token, "hello")
    known = session.hooks.authenticate is not None or node.authenticator is not None
    if session.identity is not None and not (known and request.token is not None):
        return True
    identity = await identify(node, session.hooks, shown, session.handshake, session.ip, session)
    if identity is None:
        raise not_shown()
    if node.counts.user_full(identity.user):
        raise Reject(ErrorCode.RATE_LIMITED, "this user has too many connections", retry_after=10)
    if session.ending:
        return False
    # Again, for a revocation in the meantime found no session that was this user's.
    check(node, identity)
    session.prove(identity, shown.by)
    return True


async def _welcome(node: Node, session: Session, request: Hello) -> None:
    resume = request.resume or Resume()
    recoveries: list[Recovery] = []
    faults: list[Fault] = []
    rooms: dict[str, Recovery] = {}
    try:
        inbox = await _recover_inbox(node, session, resume.inbox)
        recoveries.append(inbox)
        everyone = Recovery(node, session, ALL)
        recoveries.append(everyone)
        if resume.all is not None:
            await everyone.begin(Position(*resume.all))
        else:
            await everyone.fresh()
        for room, since in resume.rooms.items():
            try:
                rooms[room] = await _enter(node, session, room, Position(*since) if since else None)
                recoveries.append(rooms[room])
            except Exception as error:
                faults.append(fault_of(error, Join(room=room), session))
        session.send(
            Welcome(
                session=session.id,
                user=session.user,
                time=node.now_ms(),
                ping=int(node.options.envelope_ping_interval * 1000),
                expires=session.identity.expires if session.identity is not None else None,
                limits={
                    "message": node.options.message_size,
                    "large_message": node.options.transfers.large_message_size,
                },
                positions={
                    "inbox": inbox.position,
                    "all": everyone.position,
                    "rooms": {room: recovery.position for room, recovery in rooms.items()},
                },
                recovered={
                    "inbox": inbox.recovered,
                    "all": everyone.recovered,
                    "rooms": {room: recovery.recovered for room, recovery in rooms.items()},
                },
                id=request.id,
            )
        )
        # What is left depends on how fast the client reads.
        node.counts.opened(session.id)
        for fault in faults:
            session.fault(fault)
        while recoveries and not session.ending:
            await bring(node, session, recoveries.pop(0))
    finally:
        for recovery in recoveries:
            await recovery.abandon()


async def _recover_inbox(node: Node, session: Session, since: tuple[str, int] | None) -> Recovery:
    node.acknowledge_written()
    name = inbox_channel(session.user)
    await node.channel(name)
    recovery = Recovery(node, session, name)
    if since is not None:
        await recovery.begin(Position(*since))
    if not recovery.recovered:
        # Each device catches up from its own position; one that has none, from where the user got to.
        await recovery.unread(await node.engine.cursor(session.user) or 0)
    return recovery


async def _unlisten_own(node: Node, session: Session) -> None:
    for name in (ALL, inbox_channel(session.user)):
        await node.unlisten(session, name)


async def depart(node: Node, session: Session, code: int, reason: str) -> None:
    """The session has ended: out of every channel and room, and whoever cares is told."""
    del node.sessions[session.id]
    node.counts.remove(session.ip)
    if not session.full:
        node.acknowledge_written()
    if session.since:
        node.counts.remove_user(session.user)
        go(node, session)
    await _unlisten_own(node, session)
    if not session.since:
        return
    # Out of all rooms first: a slow hook must not leave a ghost in the others.
    rooms = list(session.room_names or ())
    for room in rooms:
        try:
            await _part(node, session, room, later=True)
        except Exception:
            # The others must still be left.
            log.exception("leaving a room failed for session %s", session.id)
    if session.hooks.leave:
        await in_task()
        for room in rooms:
            try:
                await session.hooks.call(session.hooks.leave, node.options.hook_timeout, session, room)
            except Exception:
                log.exception("a leave hook failed for session %s", session.id)
    if session.hooks.disconnect:
        await in_task()
        await session.hooks.call(session.hooks.disconnect, node.options.hook_timeout, session)


# ------------------------------------------------------------------------------------------------ rooms


@_answers
async def join(node: Node, session: Session, request: Join) -> None:
    """Become a member of a room, with its past as far as asked."""
    since = Position(*request.since) if request.since is not None else None
    # What came before it comes before `joined`; what is still on its way then begins anew.
    await session.caught_up(room_channel(request.room))
    recovery = await _enter(node, session, request.room, since, request.last)
    try:
        shown = await may(node, session, Action.PRESENCE, request.room)
        members, count = await node.engine.members(recovery.name, _MEMBERS_IN_JOINED)
    except BaseException:
        # A member that hears nothing would be worse than none.
        await leave_room(node, session, request.room)
        raise
    joined = Joined(request.room, recovery.position, recovery.recovered, count, id=request.id)
    if shown and count <= _MEMBERS_IN_JOINED:
        joined.members = members
    session.send(joined, recovery.name)
    await bring(node, session, recovery)


async def _enter(node: Node, session: Session, room: str, since: Position | None, last: int | None = None) -> Recovery:
    """Put the session into `room`; its live messages are held until the recovery is finished."""
    names = session.room_names
    is_new = names is None or room not in names
    readable = True
    if session.guarded:
        readable = await _authorize_join(node, session, room, since, last)
        names = session.room_names
    if is_new:
        if names is not None and len(names) >= node.options.rooms_per_session:
            raise Reject(ErrorCode.FORBIDDEN, "this session is in too many rooms: leave one first")
        if session.hooks.join:
            await in_task()
            await session.hooks.call(session.hooks.join, node.options.hook_timeout, session, room)
            if session.ending:
                # It is a member no more before it has been one; who was told of the one is told of the other.
                await session.hooks.call(session.hooks.leave, node.options.hook_timeout, session, room)
                raise NotJoined
    name = room_channel(room)
    new_user = await put_in(node, session, room)
    try:
        await take_over(node, name, session.user)
        await node.channel(name)
        recovery = Recovery(node, session, name)
        await session.ended(name)
        if since is not None:
            # What was missed is the room's history, too.
            await (recovery.begin(since) if readable else recovery.unrecovered())
        elif last is not None:
            await recovery.latest(last)
        else:
            await recovery.fresh()
        if new_user:
            await tell_members(node, room, session.user, "member-joined", session.id)
    except BaseException:
        # Also where it was in: its live messages are held back for a recovery that does not come.
        await leave_room(node, session, room)
        raise
    if session.ending:
        # It went while the engine was asked: `depart` may not have seen this room.
        await leave_room(node, session, room, later=True)
    return recovery


async def _authorize_join(node: Node, session: Session, room: str, since: Position | None, last: int | None) -> bool:
    """Raise `Reject` unless the session may be in `room` and have its `last`; whether it may have those `since`."""
    try:
        await authorize(node, session, Action.JOIN, room)
    except Unavailable:
        # Nobody could be asked.
        raise
    except Reject:
        # It may have been allowed when it came.
        await leave_room(node, session, room)
        raise
    if last is not None:
        await authorize(node, session, Action.HISTORY, room)
        return True
    return since is None or await may(node, session, Action.HISTORY, room)


@_answers
async def leave(node: Node, session: Session, request: Leave) -> None:
    """Stop being a member; leaving a room that one is not in is no error."""
    if session.room_names is not None and request.room in session.room_names:
        await leave_room(node, session, request.room)
    session.send(Left(request.room, request.id), room_channel(request.room))


async def leave_room(node: Node, session: Session, room: str, *, later: bool = False) -> None:
    """Take the session out of `room`, and tell who cares; `later`: the others, when the grace is over.

    When it returns, nothing of the room comes any more.
    """
    if not await _part(node, session, room, later=later):
        return
    if session.hooks.leave:
        await in_task()
        await session.hooks.call(session.hooks.leave, node.options.hook_timeout, session, room)
    await session.ended(room_channel(room))


async def _part(node: Node, session: Session, room: str, *, later: bool) -> bool:
    if session.room_names is None or room not in session.room_names:
        return False
    del session.room_names[room]
    await node.unlisten(session, room_channel(room))
    if later:
        await keep_place(node, session, room)
    else:
        await take_out(node, session.user, session.id, room)
    return True


async def kick_out(node: Node, session: Session, room: str) -> None:
    """Take the session out of `room`, unasked, and say so; harmless where it is not in it."""
    if session.room_names is not None and room in session.room_names:
        await leave_room(node, session, room)
        session.send(Left(room, code=ErrorCode.FORBIDDEN), room_channel(room))


@_answers
async def presence(node: Node, session: Session, request: Presence) -> None:
    """Who is in a room that one is in."""
    if session.room_names is None or request.room not in session.room_names:
        raise NotJoined
    if session.guarded:
        await authorize(node, session, Action.PRESENCE, request.room)
    members, count = await node.engine.members(room_channel(request.room), _MEMBERS_IN_PRESENCE)
    session.send(PresenceList(request.room, members, count, request.id))


# ----------------------------------------------------------------------------------- the past and the rest


@_answers
async def history(node: Node, session: Session, request: History) -> None:
    """Messages of a room that one is in, or of one's own inbox."""
    room = request.room
    if room is None:
        name = inbox_channel(session.user)
    elif session.room_names is not None and room in session.room_names:
        name = room_channel(room)
        if session.guarded:
            await authorize(node, session, Action.HISTORY, room)
    else:
        raise NotJoined
    if request.after is not None:
        # One more than asked for: whether it still lies below `before` says whether there are more.
        page = await node.engine.after(name, request.after, request.limit + 1)
        found = page.publications
        if request.before is not None:
            found = [publication for publication in found if (publication.seq or 0) < request.before]
        kept = _fit(found[: request.limit], node.options.message_size)
        # An engine may give less than was asked for, where that is large.
        cut_short = page.more and len(found) == len(page.publications) > 0
        if cut_short and request.before is not None:
            cut_short = (found[-1].seq or 0) + 1 < request.before
        more = len(kept) < len(found) or cut_short
    else:
        page = await node.engine.before(name, request.before, request.limit)
        kept = _fit(page.publications[::-1], node.options.message_size)[::-1]
        more = page.more or len(kept) < len(page.publications)
    await answer(node, session, HistoryPage(kept, page.position, more, room, request.id))


def _fit(publications: list[Publication], size: int) -> list[Publication]:
    """As many as one message may carry, but at least one: the client asks again for the rest."""
    total = 0
    for index, publication in enumerate(publications):
        total += len(memoryview(publication.content)) + 300
        if total > size and index:
            return publications[:index]
    return publications


@_answers
async def acknowledge(node: Node, session: Session, request: AckUpTo) -> None:
    """The client has handled everything up to `seq`."""
    if request.room is not None:
        # In a room the position is the client's own to keep: it comes back with it in `resume`.
        if session.room_names is None or request.room not in session.room_names:
            raise NotJoined
        return
    if not await node.acknowledge(session.user, request.seq):
        session.wrong(Fault(ErrorCode.BAD_MESSAGE, "`seq` is beyond the end of the inbox", request.id))


@_answers
async def users(node: Node, session: Session, request: Users) -> None:
    """Who of some users is online."""
    if session.guarded:
        for user in request.ids:
            if user != session.user:
                await authorize(node, session, Action.SEND, user)
    found = {user: await user_online(node, user) for user in request.ids}
    session.send(UsersOnline(found, request.id))


@_answers
async def ping(node: Node, session: Session, request: Ping) -> None:
    """Are you there?"""
    # What was sent before comes before: see protocol.md §4.2.
    await session.caught_up()
    await answer(node, session, PongAnswer(request.id, request.content, request.binary))


@_answers
async def pong(node: Node, session: Session, request: Pong) -> None:
    """The client is there: its session has noted that already, as with every message."""


@_answers
async def authenticate(node: Node, session: Session, request: Auth) -> None:
    """A new token on a connection that stands."""
    if session.hooks.authenticate is None and node.authenticator is None:
        if not node.options.dev:
            raise Reject(ErrorCode.UNAUTHORIZED, "this server takes no tokens")
        session.send(Ack(request.id))
        return
    identity = await identify(node, session.hooks, Shown(request.token, "auth"), None, session.ip, session)
    if identity is None:
        raise not_shown()
    if identity.user != session.user:
        error = Reject(
            ErrorCode.CONFLICT, "the token belongs to another user: connect anew", why="it is another user's"
        )
        record_failure(node, error, "auth", session.ip, session)
        raise error
    check(node, identity)
    if session.ending:
        return
    audit.record("authentication", outcome="ok", by="auth", user=session.user, ip=session.ip, session=session.id)
    session.prove(identity, "auth")
    session.send(Ack(request.id, expires=identity.expires))
    if session.guarded:
        await _leave_forbidden(node, session)


async def _leave_forbidden(node: Node, session: Session) -> None:
    """Take the session out of the rooms in which its new token does not let it be."""
    for room in list(session.room_names or ()):
        try:
            allowed = await may(node, session, Action.JOIN, room)
        except Exception:
            # Where nobody can say that it may be there, it may not; and the other rooms are looked at all the same.
            log.exception("nobody could say whether session %s may stay in a room: it is taken out", session.id)
            allowed = False
        if not allowed:
            await kick_out(node, session, room)


HANDLERS: Final[dict[type[Request], Command]] = {
    Hello: hello,
    Auth: authenticate,
    Ping: ping,
    Pong: pong,
    Join: join,
    Leave: leave,
    AckUpTo: acknowledge,
    History: history,
    Presence: presence,
    Users: users,
    Chunk: _answers(chunk),
}
