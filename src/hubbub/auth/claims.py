"""What a token says, once its signature is proved: whose it is, for how long, and what it grants."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, TypeGuard

import msgspec
from msgspec import Struct

from hubbub.auth.compact import BadToken
from hubbub.types import ROOM_ACTIONS, Action, Identity

__all__ = ["Rules", "is_name", "read"]

# As the protocol has it (protocol.md §1.2); surrogates are no characters that could be sent.
_unfit: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

# Roles, and patterns of rooms, of one token.
_MOST: Final = 100

# The end of the year 9999: what is beyond it is no date, and may not fit into anything.
_LAST: Final = 253_402_300_799


class Rules(Struct, frozen=True, kw_only=True):
    """What is asked of the claims of a token."""

    user_claim: str
    # Seconds.
    leeway: float
    longest: float


def is_name(value: object) -> TypeGuard[str]:
    """Whether `value` can name a user, a role or rooms."""
    return isinstance(value, str) and 1 <= len(value) <= 128 and not _unfit.search(value)


def read(claims: Mapping[str, Any], rules: Rules, issuer: str, audience: str, now: float, token_id: str) -> Identity:
    """Who the token is for; raises `BadToken` where it is not good at `now`, not for us, or not understood.

    `issuer` and `audience` are what it must have, empty for none; `now` is in seconds since the Unix epoch.
    """
    if issuer and claims.get("iss") != issuer:
        raise BadToken("it is of another issuer")
    _check_audience(claims, audience)
    issued, expires = _check_times(claims, rules, now)
    user = claims.get(rules.user_claim)
    if not is_name(user):
        raise BadToken(f"its `{rules.user_claim}` is no user's id: 1 to 128 characters, no control characters")
    return Identity(
        user=user, roles=_roles(claims), rooms=_rooms(claims), issued=issued, expires=expires, token_id=token_id
    )


def _check_audience(claims: Mapping[str, Any], audience: str) -> None:
    if "aud" not in claims:
        if audience:
            raise BadToken("it has no `aud`")
        return
    named = claims["aud"]
    found = [named] if isinstance(named, str) else named
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise BadToken("its `aud` is neither text nor a list of texts")
    # Where we have no name no token is for us that is for somebody (RFC 7519 §4.1.3).
    if audience not in found or not audience:
        raise BadToken("its `aud` is not jwt_audience: it is for somebody else")


def _check_times(claims: Mapping[str, Any], rules: Rules, now: float) -> tuple[int | None, int]:
    """When it was issued, and when it ends, in milliseconds since the Unix epoch."""
    expires, begins, issued = (_date(claims, name) for name in ("exp", "nbf", "iat"))
    if expires is None:
        raise BadToken("it has no `exp`: it would be good for ever")
    if expires + rules.leeway <= now:
        raise BadToken("it has expired")
    if expires > now + rules.longest + rules.leeway:
        raise BadToken("it is good for longer than token_age allows")
    if begins is not None and begins > now + rules.leeway:
        raise BadToken("it is not good yet")
    # Made later than the revocation that it would then slip under.
    if issued is not None and issued > now + rules.leeway:
        raise BadToken("it is from the future")
    # Who was let in by the leeway has the rest of it.
    ends = expires if expires > now else expires + rules.leeway
    return (None if issued is None else int(issued * 1000), int(ends * 1000))


def _date(claims: Mapping[str, Any], name: str) -> float | None:
    if name not in claims:
        return None
    value = claims[name]
    # A bool is an int to Python.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadToken(f"its `{name}` is no number")
    # Nor is NaN, which compares with nothing.
    if not 0 <= value <= _LAST:
        raise BadToken(f"its `{name}` is no date")
    return value


def _roles(claims: Mapping[str, Any]) -> tuple[str, ...]:
    listed = claims.get("roles", [])
    if not isinstance(listed, list):
        raise BadToken("its `roles` is no list")
    found = [claims["role"], *listed] if "role" in claims else listed
    if len(found) > _MOST or not all(is_name(role) for role in found):
        raise BadToken(f"its roles are no names, or more than {_MOST}")
    return tuple(dict.fromkeys(found))


def _rooms(claims: Mapping[str, Any]) -> dict[str, tuple[Action, ...]] | None:
    if "rooms" not in claims:
        return None
    try:
        found = msgspec.convert(claims["rooms"], dict[str, tuple[Action, ...]])
    except (msgspec.ValidationError, UnicodeEncodeError):
        # The latter for half a surrogate pair, which JSON can write and nobody can mean.
        raise BadToken(f"its `rooms` is no object of lists of {', '.join(ROOM_ACTIONS)}") from None
    if not all(action in ROOM_ACTIONS for actions in found.values() for action in actions):
        raise BadToken(f"its `rooms` grants what is no action in a room: there are {', '.join(ROOM_ACTIONS)}")
    if len(found) > _MOST or not all(is_name(pattern) for pattern in found):
        raise BadToken(f"the patterns of its `rooms` are no names, or more than {_MOST}")
    return {pattern: tuple(dict.fromkeys(actions)) for pattern, actions in found.items()}
