"""Who a JWT was made for: its signature, its time and its audience checked against the configured keys.

A token chooses among configured keys and nothing else: not its algorithm, no key, no address. All tokens that are not
good are refused in the same words; which rule a token broke is in the log, at `debug`, without the token.
"""

from __future__ import annotations

import logging
from typing import Final

from hubbub.auth.claims import Rules, read
from hubbub.auth.compact import BadToken, Signed, take_apart
from hubbub.auth.jwks import COOLDOWN, INTERVAL, KeySource, check_url
from hubbub.auth.keys import Key, is_secret, keys_of, source_name
from hubbub.auth.options import AuthOptions
from hubbub.errors import ConfigError, Reject
from hubbub.types import Identity, token_id

__all__ = ["JwtAuthenticator"]

log = logging.getLogger("hubbub.auth")

# Keys that are tried for one token: some do not say which they are signed with.
_MOST_TRIED: Final = 8


class _Issuer:
    """Whom tokens may come from, and what with."""

    def __init__(self) -> None:
        self.keys: list[Key] = []
        self.source: KeySource | None = None

    def named(self, kid: str | None) -> list[Key]:
        """The keys of this name; of a token that names none, all."""
        known = [*self.keys, *((self.source and self.source.keys) or ())]
        return known if kid is None else [key for key in known if key.kid == kid]

    async def candidates(self, token: Signed) -> list[Key]:
        """The keys that may have signed `token`; waits only where the issuer has to be asked."""
        keys = self.named(token.kid)
        source = self.source
        if not keys and source is not None and token.algorithm in source.algorithms:
            await source.look_again()
            keys = self.named(token.kid)
        # One without a name may be any.
        keys = keys or self.named("")
        return [key for key in keys if token.algorithm in key.algorithms][:_MOST_TRIED]


class JwtAuthenticator:
    """Tells who shows a token; an `Authenticator` of the hub, with the keys of the configuration.

    Raises `ConfigError` for keys that cannot be. `interval` and `cooldown` are for keys that issuers publish.
    """

    def __init__(self, options: AuthOptions, *, interval: float = INTERVAL, cooldown: float = COOLDOWN) -> None:
        self._rules = Rules(user_claim=options.jwt_user_claim, leeway=options.jwt_leeway, longest=options.token_age)

        # By `iss`; the empty one is for those that need none.
        self._issuers: dict[str, _Issuer] = {}
        for key in keys_of(options):
            self._issuer(key.issuer).keys.append(key)
        for number, given in enumerate(options.jwt_keys):
            if not given.jwks_url:
                continue
            name = source_name(given, number)
            issuer = given.issuer or options.jwt_issuer
            if not issuer:
                raise ConfigError(f"{name} has a jwks_url and no issuer: say whose keys these are")
            if given.kid or is_secret(given.algorithms):
                raise ConfigError(f"{name} has a jwks_url: the keys there have names of their own, and are no secrets")
            check_url(given.jwks_url, name)
            if self._issuer(issuer).source is not None:
                raise ConfigError(f"two jwks_url are for the issuer {issuer}: an issuer has one")
            self._issuers[issuer].source = KeySource(
                given.jwks_url,
                given.algorithms,
                issuer,
                given.audience or options.jwt_audience,
                interval=interval,
                cooldown=cooldown,
            )
        self._sources = [issuer.source for issuer in self._issuers.values() if issuer.source is not None]

    def start(self) -> None:
        """Begin to fetch what issuers publish; in a running event loop."""
        for source in self._sources:
            source.start()

    async def close(self) -> None:
        """Fetch nothing more; harmless twice."""
        for source in self._sources:
            await source.close()

    async def identify(self, token: str, now: float) -> Identity:
        """Who shows this token, at `now` (seconds since the Unix epoch).

        Raises `Reject` with `unauthorized` for one that is not good, and `Unavailable` while the keys of its issuer
        could not be fetched yet. It waits only for those.
        """
        try:
            signed = take_apart(token)
            key = await self._key_of(signed)
            # The same for every spelling of one token: ECDSA has two signatures of each.
            return read(signed.claims, self._rules, key.issuer, key.audience, now, token_id(signed.text))
        except BadToken as bad:
            log.debug("a token was refused: %s", bad)
            # One answer for all: whoever tries out tokens learns nothing from it.
            raise Reject("unauthorized", "the token is missing, expired or not valid", why=str(bad)) from None

    async def _key_of(self, token: Signed) -> Key:
        """The key that signed `token`; raises `BadToken` where none did."""
        named = token.claims.get("iss", "")
        if not isinstance(named, str):
            raise BadToken("its `iss` is no text")
        # Who is named in the configuration speaks only with its own keys.
        issuer = self._issuers.get(named) or self._issuers.get("")
        if issuer is None:
            raise BadToken("nobody knows its issuer")
        candidates = await issuer.candidates(token)
        if not candidates:
            raise BadToken("there is no key of its `kid` for its `alg`")
        for key in candidates:
            if key.signed(token):
                return key
        raise BadToken("its signature is wrong")

    def _issuer(self, name: str) -> _Issuer:
        return self._issuers.setdefault(name, _Issuer())
