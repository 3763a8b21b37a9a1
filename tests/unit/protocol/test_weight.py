"""Objects and arrays are counted before they are made."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.protocol import json, msgpack
from hubbub.protocol.codec import BadMessage
from hubbub.protocol.weight import containers_of

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=300)
    | st.binary(max_size=300)
    | st.builds(msgspec.msgpack.Ext, st.integers(0, 100), st.binary(max_size=300)),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=40), inner, max_size=20),
    max_leaves=60,
)


def naive(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(map(naive, value.values()))
    return 1 + sum(map(naive, value)) if isinstance(value, list) else 0


@given(VALUES)
def test_it_counts_what_there_is(value: Any) -> None:
    assert containers_of(msgspec.msgpack.encode(value)) == naive(value)


@pytest.mark.parametrize("value", ["x" * 70_000, b"x" * 70_000, [0] * 70_000, {str(key): 0 for key in range(70_000)}])
def test_sizes_of_four_bytes(value: Any) -> None:
    assert containers_of(msgspec.msgpack.encode([value, []])) == 2 + naive(value)


def test_it_counts_no_further_than_asked() -> None:
    assert containers_of(b"\xdd\x00\x00\x03\xe8" + b"\x80" * 1_000, most=10) == 11


def test_a_large_message_of_nothing_but_containers_is_refused() -> None:
    """It would be a gigabyte: it is not decoded."""
    head = msgspec.msgpack.encode({"type": "doc"})
    packed = b"\x82" + head[1:] + b"\xa7content\xdd\x00\x20\x00\x00" + b"\x80" * 2**21
    text = b'{"type":"doc","content":[' + b"[]," * 2**21 + b"1]}"
    few = b"\x82" + head[1:] + b"\xa7content\xdd" + (1_000_000).to_bytes(4, "big") + b"\x90" * 1_000_000
    for message in (packed, few):
        with pytest.raises(BadMessage, match="more than 1000000 maps and arrays"):
            msgpack.decode(message)
    with pytest.raises(BadMessage, match="more than 1000000 objects and arrays"):
        json.decode(text)
