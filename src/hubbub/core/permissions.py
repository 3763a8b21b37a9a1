"""Who may do what: the grants of a user's roles and of the token itself, by pattern.

There are grants and nothing else, so their order does not matter and no rule undoes another: what is granted by one
of them may be done. Where nobody has written any, everything may be done; where somebody has, only what is granted.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from hubbub.core.rooms import matches
from hubbub.errors import ConfigError, Reject
from hubbub.protocol.codec import CONTROL
from hubbub.protocol.codes import ErrorCode
from hubbub.types import ROOM_ACTIONS, Action, Identity

__all__ = ["EVERYBODY", "Permissions", "Policies", "RoleOptions", "denied", "role_options"]

EVERYBODY: Final = "*"
"""The role that everybody has."""

_WORDS: Final = {
    Action.JOIN: "join {}",
    Action.PUBLISH: "publish in {}",
    Action.HISTORY: "read the history of {}",
    Action.PRESENCE: "see who is in {}",
    Action.SEND: "write to {}, or see whether that user is online",
    Action.BROADCAST: "write to everyone",
}

# Answers that are remembered for one set of grants; beyond, all are forgotten, and found anew when they are needed.
# Roles are shared by many users; what a token grants is one session's, and there are many of those.
_MOST_REMEMBERED: Final = 10_000
_MOST_OF_ONE: Final = 64

# Sets of roles that are remembered; the same.
_MOST_ROLE_SETS: Final = 1_000


class RoleOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the users with a role may do."""

    rooms: Annotated[
        dict[str, tuple[Action, ...]],
        Meta(description="what they may do in rooms, by pattern: join, publish, history, presence"),
    ] = {}
    users: Annotated[
        tuple[str, ...], Meta(description="patterns of the users whom they may write to, and see online")
    ] = ()
    broadcast: Annotated[bool, Meta(description="whether they may write to everyone")] = False


_NAMES = [field.name for field in msgspec.structs.fields(RoleOptions)]
_ACTIONS = ", ".join(ROOM_ACTIONS)


def role_options(role: str, values: Any) -> RoleOptions:
    """The options of one role, checked; raises `ConfigError` that says what is wrong and what was meant."""
    if not role or len(role) > 128 or CONTROL.search(role):
        raise ConfigError(f"a role is 1 to 128 characters, none of them a control character: {role[:128]!r}")
    if not isinstance(values, Mapping):
        raise ConfigError(f"the role {role!r} is a table with {', '.join(_NAMES)}")
    for name in values:
        if name not in _NAMES:
            close = difflib.get_close_matches(str(name), _NAMES, n=1)
            meant = f"did you mean {close[0]}?" if close else f"there are {', '.join(_NAMES)}"
            raise ConfigError(f"the role {role!r} has no option {name!r}: {meant}")
    rooms = values.get("rooms", {})
    for pattern, actions in rooms.items() if isinstance(rooms, Mapping) else ():
        for action in actions if isinstance(actions, Sequence) and not isinstance(actions, str) else ():
            if action not in ROOM_ACTIONS:
                close = difflib.get_close_matches(str(action), ROOM_ACTIONS, n=1)
                meant = f"did you mean {close[0]}?" if close else f"there are {_ACTIONS}"
                raise ConfigError(f"the role {role!r} grants {action!r} in {pattern!r}, which is no action: {meant}")
    try:
        return msgspec.convert(values, RoleOptions)
    except msgspec.ValidationError as error:
        said = str(error)
        raise ConfigError(f"the role {role!r} cannot be so: {said[0].lower()}{said[1:]}") from None


class Permissions:
    """What one set of grants allows."""

    __slots__ = ("_broadcast", "_most", "_remembered", "_rooms", "_users")

    def __init__(
        self, rooms: Sequence[Mapping[str, Sequence[Action]]], users: Sequence[str], broadcast: bool, most: int
    ) -> None:
        """`most` is how many answers it remembers."""
        self._most = most
        merged: dict[str, set[str]] = {}
        for grants in rooms:
            for pattern, actions in grants.items():
                merged.setdefault(pattern, set()).update(actions)
        self._rooms = {pattern: frozenset(actions) for pattern, actions in merged.items()}
        self._users = tuple(dict.fromkeys(users))
        self._broadcast = broadcast
        self._remembered: dict[tuple[Action, str], bool] = {}

    def allow(self, action: Action, name: str) -> bool:
        """Whether `action` is granted for the room or user `name`."""
        key = (action, name)
        found = self._remembered.get(key)
        if found is None:
            # Names come from clients: what is remembered must not grow with what they think of.
            if len(self._remembered) >= self._most:
                self._remembered.clear()
            found = self._remembered[key] = self._find(action, name)
        return found

    def _find(self, action: Action, name: str) -> bool:
        if action == Action.BROADCAST:
            return self._broadcast
        if action == Action.SEND:
            return any(matches(pattern, name) for pattern in self._users)
        return any(action in actions and matches(pattern, name) for pattern, actions in self._rooms.items())


class Policies:
    """The policies of a configuration, by role."""

    def __init__(self, roles: Mapping[str, RoleOptions]) -> None:
        self._roles = dict(roles)
        self._remembered: dict[tuple[str, ...], Permissions] = {}

    def of(self, identity: Identity) -> Permissions | None:
        """What goes with `identity`; None where nobody has said anything about what may be done.

        A token that grants something in rooms says with it that nothing else is granted.
        """
        if identity.rooms is not None:
            return self._made(identity.roles, identity.rooms, _MOST_OF_ONE)
        if not self._roles:
            return None
        # Most users have the roles of many others: one object for all of them. Roles come from tokens, which only
        # the operator's own issuer makes; they are bounded all the same.
        found = self._remembered.get(identity.roles)
        if found is None:
            if len(self._remembered) >= _MOST_ROLE_SETS:
                self._remembered.clear()
            found = self._remembered[identity.roles] = self._made(identity.roles, {}, _MOST_REMEMBERED)
        return found

    def _made(self, roles: tuple[str, ...], rooms: Mapping[str, Sequence[Action]], most: int) -> Permissions:
        held = [self._roles[role] for role in (EVERYBODY, *roles) if role in self._roles]
        return Permissions(
            [rooms, *(role.rooms for role in held)],
            [pattern for role in held for pattern in role.users],
            any(role.broadcast for role in held),
            most,
        )

    def why_not(self, identity: Identity, action: Action, name: str) -> str:
        """For a developer: which rule has denied the action."""
        what = _WORDS[action].format(repr(name))
        known = [role for role in identity.roles if role in self._roles]
        unknown = [role for role in identity.roles if role not in self._roles]
        looked = [f"the role {role!r}" for role in (EVERYBODY, *known) if role in self._roles]
        if identity.rooms is not None:
            looked.insert(0, "the token's `rooms`")
        said = (
            f"{_listed(looked)} grant{'s' if len(looked) == 1 else ''} no" if looked else "there is no role that grants"
        )
        without = f"; no policy knows the role {', '.join(map(repr, unknown))}" if unknown else ""
        return f"You may not {what}: {said} {_grant(action, name)}{without}."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def _grant(action: Action, name: str) -> str:
    if action == Action.BROADCAST:
        return "`broadcast = true`"
    return (
        f"`users` that match {name!r}" if action == Action.SEND else f"{str(action)!r} in `rooms` that match {name!r}"
    )


def denied(message: str = "") -> Reject:
    """The refusal of an action that is not granted."""
    return Reject(ErrorCode.FORBIDDEN, message or "You may not do this.")
