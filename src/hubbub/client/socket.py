"""One WebSocket connection of a client: dialled, read in whole messages, closed without waiting for anyone."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import Final, Protocol
from urllib.parse import SplitResult, quote, urlsplit, urlunsplit

import msgspec
from msgspec import Struct
from picows import WSError, WSFrame, WSHandshakeError, WSListener, WSMsgType, WSTransport, ws_connect

from hubbub.errors import ConnectError
from hubbub.protocol.codec import Codec
from hubbub.protocol.codes import CloseCode
from hubbub.protocol.frames import CLOSE, PING, PONG, Assembly, Violation, read_close

__all__ = ["Receiver", "Refused", "Socket", "websocket_url"]

# What a server may send in one message, and in how many frames: more than any server of this protocol does.
_MESSAGE_SIZE: Final = 17 * 2**20
_MESSAGE_FRAMES: Final = 4_096

# For the server to answer a close frame.
_CLOSE_TIMEOUT: Final = 5.0

_SCHEMES: Final = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}


def websocket_url(url: str) -> str:
    """The WebSocket's URL: `http` becomes `ws`, and no path `/ws`; raises a final `ConnectError`."""
    try:
        parts = urlsplit(url)
        scheme = _SCHEMES.get(parts.scheme)
        good = scheme is not None and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise ConnectError(f"this is no address of a hub: {url!r}; one looks like ws://localhost:8000/ws", final=True)
    if parts.username is not None:
        raise ConnectError("an address cannot hold a name and a password: use a token", final=True)
    path = "/ws" if parts.path in ("", "/") else quote(parts.path, safe="/%:@!$&'()*+,;=~")
    query = quote(parts.query, safe="/%:@!$&'()*+,;=~?")
    return urlunsplit(SplitResult(scheme or "", parts.netloc, path, query, ""))


class Receiver(Protocol):
    """Who is told what happens on a socket; none of it comes after `drop`."""

    def received(self, number: int, text: str | bytes) -> None:
        """A whole message came."""

    def alive(self, number: int) -> None:
        """A ping or a pong came."""

    def closed(self, number: int, code: int, reason: str) -> None:
        """It is gone: with the server's code and reason, or with 1006."""


class Refused(ConnectError):
    """The handshake was answered with an HTTP status that is not 101."""

    def __init__(self, message: str, *, status: int, code: str, retry_after: float | None) -> None:
        super().__init__(message, final=status in (401, 403))
        self.status = status
        # As in protocol.md §3.1; empty where the answer is not a hub's.
        self.code = code
        self.retry_after = retry_after


