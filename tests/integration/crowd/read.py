"""A crowd of readers in one process: each in a room, each writing down what it missed and how late it was.

usage: read.py PORT READERS ROOMS NAME [small]
`small`: the buffers of their sockets are, so that one that stops reading is noticed within a second.
Prints `ready` when all have joined. Each line of its standard input is a stretch of time, two moments of the monotonic
clock in ns: the answer is how late the messages of that time were, the 99th percentile in ms. At the end of its input
it prints in JSON what became of each reader.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from array import array
from typing import cast

import uvloop

from chaos.frames import CLOSE, TEXT, Frames, framed

# Bytes. The kernel gives a loopback connection megabytes otherwise.
SEGMENT, WINDOW = 536, 4_096

# Of every message: when it was sent, and how long it took, in ns.
sent, late = array("q"), array("q")


class Reader(asyncio.Protocol):
    def __init__(self, name: str, room: str) -> None:
        self._hello = (
            f"GET /ws?user_id={name} HTTP/1.1\r\nHost: crowd\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        ).encode() + framed(f'{{"type":"join","room":"{room}"}}'.encode())
        self._head: bytes | None = b""
        self._frames = Frames()
        self._transport: asyncio.Transport | None = None
        self.joined = asyncio.Event()

        # The last `seq`; how many messages were not the next one; how it was ended, 1006 for a reset.
        self.last = 0
        self.holes = 0
        self.code = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is one by its methods, not by its class.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._hello)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        if self._head is not None:
            self._head, end, data = (self._head + data).partition(b"\r\n\r\n")
            if not end:
                return
            assert self._head.startswith(b"HTTP/1.1 101 "), self._head
            self._head = None
        for first, payload in self._frames.feed(data):
            if first == TEXT:
                self._message(payload, now)
            elif first == CLOSE:
                self.code = int.from_bytes(payload[:2])

    def _message(self, payload: bytes, now: int) -> None:
        at = payload.find(b'"content":"')
        if at < 0:
            if payload.startswith(b'{"type":"joined"'):
                self.joined.set()
            return
        moment = int(payload[at + 11 : at + 27])
        sent.append(moment)
        late.append(now - moment)
        number = payload.find(b'"seq":', at) + 6
        seq = int(payload[number : payload.find(b",", number)])
        self.holes += seq != self.last + 1
        self.last = seq

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self.code = self.code or 1006

    def leave(self) -> None:
        if self._transport is not None:
            self._transport.abort()


async def main(port: int, count: int, rooms: int, name: str, small: bool) -> None:
    loop = asyncio.get_running_loop()
    readers = [Reader(f"{name}{number}", f"r{number % rooms}") for number in range(count)]
    for reader in readers:
        sock = socket.socket()
        sock.setblocking(False)
        if small:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW)
        await loop.sock_connect(sock, ("127.0.0.1", port))
        await loop.create_connection(lambda reader=reader: reader, sock=sock)  # type: ignore[misc]  # a default is no type
        await reader.joined.wait()
    print("ready", flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        begin, end = map(int, line.split())
        within = sorted(took for moment, took in zip(sent, late, strict=True) if begin <= moment < end)
        print(within[len(within) * 99 // 100] / 1e6 if within else 0.0, flush=True)
    print(json.dumps([{"last": reader.last, "holes": reader.holes, "code": reader.code} for reader in readers]))
    for reader in readers:
        reader.leave()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        port, count, rooms = map(int, sys.argv[1:4])
        runner.run(main(port, count, rooms, sys.argv[4], sys.argv[5:] == ["small"]))
