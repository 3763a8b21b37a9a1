"""The codecs as somebody else would write them: the packages `msgpack` and `protobuf`, and nothing of ours.

Every message here has the shape of JSON (protocol.md §1): a content of bytes is base64 with `"binary": true` beside it.
A number that is too large for a `float` is a `Number`.
"""

from __future__ import annotations

import base64
import json
import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgpack  # type: ignore[import-untyped]  # it has no types
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc  # type: ignore[import-untyped]  # the same

__all__ = [
    "CODECS",
    "EXACT",
    "JSON",
    "MSGPACK",
    "PROTOBUF",
    "Codec",
    "Number",
    "Unsayable",
    "content_of",
    "dumps",
    "loads",
    "same",
    "schema",
    "unpack",
]

Message = dict[str, Any]

_PROTO: Final = Path(__file__).resolve().parents[2] / "spec" / "hubbub.proto"

_NUMBER: Final = 1


class Number(str):
    """A number that Python has no type for, as JSON writes it."""

    __slots__ = ()


class Unsayable(ValueError):
    """The codec has no way to say this, right or wrong."""


@dataclass(frozen=True)
class Codec:
    """One codec: objects to messages and back."""

    # The last part of its subprotocol.
    name: str
    encode: Callable[[Any], str | bytes]
    decode: Callable[[str | bytes], Message]
    # No message at all, whatever it says.
    garbage: str | bytes
    # A message with the type, id and room of another, as far as they can be, and a content that is wrong.
    spoil: Callable[[Message], str | bytes]

    @property
    def subprotocol(self) -> str:
        """What chooses it."""
        return f"hubbub.v1.{self.name}"

    def wrong(self, message: Any) -> str | bytes:
        """`message`, which is wrong somewhere; where this codec cannot be wrong so, it is wrong otherwise."""
        try:
            return self.encode(message)
        except Unsayable:
            return self.spoil(message) if isinstance(message, dict) else self.garbage


def content_of(message: Mapping[str, Any]) -> Any:
    """The content as a value: bytes where it is that."""
    content = message["content"]
    return base64.b64decode(content, validate=True) if message.get("binary") else content


def _bytes(content: Any) -> bytes:
    try:
        return base64.b64decode(content, validate=True)
    except (ValueError, TypeError) as error:
        raise Unsayable from error


def same(one: Any, other: Any) -> bool:
    """Whether two contents are the same value: an integer is no double, and minus zero is not zero."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one.hex() == other.hex() if isinstance(one, float) else bool(one == other)


# ---------------------------------------------------------------------------------------------------------- JSON


def loads(text: str | bytes) -> Any:
    """JSON with all of its numbers."""
    return json.loads(text, parse_int=_number, parse_float=_number, parse_constant=_refuse)


def dumps(value: Any) -> str:
    """JSON of what `loads` gives, compact."""
    match value:
        case dict():
            return "{" + ",".join(f"{dumps(key)}:{dumps(item)}" for key, item in value.items()) + "}"
        case list():
            return "[" + ",".join(map(dumps, value)) + "]"
        case Number():
            return value
        case int() if not isinstance(value, bool):
            # By way of a Decimal: Python writes and reads no integer of over some 4,000 digits by itself.
            return str(Decimal(value))
        case _:
            return json.dumps(value, ensure_ascii=False)


def _number(text: str) -> int | float | Number:
    if text.lstrip("-").isdecimal():
        return int(Decimal(text))
    value = float(text)
    return value if math.isfinite(value) else Number(text)


def _refuse(constant: str) -> Any:
    raise ValueError(f"JSON has no {constant}")


# --------------------------------------------------------------------------------------------------- MessagePack


def _to_msgpack(message: Any) -> bytes:
    if isinstance(message, dict):
        message = dict(message)
        if message.pop("binary", False) is True:
            message["content"] = _bytes(message.get("content"))
        if message.get("type") == "chunk" and "data" in message:
            message["data"] = _bytes(message["data"])
    packed = msgpack.packb(_packable(message))
    assert isinstance(packed, bytes)
    return packed


def _spoil_msgpack(message: Message) -> bytes:
    message = {name: value for name, value in message.items() if name in ("type", "id", "room")}
    return _to_msgpack(message | {"content": msgpack.ExtType(_NUMBER, b"")})


def _packable(value: Any) -> Any:
    match value:
        case dict():
            return {key: _packable(item) for key, item in value.items()}
        case list():
            return [_packable(item) for item in value]
        case bool():
            return value
        case int() if not -(2**63) <= value < 2**64:
            return msgpack.ExtType(_NUMBER, str(Decimal(value)).encode())
        case Number():
            return msgpack.ExtType(_NUMBER, value.encode())
        case _:
            return value


def _from_msgpack(data: str | bytes) -> Message:
    assert isinstance(data, bytes)
    message = unpack(data)
    assert isinstance(message, dict)
    if message["type"] == "chunk":
        message["data"] = base64.b64encode(message["data"]).decode()
    for told in (message, *(message.get("messages", []) if message["type"] == "history" else ())):
        if isinstance(told.get("content"), bytes):
            told["content"] = base64.b64encode(told["content"]).decode()
            told["binary"] = True
    return message


def unpack(data: bytes) -> Any:
    """MessagePack as a value; bytes are bytes."""
    return msgpack.unpackb(data, ext_hook=_extension, strict_map_key=True)


def _extension(code: int, data: bytes) -> Any:
    assert code == _NUMBER
    return _number(data.decode("ascii"))


# ------------------------------------------------------------------------------------------------------ Protobuf


@cache
def schema() -> Any:
    """The class of `Envelope`, compiled from the specification's file."""
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder) / "schema"
        done = protoc.main(["protoc", f"--proto_path={_PROTO.parent}", f"--descriptor_set_out={compiled}", _PROTO.name])
        assert done == 0
        (file,) = FileDescriptorSet.FromString(compiled.read_bytes()).file
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("hubbub.v1.Envelope"))


