"""A server that takes nobody: every connection dies at once."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["LINGER", "resetting"]

LINGER = struct.pack("ii", 1, 0)
"""The value of SO_LINGER with which closing a socket resets it."""


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
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
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
