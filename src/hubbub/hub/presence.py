"""Who is in a room and who is online, as others are told: a short absence is no news.

A session that ends without leaving its rooms may come back in a moment: a phone in a tunnel, a page reloaded. For
`presence_grace` seconds its user stays a member and stays online, by a timer of the wheel and not by a task. Whoever
comes back takes the place over, and nobody hears anything.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Final

from hubbub.eager import in_task
from hubbub.errors import Reject, Unavailable
from hubbub.protocol.envelope import Online
from hubbub.types import Publication, inbox_channel, room_channel

if TYPE_CHECKING:
    from hubbub.hub.node import Node
    from hubbub.hub.session import Session

__all__ = [
    "came",
    "come",
    "give_up_place",
    "go",
    "is_kept",
    "keep_place",
    "put_in",
    "take_out",
    "take_over",
    "tell_change",
    "tell_members",
    "user_online",
    "went",
]

log = logging.getLogger("hubbub.hub")


# ---------------------------------------------------------------------------------------------------- rooms


async def put_in(node: Node, session: Session, room: str) -> bool:
    """Make the session a member; whether that is news to the others. Raises `RoomFull`."""
    name, user = room_channel(room), session.user
    capacity = node.patterns.of(room).capacity or node.options.room_capacity
    new_user = await node.engine.enter(name, user, session.id, node.now_ms(), capacity)
    if session.room_names is None:
        session.room_names = {}
    session.room_names[room] = None
    return new_user


async def take_over(node: Node, channel: str, user: str) -> None:
    """A place that was kept for the user has served: a session is in the channel itself."""
    kept = node.grace.kept(channel, user)
    if kept is not None:
        await node.engine.leave(channel, user, kept)
        # Only now: where the engine is away it ends by itself.
        node.grace.release(channel, user, kept)


async def take_out(node: Node, user: str, session: str, room: str) -> None:
    """A session is a member no more; the others are told where it was the last of its user's."""
    try:
        last = await node.engine.leave(room_channel(room), user, session)
    except Unavailable:
        # The engine takes it out when it can, and says so then.
        log.warning("a member has left a room while the engine was away: it is told later")
        return
    if last:
        await tell_change(node, room, user, "member-left", session)


async def keep_place(node: Node, session: Session, room: str) -> None:
    """A session has ended that was in the room: it is a member until the grace is over."""
    user = session.user
    if _is_in(node, user, room):
        # It leaves no gap: another device is there.
        await take_out(node, user, session.id, room)
        return
    node.grace.keep(room_channel(room), user, session.id, partial(_lapse, node, user, session.id, room))


def _lapse(node: Node, user: str, session: str, room: str) -> None:
    node.run(take_out(node, user, session, room))


async def give_up_place(node: Node, user: str, room: str) -> None:
    """A place in the room that is kept for the user is kept no more."""
    kept = node.grace.kept(room_channel(room), user)
    if kept is not None:
        node.grace.release(room_channel(room), user, kept)
        await take_out(node, user, kept, room)


def _is_in(node: Node, user: str, room: str) -> bool:
    """Whether a session of the user on this node is in the room."""
    channel = node.channels.get(inbox_channel(user))
    return channel is not None and any(room in (outbox.owner.room_names or ()) for outbox in channel)


async def tell_members(node: Node, room: str, user: str, event: str, session: str | None = None) -> None:
    """Tell the members of `room` but `session` that `user` has come or gone, where the room has such events."""
    wanted = node.patterns.of(room).presence_events
    if node.options.presence_events if wanted is None else wanted:
        told = Publication(event, user, room=room, time=node.now_ms())
        await node.engine.publish(room_channel(room), told, volatile=True, origin=session)


async def tell_change(node: Node, room: str, user: str, event: str, session: str | None = None) -> None:
    """`tell_members` of what has been done already: where the engine is away in this moment, nobody can be told."""
    try:
        await tell_members(node, room, user, event, session)
    except Reject:
        # Also where its answer was lost, and they may have been told.
        log.warning("members may not have been told who has come or gone: the engine is away")


# ---------------------------------------------------------------------------------------------------- users
# Who is online is who is in the inbox, on whichever node.

# Nobody is turned away from an inbox.
_ANY: Final = 1_000_000_000

# What stands before the name of a session that has ended, where the user's place is kept for a while. Since the name is
# another one, nobody takes it for a session that is open.
_KEPT: Final = "kept:"


