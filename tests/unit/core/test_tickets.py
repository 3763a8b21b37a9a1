"""A ticket is good once, for half a minute, and the others stay good whoever asks for more."""

from __future__ import annotations

import pytest

from hubbub.core.tickets import LIFE, Tickets
from hubbub.errors import Reject, Unavailable
from hubbub.types import Identity

ALICE = Identity(user="alice", roles=("player",), expires=9_000_000)
NOW = 1_000_000


def test_a_ticket_gives_the_identity_back_once() -> None:
    tickets = Tickets()

    assert tickets.issue("t1", ALICE, NOW) == NOW + 30_000
    assert tickets.redeem("t1", NOW + LIFE - 1) is ALICE
    assert tickets.redeem("t1", NOW + LIFE - 1) is None
    assert len(tickets) == 0


def test_a_ticket_ends() -> None:
    tickets = Tickets()
    tickets.issue("t1", ALICE, NOW)

    assert tickets.redeem("t1", NOW + LIFE) is None
    assert len(tickets) == 0


def test_a_ticket_ends_though_the_clock_was_set_back() -> None:
    """Those behind it in the order of coming may end before it."""
    tickets = Tickets()
    tickets.issue("t1", ALICE, NOW + 60_000)
    tickets.issue("t2", ALICE, NOW)

    assert tickets.redeem("t2", NOW + LIFE) is None
    assert tickets.redeem("t1", NOW + LIFE) is ALICE


@pytest.mark.parametrize("guess", ["", "t", "t11", "T1", "t1 "])
def test_a_guess_is_none(guess: str) -> None:
    tickets = Tickets()
    tickets.issue("t1", ALICE, NOW)

    assert tickets.redeem(guess, NOW) is None
    assert tickets.redeem("t1", NOW) is ALICE


def test_there_is_a_bound_per_user_and_in_all() -> None:
    tickets = Tickets(capacity=5, per_user=3)
    for number in range(3):
        tickets.issue(f"a{number}", ALICE, NOW)
    with pytest.raises(Reject, match="rate_limited") as refused:
        tickets.issue("a3", ALICE, NOW)

    assert refused.value.retry_after == 30
    for number in range(2):
        tickets.issue(f"b{number}", Identity(user=f"bob{number}"), NOW)
    with pytest.raises(Unavailable):
        tickets.issue("c", Identity(user="carol"), NOW)

    assert tickets.redeem("a0", NOW) is ALICE
    tickets.issue("c", Identity(user="carol"), NOW)
    # Half a minute later all is as new.
    for number in range(3):
        tickets.issue(f"d{number}", ALICE, NOW + LIFE)

    assert len(tickets) == 3
