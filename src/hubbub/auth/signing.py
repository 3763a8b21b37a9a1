"""Tokens made here, with a secret of the configuration: for trying out, and for tests."""

from __future__ import annotations

from typing import Any

import jwt

from hubbub.auth.claims import Rules, read
from hubbub.auth.compact import LONGEST, BadToken
from hubbub.auth.keys import MAKE_ONE, Key, is_secret, keys_of
from hubbub.auth.options import AuthOptions
from hubbub.errors import ConfigError

__all__ = ["make"]


def make(
    options: AuthOptions,
    user: str,
    now: float,
    lifetime: float,
    *,
    roles: list[str] | None = None,
    rooms: object = None,
    issuer: str | None = None,
    audience: str | None = None,
) -> str:
    """A token for `user`, good for `lifetime` seconds from `now`, as the server with these options takes it.

    `issuer` and `audience` are those of the key, unless given. Raises `ConfigError` where there is no secret to sign
    with, or the server would refuse what the token says.
    """
    key = _key(options)
    issuer = key.issuer if issuer is None else issuer
    audience = key.audience if audience is None else audience
    claims: dict[str, Any] = {options.jwt_user_claim: user, "iat": int(now), "exp": int(now + lifetime)}
    claims |= {"iss": issuer} if issuer else {}
    claims |= {"aud": audience} if audience else {}
    claims |= {"roles": roles} if roles else {}
    claims |= {} if rooms is None else {"rooms": rooms}
    rules = Rules(user_claim=options.jwt_user_claim, leeway=options.jwt_leeway, longest=options.token_age)
    try:
        read(claims, rules, issuer, audience, now, "")
        made = jwt.encode(claims, key.secret(), key.algorithms[0], headers={"kid": key.kid} if key.kid else None)
        if len(made) > LONGEST:
            raise BadToken("it is too long")
    except BadToken as bad:
        raise ConfigError(f"such a token would be refused: {bad}") from None
    return made


def _key(options: AuthOptions) -> Key:
    keys = keys_of(options)
    found = next((key for key in keys if is_secret(key.algorithms)), None)
    if found is not None:
        return found
    if keys or options.jwt_keys:
        raise ConfigError("the keys of jwt_keys only check tokens: whoever has the private key makes them")
    raise ConfigError(f"there is no secret to sign with: {MAKE_ONE}, and set HUBBUB_JWT_SECRET to it")
