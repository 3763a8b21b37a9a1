"""A key that is too weak, of the wrong kind or no key at all is refused at the start, in a sentence with the remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hubbub.auth.claims import is_name
from hubbub.auth.jwt import JwtAuthenticator
from hubbub.auth.options import AuthOptions, JwtKey
from hubbub.config import load
from hubbub.errors import ConfigError
from hubbub.protocol import conversation
from support.tokens import ISSUER, SECRET, jwk, private_pem, public_pem

PEM = public_pem("RS256")

# Enough of a certificate to look like one.
CERTIFICATE = "-----BEGIN CERTIFICATE-----\n" + "QUFB" * 20 + "\n-----END CERTIFICATE-----\n"

SSH = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGmZrNOvbRMYpZS0BJvD0zJVHvVqcJ0nJSPa4hmyUvz/ alice@example"


def said(*keys: JwtKey, **options: Any) -> str:
    """Why a server with these keys does not start: one sentence."""
    with pytest.raises(ConfigError) as caught:
        JwtAuthenticator(AuthOptions(jwt_keys=keys, **options))
    sentence = str(caught.value)

    assert "\n" not in sentence
    assert SECRET not in sentence and "BEGIN RSA" not in sentence
    return sentence


def starts(options: AuthOptions) -> None:
    """A server with these options starts."""
    JwtAuthenticator(options)


def key(*algorithms: str, **more: str) -> JwtKey:
    return JwtKey(algorithms=algorithms, **more)


class TestSecrets:
    """Long, and not what everybody knows."""

    @pytest.mark.parametrize("secret", ["x", "x" * 31, "ü" * 15])
    def test_a_short_secret_is_refused_with_the_way_to_make_one(self, secret: str) -> None:
        """32 bytes for HS256, and not characters."""
        sentence = said(jwt_secret=secret)

        assert sentence.startswith("jwt_secret ") and "openssl rand -hex 32" in sentence
        assert said(key("HS256", secret=secret)).startswith("jwt_keys[0] ")
        starts(AuthOptions(jwt_secret="ü" * 16))

    @pytest.mark.parametrize(("algorithm", "size"), [("HS256", 32), ("HS384", 48), ("HS512", 64)])
    def test_as_long_as_the_hash(self, algorithm: str, size: int) -> None:
        """RFC 7518 §3.2."""
        assert f"must have {size}" in said(key(algorithm, secret="x" * (size - 1)))
        starts(AuthOptions(jwt_keys=(key(algorithm, secret="x" * size),)))

    def test_the_longest_of_several_counts(self) -> None:
        assert "must have 64" in said(key("HS256", "HS512", secret="x" * 32))

    @pytest.mark.parametrize(
        "secret",
        [PEM, private_pem("ES256"), CERTIFICATE, SSH, json.dumps(jwk("RS256")), json.dumps({"keys": [jwk("RS256")]})],
        ids=["public", "private", "certificate", "SSH", "JWK", "JWK set"],
    )
    def test_a_key_or_a_certificate_is_no_secret(self, secret: str, tmp_path: Path) -> None:
        """Whoever knows it could sign: as an option, in a key, and in a file."""
        file = tmp_path / "secret"
        file.write_text(secret)
        for sentence in (
            said(jwt_secret=secret),
            said(key("HS256", secret=secret)),
            said(key("HS512", file=str(file))),
        ):
            assert "no secret" in sentence and "public_key" in sentence

    def test_the_end_of_a_files_line_is_not_the_secrets(self, tmp_path: Path) -> None:
        """`openssl rand -hex 32 > secret` writes one."""
        file = tmp_path / "secret"
        file.write_text("x" * 31 + "\n")

        assert "31 bytes" in said(key("HS256", file=str(file)))


class TestPublicKeys:
    """PEM, strong enough, and for the algorithms that are named."""

    @pytest.mark.parametrize(
        ("text", "remedy"),
        [
            ("nonsense", "BEGIN PUBLIC KEY"),
            (SSH, "BEGIN PUBLIC KEY"),
            ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "openssl pkey -pubout"),
            (PEM[:200], "BEGIN PUBLIC KEY"),
            (json.dumps(jwk("RS256")), "BEGIN PUBLIC KEY"),
            (CERTIFICATE, "openssl x509 -pubkey"),
            (private_pem("RS256"), "openssl pkey -pubout"),
        ],
        ids=["nonsense", "SSH", "empty", "half", "JWK", "certificate", "private"],
    )
    def test_what_is_no_public_key(self, text: str, remedy: str, tmp_path: Path) -> None:
        file = tmp_path / "key.pem"
        file.write_text(text)

        assert remedy in said(key("RS256", public_key=text))
        assert remedy in said(key("RS256", file=str(file)))

    @pytest.mark.parametrize(
        ("algorithm", "of"),
        [
            ("RS256", "ES256"),
            ("PS512", "EdDSA"),
            ("ES256", "RS256"),
            ("ES256", "ES384"),
            ("ES384", "ES256"),
            ("ES512", "ES384"),
            ("ES256", "ES256K"),
            ("EdDSA", "ES256"),
            ("EdDSA", "RS256"),
        ],
    )
    def test_the_key_fits_the_algorithm(self, algorithm: str, of: str) -> None:
        sentence = said(key(algorithm, public_key=public_pem(of)))

        assert "does not fit" in sentence and algorithm in sentence

    def test_a_small_rsa_key_is_refused(self) -> None:
        """Fewer than 2048 bits can be broken."""
        sentence = said(key("RS256", public_key=public_pem("weak")))

        assert "1024 bits" in sentence and "2048" in sentence

    def test_a_key_that_fits_one_of_two_does_not_fit(self) -> None:
        assert "ES384" in said(key("ES256", "ES384", public_key=public_pem("ES256")))


class TestOneKey:
    """Named algorithms, and one place where the key is."""

    @pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "", "hs256", "HS1", "RSA", "ES256K", "ES521", "*"])
    def test_an_algorithm_that_there_is_not(self, algorithm: str) -> None:
        """`none` never is."""
        assert "HS256, " in said(key(algorithm, secret=SECRET))
        assert "HS256, " in said(key("HS256", algorithm, secret=SECRET))

    def test_a_secret_is_no_public_key(self) -> None:
        assert "at once" in said(key("HS256", "RS256", secret=SECRET))
        assert "need a secret" in said(key("HS256", public_key=PEM))
        assert "need a public key" in said(key("RS256", secret=SECRET))

    def test_one_place(self) -> None:
        assert "only one" in said(key("HS256"))
        assert "only one" in said(key("HS256", secret=SECRET, file="secret"))
        assert "only one" in said(key("RS256", public_key=PEM, jwks_url="https://issuer.test"))

    def test_a_file_that_cannot_be_read(self, tmp_path: Path) -> None:
        (tmp_path / "large").write_bytes(bytes(65_537))

        assert "No such file" in said(key("RS256", file=str(tmp_path / "missing")))
        assert "smaller" in said(key("RS256", file=str(tmp_path / "large")))

    def test_a_key_of_several_is_named(self) -> None:
        good = key("HS256", secret=SECRET, kid="a")

        assert said(good, key("HS256", secret="x")).startswith("jwt_keys[1] ")
        assert said(good, key("HS256", secret="x", kid="b")).startswith("the key 'b' of jwt_keys ")


class TestSeveralKeys:
    """Each can be told from the others."""

    def test_two_of_one_name(self) -> None:
        a = key("HS256", secret=SECRET, kid="a")

        assert "two JWT keys have the kid 'a'" in said(a, key("HS512", secret=SECRET, kid="a"))
        assert f"of {ISSUER} have the kid 'a'" in said(a, key("HS256", secret=SECRET, kid="a"), jwt_issuer=ISSUER)
        assert "of its own" in said(a, key("HS256", secret=SECRET, kid="a", issuer=ISSUER), jwt_issuer=ISSUER)
        starts(AuthOptions(jwt_keys=(a, key("HS256", secret=SECRET, kid="a", issuer=ISSUER))))

    def test_two_without_a_name(self) -> None:
        assert "no kid" in said(key("HS256", secret=SECRET), key("HS512", secret=SECRET))
        assert "no kid" in said(key("HS256", secret=SECRET), jwt_secret=SECRET)


class TestPublished:
    """Keys are fetched from where nobody can put in others."""

    @pytest.mark.parametrize(
        "url",
        [
            "http://issuer.test/keys",
            "http://localhost.issuer.test/keys",
            "http://127.0.0.1.issuer.test/keys",
            "http://127.0.0.1@issuer.test/keys",
            "http://10.0.0.1/keys",
            "http://0.0.0.0/keys",
            "ftp://issuer.test/keys",
            "file:///etc/keys",
            "file://localhost/etc/keys",
            "data:application/json,{}",
            "https:///keys",
            "https://[::1/keys",
            "https://issuer.test:port/keys",
            "issuer.test/keys",
        ],
    )
    def test_only_https(self, url: str) -> None:
        assert "https://" in said(key("RS256", jwks_url=url, issuer=ISSUER))

    @pytest.mark.parametrize(
        "url", ["https://issuer.test/keys", "http://localhost:1/keys", "http://127.0.0.1:1/", "http://[::1]:1/keys"]
    )
    def test_or_this_machine(self, url: str) -> None:
        starts(AuthOptions(jwt_keys=(key("RS256", jwks_url=url, issuer=ISSUER),)))
        starts(AuthOptions(jwt_keys=(key("RS256", jwks_url=url),), jwt_issuer=ISSUER))

    def test_what_goes_with_it(self) -> None:
        url = "https://issuer.test/keys"
        published = key("RS256", jwks_url=url, issuer=ISSUER)

        assert "no issuer" in said(key("RS256", jwks_url=url))
        assert "names of their own" in said(key("RS256", jwks_url=url, issuer=ISSUER, kid="a"))
        assert "no secrets" in said(key("HS256", jwks_url=url, issuer=ISSUER))
        assert "an issuer has one" in said(published, published)


class TestConfiguration:
    """A list of tables in the file, JSON elsewhere; what is wrong in it is said without what it says."""

    def test_tables_in_the_file(self, tmp_path: Path) -> None:
        file = tmp_path / "hubbub.toml"
        file.write_text(
            f'jwt_issuer = "{ISSUER}"\n[[jwt_keys]]\nkid = "a"\nalgorithms = ["RS256", "PS256"]\n'
            f"public_key = '''\n{PEM}'''\n[[jwt_keys]]\nkid = \"b\"\nalgorithms = [\"HS256\"]\nsecret = \"{SECRET}\"\n",
            encoding="utf-8",
        )
        options = load({}, {}, file).auth

        assert [one.kid for one in options.jwt_keys] == ["a", "b"]
        starts(options)

    def test_json_elsewhere(self) -> None:
        given = msgspec.json.encode([{"kid": "a", "algorithms": ["HS256"], "secret": SECRET}]).decode()

        assert load({}, {"HUBBUB_JWT_KEYS": given}).auth.jwt_keys == (key("HS256", kid="a", secret=SECRET),)
        assert load({"jwt_keys": given}, {}).auth.jwt_keys == (key("HS256", kid="a", secret=SECRET),)

    @pytest.mark.parametrize(
        ("given", "part"),
        [
            ('[{"secret": "canary"}]', "algorithms"),
            ('[{"algorithms": [], "secret": "canary"}]', "algorithms"),
            ('[{"algorithms": "HS256", "secret": "canary"}]', "algorithms"),
            ('[{"algorithms": ["HS256"], "secrat": "canary"}]', "secrat"),
            ('[{"algorithms": ["HS256"], "secret": ["canary"]}]', "secret"),
            ('[{"algorithms": ["HS256"], "secret": "canary"}', "truncated"),
            ("canary", "object"),
        ],
    )
    def test_what_is_wrong_is_said_without_the_secret(self, given: str, part: str) -> None:
        with pytest.raises(ConfigError) as caught:
            load({}, {"HUBBUB_JWT_KEYS": given})

        assert part in str(caught.value)
        assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "value", ["", "a", "x" * 128, "x" * 129, "a\n", "\x7f", "\x9f", "\xa0", "😀", "\ud800", None, 1, True, b"a", ["a"]]
)
def test_a_name_is_what_the_protocol_says(value: object) -> None:
    """The rule stands twice, because who checks tokens knows nothing of the wire."""
    assert is_name(value) == conversation.is_name(value)
