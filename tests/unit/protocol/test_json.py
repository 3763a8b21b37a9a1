"""The JSON codec: what an error may repeat, how deep a message may be, and what stays as it was sent."""

from __future__ import annotations

import base64
import json
import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from hubbub.protocol import json as codec
from hubbub.protocol.codec import BadMessage, _measure
from hubbub.protocol.envelope import Ack, Fault, Joined, Ping
from hubbub.types import Position, Publication


def test_content_stays_as_it_was_sent() -> None:
    """Digit for digit: spaces, the form of a number, the order of members and members that occur twice."""
    content = '{ "b" : 1.0e2, "a":[1 ,2],"b":0.10 }'
    envelope = codec.decode('{"type":"chat","content":' + content + "}")

    assert bytes(envelope.content).decode() == content
    assert content.encode() in codec.encode(Publication("chat", "alice", content=envelope.content))


def test_absent_and_null_are_not_the_same() -> None:
    absent = codec.decode('{"type":"chat"}')
    null = codec.decode('{"type":"chat","content":null}')

    assert (bytes(absent.content), bytes(null.content)) == (b"", b"null")
    assert codec.encode(Publication("chat", "alice", content=absent.content)) == b'{"type":"chat","from":"alice"}'
    assert codec.encode(Publication("chat", content=null.content)) == b'{"type":"chat","content":null}'


@pytest.mark.parametrize("opening", ["[", '{"a":'], ids=["arrays", "objects"])
def test_a_message_may_be_64_deep_and_no_deeper(opening: str) -> None:
    """The envelope counts, and so do objects and arrays alike."""
    closing = "]" if opening == "[" else "}"

    def nested(depth: int) -> str:
        inner = depth - 1
        return '{"type":"chat","content":' + opening * inner + "1" + closing * inner + "}"

    codec.decode(nested(64))
    with pytest.raises(BadMessage, match="nested"):
        codec.decode(nested(65))


def test_brackets_in_text_are_not_nesting() -> None:
    content = json.dumps('{[\\"{[' * 100)
    envelope = codec.decode('{"type":"chat","content":' + content + "}")

    assert bytes(envelope.content).decode() == content


def naive_depth(value: object) -> int:
    """How deep a decoded value is nested."""
    if isinstance(value, dict):
        return 1 + max(map(naive_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(naive_depth, value), default=0)
    return 0


AWKWARD = st.text(st.sampled_from('[]{}"\\\n\u2028é𝄞,:a'), max_size=8)
VALUES = st.recursive(
    AWKWARD | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(AWKWARD, inner, max_size=4),
    max_leaves=30,
)


@given(value=VALUES, plain=st.booleans(), indent=st.sampled_from([None, 0, 2]))
def test_depth_is_what_nests_and_not_what_is_quoted(value: object, plain: bool, indent: int | None) -> None:
    assert _measure(json.dumps(value, ensure_ascii=plain, indent=indent).encode())[0] == naive_depth(value)


@pytest.mark.parametrize(
    "content",
    [
        "[" + ",".join(["[]"] * 21_000) + "]",
        "[" + ",".join(["{}"] * 70) + ',"' + '\\"' * 32_000 + '"]',
        "[" + ",".join(['"["'] * 16_000) + "]",
        "[" + ",".join(["[" * 60 + "]" * 60] * 500) + "]",
    ],
    ids=["brackets", "escapes", "strings", "mountains"],
)
def test_measuring_depth_takes_few_steps(content: str) -> None:
    """64 KiB of brackets must not hold everybody up: there are calls for the message, and none for each bracket."""
    text = '{"type":"chat","content":' + content + "}"
    steps = 0

    def count(*_: object) -> None:
        nonlocal steps
        steps += 1

    sys.setprofile(count)
    try:
        codec.decode(text)
    finally:
        sys.setprofile(None)

    assert steps < 100


@pytest.mark.parametrize("depth", [2_000, 100_000])
def test_a_deep_message_costs_no_stack(depth: int) -> None:
    with pytest.raises(BadMessage):
        codec.decode('{"type":"chat","content":' + "[" * depth + "]" * depth + "}")


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"chat","to":["SECRET"]}',
        '{"type":"chat","content":SECRET}',
        '{"type":"chat","id":"SECRET' + "x" * 64 + '"}',
        '{"type":"chat","echo":"SECRET"}',
    ],
)
def test_what_is_wrong_is_said_without_quoting(text: str) -> None:
    """An error may end up in a log: nothing of the message is in it."""
    with pytest.raises(BadMessage) as caught:
        codec.decode(text)

    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ('{"type":7,"id":"a1","room":"lobby"}', ("a1", "lobby")),
        ('{"id":7,"room":"lobby"}', (None, "lobby")),
        ('{"id":"a1","room":null}', ("a1", None)),
        ('{"id":"","room":"a\\u0000b"}', (None, None)),
        ('{"id":"' + "x" * 65 + '"}', (None, None)),
        ('["a1"]', (None, None)),
        ("no JSON", (None, None)),
        ("[" * 100_000, (None, None)),
    ],
    ids=["both", "room", "id", "not valid", "too long", "no object", "no JSON", "too deep"],
)
def test_an_error_repeats_what_is_valid(text: str, reference: tuple[str | None, str | None]) -> None:
    """protocol.md §1.3: the `id` and `room` of a message that is wrong elsewhere."""
    assert codec.decode_reference(text) == reference


