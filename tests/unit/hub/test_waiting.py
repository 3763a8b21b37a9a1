"""What waits of one session: in order, and bounded in number and in bytes."""

from __future__ import annotations

from hubbub.hub.waiting import Waiting
from hubbub.protocol.envelope import Envelope


def test_they_are_taken_in_order_and_one_that_came_in_parts_before_all() -> None:
    waiting = Waiting()
    waiting.add("a", 1.0)
    waiting.add(b"b", 2.0)
    waiting.add_first(Envelope("chat"), 3.0)

    assert len(waiting) == 3
    assert waiting.take() == (Envelope("chat"), 3.0)
    assert [waiting.take(), waiting.take()] == [("a", 1.0), (b"b", 2.0)]
    assert (len(waiting), waiting.size) == (0, 0)


def test_it_is_full_by_number_or_by_bytes() -> None:
    """A character may take four bytes, whatever it took on the wire."""
    waiting = Waiting()
    for _ in range(3):
        waiting.add("a", 0.0)
    assert not waiting.is_full(4, 65_536)
    assert waiting.is_full(3, 65_536)
    waiting.add("\U0001f600" * 65_536, 0.0)

    assert waiting.is_full(100, 65_536)
