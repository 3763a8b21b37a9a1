"""The least WebSocket that a client needs: text messages in one frame each, and what keeps a connection up.

Strict where the server could be wrong, and otherwise short: it shares one core with twenty thousand deliveries
a second.
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["CLOSE", "PING", "PONG", "TEXT", "BadFrameError", "Frames", "framed"]

TEXT, CLOSE, PING, PONG = 0x81, 0x88, 0x89, 0x8A
"""First bytes of whole frames: FIN and the opcode."""


class BadFrameError(Exception):
    """The server sent what is no whole frame of a kind that it sends."""


def framed(payload: bytes, first: int = TEXT) -> bytes:
    """A client's frame. Its mask is zeros, which changes no byte and so costs nothing."""
    size = len(payload)
    if size < 126:
        return bytes((first, 0x80 | size, 0, 0, 0, 0)) + payload
    return bytes((first, 0x80 | 126)) + size.to_bytes(2, "big") + b"\0\0\0\0" + payload


class Frames:
    """Cuts what comes from a server into frames."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The first byte and the payload of each frame that is complete now; raises `BadFrameError`."""
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        while end - at >= 2:
            first, size, start = data[at], data[at + 1], at + 2
            if size == 126:
                size, start = int.from_bytes(data[start : start + 2], "big"), start + 2
            elif size == 127:
                size, start = int.from_bytes(data[start : start + 8], "big"), start + 8
            if first not in (TEXT, CLOSE, PING, PONG) or size > 2**24:
                raise BadFrameError(f"a frame that begins with {data[at : at + 10].hex()}")
            if start + size > end:
                break
            at = start + size
            # What follows a frame that ends the connection is of no interest, so the rest is not kept meanwhile.
            yield first, data[start:at]
        self._rest = data[at:]
