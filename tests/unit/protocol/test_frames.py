"""The framing rules of RFC 6455, without a socket."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.protocol.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PING_FRAME,
    PONG,
    TEXT,
    Assembly,
    Close,
    Violation,
    binary_frame,
    close_frame,
    pong_frame,
    read_close,
    text_frame,
)


def an_assembly(max_size: int = 1_000, max_count: int = 10) -> Assembly:
    return Assembly(max_size, max_count)


@pytest.mark.parametrize(
    ("size", "header"),
    [
        (0, b"\x81\x00"),
        (125, b"\x81\x7d"),
        (126, b"\x81\x7e\x00\x7e"),
        (65_535, b"\x81\x7e\xff\xff"),
        (65_536, b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_the_length_takes_the_shortest_form(size: int, header: bytes) -> None:
    """RFC 6455 §5.2: 7 bits, 16 or 64, whichever is the least that holds it; text and binary alike."""
    payload = b"x" * size

    assert text_frame(payload) == header + payload
    assert binary_frame(payload) == b"\x82" + header[1:] + payload


def test_control_frames_are_short_and_whole() -> None:
    assert PING_FRAME == b"\x89\x00"
    assert pong_frame(b"hi") == b"\x8a\x02hi"
    assert close_frame(1000, "bye") == b"\x88\x05\x03\xe8bye"


def test_a_close_frame_without_a_code_is_empty() -> None:
    """1005 means that there was no code and never goes over the wire (RFC 6455 §7.4.1)."""
    assert close_frame(1005, "ignored") == b"\x88\x00"


def test_a_long_close_reason_is_cut_between_two_characters() -> None:
    """A control frame carries 125 bytes at most, and its reason must stay UTF-8 (RFC 6455 §5.5)."""
    frame = close_frame(1000, "x" + "é" * 100)

    assert len(frame) <= 2 + 125
    assert frame[4:].decode() == "x" + "é" * 61


def test_an_ascii_close_reason_fills_the_frame() -> None:
    assert close_frame(1000, "x" * 200)[4:] == b"x" * 123


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1011, 1012, 1014, 3000, 3999, 4000, 4999])
def test_codes_that_may_be_sent_are_read(code: int) -> None:
    assert read_close(close_frame(code, "why")[2:]) == Close(code, "why")


@pytest.mark.parametrize("code", [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535])
def test_codes_that_may_not_be_sent_are_violations(code: int) -> None:
    """RFC 6455 §7.4: reserved codes, and ranges that belong to nobody."""
    violation = read_close(code.to_bytes(2))

    assert isinstance(violation, Violation) and violation.code == 1002


def test_a_close_frame_may_be_empty_but_not_half() -> None:
    assert read_close(b"") == Close(1005, "")
    assert isinstance(read_close(b"\x03"), Violation)


def test_a_close_reason_is_utf8() -> None:
    violation = read_close(b"\x03\xe8\xff")

    assert isinstance(violation, Violation) and violation.code == 1007


def test_an_unfragmented_message_comes_out_at_once() -> None:
    assembly = an_assembly()

    assert assembly.add(TEXT, True, False, "né".encode()) == "né"
    assert assembly.add(BINARY, True, False, b"\xff") == b"\xff"
    assert not assembly.unfinished


@given(text=st.text(), cuts=st.lists(st.integers(0, 40), max_size=8))
def test_text_survives_any_cutting(text: str, cuts: list[int]) -> None:
    """Fragments may end in the middle of a character (RFC 6455 §5.6)."""
    payload = text.encode()
    edges = [0, *sorted(min(cut, len(payload)) for cut in cuts), len(payload)]
    pieces = [payload[start:end] for start, end in pairwise(edges)]
    assembly = Assembly(1_000_000, 100)
    results = [
        assembly.add(CONTINUATION if number else TEXT, number == len(pieces) - 1, False, piece)
        for number, piece in enumerate(pieces)
    ]

    assert results == [None] * (len(pieces) - 1) + [text]
    assert not assembly.unfinished


@given(payload=st.binary(), cut=st.integers(0, 100))
def test_binary_survives_any_cutting(payload: bytes, cut: int) -> None:
    assembly = Assembly(1_000_000, 100)

    assert assembly.add(BINARY, False, False, payload[:cut]) is None
    assert assembly.unfinished
    assert assembly.add(CONTINUATION, True, False, payload[cut:]) == payload


@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
def test_control_frames_may_come_between_fragments(opcode: int) -> None:
    """RFC 6455 §5.4: they are no part of the message."""
    assembly = an_assembly()
    assembly.add(TEXT, False, False, b"he")

    assert assembly.add(opcode, True, False, b"") is None
    assert assembly.add(CONTINUATION, True, False, b"llo") == "hello"


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_message_must_end_before_the_next_begins(opcode: int) -> None:
    assembly = an_assembly()
    assembly.add(TEXT, False, False, b"he")

    violation = assembly.add(opcode, True, False, b"new")
    assert isinstance(violation, Violation) and violation.code == 1002


@pytest.mark.parametrize("fin", [True, False])
def test_a_continuation_needs_something_to_continue(fin: bool) -> None:
    violation = an_assembly().add(CONTINUATION, fin, False, b"x")

    assert isinstance(violation, Violation) and violation.code == 1002


def test_a_finished_message_cannot_be_continued() -> None:
    assembly = an_assembly()
    assembly.add(TEXT, False, False, b"a")
    assembly.add(CONTINUATION, True, False, b"b")

    assert isinstance(assembly.add(CONTINUATION, True, False, b"c"), Violation)


@pytest.mark.parametrize("opcode", [CONTINUATION, TEXT, BINARY, PING, PONG, CLOSE])
def test_reserved_bits_are_refused_in_every_frame(opcode: int) -> None:
    """No extension is negotiated that could give them a meaning (RFC 6455 §5.2)."""
    violation = an_assembly().add(opcode, True, True, b"")

    assert isinstance(violation, Violation) and violation.code == 1002


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
def test_reserved_opcodes_are_refused(opcode: int) -> None:
    violation = an_assembly().add(opcode, True, False, b"")

    assert isinstance(violation, Violation) and violation.code == 1002


def test_control_frames_may_not_be_fragmented_or_long() -> None:
    assert isinstance(an_assembly().add(PING, False, False, b""), Violation)
    assert isinstance(an_assembly().add(PING, True, False, b"x" * 126), Violation)
    assert an_assembly().add(PING, True, False, b"x" * 125) is None


@pytest.mark.parametrize("text", [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"])
def test_text_must_be_utf8(text: bytes) -> None:
    """Also no overlong forms, surrogates, code points beyond U+10FFFF or half characters (RFC 3629)."""
    violation = an_assembly().add(TEXT, True, False, text)

    assert isinstance(violation, Violation) and violation.code == 1007


def test_bad_utf8_is_found_in_the_fragment_that_has_it() -> None:
    """The rest of a message that can never become good is not waited for (RFC 6455 §8.1)."""
    assembly = an_assembly()

    assert assembly.add(TEXT, False, False, b"ok \xf4") is None
    violation = assembly.add(CONTINUATION, False, False, b"\x90")
    assert isinstance(violation, Violation) and violation.code == 1007


def test_the_size_limit_is_of_the_whole_message() -> None:
    assembly = an_assembly(max_size=10)

    assert assembly.add(BINARY, False, False, b"12345") is None
    assert assembly.add(CONTINUATION, True, False, b"67890") == b"1234567890"
    assembly.add(BINARY, False, False, b"123456")
    violation = assembly.add(CONTINUATION, True, False, b"78901")
    assert isinstance(violation, Violation) and violation.code == 1009


def test_empty_fragments_count() -> None:
    """They cost work and no bytes, so only their number can bound them."""
    assembly = an_assembly(max_count=3)
    assembly.add(TEXT, False, False, b"")
    assembly.add(CONTINUATION, False, False, b"")

    assert assembly.add(CONTINUATION, False, False, b"") is None
    violation = assembly.add(CONTINUATION, True, False, b"")
    assert isinstance(violation, Violation) and violation.code == 1009


def test_the_limits_begin_anew_with_each_message() -> None:
    assembly = an_assembly(max_size=4, max_count=2)

    for _ in range(3):
        assembly.add(TEXT, False, False, b"ab")
        assert assembly.add(CONTINUATION, True, False, b"cd") == "abcd"
