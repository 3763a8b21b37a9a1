"""What networks and readers do to a connection."""

from __future__ import annotations

import asyncio
import socket

from support.resetting import LINGER

__all__ = ["reset", "stall"]


def reset(transport: asyncio.Transport | None) -> bool:
    """Close a socket so that the peer gets a reset, and neither side what is still under way; whether there was one."""
    if transport is None or transport.is_closing():
        return False
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
    transport.abort()
    return True


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
