"""The framing rules of RFC 6455, without a socket."""

from __future__ import annotations

import base64
import random
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.protocol import frames
from hubbub.protocol.deflate import CompressionOptions, compress
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
    compressing,
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


@given(pieces=st.lists(st.binary(max_size=9), min_size=1, max_size=9))
def test_what_is_collected_is_counted(pieces: list[bytes]) -> None:
    """In bytes as they came, and nothing once the message has ended."""
    assembly = an_assembly()
    for number, piece in enumerate(pieces):
        assembly.add(CONTINUATION if number else BINARY, False, False, piece)

        assert assembly.size == sum(map(len, pieces[: number + 1]))
    assert assembly.add(CONTINUATION, True, False, b"") == b"".join(pieces)
    assert assembly.size == 0 and not assembly.unfinished


class TestCompressed:
    """Messages whose first frame has RSV1, where that was agreed on (RFC 7692 §6)."""

    @given(text=st.text(), cuts=st.lists(st.integers(0, 60), max_size=8))
    def test_any_cutting(self, text: str, cuts: list[int]) -> None:
        payload = compress(text.encode(), 15, 4)
        edges = [0, *sorted(min(cut, len(payload)) for cut in cuts), len(payload)]
        pieces = [payload[start:end] for start, end in pairwise(edges)]
        assembly = Assembly(1_000_000, 100)
        results = [
            assembly.add(CONTINUATION if number else TEXT, number == len(pieces) - 1, False, piece, number == 0)
            for number, piece in enumerate(pieces)
        ]

        assert results == [None] * (len(pieces) - 1) + [text]
        assert not assembly.unfinished

    def test_the_bit_is_of_one_message(self) -> None:
        """The next one says for itself whether it is compressed."""
        assembly = an_assembly()

        assert assembly.add(BINARY, True, False, compress(b"a" * 50, 15, 4), True) == b"a" * 50
        assert assembly.add(BINARY, True, False, b"plain") == b"plain"
        assert assembly.add(TEXT, False, False, b"pla") is None
        assert assembly.add(CONTINUATION, True, False, b"in") == "plain"

    @pytest.mark.parametrize("opcode", [CONTINUATION, PING, PONG, CLOSE])
    def test_only_the_first_frame_of_a_message_has_the_bit(self, opcode: int) -> None:
        """§6.1: not its other fragments, and never a control frame."""
        assembly = an_assembly()
        assembly.add(TEXT, False, False, b"", True)
        violation = assembly.add(opcode, True, False, b"", True)

        assert isinstance(violation, Violation) and violation.code == 1002

    def test_control_frames_between_its_fragments_are_as_ever(self) -> None:
        payload = compress(b"hello", 15, 4)
        assembly = an_assembly()
        assembly.add(TEXT, False, False, payload[:3], True)

        assert assembly.add(PING, True, False, b"x") is None
        assert assembly.add(CONTINUATION, True, False, payload[3:]) == "hello"

    def test_the_limit_is_on_what_comes_and_on_what_comes_out(self) -> None:
        """To the byte."""
        for size, fits in ((1_000, True), (1_001, False)):
            result = an_assembly(max_size=1_000).add(BINARY, True, False, compress(b"x" * size, 15, 4), True)

            assert (result == b"x" * size) is fits
            assert fits or (isinstance(result, Violation) and result.code == 1009)
        violation = an_assembly(max_size=5).add(BINARY, True, False, b"\x00" * 6, True)
        assert isinstance(violation, Violation) and violation.code == 1009

    @pytest.mark.parametrize("opcode", [TEXT, BINARY])
    def test_what_is_no_deflate(self, opcode: int) -> None:
        """The frames are right; what they carry is not what they say (RFC 6455 §7.4.1)."""
        violation = an_assembly().add(opcode, True, False, b"hello", True)

        assert isinstance(violation, Violation) and violation.code == 1007

    def test_text_must_be_utf8_when_it_is_inflated(self) -> None:
        payload = compress(b"abc \xff" * 10, 15, 4)
        violation = an_assembly().add(TEXT, True, False, payload, True)

        assert isinstance(violation, Violation) and violation.code == 1007
        assert an_assembly().add(BINARY, True, False, payload, True) == b"abc \xff" * 10

    def test_the_compressed_bytes_of_a_text_need_not_be_utf8(self) -> None:
        """They are looked at when the message is whole."""
        assembly = an_assembly()

        assert assembly.add(TEXT, False, False, b"\xff", True) is None
        assert assembly.add(CONTINUATION, False, False, b"\xff") is None


class TestCompressing:
    """Whole messages for those who agreed on compression: one frame, with RSV1 where it is compressed."""

    TEXT = b'{"type":"chat","content":"' + b"all the same " * 40 + b'"}'

    @pytest.mark.parametrize(("binary", "first"), [(False, 0xC1), (True, 0xC2)])
    def test_a_long_message_is_compressed(self, binary: bool, first: int) -> None:
        frame = compressing(binary, 15, CompressionOptions())(self.TEXT)
        payload = frame[2 if frame[1] < 126 else 4 :]

        assert frame[0] == first
        assert len(frame) < len(self.TEXT) / 4
        assert zlib.decompress(payload + b"\x00\x00\xff\xff\x01\x00\x00\xff\xff", -15) == self.TEXT

    def test_from_the_threshold_on(self) -> None:
        frame = compressing(False, 15, CompressionOptions(compression_threshold=300))

        assert frame(b"x" * 299) == text_frame(b"x" * 299)
        assert frame(b"x" * 300)[0] == 0xC1

    def test_not_where_it_becomes_longer_by_it(self) -> None:
        noise = bytes(number * number * 7919 % 251 for number in range(997)) + zlib.compress(self.TEXT)
        frame = compressing(True, 15, CompressionOptions(compression_threshold=0))

        assert frame(zlib.compress(noise)) == binary_frame(zlib.compress(noise))
        assert frame(b"") == binary_frame(b"")

    def test_not_where_it_would_hold_up_everybody_else(self) -> None:
        """The largest message of a client's and its envelope is the most."""
        frame = compressing(False, 15, CompressionOptions())

        assert frame(b"x" * 69_632)[0] == 0xC1
        assert frame(b"x" * 69_633) == text_frame(b"x" * 69_633)

    def test_not_what_looks_dense(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A look at its middle is enough, where it is long; a text around it does not hide it."""
        noise = random.Random(1).randbytes(40_000)
        picture = b'{"name":"picture"}' + noise
        sizes = []

        def spy(payload: bytes, window: int, level: int) -> bytes:
            sizes.append(len(payload))
            return payload

        monkeypatch.setattr(frames, "compress", spy)
        frame = compressing(True, 15, CompressionOptions())

        assert frame(picture) == binary_frame(picture)
        assert sizes == []
        frame(base64.b64encode(noise))
        frame(noise[:10_000])
        assert sizes == [len(base64.b64encode(noise)), 10_000]
