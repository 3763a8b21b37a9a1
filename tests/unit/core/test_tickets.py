"""The others get tickets whoever asks for more."""

from __future__ import annotations

import pytest

from hubbub.core.tickets import LIFE, Tickets
from hubbub.errors import Reject, Unavailable

NOW = 1_000_000


def test_there_is_a_bound_per_user_and_in_all() -> None:
    tickets = Tickets(capacity=5, per_user=3)
    for number in range(3):
        tickets.give(f"a{number}", "alice", NOW)
    with pytest.raises(Reject, match="rate_limited") as refused:
        tickets.give("a3", "alice", NOW)

    assert refused.value.retry_after == 30
    for number in range(2):
        tickets.give(f"b{number}", f"bob{number}", NOW)
    with pytest.raises(Unavailable):
        tickets.give("c", "carol", NOW)


def test_what_was_used_is_out_no_more() -> None:
    """Whoever uses tickets may have any number, one after the other; what another node gave is no concern of ours."""
    tickets = Tickets(capacity=5, per_user=1)
    for number in range(10):
        tickets.give(f"a{number}", "alice", NOW)
        tickets.use(f"a{number}")
        tickets.use(f"a{number}")
        tickets.use("another node's")

    assert len(tickets) == 0


def test_half_a_minute_later_all_is_as_new() -> None:
    tickets = Tickets(capacity=3, per_user=3)
    for number in range(3):
        tickets.give(f"a{number}", "alice", NOW + number)
    for number in range(3):
        tickets.give(f"b{number}", "alice", NOW + LIFE + number)

    assert len(tickets) == 3
