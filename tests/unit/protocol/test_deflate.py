"""permessage-deflate: what is agreed on, what is sent, and how little hostile data can do."""

from __future__ import annotations

import contextlib
import random
import time
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.protocol.deflate import CompressionOptions, Deflate, Offer, agree, compress, inflate, read_offers

BOTH = "server_no_context_takeover; client_no_context_takeover"


def agreed(header: str) -> Deflate | None:
    offers = read_offers(header)
    assert offers is not None
    return agree(offers)


def deflated(data: bytes, *, level: int = 6, window: int = 15, before: bytes = b"") -> bytes:
    """As a client of this extension compresses, by zlib alone; what was said `before` may be referred to."""
    stream = zlib.compressobj(level, zlib.DEFLATED, -window, zdict=before)
    return (stream.compress(data) + stream.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\x00\x00\xff\xff")


def last(data: bytes) -> bytes:
    """Blocks of which the last one says so."""
    stream = zlib.compressobj(6, zlib.DEFLATED, -15)
    return stream.compress(data) + stream.flush()


def ended(data: bytes) -> bytes:
    """A whole message by a compressor that cannot but say so (RFC 7692 §7.2.3.4)."""
    return last(data) + b"\x00"


class TestAgreeing:
    """RFC 7692 §7.1: the first offer that can be taken, or none."""

    @pytest.mark.parametrize(
        ("header", "window"),
        [
            pytest.param("permessage-deflate", 15, id="Firefox"),
            pytest.param("permessage-deflate; client_max_window_bits", 15, id="Chromium, Safari"),
            pytest.param("permessage-deflate; client_max_window_bits=15", 15, id="websockets"),
            pytest.param("permessage-deflate; client_max_window_bits=8", 15, id="the client's least"),
            pytest.param(f"permessage-deflate; {BOTH}", 15, id="what we answer"),
            pytest.param("permessage-deflate; server_max_window_bits=9", 9, id="9 bits"),
            pytest.param("permessage-deflate; server_max_window_bits=15", 15, id="15 bits"),
            pytest.param('permessage-deflate; server_max_window_bits="10"', 9, id="in quotes"),
            pytest.param('permessage-deflate; server_max_window_bits="1\\0"', 9, id="escaped"),
            pytest.param(
                "permessage-deflate ;server_max_window_bits = 12\t; client_no_context_takeover", 12, id="spaces"
            ),
            pytest.param("x-webkit-deflate-frame, permessage-deflate", 15, id="another extension before it"),
            pytest.param("a; b=c; b=c; d, permessage-deflate", 15, id="with parameters"),
            pytest.param("permessage-deflate; server_max_window_bits=8, permessage-deflate", 15, id="the second"),
            pytest.param(
                "permessage-deflate; server_max_window_bits=9, permessage-deflate; server_max_window_bits=12",
                9,
                id="the first of two good ones",
            ),
            pytest.param("permessage-deflate; future, permessage-deflate;server_max_window_bits=14", 12, id="fallback"),
            pytest.param(", ,permessage-deflate,,", 15, id="empty elements"),
        ],
    )
    def test_an_offer_that_is_taken(self, header: str, window: int) -> None:
        deflate = agreed(header)

        assert deflate is not None
        assert deflate.window == window

    @pytest.mark.parametrize(
        "header",
        [
            "",
            ",",
            "permessage-bzip2",
            "Permessage-Deflate",
            "permessage-deflate; future",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; client_no_context_takeover=true",
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            "permessage-deflate; server_max_window_bits=9; server_max_window_bits=9",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=8",
            "permessage-deflate; server_max_window_bits=7",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=09",
            "permessage-deflate; server_max_window_bits=1e1",
            "permessage-deflate; server_max_window_bits=-9",
            "permessage-deflate; client_max_window_bits=7",
            "permessage-deflate; client_max_window_bits=16",
            "permessage-deflate; client_max_window_bits=015",
            "permessage-deflate; client_max_window_bits; client_max_window_bits",
            "permessage-deflate; SERVER_MAX_WINDOW_BITS=10",
        ],
    )
    def test_an_offer_that_is_declined(self, header: str) -> None:
        """With a parameter that is unknown, twice there, or has a value that it cannot have (§7.1)."""
        assert agreed(header) is None

    @pytest.mark.parametrize(
        "header",
        [
            "permessage-deflate;",
            "permessage-deflate; ,",
            "permessage-deflate; =1",
            "permessage-deflate; a=",
            'permessage-deflate; a="',
            'permessage-deflate; a="b c"',
            'permessage-deflate; a=""',
            'permessage-deflate; a="b"c',
            "permessage-deflate a",
            "permessage deflate",
            "; a",
            "(permessage-deflate)",
            "permessage-deflate, ;",
            '"permessage-deflate"',
        ],
    )
    def test_what_is_no_list_of_extensions(self, header: str) -> None:
        """RFC 6455 §9.1: the connection fails."""
        assert read_offers(header) is None

    def test_offers_are_read_in_order(self) -> None:
        assert read_offers('a; b; c=d, e; f="g"') == [
            Offer("a", (("b", None), ("c", "d"))),
            Offer("e", (("f", "g"),)),
        ]

    @given(header=st.text(st.sampled_from('a1-;=,"\\ \t'), max_size=60))
    def test_nothing_is_too_odd_to_be_read(self, header: str) -> None:
        offers = read_offers(header)

        assert offers is None or agree(offers) is None

    @pytest.mark.parametrize("piece", ["a;", "a=", 'a;b="', "\\", '\\"', " ;", ", ", "a;b=c;", ";b="])
    def test_the_largest_head_is_read_in_no_time(self, piece: str) -> None:
        """No pattern looks at the same place again and again."""
        header = "permessage-deflate; a=" + piece * (16_000 // len(piece))
        started = time.process_time()
        read_offers(header)

        assert time.process_time() - started < 0.2

    def test_the_answer_takes_the_context_away_from_both(self) -> None:
        """§7.1.1.1, §7.1.1.2: a server may, also where the client has not asked for it."""
        assert Deflate().response == f"permessage-deflate; {BOTH}"
        assert Deflate(11, True).response == f"permessage-deflate; {BOTH}; server_max_window_bits=11"

    def test_a_window_that_was_asked_for_is_answered(self) -> None:
        """§7.1.2.1, also where it is the one that we would have taken."""
        assert agreed("permessage-deflate; server_max_window_bits=15") == Deflate(15, True)
        assert agreed("permessage-deflate; client_max_window_bits=10") == Deflate(15, False)


class TestCompressing:
    """RFC 7692 §7.2.1."""

    @given(data=st.binary(max_size=5_000) | st.text(max_size=2_000).map(str.encode), window=st.integers(9, 15))
    def test_zlib_reads_it_with_the_window_that_was_agreed_on(self, data: bytes, window: int) -> None:
        """And needs no more of it."""
        stream = zlib.decompressobj(-window)

        assert stream.decompress(compress(data, window, 4) + b"\x00\x00\xff\xff") == data
        assert not stream.eof

    @pytest.mark.parametrize("window", range(9, 16))
    @pytest.mark.parametrize("size", [0, 1, 255, 512, 513, 1_024, 4_096, 65_536, 262_144])
    def test_no_message_refers_back_too_far(self, window: int, size: int) -> None:
        """What repeats itself beyond the window is not found again."""
        data = (bytes(range(256)) + b"x" * 300 + bytes(reversed(range(256)))) * (size // 812 + 1)
        data = data[:size]

        assert zlib.decompress(compress(data, window, 9) + b"\x00\x00\xff\xff\x01\x00\x00\xff\xff", -window) == data

    def test_each_message_stands_alone(self) -> None:
        """No context is taken over: the same message is the same bytes."""
        assert compress(b"hello " * 100, 15, 4) == compress(b"hello " * 100, 15, 4)

    @given(data=st.binary(max_size=3_000), level=st.integers(1, 9), window=st.integers(9, 15))
    def test_what_we_compress_we_inflate(self, data: bytes, level: int, window: int) -> None:
        assert inflate(compress(data, window, level), 3_000) == data

    @pytest.mark.alone
    @pytest.mark.parametrize("window", [9, 12, 15])
    @pytest.mark.parametrize("letters", [2, 4, 16, 64, 256])
    def test_nothing_is_slow_to_compress(self, letters: int, window: int) -> None:
        """At the default level: much that is nearly alike takes a tenth of a second at the highest."""
        chance = random.Random(1)
        data = bytes(chance.randrange(letters) for _ in range(65_536))
        taken = []
        for _ in range(10):
            started = time.thread_time()
            compress(data, window, CompressionOptions().compression_level)
            taken.append(time.thread_time() - started)

        # It is 1.6 ms at most; with a table that does not fit the window, 2.5 to 4.7 ms.
        assert min(taken) < 0.0022


class TestInflating:
    """RFC 7692 §7.2.2, and what is no message."""

    @given(data=st.binary(max_size=3_000), level=st.integers(0, 9), window=st.integers(9, 15))
    def test_what_zlib_compresses(self, data: bytes, level: int, window: int) -> None:
        assert inflate(deflated(data, level=level, window=window), 3_000) == data

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            # The examples of RFC 7692 §7.2.3.
            pytest.param("f248cdc9c90700", b"Hello", id="one block"),
            pytest.param("000500faff48656c6c6f00", b"Hello", id="a block that is stored"),
            pytest.param("f348cdc9c9070000", b"Hello", id="the last block before the end"),
            pytest.param("f248050000 00ffffcac9c90700", b"Hello", id="two blocks"),
            pytest.param("00", b"", id="empty"),
            pytest.param("", b"", id="nothing at all"),
            pytest.param("0200", b"", id="empty, with the codes that are fixed"),
        ],
    )
    def test_the_forms_that_a_message_may_have(self, data: str, message: bytes) -> None:
        assert inflate(bytes.fromhex(data), 100) == message

    @given(parts=st.lists(st.binary(max_size=200), min_size=1, max_size=20))
    def test_several_last_blocks(self, parts: list[bytes]) -> None:
        """§7.2.1: each may be the last, and more may follow."""
        data = b"".join(map(last, parts[:-1])) + deflated(parts[-1])

        assert inflate(data, 5_000) == b"".join(parts)

    def test_behind_a_last_block_one_may_refer_to_what_was_before(self) -> None:
        """Nothing in the RFC ends the window of a message there."""
        said = b"what has been said once need not be said again"
        again = deflated(said, before=said)

        assert len(again) < 10
        assert inflate(last(said) + again, 1_000) == said * 2

    @pytest.mark.parametrize("limit", [0, 1, 100, 65_536])
    @pytest.mark.parametrize("form", [deflated, ended])
    def test_the_limit_is_kept_to_the_byte(self, limit: int, form: Callable[[bytes], bytes]) -> None:
        assert inflate(form(b"x" * limit), limit) == b"x" * limit
        assert inflate(form(b"x" * (limit + 1)), limit) is None

    @pytest.mark.parametrize("parts", [1, 50], ids=["at once", "in parts"])
    def test_a_bomb_does_not_go_off(self, parts: int) -> None:
        """Of 64 MiB no more is made than the limit allows."""
        bomb = last(b"\0" * (67_108_864 // parts)) * parts + b"\x00"
        tracemalloc.start()
        try:
            found = inflate(bomb, 65_536)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

        assert found is None
        assert most < 4 * 65_536 + len(bomb)

    @pytest.mark.parametrize(
        "data",
        [
            pytest.param(b"\xff\xff\xff", id="a block of no type"),
            pytest.param(b"\x06", id="the same"),
            pytest.param(b"\x00\x05\x00\x00\x00Hello", id="a stored block whose length is wrong"),
            pytest.param(b"\x00\x05\x00\xfa\xffHel", id="a stored block that is cut off"),
            pytest.param(deflated(b"hello " * 100)[:-3], id="cut off"),
            pytest.param(deflated(b"hello " * 100) + b"\x00\x00\xff\xff", id="with the end that is not sent"),
            pytest.param(deflated(bytes(range(256)))[:-1], id="the last byte is missing"),
            pytest.param(deflated(b"hello, hello", before=b"hello, hello"), id="a reference to before the beginning"),
            pytest.param(last(b"x"), id="a last block and nothing behind it"),
            pytest.param(last(b"") * 100 + b"\x00", id="a hundred last blocks"),
            pytest.param(b"hello", id="text"),
            pytest.param(zlib.compress(b"hello"), id="zlib's own format"),
        ],
    )
    def test_what_is_no_deflate(self, data: bytes) -> None:
        with pytest.raises(ValueError, match="not compressed as agreed"):
            inflate(data, 1_000)

    @given(data=st.binary(max_size=300))
    def test_garbage_is_refused_or_bounded(self, data: bytes) -> None:
        found = None
        with contextlib.suppress(ValueError):
            found = inflate(data, 1_000)

        assert found is None or len(found) <= 1_000

    @given(data=st.binary(min_size=1, max_size=300), cut=st.integers(1, 300))
    def test_a_cut_in_a_block_with_codes_is_never_taken_for_the_end(self, data: bytes, cut: int) -> None:
        """Of a message that zlib made in one block, no part is a message; for one that is stored, see `_END`."""
        whole = deflated(data)
        part = whole[: -min(cut, len(whole))]
        if part:
            with pytest.raises(ValueError, match="not compressed as agreed"):
                inflate(part, 1_000)
