"""Tokens that are good no more: told to every node through a channel, like everything, and kept in its log.

So a node that comes up later knows them too, and with a store on disk a restart forgets none.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

import msgspec

from hubbub import audit
from hubbub.core.revocations import CAPACITY, Revocation, Revocations
from hubbub.errors import HubbubError, Unavailable
from hubbub.protocol.codes import CloseCode
from hubbub.types import Identity, Publication

if TYPE_CHECKING:
    from hubbub.hub.node import Node
    from hubbub.hub.session import Session

__all__ = [
    "LOG_SIZE",
    "MARGIN",
    "REVOCATIONS",
    "TOO_MANY",
    "Revoking",
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

# Seconds until it is tried again to bring into the log what it lacks.
_AGAIN: Final = 1.0

# Seconds between two looks at what has ended.
_SWEEP: Final = 60.0

MARGIN: Final = 600_000
"""Milliseconds that a token may be good for beyond its end, where clocks differ: twice the most that may be set."""

TOO_MANY: Final = "too many tokens are revoked at once: let tokens live less long"
"""What is said where no more can be remembered."""

_decode = msgspec.json.Decoder(Revocation)


class Revoking:
    """What a node has still to do about revocations."""

    def __init__(self) -> None:
        # Heard in this turn of the loop; when it ends, whoever lives by one of them is ended.
        self.heard: list[Revocation] = []

        # What the log may lack; bounded by `CAPACITY`, beyond which no more is taken. And whether the log is another
        # one, so that it may lack anything.
        self.unsaid: dict[Revocation, None] = {}
        self.log_lost = False

        # Whether somebody is seeing to that.
        self.busy = False


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
        # Those whom this page concerns are ended before the next, and others have their turn.
        await asyncio.sleep(0)


def restore_revocations(node: Node) -> None:
    """The log is another one: learn what is in it, and say again what it lacks, for nodes that come up later.

    Every node does; the log knows a second time for one.
    """
    node.revoking.log_lost = True
    # Not on the spot: the engine is in the middle of telling.
    node.spawn(_see_to_it(node))


async def _see_to_it(node: Node) -> None:
    """Bring into the log what it lacks, as many times as it takes; one does so at a time."""
    work, told = node.revoking, False
    if work.busy:
        return
    work.busy = True
    try:
        while work.log_lost or work.unsaid:
            try:
                if work.log_lost:
                    await _compare(node)
                for revocation in list(work.unsaid):
                    await _publish(node, revocation)
                    del work.unsaid[revocation]
            except HubbubError as error:
                # Whatever it is: a token that is good elsewhere is worse than one more try.
                if not told:
                    log.warning("the other nodes cannot be told what is revoked, and will be: %s", error)
                    told = True
                await asyncio.sleep(_AGAIN)
    finally:
        work.busy = False


async def _compare(node: Node) -> None:
    # Before: it may be lost once more meanwhile.
    node.revoking.log_lost = False
    try:
        found = await learn_revocations(node)
    except BaseException:
        node.revoking.log_lost = True
        raise
    _say_later(node, [one for one in node.revocations if one not in found])


def _say_later(node: Node, revocations: Iterable[Revocation]) -> None:
    unsaid = node.revoking.unsaid
    for revocation in revocations:
        if len(unsaid) >= CAPACITY:
            log.error("too many tokens are revoked while the engine is away: one that was is good on other nodes")
            return
        unsaid[revocation] = None


def sweep_revocations(node: Node) -> None:
    """Forget what has ended, from now on again and again; to be begun once."""
    node.revocations.sweep(node.now_ms())
    node.wheel.after(_SWEEP, lambda: sweep_revocations(node))


def hear_revocation(node: Node, publication: Publication) -> set[Revocation]:
    """Something has been revoked, here or elsewhere: remember it, and return it.

    Whoever lives by it is ended when this turn of the loop is over.
    """
    try:
        revocation = _decode.decode(publication.content)
    except msgspec.DecodeError:
        # Of a newer node, perhaps: nothing here may fail because of it.
        log.error("a revocation could not be read, and is ignored")
        return set()
    known = node.revocations.knows(revocation)
    if not node.revocations.add(revocation, node.now_ms()):
        log.error("too many tokens are revoked: one that was is not kept out, but for who is here")
    # What is known has ended whom it concerns: what this node has said itself, or reads again.
    if not known:
        if not node.revoking.heard:
            node.loop.call_soon(_end_heard, node)
        node.revoking.heard.append(revocation)
    return {revocation}


def _end_heard(node: Node) -> None:
    heard, node.revoking.heard = node.revoking.heard, []
    _end(node, heard)


def _end(node: Node, revocations: Collection[Revocation], *, here: bool = False) -> int:
    """End the sessions that live by what is revoked; how many. `here`: it was this node that was asked, just now.

    All of them together: there may be many sessions, and they are walked over once.
    """
    revoked = Revocations(len(revocations))
    for revocation in revocations:
        revoked.add(revocation, 0)
    users = {revocation.user for revocation in revocations if revocation.user is not None}
    concerned = [
        session
        for session in node.sessions.values()
        if session.identity is not None
        # Who is here now came before, whatever the clock of whoever made the token says.
        and (revoked.concern(session.identity) or (here and session.user in users))
        and not session.ending
    ]
    for session in concerned:
        identity = session.identity
        if session.user in users and identity is not None and identity.token_id:
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

    At once on this node, whatever the engine says. Raises `Reject` where it is not known that the others will hear of
    it: as a rule `Unavailable`, also where no more can be remembered.
    """
    now = node.now_ms()
    return await _revoke(node, [Revocation(at=now, until=now + _age(node) + MARGIN, user=user)])


async def revoke_token(node: Node, names: Iterable[str]) -> int:
    """Revoke the token that has these names; else as `revoke_user`."""
    return await _revoke(node, [_of_token(node, name, None) for name in names])


def keep_out(node: Node, sessions: Iterable[Session]) -> bool:
    """Revoke the tokens that `sessions` came with: here at once, elsewhere as soon as the engine takes it.

    False where no more can be remembered here.
    """
    identities = [session.identity for session in sessions if session.identity is not None]
    revocations = [_of_token(node, one.token_id, one) for one in identities if one.token_id]
    if not revocations:
        return True
    remembered = _remember(node, revocations)
    _end(node, revocations)
    for revocation in revocations:
        audit.record("revocation", user=revocation.user, token=revocation.token_id)
    # Nobody could ask for it again: the sessions by which the tokens are known are gone.
    _say_later(node, revocations)
    node.run(_see_to_it(node))
    return remembered


def _remember(node: Node, revocations: Iterable[Revocation]) -> bool:
    now = node.now_ms()
    # Each, whatever becomes of the others.
    remembered = [node.revocations.add(revocation, now) for revocation in revocations]
    return all(remembered)


async def _revoke(node: Node, revocations: list[Revocation]) -> int:
    # All of them here before anything waits.
    remembered = _remember(node, revocations)
    ended = _end(node, revocations, here=True)
    if not remembered:
        raise Unavailable(TOO_MANY, retry_after=60)
    for revocation in revocations:
        audit.record("revocation", user=revocation.user, token=revocation.token_id)
        await _publish(node, revocation)
    return ended


async def _publish(node: Node, revocation: Revocation) -> None:
    body = msgspec.json.encode(revocation)
    # By what it says: where several nodes say the same, it is in the log once.
    id = blake2b(body, digest_size=16).hexdigest()
    await node.engine.publish(REVOCATIONS, Publication("revoke", content=msgspec.Raw(body), id=id, time=revocation.at))
