"""Clients that come back all at once, each for what it has missed."""

import select
import socket
import time

from client import HANDSHAKE, PATIENCE, frame
from harness import MeasurementError

# Connections that are being made at a time: below any server's backlog.
SHAKING = 64


class _Client:
    """One that resumes its inbox from before the first message."""

    __slots__ = ("count", "last", "socket")

    def __init__(self, port: int, number: int, hello: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setblocking(False)
        # The first message rides behind the handshake, as that of a client in a hurry does.
        self.socket.send(HANDSHAKE.format(number=number).encode() + hello)
        self.count = 0
        # The end of what came last: a mark may be cut in two.
        self.last = b""

    def read(self) -> None:
        """Count the messages of the inbox in what has come."""
        try:
            data = self.socket.recv(65_536)
        except BlockingIOError:
            return
        if not data:
            raise MeasurementError("the server closed a connection")
        mark = b'"seq":'
        data = self.last + data
        self.count += data.count(mark)
        self.last = data[-len(mark) + 1 :]


def resume_all(port: int, clients: int, epoch: str, missed: int) -> float:
    """Let `clients` come and resume their inboxes; seconds until the last of them has all its `missed` messages."""
    hello = frame({"type": "hello", "resume": {"inbox": [epoch, 0]}})
    poll = select.epoll()
    coming: dict[int, _Client] = {}
    done: list[_Client] = []
    start = time.perf_counter()
    progress = start
    number = 0
    while len(done) < clients:
        while number < clients and len(coming) < SHAKING:
            client = _Client(port, number, hello)
            coming[client.socket.fileno()] = client
            poll.register(client.socket, select.EPOLLIN)
            number += 1
        for descriptor, _ in poll.poll(0.1):
            client = coming[descriptor]
            client.read()
            if client.count > missed:
                raise MeasurementError(f"a client got {client.count} messages instead of {missed}")
            if client.count == missed:
                # It stays: who has resumed is still there.
                poll.unregister(descriptor)
                done.append(coming.pop(descriptor))
                progress = time.perf_counter()
        if time.perf_counter() - progress > PATIENCE:
            raise MeasurementError(f"only {len(done)} of {clients} clients have resumed")
    taken = time.perf_counter() - start
    for client in done:
        client.socket.close()
    poll.close()
    return taken
