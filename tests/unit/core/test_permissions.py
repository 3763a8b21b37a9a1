"""Grants and nothing else: what one of them gives may be done, and where there are any, nothing else may."""

from __future__ import annotations

from typing import Any

import pytest

from hubbub.core.permissions import Permissions, Policies, RoleOptions, role_options
from hubbub.errors import ConfigError
from hubbub.types import ROOM_ACTIONS, Action, Identity

PLAYER = RoleOptions(rooms={"game:*": (Action.JOIN, Action.PUBLISH)}, users=("support", "friend:*"))
MODERATOR = RoleOptions(rooms={"*": ROOM_ACTIONS}, users=("*",), broadcast=True)
EVERYBODY = RoleOptions(rooms={"lobby": (Action.JOIN,)})


def permissions(
    *roles: str, rooms: dict[str, tuple[Action, ...]] | None = None, **policies: RoleOptions
) -> Permissions:
    found = Policies({name.replace("everybody", "*"): options for name, options in policies.items()}).of(
        Identity(user="alice", roles=roles, rooms=rooms)
    )

    assert found is not None
    return found


def test_without_policies_there_is_nothing_to_ask() -> None:
    """Whoever is in may do everything, as long as nobody has said anything else."""
    assert Policies({}).of(Identity(user="alice", roles=("admin",))) is None


def test_a_role_grants_what_it_says_and_no_more() -> None:
    player = permissions("player", player=PLAYER)

    assert player.allow(Action.JOIN, "game:1") and player.allow(Action.PUBLISH, "game:1")
    assert not player.allow(Action.HISTORY, "game:1")
    assert not player.allow(Action.JOIN, "games:1")
    assert player.allow(Action.SEND, "support") and player.allow(Action.SEND, "friend:bob")
    assert not player.allow(Action.SEND, "bob")
    assert not player.allow(Action.BROADCAST, "")


def test_roles_add_up_with_the_one_that_everybody_has() -> None:
    both = permissions("player", everybody=EVERYBODY, player=PLAYER, moderator=MODERATOR)

    assert both.allow(Action.JOIN, "lobby") and both.allow(Action.JOIN, "game:1")
    assert not both.allow(Action.PUBLISH, "lobby")
    assert permissions("player", "moderator", player=PLAYER, moderator=MODERATOR).allow(Action.BROADCAST, "")


def test_who_has_no_known_role_may_nothing() -> None:
    """Deny by default: a misspelt role, or one of another service, grants nothing."""
    for roles in ((), ("Player",), ("player ",), ("admin",), ("",)):
        nobody = permissions(*roles, player=PLAYER)

        assert not any(nobody.allow(action, "game:1") for action in ROOM_ACTIONS)
        assert not nobody.allow(Action.SEND, "support") and not nobody.allow(Action.BROADCAST, "")


def test_the_token_itself_grants_and_by_that_denies_the_rest() -> None:
    """A token that speaks of rooms is a policy, though the configuration has none."""
    some = permissions(rooms={"game:*": (Action.JOIN,)})
    none = permissions(rooms={})

    assert some.allow(Action.JOIN, "game:1") and not some.allow(Action.PUBLISH, "game:1")
    assert not some.allow(Action.SEND, "bob") and not some.allow(Action.BROADCAST, "")
    assert not none.allow(Action.JOIN, "game:1")


def test_the_token_and_the_roles_add_up() -> None:
    both = permissions("player", rooms={"lobby": (Action.HISTORY,)}, everybody=EVERYBODY, player=PLAYER)

    assert both.allow(Action.HISTORY, "lobby") and both.allow(Action.JOIN, "lobby")
    assert both.allow(Action.SEND, "support")


def test_a_role_that_is_called_like_everybodys_gives_nothing_more() -> None:
    assert not permissions("*", everybody=EVERYBODY).allow(Action.PUBLISH, "lobby")


def test_what_is_remembered_stays_bounded() -> None:
    """Names come from clients."""
    player = permissions("player", player=PLAYER)
    for number in range(25_000):
        assert player.allow(Action.JOIN, f"game:{number}")

    assert len(player._remembered) <= 10_000
    policies = Policies({"player": PLAYER})
    for number in range(2_500):
        policies.of(Identity(user="alice", roles=(f"role-{number}",)))

    assert len(policies._remembered) <= 1_000


@pytest.mark.parametrize(
    ("identity", "action", "name", "said"),
    [
        (Identity(user="a"), Action.JOIN, "game:1", "You may not join 'game:1': the role '*' grants no 'join'"),
        (
            Identity(user="a", roles=("player",)),
            Action.SEND,
            "bob",
            "the role '*' and the role 'player' grant no `users`",
        ),
        (Identity(user="a", roles=("x",)), Action.BROADCAST, "", "no `broadcast = true`; no policy knows the role 'x'"),
        (Identity(user="a", rooms={}), Action.HISTORY, "r", "the token's `rooms` and the role '*' grant no 'history'"),
    ],
)
def test_a_developer_hears_which_rule_denied(identity: Identity, action: Action, name: str, said: str) -> None:
    assert said in Policies({"*": EVERYBODY, "player": PLAYER}).why_not(identity, action, name)


@pytest.mark.parametrize(
    ("role", "values", "said"),
    [
        ("player", {"room": {}}, "has no option 'room': did you mean rooms?"),
        ("player", {"rooms": {"lobby": ["publsh"]}}, "'publsh' in 'lobby', which is no action: did you mean publish?"),
        ("player", {"rooms": {"lobby": "join"}}, "the role 'player' cannot be so: expected `array`"),
        ("player", {"rooms": ["lobby"]}, "the role 'player' cannot be so: expected `object`"),
        ("player", {"users": "bob"}, "expected `array`"),
        ("player", {"broadcast": "yes"}, "expected `bool`"),
        ("player", [], "is a table with rooms, users, broadcast"),
        ("", {}, "a role is 1 to 128 characters"),
        ("a\nb", {}, "none of them a control character"),
    ],
)
def test_a_wrong_policy_is_refused_in_a_sentence(role: str, values: Any, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        role_options(role, values)

    assert said in str(refused.value)
