"""What a client reads is typed, what it does not know is ignored, and nonsense is called so."""

from __future__ import annotations

import pytest

from hubbub.client import wire
from hubbub.errors import HubbubError
from hubbub.protocol.codes import RESERVED_FROM_SERVER
from hubbub.types import Position


def test_every_type_that_servers_send_has_its_struct() -> None:
    assert set(wire._decoders) == RESERVED_FROM_SERVER


def test_a_message_is_decoded_with_its_content() -> None:
    message = wire.decode('{"type":"chat","from":"bob","room":"lobby","content":{"a":[1]},"seq":3,"prev":1,"time":9}')

    assert isinstance(message, wire.Message)
    assert (message.from_, message.content, message.seq, message.prev) == ("bob", {"a": [1]}, 3, 1)


def test_bytes_come_as_bytes() -> None:
    assert wire.decode('{"type":"chat","content":"AP8=","binary":true}').content == b"\x00\xff"


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
        '{"type":"welcome"}',
        '{"type":"error","code":"x"}',
        '{"type":"chat","seq":9007199254740992}',
        '{"type":"joined","room":"r","position":["e"],"recovered":null,"count":1}',
        "[" * 100_000,
        # Bytes come out of chunks.
        b'{"type":"\x80"}',
    ],
)
def test_nonsense_is_no_message(text: str | bytes) -> None:
    with pytest.raises(wire.NotAMessage):
        wire.decode(text)


def test_what_json_cannot_hold_is_refused_in_a_sentence() -> None:
    with pytest.raises(HubbubError, match="cannot be sent as JSON"):
        wire.encode({"type": "chat", "content": {1, object()}})
