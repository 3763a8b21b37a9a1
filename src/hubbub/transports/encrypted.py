"""TLS between a TCP connection and whoever uses it, who sees a transport like another.

The event loops have one of their own. This one differs where the port cares: there is no task and no timer for a
handshake, so strangers wait at the gate under its deadline and its bound whether or not they have shaken hands;
nothing waits in it, so "blocked" is what the kernel says; half an end is possible, so a refusal can be read; and
an idle connection keeps no buffer of 256 KiB. Both event loops behave alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterable
from typing import Any, cast

from hubbub.transports.linger import LAST_READS, finish_sending

__all__ = ["Encrypted"]

# Bytes of ciphertext to take in at once: after each it is asked whether it led to anything. And of it to collect before
# they are handed on: OpenSSL's buffers grow to the most that they have ever held, and stay so.
_TAKE = 8_192
_STEP = 32_768

# Bytes of ciphertext that may lead to nothing readable. A record that says nothing, such as a new key, costs OpenSSL
# more than a message costs the hub, and nobody above hears of it: so it is here that a flood of them must end. One
# whole record may be on its way; what each adds to its content is forgiven when it has been read (29 bytes in TLS 1.2).
_FRUITLESS = 24_576
_OVERHEAD = 32

# Bytes of the largest greeting that is listened to, and of its beginning, which says how large it is (RFC 8446 §4,
# §5.1): OpenSSL would reserve what it announces.
_GREETING = 16_384
_BEGINNING = 9

# A record holds no more (RFC 8446 §5.1).
_RECORD = 16_384

# For who forgot the `s` of `https` or `wss`: the one answer that goes out in the clear.
_NOT_TLS_BODY = b'{"error":{"code":"bad_message","message":"This port speaks TLS: use wss:// or https://."}}'
_NOT_TLS = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"
) % (len(_NOT_TLS_BODY), _NOT_TLS_BODY)

# The life of a connection: hands are being shaken; both sides speak; we have said that nothing more will come from
# us; the same, to who does not speak TLS; it is over.
_SHAKING, _OPEN, _SAID, _TURNED_AWAY, _OVER = range(5)


class Encrypted(asyncio.Protocol, asyncio.Transport):
    """One connection: the protocol of its TCP transport, and the transport of the protocol above it.

    That one is told `connection_made` when the TCP connection stands, not when hands have been shaken, so that it
    bounds both; it cannot write before it has been given something to read.
    """

    __slots__ = (
        "_app",
        "_buffered",
        "_context",
        "_eof",
        "_first",
        "_fruitless",
        "_incoming",
        "_outgoing",
        "_paused",
        "_reads",
        "_state",
        "_tcp",
        "_tls",
    )

    _tcp: asyncio.Transport
    _tls: ssl.SSLObject
    # Ciphertext: what has come and is not understood yet; what is to go.
    _incoming: ssl.MemoryBIO
    _outgoing: ssl.MemoryBIO
    # The same protocol, as what it is; only one of the two is used.
    _app: asyncio.Protocol
    _buffered: asyncio.BufferedProtocol | None

    def __init__(self, context: ssl.SSLContext, protocol: asyncio.BaseProtocol) -> None:
        # None once there is something to understand: a stranger who says nothing costs no memory of OpenSSL's.
        self._context: ssl.SSLContext | None = context
        # What has come of the greeting, until there is enough of it to be looked at.
        self._first = b""
        # Bytes of ciphertext that have led to nothing readable yet.
        self._fruitless = 0
        # How often it has been read from since it was turned away.
        self._reads = 0
        self._state = _SHAKING
        # Whether the protocol wants to read nothing now.
        self._paused = False
        # Whether it has been told that nothing more comes.
        self._eof = False
        self.set_protocol(protocol)

    # --- the TCP transport calls these ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A stranger has come."""
        self._tcp = cast(asyncio.Transport, transport)
        self._app.connection_made(self)

    def data_received(self, data: bytes) -> None:
        """Take ciphertext in, and hand on what it says."""
        if self._state == _SAID:
            # Nobody looks at it, so it is not even deciphered: a flood shall cost nothing.
            self._app.data_received(data)
            return
        if self._state == _TURNED_AWAY:
            # Nor is it handed over: what was never encrypted would be taken for what came over TLS.
            self._reads += 1
            if self._reads > LAST_READS:
                self.abort()
            return
        if self._context is not None:
            self._first = data = self._first + data
            if len(data) < _BEGINNING and data.startswith(b"\x16"):
                return
            if not _is_greeting(data) and not _is_text(data):
                self.abort()
                return
            self._first = b""
            self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            self._tls = self._context.wrap_bio(self._incoming, self._outgoing, server_side=True)
            self._context = None
        rest = memoryview(data)
        while rest and self._state < _SAID:
            taken = rest[:_TAKE]
            self._incoming.write(taken)
            rest = rest[_TAKE:]
            if self._state == _SHAKING:
                self._shake_hands()
            if self._state == _OPEN:
                self._fruitless += len(taken)
                if not self._paused:
                    self._read()

    def eof_received(self) -> bool:
        """The peer sends nothing more; that it did not say so in TLS is left to what is spoken in it."""
        if self._state == _SHAKING:
            self.abort()
        else:
            self._end_of_stream()
        return self._state != _OVER

    def pause_writing(self) -> None:
        """The socket takes no more."""
        self._app.pause_writing()

    def resume_writing(self) -> None:
        """Everything has left."""
        self._app.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._state = _OVER
        app = self._app
        # The two know each other: the collector shall have nothing to do.
        self._app, self._buffered = _NOBODY, None
        app.connection_lost(exc)

    # --- the protocol above calls these ---

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """What is known of the connection; see `asyncio.BaseTransport`."""
        if name in ("ssl_object", "sslcontext"):
            # Nobody asks who has been given nothing to read.
            return self._tls if name == "ssl_object" else self._tls.context
        return self._tcp.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Hand the connection over."""
        self._app = cast(asyncio.Protocol, protocol)
        self._buffered = protocol if isinstance(protocol, asyncio.BufferedProtocol) else None

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Whose connection it is."""
        return self._app

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send; what the socket does not take waits in the TCP transport."""
        if self._state != _OPEN or not data:
            return
        tls, outgoing = self._tls, self._outgoing
        try:
            sent = tls.write(data)
            # OpenSSL takes one record at a time.
            if sent < len(data):
                rest = memoryview(data)[sent:]
                while rest:
                    if outgoing.pending >= _STEP:
                        self._tcp.write(outgoing.read())
                    rest = rest[tls.write(rest) :]
        except ssl.SSLError:
            self.abort()
            return
        self._tcp.write(outgoing.read())

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Send all of them."""
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        """Half an end is possible here."""
        return True

    def write_eof(self) -> None:
        """Say that this was all; what comes afterwards is handed over as it comes, undeciphered."""
        if self._state == _OPEN:
            self._say_goodbye()
        if self._state < _SAID:
            self._state = _SAID
            self._tcp.write_eof()

    def close(self) -> None:
        """Let what is written leave, say goodbye, and end the connection without waiting for an answer."""
        if self._state == _OPEN:
            self._say_goodbye()
        self._state = _OVER
        self._tcp.close()

    def abort(self) -> None:
        """End the connection now."""
        self._state = _OVER
        self._tcp.abort()

    def is_closing(self) -> bool:
        """Whether it ends, or has ended."""
        return self._state == _OVER or self._tcp.is_closing()

    def pause_reading(self) -> None:
        """Hand on nothing more, and take no more from the socket."""
        self._paused = True
        self._tcp.pause_reading()

    def resume_reading(self) -> None:
        """Go on, with what had been taken before it was paused."""
        if self._paused:
            self._paused = False
            self._tcp.resume_reading()
            asyncio.get_running_loop().call_soon(self._read)

    def is_reading(self) -> bool:
        """Whether it reads."""
        return self._tcp.is_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """From how many bytes on writing is to pause, and resume."""
        self._tcp.set_write_buffer_limits(high, low)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """The two."""
        return self._tcp.get_write_buffer_limits()

    def get_write_buffer_size(self) -> int:
        """Bytes that wait for the socket, as ciphertext."""
        return self._tcp.get_write_buffer_size()

    # --- inside ---

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
            self._state = _OPEN
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            # Not logged: any stranger could fill a log with that. OpenSSL has said in an alert what is wrong.
            alert = self._outgoing.read()
            if error.reason == "HTTP_REQUEST":
                self._turn_away()
                return
            self._tcp.write(alert)
            self.close()
            return
        if self._outgoing.pending:
            self._tcp.write(self._outgoing.read())

    def _turn_away(self) -> None:
        # It keeps its place at the gate, and the deadline there, until it hangs up.
        self._state = _TURNED_AWAY
        self._tcp.write(_NOT_TLS)
        finish_sending(self._tcp)

    def _read(self) -> None:
        """Hand on what can be understood by now."""
        try:
            while self._state == _OPEN and not self._paused and not self._eof:
                self._read_once()
        except ssl.SSLWantReadError:
            if self._fruitless > _FRUITLESS:
                self.abort()
                return
        except ssl.SSLError:
            # Forged or broken: nothing that follows can be believed either.
            self._tcp.write(self._outgoing.read())
            self.close()
            return
        if self._outgoing.pending and self._state == _OPEN:
            # An answer to the peer's new keys.
            self._tcp.write(self._outgoing.read())

    def _read_once(self) -> None:
        buffered = self._buffered
        if buffered is None:
            data = self._tls.read(_RECORD)
            if data:
                self._led_to(len(data))
                self._app.data_received(data)
            else:
                self._end_of_stream()
            return
        room = cast(memoryview, buffered.get_buffer(-1))
        # With a buffer it returns how many bytes it has put there.
        count = cast(int, self._tls.read(len(room), room))
        if count:
            self._led_to(count)
            buffered.buffer_updated(count)
        else:
            self._end_of_stream()

    def _led_to(self, count: int) -> None:
        self._fruitless = max(0, self._fruitless - count - _OVERHEAD)

    def _end_of_stream(self) -> None:
        if not self._eof and self._state != _OVER:
            self._eof = True
            if not self._app.eof_received():
                self.close()

    def _say_goodbye(self) -> None:
        # The peer's goodbye has not come, says OpenSSL: nobody waits for it (RFC 8446 §6.1).
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        if self._outgoing.pending:
            self._tcp.write(self._outgoing.read())


def _is_greeting(first: bytes) -> bool:
    """Whether this is the beginning of a greeting that is not longer than anybody needs.

    Neither behind another record, nor with its length in a second one, which OpenSSL would both put up with.
    """
    return (
        first.startswith(b"\x16")
        and int.from_bytes(first[3:5]) >= _BEGINNING - 5
        and first[5] == 1
        and int.from_bytes(first[6:9]) <= _GREETING
    )


def _is_text(first: bytes) -> bool:
    """Whether it may be HTTP, and is no record of TLS in any case: OpenSSL says which."""
    return first[:1].isalpha()


_NOBODY = asyncio.Protocol()
