"""A token is good or it is refused, and whoever is refused learns nothing but that."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from hubbub.auth.jwt import JwtAuthenticator
from hubbub.auth.options import AuthOptions, JwtKey
from hubbub.errors import Reject
from hubbub.types import Action, Identity
from support.tokens import (
    NOW,
    SECRET,
    Publisher,
    claims,
    jwk,
    private_key,
    publishing,
    segment,
    sign,
    token,
)
from unit.auth.bad import BAD, der
from unit.auth.made import AUDIENCE, KEYS, OPTIONS, OTHER, OTHER_SECRET, elliptic, good, headed, said


def ask(token: str, options: AuthOptions = OPTIONS, now: float = NOW) -> Identity:
    """Who the token is for; keys that are configured are there, so that nothing waits."""
    asking = JwtAuthenticator(options).identify(token, now)
    try:
        asking.send(None)
    except StopIteration as answer:
        identity: Identity = answer.value
        return identity
    raise AssertionError("it waits")


def refused(token: str, options: AuthOptions = OPTIONS, now: float = NOW) -> None:
    """The token is not good, which is said in the words in which it is always said."""
    with pytest.raises(Reject) as caught:
        ask(token, options, now)
    said = caught.value

    assert type(said) is Reject
    assert (said.code, said.message) == ("unauthorized", "the token is missing, expired or not valid")
    assert (said.retry_after, said.where, said.__cause__, said.__suppress_context__) == (None, None, None, True)


# What is no fault where there is one key without a name, for any issuer.
NO_FAULT_OF_ONE_KEY = {
    *(f"kid: {name}" for name in ("unknown", "an address", "a command", "with a NUL", "with a space")),
    *(f"kid: {name}" for name in ("in capitals", "like it", "of an attribute", "of a key for another algorithm")),
    *(f"claims: {name}" for name in ("no iss", "iss empty", "iss unknown", "iss with a slash")),
    *(f"claims: {name}" for name in ("iss in capitals", "iss longer")),
}


class TestRefused:
    """What others have fallen to, and what is near it."""

    @pytest.mark.parametrize("name", BAD)
    def test_all_alike(self, name: str, caplog: pytest.LogCaptureFixture) -> None:
        """One code, one text, nothing else; the log has one reason, and nothing of the token."""
        caplog.set_level(logging.DEBUG, "hubbub")
        shown = BAD[name]()
        refused(shown)

        (line,) = [record.getMessage() for record in caplog.records if record.name == "hubbub.auth"]
        assert line.startswith("a token was refused: ")
        assert all(part not in line for part in shown.split(".") if len(part) > 8)
        assert "alice" not in line and "\n" not in line

    def test_there_are_many(self) -> None:
        assert len(BAD) >= 150

    @pytest.mark.parametrize("name", sorted(BAD.keys() - NO_FAULT_OF_ONE_KEY))
    def test_by_a_server_with_one_secret(self, name: str) -> None:
        """Where any issuer will do, and no key has a name."""
        refused(BAD[name](), AuthOptions(jwt_secret=SECRET, jwt_audience=AUDIENCE))

    def test_what_that_server_takes_is_good_otherwise(self) -> None:
        """The tokens above are refused for what is wrong with them."""
        for name in NO_FAULT_OF_ONE_KEY:
            assert ask(BAD[name](), AuthOptions(jwt_secret=SECRET, jwt_audience=AUDIENCE)).user == "alice"

    @pytest.mark.alone
    def test_what_is_refused_is_refused_fast(self) -> None:
        """10 MB are not looked through."""
        authenticator = JwtAuthenticator(OPTIONS)
        shown = BAD["form: 10 MB"]()
        begun = time.process_time()
        for _ in range(100):
            with pytest.raises(Reject):
                authenticator.identify(shown, NOW).send(None)

        assert time.process_time() - begun < 0.1


@pytest.fixture(scope="module")
def canary() -> Iterator[Publisher]:
    """A server that nobody has any reason to ask."""
    with publishing(jwk("RS256", "mine", kid="mine")) as publisher:
        yield publisher


class TestNoRequest:
    """Nothing in a token makes the server ask anybody."""

    @pytest.mark.parametrize("name", ["jku", "x5u", "jwk", "kid", "iss", "x", "jwks_uri"])
    @pytest.mark.parametrize("where", ["header", "claims"])
    def test_an_address_in_a_token_is_not_asked(self, name: str, where: str, canary: Publisher) -> None:
        """With a signature that the keys there would prove."""
        named = {name: canary.address}
        shown = token(
            good(**(named if where == "claims" else {})),
            algorithm="RS256",
            key=private_key("RS", "mine"),
            **{"kid": "mine", **(named if where == "header" else {})},
        )
        refused(shown)

        assert canary.asked == []


class TestGood:
    """What a token says is what is known of its user."""

    @pytest.mark.parametrize(
        ("kid", "algorithm", "key"),
        [
            ("h", "HS256", SECRET),
            ("h5", "HS384", SECRET),
            ("h5", "HS512", SECRET),
            ("r", "RS256", private_key("RS")),
            *(("p", algorithm, private_key("RS", "p")) for algorithm in ("PS256", "PS384", "PS512", "RS384", "RS512")),
            ("e", "ES256", private_key("ES256")),
            ("e3", "ES384", private_key("ES384")),
            ("e5", "ES512", private_key("ES512")),
            ("d", "EdDSA", private_key("EdDSA")),
        ],
    )
    def test_every_algorithm(self, kid: str, algorithm: str, key: Any) -> None:
        """With the key's name and without."""
        assert ask(token(good(), algorithm=algorithm, key=key, kid=kid)).user == "alice"
        assert ask(token(good(), algorithm=algorithm, key=key)).user == "alice"

    def test_everything_that_it_may_say(self) -> None:
        rooms = {"game:*": ["join", "publish", "history", "presence", "join"], "lobby": []}
        identity = ask(said(role="admin", roles=["editor", "admin"], rooms=rooms, nbf=NOW, other={"x": [1]}))

        assert (identity.user, identity.roles) == ("alice", ("admin", "editor"))
        assert identity.rooms == {
            "game:*": (Action.JOIN, Action.PUBLISH, Action.HISTORY, Action.PRESENCE),
            "lobby": (),
        }
        assert identity.issued == (int(NOW) - 10) * 1_000
        assert identity.expires == (int(NOW) + 3_600) * 1_000
        assert identity.token_id

    def test_as_little_as_it_may_say(self) -> None:
        """Nothing about rooms is not the same as no rooms."""
        identity = ask(said(iat=None))

        assert (identity.roles, identity.rooms, identity.issued) == ((), None, None)
        assert ask(said(rooms={})).rooms == {}

    def test_a_name_is_what_the_protocol_says(self) -> None:
        assert ask(said(sub="ålice 😀/?&=")).user == "ålice 😀/?&="
        assert ask(said(sub="x" * 128)).user == "x" * 128

    def test_another_claim_may_hold_the_user(self) -> None:
        options = AuthOptions(jwt_secret=SECRET, jwt_user_claim="user_id")

        assert ask(token(claims(user_id="bob")), options).user == "bob"
        refused(token(claims()), options)

    @pytest.mark.parametrize("audience", ["hub", ["hub"], ["other", "hub"]])
    def test_an_audience_is_one_of_several(self, audience: object) -> None:
        assert ask(said(aud=audience)).user == "alice"

    def test_a_token_for_somebody_is_not_for_who_has_no_name(self) -> None:
        """RFC 7519 §4.1.3: also where the operator has not said who we are."""
        options = AuthOptions(jwt_secret=SECRET)

        assert ask(token(claims()), options).user == "alice"
        refused(token(claims(aud="somebody")), options)
        refused(token(claims(aud="")), options)
        refused(token(claims(aud=[])), options)

    @pytest.mark.parametrize("kind", ["JWT", "jwt", "at+jwt", "application/at+jwt", "application/JWT"])
    def test_what_it_may_call_itself(self, kind: str) -> None:
        assert ask(headed(typ=kind)).user == "alice"

    def test_it_need_not_call_itself_anything(self) -> None:
        assert ask(token(good(), header={"alg": "HS256", "kid": "h"})).user == "alice"

    def test_a_header_may_have_more(self) -> None:
        assert ask(headed(x5t="AAAA", other=[1])).user == "alice"

    def test_each_issuer_has_its_own_keys(self) -> None:
        """The same kid of two issuers is two keys."""
        identity = ask(token(good(iss=OTHER, aud="other"), key=OTHER_SECRET, kid="h"))

        assert identity.user == "alice"

    def test_a_named_issuer_speaks_with_its_own_keys_only(self) -> None:
        """A key that is for any issuer is for those that are not in the configuration."""
        anybody = JwtKey(algorithms=("HS256",), secret=SECRET)
        named = JwtKey(algorithms=("HS256",), secret=OTHER_SECRET, issuer=OTHER)
        options = AuthOptions(jwt_keys=(anybody, named))

        assert ask(token(claims(iss="https://x.test")), options).user == "alice"
        assert ask(token(claims(iss=OTHER), key=OTHER_SECRET), options).user == "alice"
        refused(token(claims(iss=OTHER)), options)
        refused(token(claims(iss="https://x.test"), key=OTHER_SECRET), options)


