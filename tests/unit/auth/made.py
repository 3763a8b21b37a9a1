"""A server's keys of every kind, and tokens that are good to it."""

from __future__ import annotations

from typing import Any

from hubbub.auth.options import AuthOptions, JwtKey
from support.tokens import ISSUER, SECRET, claims, private_key, public_pem, token

OTHER = "https://other.test"
OTHER_SECRET = "this secret is that of the other issuer, and of nobody else here"
AUDIENCE = "hub"

KEYS = (
    JwtKey(kid="h", algorithms=("HS256",), secret=SECRET),
    JwtKey(kid="h5", algorithms=("HS384", "HS512"), secret=SECRET),
    JwtKey(kid="r", algorithms=("RS256",), public_key=public_pem("RS256")),
    JwtKey(kid="p", algorithms=("PS256", "PS384", "PS512", "RS384", "RS512"), public_key=public_pem("RS256", "p")),
    JwtKey(kid="e", algorithms=("ES256",), public_key=public_pem("ES256")),
    JwtKey(kid="e3", algorithms=("ES384",), public_key=public_pem("ES384")),
    JwtKey(kid="e5", algorithms=("ES512",), public_key=public_pem("ES512")),
    JwtKey(kid="d", algorithms=("EdDSA",), public_key=public_pem("EdDSA")),
    # The same name, another issuer, another key.
    JwtKey(kid="h", algorithms=("HS256",), secret=OTHER_SECRET, issuer=OTHER, audience="other"),
)

OPTIONS = AuthOptions(jwt_keys=KEYS, jwt_issuer=ISSUER, jwt_audience=AUDIENCE)


def good(**more: Any) -> dict[str, Any]:
    return claims(**{"iss": ISSUER, "aud": AUDIENCE, **more})


def said(**more: Any) -> str:
    """A token with these claims and a good signature."""
    return token(good(**more), kid="h")


def headed(**more: Any) -> str:
    """A token with this in its header and a good signature."""
    return token(good(), **{"kid": "h", **more})


def elliptic() -> str:
    return token(good(), algorithm="ES256", key=private_key("ES256"), kid="e")


def edwards() -> str:
    return token(good(), algorithm="EdDSA", key=private_key("EdDSA"), kid="d")
