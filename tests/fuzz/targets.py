"""What is fuzzed: each target takes any bytes at all, and raises where we fall short of what we promise.

hypothesis calls them in `make test`, atheris for as long as you like in `make fuzz`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any, Final

import h11
import msgspec

from fuzz import binary_md, protocol_md, rfc6455, streams
from fuzz.memory import PEER, Pipe, Turns
from hubbub.auth.jwt import JwtAuthenticator
from hubbub.auth.options import AuthOptions
from hubbub.client import wire
from hubbub.client.events import AskToken, Connect, Deliver, State
from hubbub.client.machine import Machine
from hubbub.core.addresses import TrustedProxies
from hubbub.core.origins import ANY, OriginOptions, Standing, standing
from hubbub.core.wheel import Wheel
from hubbub.errors import Reject
from hubbub.protocol import json as codec
from hubbub.protocol.codec import Codec
from hubbub.protocol.codes import CloseCode, ErrorCode
from hubbub.protocol.conversation import Conversation, Violation
from hubbub.protocol.deflate import Deflate
from hubbub.protocol.envelope import REQUESTS, Envelope, Fault, Ping, Request
from hubbub.transports.base import Accept, Handshake, Receiver, TransportLimits, Writer
from hubbub.transports.handshake import HEAD_END
from hubbub.transports.port import Gate, Port
from hubbub.transports.websocket import WebSocket
from hubbub.types import Identity
from support.codecs import CODECS, EXACT, content_of, loads, same, unpack
from support.crossing import OURS, told
from support.tokens import NOW, SECRET, token

__all__ = ["LIMITS", "TARGETS", "Heard", "cuts", "hear", "reference", "terms"]

LIMITS: Final = (
    # Small ones, so that inputs need not be large to meet them; and the default ones.
    TransportLimits(message_size=512, message_fragments=4, control_frames_burst=6),
    TransportLimits(),
)

# A head may come in 512 pieces: of more, the number is what is wrong.
_MOST_PIECES: Final = 500


def cuts(data: bytes) -> Iterator[list[bytes]]:
    """Ways to cut `data`: not at all, everywhere, and in two at every place (at some of them, where it is long)."""
    size = len(data)
    yield [data]
    step = 1 if size <= 4_096 else 97
    yield [data[at : at + step] for at in range(0, size, step)]
    places = range(1, size) if size <= 64 else (*range(1, size - 8, size // 16), *range(size - 8, size))
    for at in places:
        yield [data[:at], data[at:]]


# ---------------------------------------------------------------------------------------------------- handshakes


class _Collector(asyncio.Protocol):
    """What takes over a connection behind its gate, and gets what comes there."""

    def __init__(self) -> None:
        self.data = b""

    def data_received(self, data: bytes) -> None:
        self.data += data


class Heard:
    """A receiver that writes down what comes."""

    def __init__(self) -> None:
        self.messages: list[str | bytes] = []
        self.codes: list[int] = []

    def opened(self, writer: Writer) -> None:
        pass

    def received(self, message: str | bytes) -> None:
        self.messages.append(message)

    def alive(self) -> None:
        pass

    def blocked(self) -> None:
        pass

    def unblocked(self) -> None:
        pass

    def closed(self, code: int, reason: str) -> None:
        self.codes.append(code)


def raw_handshake(data: bytes) -> None:
    """Whatever a stranger says first: the same answer however it is cut, and a refusal says why, in HTTP and JSON."""
    with Turns() as loop:
        first, *others = (_ask(loop, pieces) for pieces in cuts(data) if len(pieces) <= _MOST_PIECES)
        for other in others:
            assert other == first
    if first[0] == "websocket":
        _agree_with_h11(data.partition(HEAD_END)[0] + HEAD_END, first[1])


def shaped_handshake(data: bytes) -> None:
    """Heads that are nearly right."""
    raw_handshake(streams.head(data))


def _ask(loop: Turns, pieces: Iterable[bytes]) -> tuple[Any, ...]:
    """What becomes of a connection on which these pieces come."""
    asked: list[Handshake] = []
    collector = _Collector()
    took_over: list[str] = []

    async def admit(handshake: Handshake) -> Accept:
        asked.append(handshake)
        _look_into(handshake)
        return Accept(Heard())

    def websocket(
        transport: asyncio.Transport, receiver: Receiver, early: bytes, deflate: Deflate | None, ip: str
    ) -> None:
        took_over.append("websocket")
        collector.data_received(early)
        transport.set_protocol(collector)
        transport.resume_reading()

    def http() -> asyncio.Protocol:
        took_over.append("http")
        return collector

    port = Port(
        limits=LIMITS[1],
        wheel=Wheel(0.0),
        paths={"/ws": admit},
        websocket=websocket,
        http=http,
        # The peer is one: what it says about its client is read.
        proxies=TrustedProxies([PEER]),
        compression=True,
    )
    pipe = Pipe(loop, Gate(port))
    for piece in pieces:
        pipe.send(piece)
    waits = port.statistics().waiting
    pipe.hang_up()

    assert port.statistics().waiting == 0
    match took_over:
        case ["websocket"]:
            assert pipe.written.startswith(b"HTTP/1.1 101 ")
            return "websocket", asked[0], bytes(pipe.written), collector.data
        case ["http"]:
            assert not pipe.written
            return "http", collector.data
        case _:
            assert not asked
            if pipe.written:
                return ("refused", *_refusal(bytes(pipe.written)))
            assert waits == 1
            return ("waiting",)


def _look_into(handshake: Handshake) -> None:
    """What is read of a handshake before anybody is let in."""
    ip_address(handshake.ip)
    origin, host = handshake.headers.get("origin"), handshake.headers["host"]
    for options in _ORIGINS:
        for dev in (False, True):
            stands = standing(options, origin, host, secure=handshake.secure, dev=dev)

            assert (stands is Standing.ABSENT) == (origin is None)
    assert all(isinstance(value, str) for value in handshake.cookies.values())


_ORIGINS: Final = (OriginOptions(), OriginOptions(origins=("https://a.example",)), OriginOptions(origins=(ANY,)))


def _refusal(response: bytes) -> tuple[int, str]:
    """The status and the code of a refusal, which must be all that it should."""
    head, _, body = response.partition(HEAD_END)
    first, *lines = head.decode("ascii").split("\r\n")
    headers = dict(line.split(": ") for line in lines)
    status = int(first[9:12])
    error = json.loads(body)["error"]

    assert first == f"HTTP/1.1 {status} {HTTPStatus(status).phrase}" and status >= 400
    assert int(headers["Content-Length"]) == len(body)
    assert headers["Content-Type"] == "application/json" and headers["Connection"] == "close"
    assert error.keys() == {"code", "message"} and error["message"].endswith(".")
    return status, error["code"]


def _agree_with_h11(head: bytes, handshake: Handshake) -> None:
    """What was let in must mean the same to another reader of HTTP, or a proxy could be led astray."""
    reader = h11.Connection(h11.SERVER)
    reader.receive_data(head)
    request = reader.next_event()

    assert isinstance(request, h11.Request) and request.method == b"GET" and request.http_version == b"1.1"
    headers: dict[str, list[str]] = {}
    for name, value in request.headers:
        headers.setdefault(name.decode(), []).append(value.decode())
    joined = {name: ("; " if name == "cookie" else ", ").join(values) for name, values in headers.items()}
    assert joined == dict(handshake.headers)


# -------------------------------------------------------------------------------------------------------- tokens


def raw_token(data: bytes) -> None:
    """Any text that is shown as a token: refused, and nothing else."""
    assert _identify(data.decode("latin-1")) is None


def shaped_token(data: bytes) -> None:
    """A header and claims that are nearly right, with a good signature: who it is for, or refused."""
    header, claims = streams.token(data)
    identity = _identify(token(claims, header=header))
    if identity is not None:
        assert protocol_md.is_text(identity.user, 128) and identity.expires is not None
        assert all(protocol_md.is_text(name, 128) for name in (*identity.roles, *(identity.rooms or ())))
        json.loads(msgspec.json.encode(identity))


_AUTHENTICATOR: Final = JwtAuthenticator(AuthOptions(jwt_secret=SECRET, jwt_audience="hub"))


def _identify(shown: str) -> Identity | None:
    """Who the server takes this for; it has its key, so there is nothing to wait for."""
    try:
        _AUTHENTICATOR.identify(shown, NOW).send(None)
    except Reject:
        return None
    except StopIteration as done:
        identity: Identity = done.value
        return identity
    raise AssertionError("it waits")


# -------------------------------------------------------------------------------------------------------- frames


@dataclass(frozen=True)
class Exchange:
    """What came of a stream of frames."""

    messages: list[str | bytes]
    # How the receiver was told that it ended, once.
    codes: list[int]
    # What the server sent, as opcodes and payloads.
    answers: list[tuple[int, bytes]] = field(default_factory=list)


def raw_frames(data: bytes) -> None:
    """Any bytes in the place of frames, the first of them a choice of limits, and whether compression was agreed on."""
    _check_stream(data[:1], data[1:])


def shaped_frames(data: bytes) -> None:
    """Frames that are nearly right."""
    _check_stream(data[:1], streams.frames(data[1:]))


def _check_stream(choice: bytes, stream: bytes) -> None:
    """The same messages, answers and end however it is cut, and those of the reference."""
    limits, compressed = terms(choice)
    with Turns() as loop:
        first, *others = (hear(loop, pieces, limits, compressed) for pieces in cuts(stream))
    for other in others:
        assert other == first
    expected = reference(stream, limits, compressed)

    assert first.messages == expected.messages
    assert [payload for opcode, payload in first.answers if opcode == rfc6455.PONG] == expected.pongs
    [code] = first.codes
    assert code in expected.codes
    said = [payload for opcode, payload in first.answers if opcode == rfc6455.CLOSE]
    assert [int.from_bytes(payload[:2]) or 1005 for payload in said] == ([] if code == 1006 else [code])


def terms(choice: bytes) -> tuple[TransportLimits, bool]:
    """What the first byte of an input chooses: limits, and whether compression was agreed on."""
    [number] = choice or b"\0"
    return LIMITS[number & 1], number & 2 != 0


def reference(stream: bytes, limits: TransportLimits, compressed: bool) -> rfc6455.Outcome:
    """What must come of a stream."""
    return rfc6455.read(
        stream,
        rfc6455.Limits(
            limits.message_size, limits.message_fragments, limits.control_frames_burst, compressed=compressed
        ),
    )


def hear(loop: Turns, pieces: Iterable[bytes], limits: TransportLimits, compressed: bool) -> Exchange:
    """Have a connection get these pieces, and then the end."""
    heard = Heard()
    websocket = WebSocket(limits, Wheel(0.0))
    pipe = Pipe(loop, asyncio.Protocol())
    websocket.open(pipe, heard, deflate=Deflate() if compressed else None)
    for piece in pieces:
        pipe.send(piece)
    pipe.hang_up()

    assert not websocket.connections
    assert (len(websocket.unfinished), websocket.unfinished.size) == (0, 0)
    return Exchange(heard.messages, heard.codes, list(_server_frames(bytes(pipe.written))))


def _server_frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The frames that a server sent: whole ones, without masks, and short, as control frames are."""
    while data:
        assert data[0] & 0xF0 == 0x80 and data[1] <= 125
        yield data[0] & 15, data[2 : 2 + data[1]]
        data = data[2 + data[1] :]


