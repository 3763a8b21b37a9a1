"""The channels on which nodes try the way round, to the engine's server and back by its bus."""

from __future__ import annotations

__all__ = ["canary", "is_canary"]


def canary(node: str) -> str:
    """The channel on which a node tries the way round: its own, and of nobody else's concern."""
    return f"server:canary:{node}"


def is_canary(channel: str) -> bool:
    """Whether the channel is one of those."""
    return channel.startswith("server:canary:")
