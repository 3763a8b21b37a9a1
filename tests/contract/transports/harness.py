"""A port with everything behind it, on a clock that tests turn by hand, and a client that can misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest
from starlette.applications import Starlette

from hubbub.core.addresses import TrustedProxies
from hubbub.core.wheel import Wheel
from hubbub.protocol.deflate import CompressionOptions
from hubbub.protocol.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT
from hubbub.transports.base import Accept, Admit, Handshake, Refuse, TransportLimits, Writer
from hubbub.transports.echo import admit_echo
from hubbub.transports.http import Http
from hubbub.transports.port import Port, bind
from hubbub.transports.websocket import WebSocket

__all__ = [
    "BINARY",
    "CLOSE",
    "CLOSE_1000",
    "CONTINUATION",
    "PING",
    "PONG",
    "TEXT",
    "Client",
    "Recorder",
    "Run",
    "Served",
    "encryption",
    "frame",
    "handshake",
    "plain",
    "serving",
]

# Runs a test's coroutine on an event loop; the fixture `run` is one for each kind of loop.
Run = Callable[[Coroutine[Any, Any, None]], None]

encryption: dict[str, ssl.SSLContext] = {}
"""What the "server" and its "client" speak TLS with; set by the fixture `run`, and empty for plain TCP."""

plain = pytest.mark.parametrize("run", ["uvloop", "asyncio"], indirect=True)
"""For a rule that is about the kernel's own socket: TLS has to encrypt first."""

# For what should happen at once: long enough for a busy machine, short enough to fail a test.
PATIENCE = 10.0

KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def handshake(path: str = "/ws", *lines: str) -> bytes:
    """A good handshake with header lines added."""
    return "\r\n".join(
        [
            f"GET {path} HTTP/1.1",
            "Host: localhost",
            "Upgrade: websocket",
            "Connection: keep-alive, Upgrade",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {KEY}",
            *lines,
            "\r\n",
        ]
    ).encode()


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bool = True) -> bytes:
    """A client's frame; the mask is all zeros, which changes nothing and is as good as any."""
    first = bytes(((0x80 if fin else 0) | rsv << 4 | opcode,))
    bit = 0x80 if mask else 0
    if len(payload) < 126:
        header = first + bytes((bit | len(payload),))
    elif len(payload) < 65_536:
        header = first + bytes((bit | 126,)) + len(payload).to_bytes(2)
    else:
        header = first + bytes((bit | 127,)) + len(payload).to_bytes(8)
    return header + (b"\0\0\0\0" if mask else b"") + payload


CLOSE_1000 = frame(CLOSE, b"\x03\xe8")


class Recorder:
    """A receiver that writes down what it is told."""

    def __init__(self) -> None:
        # In order, as ("received", "hello") and the like; without signs of life.
        self.events: list[tuple[Any, ...]] = []
        self.lives = 0
        self.writer: Writer
        # What to do with a message, beside writing it down.
        self.on_message: Callable[[str | bytes], None] = lambda message: None
        self._changed = asyncio.Event()

    def opened(self, writer: Writer) -> None:
        self.writer = writer
        self._note("opened")

    def received(self, message: str | bytes) -> None:
        self._note("received", message)
        self.on_message(message)

    def alive(self) -> None:
        self.lives += 1
        self._changed.set()

    def blocked(self) -> None:
        self._note("blocked")

    def unblocked(self) -> None:
        self._note("unblocked")

    def closed(self, code: int, reason: str) -> None:
        self._note("closed", code, reason)

    def _note(self, *event: Any) -> None:
        self.events.append(event)
        self._changed.set()

    def say(self, payload: bytes, binary: bool = False) -> None:
        """Write one message."""
        self.writer.write(self.writer.framing(binary)(payload))

    def named(self, name: str) -> list[tuple[Any, ...]]:
        """The events of one kind."""
        return [event for event in self.events if event[0] == name]

    @property
    def messages(self) -> list[str | bytes]:
        return [event[1] for event in self.named("received")]

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for something to become true of this recorder."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def end(self) -> tuple[int, str]:
        """Wait for the end: its code and reason, told once and last."""
        await self.until(lambda: self.named("closed"))
        [(_, code, reason)] = self.named("closed")

        assert self.events[-1][0] == "closed"
        return code, reason


@dataclass
class Served:
    """A port that is open, with WebSocket and HTTP behind it."""

    port: Port
    websocket: WebSocket
    http: Http
    wheel: Wheel
    # One for each connection that came to /ws, in order.
    recorders: list[Recorder] = field(default_factory=list)
    clients: list[Client] = field(default_factory=list)

    def pass_time(self, seconds: float) -> None:
        """Turn the clock; what is due happens in this call."""
        target = self.wheel.now + seconds
        while self.wheel.now < target:
            for callback in self.wheel.advance(min(target, self.wheel.now + self.wheel.granularity)):
                callback()

    async def deserted(self) -> None:
        """Wait until no TCP connection of a WebSocket is left."""
        async with asyncio.timeout(PATIENCE):
            while self.websocket.connections:
                await asyncio.sleep(0)

    async def client(self) -> Client:
        """A TCP connection to the port."""
        tls = encryption.get("client")
        reader, writer = await asyncio.open_connection(
            *self.port.addresses[0], limit=1 << 25, ssl=tls, server_hostname="localhost" if tls else None
        )
        client = Client(reader, writer)
        self.clients.append(client)
        return client

    async def join(self, path: str = "/ws", *lines: str) -> tuple[Client, Recorder]:
        """A client with an open WebSocket, and the receiver that it met."""
        client = await self.client()
        client.send(handshake(path, *lines))
        status, _, _ = await client.response()

        assert status == 101
        recorder = self.recorders[-1]
        await recorder.until(lambda: recorder.events)
        return client, recorder

    async def echoing(self) -> Client:
        """A client whose messages come back."""
        client = await self.client()
        client.send(handshake("/echo"))
        status, _, _ = await client.response()

        assert status == 101
        return client


