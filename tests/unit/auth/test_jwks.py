"""Keys that an issuer publishes, from a real server: fetched once for all, kept where it fails, asked for by nobody."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from hubbub.auth.jwks import keys_in
from hubbub.auth.jwt import JwtAuthenticator
from hubbub.auth.options import AuthOptions, JwtKey
from hubbub.eager import step
from hubbub.errors import Reject, Unavailable
from hubbub.types import Identity
from support.loop import eventually, run
from support.tokens import ISSUER, NOW, SECRET, Publisher, claims, jwk, private_key, publishing, token


@contextlib.asynccontextmanager
async def checking(
    publisher: Publisher, *more: JwtKey, interval: float = 300.0, cooldown: float = 0.0
) -> AsyncIterator[JwtAuthenticator]:
    """What checks tokens with the keys that are published there; without a rest after a fetch."""
    published = JwtKey(algorithms=("RS256", "ES256", "EdDSA"), jwks_url=publisher.address, issuer=ISSUER)
    authenticator = JwtAuthenticator(AuthOptions(jwt_keys=(published, *more)), interval=interval, cooldown=cooldown)
    authenticator.start()
    try:
        yield authenticator
    finally:
        await authenticator.close()


def shown(name: str = "a", *, algorithm: str = "ES256", **more: Any) -> str:
    """A token of the issuer, signed with the key of this name."""
    key = private_key("RS" if algorithm == "RS256" else algorithm, name)
    return token(claims(**{"iss": ISSUER, **more}), algorithm=algorithm, key=key, kid=name)


def key(name: str = "a", algorithm: str = "ES256", **more: Any) -> dict[str, Any]:
    return jwk(algorithm, name, **{"kid": name, **more})


async def ask(authenticator: JwtAuthenticator, token: str) -> Identity:
    async with asyncio.timeout(20):
        return await authenticator.identify(token, NOW)


async def refused(authenticator: JwtAuthenticator, token: str) -> None:
    with pytest.raises(Reject) as caught:
        await ask(authenticator, token)

    assert type(caught.value) is Reject and caught.value.code == "unauthorized"


async def rested(authenticator: JwtAuthenticator) -> None:
    """Wait until the issuer may be asked again."""
    (source,) = authenticator._sources
    await eventually(lambda: not source._resting)


async def settled(authenticator: JwtAuthenticator) -> None:
    """Wait until the issuer has been asked, and answered or not."""
    (source,) = authenticator._sources
    await eventually(lambda: source.keys is not None or source._failing)


class TestFetching:
    """Once for all, in the background."""

    @pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
    def test_a_token_waits_for_the_first_fetch(self, algorithm: str) -> None:
        async def main() -> None:
            with publishing(key(algorithm=algorithm)) as publisher:
                async with checking(publisher) as authenticator:
                    identity = await ask(authenticator, shown(algorithm=algorithm))

                    assert identity.user == "alice"
                    assert publisher.asked == ["/keys"]

        run(main())

    def test_no_proxy_comes_between_where_nothing_is_encrypted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is on this machine is asked directly: a proxy could put in keys of its own."""

        async def main() -> None:
            with publishing(key()) as publisher, publishing() as proxy:
                monkeypatch.setenv("http_proxy", proxy.address.removesuffix("/keys"))
                monkeypatch.delenv("no_proxy", raising=False)
                async with checking(publisher) as authenticator:
                    assert (await ask(authenticator, shown())).user == "alice"
                    assert (publisher.asked, proxy.asked) == (["/keys"], [])

        run(main())

    def test_many_tokens_are_one_fetch(self) -> None:
        async def main() -> None:
            with publishing(key()) as publisher:
                publisher.free.clear()
                async with checking(publisher) as authenticator:
                    asking = [asyncio.ensure_future(ask(authenticator, shown(jti=str(n)))) for n in range(50)]
                    await eventually(lambda: publisher.asked)
                    publisher.free.set()
                    await asyncio.gather(*asking)
                    for _ in range(50):
                        await ask(authenticator, shown())

                    assert publisher.asked == ["/keys"]

        run(main())

    def test_a_known_key_makes_nobody_wait(self) -> None:
        """Also while new keys are being fetched: the old ones serve."""

        async def main() -> None:
            with publishing(key()) as publisher:
                async with checking(publisher, interval=0.01) as authenticator:
                    await ask(authenticator, shown())
                    publisher.free.clear()
                    before = len(publisher.asked)
                    await eventually(lambda: len(publisher.asked) > before)

                    with pytest.raises(StopIteration):
                        authenticator.identify(shown(), NOW).send(None)

        run(main())

    def test_it_can_be_stepped(self) -> None:
        """The hub runs it on the spot, outside any task, and makes a task of what waits."""

        async def main() -> None:
            with publishing(key()) as publisher:
                async with checking(publisher) as authenticator:
                    found: list[Identity] = []

                    async def look() -> None:
                        found.append(await authenticator.identify(shown(), NOW))

                    rest = step(look())
                    assert rest is not None
                    async with asyncio.timeout(20):
                        await asyncio.get_running_loop().create_task(rest)

                    assert found[0].user == "alice"

        run(main())

    def test_it_ends_while_it_fetches(self) -> None:
        """Nobody waits for a network that is gone."""

        async def main() -> None:
            with publishing(key()) as publisher:
                publisher.free.clear()
                async with checking(publisher) as authenticator:
                    await eventually(lambda: publisher.asked)
                    waiting = asyncio.ensure_future(ask(authenticator, shown()))
                    await asyncio.sleep(0)
                    async with asyncio.timeout(2):
                        await authenticator.close()
                        await authenticator.close()
                        with pytest.raises(Unavailable):
                            await waiting

        run(main())