# ----------------------------------------------------------------------------------------------------- envelopes


def raw_envelopes(data: bytes) -> None:
    """Any text in the place of an envelope; what is not UTF-8 comes as binary."""
    message = _as_sent(data)
    if isinstance(message, str):
        _check_text(message)
        return
    for full in (False, True):
        event = Conversation(codec, full=full).receive(message, 0.0)

        assert isinstance(event, Violation if full else Fault)


def shaped_envelopes(data: bytes) -> None:
    """Envelopes that are nearly right."""
    _check_text(streams.envelope(data))


def raw_msgpack(data: bytes) -> None:
    """Any bytes in the place of an envelope in MessagePack."""
    _check_binary("msgpack", data)


def shaped_msgpack(data: bytes) -> None:
    """Envelopes in MessagePack that are nearly right."""
    _check_shaped("msgpack", data)


def raw_protobuf(data: bytes) -> None:
    """Any bytes in the place of an `Envelope`."""
    _check_binary("protobuf", data)


def shaped_protobuf(data: bytes) -> None:
    """Envelopes in Protobuf that are nearly right, as far as it can be wrong at all."""
    _check_shaped("protobuf", data)


_READERS: Final = {"msgpack": binary_md.of_msgpack, "protobuf": binary_md.of_protobuf}


