"""A publication as engines keep it: one encoding, of which nobody has to be told which one it is."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw, Struct

from hubbub.core import record
from hubbub.engines.sqlite.record import SEPARATOR, open_records, seal
from hubbub.protocol import json, msgpack
from hubbub.types import Packed, Publication

PLAIN = Publication("chat", "alice", None, "lobby", Raw(b'{"a":1.10}'), False, "a1", True, 7, 5, 9)


def packed(content: bytes) -> Packed:
    return Packed("chat", "alice", None, "lobby", Raw(msgspec.msgpack.encode(content)), id="a1", seq=7, time=9)


def test_a_record_is_the_encoding_of_the_senders_codec() -> None:
    """So it needs to be made only once, for the log and for all who speak the same."""
    assert record.encode(PLAIN) == json.encode(PLAIN)
    assert record.encode(packed(b"A")) == msgpack.encode(packed(b"A"))
    assert (Publication, Packed) == (json.NATIVE, msgpack.NATIVE)


@given(st.lists(st.binary(max_size=40) | st.none(), max_size=6))
def test_records_are_what_was_kept_in_either_form(contents: list[bytes | None]) -> None:
    kept = [PLAIN if content is None else packed(content) for content in contents]
    records = [record.encode(publication) for publication in kept]
    read = [record.decode(one) for one in records]

    assert [type(publication) for publication in read] == [type(publication) for publication in kept]
    assert [record.encode(publication) for publication in read] == records
    assert [record.encode(publication) for publication in record.decode_all(records)] == records


def test_a_part_of_a_record_can_be_read() -> None:
    class Trace(Struct):
        id: str

    assert [record.decoder(Trace)(record.encode(one)).id for one in (PLAIN, packed(b"A"))] == ["a1", "a1"]


@given(st.lists(st.binary(max_size=40).map(packed) | st.just(PLAIN), min_size=1, max_size=6))
def test_sealed_records_can_be_joined_whatever_is_in_them(kept: list[Publication]) -> None:
    """MessagePack may hold the separator, and what stands for it."""
    records = [record.encode(publication) for publication in kept]
    joined = SEPARATOR.join(seal(1, seq, 9, one) for seq, one in enumerate(records, 1))

    assert [opened.body for opened in open_records(1, joined)] == records
    assert [opened.body for opened in open_records(1, seal(1, 1, 9, record.encode(packed(b"\x1b\x1e\x1b[\x1b]"))))]
