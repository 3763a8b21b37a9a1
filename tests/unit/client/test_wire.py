"""What a client reads is typed, what it does not know is ignored, and nonsense is called so; in every codec alike."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from hubbub.client.wire import _STRUCTS, CodecName, Message, NotAMessage, Wire, codec_named
from hubbub.errors import HubbubError
from hubbub.protocol import json, msgpack, protobuf
from hubbub.protocol.codec import Codec
from hubbub.protocol.codes import RESERVED_FROM_SERVER
from hubbub.protocol.content import packed_of
from hubbub.protocol.envelope import HistoryPage, Joined
from hubbub.types import Packed, Position, Publication

CODECS: dict[str, Codec] = {"json": json, "msgpack": msgpack, "protobuf": protobuf}

wire = Wire()

each_codec = pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)


def read(codec: Codec, message: object) -> Any:
    """What a client of this codec makes of a message of the server."""
    encoded = codec.encode(message)
    return Wire(codec).decode(encoded if codec.BINARY else encoded.decode())


def test_every_type_that_servers_send_has_its_struct() -> None:
    assert set(_STRUCTS) == RESERVED_FROM_SERVER


@each_codec
def test_a_message_is_decoded_with_its_content(codec: Codec) -> None:
    message = read(codec, Publication("chat", "bob", None, "lobby", Raw(b'{"a":[1]}'), seq=3, prev=1, time=9))

    assert message == Message(type="chat", from_="bob", room="lobby", content={"a": [1]}, seq=3, prev=1, time=9)


@each_codec
def test_a_message_without_content_has_none(codec: Codec) -> None:
    assert read(codec, Publication("chat", "bob", seq=1)) == Message(type="chat", from_="bob", seq=1)


@each_codec
def test_bytes_come_as_bytes(codec: Codec) -> None:
    for publication in (
        Publication("chat", content=Raw(b'"AP8="'), binary=True),
        Packed("chat", content=packed_of(Raw(b'"AP8="'), True)),
    ):
        assert read(codec, publication).content == b"\x00\xff"


@each_codec
@pytest.mark.parametrize(
    "text", ["9007199254740993", "-9223372036854775808", "18446744073709551616", "1" + "0" * 3_000]
)
def test_an_integer_of_any_size_comes_whole(codec: Codec, text: str) -> None:
    assert read(codec, Publication("chat", content=Raw(f'{{"n":[{text}]}}'.encode()))).content == {"n": [int(text)]}


@each_codec
@pytest.mark.parametrize("text", ["1e999", "-2.5e400", "9" * 5_000])
def test_a_number_that_python_does_not_hold_costs_nobody_the_connection(codec: Codec, text: str) -> None:
    """Anybody in a room may send one: it comes as a `Decimal`."""
    content = read(codec, Publication("chat", content=Raw(f"[{text}]".encode()))).content

    assert content == [Decimal(text)]


@each_codec
def test_a_page_of_history_has_contents_of_either_kind(codec: Codec) -> None:
    told = [Publication("chat", content=Raw(b"[1]"), seq=1), Packed("chat", content=Raw(b"\xc4\x01A"), seq=2)]
    page = read(codec, HistoryPage(told, Position("e", 2), False, "lobby"))

    assert [message.content for message in page.messages] == [[1], b"A"]
    assert (page.position, page.more, page.room) == (Position("e", 2), False, "lobby")


@each_codec
def test_what_is_null_is_not_absent(codec: Codec) -> None:
    joined = read(codec, Joined("r", Position("e", 0), None, 0, []))

    assert (joined.recovered, joined.members, joined.count) == (None, [], 0)


CONTENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@each_codec
@given(content=CONTENTS | st.binary())
def test_what_is_sent_is_what_the_server_reads(codec: Codec, content: object) -> None:
    envelope = codec.decode(Wire(codec).encode({"type": "chat", "id": "a1", "echo": False, "content": content}))
    published = envelope.published(envelope.type, "alice", content=envelope.content, binary=envelope.binary)

    assert (envelope.type, envelope.id, envelope.echo, envelope.volatile) == ("chat", "a1", False, None)
    for other in CODECS.values():
        assert repr(read(other, published).content) == repr(content)


def test_fields_that_are_not_known_are_ignored() -> None:
    """protocol.md §9: version 1 only grows."""
    joined = wire.decode('{"type":"joined","room":"r","position":["e",1],"recovered":null,"count":1,"new":{}}')

    assert joined.position == Position("e", 1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"type":1}',
        '{"type":"chat","seq":"1"}',
        '{"type":"chat","content":"?","binary":true}',
        '{"type":"chat","content":NaN}',
        '{"type":"welcome"}',
        '{"type":"error","code":"x"}',
        '{"type":"chat","seq":9007199254740992}',
        '{"type":"joined","room":"r","position":["e"],"recovered":null,"count":1}',
        "[" * 100_000,
        b'{"type":"chat"}',
    ],
)
def test_nonsense_is_no_message(text: str | bytes) -> None:
    with pytest.raises(NotAMessage):
        wire.decode(text)


def test_joined_chunks_that_are_not_utf8_are_no_message() -> None:
    with pytest.raises(NotAMessage):
        wire.decode_joined(b'{"type":"\x80"}')


@each_codec
@pytest.mark.parametrize("content", [{1, object()}, math.nan, [{"a": -math.inf}], {"a": (math.inf,)}])
def test_what_json_cannot_hold_is_refused_in_a_sentence(codec: Codec, content: object) -> None:
    with pytest.raises(HubbubError, match="cannot be sent as JSON"):
        Wire(codec).encode({"type": "chat", "content": content})


def test_codecs_have_names() -> None:
    assert {name: codec_named(name) for name in get_args(CodecName)} == CODECS
    with pytest.raises(HubbubError, match="json, msgpack or protobuf"):
        codec_named("xml")