def test_a_request_is_read_by_its_own_fields() -> None:
    ping = codec.decode_as('{"type":"ping","id":"p","content":[1, 2]}', Ping)

    assert ping == Ping(id="p", content=Raw(b"[1, 2]"))


@given(st.binary(max_size=50))
def test_every_base64_is_recognised(data: bytes) -> None:
    encoded = base64.b64encode(data).decode()

    assert codec.is_base64(Raw(json.dumps(encoded).encode()))


@pytest.mark.parametrize(
    "content",
    [b"", b"7", b"null", b'"a"', b'"YQ="', b'"YQ==="', b'"Y Q="', b'"YQ-_"', b'"\xc3\xa4"', b'"AAAA="', b'"AAAA=="'],
)
def test_what_is_no_base64_is_recognised(content: bytes) -> None:
    """With padding, of the standard alphabet, and a string in the first place (RFC 4648 §4)."""
    assert not codec.is_base64(Raw(content))


@pytest.mark.parametrize(
    ("message", "encoded"),
    [
        (Ack("a1", None, "lobby", 42, "p9"), {"type": "ack", "id": "a1", "room": "lobby", "seq": 42, "epoch": "p9"}),
        (Ack("a1", duplicate=True), {"type": "ack", "id": "a1", "duplicate": True}),
        (
            Fault("not_joined", "Join the room first."),
            {"type": "error", "code": "not_joined", "message": "Join the room first."},
        ),
        (
            Joined("lobby", Position("p9", 0), None, 0),
            {"type": "joined", "room": "lobby", "position": ["p9", 0], "recovered": None, "count": 0},
        ),
        (
            Joined("lobby", Position("p9", 0), False, 0, []),
            {"type": "joined", "room": "lobby", "position": ["p9", 0], "recovered": False, "count": 0, "members": []},
        ),
    ],
    ids=["ack", "duplicate", "error", "joined", "joined with members"],
)
def test_answers_say_what_they_have_and_no_more(message: object, encoded: dict[str, object]) -> None:
    """Absent where there is nothing, null only where the protocol says null."""
    assert json.loads(codec.encode(message)) == encoded


def test_the_type_comes_first() -> None:
    """Whoever looks at the wire sees at once what a message is."""
    assert codec.encode(Ack("a1")).startswith(b'{"type":"ack"')
    assert codec.encode(Publication("chat")).startswith(b'{"type":"chat"')


def test_a_bad_message_is_a_value_error() -> None:
    """For who decodes outside the server."""
    assert issubclass(BadMessage, ValueError)
    assert not issubclass(BadMessage, msgspec.MsgspecError)