def _check_shaped(name: str, choices: bytes) -> None:
    with contextlib.suppress(UnicodeEncodeError):
        encoded = CODECS[name].wrong(streams.message(choices))

        assert isinstance(encoded, bytes)
        _check_binary(name, encoded)


def _check_binary(name: str, data: bytes) -> None:
    """The event that the protocol says; and what is published is the same to everybody."""
    read, content = _READERS[name](data)
    event = _check_message(OURS[name], data, read)
    if isinstance(event, Envelope | Ping):
        kept = bytes(event.content)

        assert (content is binary_md.ABSENT) == (not kept)
        if not kept:
            return
        if kept[0] in (0xC4, 0xC5, 0xC6):
            value = unpack(kept)
            assert value == content
        elif name == "msgpack":
            value = unpack(kept)
        else:
            assert kept.decode() == content.strip(" \t\r\n")
            value = loads(kept)
        if isinstance(event, Envelope):
            for receiver, encoded in told(name, data).items():
                text = encoded.decode() if receiver == "json" else encoded
                assert same(content_of(EXACT[receiver].decode(text)), value)


def _check_text(text: str) -> None:
    event = _check_message(codec, text, protocol_md.read(text))
    if isinstance(event, Envelope | Ping):
        content = protocol_md.parse(text).get("content", _check_text)
        kept = bytes(event.content)
        assert (protocol_md.parse(kept.decode()) if kept else _check_text) == content


