"""Tokens that are good no more: told to every node through a channel, like everything, and kept in its log.

So a node that comes up later knows them too, and with a store on disk a restart forgets none.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

import msgspec

from hubbub import audit
from hubbub.core.revocations import Revocation
from hubbub.errors import Unavailable
from hubbub.protocol.codes import CloseCode
from hubbub.types import Identity, Publication

if TYPE_CHECKING:
    from hubbub.hub.node import Node
    from hubbub.hub.session import Session

__all__ = [
    "LOG_SIZE",
    "MARGIN",
    "REVOCATIONS",
    "hear_revocation",
    "keep_out",
    "learn_revocations",
    "restore_revocations",
    "revoke_token",
    "revoke_user",
    "sweep_revocations",
]

log = logging.getLogger("hubbub.hub")

REVOCATIONS: Final = "server:revocations"
"""The channel of revocations, to which every node listens and no client can."""

LOG_SIZE: Final = 1_000_000
"""Revocations that the channel's log keeps, for those who come up later; most have ended by then."""

# Publications that one read of the log takes.
_PAGE: Final = 500

# Seconds until it is tried again to bring what was revoked back into a log that was lost.
_AGAIN: Final = 1.0

# Seconds between two looks at what has ended.
_SWEEP: Final = 60.0

MARGIN: Final = 600_000
"""Milliseconds that a token may be good for beyond its end, where clocks differ: twice the most that may be set."""

_decode = msgspec.json.Decoder(Revocation)


async def learn_revocations(node: Node) -> set[Revocation]:
    """Read what was revoked before this node listened to the channel, and return it; raises `Unavailable`."""
    seq, found = 0, set[Revocation]()
    while True:
        page = await node.engine.after(REVOCATIONS, seq, _PAGE)
        for publication in page.publications:
            seq = publication.seq or seq
            found |= hear_revocation(node, publication)
        if not page.more or not page.publications:
            return found


async def restore_revocations(node: Node) -> None:
    """The log is another one: learn what is in it, and say again what it lacks, for nodes that come up later.

    Every node does, as many times as it takes; the log knows a second time for one.
    """
    while True:
        try:
            found = await learn_revocations(node)
            for revocation in [one for one in node.revocations if one not in found]:
                await _publish(node, revocation)
        except Unavailable:
            await asyncio.sleep(_AGAIN)
        else:
            return


def sweep_revocations(node: Node) -> None:
    """Forget what has ended, from now on again and again; to be begun once."""
    node.revocations.sweep(node.now_ms())
    node.wheel.after(_SWEEP, lambda: sweep_revocations(node))


def hear_revocation(node: Node, publication: Publication) -> set[Revocation]:
    """Something has been revoked, here or elsewhere: remember it, end whoever lives by it, and return it."""
    try:
        revocation = _decode.decode(publication.content)
    except msgspec.DecodeError:
        # Of a newer node, perhaps: nothing here may fail because of it.
        log.error("a revocation could not be read, and is ignored")
        return set()
    if not node.revocations.add(revocation, node.now_ms()):
        log.error("too many tokens are revoked: one that was is not kept out, but for who is here")
    _end(node, revocation)
    return {revocation}


def _end(node: Node, revocation: Revocation, *, here: bool = False) -> int:
    """End the sessions that live by what is revoked; how many. `here`: it was this node that was asked, just now."""
    concerned = [
        session
        for session in node.sessions.values()
        if session.identity is not None
        # Who is here now came before, whatever the clock of whoever made the token says.
        and (revocation.concerns(session.identity) or (here and session.user == revocation.user))
        and not session.ending
    ]
    for session in concerned:
        identity = session.identity
        if revocation.user is not None and identity is not None and identity.token_id:
            # Where the application vouches for tokens, it does so anew each time: this one is known to be older.
            node.revocations.add(_of_token(node, identity.token_id, identity), node.now_ms())
        session.close(CloseCode.UNAUTHORIZED, "the token has been revoked")
    return len(concerned)


def _of_token(node: Node, name: str, identity: Identity | None) -> Revocation:
    """The revocation of a token, for as long as it can be good; `identity` is what it has proved, where known."""
    now = node.now_ms()
    known = identity is not None and not identity.vouched
    ends = identity.expires if identity is not None and known else None
    return Revocation(at=now, until=MARGIN + (now + _age(node) if ends is None else ends), token_id=name)


def _age(node: Node) -> int:
    return int(node.options.token_age * 1000)


async def revoke_user(node: Node, user: str) -> int:
    """Revoke every token of `user` that was made until now; how many sessions that ends.

    At once on this node, whatever the engine says; raises `Unavailable` where the others could not be told, or
    where no more can be remembered.
    """
    now = node.now_ms()
    return await _revoke(node, [Revocation(at=now, until=now + _age(node) + MARGIN, user=user)])


async def revoke_token(node: Node, names: Iterable[str]) -> int:
    """Revoke the token that has these names; else as `revoke_user`."""
    return await _revoke(node, [_of_token(node, name, None) for name in names])


async def keep_out(node: Node, sessions: Iterable[Session]) -> None:
    """Revoke the tokens that `sessions` came with; raises `Unavailable` as `revoke_user` does."""
    identities = [session.identity for session in sessions if session.identity is not None]
    await _revoke(node, [_of_token(node, one.token_id, one) for one in identities if one.token_id])


async def _revoke(node: Node, revocations: list[Revocation]) -> int:
    # All of them here before anything waits.
    remembered = [node.revocations.add(revocation, node.now_ms()) for revocation in revocations]
    ended = sum(_end(node, revocation, here=True) for revocation in revocations)
    if not all(remembered):
        raise Unavailable("too many tokens are revoked at once: let tokens live less long", retry_after=60)
    for revocation in revocations:
        audit.record("revocation", user=revocation.user, token=revocation.token_id)
        await _publish(node, revocation)
    return ended


async def _publish(node: Node, revocation: Revocation) -> None:
    body = msgspec.json.encode(revocation)
    # By what it says: where several nodes say the same, it is in the log once.
    id = blake2b(body, digest_size=16).hexdigest()
    await node.engine.publish(REVOCATIONS, Publication("revoke", content=msgspec.Raw(body), id=id, time=revocation.at))
