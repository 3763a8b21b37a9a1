"""A publication as engines keep it and tell it: one encoding, in the form in which its sender wrote the content.

JSON, or MessagePack where the content is that. A record of JSON begins with a brace, which in MessagePack would be a
number, so nothing has to be said about which one it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec
from msgspec import Struct

from hubbub.types import Packed, Publication

__all__ = ["decode", "decode_all", "decoder", "encode", "is_json"]

S = TypeVar("S", bound=Struct)

_json = msgspec.json.Encoder().encode
_msgpack = msgspec.msgpack.Encoder().encode
_of_json = msgspec.json.Decoder(Publication).decode
_of_msgpack = msgspec.msgpack.Decoder(Packed).decode
_of_list = msgspec.json.Decoder(list[Publication]).decode


def is_json(record: bytes) -> bool:
    """Whether a record is JSON; else it is MessagePack."""
    return record[0] == 0x7B


def encode(publication: Publication) -> bytes:
    """The record of a publication: also its encoding in the codec whose `NATIVE` kind it is."""
    return _json(publication) if type(publication) is Publication else _msgpack(publication)


def decode(record: bytes) -> Publication:
    """The publication in a record; its content is a view of it."""
    return _of_json(record) if record[0] == 0x7B else _of_msgpack(record)


def decode_all(records: Sequence[bytes]) -> list[Publication]:
    """The publications in many records: in one go where all are JSON, as they mostly are."""
    if all(record[0] == 0x7B for record in records):
        return _of_list(b"[" + b",".join(records) + b"]")
    return [decode(record) for record in records]


def decoder(kind: type[S]) -> Callable[[bytes], S]:
    """What reads records as structs of `kind`, which has some of a publication's fields."""
    of_json, of_msgpack = msgspec.json.Decoder(kind).decode, msgspec.msgpack.Decoder(kind).decode
    return lambda record: of_json(record) if record[0] == 0x7B else of_msgpack(record)
