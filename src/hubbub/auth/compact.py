"""A token as text: taken apart strictly, by one parser, before anything in it is believed (RFC 7515 §3.1, §7.1).

Whatever is not exactly the form is refused, because each leniency is a second spelling of one token, or a place
where two parsers see two different things.
"""

from __future__ import annotations

import base64
import json
import re
from typing import Any, Final, NamedTuple, NoReturn

__all__ = ["LONGEST", "BadToken", "Signed", "take_apart"]

LONGEST: Final = 8_192
"""Characters of a token; one with more is not looked at."""

_form: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")

# As in the protocol's own messages. Brackets in a string are none, so strings are found as a whole; one that does not
# end goes to the end, or looking for it from each of its quotes would take the square of the time.
_DEEPEST: Final = 64
_brackets: Final = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)

# What the last character may be, by the length modulo 4: the bits that stand for nothing are zero. Modulo 1 there is
# no such text.
_ends: Final = ("", "", "AQgw", "AEIMQUYcgkosw048")

# Extensions that must be understood, and keys that a token brings with it or says where to fetch.
_not_here: Final = frozenset({"crit", "b64", "jwk", "jku", "x5c", "x5u"})

# Others are made by the same issuers with the same keys for something else, such as `logout+jwt` (RFC 8725 §3.11).
_types: Final = frozenset({"jwt", "at+jwt"})


class BadToken(Exception):
    """A token is not good: the reason, for the operator, and nothing of the token."""


class Signed(NamedTuple):
    """A token taken apart; nothing in it is proved yet."""

    algorithm: str
    # None where the header names no key.
    kid: str | None
    claims: dict[str, Any]
    # What the signature is over: the one spelling that all signatures of this token share.
    text: str
    signature: bytes


def take_apart(token: str) -> Signed:
    """Take a token apart; raises `BadToken` where it has not the form, or a header that is not for us."""
    if len(token) > LONGEST:
        raise BadToken("it is too long")
    parts = _form.fullmatch(token)
    if parts is None:
        raise BadToken("it is not three parts in base64url")
    header, claims = _object(parts[1], "header"), _object(parts[2], "payload")
    algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if not isinstance(algorithm, str):
        raise BadToken("its `alg` is no text")
    if not _not_here.isdisjoint(header):
        raise BadToken("its header has an extension, or brings a key")
    if "kid" in header and not (isinstance(kid, str) and 1 <= len(kid) <= 256):
        raise BadToken("its `kid` is no text, or none that a key could have")
    if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in _types:
        raise BadToken("its `typ` says that it is for something else")
    return Signed(algorithm, kid, claims, token[: parts.end(2)], _bytes(parts[3]))


def _bytes(part: str) -> bytes:
    left = len(part) % 4
    if left and part[-1] not in _ends[left]:
        raise BadToken("a part of it is not base64url")
    return base64.urlsafe_b64decode(part + "==")


def _object(part: str, name: str) -> dict[str, Any]:
    try:
        text = _bytes(part).decode()
        # How deep Python reads differs from version to version.
        value = None if _is_deep(text) else _json.decode(text)
    except (ValueError, RecursionError):
        raise BadToken(f"its {name} is not JSON, or has a name twice") from None
    if not isinstance(value, dict):
        raise BadToken(f"its {name} is no object")
    return value


def _is_deep(text: str) -> bool:
    """Whether more than `_DEEPEST` objects and arrays are open at once."""
    if text.count("[") + text.count("{") <= _DEEPEST:
        return False
    depth = 0
    for found in _brackets.finditer(text):
        if found[0] in "[{":
            depth += 1
            if depth > _DEEPEST:
                return True
        elif found[0] in "]}":
            depth -= 1
    return False


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Of two members with one name the issuer may have meant the other (RFC 7519 §4).
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def _no_number(_: str) -> NoReturn:
    raise ValueError


_json: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_number)