class TestTime:
    """Clocks differ a little; tokens end, and none is good for long."""

    @pytest.mark.parametrize(
        "more",
        [
            {"exp": NOW - 4.9},
            {"nbf": NOW + 5},
            {"iat": NOW + 5},
            {"exp": NOW + 2_592_000},
            {"exp": NOW + 0.5},
            {"iat": 0},
        ],
    )
    def test_what_is_just_good(self, more: dict[str, float]) -> None:
        assert ask(said(**more)).user == "alice"

    def test_without_leeway(self) -> None:
        options = AuthOptions(jwt_secret=SECRET, jwt_leeway=0)

        assert ask(token(claims(exp=NOW + 0.1)), options).user == "alice"
        for more in ({"exp": NOW}, {"nbf": NOW + 1}, {"iat": NOW + 1}):
            refused(token(claims(**more)), options)

    def test_it_ends_when_it_says(self) -> None:
        """In milliseconds, and parts of seconds count."""
        assert ask(said(exp=NOW + 1.25)).expires == int((NOW + 1.25) * 1_000)

    def test_who_was_let_in_late_has_the_rest_of_the_leeway(self) -> None:
        """Otherwise the session would end when it began."""
        assert ask(said(exp=NOW - 2)).expires == (NOW - 2 + 5) * 1_000
        assert ask(said(exp=NOW)).expires == (NOW + 5) * 1_000

    def test_the_longest_is_an_option(self) -> None:
        options = AuthOptions(jwt_secret=SECRET, token_age=60)

        assert ask(token(claims(exp=NOW + 65)), options).user == "alice"
        refused(token(claims(exp=NOW + 66)), options)

    @pytest.mark.parametrize("now", [0.0, 1e12, math.inf])
    def test_a_wrong_clock_lets_nobody_in(self, now: float) -> None:
        refused(said(), now=now)


