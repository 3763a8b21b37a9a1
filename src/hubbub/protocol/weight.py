"""How much a content would be in memory, told from its bytes: small objects are a hundred times what they are sent as.

A message of 64 KiB cannot be much; one in chunks can be sixteen million empty maps, and a gigabyte when it is decoded.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["LARGE", "MOST_CONTAINERS", "containers_of"]

MOST_CONTAINERS: Final = 1_000_000
"""How many objects and arrays a large message may hold (protocol.md §7)."""

LARGE: Final = MOST_CONTAINERS
"""Only contents with more bytes are looked at: each container has at least one."""

# What of MessagePack is no container and has a fixed size: small numbers, nil and booleans, numbers, short strings. So
# many at once, for no other thread goes on meanwhile; and nothing is remembered of what was passed.
_SMALL: Final = re.compile(
    rb"(?s:[\x00-\x7f\xc0\xc2\xc3\xe0-\xff]|\xa0|[\xcc\xd0].|[\xcd\xd1].{2}|[\xca\xce\xd2].{4}|[\xcb\xcf\xd3].{8}|"
    + b"|".join(b"%b.{%d}" % (re.escape(bytes((0xA0 + size,))), size) for size in range(1, 32))
    + rb"){1,4096}+"
)

# What says how long it is: by its first byte, how many bytes that takes, and how many follow besides.
_SIZED: Final = {
    0xD9: (1, 0),
    0xDA: (2, 0),
    0xDB: (4, 0),
    0xC4: (1, 0),
    0xC5: (2, 0),
    0xC6: (4, 0),
    0xC7: (1, 1),
    0xC8: (2, 1),
    0xC9: (4, 1),
}

# Arrays and maps with more than 15 members: how many bytes say how many.
_CONTAINERS: Final = {0xDC: 2, 0xDE: 2, 0xDD: 4, 0xDF: 4}


def containers_of(packed: bytes, most: int = MOST_CONTAINERS) -> int:
    """How many maps and arrays well-formed MessagePack holds; it is not counted further than `most` + 1."""
    found = at = 0
    pass_small, end = _SMALL.match, len(packed)
    while at < end and found <= most:
        small = pass_small(packed, at)
        if small is not None:
            at = small.end()
            continue
        kind = packed[at]
        at += 1
        if kind in _SIZED:
            width, besides = _SIZED[kind]
            at += width + besides + int.from_bytes(packed[at : at + width])
        elif 0xD4 <= kind <= 0xD8:
            # An extension of 1, 2, 4, 8 or 16 bytes, behind its type.
            at += 1 + (1 << (kind - 0xD4))
        else:
            found += 1
            at += _CONTAINERS.get(kind, 0)
    return found