class Socket(WSListener):
    """One connection; `number` is its name among those of its client."""

    def __init__(self, number: int, receiver: Receiver, codec: Codec) -> None:
        self.number = number
        self._codec = codec
        self._receiver = receiver
        self._assembly = Assembly(_MESSAGE_SIZE, _MESSAGE_FRAMES)

        # While hands are shaken: the TCP connection, and the socket that the event loop was given for it.
        self._tcp: socket.socket | None = None
        self._given: socket.socket | None = None

        # Afterwards.
        self._transport: WSTransport | None = None

        # Nothing is reported any more, and the peer has this long to say goodbye.
        self._dropped = False
        self._timer: asyncio.TimerHandle | None = None

        self._gone = asyncio.Event()

    async def open(self, url: str, tls: ssl.SSLContext | None) -> None:
        """Connect and shake hands; raises `ConnectError`, in time only where somebody calls `drop`."""
        parts = urlsplit(url)
        place = parts.netloc
        try:
            await ws_connect(
                lambda: self,
                url,
                ssl_context=tls,
                socket_factory=lambda parsed: self._connect(parsed.host, parsed.port),
                extra_headers={"Sec-WebSocket-Protocol": self._codec.NAME},
                websocket_handshake_timeout=None,
                enable_auto_pong=False,
                max_frame_size=_MESSAGE_SIZE,
                max_redirects=0,
                use_aiofastnet=False,
                logger_name="hubbub",
            )
        except WSHandshakeError as error:
            self._gone.set()
            raise _refusal(error, place) from error
        except (OSError, ValueError, WSError) as error:
            # A ValueError is a name that cannot be one of a host.
            self._gone.set()
            raise ConnectError(_why(error, parts)) from error
        finally:
            self._let_go()
        if self._transport is None:
            self._gone.set()
            raise ConnectError(f"{place} closed the connection before it was open")
        if self._transport.response.headers.get("Sec-WebSocket-Protocol") != self._codec.NAME:
            self.drop(CloseCode.PROTOCOL_ERROR)
            raise ConnectError(f"{place} is a WebSocket, but not one of a hub: it does not know {self._codec.NAME}")

    async def _connect(self, host: str, port: int) -> socket.socket:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        for index, (family, kind, proto, _, address) in enumerate(found):
            tcp = socket.socket(family, kind, proto)
            tcp.setblocking(False)
            try:
                await loop.sock_connect(tcp, address)
            except BaseException as error:
                tcp.close()
                # The next address may be better: `localhost` is often two.
                if not isinstance(error, OSError) or index == len(found) - 1:
                    raise
            else:
                # One of our own: the event loop closes its one when it likes, and then the number may be a stranger's.
                self._tcp = tcp.dup()
                self._given = tcp
                return tcp
        raise OSError(f"{host} has no address")

    def _let_go(self) -> None:
        """The handshake is over, in one way or the other: the connection is the event loop's alone."""
        if self._tcp is not None:
            self._tcp.close()
            self._tcp = None
        given, self._given = self._given, None
        if given is not None and type(asyncio.get_running_loop()).__module__.startswith("uvloop"):
            # uvloop has taken the file, not the object; where the connection died at once it does not tell the object
            # that the file is closed, which would be closed again, whosever it is by then.
            given.detach()

    def write(self, message: str | bytes) -> None:
        """Send a message."""
        if self._transport is not None and not self._dropped:
            self._transport.send(WSMsgType.TEXT if isinstance(message, str) else WSMsgType.BINARY, message)

    def drop(self, code: int) -> bool:
        """Report nothing any more and close it; False where not even a TCP connection is there to be closed.

        Nobody waits for the server, which may be far away or dead: it gets a close frame and some seconds.
        """
        if self._dropped or self._gone.is_set():
            self._dropped = True
            return True
        self._dropped = True
        if self._transport is not None:
            self._transport.send_close(code)  # type: ignore[arg-type]  # any code will do
            self._timer = asyncio.get_running_loop().call_later(_CLOSE_TIMEOUT, self._transport.disconnect, False)
        elif self._tcp is not None:
            # Whoever waits to read from it sees the end of it at once.
            with contextlib.suppress(OSError):
                self._tcp.shutdown(socket.SHUT_RDWR)
        else:
            self._gone.set()
            return False
        return True

    @property
    def is_gone(self) -> bool:
        """Whether nothing is left of it."""
        return self._gone.is_set()

    async def wait_gone(self) -> None:
        """Wait until nothing is left of it; after `drop` this takes some seconds at most."""
        await self._gone.wait()

    # ------------------------------------------------------------------------------------- what picows calls

    def on_ws_connected(self, transport: WSTransport) -> None:
        """The handshake is done."""
        self._transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """A frame came; it is valid only during this call."""
        opcode, payload = int(frame.msg_type), frame.get_payload_as_bytes()  # type: ignore[call-overload]
        if opcode == CLOSE:
            self._received_close(transport, payload)
        if self._dropped:
            return
        rsv = frame.rsv1 or frame.rsv2 or frame.rsv3
        message = self._assembly.add(opcode, frame.fin, rsv, payload)
        if isinstance(message, Violation):
            self._end(message.code, CloseCode.ABNORMAL, f"what the server sends is no WebSocket: {message.reason}")
        elif message is not None:
            self._receiver.received(self.number, message)
        elif opcode in (PING, PONG):
            if opcode == PING:
                transport.send_pong(payload)
            self._receiver.alive(self.number)

    def _received_close(self, transport: WSTransport, payload: bytes) -> None:
        close = read_close(payload)
        if self._dropped:
            # The answer to ours.
            transport.disconnect(graceful=False)
        elif isinstance(close, Violation):
            self._end(close.code, CloseCode.ABNORMAL, "the server's close frame is not one")
        else:
            answer = CloseCode.NORMAL if close.code == CloseCode.NO_STATUS else close.code
            self._end(answer, close.code, close.reason)
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """The connection is gone."""
        self._gone.set()
        if self._timer is not None:
            self._timer.cancel()
        if not self._dropped:
            self._dropped = True
            self._receiver.closed(self.number, CloseCode.ABNORMAL, "the connection was cut")

    def _end(self, answer: int, code: int, reason: str) -> None:
        self.drop(answer)
        self._receiver.closed(self.number, code, reason)

    def pause_writing(self) -> None:
        """The socket takes no more for now: what may wait in it is bounded by the messages without an outcome."""

    def resume_writing(self) -> None:
        """It takes more again."""


class _Error(Struct):
    code: str
    message: str


class _Refusal(Struct):
    error: _Error


def _refusal(error: WSHandshakeError, place: str) -> ConnectError:
    response = error.response
    if response is None or response.status == 101:
        return ConnectError(f"{place} does not speak WebSocket")
    status = int(response.status)
    try:
        said = msgspec.json.decode(error.raw_body or b"", type=_Refusal).error
    except msgspec.DecodeError:
        # Not a hub's answer; a proxy's, perhaps.
        said = _Error("", f"{place} answers {status} {response.status.phrase}")
        if "Location" in response.headers:
            said.message += f" and points to {response.headers['Location']}"
    wait = response.headers.get("Retry-After", "")
    retry_after = float(wait) if wait.isascii() and wait.isdigit() else None
    return Refused(said.message, status=status, code=said.code, retry_after=retry_after)


def _why(error: OSError | ValueError | WSError, parts: SplitResult) -> str:
    place = parts.netloc
    if isinstance(error, ConnectionRefusedError):
        return f"nothing listens at {place}"
    if isinstance(error, socket.gaierror):
        return f"there is no host named {parts.hostname}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate of {place} is not to be trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"{place} does not speak TLS as it should ({error.reason}): is it ws:// instead of wss://?"
    if isinstance(error, TimeoutError):
        return f"{place} does not answer"
    return f"{place} cannot be reached: {getattr(error, 'strerror', None) or error}"