def _check_message(codec: Codec, text: str | bytes, read: protocol_md.Reading) -> object:
    """The event that the protocol says, in either way, and never an exception."""
    plain = Conversation(codec, full=False).receive(text, 0.0)
    full = Conversation(codec, full=True)
    first = full.receive(text, 0.0)
    type = (read.fields or {}).get("type")

    if isinstance(plain, Fault):
        _check_fault(plain, read)
    if read.good is False:
        assert isinstance(plain, Fault) and plain.code == ErrorCode.BAD_MESSAGE
    elif read.good and type == "hello":
        assert isinstance(plain, Fault) and plain.code == ErrorCode.CONFLICT
    elif read.good:
        assert read.fields is not None
        _check_event(plain, read.fields)
    if full.greeted:
        assert isinstance(first, REQUESTS["hello"]) and read.good is not False
        again = full.receive(text, 0.0)
        assert isinstance(again, Fault) and again.code == ErrorCode.CONFLICT
    else:
        assert isinstance(first, Violation) and first.code == CloseCode.PROTOCOL_VIOLATION
        assert not (read.good and type == "hello") and first.fault is not None
        _check_fault(first.fault, read)
    return plain if read.good else None


def _check_fault(fault: Fault, read: protocol_md.Reading) -> None:
    """It can be sent, is short, quotes nothing, and names the message by what is valid in it."""
    sent = json.loads(codec.encode(fault))

    assert sent["type"] == "error" and 0 < len(fault.message) < 200 and fault.message.isascii()
    if read.fields is not None and read.good is not None:
        for name, most in (("id", 64), ("room", 128)):
            value = read.fields.get(name)
            if fault.code == ErrorCode.CONFLICT and name == "room":
                continue
            assert sent.get(name) == (value if protocol_md.is_text(value, most) else None)