class TestRotation:
    """A new key is found, an old one is gone."""

    def test_an_unknown_key_is_looked_for(self) -> None:
        async def main() -> None:
            with publishing(key("a")) as publisher:
                async with checking(publisher) as authenticator:
                    await ask(authenticator, shown("a"))
                    publisher.publish(key("a"), key("b"))
                    await rested(authenticator)

                    assert (await ask(authenticator, shown("b"))).user == "alice"
                    assert len(publisher.asked) == 2

        run(main())

    def test_an_old_key_is_gone_after_the_interval(self) -> None:
        async def main() -> None:
            with publishing(key("a"), key("b")) as publisher:
                async with checking(publisher, interval=0.01) as authenticator:
                    await ask(authenticator, shown("a"))
                    publisher.publish(key("b"))
                    before = len(publisher.asked)
                    # The second request after that is one whose predecessor has been read.
                    await eventually(lambda: len(publisher.asked) >= before + 3)

                    await refused(authenticator, shown("a"))
                    assert (await ask(authenticator, shown("b"))).user == "alice"

        run(main())

    def test_unknown_keys_are_one_fetch_for_a_while(self) -> None:
        """Whoever invents names costs the issuer nothing, and is refused at once."""

        async def main() -> None:
            with publishing(key()) as publisher:
                async with checking(publisher, cooldown=60) as authenticator:
                    await ask(authenticator, shown())
                    for n in range(100):
                        await refused(authenticator, token(claims(iss=ISSUER), algorithm="HS256", kid=f"x{n}"))
                        await refused(authenticator, shown(f"a{n % 3}"))

                    assert publisher.asked == ["/keys"]

        run(main())

    def test_an_algorithm_that_the_issuer_has_not_makes_no_fetch(self) -> None:
        async def main() -> None:
            with publishing(key()) as publisher:
                async with checking(publisher) as authenticator:
                    await ask(authenticator, shown())
                    await rested(authenticator)
                    for algorithm in ("HS256", "ES384", "none"):
                        await refused(
                            authenticator, token(claims(iss=ISSUER), header={"alg": algorithm, "kid": "unknown"})
                        )

                    assert publisher.asked == ["/keys"]

        run(main())

    def test_a_forged_issuer_makes_no_request(self) -> None:
        """Neither to the address that it names, nor to the one that is configured."""

        async def main() -> None:
            with publishing(key()) as publisher, publishing(key("mine")) as canary:
                async with checking(publisher) as authenticator:
                    await ask(authenticator, shown())
                    await rested(authenticator)
                    address = canary.address.removesuffix("/keys")
                    for issuer in (
                        address,
                        canary.address,
                        address + "/",
                        ISSUER + "/",
                        ISSUER + "#" + address,
                        "",
                        None,
                    ):
                        await refused(authenticator, shown("mine", iss=issuer))

                    assert canary.asked == []
                    assert publisher.asked == ["/keys"]

        run(main())

    def test_keys_of_the_configuration_stand_beside_them(self) -> None:
        """With an issuer of their own, or the same."""

        async def main() -> None:
            mine = JwtKey(kid="m", algorithms=("HS256",), secret=SECRET, issuer=ISSUER)
            any_ = JwtKey(algorithms=("HS256",), secret="x" * 32)
            with publishing(key()) as publisher:
                async with checking(publisher, mine, any_) as authenticator:
                    for good in (shown(), token(claims(iss=ISSUER), kid="m"), token(key="x" * 32)):
                        assert (await ask(authenticator, good)).user == "alice"
                    await refused(authenticator, token(claims(iss=ISSUER), key="x" * 32))

        run(main())