def _to_protobuf(message: Any) -> bytes:
    """A client's message; raises `Unsayable` for a field of another type than the schema's."""
    if not isinstance(message, dict):
        raise Unsayable
    envelope = schema()()
    for name, kind in _COMMON.items():
        if name in message:
            _set(envelope, name, kind, message[name])
    if message.get("binary") is True:
        envelope.binary = _bytes(message.get("content"))
    elif "content" in message:
        envelope.json = dumps(message["content"])
    write = _WRITERS.get(message.get("type", ""))
    if write is not None:
        # Set in any case, as a program would that is made for the type.
        write(envelope, message)
    data = envelope.SerializeToString()
    assert isinstance(data, bytes)
    return data


_COMMON: Final = {
    **dict.fromkeys(("type", "id", "to", "room"), str),
    **dict.fromkeys(("receipt", "echo", "volatile"), bool),
    "seq": int,
}


def _set(target: Any, name: str, kind: type, value: Any) -> None:
    if type(value) is not kind:
        raise Unsayable
    try:
        setattr(target, name, value)
    except (ValueError, TypeError, UnicodeEncodeError) as error:
        raise Unsayable from error


def _set_position(target: Any, value: Any) -> None:
    target.SetInParent()
    if value is None:
        return
    if not isinstance(value, list) or len(value) != 2:
        raise Unsayable
    _set(target, "epoch", str, value[0])
    _set(target, "seq", int, value[1])


def _write_hello(envelope: Any, message: Message) -> None:
    envelope.hello.SetInParent()
    for name in ("token", "client"):
        if name in message:
            _set(envelope.hello, name, str, message[name])
    if "resume" in message:
        target, resume = envelope.hello.resume, message["resume"]
        target.SetInParent()
        if not isinstance(resume, dict) or not isinstance(resume.get("rooms", {}), dict):
            raise Unsayable
        for name in ("inbox", "all"):
            if name in resume:
                _set_position(getattr(target, name), resume[name])
        for room, position in resume.get("rooms", {}).items():
            _set_position(target.rooms[room], position)


def _write_auth(envelope: Any, message: Message) -> None:
    if "token" in message:
        _set(envelope.auth, "token", str, message["token"])


def _write_join(envelope: Any, message: Message) -> None:
    if "since" in message:
        if message["since"] is None:
            raise Unsayable
        _set_position(envelope.join.since, message["since"])
    if "last" in message:
        _set(envelope.join, "last", int, message["last"])


def _write_history(envelope: Any, message: Message) -> None:
    for name in ("before", "after", "limit"):
        if name in message:
            _set(envelope.history, name, int, message[name])


def _write_users(envelope: Any, message: Message) -> None:
    ids = message.get("ids", [])
    if not isinstance(ids, list) or not all(isinstance(id, str) for id in ids):
        raise Unsayable
    envelope.users.ids.extend(ids)


def _write_chunk(envelope: Any, message: Message) -> None:
    for name in ("index", "total"):
        if name in message:
            _set(envelope.chunk, name, int, message[name])
    if "data" in message:
        envelope.chunk.data = _bytes(message["data"])


_WRITERS: Final[dict[str, Callable[[Any, Message], None]]] = {
    "hello": _write_hello,
    "auth": _write_auth,
    "join": _write_join,
    "history": _write_history,
    "users": _write_users,
    "chunk": _write_chunk,
}


def _spoil_protobuf(message: Message) -> bytes:
    envelope = schema()(json="{")
    for name in ("type", "id", "room"):
        if isinstance(message.get(name), str):
            setattr(envelope, name, message[name])
    data = envelope.SerializeToString()
    assert isinstance(data, bytes)
    return data


