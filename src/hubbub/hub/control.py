"""What is done to a user on all nodes: told through a channel to each, which does it to its own sessions.

A channel and not a whisper: a node that is cut off from the engine for a moment reads in its log what it has missed.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from hubbub.core.log import Retention
from hubbub.errors import Unavailable
from hubbub.hub.commands import kick_out
from hubbub.hub.presence import give_up_place, is_kept
from hubbub.hub.revocation import TOO_MANY, keep_out
from hubbub.protocol.codes import CloseCode
from hubbub.types import Publication, inbox_channel, room_channel

if TYPE_CHECKING:
    from hubbub.hub.node import Node

__all__ = ["CONTROL", "KEPT", "Disconnect", "Kick", "disconnect", "hear_control", "kick"]

log = logging.getLogger("hubbub.hub")

CONTROL: Final = "server:control"
"""The channel to which every node listens and no client can."""

KEPT: Final = Retention(size=10_000, age=3600.0, pinned=True)
"""For a node that was cut off; one that comes up later has no session that any of it is about."""

# Milliseconds by which the clocks of two nodes may differ: who came that much later is still meant.
_SKEW: Final = 5_000


class Disconnect(Struct, frozen=True, tag="disconnect"):
    """End every session of `user` that was open at `at`, in milliseconds since the Unix epoch."""

    user: str
    reason: str
    at: int


class Kick(Struct, frozen=True, tag="kick"):
    """Take `user` out of `room`."""

    user: str
    room: str


_decode = msgspec.json.Decoder(Disconnect | Kick)


async def disconnect(node: Node, user: str, reason: str) -> int:
    """End every session of `user`, and keep out the tokens they came with; how many, on all nodes.

    At once on this node, whatever the engine says. Raises `Reject` where it is not known that the others will hear of
    it: as a rule `Unavailable`, also where not all tokens can be remembered here.
    """
    # Those too that are still on their way in: they have a user, and listen to nothing yet.
    here = [session for session in node.sessions.values() if session.user == user and not session.ending]
    for session in here:
        session.close(CloseCode.DISCONNECTED, reason)
    # Before anything else is asked: their tokens are out on this node, though the engine be away.
    kept_out = keep_out(node, here)
    places = await node.engine.places(inbox_channel(user), user)
    await _tell(node, Disconnect(user, reason, node.now_ms()))
    if not kept_out:
        raise Unavailable(TOO_MANY, retry_after=60)
    return len({session.id for session in here} | {place.session for place in places if not is_kept(place.session)})


async def kick(node: Node, user: str, room: str) -> int:
    """Take every session of `user` out of `room`; how many. Raises `Reject` as `disconnect` does."""
    places = await node.engine.places(room_channel(room), user)
    await _tell(node, Kick(user, room))
    return len(places)


async def _tell(node: Node, control: Disconnect | Kick) -> None:
    publication = Publication("control", time=node.now_ms())
    publication.content = msgspec.Raw(msgspec.json.encode(control))
    await node.engine.publish(CONTROL, publication)


def hear_control(node: Node, publication: Publication) -> None:
    """Do to this node's sessions what has been asked for, here or elsewhere."""
    try:
        control = _decode.decode(publication.content)
    except msgspec.DecodeError:
        # Of a newer node, perhaps: nothing here may fail because of it.
        log.error("a control message could not be read, and is ignored")
        return
    if isinstance(control, Kick):
        _kick(node, control)
    else:
        _disconnect(node, control)


def _disconnect(node: Node, control: Disconnect) -> None:
    concerned = [
        session
        for session in node.sessions.values()
        # Told late, it does not concern who has come back since.
        if session.user == control.user and not session.ending and session.since <= control.at + _SKEW
    ]
    for session in concerned:
        session.close(CloseCode.DISCONNECTED, control.reason)
    if not keep_out(node, concerned):
        log.error("too many tokens are revoked: one of a user who was disconnected is not kept out here")


def _kick(node: Node, control: Kick) -> None:
    for session in node.sessions_of(control.user):
        # In its turn: it may be joining at this moment.
        session.in_turn(partial(kick_out, node, session, control.room))
    node.run(give_up_place(node, control.user, control.room))
