"""Connections that are reset: one of ours, or all that a server takes."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["reset", "resetting"]

# With this for SO_LINGER closing a socket resets it.
_LINGER = struct.pack("ii", 1, 0)


def reset(transport: asyncio.Transport | None) -> bool:
    """Close a socket so that the peer gets a reset, and neither side what is still under way; whether there was one."""
    if transport is None or transport.is_closing():
        return False
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
    transport.abort()
    return True


@contextmanager
def resetting() -> Iterator[tuple[str, int]]:
    """A server that resets every connection at once; gives its address."""
    with socket.create_server(("localhost", 0), backlog=100) as server:

        def reset_all() -> None:
            while True:
                connection, _ = server.accept()
                if over.is_set():
                    connection.close()
                    return
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
                connection.close()

        over = threading.Event()
        thread = threading.Thread(target=reset_all)
        thread.start()
        try:
            yield server.getsockname()
        finally:
            over.set()
            socket.create_connection(server.getsockname()).close()
            thread.join()
