"""Tickets: for a browser that must not put its token into an address, something that is good once, for a moment.

A ticket stands for the identity that it was given to, which lies in a channel that nobody listens to: so every node
takes what any of them has given. The ticket says where in the log that is, and has a secret of which the log knows only
the name. That it is used is said in the same channel, where a second time is known as any retry is.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from hubbub.core.log import Retention
from hubbub.core.tickets import LIFE
from hubbub.types import Identity, Publication, token_id

if TYPE_CHECKING:
    from hubbub.hub.node import Node

__all__ = ["KEPT", "TICKETS", "give", "redeem"]

TICKETS: Final = "server:tickets"
"""The channel in which tickets lie."""

KEPT: Final = Retention(size=100_000, age=2 * LIFE / 1000, pinned=True)
"""How much of it is kept: tickets, and that they were used."""


class _Given(Struct, frozen=True):
    """What lies in the log."""

    name: str
    identity: Identity


_decode = msgspec.json.Decoder(_Given)


async def give(node: Node, identity: Identity) -> str:
    """A ticket for `identity`; raises `Reject` where there are too many, or the engine is away."""
    secret = secrets.token_urlsafe(24)
    name, now = token_id(secret), node.now_ms()
    node.tickets.give(name, identity.user, _clock(node))
    content = msgspec.Raw(msgspec.json.encode(_Given(name, identity)))
    accepted = await node.engine.publish(TICKETS, Publication("ticket", content=content, time=now))
    return f"{accepted.seq}.{secret}"


async def redeem(node: Node, ticket: str) -> Identity | None:
    """Whom `ticket` was given to, once; None for one that is not good, or no more. Raises `Unavailable`."""
    place, _, secret = ticket.partition(".")
    # Not more digits than a number on the wire can have.
    if not (place.isascii() and place.isdigit() and len(place) <= 16 and 0 < int(place) < 2**53):
        return None
    seq, name = int(place), token_id(secret)
    page = await node.engine.after(TICKETS, seq - 1, 1)
    (found,) = page.publications or (None,)
    if found is None or found.seq != seq or found.type != "ticket" or (found.time or 0) + LIFE <= node.now_ms():
        return None
    given = _decode.decode(found.content)
    # Names, as what they name is compared in a time that says nothing.
    if given.name != name:
        return None
    used = await node.engine.publish(TICKETS, Publication("used", id=name, time=node.now_ms()))
    node.tickets.use(name)
    return None if used.duplicate else given.identity


def _clock(node: Node) -> int:
    """Milliseconds on a clock that is never set: half a minute of it is half a minute."""
    return int(node.loop.time() * 1000)
