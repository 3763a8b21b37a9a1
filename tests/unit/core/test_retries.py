"""Outcomes are known for their time, and are kept in bounds."""

from __future__ import annotations

from hubbub.core.retries import Retries

A = ("all", "alice", "a")
B = ("all", "alice", "b")
C = ("all", "alice", "c")


def test_an_outcome_is_known_for_its_time() -> None:
    """To the moment: as old as the window is too old."""
    retries = Retries[str](window=10, size=5)
    retries.note(A, "kept", 100.0)

    assert retries.get(A, 109.9) == "kept"
    assert retries.get(A, 110.0) is None


def test_a_message_is_its_channel_its_user_and_its_id() -> None:
    retries = Retries[str](window=10, size=5)
    retries.note(A, "kept", 0)

    assert retries.get(("room:a", "alice", "a"), 1) is None
    assert retries.get(("all", "bob", "a"), 1) is None
    assert retries.get(B, 1) is None


def test_the_last_outcome_counts() -> None:
    """An id that is used again after its time names another message."""
    retries = Retries[str](window=10, size=5)
    retries.note(A, "first", 0)
    retries.note(B, "between", 5)
    retries.note(A, "second", 11)

    assert retries.get(A, 20) == "second"
    assert retries.get(B, 14) == "between"
    assert len(retries) == 2


def test_what_is_too_old_takes_no_memory_once_there_is_more() -> None:
    retries = Retries[str](window=10, size=5)
    retries.note(A, "kept", 0)
    retries.note(B, "kept", 1)
    retries.note(C, "kept", 10.5)

    assert len(retries) == 2


def test_past_its_size_the_oldest_are_forgotten() -> None:
    retries = Retries[str](window=10, size=2)
    for now, message in enumerate((A, B, A, C)):
        retries.note(message, "kept", now)

    assert [retries.get(message, 4) for message in (A, B, C)] == ["kept", None, "kept"]
    assert len(retries) == 2