def is_kept(session: str) -> bool:
    """Whether a place in an inbox is no session's, but kept for a user who may come back."""
    return session.startswith(_KEPT)


async def come(node: Node, session: Session) -> None:
    """The session has opened: is that its user's first, on all nodes?"""
    user, inbox = session.user, inbox_channel(session.user)
    news = await node.engine.enter(inbox, user, session.id, session.since, _ANY)
    node.present.add(session.id)
    if news:
        _tell(node, user, True)
    if session.ending:
        # It has gone meanwhile, perhaps before it came.
        go(node, session)
        return
    await take_over(node, inbox, user)


def go(node: Node, session: Session) -> None:
    """The session has ended: if it was its user's last, the user is offline when the grace is over.

    Harmless for one that has not come, or has gone.
    """
    if session.id not in node.present:
        return
    node.present.discard(session.id)
    user, seen = session.user, _seen(node, session)
    node.last_seen.note(user, seen)
    if any(other is not session for other in node.sessions_of(user)):
        # It leaves no gap: another device is there.
        node.run(_go(node, user, session.id, seen))
    else:
        node.run(_keep(node, user, session.id, seen))


async def _keep(node: Node, user: str, session: str, seen: int) -> None:
    inbox, kept = inbox_channel(user), _KEPT + session
    try:
        if node.options.presence_grace:
            await node.engine.enter(inbox, user, kept, node.now_ms(), _ANY)
            node.grace.keep(inbox, user, kept, lambda: node.run(_go(node, user, kept, seen)))
    except Unavailable:
        # It goes without a grace: what is kept nowhere needs no end.
        pass
    await _go(node, user, session, seen)


async def _go(node: Node, user: str, session: str, seen: int) -> None:
    try:
        last = await node.engine.leave(inbox_channel(user), user, session, seen)
    except Unavailable:
        # The engine does it when it can, and then says so (`went`).
        return
    if last:
        _tell(node, user, False, seen)


def went(node: Node, user: str) -> None:
    """The last session of `user` has gone with a node that died, or while the engine was away."""
    # Nobody can say when exactly: a node that died was alive until a lease ago.
    lease = node.engine.capabilities.lease or 0.0
    _tell(node, user, False, node.now_ms() - int(lease * 1000))


def came(node: Node, user: str) -> None:
    """`user` had been told gone, as this node was taken for dead, and is there."""
    _tell(node, user, True)


async def user_online(node: Node, user: str) -> Online:
    """Whether `user` is online, and since or until when."""
    inbox, oldest = inbox_channel(user), node.now_ms() - int(node.options.presence_ttl * 1000)
    members, _ = await node.engine.members(inbox, 1)
    if not members:
        seen = await node.engine.last_seen(user) or 0
        return Online(False, last_seen=seen if seen > oldest else None)
    here = node.sessions_of(user)
    kept = node.grace.kept(inbox, user) is not None
    seen = max((_seen(node, session) for session in here), default=node.last_seen.get(user) or 0)
    if seen > oldest:
        return Online(True, members[0].since, seen)
    if members[0].sessions <= len(here) + kept:
        # It is there, and nobody has moved for so long that nobody can be.
        return Online(False)
    # On another node, which watches over it.
    return Online(True, members[0].since)


def _seen(node: Node, session: Session) -> int:
    """When something last came by the session, in milliseconds since the Unix epoch."""
    # The wheel's clock may be a tick behind, and so before the session has begun.
    return max(session.since, node.now_ms() - int((node.wheel.now - session.last_seen) * 1000))


def _tell(node: Node, user: str, online: bool, seen: int = 0) -> None:
    """Call the hooks about a user who has come or gone."""
    if not node.hooks.online and not node.hooks.offline:
        return
    telling = user in node.telling
    node.telling[user] = (online, seen)
    # Whoever is at it looks again when the hook is done: those of one user are called one after the other.
    if not telling:
        node.run(_call_hooks(node, user))


async def _call_hooks(node: Node, user: str) -> None:
    hooks, told = node.hooks, None
    try:
        while node.telling[user][0] is not told:
            told, seen = node.telling[user]
            await in_task()
            try:
                if told:
                    await hooks.call(hooks.online, node.options.hook_timeout, user)
                else:
                    await hooks.call(hooks.offline, node.options.hook_timeout, user, seen)
            except Exception:
                log.exception("an %s hook failed", "online" if told else "offline")
    finally:
        del node.telling[user]
