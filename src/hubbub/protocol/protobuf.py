"""The codec `hubbub.v1.protobuf`: envelopes as the message `Envelope` of spec/hubbub.proto.

What is hot, the messages of applications, is read and written field by field; the reserved types go by what the
schema and their structs say of themselves. Importing this needs the package `protobuf`, which is an extra.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final, TypeVar

import msgspec
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message import DecodeError
from msgspec import UNSET, Raw, Struct

from hubbub.protocol.codec import BadMessage, Reference, check_nesting, say
from hubbub.protocol.content import json_of, pack_bytes, packed_of, unpack_bytes
from hubbub.protocol.envelope import Envelope, PackedEnvelope, Request
from hubbub.protocol.schema import SCHEMA
from hubbub.types import Packed, Publication

__all__ = ["BINARY", "NAME", "NATIVE", "decode", "decode_as", "decode_reference", "decode_type", "encode"]

NAME: Final = "hubbub.v1.protobuf"
BINARY: Final = True
NATIVE: Final = None

S = TypeVar("S", bound=Struct)

# Of what only the server says, that of which there may be many. For what a client says it is unknown: 16 MiB of empty
# envelopes in a `history` would be gigabytes, and half a minute of Python. The members of `fields` themselves stay, for
# one that comes ends another.
_SERVERS: Final = {
    "Welcome": ("limits", "positions", "recovered"),
    "Joined": ("members",),
    "History": ("messages",),
    "Presence": ("members",),
    "Users": ("users",),
}


def _schema(without: Mapping[str, Collection[str]]) -> Any:
    """The class of `Envelope`, made at run time, which no type checker can see; `without` some fields."""
    file = FileDescriptorProto.FromString(SCHEMA)
    for message in file.message_type:
        for field in [field for field in message.field if field.name in without.get(message.name, ())]:
            message.field.remove(field)
    # A pool of our own: an application may have other messages of the same name.
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("hubbub.v1.Envelope"))


_Envelope: Final = _schema({})
_ClientEnvelope: Final = _schema(_SERVERS)

# The member of `fields` that a reserved type has, where that is not the one of its own name.
_MEMBERS: Final = {"receipt": "told", "member-joined": "told", "member-left": "told"}
# The other fields, by whether they can be empty, 0 or false without being absent.
_PLAIN: Final = ("from", "receipt", "seq", "time")
_OPTIONAL: Final = ("id", "to", "room", "echo", "volatile", "prev")
_members: Final = {field.name: field.message_type for field in _Envelope.DESCRIPTOR.oneofs_by_name["fields"].fields}


def _member_of(type: str) -> str:
    return _MEMBERS.get(type, type)


# ---------------------------------------------------------------------------------------------- reading


def decode(data: str | bytes) -> Envelope:
    """See `Codec.decode`."""
    read = _parse(data, _ClientEnvelope)
    try:
        return msgspec.convert(_read_envelope(read), PackedEnvelope if read.HasField("binary") else Envelope)
    except msgspec.ValidationError as error:
        raise BadMessage(say(error, "Protobuf")) from None


def decode_as(data: str | bytes, kind: type[S]) -> S:
    """See `Codec.decode_as`; a `content` is of either form, and the first byte says which: see `unpack_bytes`."""
    try:
        read = _parse(data, _ClientEnvelope if issubclass(kind, Request) else _Envelope)
        return msgspec.convert(_read_envelope(read), kind)
    except msgspec.ValidationError as error:
        raise BadMessage(say(error, "Protobuf")) from None


def decode_type(data: str | bytes) -> str:
    """See `Codec.decode_type`."""
    type: str = _parse(data, _Envelope).type
    return type


def decode_reference(data: str | bytes) -> tuple[str | None, str | None]:
    """See `Codec.decode_reference`."""
    try:
        read = _parse(data, _ClientEnvelope)
    except BadMessage:
        return None, None
    return Reference(read.id, read.room).valid


def _parse(data: str | bytes, schema: Any) -> Any:
    try:
        return schema.FromString(data)
    except DecodeError:
        raise BadMessage("not Protobuf: the bytes are no `Envelope` of hubbub.proto") from None


def _content(read: Any) -> Raw | None:
    kind = read.WhichOneof("content")
    if kind is None:
        return None
    if kind == "binary":
        return pack_bytes(read.binary)
    text = read.json
    try:
        content: Raw = msgspec.json.decode(text, type=Raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadMessage(f"`json`: {say(error, 'JSON')}") from None
    # The envelope is around it.
    check_nesting(text, within=1)
    return content


def _read_envelope(read: Any) -> dict[str, Any]:
    """All that an `Envelope` says, the fields of its type beside the others; those of other types are not read."""
    found: dict[str, Any] = {"type": read.type}
    for name in _PLAIN:
        value = getattr(read, name)
        # Absent, where it is empty, 0 or false.
        if value:
            found[name] = value
    for name in _OPTIONAL:
        if read.HasField(name):
            found[name] = getattr(read, name)
    content = _content(read)
    if content is not None:
        found["content"] = content
    member = _member_of(read.type)
    if member in _members:
        # Where it is not set, it is empty.
        found |= _read(getattr(read, member))
    return found


def _read_fields(read: Any) -> dict[str, Any]:
    """What a message says, by the names of its fields; a list or a map is there even if it is empty."""
    found: dict[str, Any] = {
        field.name: {} if _is_map(field) else [] for field in read.DESCRIPTOR.fields if field.is_repeated
    }
    for field, value in read.ListFields():
        if field.message_type is None:
            found[field.name] = list(value) if field.is_repeated else value
        elif _is_map(field):
            inner = field.message_type.fields_by_name["value"].message_type
            found[field.name] = {key: value[key] if inner is None else _read(value[key]) for key in value}
        elif field.is_repeated:
            found[field.name] = [_read(item) for item in value]
        else:
            found[field.name] = _read(value)
    return found


def _is_map(field: Any) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _read(read: Any) -> Any:
    """What a message within the envelope stands for."""
    match read.DESCRIPTOR.name:
        case "Position":
            return (read.epoch, read.seq) if read.epoch else None
        case "Recovered":
            return read.value if read.HasField("value") else None
        case "Members":
            return [_read(member) for member in read.list]
        case "Envelope":
            return _read_envelope(read)
        case "Joined":
            return {"recovered": None} | _read_fields(read)
        case _:
            return _read_fields(read)


# ---------------------------------------------------------------------------------------------- writing


def encode(message: object) -> bytes:
    """See `Codec.encode`; also of an envelope as a dict, its content encoded in either form."""
    written = _Envelope()
    if isinstance(message, Publication):
        _write_publication(written, message)
    else:
        fields = dict(message) if isinstance(message, Mapping) else _fields_of(message)
        _write_envelope(written, fields)
    data: bytes = written.SerializeToString()
    return data


def _fields_of(message: Any) -> dict[str, Any]:
    """The fields of a struct by their names on the wire, with the type that it is tagged with."""
    names = zip(message.__struct_encode_fields__, message.__struct_fields__, strict=True)
    fields = {name: getattr(message, field) for name, field in names}
    tag = message.__struct_config__.tag
    return fields if tag is None else {"type": tag, **fields}


def _write_publication(written: Any, publication: Publication) -> None:
    written.type = publication.type
    if publication.from_:
        setattr(written, "from", publication.from_)
    if publication.room is not None:
        written.room = publication.room
    elif publication.to is not None:
        written.to = publication.to
    if publication.id is not None:
        written.id = publication.id
    if publication.receipt:
        written.receipt = True
    for name in ("seq", "prev", "time"):
        value = getattr(publication, name)
        if value is not None:
            setattr(written, name, value)
    content = publication.content
    if publication.binary:
        content = packed_of(content, True)
    elif type(publication) is Packed and unpack_bytes(content) is None:
        content, _ = json_of(content)
    _write_content(written, content)


def _write_content(written: Any, content: Raw) -> None:
    """Write what is JSON, or bytes in MessagePack."""
    if memoryview(content).nbytes:
        data = unpack_bytes(content)
        if data is None:
            written.json = bytes(content).decode()
        else:
            written.binary = data


def _write_envelope(written: Any, fields: dict[str, Any]) -> None:
    content = fields.pop("content", None)
    # A word of the codec JSON: bytes are in MessagePack here.
    fields.pop("binary", None)
    if content is not None:
        _write_content(written, content)
    type = fields["type"]
    member = _member_of(type)
    inner = _members.get(member)
    if inner is not None:
        own = {name: fields.pop(name) for name in list(fields) if name in inner.fields_by_name}
        _write(getattr(written, member), own)
    _write_fields(written, fields)


def _write_fields(written: Any, fields: Mapping[str, Any]) -> None:
    for name, value in fields.items():
        field = written.DESCRIPTOR.fields_by_name.get(name)
        if value is None or value is UNSET or field is None:
            continue
        if field.message_type is None:
            if field.is_repeated:
                getattr(written, name).extend(value)
            else:
                setattr(written, name, value)
        elif _is_map(field):
            written_map = getattr(written, name)
            for key, item in value.items():
                if field.message_type.fields_by_name["value"].message_type is None:
                    written_map[key] = item
                else:
                    _write(written_map[key], item)
        elif field.is_repeated:
            for item in value:
                _write(getattr(written, name).add(), item)
        else:
            _write(getattr(written, name), value)


def _write(written: Any, value: Any) -> None:
    """Write what a message within the envelope stands for."""
    written.SetInParent()
    match written.DESCRIPTOR.name:
        case "Position":
            if value is not None:
                written.epoch, written.seq = value
        case "Recovered":
            if value is not None:
                written.value = value
        case "Members":
            for member in value:
                _write(written.list.add(), member)
        case "Envelope":
            _write_publication(written, value)
        case _:
            _write_fields(written, value if isinstance(value, Mapping) else _fields_of(value))
