"""Whatever is received becomes text that no terminal obeys."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.cli.wording import NEXT_LINE, colour, content_text, message_line, plain, visible, visible_json
from hubbub.client import Message


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, with ümlauts and 😀", "plain, with ümlauts and 😀"),
        ("a family: 👨‍👩‍👧", "a family: 👨‍👩‍👧"),
        ("a\ttab", "a\ttab"),
        ("\x1b[2J", r"\x1b[2J"),
        ("one\ntwo\rthree", r"one\ntwo\x0dthree"),
        ("\x07\x08\x7f\x9b", r"\x07\x08\x7f\x9b"),
        ("\u202egnp.exe\u2066", r"\u202egnp.exe\u2066"),
        ("next\u2028line", r"next\u2028line"),
        ("\ud800", r"\ud800"),
    ],
)
def test_what_could_steer_a_terminal_is_written_out(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text())
def test_no_control_character_is_left(text: str) -> None:
    left = {letter for letter in visible(text) if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp")}

    assert left <= {"\t"}


@given(st.recursive(st.none() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_written_out_json_means_the_same(value: object) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=1)
    shown = visible_json(text)

    assert json.loads(shown) == value
    assert visible(shown) == shown


def test_contents_of_every_kind_are_shown() -> None:
    shown = [content_text(content) for content in ("hi", b"\x00\x01", None, 7, {"a": [True]})]

    assert shown == ["hi", "<2 bytes>", "", "7", '{"a":[true]}']


def line(**fields: object) -> str:
    message = Message(**{"type": "chat", "from_": "bob", "content": "hi", **fields})  # type: ignore[arg-type]
    return plain(message_line(message, room="lobby", me="alice", timed=False))


def test_a_line_says_where_a_message_was_said() -> None:
    """The room of the reader needs no saying."""
    assert line(room="lobby") == "bob: hi"
    assert line(room="dev") == "#dev bob: hi"
    assert line() == "to everyone bob: hi"
    assert line(to="alice") == "bob to you: hi"
    assert line(to="carol") == "bob to carol: hi"
    assert line(room="lobby", from_="") == "the hub: hi"
    assert line(room="lobby", type="order", content={"a": 1}) == 'bob [order]: {"a":1}'


def test_a_second_line_cannot_pretend_to_be_somebody_elses() -> None:
    assert line(room="lobby", content="one\nalice: two") == f"bob: one{NEXT_LINE}alice: two"


def test_names_are_as_safe_as_contents() -> None:
    assert line(room="de\x1bv", from_="bo\x1bb", type="or\x1bder") == r"#de\x1bv bo\x1bb [or\x1bder]: hi"
    assert line(to="ca\x1brol") == r"bob to ca\x1brol: hi"


def test_a_name_keeps_its_colour() -> None:
    assert colour("alice") == colour("alice")
    assert len({colour(f"user-{number}") for number in range(100)}) == 6
