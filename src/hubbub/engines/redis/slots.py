"""A cluster's slots, and the partitions that channels are in: what has to be together in Redis lies in one slot."""

from __future__ import annotations

from binascii import crc_hqx
from itertools import count
from typing import Final

__all__ = ["PARTITIONS", "slot_of", "tags"]

_SLOTS: Final = 16_384

PARTITIONS: Final = 32
"""Partitions of a cluster, as many primaries as can share the work. Another number would put channels elsewhere."""


def slot_of(tag: str) -> int:
    """The slot of each key that has `{tag}` in it."""
    return crc_hqx(tag.encode(), 0) % _SLOTS


def tags() -> list[str]:
    """A tag for each partition: the smallest numbers whose slots lie one in each equal part of all slots.

    A primary usually has the slots from one number to another, so each has as many partitions as any other.
    """
    found: dict[int, str] = {}
    for number in count():
        tag = str(number)
        found.setdefault(slot_of(tag) * PARTITIONS // _SLOTS, tag)
        if len(found) == PARTITIONS:
            return [found[part] for part in range(PARTITIONS)]
    raise AssertionError