def _from_protobuf(data: str | bytes) -> Message:
    """A server's message."""
    assert isinstance(data, bytes)
    return _read(schema().FromString(data))


def _read(envelope: Any) -> Message:
    message: Message = {
        name: value
        for name in ("type", "id", "to", "room", "from", "seq", "time")
        if (value := getattr(envelope, name))
    }
    if envelope.receipt:
        message["receipt"] = True
    if envelope.HasField("prev"):
        message["prev"] = envelope.prev
    match envelope.WhichOneof("content"):
        case "json":
            message["content"] = loads(envelope.json)
        case "binary":
            message |= {"content": base64.b64encode(envelope.binary).decode(), "binary": True}
    # What else would be lost here.
    assert not any(envelope.HasField(name) for name in ("echo", "volatile"))
    own, read = _READERS.get(envelope.type, (None, None))
    assert envelope.WhichOneof("fields") == own, f"{envelope.type} has {envelope.WhichOneof('fields')} and not {own}"
    if read is not None:
        message |= read(getattr(envelope, own or ""))
    return message


def _told(told: Any, *names: str) -> Message:
    """Those of these fields that are there: what is `optional` as it says, of others what is not empty."""
    optional = {field.name for field in told.DESCRIPTOR.fields if field.has_presence}
    there = [name for name in names if (told.HasField(name) if name in optional else getattr(told, name))]
    return {name: getattr(told, name) for name in there}


def _position(told: Any) -> list[Any]:
    assert told.epoch
    return [told.epoch, told.seq]


def _members(told: Any) -> list[Message]:
    return [_told(member, "user", "sessions", "since") for member in told.list]


def _read_welcome(told: Any) -> Message:
    positions, recovered = told.positions, told.recovered
    return {
        **_told(told, "session", "user", "ping", "expires"),
        "limits": dict(told.limits),
        "positions": {
            "inbox": _position(positions.inbox),
            "all": _position(positions.all),
            "rooms": {room: _position(positions.rooms[room]) for room in positions.rooms},
        },
        "recovered": {
            "inbox": _told(recovered, "inbox").get("inbox"),
            "all": _told(recovered, "all").get("all"),
            "rooms": {room: _told(recovered.rooms[room], "value").get("value") for room in recovered.rooms},
        },
    }


def _read_joined(told: Any) -> Message:
    members = {"members": _members(told.members)} if told.HasField("members") else {}
    recovered = {"recovered": _told(told, "recovered").get("recovered")}
    return {"position": _position(told.position), **recovered, **_told(told, "count"), **members}


def _read_history(told: Any) -> Message:
    return {
        "messages": [_read(message) for message in told.messages],
        "position": _position(told.position),
        **_told(told, "more"),
    }


def _read_presence(told: Any) -> Message:
    return {"members": _members(told.members), **_told(told, "count")}


def _read_users(told: Any) -> Message:
    return {"users": {user: _told(told.users[user], "online", "since", "last_seen") for user in told.users}}


def _read_ack(told: Any) -> Message:
    return _told(told, "epoch", "duplicate", "expires")


_READERS: Final[dict[str, tuple[str, Callable[[Any], Message]]]] = {
    "welcome": ("welcome", _read_welcome),
    "joined": ("joined", _read_joined),
    "history": ("history", _read_history),
    "presence": ("presence", _read_presence),
    "users": ("users", _read_users),
    "ack": ("ack", _read_ack),
    "left": ("left", lambda told: _told(told, "code")),
    "receipt": ("told", lambda told: _told(told, "by")),
    "member-joined": ("told", lambda told: _told(told, "user")),
    "member-left": ("told", lambda told: _told(told, "user")),
    "error": ("error", lambda told: _told(told, "code", "message", "retry_after", "where")),
    "gap": ("gap", lambda told: _told(told, "from", "to", "channel")),
    "goodbye": ("goodbye", lambda told: _told(told, "code", "reason", "retry_after")),
    "chunk": ("chunk", lambda told: _told(told, "index", "total") | {"data": base64.b64encode(told.data).decode()}),
}


# Python's own reader and writer, as they are: what a test wants to send is sent, also what is no JSON.
JSON: Final = Codec("json", json.dumps, json.loads, "{", json.dumps)
MSGPACK: Final = Codec("msgpack", _to_msgpack, _from_msgpack, b"\xc1", _spoil_msgpack)
PROTOBUF: Final = Codec("protobuf", _to_protobuf, _from_protobuf, b"\x0a\x05", _spoil_protobuf)

CODECS: Final = {codec.name: codec for codec in (JSON, MSGPACK, PROTOBUF)}
"""All of them, by name."""

EXACT: Final = CODECS | {"json": replace(JSON, encode=dumps, decode=loads)}
"""The same, with numbers of any size in JSON, too."""
