"""Ending a connection so that nothing of it is done any more."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Final

__all__ = ["reset"]

# With this for SO_LINGER closing a socket throws away what it has not sent, and resets it.
_NOW: Final = struct.pack("ii", 1, 0)


def reset(transport: asyncio.Transport) -> None:
    """End the connection, and what waits in the kernel to be sent.

    Otherwise the kernel goes on sending for minutes: a command that was given up, and taken back by another connection,
    would arrive after all, and count.
    """
    if transport.is_closing():
        return
    endpoint = transport.get_extra_info("socket")
    if endpoint is not None:
        endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NOW)
    transport.abort()
