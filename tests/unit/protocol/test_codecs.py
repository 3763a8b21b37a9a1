"""Every case of the vectors for all codecs, through ours and through some that are not (spec/vectors/README.md)."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from itertools import permutations
from typing import Any

import msgspec
import pytest

from hubbub.client.wire import Wire
from hubbub.protocol import envelope as messages
from hubbub.protocol import json, msgpack, protobuf
from hubbub.protocol.content import packed, packed_of
from hubbub.protocol.conversation import Conversation, Violation
from hubbub.protocol.envelope import Envelope, Fault, Request
from support.codecs import CODECS, content_of, dumps, loads, same, schema, unpack
from support.crossing import OURS, received, told
from support.vectors import cases, joined, match, understood

ANSWERS = {
    kind.__struct_config__.tag: kind
    for kind in vars(messages).values()
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind.__struct_config__.tag
}

Case = Mapping[str, Any]


def data_of(case: Case, key: str) -> str | bytes:
    """A message of a case in one codec."""
    return joined(case[key]) if key == "json" else bytes.fromhex(joined(case[key]))


ENVELOPES = cases("codecs.json", "envelopes")
ENCODED = [
    pytest.param(case.values[0], name, id=f"{case.id}-{name}")
    for case in ENVELOPES
    for name in OURS
    if name in case.values[0]
]


def value_of(name: str, encoded: bytes, binary: bool) -> Any:
    """A content as the server keeps it, as a value."""
    if name == "msgpack" or encoded[0] in (0xC4, 0xC5, 0xC6):
        return unpack(encoded)
    value = loads(encoded)
    return base64.b64decode(value) if binary else value


@pytest.mark.parametrize(("case", "name"), ENCODED)
def test_an_envelope_means_the_same_in_every_codec(case: Case, name: str) -> None:
    event = received(name, data_of(case, name))
    assert not isinstance(event, Fault), event
    fields = understood(event)
    content, binary = fields.pop("content", None), fields.pop("binary", False)

    match(case["accept"], fields)
    if content is None:
        assert case.keys().isdisjoint(("value", "bytes"))
    else:
        expected = bytes.fromhex(joined(case["bytes"])) if "bytes" in case else loads(joined(case["value"]))
        assert same(value_of(name, content, binary), expected)


@pytest.mark.parametrize("case", ENVELOPES)
def test_the_vectors_are_what_other_programs_say(case: Case) -> None:
    """The encodings of one case mean the same to readers of JSON, MessagePack and Protobuf that know nothing of us."""
    contents: list[Any] = []
    if "json" in case:
        message = loads(joined(case["json"]))
        contents += [content_of(message)] if "content" in message else []
    if "msgpack" in case and "unknown" not in case["name"]:
        message = unpack(bytes.fromhex(joined(case["msgpack"])))
        contents += [message["content"]] if "content" in message else []
    if "protobuf" in case:
        message = schema().FromString(bytes.fromhex(joined(case["protobuf"])))
        kind = message.WhichOneof("content")
        contents += [] if kind is None else [loads(message.json) if kind == "json" else message.binary]
    expected = loads(joined(case["value"])) if "value" in case else bytes.fromhex(joined(case.get("bytes", "")))

    assert all(same(content, expected) for content in contents)


@pytest.mark.parametrize("case", [case for case in ENVELOPES if "msgpack" in case.values[0]])
def test_messagepack_is_refused_cut_off_anywhere_or_with_more_behind_it(case: Case) -> None:
    """Every proper beginning of a message (of a long one, some), and the message with one more byte."""
    data = bytes.fromhex(joined(case["msgpack"]))
    for end in range(0, len(data), 1 + len(data) // 300):
        assert isinstance(received("msgpack", data[:end]), Fault)

    assert isinstance(received("msgpack", data + b"\xc0"), Fault)


@pytest.mark.parametrize("case", [case for case in ENVELOPES if "protobuf" in case.values[0]])
def test_protobuf_cut_off_anywhere_is_refused_or_a_message(case: Case) -> None:
    """Between two fields it may end: then it has less to say. It is never anything else."""
    data = bytes.fromhex(joined(case["protobuf"]))
    for end in range(0, len(data), 1 + len(data) // 300):
        event = received("protobuf", data[:end])

        assert isinstance(event, Fault | Envelope | Request)
        if not isinstance(event, Fault):
            schema().FromString(data[:end])


PUBLICATIONS = cases("codecs.json", "publications")


@pytest.mark.parametrize("case", [case for case in PUBLICATIONS if case.values[0]["came"] == "json"])
def test_what_came_as_json_stays_and_is_the_same_in_messagepack(case: Case) -> None:
    """From JSON or Protobuf: character for character to both, the same value to MessagePack."""
    text = joined(case["content"])
    in_msgpack = unpack(bytes.fromhex(joined(case["msgpack"])))
    assert same(in_msgpack, loads(text))

    in_json = '{"type":"chat","content":' + text + "}"
    for name, message in {"json": in_json, "protobuf": schema()(type="chat", json=text).SerializeToString()}.items():
        got = told(name, message)

        assert got["json"].decode() == '{"type":"chat","from":"alice","content":' + text + ',"seq":1,"time":2}'
        assert schema().FromString(got["protobuf"]).json == text
        assert same(read(got["msgpack"])["content"], in_msgpack)


@pytest.mark.parametrize("case", [case for case in PUBLICATIONS if case.values[0]["came"] == "msgpack"])
def test_what_came_as_messagepack_stays_and_is_the_same_in_json(case: Case) -> None:
    """From MessagePack: byte for byte to MessagePack, the same value to JSON and Protobuf."""
    sent = bytes.fromhex(joined(case["content"]))
    value = loads(joined(case["json"]))
    got = told("msgpack", b"\x82\xa4type\xa4chat\xa7content" + sent)

    assert b"\xa7content" + sent in got["msgpack"]
    assert same(loads(got["json"])["content"], value)
    assert same(loads(schema().FromString(got["protobuf"]).json), value)


@pytest.mark.parametrize("sender", CODECS)
@pytest.mark.parametrize("case", [case for case in PUBLICATIONS if case.values[0]["came"] == "any"])
def test_bytes_are_bytes_to_everybody(case: Case, sender: str) -> None:
    data = bytes.fromhex(case["bytes"])
    got = told(sender, CODECS[sender].encode({"type": "blob", "content": case["json"], "binary": True}))

    assert read(got["msgpack"])["content"] == data
    assert schema().FromString(got["protobuf"]).binary == data
    in_json = {"type": "blob", "from": "alice", "content": case["json"], "binary": True, "seq": 1, "time": 2}
    assert loads(got["json"]) == in_json


def read(data: bytes) -> dict[str, Any]:
    """A MessagePack map."""
    found = unpack(data)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("case", cases("codecs.json", "answers"))
def test_an_answer_is_the_same_in_every_codec(case: Case) -> None:
    """The server's, to a client that is not ours; and what a vector says is what others read in it."""
    message = case["message"]
    for name, codec in CODECS.items():
        if name != "json":
            assert codec.decode(bytes.fromhex(joined(case[name]))) == message
        answer = msgspec.json.decode(dumps(message), type=ANSWERS[message["type"]])
        if isinstance(answer, messages.HistoryPage):
            # From senders of both kinds.
            answer.messages[:1] = map(packed, answer.messages[:1])
        elif isinstance(answer, messages.PongAnswer) and name != "json" and "content" in message:
            # As the question has it in this codec.
            if name == "msgpack" or answer.binary:
                answer.content = packed_of(answer.content, answer.binary)
            answer.binary = False
        encoded = OURS[name].encode(answer)

        match(message, codec.decode(encoded.decode() if name == "json" else encoded))


