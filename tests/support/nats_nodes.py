"""Nodes on one NATS, without a hub, and how they lose it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

import pytest

from hubbub.engines.nats.engine import NatsEngine
from hubbub.errors import Unavailable
from hubbub.testing.engines import Ear
from hubbub.testing.engines.ear import LOBBY
from support.loop import eventually
from support.nats import Nats
from support.publisher import listening

__all__ = ["cut", "lose", "node", "said_away"]


def node(
    nats: Nats, name: str = "node.1", *, lease: float = 10.0
) -> AbstractAsyncContextManager[tuple[NatsEngine, Ear]]:
    """A node that listens to the lobby."""
    return listening(NatsEngine(nats.url, lease=lease), name)


async def lose(nats: Nats, engine: NatsEngine) -> None:
    """Kill NATS, and wait until the engine has said that it is away."""
    nats.kill()
    await said_away(engine)
    with pytest.raises(Unavailable):
        await engine.position(LOBBY)


async def said_away(engine: NatsEngine) -> None:
    """Wait until the engine has said that NATS is away."""
    assert engine._parts is not None
    link = engine._parts.link
    await eventually(lambda: link._said)


def cut(engine: NatsEngine) -> None:
    """Cut the connection, as a network does."""
    assert engine._parts is not None and engine._parts.link.connection is not None
    transport = engine._parts.link.connection._transport
    assert transport is not None
    transport.abort()
