"""The port: every connection comes in here, shows what it wants, and is handed to WebSocket or to HTTP.

A connection begins as a `Gate`, which reads one request's head and no more. Strangers wait here, so a gate
has a deadline, a bounded head, and a bounded number of others beside it; it costs no task and no timer of
the event loop.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from typing import Any, cast

from msgspec import Struct

from hubbub.core.addresses import TrustedProxies
from hubbub.core.wheel import Timer, Wheel
from hubbub.eager import step
from hubbub.protocol.deflate import Deflate, Offer, agree
from hubbub.transports.base import Admit, Handshake, Receiver, Refuse, TransportLimits
from hubbub.transports.encrypted import Encrypted
from hubbub.transports.handshake import (
    HEAD_END,
    HEAD_WINDOW,
    TOO_LARGE,
    Head,
    is_hopeless,
    read_handshake,
    read_head,
    refusal,
    switching,
)
from hubbub.transports.linger import LAST_READS, finish_sending

__all__ = ["Gate", "Port", "PortStatistics", "bind"]

_logger = logging.getLogger(__name__)

# In how many pieces a head may come: the smallest segments that networks make cut the largest head into 31,
# and each piece is a turn of the event loop.
_HEAD_READS = 512

_NOT_HTTP = Refuse(status=400, code="bad_message", message="The request's head is malformed.")
_DRIBBLED = Refuse(status=400, code="bad_message", message="The request's head came in too many pieces.")
_NOT_FOUND = Refuse(status=404, code="not_found", message="There is no WebSocket at this path.")
_FAILED = Refuse(status=500, code="internal", message="The server failed to answer the handshake.")
_TOO_SLOW = Refuse(status=503, code="unavailable", message="The handshake took too long.", retry_after=1)


class PortStatistics(Struct, frozen=True, kw_only=True):
    """What a port has seen since it was opened, and what waits in it now."""

    # Connections whose request has not been decided, or whose refusal is still being read.
    waiting: int
    accepted: int
    refused: int
    # Those that did not say what they want in time.
    expired: int
    # Those that were cut because too many others came after them.
    shed: int


class Port:
    """One listening address (several sockets if its name has several addresses)."""

    def __init__(
        self,
        *,
        limits: TransportLimits,
        wheel: Wheel,
        paths: Mapping[str, Admit],
        websocket: Callable[[asyncio.Transport, Receiver, bytes, Deflate | None, str], None],
        http: Callable[[], asyncio.Protocol],
        tls: ssl.SSLContext | None = None,
        capacity: int = 10_000,
        on_refused: Callable[[str, Refuse], object] = lambda ip, refuse: None,
        proxies: TrustedProxies = TrustedProxies(),
        compression: bool = False,
    ) -> None:
        """`paths` are where WebSockets are, and who decides there; `websocket` takes over a connection that
        was let in (with the bytes that came behind its handshake, what was agreed on about compression, if
        `compression` is on, and the client's address), `http` makes a protocol for one that wants no WebSocket. With
        `tls` all is spoken in TLS. `capacity` is how many connections may be deciding what they want, those included
        that are still shaking hands. `on_refused` hears of each refusal, with the client's address. What `proxies` say
        about their clients is believed.
        """
        self.limits = limits
        self.wheel = wheel
        self.paths = paths
        self.websocket = websocket
        self.http = http
        # For those that come from now on: it may be replaced at any time.
        self.tls = tls
        self.capacity = capacity
        self.on_refused = on_refused
        self.proxies = proxies
        self.compression = compression
        # Whether the operator has been told of a proxy that looks forgotten.
        self._warned = False

        # Those still here, oldest first.
        self.gates: OrderedDict[Gate, None] = OrderedDict()
        # Handshakes that wait for an answer from elsewhere.
        self.tasks: set[asyncio.Task[None]] = set()
        self.accepted = self.refused = self.expired = self.shed = 0
        self._servers: list[asyncio.Server] = []

    async def open(self, sockets: Sequence[socket.socket], *, backlog: int = 4096) -> None:
        """Listen on these, which are the port's from now on; see `bind`."""
        loop = asyncio.get_running_loop()
        for number, sock in enumerate(sockets):
            try:
                self._servers.append(await loop.create_server(self._admit_stranger, sock=sock, backlog=backlog))
            except BaseException:
                for unused in sockets[number:]:
                    unused.close()
                self.stop_accepting()
                raise

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """The addresses and port numbers that are listened on."""
        return [sock.getsockname()[:2] for server in self._servers for sock in server.sockets]

    def statistics(self) -> PortStatistics:
        """What a port has seen, and what waits in it."""
        return PortStatistics(
            waiting=len(self.gates),
            accepted=self.accepted,
            refused=self.refused,
            expired=self.expired,
            shed=self.shed,
        )

    def resolve(self, peer: str, secure: bool, head: Head) -> tuple[str, bool]:
        """The address of the client whose request came from `peer`, and whether it came over TLS."""
        forwarded = "x-forwarded-for" in head.headers or "x-forwarded-proto" in head.headers
        # Anybody may send these headers. But nobody outside has such an address, so this one is the operator's.
        if forwarded and not self._warned and peer not in self.proxies and ip_address(peer).is_private:
            self._warned = True
            _logger.warning(
                "%s sends X-Forwarded-… headers and is none of trusted_proxies: the clients of a proxy count as one",
                peer,
            )
        return self.proxies.resolve(peer, secure, head.headers)

    def stop_accepting(self) -> None:
        """Close the listening sockets at once; what has been accepted stays.

        Connections that are still in their handshake go on: `Admit` refuses them if it wants to.
        """
        for server in self._servers:
            server.close()
        self._servers = []

    async def close(self) -> None:
        """Stop accepting, and end what has not been handed over."""
        self.stop_accepting()
        # What has been accepted in this turn of the event loop shows up in the next.
        await asyncio.sleep(0)
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for gate in list(self.gates):
            gate.abort()
        # And is told of its end in the one after.
        while self.gates:
            await asyncio.sleep(0)

    def _admit_stranger(self) -> asyncio.Protocol:
        if len(self.gates) >= self.capacity:
            # The oldest goes and not the newest: who means well is through in a moment, so among the oldest
            # are those that came to stay, while refusing newcomers would close the port for everybody.
            oldest, _ = self.gates.popitem(last=False)
            self.shed += 1
            oldest.abort()
        return Gate(self) if self.tls is None else Encrypted(self.tls, Gate(self))


class Gate(asyncio.Protocol):
    """One connection until it is known what it wants."""

    __slots__ = ("_client", "_decided", "_head", "_port", "_reads", "_task", "_timer", "_transport")

    _transport: asyncio.Transport
    # Bounds the whole stay, whatever happens in it.
    _timer: Timer

    def __init__(self, port: Port) -> None:
        self._port = port
        # What has come of the head.
        self._head = bytearray()
        # When the head is complete, the client's address: the peer's, or what a trusted proxy says.
        self._client = ""
        # The handshake, if it has to wait for an answer from elsewhere.
        self._task: asyncio.Task[None] | None = None
        # Whether it has been refused, or has left.
        self._decided = False
        # How often it has been read from; after a refusal, since then.
        self._reads = 0

    # --- asyncio calls these ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A stranger has come."""
        port = self._port
        self._transport = cast(asyncio.Transport, transport)
        self._timer = port.wheel.after(port.limits.handshake_timeout, self._expire)
        port.gates[self] = None

    def data_received(self, data: bytes) -> None:
        """Look whether the head is complete."""
        self._reads += 1
        if self._decided:
            if self._reads > LAST_READS:
                self._transport.abort()
            return
        head = self._head
        # Only what is new is searched, and the bytes before it in which the end may have begun: dribbling
        # would otherwise cost the square of the head's size.
        start = max(0, len(head) - len(HEAD_END) + 1)
        head += data
        # What is wrong first counts, so that the answer does not depend on how the head was cut.
        end = head.find(HEAD_END, start, HEAD_WINDOW)
        if end >= 0:
            self._understand(bytes(head[:end]), bytes(head[end + len(HEAD_END) :]))
        elif is_hopeless(head, start):
            self._refuse(_NOT_HTTP)
        elif len(head) >= HEAD_WINDOW:
            self._refuse(TOO_LARGE)
        elif self._reads > _HEAD_READS:
            self._refuse(_DRIBBLED)

    def connection_lost(self, exc: Exception | None) -> None:
        """The stranger has left."""
        self._decided = True
        self._leave()
        if self._task is not None:
            self._task.cancel()

    # --- the port calls this ---

    def abort(self) -> None:
        """End the connection without a word."""
        self._transport.abort()

    # --- inside ---

    def _understand(self, data: bytes, rest: bytes) -> None:
        head = read_head(data)
        if isinstance(head, Refuse):
            self._refuse(head)
        elif not head.wants_websocket:
            self._hand_to_http(data + HEAD_END + rest)
        else:
            self._shake_hands(head, rest)

    def _hand_to_http(self, data: bytes) -> None:
        self._leave()
        protocol = self._port.http()
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        protocol.data_received(data)

    def _shake_hands(self, head: Head, early: bytes) -> None:
        peer = self._transport.get_extra_info("peername")
        if not peer:
            # It has left, and nobody has told us yet.
            self._transport.abort()
            return
        secure = self._transport.get_extra_info("ssl_object") is not None
        self._client, secure = self._port.resolve(_plain_ip(peer[0]), secure, head)
        admit = self._port.paths.get(head.path)
        if admit is None:
            self._refuse(_NOT_FOUND)
            return
        read = read_handshake(head, self._client, secure)
        if isinstance(read, Refuse):
            self._refuse(read)
            return
        handshake, key, offers = read
        # What the client sends behind its handshake can wait in the socket.
        self._transport.pause_reading()
        rest = step(self._decide(admit, handshake, key, offers, early))
        if rest is not None:
            self._task = task = asyncio.get_running_loop().create_task(rest)
            self._port.tasks.add(task)
            task.add_done_callback(self._port.tasks.discard)

    async def _decide(self, admit: Admit, handshake: Handshake, key: str, offers: list[Offer], early: bytes) -> None:
        try:
            answer = await admit(handshake)
        except Exception:  # the hook is a user's code, and its fault costs this client alone
            # Without anything of the request: it may hold a token.
            _logger.exception("a WebSocket handshake could not be decided")
            answer = _FAILED
        self._task = None
        if isinstance(answer, Refuse):
            if not self._decided:
                self._refuse(answer)
            return
        self._leave()
        deflate = agree(offers) if self._port.compression else None
        if self._decided:
            # The answer came in spite of a cancellation. Too late, but its receiver must be told.
            self._transport.abort()
        else:
            self._port.accepted += 1
            self._transport.write(switching(key, answer.subprotocol, deflate))
        self._port.websocket(self._transport, answer.receiver, early, deflate, handshake.ip)

    def _refuse(self, refuse: Refuse) -> None:
        self._port.refused += 1
        peer = self._transport.get_extra_info("peername")
        self._port.on_refused(self._client or (_plain_ip(peer[0]) if peer else ""), refuse)
        self._decided = True
        self._reads = 0
        # It keeps its deadline and its place among the gates until it hangs up.
        self._head = bytearray()
        self._transport.write(refusal(refuse))
        finish_sending(self._transport)

    def _expire(self) -> None:
        task = self._task
        if task is None:
            if not self._decided:
                self._port.expired += 1
            self._transport.abort()
        else:
            self._task = None
            task.cancel()
            self._refuse(_TOO_SLOW)
            self._timer = self._port.wheel.after(self._port.limits.close_timeout, self._transport.abort)

    def _leave(self) -> None:
        """The connection is no longer this gate's."""
        self._timer.cancel()
        self._port.gates.pop(self, None)


def _plain_ip(address: str) -> str:
    # An IPv4 peer of a socket that listens on IPv6 (RFC 4291 §2.5.5.2): the same client, however it came.
    return address.removeprefix("::ffff:") if "." in address else address


async def bind(host: str, port: int, *, reuse_port: bool = False) -> list[socket.socket]:
    """A bound socket for each address of `host`, all with one port number; port 0 picks a free one.

    `reuse_port`: others of this user's may have the same. Raises OSError if the address cannot be had.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    unusable: OSError | None = None
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            # The first socket's free port is the others' too.
            number = sockets[0].getsockname()[1] if sockets else port
            try:
                sockets.append(_bind_one(family, (address[0], number, *address[2:]), reuse_port))
            except OSError as error:
                # Names like localhost have an IPv6 address even where IPv6 is switched off.
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                unusable = error
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    if unusable is not None and not sockets:
        raise unusable
    return sockets


def _bind_one(family: int, address: tuple[Any, ...], reuse_port: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            # Otherwise "::" takes the IPv4 port too, and 0.0.0.0 finds it in use.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock
