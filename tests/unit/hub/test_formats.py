"""A message becomes a connection's bytes: encoded by the codec, framed by the transport."""

from __future__ import annotations

import json

import pytest
from msgspec import Raw

from hubbub.hub.formats import CODECS, Framed, subprotocol_of
from hubbub.protocol import json as codec
from hubbub.protocol import msgpack
from hubbub.protocol.envelope import Ack
from hubbub.types import Packed, Publication


def a_format() -> Framed:
    return Framed(codec, lambda payload: b"<" + payload + b">")


def test_an_answer_is_encoded_and_framed() -> None:
    assert a_format().encode(Ack("a1")) == b'<{"type":"ack","id":"a1"}>'


def test_a_publication_that_is_encoded_already_is_only_framed() -> None:
    assert a_format().encode_publication(Publication("chat"), b"{}") == b"<{}>"
    assert Framed(msgpack, bytes).encode_publication(Packed("chat"), b"\x80") == b"\x80"
    assert a_format().encode_publication(Publication("chat", seq=1), None) == b'<{"type":"chat","seq":1}>'


def test_the_record_of_another_codec_is_not_taken_for_ones_own() -> None:
    """A publication that was sent in MessagePack is encoded for who speaks JSON, and the other way round."""
    packed = Packed("chat", content=Raw(b"\xc4\x01A"), seq=1)

    assert a_format().encode_publication(packed, b"?") == b'<{"type":"chat","content":"QQ==","binary":true,"seq":1}>'
    assert Framed(msgpack, bytes).encode_publication(Publication("chat"), b"?") == b"\x81\xa4type\xa4chat"


@pytest.mark.parametrize(
    ("told", "wire"),
    [
        (
            Publication("receipt", "bob", to="alice", id="a1", time=7),
            {"type": "receipt", "id": "a1", "by": "bob", "time": 7},
        ),
        (
            Publication("member-joined", "bob", room="lobby", time=7),
            {"type": "member-joined", "room": "lobby", "user": "bob"},
        ),
        (
            Publication("member-left", "bob", room="lobby", time=7),
            {"type": "member-left", "room": "lobby", "user": "bob"},
        ),
    ],
    ids=lambda value: value.type if isinstance(value, Publication) else "",
)
def test_what_the_hub_tells_through_a_channel_has_its_own_shape(told: Publication, wire: dict[str, object]) -> None:
    """Between nodes it travels as a publication; on the wire it is the message that the protocol names."""
    frame = a_format().encode(told)

    assert json.loads(frame[1:-1]) == wire


def test_the_first_known_subprotocol_of_the_clients_list_is_taken() -> None:
    """protocol.md §3.1; a bearer token beside it is no codec."""
    for known in CODECS:
        assert subprotocol_of(("bearer.t", "other", known, codec.NAME)) == known
    assert subprotocol_of(("bearer.t", "other")) is None
    assert subprotocol_of(()) is None
