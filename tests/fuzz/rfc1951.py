"""A second reading of RFC 1951, and of what RFC 7692 §7.2 says about it: bit by bit, and to be read beside them.

It shares nothing with zlib, which the package uses.
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["NotDeflate", "TooLong", "inflate"]

# §3.2.5: the shortest length or distance of each code, and how many bits say how much more it is.
_LENGTHS = [*range(3, 11), *range(11, 19, 2), *range(19, 35, 4), *range(35, 67, 8), *range(67, 131, 16)]
_LENGTHS += [*range(131, 258, 32), 258]
_LENGTH_BITS = [0] * 8 + [bits for bits in range(1, 6) for _ in range(4)] + [0]
_DISTANCES = [1, 2, 3, 4, *(1 + (2 + half << bits) for bits in range(1, 14) for half in range(2))]
_DISTANCE_BITS = [0, 0, 0, 0, *(bits for bits in range(1, 14) for _ in range(2))]

# §3.2.7: in which order the lengths of the codes for lengths stand.
_ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15]

Code = dict[tuple[int, int], int]


class NotDeflate(Exception):
    """It breaks a rule, or ends in the middle."""


class TooLong(Exception):
    """There is more of it than was allowed."""


class _Bits:
    """A stream of bits, the lowest of each byte first (§3.1.1)."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def bit(self) -> int:
        if self.at >= 8 * len(self.data):
            raise NotDeflate
        found = self.data[self.at >> 3] >> (self.at & 7) & 1
        self.at += 1
        return found

    def number(self, bits: int) -> int:
        return sum(self.bit() << place for place in range(bits))

    def symbol(self, code: Code) -> int:
        """The next symbol of a Huffman code, whose bits come the highest first."""
        value = 0
        for length in range(1, 16):
            value = value << 1 | self.bit()
            if (length, value) in code:
                return code[length, value]
        raise NotDeflate

    def align(self) -> None:
        self.at = (self.at + 7) & ~7

    @property
    def is_over(self) -> bool:
        return self.at == 8 * len(self.data)


def _code(lengths: list[int], *, may_be_single: bool = True) -> Code:
    """The code with these lengths (§3.2.2); not one that says too much, and one that says too little only if short."""
    code: Code = {}
    value = 0
    for length in range(1, 16):
        for symbol, wanted in enumerate(lengths):
            if wanted == length:
                if value >> length:
                    raise NotDeflate
                code[length, value] = symbol
                value += 1
        value <<= 1
    # A code of one symbol, or of none, has bits to spare: zlib lets pass what its own encoder makes.
    if value != 1 << 16 and not (may_be_single and sum(lengths) <= 1):
        raise NotDeflate
    return code


_FIXED = _code([8] * 144 + [9] * 112 + [7] * 24 + [8] * 8), _code([5] * 32)


def _codes(bits: _Bits) -> tuple[Code, Code]:
    """Read the two codes of a block that brings its own (§3.2.7)."""
    literals, distances, count = bits.number(5) + 257, bits.number(5) + 1, bits.number(4) + 4
    if literals > 286 or distances > 30:
        raise NotDeflate
    first = [0] * 19
    for place in _ORDER[:count]:
        first[place] = bits.number(3)
    code = _code(first, may_be_single=False)
    lengths: list[int] = []
    while len(lengths) < literals + distances:
        symbol = bits.symbol(code)
        if symbol < 16:
            lengths.append(symbol)
        elif symbol == 16:
            if not lengths:
                raise NotDeflate
            lengths += lengths[-1:] * (3 + bits.number(2))
        else:
            lengths += [0] * (3 + bits.number(3) if symbol == 17 else 11 + bits.number(7))
    if len(lengths) != literals + distances or lengths[256] == 0:
        raise NotDeflate
    return _code(lengths[:literals]), _code(lengths[literals:])


def _block(bits: _Bits, out: bytearray, kind: int) -> Iterator[None]:
    """Add what a block stands for to `out`, a step at a time."""
    if kind == 0:
        bits.align()
        size = bits.number(16)
        if bits.number(16) != size ^ 0xFFFF:
            raise NotDeflate
        for _ in range(size):
            out.append(bits.number(8))
            yield
        return
    if kind == 3:
        raise NotDeflate
    literals, distances = _FIXED if kind == 1 else _codes(bits)
    while (symbol := bits.symbol(literals)) != 256:
        if symbol < 256:
            out.append(symbol)
            yield
            continue
        if symbol > 285:
            raise NotDeflate
        length = _LENGTHS[symbol - 257] + bits.number(_LENGTH_BITS[symbol - 257])
        symbol = bits.symbol(distances)
        if symbol > 29:
            raise NotDeflate
        distance = _DISTANCES[symbol] + bits.number(_DISTANCE_BITS[symbol])
        if distance > len(out):
            raise NotDeflate
        for _ in range(length):
            out.append(out[-distance])
            yield


def inflate(data: bytes, limit: int, most_ends: int) -> bytes:
    """The message of a compressed payload (RFC 7692 §7.2.2); it may have so many last blocks, and is one at least.

    Raises `NotDeflate`, or `TooLong` when more than `limit` bytes have come, whatever follows.
    """
    bits = _Bits(data + b"\x00\x00\xff\xff")
    out = bytearray()
    ends = 0
    while not bits.is_over:
        last, kind = bits.bit(), bits.number(2)
        for _ in _block(bits, out, kind):
            if len(out) > limit:
                raise TooLong
        if last:
            ends += 1
            # §7.2.1: then to the end of the byte.
            bits.align()
    if ends >= most_ends:
        raise NotDeflate
    return bytes(out)
