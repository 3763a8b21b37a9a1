"""Any content, from a sender of any codec to receivers of all, and on from there: it stays the same value."""

from __future__ import annotations

import base64
from itertools import product
from typing import Any

import msgpack  # type: ignore[import-untyped]  # it has no types
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.client.wire import Wire
from hubbub.hub.pipeline import encode_content
from support.codecs import CODECS, Number, content_of, dumps, loads, same
from support.crossing import OURS, received, told

# All that Python can encode, and JSON therefore say.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
INTEGERS = st.integers() | st.builds(
    lambda power, more, sign: sign * (2**power + more),
    st.sampled_from([31, 32, 53, 63, 64, 65, 128, 1_000, 20_000]),
    st.integers(-2, 2),
    st.sampled_from([1, -1]),
)
DOUBLES = st.floats(allow_nan=False, allow_infinity=False)
LARGE = st.builds(
    lambda digits, exponent: Number(f"{digits}e{exponent}"), st.integers(1, 10**30), st.integers(400, 10**25)
)
SCALARS = st.none() | st.booleans() | INTEGERS | DOUBLES | LARGE | TEXTS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXTS, inner, max_size=5), max_leaves=20
)


def nested(value: Any, shape: list[bool]) -> Any:
    for is_list in shape:
        value = [value] if is_list else {"a": value}
    return value


# The envelope is the 64th.
DEEP = st.builds(nested, SCALARS, st.lists(st.booleans(), min_size=50, max_size=63))
CONTENTS = VALUES | DEEP | st.binary()


def said(name: str, content: Any) -> str | bytes:
    """A message with this content, in a codec."""
    message: dict[str, Any] = {"type": "chat", "content": content}
    if isinstance(content, bytes):
        message |= {"content": base64.b64encode(content).decode(), "binary": True}
    return dumps(message) if name == "json" else CODECS[name].encode(message)


def heard(name: str, message: bytes) -> Any:
    """The content of a message in a codec."""
    return content_of(loads(message) if name == "json" else CODECS[name].decode(message))


@pytest.mark.parametrize(("first", "second"), list(product(CODECS, CODECS)))
@given(content=CONTENTS)
def test_a_content_crosses_codecs(first: str, second: str, content: Any) -> None:
    """From the first to the second, which sends on what it got, and everybody gets the same."""
    once = heard(second, told(first, said(first, content))[second])
    assert same(once, content)

    for third, message in told(second, said(second, once)).items():
        assert same(heard(third, message), content)


@given(contents=st.lists(VALUES, max_size=5), space=st.sampled_from(["", " ", "\n\t"]))
def test_digits_and_space_are_kept_between_json_and_protobuf(contents: list[Any], space: str) -> None:
    """Character for character, over the record that engines keep."""
    text = f"[{space}" + f",{space}".join(map(dumps, contents)) + f"{space}]"
    got = told("json", '{"type":"chat","content":' + text + "}")

    assert ('"content":' + text + ",").encode() in got["json"]
    assert told("protobuf", got["protobuf"])["json"] == got["json"]


@given(content=CONTENTS)
def test_the_python_client_reads_the_same_in_every_codec(content: Any) -> None:
    """A number that Python cannot hold is a `Decimal` there, and the same one."""
    told_to = told("json", said("json", content))
    in_json = Wire(OURS["json"]).decode(told_to["json"].decode())

    # A number of another size is text of a kind of its own there.
    assert type(content) not in (bytes, str, float) or same(in_json.content, content)
    for name in ("msgpack", "protobuf"):
        read = Wire(OURS[name]).decode(told_to[name])

        assert same(read.content, in_json.content) and read == in_json


@given(content=VALUES.filter(lambda value: value is not None))
def test_what_an_application_says_is_the_same_in_every_codec(content: Any) -> None:
    """Encoded by the hub, and read in each codec."""
    content = _of_python(content)
    got = told("json", '{"type":"chat","content":' + bytes(encode_content(content)).decode() + "}")

    for name, message in got.items():
        assert same(heard(name, message), content)


def _of_python(value: Any) -> Any:
    match value:
        case dict():
            return {key: _of_python(item) for key, item in value.items()}
        case list():
            return [_of_python(item) for item in value]
        case Number():
            return str(value)
        case int() if value.bit_length() > 10_000:
            # Which Python does not write.
            return 1
        case _:
            return value


NAN = float("nan")
INFINITE = st.sampled_from([NAN, float("inf"), -float("inf")])


@given(value=INFINITE, shape=st.lists(st.booleans(), max_size=40), fill=VALUES)
def test_no_nan_and_no_infinity_gets_in(value: float, shape: list[bool], fill: Any) -> None:
    """However deep, in doubles and floats of 32 bits, and as words in JSON."""
    content = nested([_small(_of_python(fill)), value], shape)
    for single in (False, True):
        packed = msgpack.packb({"type": "chat", "content": content}, use_single_float=single)

        assert received("msgpack", packed).code == "bad_message"  # type: ignore[union-attr]  # or it is none
    text = msgspec.json.encode(nested(["here"], shape)).decode()
    for word in ("NaN", "Infinity", "-Infinity"):
        wrong = text.replace('"here"', word)
        messages: dict[str, str | bytes] = {
            "json": '{"type":"chat","content":' + wrong + "}",
            "protobuf": b"\x0a\x04chat\x32" + _varint(len(wrong)) + wrong.encode(),
        }
        for name, message in messages.items():
            assert received(name, message).code == "bad_message"  # type: ignore[union-attr]  # the same


def _small(value: Any) -> Any:
    match value:
        case dict():
            return {key: _small(item) for key, item in value.items()}
        case list():
            return [_small(item) for item in value]
        case int() if not -(2**63) <= value < 2**64:
            return 1
        case float():
            # Which might have no place in 32 bits.
            return 1.5
        case _:
            return value


def _varint(number: int) -> bytes:
    return bytes([number]) if number < 0x80 else bytes([number & 0x7F | 0x80]) + _varint(number >> 7)
