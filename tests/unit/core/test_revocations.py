"""What is revoked stays out until it would have ended by itself, and not a moment less."""

from __future__ import annotations

from hubbub.core.revocations import Revocation, Revocations
from hubbub.types import Identity

NOW = 1_000_000


def of_user(at: int = NOW, until: int = NOW + 5_000, user: str = "alice") -> Revocation:
    return Revocation(at=at, until=until, user=user)


def test_a_users_tokens_are_revoked_up_to_a_moment() -> None:
    """One that was made in the same millisecond counts as older, and one that does not say when as well."""
    revocations = Revocations()
    revocations.add(of_user(), NOW)

    assert revocations.concern(Identity(user="alice", issued=NOW))
    assert revocations.concern(Identity(user="alice"))
    assert not revocations.concern(Identity(user="alice", issued=NOW + 1))
    assert not revocations.concern(Identity(user="bob", issued=1))


def test_a_single_token_is_revoked_by_its_name() -> None:
    revocations = Revocations()
    revocations.add(Revocation(at=NOW, until=NOW + 5_000, token_id="t1"), NOW)

    assert revocations.concern(Identity(user="alice", token_id="t1", issued=NOW + 9))
    assert not revocations.concern(Identity(user="alice", token_id="t2"))
    assert not revocations.concern(Identity(user="alice"))


def test_a_later_revocation_counts_and_an_older_one_takes_nothing_back() -> None:
    """They may be heard in any order: of what another node says, and of what is read at the start."""
    for order in ((NOW, NOW + 100), (NOW + 100, NOW)):
        revocations = Revocations()
        for at in order:
            revocations.add(of_user(at, at + 5_000), NOW)

        assert revocations.concern(Identity(user="alice", issued=NOW + 50))
        assert len(revocations) == 1


def test_of_two_each_the_later_counts() -> None:
    """A newer one that ends sooner takes nothing back."""
    revocations = Revocations()
    revocations.add(of_user(NOW, NOW + 9_000), NOW)
    revocations.add(of_user(NOW + 100, NOW + 200), NOW)
    revocations.sweep(NOW + 8_999)

    assert revocations.concern(Identity(user="alice", issued=NOW + 100))


def test_it_knows_what_concerns_nobody_else() -> None:
    """A token by its name, a user up to a moment: whoever is concerned by more than that is still there."""
    revocations = Revocations()
    revocations.add(of_user(), NOW)
    revocations.add(Revocation(at=NOW, until=NOW + 5_000, token_id="t1"), NOW)

    assert revocations.knows(of_user(NOW - 1)) and revocations.knows(of_user(until=NOW + 9_000))
    assert revocations.knows(Revocation(at=NOW + 1, until=NOW + 9_000, token_id="t1"))
    assert not revocations.knows(of_user(NOW + 1)) and not revocations.knows(of_user(user="bob"))
    assert not revocations.knows(Revocation(at=NOW, until=NOW + 5_000, token_id="t2"))


def test_what_has_ended_is_forgotten() -> None:
    revocations = Revocations()
    revocations.add(of_user(), NOW)
    revocations.add(of_user(user="bob", until=NOW + 9_000), NOW)
    revocations.add(of_user(user="carol", until=NOW), NOW)

    assert len(revocations) == 2
    revocations.sweep(NOW + 4_999)

    assert len(revocations) == 2
    revocations.sweep(NOW + 5_000)

    assert not revocations.concern(Identity(user="alice", issued=1))
    assert revocations.concern(Identity(user="bob", issued=1))


def test_a_full_memory_forgets_nothing_and_says_so() -> None:
    revocations = Revocations(capacity=2)

    assert revocations.add(of_user(user="u1"), NOW) and revocations.add(of_user(user="u2"), NOW)
    assert not revocations.add(of_user(user="u3"), NOW)
    # What it knows it may learn anew.
    assert revocations.add(of_user(NOW + 1, user="u1"), NOW)
    assert revocations.concern(Identity(user="u1", issued=1)) and revocations.concern(Identity(user="u2", issued=1))
    assert len(revocations) == 2