def moved(publisher: Publisher, to: str) -> None:
    publisher.status, publisher.headers = 302, {"Location": to}


FAILURES: dict[str, tuple[Callable[[Publisher], None], str]] = {
    "an error": (lambda publisher: setattr(publisher, "status", 500), "the answer is 500"),
    "not there": (lambda publisher: setattr(publisher, "status", 404), "the answer is 404"),
    "a redirect": (lambda publisher: moved(publisher, "/elsewhere"), "redirects are not followed"),
    "a redirect to a file": (lambda publisher: moved(publisher, "file:///etc/passwd"), "redirects are not followed"),
    "no JSON": (lambda publisher: setattr(publisher, "body", b"<html>"), "no JSON object"),
    "a list": (lambda publisher: setattr(publisher, "body", b"[]"), "no JSON object"),
    "no keys": (lambda publisher: setattr(publisher, "body", b"{}"), "no `keys`"),
    "keys an object": (lambda publisher: setattr(publisher, "body", b'{"keys":{}}'), "no `keys`"),
    "too many": (lambda publisher: publisher.publish(*[key()] * 101), "more than 100"),
    "too large": (lambda publisher: publisher.publish(key(x="x" * 262_144)), "more than 262144 bytes"),
    "deep": (lambda publisher: setattr(publisher, "body", b"[" * 100_000), "no JSON object"),
    "empty": (lambda publisher: setattr(publisher, "body", b""), "no JSON object"),
}


class TestFailing:
    """The old keys go on, nobody gets in with others, and the log has a line."""

    @pytest.mark.parametrize("name", FAILURES)
    def test_old_keys_are_kept(self, name: str, caplog: pytest.LogCaptureFixture) -> None:
        """However often it fails: one warning, without the address; and one line when it is over."""
        caplog.set_level(logging.INFO, "hubbub.auth")
        fail, reason = FAILURES[name]

        async def main() -> None:
            with publishing(key("a")) as publisher:
                async with checking(publisher, cooldown=0.01) as authenticator:
                    (source,) = authenticator._sources
                    await ask(authenticator, shown("a"))
                    await rested(authenticator)
                    fail(publisher)
                    await refused(authenticator, shown("b"))
                    assert source._failing
                    await rested(authenticator)
                    await refused(authenticator, shown("b"))
                    assert (await ask(authenticator, shown("a"))).user == "alice"
                    assert set(publisher.asked) == {"/keys"}
                    publisher.publish(key("b"))
                    await eventually(lambda: not source._failing)

                    assert (await ask(authenticator, shown("b"))).user == "alice"
                    warning, info = (record.getMessage() for record in caplog.records)
                    assert warning == f"the keys of {ISSUER} cannot be fetched: {warning.split(': ')[1]}"
                    assert reason in warning and "the old ones go on" in warning and "127.0.0.1" not in warning
                    assert info == f"the keys of {ISSUER} can be fetched again"

        run(main())

    @pytest.mark.parametrize("name", FAILURES)
    def test_without_keys_nothing_can_be_told(self, name: str) -> None:
        """`Unavailable`, and not `unauthorized`: the token may be good."""

        async def main() -> None:
            with publishing() as publisher:
                FAILURES[name][0](publisher)
                async with checking(publisher, cooldown=60) as authenticator:
                    await settled(authenticator)
                    with pytest.raises(Unavailable) as caught:
                        await ask(authenticator, shown())

                    assert caught.value.retry_after == 60

        run(main())

    def test_nobody_listens(self) -> None:
        async def main() -> None:
            with publishing() as publisher:
                pass
            async with checking(publisher, cooldown=60) as authenticator:
                await settled(authenticator)
                with pytest.raises(Unavailable):
                    await ask(authenticator, shown())

        run(main())

    def test_it_is_tried_again_by_itself(self) -> None:
        async def main() -> None:
            with publishing(key()) as publisher:
                publisher.status = 503
                async with checking(publisher, cooldown=0.01) as authenticator:
                    await eventually(lambda: len(publisher.asked) > 2)
                    publisher.status = 200
                    (source,) = authenticator._sources
                    await eventually(lambda: source.keys)

                    assert (await ask(authenticator, shown())).user == "alice"

        run(main())

    def test_no_keys_are_an_answer(self, caplog: pytest.LogCaptureFixture) -> None:
        """An issuer that takes all keys back means it; the log says so."""

        async def main() -> None:
            with publishing(key()) as publisher:
                async with checking(publisher, interval=0.01) as authenticator:
                    await ask(authenticator, shown())
                    publisher.publish()
                    (source,) = authenticator._sources
                    await eventually(lambda: source.keys == ())

                    await refused(authenticator, shown())
                assert "publishes no key" in caplog.text

        run(main())