def _check_event(event: object, fields: dict[str, Any]) -> None:
    """A good message is understood as it was meant."""
    type = fields["type"]
    kind = REQUESTS.get(type)
    assert isinstance(event, Envelope | Request) and isinstance(event, kind or Envelope)
    for name in event.__struct_fields__:
        value = getattr(event, name)
        if name == "volatile" and "volatile" not in fields:
            assert bool(value) == (type in protocol_md.SIGNALS)
        elif name in fields and name != "content":
            assert _plain(value) == _plain(fields[name]) or name == "resume"


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return list(value) if isinstance(value, tuple) else value


# ------------------------------------------------------------------------------------------------ the other side


def raw_server(data: bytes) -> None:
    """Whatever a server says, line by line: a client gets on with it, or calls it nonsense and comes back later."""
    for line in data.split(b"\n"):
        _decode(line)
    for texts in (data.split(b"\n"), [_WELCOME, *data.split(b"\n")]):
        _Listener().hear(texts)


def raw_answers(data: bytes) -> None:
    """Any bytes from a server in MessagePack, or in Protobuf: a message, or called nonsense, and nothing else."""
    codec = OURS["protobuf" if data and data[0] & 1 else "msgpack"]
    with contextlib.suppress(wire.NotAMessage):
        wire.Wire(codec).decode(data[1:])


def shaped_server(data: bytes) -> None:
    """Messages of a server that are nearly right."""
    raw_server("\n".join(streams.conversation(data)).encode())


_WELCOME: Final = json.dumps(streams.WELCOME).encode()


def _decode(text: bytes) -> None:
    with contextlib.suppress(wire.NotAMessage):
        wire.Wire().decode_joined(text)


def _as_sent(data: bytes) -> str | bytes:
    """What is UTF-8 comes as text, and all else as binary."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


class _Listener:
    """A client with a room, a message under way and a question, on a clock that goes on with each message."""

    def __init__(self) -> None:
        self._now = 1_000.0
        self._socket = 0
        self._machine = Machine("x", lambda: 1.0, renews=True)
        self._machine.open(self._now)
        self._machine.join("r", self._now)
        self._machine.send({"type": "chat", "room": "r", "content": 1}, self._now)
        self._machine.request("users", {"ids": ["bob"]}, self._now)
        self._act()

    def hear(self, texts: Iterable[bytes]) -> None:
        for text in texts:
            if self._machine.state is State.CONNECTING:
                self._machine.opened(self._socket, self._now, "t")
                self._act()
            self._machine.received(self._socket, _as_sent(text), self._now)
            self._act()
            self._pass_time(1.0)
        for _ in range(20):
            self._pass_time(10.0)

    def _pass_time(self, seconds: float) -> None:
        self._now += seconds
        due = self._machine.due
        if due is not None and due <= self._now:
            self._machine.tick(self._now)
        self._act()

    def _act(self) -> None:
        while actions := self._machine.actions():
            for action in actions:
                if isinstance(action, Connect):
                    self._socket = action.socket
                elif isinstance(action, Deliver):
                    self._machine.handled(action.channel, action.item, self._now)
                elif isinstance(action, AskToken):
                    self._machine.renewed("t", self._now)


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    target.__name__: target
    for target in (
        raw_handshake,
        shaped_handshake,
        raw_token,
        shaped_token,
        raw_frames,
        shaped_frames,
        raw_envelopes,
        shaped_envelopes,
        raw_msgpack,
        shaped_msgpack,
        raw_protobuf,
        shaped_protobuf,
        raw_server,
        shaped_server,
        raw_answers,
    )
}
"""Everything that is fuzzed, by name."""
