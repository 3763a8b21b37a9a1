"""One client, as small as can be: for what the load generator cannot ask."""

import json
import socket
import struct

from harness import MeasurementError

PATIENCE = 10.0
"""Seconds for what should come at once."""

HANDSHAKE = (
    "GET /ws?user_id=u{number} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Sec-WebSocket-Protocol: hubbub.v1.json\r\n\r\n"
)


def frame(message: object) -> bytes:
    """A message as the frame of a client; up to 64 KiB."""
    text = json.dumps(message, separators=(",", ":")).encode()
    # Masked with zeros: RFC 6455 §5.3 asks for a mask, not for a good one, and this is loopback.
    if len(text) < 126:
        return struct.pack("!BB4x", 0x81, 0x80 | len(text)) + text
    return struct.pack("!BBH4x", 0x81, 0x80 | 126, len(text)) + text


class Client:
    """One session, and the messages that come."""

    def __init__(self, port: int, number: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(HANDSHAKE.format(number=number).encode() + frame({"type": "hello"}))
        self._data = bytearray()
        while b"\r\n\r\n" not in self._data:
            self._data += self.socket.recv(4_096)
        del self._data[: self._data.index(b"\r\n\r\n") + 4]
        while b'"welcome"' not in self.receive():
            pass

    def receive(self) -> bytes:
        """The next message."""
        head = 2
        while True:
            if len(self._data) >= 2:
                size = self._data[1]
                head = {126: 4, 127: 10}.get(size, 2)
                if head > 2 and len(self._data) >= head:
                    size = int.from_bytes(self._data[2:head])
                if len(self._data) >= head + size:
                    message = bytes(self._data[head : head + size])
                    del self._data[: head + size]
                    return message
            data = self.socket.recv(1_048_576)
            if not data:
                raise MeasurementError("the server closed a connection")
            self._data += data