@pytest.mark.parametrize("case", cases("codecs.json", "answers"))
def test_a_client_understands_an_answer_in_every_codec_alike(case: Case) -> None:
    """Our own client; what it repeats of a question's content nobody reads."""
    message = case["message"]
    if message["type"] == "pong":
        return
    expected = Wire(json).decode(dumps(message))

    assert Wire(msgpack).decode(bytes.fromhex(joined(case["msgpack"]))) == expected
    assert Wire(protobuf).decode(bytes.fromhex(joined(case["protobuf"]))) == expected


@pytest.mark.parametrize("case", cases("codecs.json", "refusals"))
def test_what_is_wrong_is_refused_by_name(case: Case) -> None:
    """With the id and the room, where they can be read; in words that repeat nothing of it."""
    fault = received_first(case["codec"], bytes.fromhex(joined(case["data"])))
    told = {"code": str(fault.code), "id": fault.id, "room": fault.room}

    match(case["error"], {key: value for key, value in told.items() if value is not None})
    assert 0 < len(fault.message) < 200 and fault.message.isascii()


def received_first(name: str, message: bytes) -> Fault:
    """How it is refused, as the first message of a session too."""
    event = Conversation(OURS[name], full=False).receive(message, now=0.0)
    violation = Conversation(OURS[name], full=True).receive(message, now=0.0)
    assert isinstance(violation, Violation) and violation.fault is not None
    if isinstance(event, Fault) and event.code == "conflict":
        # A `hello`.
        event = violation.fault
    assert isinstance(event, Fault), event
    return event


@pytest.mark.parametrize(("sender", "receiver"), list(permutations(OURS, 2)))
def test_the_wrong_kind_of_websocket_message_is_a_bad_message(sender: str, receiver: str) -> None:
    """Text where the codec is binary, binary where it is text; between the binary ones it is no message at all."""
    event = received_first(receiver, CODECS[sender].encode({"type": "chat", "id": "a"}))  # type: ignore[arg-type]  # on purpose

    assert event.code == "bad_message" and event.id is None