class Client:
    """The other end of a connection, in control of every byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def stop_reading(self) -> None:
        """Stall: what the server sends stays in the sockets, until they are full."""
        self.writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is a ReadTransport too

    def go_on_reading(self) -> None:
        self.writer.transport.resume_reading()  # type: ignore[attr-defined]  # the same

    async def fill(self, make: Callable[[int], bytes]) -> int:
        """Send until nothing leaves any more, for many turns of the loop in which it could; how many."""
        transport = self.writer.transport
        transport.set_write_buffer_limits(high=0)
        count = idle = 0
        while idle < 1_000:
            waiting = transport.get_write_buffer_size()
            if waiting == 0:
                self.send(make(count))
                count += 1
            await asyncio.sleep(0)
            idle = idle + 1 if waiting and transport.get_write_buffer_size() == waiting else 0
        return count

    async def flood(self, data: bytes) -> None:
        """Send the same again and again until the server cuts the connection."""
        async with asyncio.timeout(PATIENCE):
            while not self.writer.transport.is_closing():
                self.send(data)
                await asyncio.sleep(0)

    async def response(self) -> tuple[int, dict[str, str], bytes]:
        """Read one HTTP response: status, headers by lower-case name, body."""
        async with asyncio.timeout(PATIENCE):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            status = int(head[0].split()[1])
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])}
            body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return status, headers, body

    async def frame(self) -> tuple[int, bytes]:
        """Read one frame: its opcode and payload; the server neither fragments nor masks."""
        opcode, compressed, payload = await self.any_frame()

        assert not compressed
        return opcode, payload

    async def any_frame(self) -> tuple[int, bool, bytes]:
        """Read one frame that may have RSV1, as compressed messages have: opcode, whether it has, and payload."""
        async with asyncio.timeout(PATIENCE):
            first, size = await self.reader.readexactly(2)
            if size >= 126:
                size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8))

            assert first & 0xB0 == 0x80
            return first & 0x0F, first & 0x40 != 0, await self.reader.readexactly(size)

    async def close_code(self) -> int:
        """Read up to the close frame, which must come, and the end after it."""
        opcode, payload = await self.frame()
        while opcode != CLOSE:
            opcode, payload = await self.frame()
        await self.end()
        return int.from_bytes(payload[:2]) if payload else 1005

    async def end(self) -> bytes:
        """Read to the end, which the server must make; a reset is an end."""
        async with asyncio.timeout(PATIENCE):
            with contextlib.suppress(ConnectionResetError):
                return await self.reader.read()
        return b""

    def finish_sending(self) -> None:
        """Hang up halfway: in TLS without its goodbye, since asyncio's has no such half an end."""
        if self.writer.can_write_eof():
            self.writer.write_eof()
        else:
            with socket.socket(fileno=os.dup(self.writer.get_extra_info("socket").fileno())) as same:
                same.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Leave without a word, not even TCP's."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def leave(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


@contextlib.asynccontextmanager
async def serving(
    limits: TransportLimits | None = None,
    *,
    admit: Callable[[Handshake], Awaitable[Accept | Refuse]] | None = None,
    app: Starlette | None = None,
    capacity: int = 10_000,
    subprotocol: str | None = None,
    compression: CompressionOptions | None = None,
    proxies: TrustedProxies = TrustedProxies(),
) -> AsyncIterator[Served]:
    """Serve on a free port of the loopback: `/ws` meets a Recorder (or `admit`), `/echo` an Echo."""

    async def record(handshake: Handshake) -> Accept | Refuse:
        recorder = Recorder()
        served.recorders.append(recorder)
        return Accept(recorder, subprotocol)

    limits = limits or TransportLimits()
    wheel = Wheel(1_000.0)
    compression = compression or CompressionOptions()
    websocket = WebSocket(limits, wheel, compression)
    http = Http(app or Starlette(), limits, wheel)
    paths: dict[str, Admit] = {"/ws": admit or record, "/echo": admit_echo}
    port = Port(
        limits=limits,
        wheel=wheel,
        paths=paths,
        websocket=websocket.open,
        http=http.protocol,
        tls=encryption.get("server"),
        capacity=capacity,
        proxies=proxies,
        compression=compression.compression,
    )
    served = Served(port, websocket, http, wheel)
    await port.open(await bind("127.0.0.1", 0))
    try:
        yield served
    finally:
        for client in served.clients:
            await client.leave()
        await port.close()
        websocket.abort()
        await http.close(0)
        async with asyncio.timeout(PATIENCE):
            while websocket.connections or http.connections:
                await asyncio.sleep(0)

    assert port.statistics().waiting == 0
    assert (len(websocket.unfinished), websocket.unfinished.size) == (0, 0)
    assert all(len(recorder.named("closed")) == 1 for recorder in served.recorders)