USELESS: dict[str, Any] = {
    "null": None,
    "a list": [],
    "nothing in it": {},
    "a secret": {"kty": "oct", "k": "AAAA", "kid": "a"},
    "no kind": key(kty=None),
    "a kind that is a list": key(kty=["EC"]),
    "a name that is a number": key(kid=1),
    "called a secret": key(kty="oct"),
    "called another kind": key(kty="RSA"),
    "for encryption": key(use="enc"),
    "for a number": key(use=1),
    "for signing only": key(key_ops=["sign"]),
    "operations that are text": key(key_ops="verify"),
    "another algorithm": key(alg="ES384"),
    "HS256": key(alg="HS256"),
    "algorithms": key(alg=["ES256"]),
    "EC without x": key(x=None),
    "EC with a number": key(x=1),
    "EC too short": key(x="AAAA"),
    "EC no base64": key(x="!"),
    "EC another curve": key(crv="P-384"),
    "EC a curve that is not allowed": key(crv="secp256k1"),
    "EC private": key(d="AAAA"),
    "EC of another algorithm": key(algorithm="ES384"),
    "RSA too small": key(algorithm="RS256", n="x" * 171),
    "RSA tiny": key(algorithm="RS256", n="AQAB"),
    "RSA empty": key(algorithm="RS256", n=""),
    "RSA exponent 0": key(algorithm="RS256", e="AA"),
    "RSA exponent 1": key(algorithm="RS256", e="AQ"),
    "Ed25519 too short": key(algorithm="EdDSA", x="AAAA"),
    "X25519": key(algorithm="EdDSA", crv="X25519"),
}


class TestKeys:
    """Of a set, those that can sign; the others are as if they were not there (RFC 7517 §5)."""

    @pytest.mark.parametrize("name", USELESS)
    def test_what_cannot_sign_is_passed_over(self, name: str) -> None:
        """And does not keep the good ones out."""
        data = json.dumps({"keys": [USELESS[name], key("good")]}).encode()
        found = keys_in(data, ("RS256", "ES256", "EdDSA"), ISSUER, "")

        assert [one.kid for one in found] == ["good"]

    @pytest.mark.parametrize(
        ("more", "algorithms"),
        [
            ({}, ("RS256", "PS256")),
            ({"alg": "PS256"}, ("PS256",)),
            ({"use": "sig", "key_ops": ["verify"]}, ("RS256", "PS256")),
        ],
    )
    def test_a_key_is_used_as_it_says(self, more: dict[str, Any], algorithms: tuple[str, ...]) -> None:
        """And never otherwise than is configured."""
        data = json.dumps({"keys": [key(algorithm="RS256", **more)]}).encode()
        (found,) = keys_in(data, ("RS256", "PS256", "ES256"), ISSUER, "")

        assert found.algorithms == algorithms
