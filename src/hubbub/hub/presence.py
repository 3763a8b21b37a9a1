"""Who is in a room and who is online, as others are told: a short absence is no news.

A session that ends without leaving its rooms may come back in a moment: a phone in a tunnel, a page reloaded. For
`presence_grace` seconds its user stays a member and stays online, by a timer of the wheel and not by a task. Whoever
comes back takes the place over, and nobody hears anything.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from hubbub.eager import in_task
from hubbub.protocol.envelope import Online
from hubbub.types import Publication, inbox_channel, room_channel

if TYPE_CHECKING:
    from hubbub.hub.hooks import Hooks
    from hubbub.hub.node import Node
    from hubbub.hub.session import Session

__all__ = ["came", "keep_place", "put_in", "take_out", "take_over", "tell_members", "user_online", "went"]

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


async def take_over(node: Node, session: Session, room: str) -> None:
    """A membership that was kept for the user has served: the session is in the room itself."""
    name, user = room_channel(room), session.user
    kept = node.grace.kept(name, user)
    if kept is not None:
        await node.engine.leave(name, user, kept)
        # Only now: where the engine is away it ends by itself.
        node.grace.release(name, user, kept)


async def take_out(node: Node, user: str, session: str, room: str) -> None:
    """A session is a member no more; the others are told where it was the last of its user's."""
    if await node.engine.leave(room_channel(room), user, session):
        await tell_members(node, room, user, "member-left", session)


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


# ---------------------------------------------------------------------------------------------------- users


def came(node: Node, session: Session) -> None:
    """The session has opened: is that its user's first?"""
    user, inbox = session.user, inbox_channel(session.user)
    kept = node.grace.kept(inbox, user)
    if kept is not None:
        node.grace.release(inbox, user, kept)
    if node.online.opened(user, session.since):
        _tell(node, session.hooks, user)


def went(node: Node, session: Session) -> None:
    """The session has ended: if it was its user's last, the user is offline when the grace is over."""
    user = session.user
    if node.online.ended(user, _seen(node, session)):
        node.grace.keep(inbox_channel(user), user, session.id, partial(_gone, node, session.hooks, user))


def user_online(node: Node, user: str) -> Online:
    """Whether `user` is online, and since or until when."""
    now = node.now_ms()
    last_seen = node.online.last_seen(user, now)
    if user not in node.online:
        return Online(False, last_seen=last_seen)
    for session in node.sessions_of(user):
        last_seen = max(last_seen or 0, _seen(node, session))
    if last_seen is None or last_seen <= now - node.options.presence_ttl * 1000:
        # It is there, and nobody has moved for so long that nobody can be.
        return Online(False)
    return Online(True, node.online.since(user), last_seen)


def _seen(node: Node, session: Session) -> int:
    """When something last came by the session, in milliseconds since the Unix epoch."""
    return node.now_ms() - int((node.wheel.now - session.last_seen) * 1000)


def _gone(node: Node, hooks: Hooks, user: str) -> None:
    _tell(node, hooks, user, node.online.gone(user))


def _tell(node: Node, hooks: Hooks, user: str, seen: int = 0) -> None:
    """Call the hooks about a user who has come or gone."""
    if not hooks.online and not hooks.offline:
        return
    telling = user in node.telling
    node.telling[user] = seen
    # Whoever is at it looks again when the hook is done: those of one user are called one after the other.
    if not telling:
        node.run(_call_hooks(node, hooks, user))


async def _call_hooks(node: Node, hooks: Hooks, user: str) -> None:
    told = user not in node.online
    try:
        while (online := user in node.online) != told:
            told = online
            await in_task()
            try:
                if online:
                    await hooks.call(hooks.online, node.options.hook_timeout, user)
                else:
                    await hooks.call(hooks.offline, node.options.hook_timeout, user, node.telling[user])
            except Exception:
                log.exception("an %s hook failed", "online" if online else "offline")
    finally:
        del node.telling[user]
