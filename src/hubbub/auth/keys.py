"""The keys that tokens may be signed with, each checked at the start: one that is too weak never gets to work."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import get_default_algorithms
from jwt.exceptions import InvalidKeyError

from hubbub.auth.compact import Signed
from hubbub.auth.options import AuthOptions, JwtKey
from hubbub.errors import ConfigError

__all__ = ["MAKE_ONE", "Key", "check_algorithms", "fitting", "is_secret", "keys_of", "misfit", "source_name"]

MAKE_ONE: Final = "make one with `openssl rand -hex 32`"
"""The remedy for whoever has no good secret: 64 characters, enough for each of the algorithms."""

# Bytes of the secret, which has at least as many as the hash (RFC 7518 §3.2).
_secret_sizes: Final = {"HS256": 32, "HS384": 48, "HS512": 64}

_curves: Final = {"ES256": "secp256r1", "ES384": "secp384r1", "ES512": "secp521r1"}

_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")

# Bits of an RSA key: fewer are too weak (RFC 7518 §3.3), more are too slow.
_RSA_BITS: Final = range(2_048, 8_193)

# Not all that the library has: it has `none`, too.
_algorithms: Final = {
    name: algorithm
    for name, algorithm in get_default_algorithms().items()
    if name in {*_secret_sizes, *_curves, *_RSA, "EdDSA"}
}

# Bytes of a file with a key.
_LARGEST: Final = 65_536


class Key:
    """One key with the only algorithms that it may be used with, and whose tokens it signs."""

    __slots__ = ("_material", "algorithms", "audience", "issuer", "kid")

    def __init__(self, kid: str, algorithms: tuple[str, ...], material: Any, issuer: str, audience: str) -> None:
        # Empty where it has no name.
        self.kid = kid
        self.algorithms = algorithms
        # Both are empty where any will do, or none.
        self.issuer = issuer
        self.audience = audience

        # The secret's bytes, or the public key; the default repr shows nothing of it.
        self._material = material

    def signed(self, token: Signed) -> bool:
        """Whether `token` is signed with this key, by one of its own algorithms."""
        if token.algorithm not in self.algorithms:
            return False
        return _algorithms[token.algorithm].verify(token.text.encode(), self._material, token.signature)

    def secret(self) -> bytes:
        """What tokens are made with; only where `is_secret`."""
        assert isinstance(self._material, bytes)
        return self._material


def keys_of(options: AuthOptions) -> list[Key]:
    """The keys that are configured, without those of a `jwks_url`; raises `ConfigError` for one that cannot be."""
    keys = []
    if options.jwt_secret:
        material = _secret(options.jwt_secret.encode(), ("HS256",), "jwt_secret")
        keys.append(Key("", ("HS256",), material, options.jwt_issuer, options.jwt_audience))
    for number, given in enumerate(options.jwt_keys):
        name = source_name(given, number)
        check_algorithms(given.algorithms, name)
        if sum(map(bool, (given.secret, given.public_key, given.file, given.jwks_url))) != 1:
            raise ConfigError(f"{name} must have one of secret, public_key, file and jwks_url, and only one")
        if given.jwks_url:
            continue
        issuer, audience = given.issuer or options.jwt_issuer, given.audience or options.jwt_audience
        keys.append(Key(given.kid, given.algorithms, _material(given, name), issuer, audience))
    _check_distinct(keys)
    return keys


def source_name(given: JwtKey, number: int) -> str:
    """How a key is called in errors: the first without a name is `jwt_keys[0]`, as in the file."""
    return f"the key {given.kid!r} of jwt_keys" if given.kid else f"jwt_keys[{number}]"


def is_secret(algorithms: Iterable[str]) -> bool:
    """Whether keys for these algorithms are secrets that both sides know."""
    return any(algorithm in _secret_sizes for algorithm in algorithms)


def check_algorithms(algorithms: tuple[str, ...], name: str) -> None:
    """Raise `ConfigError` where they are not known, or no one key is for all of them."""
    for algorithm in algorithms:
        if algorithm not in _algorithms:
            raise ConfigError(f"{name} cannot be used with {algorithm!r}: there are {', '.join(_algorithms)}")
    families = {"HS" if one in _secret_sizes else "RS" if one in _RSA else one for one in algorithms}
    if len(families) > 1 and not families.isdisjoint({"HS"}):
        raise ConfigError(f"{name} cannot be a secret and a public key at once: make HS algorithms a key of their own")


def fitting(material: object, algorithms: Iterable[str]) -> tuple[str, ...]:
    """Those of the algorithms that the public key can be used with."""
    return tuple(algorithm for algorithm in algorithms if misfit(material, algorithm) is None)


def misfit(material: object, algorithm: str) -> str | None:
    """Why the public key cannot be used with the algorithm, with the remedy; None where it can."""
    if algorithm in _RSA:
        if not isinstance(material, rsa.RSAPublicKey):
            return f"{algorithm} needs an RSA key: name the algorithm that the key is for"
        if material.key_size not in _RSA_BITS:
            return f"it has {material.key_size} bits: make an RSA key of 3072 (2048 to 8192 are taken)"
        return None
    if algorithm in _curves:
        if not isinstance(material, ec.EllipticCurvePublicKey) or material.curve.name != _curves[algorithm]:
            return f"{algorithm} needs a key on the curve {_curves[algorithm]}: name the algorithm that the key is for"
        return None
    if not isinstance(material, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        return f"{algorithm} needs an Ed25519 or Ed448 key: name the algorithm that the key is for"
    return None


def _material(given: JwtKey, name: str) -> Any:
    if is_secret(given.algorithms):
        if given.public_key:
            raise ConfigError(f"{name} has a public key, and HS algorithms need a secret: name RS, PS, ES or EdDSA")
        data = _read(given.file, name).rstrip(b"\r\n") if given.file else given.secret.encode()
        return _secret(data, given.algorithms, name)
    if given.secret:
        raise ConfigError(f"{name} has a secret, and its algorithms need a public key: give that, or name HS")
    return _public(_read(given.file, name) if given.file else given.public_key.encode(), given.algorithms, name)


def _secret(data: bytes, algorithms: tuple[str, ...], name: str) -> bytes:
    needed = max(_secret_sizes[algorithm] for algorithm in algorithms)
    if len(data) < needed:
        raise ConfigError(
            f"{name} has {len(data)} bytes, and {', '.join(algorithms)} must have {needed}, or it can be guessed: "
            f"{MAKE_ONE}"
        )
    try:
        return bytes(_algorithms[algorithms[0]].prepare_key(data))
    except InvalidKeyError:
        # Everybody may know it, and whoever does could sign.
        raise ConfigError(
            f"{name} is a key or a certificate and no secret: give it as public_key with its own algorithm, or "
            f"{MAKE_ONE}"
        ) from None


def _public(data: bytes, algorithms: tuple[str, ...], name: str) -> object:
    if b"PRIVATE KEY-----" in data:
        raise ConfigError(
            f"{name} is a private key, which the server must not have: give what `openssl pkey -pubout` makes of it"
        )
    if b"CERTIFICATE-----" in data:
        raise ConfigError(f"{name} is a certificate: give the key that `openssl x509 -pubkey -noout` takes out of it")
    try:
        material = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(
            f"{name} is no public key in PEM, which begins with -----BEGIN PUBLIC KEY-----: `openssl pkey -pubout` "
            "makes one of a private key"
        ) from None
    for algorithm in algorithms:
        if reason := misfit(material, algorithm):
            raise ConfigError(f"{name} does not fit: {reason}")
    return material


def _read(file: str, name: str) -> bytes:
    try:
        with Path(file).open("rb") as opened:
            data = opened.read(_LARGEST + 1)
    except OSError as error:
        raise ConfigError(f"{name} cannot be read from {file}: {error.strerror}") from None
    if len(data) > _LARGEST:
        raise ConfigError(f"{name} cannot be read from {file}: a key is smaller than {_LARGEST} bytes")
    return data


def _check_distinct(keys: list[Key]) -> None:
    seen = set()
    for key in keys:
        if (key.issuer, key.kid) in seen:
            called = f"the kid {key.kid!r}" if key.kid else "no kid"
            of = f" of {key.issuer}" if key.issuer else ""
            raise ConfigError(f"two JWT keys{of} have {called}: give each a kid of its own")
        seen.add((key.issuer, key.kid))
