"""Numbers of any size, and what an application gives: JSON that everybody can read, or an error at once."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from hubbub.protocol.content import encode_json, json_of, packed_of, read_json

LONG = "9" * 5_000


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e999", Decimal("1E+999")),
        ("-2.5e400", Decimal("-2.5E+400")),
        (LONG, Decimal(LONG)),
        ("-" + LONG, Decimal("-" + LONG)),
        ("1" * 4_100, int("1" * 4_100)),
        (f'["{LONG}", {LONG}, 1.5]', [LONG, Decimal(LONG), 1.5]),
        (f'{{"a\\"{LONG}": [-{LONG}]}}', {f'a"{LONG}': [Decimal("-" + LONG)]}),
    ],
    ids=lambda value: str(value)[:12],
)
def test_a_number_that_python_does_not_hold_is_read_whole(text: str, value: object) -> None:
    """And only what is a number: a string of digits stays one."""
    assert read_json(text) == value
    assert read_json(text.encode()) == value


@pytest.mark.parametrize("text", ["NaN", "[1,]", '"\\ud800"', "", "01", "'a'"])
def test_what_is_no_json_is_not_read(text: str) -> None:
    """Also where the standard library would read it."""
    with pytest.raises(ValueError, match=r"\S"):
        read_json(text)


@pytest.mark.parametrize(
    "text",
    [
        "1e999",
        f"[{LONG},1.5,-{LONG}]",
        '{"a":[18446744073709551616,{"b":-9223372036854775809}],"c":18446744073709551615}',
    ],
    ids=lambda text: text[:12],
)
def test_a_number_that_messagepack_does_not_hold_comes_back_digit_for_digit(text: str) -> None:
    packed = packed_of(Raw(text.encode()), False)

    assert bytes(json_of(packed)[0]).decode() == text


@pytest.mark.parametrize("value", [Decimal("1E+999"), Decimal("1.10"), [Decimal("-0.5")]])
def test_a_decimal_is_sent_as_the_number_that_it_is(value: Any) -> None:
    assert Decimal(bytes(encode_json(value)).decode().strip("[]")) == (value[0] if isinstance(value, list) else value)


@pytest.mark.parametrize(
    "value",
    [math.nan, [math.inf], {"a": -math.inf}, Decimal("NaN"), [Decimal("Infinity")], Raw(b'"\xff"'), [Raw(b"{")]],
    ids=["NaN", "infinity", "within", "Decimal NaN", "Decimal infinity", "Raw without UTF-8", "Raw that is no JSON"],
)
def test_what_nobody_could_read_is_refused_where_it_is_given(value: object) -> None:
    """Not when it stands in the log already, and costs everybody who listens the connection."""
    with pytest.raises((ValueError, msgspec.MsgspecError)):
        encode_json(value)
