"""Tokens that are not good, each for one reason, by name: what others have fallen to, and what is near it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from functools import partial

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from support.tokens import ISSUER, NOW, SECRET, jwk, private_key, public_pem, segment, token
from unit.auth.made import OTHER, OTHER_SECRET, edwards, elliptic, good, headed, said


def der(part: str) -> bytes:
    """A raw signature of ECDSA in the form that certificates have."""
    data = base64.urlsafe_b64decode(part + "==")
    return encode_dss_signature(int.from_bytes(data[:32], "big"), int.from_bytes(data[32:], "big"))


def raw(payload: str) -> str:
    """A token with this payload, letter for letter, and a good signature."""
    return token(payload.encode(), kid="h")


def changed(token: str, part: int, change: Callable[[str], str]) -> str:
    """A token with one part changed after it was signed."""
    parts = token.split(".")
    parts[part] = change(parts[part])
    return ".".join(parts)


def unsigned(algorithm: str, signature: str = "") -> str:
    return ".".join((segment({"alg": algorithm, "typ": "JWT", "kid": "h"}), segment(good()), signature))


def dated(name: str, value: str) -> str:
    """A token with this for a date, letter for letter."""
    return raw(json.dumps(good(**{name: "@"})).replace('"@"', value))


def confused(algorithm: str, secret: str | bytes, kid: str) -> str:
    """Signed as HS with what everybody can know: a public key in one of its spellings."""
    return token(good(), algorithm=algorithm, key=secret, kid=kid)


PAYLOAD = json.dumps(good())

# Each is refused, whatever else in it is good.
FORM: dict[str, Callable[[], str]] = {
    "empty": lambda: "",
    "a dot": lambda: ".",
    "two dots": lambda: "..",
    "one part": lambda: said().split(".")[0],
    "two parts": lambda: said().rpartition(".")[0],
    "no signature": lambda: said().rpartition(".")[0] + ".",
    "no payload": lambda: changed(said(), 1, lambda _: ""),
    "no header": lambda: changed(said(), 0, lambda _: ""),
    "four parts": lambda: said() + ".AAAA",
    "a dot behind": lambda: said() + ".",
    "five parts, encrypted": lambda: said() + ".AAAA.AAAA",
    "a space before": lambda: " " + said(),
    "a space behind": lambda: said() + " ",
    "a line behind": lambda: said() + "\n",
    "a NUL behind": lambda: said() + "\x00",
    "a line inside": lambda: changed(said(), 1, lambda part: part[:9] + "\n" + part[9:]),
    "Bearer": lambda: "Bearer " + said(),
    "padded": lambda: changed(said(), 2, lambda part: part + "=" * (-len(part) % 4)),
    "plain base64": lambda: changed(said(), 2, lambda _: "+/+/"),
    "cut off": lambda: said()[:-1],
    "cut off in the payload": lambda: changed(said(), 1, lambda part: part[:-4]),
    "a length that base64 has not": lambda: changed(said(), 2, lambda part: part[:41]),
    "bits that stand for nothing": lambda: changed(said(), 2, lambda part: part[:-1] + chr(ord(part[-1]) + 1)),
    "fullwidth letters": lambda: changed(said(), 2, lambda part: "Ａ" + part[1:]),
    "digits of another script": lambda: changed(said(), 2, lambda part: "٣" + part[1:]),
    "a surrogate": lambda: said() + "\ud800",
    "too long": lambda: token(good(filler="x" * 7_000), kid="h"),
    "10 MB": lambda: "A" * 10_000_000 + ".A.A",
    "10 MB of dots": lambda: "." * 10_000_000,
}

HEADER: dict[str, Callable[[], str]] = {
    "no JSON": lambda: token(good(), header=b"{"),
    "no object": lambda: token(good(), header=["alg", "HS256"]),
    "null": lambda: token(good(), header=b"null"),
    "no UTF-8": lambda: token(good(), header=b'{"alg":"HS256","kid":"h","x":"\xff"}'),
    "UTF-16": lambda: token(good(), header='{"alg":"HS256","kid":"h"}'.encode("utf-16")),
    "a byte order mark": lambda: token(good(), header=b'\xef\xbb\xbf{"alg":"HS256","kid":"h"}'),
    "two texts": lambda: token(good(), header=b'{"alg":"HS256","kid":"h"}{}'),
    "no alg": lambda: token(good(), header={"kid": "h"}),
    "alg twice": lambda: token(good(), header=b'{"alg":"none","kid":"h","alg":"HS256"}'),
    "kid twice": lambda: token(good(), header=b'{"alg":"HS256","kid":"x","kid":"h"}'),
    "alg null": lambda: headed(alg=None),
    "alg a number": lambda: headed(alg=256),
    "alg a list": lambda: headed(alg=["HS256"]),
    "alg an object": lambda: headed(alg={"HS256": 1}),
    "alg true": lambda: headed(alg=True),
    "alg empty": lambda: headed(alg=""),
    "alg in small letters": lambda: headed(alg="hs256"),
    "alg with a space": lambda: headed(alg="HS256 "),
    "alg unknown": lambda: headed(alg="HS1"),
    "crit": lambda: headed(crit=["exp"], exp=1),
    "crit empty": lambda: headed(crit=[]),
    "crit b64": lambda: headed(crit=["b64"], b64=True),
    "b64 false": lambda: headed(b64=False),
    "jwk": lambda: token(good(), algorithm="RS256", key=private_key("RS", "mine"), jwk=jwk("RS256", "mine")),
    "jwk oct": lambda: token(good(), key="k", jwk={"kty": "oct", "k": segment(b"k")}),
    "jwk beside a good signature": lambda: headed(jwk=jwk("RS256")),
    "x5c": lambda: headed(x5c=["AAAA"]),
    "a logout token": lambda: headed(typ="logout+jwt"),
    "a proof of possession": lambda: headed(typ="dpop+jwt"),
    "typ a number": lambda: headed(typ=1),
    "nested": lambda: token(said().encode(), kid="h", cty="JWT"),
    "deep": lambda: token(good(), header=b'{"alg":"HS256","kid":"h","x":' + b"[" * 2_000 + b"]" * 2_000 + b"}"),
}

KID: dict[str, Callable[[], str]] = {
    "unknown": lambda: headed(kid="x"),
    "null": lambda: headed(kid=None),
    "a number": lambda: headed(kid=0),
    "true": lambda: headed(kid=True),
    "a list": lambda: headed(kid=["h"]),
    "an object": lambda: headed(kid={"h": 1}),
    "empty": lambda: headed(kid=""),
    "of an empty file": lambda: token(good(), key=b"", kid="../../../../dev/null"),
    "of a file": lambda: token(good(), key=b"", kid="/proc/sys/kernel/randomize_va_space"),
    "an address": lambda: headed(kid="file:///etc/passwd"),
    "SQL": lambda: token(good(), key="k", kid="x' UNION SELECT 'k'--"),
    "a command": lambda: headed(kid="h|id"),
    "with a NUL": lambda: headed(kid="h\x00"),
    "with a space": lambda: headed(kid="h "),
    "in capitals": lambda: headed(kid="H"),
    "like it": lambda: headed(kid="ｈ"),
    "of an attribute": lambda: headed(kid="__class__"),
    "very long": lambda: headed(kid="h" * 4_000),
    "of a key for another algorithm": lambda: headed(kid="r"),
}

PEM = public_pem("RS256")

SIGNATURE: dict[str, Callable[[], str]] = {
    **{
        f"alg {spelled}": partial(unsigned, spelled)
        for spelled in ("none", "None", "NONE", "nOnE", "noNe", "none ", "")
    },
    **{
        f"alg {spelled}, and some signature": partial(unsigned, spelled, "AAAA")
        for spelled in ("none", "None", "NONE", "nOnE")
    },
    "alg none, and the good one": lambda: changed(said(), 0, lambda _: segment({"alg": "none", "kid": "h"})),
    "another secret": lambda: token(good(), key=SECRET + "x", kid="h"),
    "no secret": lambda: token(good(), key=b"", kid="h"),
    "the other issuer's key of this name": lambda: token(good(), key=OTHER_SECRET, kid="h"),
    "our key for the other issuer": lambda: token(good(iss=OTHER, aud="other"), kid="h"),
    "HS with the public key": lambda: confused("HS256", PEM, "r"),
    "HS with the public key, stripped": lambda: confused("HS256", PEM.strip(), "r"),
    "HS with the public key's middle": lambda: confused("HS256", "".join(PEM.split("\n")[1:-2]), "r"),
    "HS with the public key as JWK": lambda: confused("HS256", json.dumps(jwk("RS256")), "r"),
    "HS512 with the public key": lambda: confused("HS512", PEM, "r"),
    "HS with the EC key": lambda: confused("HS256", public_pem("ES256"), "e"),
    "HS with the Ed25519 key": lambda: confused("HS256", public_pem("EdDSA"), "d"),
    "HS with the public key, no kid": lambda: token(good(), key=PEM),
    "the secret with an algorithm that it is not for": lambda: token(good(), algorithm="HS512", kid="h"),
    "the RSA key with an algorithm that it is not for": lambda: token(
        good(), algorithm="PS256", key=private_key("RS"), kid="r"
    ),
    "RS512 for RS256": lambda: token(good(), algorithm="RS512", key=private_key("RS"), kid="r"),
    "a stranger's RSA key": lambda: token(good(), algorithm="RS256", key=private_key("RS", "mine"), kid="r"),
    "a stranger's EC key": lambda: token(good(), algorithm="ES256", key=private_key("ES256", "mine"), kid="e"),
    "a stranger's Ed25519 key": lambda: token(good(), algorithm="EdDSA", key=private_key("EdDSA", "mine"), kid="d"),
    "another curve": lambda: token(good(), algorithm="ES256K", key=private_key("ES256K"), kid="e"),
    "zeros for ECDSA": lambda: changed(elliptic(), 2, lambda _: segment(bytes(64))),
    "ones for ECDSA": lambda: changed(elliptic(), 2, lambda _: segment((b"\x00" * 31 + b"\x01") * 2)),
    "ECDSA in DER": lambda: changed(elliptic(), 2, lambda part: segment(der(part))),
    "ECDSA, too short": lambda: changed(elliptic(), 2, lambda part: part[:40]),
    "half an Ed25519": lambda: changed(edwards(), 2, lambda part: part[:43] + "A"),
    "zeros for Ed25519": lambda: changed(edwards(), 2, lambda _: segment(bytes(64))),
    "a changed payload": lambda: changed(said(), 1, lambda _: segment(good(sub="bob"))),
    "a changed header": lambda: changed(said(), 0, lambda _: segment({"alg": "HS256", "kid": "h"})),
    "that of another token": lambda: changed(said(), 2, lambda _: said(sub="bob").rpartition(".")[2]),
}

CLAIMS: dict[str, Callable[[], str]] = {
    "no JSON": lambda: raw("{"),
    "a text": lambda: raw('"alice"'),
    "a list": lambda: raw("[" + PAYLOAD + "]"),
    "null": lambda: raw("null"),
    "no UTF-8": lambda: token(PAYLOAD.encode()[:-1] + b',"x":"\xff"}', kid="h"),
    "sub twice": lambda: raw(PAYLOAD[:-1] + ', "sub": "bob"}'),
    "exp twice": lambda: raw(PAYLOAD[:-1] + f', "exp": {NOW + 60}}}'),
    "a name twice further down": lambda: raw(PAYLOAD[:-1] + ', "rooms": {"x": ["join"], "x": ["publish"]}}'),
    "NaN": lambda: raw(PAYLOAD[:-1] + ', "x": NaN}'),
    "deep": lambda: raw(PAYLOAD[:-1] + ', "x": ' + "[" * 2_500 + "]" * 2_500 + "}"),
    "65 deep": lambda: raw(PAYLOAD[:-1] + ', "x": ' + "[" * 64 + "]" * 64 + "}"),
    "deep behind a string": lambda: raw(PAYLOAD[:-1] + ', "x": "\\\\", "y": ' + "[" * 64 + "]" * 64 + "}"),
    "quotes without an end": lambda: raw("[" * 65 + '"' + '\\"' * 2_500),
    "a number of 5,000 digits": lambda: raw(PAYLOAD[:-1] + ', "x": ' + "9" * 5_000 + "}"),
    "no exp": lambda: said(exp=None),
    **{
        f"{name} is {value!r}"[:40]: partial(dated, name, value)
        for name in ("exp", "nbf", "iat")
        for value in (
            "null",
            "true",
            "false",
            f'"{int(NOW)}"',
            '""',
            "[]",
            f"[{int(NOW)}]",
            "{}",
            "-1",
            "-1e308",
            "1e999",
            "-1e999",
            "1e300",
            "9" * 400,
            "NaN",
            "Infinity",
            "-Infinity",
        )
    },
    "expired": lambda: said(exp=int(NOW) - 6),
    "expired long ago": lambda: said(exp=0),
    "expired by a part of a second": lambda: said(exp=NOW - 5.001),
    "good for longer than may be": lambda: said(exp=int(NOW) + 2_592_006),
    "in milliseconds": lambda: said(exp=int(NOW + 60) * 1_000),
    "not yet": lambda: said(nbf=int(NOW) + 6),
    "from the future": lambda: said(iat=int(NOW) + 6),
    "no iss": lambda: said(iss=None),
    "iss null": lambda: raw(json.dumps({**good(), "iss": None})),
    "iss a list": lambda: said(iss=[ISSUER]),
    "iss a number": lambda: said(iss=1),
    "iss empty": lambda: said(iss=""),
    "iss unknown": lambda: said(iss="https://nobody.test"),
    "iss with a slash": lambda: said(iss=ISSUER + "/"),
    "iss in capitals": lambda: said(iss=ISSUER.upper()),
    "iss longer": lambda: said(iss=ISSUER + ".evil.test"),
    "no aud": lambda: said(aud=None),
    "aud null": lambda: raw(json.dumps({**good(), "aud": None})),
    "aud of another": lambda: said(aud="other"),
    "aud longer": lambda: said(aud="hubs"),
    "aud of others": lambda: said(aud=["other", "another"]),
    "aud an empty list": lambda: said(aud=[]),
    "aud with a number": lambda: said(aud=["hub", 1]),
    "aud an object": lambda: said(aud={"hub": 1}),
    "no sub": lambda: said(sub=None),
    "sub null": lambda: raw(json.dumps({**good(), "sub": None})),
    "sub a number": lambda: said(sub=42),
    "sub true": lambda: said(sub=True),
    "sub a list": lambda: said(sub=["alice"]),
    "sub empty": lambda: said(sub=""),
    "sub too long": lambda: said(sub="x" * 129),
    "sub with a line": lambda: said(sub="alice\n"),
    "sub with a NUL": lambda: said(sub="alice\x00"),
    "sub with a C1 character": lambda: said(sub="alice\x9f"),
    "sub with a surrogate": lambda: said(sub="alice\ud800"),
    "role a list": lambda: said(role=["admin"]),
    "role null": lambda: raw(json.dumps({**good(), "role": None})),
    "role empty": lambda: said(role=""),
    "roles a text": lambda: said(roles="admin"),
    "roles an object": lambda: said(roles={"admin": True}),
    "roles null": lambda: raw(json.dumps({**good(), "roles": None})),
    "roles with a number": lambda: said(roles=["admin", 1]),
    "roles with a list": lambda: said(roles=[["admin"]]),
    "too many roles": lambda: said(roles=[f"r{n}" for n in range(101)]),
    "rooms a list": lambda: said(rooms=["lobby"]),
    "rooms null": lambda: raw(json.dumps({**good(), "rooms": None})),
    "rooms with a text": lambda: said(rooms={"lobby": "join"}),
    "rooms with null": lambda: raw(json.dumps(good(rooms={"lobby": None}))),
    "an action that there is not": lambda: said(rooms={"lobby": ["join", "own"]}),
    "an action in capitals": lambda: said(rooms={"lobby": ["JOIN"]}),
    "an action a number": lambda: said(rooms={"lobby": [1]}),
    "rooms half a surrogate pair": lambda: said(rooms="\ud800"),
    "an action half a surrogate pair": lambda: said(rooms={"lobby": ["\ud800"]}),
    "a pattern half a surrogate pair": lambda: said(rooms={"\ud800": ["join"]}),
    "a pattern that is no name": lambda: said(rooms={"": ["join"]}),
    "a pattern too long": lambda: said(rooms={"x" * 129: ["join"]}),
    "too many patterns": lambda: said(rooms={f"r{n}": ["join"] for n in range(101)}),
}


BAD: dict[str, Callable[[], str]] = {
    f"{kind}: {name}": make
    for kind, table in {
        "form": FORM,
        "header": HEADER,
        "kid": KID,
        "signature": SIGNATURE,
        "claims": CLAIMS,
    }.items()
    for name, make in table.items()
}
