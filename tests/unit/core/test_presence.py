"""Last-seen times are right while they are kept, and are kept in bounds."""

from __future__ import annotations

from hubbub.core.presence import LastSeen


def test_it_tells_when_a_user_went() -> None:
    seen = LastSeen()
    seen.note("alice", 1000)

    assert seen.get("alice", 2000) == 1000


def test_it_knows_nothing_of_strangers() -> None:
    assert LastSeen().get("mallory", 1000) is None


def test_the_last_time_counts() -> None:
    seen = LastSeen()
    seen.note("alice", 1000)
    seen.note("alice", 3000)

    assert seen.get("alice", 4000) == 3000
    assert len(seen) == 1


def test_what_is_too_old_is_forgotten() -> None:
    """To the millisecond: as old as the age is too old."""
    seen = LastSeen(age=500)
    seen.note("alice", 1000)

    assert seen.get("alice", 1499) == 1000
    assert seen.get("alice", 1500) is None


def test_the_longest_gone_is_forgotten_first() -> None:
    seen = LastSeen(size=2)
    for now, user in enumerate(["alice", "bob", "alice", "carol"]):
        seen.note(user, now)

    assert [seen.get(user, 4) for user in ("alice", "bob", "carol")] == [2, None, 3]
    assert len(seen) == 2
