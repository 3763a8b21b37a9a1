"""Which tokens let somebody in: who may have signed them, with what, and what must be said in them."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["AuthOptions", "JwtKey"]


class JwtKey(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One key that tokens may be signed with, or the address where an issuer publishes its keys."""

    # Explicit: an algorithm is never taken from a token.
    algorithms: Annotated[
        tuple[str, ...],
        Meta(min_length=1, description="what it signs with: HS256, RS256, PS256, ES256 (each also 384, 512) or EdDSA"),
    ]
    kid: Annotated[str, Meta(max_length=256, description="its name in the header of tokens; without: of any name")] = ""
    secret: Annotated[str, Meta(description="for HS: what both sides know, as text")] = ""
    public_key: Annotated[str, Meta(description="for all others: the public key, as PEM text")] = ""
    file: Annotated[str, Meta(description="the file that holds the one or the other")] = ""
    jwks_url: Annotated[
        str, Meta(description="where the issuer publishes its keys, instead of one key; wants `issuer`")
    ] = ""
    issuer: Annotated[str, Meta(description="`iss` of its tokens; otherwise `jwt_issuer`")] = ""
    audience: Annotated[str, Meta(description="`aud` of its tokens; otherwise `jwt_audience`")] = ""

    def __repr__(self) -> str:
        return f"JwtKey(kid={self.kid!r}, algorithms={self.algorithms!r}, issuer={self.issuer!r}, …)"


class AuthOptions(Struct, frozen=True, kw_only=True):
    """How tokens prove who somebody is; without a key no token does."""

    jwt_secret: Annotated[
        str,
        Meta(
            description="secret of at least 32 bytes that HS256 tokens are signed with; as a variable it is in no "
            "list of processes",
            extra={"secret": True},
        ),
    ] = ""
    jwt_keys: Annotated[
        tuple[JwtKey, ...],
        Meta(description="keys that tokens may be signed with", extra={"secret": True}),
    ] = ()
    jwt_issuer: Annotated[str, Meta(description="`iss` that tokens must have; empty: any")] = ""
    jwt_audience: Annotated[str, Meta(description="`aud` that tokens must have; empty: they must have none")] = ""
    jwt_user_claim: Annotated[str, Meta(min_length=1, description="claim that holds the user's id")] = "sub"
    jwt_leeway: Annotated[
        float, Meta(ge=0, le=300, description="seconds by which the clock of whoever makes tokens may be wrong")
    ] = 5.0
    # The hub's, too: for so long it remembers who is revoked.
    token_age: Annotated[
        float, Meta(gt=0, description="seconds that a token may be good for at most; a revocation is kept so long")
    ] = 2_592_000.0

    def __repr__(self) -> str:
        return f"AuthOptions(jwt_secret={'…' if self.jwt_secret else ''!r}, jwt_keys={self.jwt_keys!r}, …)"
