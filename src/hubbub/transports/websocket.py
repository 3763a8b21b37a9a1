"""WebSocket connections: picows cuts the bytes into frames, and this module makes messages of them.

picows frames at the speed of C and does no more than that: fragments, UTF-8, close codes, limits and the
closing handshake are ours. This is the one module that knows picows, and it uses two things that picows does
not promise (the dependency is pinned to a minor version, and the tests fail when either changes):

- its protocol class, `WSProtocol`, is given connections whose handshake has already been done. It is played
  a handshake that is always the same, and its answer is thrown away;
- what it takes for the TCP transport is a `_Wire`, so picows never touches the socket. It writes only when a
  peer breaks the framing, and by that write we learn of it.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from time import thread_time
from typing import Any, cast

from multidict import CIMultiDict
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, WSUpgradeResponse
from picows.common import WSUpgradeResponseWithListener
from picows.picows import WSAutoPingStrategy, WSProtocol  # type: ignore[attr-defined]  # see above

from hubbub.core.wheel import Timer, Wheel
from hubbub.protocol.deflate import CompressionOptions, Deflate
from hubbub.protocol.frames import (
    CLOSE,
    PING,
    PING_FRAME,
    PONG,
    Assembly,
    Violation,
    binary_frame,
    close_frame,
    compressing,
    pong_frame,
    read_close,
    text_frame,
)
from hubbub.transports.base import Receiver, TransportLimits
from hubbub.transports.inflating import Inflating, Line
from hubbub.transports.lent import give_back, lend
from hubbub.transports.linger import Aftermath, finish_sending
from hubbub.transports.played import LOG, NO_SOCKET
from hubbub.transports.unfinished import Unfinished

__all__ = ["Connection", "WebSocket"]

_TEXT = WSMsgType.TEXT
_BINARY = WSMsgType.BINARY

# What makes text messages into frames, and what binary ones.
_Framings = tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]
_PLAIN: _Framings = (text_frame, binary_frame)

# Bytes of one read at most: with much more of them behind the largest frame picows' buffer would double once more.
_READ = 32_768

# The life of a connection: messages go both ways; our close frame is out and the peer's is awaited;
# nothing more is said, only the TCP connection remains to be ended.
_OPEN, _CLOSING, _OVER = range(3)


class WebSocket:
    """The WebSocket side of a port: what all its connections share, and the connections there are."""

    def __init__(
        self, limits: TransportLimits, wheel: Wheel, compression: CompressionOptions = CompressionOptions()
    ) -> None:
        self.limits = limits
        self.wheel = wheel
        self.compression = compression
        # Those whose TCP connection still stands.
        self.connections: set[Connection] = set()
        # Those of them that have sent a part of a message, and not all of it.
        self.unfinished = Unfinished(limits, wheel)
        # Those of them whose compressed messages wait for their turn.
        self.inflating = Line()
        # How text and binary messages are framed where a window was agreed on, by its bits: at most three.
        self._framings: dict[int, _Framings] = {}

    def framings(self, deflate: Deflate | None) -> _Framings:
        """How a connection frames text and binary messages: the same two functions for all that agreed alike."""
        if deflate is None:
            return _PLAIN
        window = deflate.window
        found = self._framings.get(window)
        if found is None:
            text, binary = (compressing(binary, window, self.compression) for binary in (False, True))
            found = self._framings[window] = (text, binary)
        return found

    def open(
        self,
        transport: asyncio.Transport,
        receiver: Receiver,
        early: bytes = b"",
        deflate: Deflate | None = None,
        ip: str = "",
    ) -> None:
        """Take over a TCP connection on which the handshake has been done, its response written.

        Reading may be paused, and is not afterwards. `early` is what the client sent right behind its
        handshake, `deflate` what was agreed on about compression, `ip` the client's address as in `Handshake`.
        Whatever happens, `receiver` is told `opened` and, once the connection is gone, `closed`.
        """
        connection = Connection(self, transport, receiver, deflate, ip)
        if transport.is_closing():
            # The client left while it was being let in.
            connection.be_stillborn()
            return
        wire = _Wire()
        framing = _Framing(
            None,  # host_port: for clients
            None,  # ws_path: for clients
            False,  # is_client_side
            connection.handshake,
            LOG,
            True,  # disconnect_on_exception
            None,  # websocket_handshake_timeout: the handshake is behind us
            False,  # enable_auto_ping: would be a task per connection
            None,
            None,
            WSAutoPingStrategy.PING_WHEN_IDLE,
            False,  # enable_auto_pong: pings are counted
            self.limits.message_size,  # max_frame_size
            None,  # extra_headers: for clients
            256,  # read_buffer_init_size: picows makes it 2,048, its least
        )
        framing.connection_made(wire)
        _feed(framing, _HANDSHAKE)
        wire.connection = connection

        # So that `blocked` comes exactly when the socket takes no more.
        transport.set_write_buffer_limits(high=0)
        # uvloop would keep the last protocol's `data_received`, and the protocol by it, for picows has none.
        transport.set_protocol(_NOBODY)
        transport.set_protocol(framing)
        transport.resume_reading()
        self.connections.add(connection)
        receiver.opened(connection)
        if early:
            _feed(framing, early, connection)

    def abort(self) -> None:
        """End every connection now."""
        for connection in list(self.connections):
            connection.abort()


class Connection(WSListener):
    """One WebSocket connection: the `Writer` of a receiver, and picows' listener."""

    __slots__ = (
        "_allowance_used",
        "_assembly",
        "_code",
        "_deliver",
        "_framings",
        "_inflating",
        "_reason",
        "_receiver",
        "_socket",
        "_state",
        "_tcp",
        "_timer",
        "_websocket",
        "ip",
        "send",
        "write",
    )

    # The TCP transport's own method while the connection is open, and afterwards one that does nothing: no
    # check and no Python in the way of a thousand deliveries. So nobody may keep it: `writer.write(frames)`.
    write: Callable[[bytes], None]
    # See `Writer.send`: this one may be kept.
    send: Callable[[bytes], int]

    def __init__(
        self,
        websocket: WebSocket,
        transport: asyncio.Transport,
        receiver: Receiver,
        deflate: Deflate | None = None,
        ip: str = "",
    ) -> None:
        self._websocket = websocket
        self._framings = websocket.framings(deflate)
        # None where messages must not be compressed.
        self._inflating = None if deflate is None else Inflating(self, websocket.inflating)
        # The client's address.
        self.ip = ip
        # None once it is gone.
        self._tcp: asyncio.Transport | None = transport
        # None once it has been told of the end.
        self._receiver: Receiver | None = receiver
        self._state = _OPEN
        self.write = transport.write
        # Given back in `lost`. uvloop's own write costs a third of a whole delivery more than the system call, and
        # write(2) more than send(2).
        self._socket = lend(transport)
        self.send = self._send_through if self._socket is None else self._socket.send
        # Like `write`: the receiver's method while its messages are wanted.
        self._deliver: Callable[[str | bytes], None] = receiver.received
        # Only while a fragmented message is coming in, or frames wait.
        self._assembly: Assembly | None = None
        # What the peer has used of its allowance of control frames, as a point on the scale that time moves
        # along by `control_frames_per_second`: one number instead of a count and a time.
        self._allowance_used = 0
        # How it ended: what `Receiver.closed` is told.
        self._code = 1006
        self._reason = ""
        # Cuts the connection if its end takes too long.
        self._timer: Timer | None = None

    # --- Writer ---

    def framing(self, binary: bool) -> Callable[[bytes], bytes]:
        """See `Writer.framing`."""
        return self._framings[binary]

    def _send_through(self, frames: bytes, /) -> int:
        # Where the socket is not ours to write to: TLS has to encrypt, or the client has already left.
        if self._state != _OPEN:
            return _send_nothing(frames)
        self.write(frames)
        return len(frames)

    def unsent(self) -> int:
        """See `Writer.unsent`."""
        return 0 if self._tcp is None else self._tcp.get_write_buffer_size()

    def ping(self) -> None:
        """See `Writer.ping`."""
        self.write(PING_FRAME)

    def close(self, code: int, reason: str) -> None:
        """See `Writer.close`."""
        if self._state != _OPEN:
            return
        kept = None if self._inflating is None else self._inflating.drop()
        self._say_close(_CLOSING, code, reason)
        if self._tcp is not None:
            # The answer has to be heard even if the receiver wanted to hear no more.
            self._tcp.resume_reading()
        self._set_deadline()
        while kept:
            # Nothing is inflated any more, but the peer's own close frame may be among them.
            self.take(*kept.take())

    def abort(self) -> None:
        """See `Writer.abort`."""
        self._fall_silent(_OVER)
        if self._tcp is not None:
            self._tcp.abort()

    def pause_reading(self) -> None:
        """See `Writer.pause_reading`; frames that have already been read still come, but no compressed ones."""
        if self._state == _OPEN and self._tcp is not None:
            if self._inflating is not None:
                self._inflating.paused = True
            self._tcp.pause_reading()

    def resume_reading(self) -> None:
        """See `Writer.resume_reading`."""
        if self._state == _OPEN and self._tcp is not None and (self._inflating is None or self._inflating.resume()):
            self._tcp.resume_reading()

    # --- picows calls these ---

    def handshake(self, request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        """Accept the handshake that `WebSocket.open` plays to picows, leaving little of it in memory."""
        request.headers = _HEADERS
        request.method = request.path = request.version = b""
        return WSUpgradeResponseWithListener(_RESPONSE, self)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Take one frame: the way of every message, so an unfragmented one is through in a few steps."""
        if frame.fin and self._assembly is None and not (frame.rsv1 or frame.rsv2 or frame.rsv3):
            kind = frame.msg_type
            if kind is _TEXT:
                try:
                    text = frame.get_payload_as_utf8_text()
                except UnicodeDecodeError:
                    self.fail(Violation(1007, "the text is not UTF-8"))
                else:
                    self._deliver(text)
                return
            if kind is _BINARY:
                self._deliver(frame.get_payload_as_bytes())
                return
        inflating = self._inflating
        compressed = bool(frame.rsv1) and inflating is not None
        rsv = bool(frame.rsv2 or frame.rsv3 or (frame.rsv1 and not compressed))
        opcode, fin, payload = frame.msg_type.value, bool(frame.fin), frame.get_payload_as_bytes()
        if inflating is None or self._state != _OPEN or not inflating.must_wait():
            self.take(opcode, fin, rsv, payload, compressed)
            return
        if not inflating.keeping and self._tcp is not None:
            self._tcp.pause_reading()
            # What follows is no message by itself: it has to wait behind this one.
            self._assembly = self._assembly or self._begin_assembly()
        inflating.keep(opcode, fin, rsv, payload, compressed)

    def pause_writing(self) -> None:
        """The socket takes no more."""
        if self._state == _OPEN and self._receiver is not None:
            self._receiver.blocked()

    def resume_writing(self) -> None:
        """Everything has left."""
        if self._state == _OPEN and self._receiver is not None:
            self._receiver.unblocked()

    def eof(self) -> None:
        """The peer will send nothing more; without a close frame that is the end (RFC 6455 §7.1.4)."""
        self._end()
        self._tell_closed()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """The TCP connection is gone."""
        self.lost()

    def broke_framing(self, code: int) -> None:
        """The peer sent what picows cannot make sense of; frames before that may still be delivered."""
        if self._state == _OVER or self._tcp is None:
            return
        # At once, or picows would try to read the same again with whatever comes next.
        self._tcp.set_protocol(Aftermath(self))
        reason = "the frame is too big" if code == 1009 else "the framing is broken" if code == 1002 else ""
        asyncio.get_running_loop().call_soon(self._fail_in_turn, Violation(code, reason))

    # --- and these when a frame is no message by itself, or had to wait ---

    def take(self, opcode: int, fin: bool, rsv: bool, payload: bytes, compressed: bool) -> None:
        """See `Peer.take`: a frame that is not a message by itself as it is, or should not be there."""
        if self._state != _OPEN:
            if opcode == CLOSE and self._state == _CLOSING:
                self._end()
            return
        assembly = self._assembly or self._begin_assembly()
        inflating = self._inflating
        if inflating is None:
            result = assembly.add(opcode, fin, rsv, payload, compressed)
        else:
            started = thread_time()
            result = assembly.add(opcode, fin, rsv, payload, compressed)
            if assembly.compressed and fin and opcode < CLOSE:
                inflating.charge(thread_time() - started, len(result) if isinstance(result, str | bytes) else 0)
        if isinstance(result, Violation):
            self.fail(result)
            return
        if assembly.unfinished:
            self._assembly = assembly
            self._websocket.unfinished.hold(self, assembly.size)
            if self._state != _OPEN:
                # There was no room for it.
                return
        else:
            self._drop_assembly()
            if inflating is not None and inflating.keeping:
                self._assembly = assembly
        if result is not None:
            self._deliver(result)
        elif opcode == CLOSE:
            self._peer_closes(payload)
        elif opcode in (PING, PONG):
            self._sign_of_life(opcode, payload)

    def caught_up(self) -> None:
        """See `Peer.caught_up`."""
        if self._assembly is not None and not self._assembly.unfinished:
            self._assembly = None
        inflating = self._inflating
        if inflating is not None and inflating.violation is not None:
            self.fail(inflating.violation)
        elif inflating is not None and not inflating.paused:
            self.resume_reading()

    # --- inside ---

    def _fail_in_turn(self, violation: Violation) -> None:
        if self._inflating is not None and self._inflating.keeping:
            self._inflating.violation = violation
        else:
            self.fail(violation)

    def _begin_assembly(self) -> Assembly:
        limits = self._websocket.limits
        return Assembly(limits.message_size, limits.message_fragments)

    def _sign_of_life(self, opcode: int, payload: bytes) -> None:
        limits = self._websocket.limits
        now = int(self._websocket.wheel.now * limits.control_frames_per_second)
        self._allowance_used = max(self._allowance_used, now) + 1
        if self._allowance_used > now + limits.control_frames_burst:
            self.fail(Violation(4500, "protocol violation: too many control frames"))
            return
        if opcode == PING:
            self.write(pong_frame(payload))
        if self._receiver is not None:
            self._receiver.alive()

    def _peer_closes(self, payload: bytes) -> None:
        close = read_close(payload)
        if isinstance(close, Violation):
            self.fail(close)
            return
        # Its code is echoed (§5.5.1), and then it is the server that ends the TCP connection (§7.1.1).
        self._say_close(_OVER, close.code, "")
        self._reason = close.reason
        self._end()
        self._tell_closed()

    @property
    def is_reading(self) -> bool:
        """Whether what the peer sends is taken: not while the receiver wants to hear no more."""
        return self._tcp is not None and self._tcp.is_reading()

    def fail(self, violation: Violation) -> None:
        """Say what is wrong and end the connection; nothing more is read of it (§7.1.7)."""
        if self._state == _OVER or self._tcp is None:
            return
        if self._state == _OPEN:
            self._say_close(_OVER, violation.code, violation.reason)
        self._fall_silent(_OVER)
        self._set_deadline()
        self._tcp.set_protocol(Aftermath(self))
        finish_sending(self._tcp)
        self._tell_closed()

    def _say_close(self, state: int, code: int, reason: str) -> None:
        self._code = code
        self._reason = reason
        write = self.write
        # First, because writing may call back.
        self._fall_silent(state)
        write(close_frame(code, reason))

    def _fall_silent(self, state: int) -> None:
        self._state = state
        self.write = _ignore
        # Not silently: nobody may believe that these bytes have left.
        self.send = _send_nothing
        self._deliver = _ignore
        self._drop_assembly()
        if self._inflating is not None:
            self._inflating.drop()

    def _drop_assembly(self) -> None:
        if self._assembly is not None:
            self._assembly = None
            self._websocket.unfinished.release(self)

    def _end(self) -> None:
        """Let what is written leave, and end the TCP connection."""
        self._fall_silent(_OVER)
        self._set_deadline()
        if self._tcp is not None:
            self._tcp.close()

    def _set_deadline(self) -> None:
        # A peer that takes nothing would keep a closing connection for ever.
        if self._timer is None:
            self._timer = self._websocket.wheel.after(self._websocket.limits.close_timeout, self.abort)

    @property
    def unheard(self) -> bool:
        """See `Offender.unheard`."""
        return self._state != _OVER

    def be_stillborn(self) -> None:
        """Tell the receiver of a connection that was gone before it was opened."""
        self._fall_silent(_OVER)
        if self._receiver is not None:
            self._receiver.opened(self)
        self.lost()

    def lost(self) -> None:
        """Forget the connection."""
        if self._tcp is None:
            return
        self._tcp = None
        if self._socket is not None:
            give_back(self._socket)
        self._fall_silent(_OVER)
        # The two know each other, too.
        self._inflating = None
        if self._timer is not None:
            self._timer.cancel()
        self._websocket.connections.discard(self)
        self._tell_closed()

    def _tell_closed(self) -> None:
        """Tell the receiver, once, that nothing more comes or goes."""
        receiver, self._receiver = self._receiver, None
        # Also undoes the cycle between the two: the collector shall have nothing to do.
        if receiver is not None:
            receiver.closed(self._code, self._reason)


def _ignore(_: str | bytes) -> None:
    pass


def _send_nothing(_: bytes) -> int:
    raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


class _Framing(WSProtocol):  # type: ignore[misc]  # picows' stubs leave the class out
    """picows' protocol, which would not tell its listener that the peer has finished sending, and reads without end."""

    __slots__ = ()

    def get_buffer(self, size_hint: int, _room: Callable[[WSProtocol, int], memoryview] = WSProtocol.get_buffer) -> Any:
        # Where a read fills its buffer picows makes it twice as large, and never smaller: as large as what a peer that
        # sends fast has in the socket, which is megabytes. With this it stays below twice the largest frame.
        room = _room(self, size_hint)
        return room if len(room) <= _READ else room[:_READ]

    def eof_received(self) -> bool:
        cast(Connection, self.listener).eof()
        return False


class _Wire:
    """What picows takes for its TCP transport: it lets nothing through."""

    __slots__ = ("connection",)

    def __init__(self) -> None:
        # None during the handshake, whose response is not wanted.
        self.connection: Connection | None = None

    def get_extra_info(self, name: str) -> Any:
        return NO_SOCKET if name == "socket" else None

    def get_write_buffer_size(self) -> int:
        # Never nothing, or picows would write to the socket itself.
        return 1

    def write(self, data: bytes) -> None:
        # The only frame that picows sends of its own accord: a close frame, for broken framing or because a
        # listener raised.
        if self.connection is not None and len(data) >= 4:
            self.connection.broke_framing(int.from_bytes(data[2:4]))

    def close(self) -> None:
        """Asked for by picows some time after its close frame; the connection ends it."""


_NOBODY = asyncio.Protocol()

# The handshake that picows is played: the same for every connection, as are what picows makes of it.
_HEADERS: CIMultiDict[str] = CIMultiDict(
    {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
)
_HANDSHAKE = b"GET / HTTP/1.1\r\n\r\n"
_RESPONSE: WSUpgradeResponse = WSUpgradeResponse.create_101_response()


def _feed(framing: WSProtocol, data: bytes, connection: Connection | None = None) -> None:
    """Give picows bytes as if they had come from the socket."""
    rest = memoryview(data)
    while rest and (connection is None or connection._state != _OVER):
        room = framing.get_buffer(-1)
        size = min(len(room), len(rest))
        room[:size] = rest[:size]
        framing.buffer_updated(size)
        rest = rest[size:]
