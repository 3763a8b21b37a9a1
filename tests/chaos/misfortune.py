"""What happens to connections, nodes, engines and the links between them."""

from __future__ import annotations

import asyncio
from enum import StrEnum

__all__ = ["Misfortune", "stall"]


class Misfortune(StrEnum):
    """One kind, in the words of the report."""

    RESET = "connections reset"
    """A client's connection is lost."""

    STALL = "readers stalled"
    """A client reads nothing for a while."""

    KILL = "nodes killed"
    """SIGKILL, and started again."""

    ROLL = "nodes rolled"
    """SIGTERM, the drain, and started again."""

    FREEZE = "nodes frozen"
    """SIGSTOP for some seconds."""

    DEAFEN = "engine deafened nodes"
    """The engine ends the connections by which nodes hear."""

    HANG = "engine frozen"
    """SIGSTOP of the engine for some seconds."""

    RESTART = "engine restarted"
    """SIGKILL of the engine, and started again; it has what it keeps on disk, or nothing."""

    EMPTY = "engine emptied"
    """Everything in the engine is deleted, while it runs."""

    CUT = "links cut"
    """All connections of a node with the engine are reset."""

    SWALLOW_OUT = "links half open, node to engine lost"
    """They stand, and what the node says does not arrive."""

    SWALLOW_BACK = "links half open, engine to node lost"
    """They stand, and what the engine says does not arrive."""

    SWALLOW = "links dead"
    """They stand, and nothing arrives."""

    SLOW = "links slow"
    """Everything takes a while."""


def stall(transport: asyncio.Transport | None, seconds: float) -> bool:
    """Read nothing from a socket for a while; whether it was read from before."""
    if transport is None or transport.is_closing() or not transport.is_reading():
        return False
    transport.pause_reading()
    asyncio.get_running_loop().call_later(seconds, _go_on, transport)
    return True


def _go_on(transport: asyncio.Transport) -> None:
    if not transport.is_closing():
        transport.resume_reading()