class TestRotation:
    """A new key beside the old one: tokens of both are good, until the old one is taken away."""

    def test_two_keys(self) -> None:
        new, old = (JwtKey(kid=kid, algorithms=("HS256",), secret=kid * 32) for kid in ("new", "old"))
        both = AuthOptions(jwt_keys=(new, old))
        for kid in ("new", "old"):
            assert ask(token(key=kid * 32, kid=kid), both).user == "alice"
            # Tokens that were made before keys had names.
            assert ask(token(key=kid * 32), both).user == "alice"
        assert ask(token(key="new" * 32, kid="new"), AuthOptions(jwt_keys=(new,))).user == "alice"
        refused(token(key="old" * 32, kid="old"), AuthOptions(jwt_keys=(new,)))

    def test_from_the_short_cut(self) -> None:
        """The old secret gets a name, and its tokens, which have none, are still good."""
        old = JwtKey(kid="old", algorithms=("HS256",), secret=SECRET)
        options = AuthOptions(jwt_secret="n" * 32, jwt_keys=(old,))

        assert ask(token(), options).user == "alice"
        assert ask(token(key="n" * 32), options).user == "alice"
        assert ask(token(key="n" * 32, kid="whatever"), options).user == "alice"
        refused(token(key="n" * 32, kid="old"), options)

    def test_only_so_many_keys_are_tried(self) -> None:
        """A token without a name costs no more than eight checks."""
        keys = tuple(JwtKey(kid=str(n), algorithms=("HS256",), secret=str(n) * 32) for n in range(9))
        options = AuthOptions(jwt_keys=keys)

        assert ask(token(key="7" * 32), options).user == "alice"
        assert ask(token(key="8" * 32, kid="8"), options).user == "alice"
        refused(token(key="8" * 32), options)


class TestNames:
    """A token has one name, however it is spelled, and the name does not give it away."""

    def test_both_signatures_of_ecdsa_are_one_token(self) -> None:
        """(r, s) and (r, n - s) are both good: whoever has the one can make the other, and slip under a revocation."""
        order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
        shown = elliptic()
        text, _, signature = shown.rpartition(".")
        r, s = decode_dss_signature(der(signature))
        other = text + "." + segment(r.to_bytes(32, "big") + (order - s).to_bytes(32, "big"))

        assert other != shown
        assert ask(other).token_id == ask(shown).token_id

    def test_two_signatures_of_one_text_are_one_token(self) -> None:
        """ECDSA signs with chance."""
        assert elliptic() != elliptic()
        assert ask(elliptic()).token_id == ask(elliptic()).token_id

    def test_two_tokens_are_two(self) -> None:
        assert ask(said()).token_id != ask(said(jti="1")).token_id

    def test_it_is_no_part_of_the_token(self) -> None:
        assert ask(said()).token_id not in said()


@pytest.mark.alone
def test_a_check_takes_no_longer_than_it_may() -> None:
    """60 µs with HS256, by the processor's clock; in truth a quarter of that."""
    authenticator = JwtAuthenticator(AuthOptions(jwt_secret=SECRET))
    shown = token(claims(roles=["admin"], rooms={"game:*": ["join", "publish", "history", "presence"]}))
    best = math.inf
    for _ in range(20):
        begun = time.process_time()
        for _ in range(200):
            with pytest.raises(StopIteration):
                authenticator.identify(shown, NOW).send(None)
        best = min(best, (time.process_time() - begun) / 200)

    assert best < 60e-6


def test_nothing_shows_a_key() -> None:
    """Options and keys end up in tracebacks and logs."""
    authenticator = JwtAuthenticator(OPTIONS)
    shown = repr((OPTIONS, KEYS, authenticator, [issuer.keys for issuer in authenticator._issuers.values()]))

    assert SECRET not in shown and "BEGIN" not in shown
    assert SECRET not in repr(AuthOptions(jwt_secret=SECRET))


def test_signing_by_hand_is_signing() -> None:
    """The tests' own signatures are those that are good."""
    shown = said()
    text, _, signature = shown.rpartition(".")

    assert segment(sign(text, "HS256", SECRET)) == signature
