"""The socket under a transport, to write to it without the transport."""

from __future__ import annotations

import asyncio
import atexit
import socket

__all__ = ["give_back", "lend"]

# The sockets that share their files with transports, until they are given back: one that was only forgotten
# would close its file, whose number may be a stranger's by then (a loop can end without `connection_lost`).
# Leaking an object is better than that.
_LENT: set[socket.SocketType] = set()


def lend(transport: asyncio.Transport) -> socket.SocketType | None:
    """The same file as the transport's, not a second one; None where it is not ours to write to."""
    if transport.is_closing() or transport.get_extra_info("ssl_object") is not None:
        return None
    known = transport.get_extra_info("socket")
    lent = socket.SocketType(known.family, known.type, known.proto, fileno=known.fileno())
    _LENT.add(lent)
    # The file never waits, but this object would if the application has set a default timeout.
    lent.settimeout(0)
    return lent


def give_back(lent: socket.SocketType) -> None:
    """The transport closes the file next; its number must not be used or closed by anybody else."""
    _LENT.discard(lent)
    lent.detach()


@atexit.register
def _give_back_all() -> None:
    while _LENT:
        _LENT.pop().detach()
