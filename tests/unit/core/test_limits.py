"""Connections are counted exactly, and a place that was left is free again."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.core.limits import ConnectionCounts, ConnectionLimits

NAMES = ["alice", "bob", "carol"]


def test_there_is_room_for_exactly_as_many_as_the_limit() -> None:
    counts = ConnectionCounts(ConnectionLimits(connections=2))
    before = []
    for _ in range(3):
        before.append(counts.full())
        counts.add("192.0.2.1")

    assert before == [False, False, True]


def test_each_address_has_its_own_limit() -> None:
    counts = ConnectionCounts(ConnectionLimits(connections_per_ip=1))
    counts.add("192.0.2.1")

    assert counts.ip_full("192.0.2.1")
    assert not counts.ip_full("192.0.2.2")


def test_each_user_has_its_own_limit() -> None:
    counts = ConnectionCounts(ConnectionLimits(connections_per_user=1))
    counts.add_user("alice")

    assert counts.user_full("alice")
    assert not counts.user_full("bob")


def test_each_session_that_is_being_opened_counts_once() -> None:
    counts = ConnectionCounts(ConnectionLimits(connections_opening=2))
    for session in ("s1", "s1", "s2"):
        counts.opens(session)
    full = counts.opening_full()
    for _ in range(2):
        counts.opened("s1")

    assert full and not counts.opening_full()


def test_zero_is_no_limit() -> None:
    counts = ConnectionCounts(
        ConnectionLimits(connections=0, connections_opening=0, connections_per_user=0, connections_per_ip=0)
    )
    for number in range(1000):
        counts.opens(str(number))
        counts.add("192.0.2.1")
        counts.add_user("alice")

    assert not counts.full()
    assert not counts.opening_full()
    assert not counts.ip_full("192.0.2.1")
    assert not counts.user_full("alice")
    assert counts.total == 1000


def test_a_place_that_was_left_is_free() -> None:
    counts = ConnectionCounts(ConnectionLimits(connections=1, connections_per_user=1, connections_per_ip=1))
    counts.add("192.0.2.1")
    counts.add_user("alice")
    counts.remove_user("alice")
    counts.remove("192.0.2.1")

    assert not counts.full()
    assert not counts.ip_full("192.0.2.1")
    assert not counts.user_full("alice")


@pytest.mark.parametrize("kind", ["user", "ip"])
def test_who_has_gone_takes_no_memory(kind: str) -> None:
    """Names come from outside: a million visitors, one after the other, must leave nothing behind."""
    counts = ConnectionCounts(ConnectionLimits(connections_per_user=5, connections_per_ip=5))
    for number in range(100):
        counts.add(f"192.0.2.{number}")
        counts.add_user(f"user-{number}")
        counts.remove_user(f"user-{number}")
        counts.remove(f"192.0.2.{number}")
    kept = counts._users if kind == "user" else counts._ips

    assert len(kept) == 0


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(NAMES))))
def test_counting_agrees_with_a_plain_count(steps: list[tuple[bool, str]]) -> None:
    """Whoever comes and goes in whichever order: full is when the limit is reached, and not otherwise."""
    counts = ConnectionCounts(ConnectionLimits(connections=4, connections_per_user=2, connections_per_ip=2))
    model: Counter[str] = Counter()
    for comes, name in steps:
        if comes:
            model[name] += 1
            counts.add(name)
            counts.add_user(name)
        elif model[name]:
            model[name] -= 1
            counts.remove(name)
            counts.remove_user(name)

        assert counts.total == model.total()
        assert counts.full() is (model.total() >= 4)
        assert [counts.user_full(name) for name in NAMES] == [model[name] >= 2 for name in NAMES]
        assert [counts.ip_full(name) for name in NAMES] == [model[name] >= 2 for name in NAMES]
