"""JWT from end to end: a command makes a token, a server with the same configuration takes it, and no other."""

from __future__ import annotations

import base64
import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from support.client import FULL, connect, open_client
from support.loop import run
from support.server import Child, command, serving
from support.tokens import SECRET, claims, jwk, private_key, public_pem, publishing, token

OTHER_SECRET = "another secret, which is as long as it has to be"


async def made(*arguments: str, cwd: Path | None = None, **variables: str) -> str:
    """What `hubbub token` prints, which is a token and nothing else."""
    status, out, errors = await command("token", *arguments, cwd=cwd, **variables)

    assert (status, errors) == (0, "")
    assert out.count("\n") == 1 and out.count(".") == 2
    return out.strip()


async def fails(*arguments: str, cwd: Path | None = None, **variables: str) -> str:
    """Run `hubbub`, which must say in one sentence why not, and nothing of the secret."""
    status, out, errors = await command(*arguments, cwd=cwd, **variables)

    assert (status, out) == (2, "")
    assert errors.startswith("hubbub: ") and errors.count("\n") == 1
    assert SECRET not in errors
    return errors


def parts(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The header and the claims."""
    header, payload, _ = token.split(".")
    return json.loads(base64.urlsafe_b64decode(header + "==")), json.loads(base64.urlsafe_b64decode(payload + "=="))


class TestCommand:
    """`hubbub token` and `hubbub serve` mean the same by the same configuration."""

    def test_its_token_lets_its_user_in(self) -> None:
        """From the variable, on each way; the server's log has nothing of it."""

        async def main() -> None:
            good = await made("alice", HUBBUB_JWT_SECRET=SECRET)
            other = await made("alice", HUBBUB_JWT_SECRET=OTHER_SECRET)
            async with Child.spawned("--log-level", "debug", HUBBUB_JWT_SECRET=SECRET) as child:
                async with (
                    connect(child.address, None, query=f"token={good}") as plain,
                    connect(child.address, None, subprotocols=[FULL]) as full,
                ):
                    await full.send({"type": "hello", "token": good})
                    assert (await full.expect("welcome"))["user"] == "alice"
                    await plain.say("it is me", to="alice")
                    assert (await full.expect("chat"))["from"] == "alice"
                for query in (f"token={other}", ""):
                    with pytest.raises(InvalidStatus) as refused:
                        await open_client(child.address, None, query=query)
                    assert refused.value.response.status_code == 401
                child.signal(signal.SIGTERM)

                assert await child.exit_status() == 0
                logged = child.logged()
                assert "a token was refused: its signature is wrong" in logged
                assert all(part not in logged for part in (*good.split("."), *other.split("."), SECRET))

        run(main())

    def test_from_the_file(self, tmp_path: Path) -> None:
        """With the issuer, the audience and the name that stand there."""
        (tmp_path / "secret").write_text(SECRET + "\n")
        (tmp_path / "hubbub.toml").write_text(
            'jwt_issuer = "https://me.test"\njwt_audience = "chat"\njwt_user_claim = "user"\n[[jwt_keys]]\n'
            f'kid = "public"\nalgorithms = ["ES256"]\npublic_key = """{public_pem("ES256")}"""\n'
            '[[jwt_keys]]\nkid = "mine"\nalgorithms = ["HS512", "HS256"]\nfile = "secret"\n'
        )

        async def main() -> None:
            good = await made("alice", cwd=tmp_path)
            header, said = parts(good)
            assert header == {"alg": "HS512", "typ": "JWT", "kid": "mine"}
            assert {name: said[name] for name in ("user", "iss", "aud")} == {
                "user": "alice",
                "iss": "https://me.test",
                "aud": "chat",
            }
            async with (
                Child.spawned(cwd=tmp_path) as child,
                connect(child.address, None, query=f"token={good}") as alice,
            ):
                await alice.say("hi")
                assert (await alice.expect("chat"))["from"] == "alice"

        run(main())

    def test_what_it_says(self) -> None:
        async def main() -> None:
            grants = '{"game:*":["join","publish"]}'
            arguments = ("ålice", "--role", "admin", "--role", "editor", "--rooms", grants, "--expires", "15m")
            more = ("--issuer", "me", "--audience", "you")
            _, said = parts(await made(*arguments, *more, "--jwt-secret", SECRET))

            assert abs(said.pop("iat") - time.time()) < 60
            assert abs(said.pop("exp") - time.time() - 900) < 60
            assert said == {
                "sub": "ålice",
                "iss": "me",
                "aud": "you",
                "roles": ["admin", "editor"],
                "rooms": {"game:*": ["join", "publish"]},
            }

        run(main())

    @pytest.mark.parametrize(
        ("text", "seconds"), [("30", 30), ("30s", 30), ("2m", 120), ("1h", 3_600), ("7d", 604_800)]
    )
    def test_how_long_it_is_good(self, text: str, seconds: int) -> None:
        async def main() -> None:
            _, said = parts(await made("alice", "--expires", text, HUBBUB_JWT_SECRET=SECRET))

            assert said["exp"] - said["iat"] == seconds

        run(main())

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            ((), "the following arguments are required: USER"),
            (("alice", "--expires", "soon"), "--expires must be"),
            (("alice", "--expires", "0"), "--expires must be"),
            (("alice", "--expires", "-1h"), "--expires"),
            (("alice", "--expires", "31d"), "longer than token_age allows"),
            (("",), "no user's id"),
            (("a\nb",), "no user's id"),
            (("x" * 129,), "no user's id"),
            (("alice", "--role", ""), "roles are no names"),
            (("alice", "--rooms", "lobby"), "--rooms must be JSON"),
            (("alice", "--rooms", '{"lobby":["own"]}'), "join, publish, history, presence"),
            (("alice", "--rooms", json.dumps({f"r{n}": [] for n in range(101)})), "more than 100"),
            (("alice", "--jwt-secret", "short"), "openssl rand -hex 32"),
            (("alice", "--jwt-secrat", SECRET), "did you mean --jwt-secret?"),
            (("alice", "--jwt-leeway", "x"), "--jwt-leeway"),
        ],
        ids=lambda value: "" if isinstance(value, str) else " ".join(value)[:40].encode("unicode_escape").decode(),
    )
    def test_what_it_cannot_make_is_one_sentence(self, arguments: tuple[str, ...], says: str) -> None:
        """What the server would refuse it does not make."""

        async def main() -> None:
            assert says in await fails("token", *arguments, HUBBUB_JWT_SECRET=SECRET)

        run(main())

    def test_without_a_secret_it_says_how_to_make_one(self) -> None:
        async def main() -> None:
            errors = await fails("token", "alice")
            assert "openssl rand -hex 32" in errors and "HUBBUB_JWT_SECRET" in errors
            keys = json.dumps([{"algorithms": ["ES256"], "public_key": public_pem("ES256")}])
            assert "only check tokens" in await fails("token", "alice", HUBBUB_JWT_KEYS=keys)

        run(main())


class TestServer:
    """Keys are a way in; one that cannot be is said at the start."""

    def test_without_any_way_in_it_does_not_start(self) -> None:
        async def main() -> None:
            assert "HUBBUB_JWT_SECRET" in await fails("serve", "--port", "0")

        run(main())

    @pytest.mark.parametrize("dev", [(), ("--dev",)])
    def test_a_weak_secret_does_not_start(self, dev: tuple[str, ...]) -> None:
        async def main() -> None:
            errors = await fails("serve", "--port", "0", *dev, HUBBUB_JWT_SECRET="canary")
            assert "6 bytes" in errors and "openssl rand -hex 32" in errors and "canary" not in errors

        run(main())

    def test_keys_that_an_issuer_publishes(self) -> None:
        """Fetched at the start; a token of a stranger is refused, whatever it names."""

        async def main() -> None:
            issuer = "https://issuer.test"
            with publishing(jwk("ES256", kid="a")) as publisher, publishing(jwk("ES256", "mine", kid="m")) as canary:
                keys = [{"algorithms": ["ES256"], "jwks_url": publisher.address, "issuer": issuer}]
                now = int(time.time())
                said = {"iat": now, "exp": now + 60}
                async with serving(dev=False, jwt_keys=json.dumps(keys)) as server:
                    good = token(claims(iss=issuer, **said), algorithm="ES256", key=private_key("ES256"), kid="a")
                    async with connect(server.address, None, query=f"token={good}") as alice:
                        await alice.say("hi")
                        assert (await alice.expect("chat"))["from"] == "alice"
                    for forged in (canary.address, issuer):
                        mine = private_key("ES256", "mine")
                        bad = token(claims(iss=forged, **said), algorithm="ES256", key=mine, kid="m")
                        with pytest.raises(InvalidStatus) as refused:
                            await open_client(server.address, None, query=f"token={bad}")
                        assert refused.value.response.status_code == 401

                    assert canary.asked == []
                    assert publisher.asked == ["/keys"]

        run(main())

    def test_while_there_are_no_keys_it_says_later(self) -> None:
        """503 and not 401: the client comes again."""

        async def main() -> None:
            with publishing() as publisher:
                publisher.status = 500
                keys = [{"algorithms": ["ES256"], "jwks_url": publisher.address, "issuer": "me"}]
                now = int(time.time())
                async with serving(dev=False, jwt_keys=json.dumps(keys)) as server:
                    good = token(
                        claims(iss="me", iat=now, exp=now + 60), algorithm="ES256", key=private_key("ES256"), kid="a"
                    )
                    with pytest.raises(InvalidStatus) as refused:
                        await open_client(server.address, None, query=f"token={good}")
                    response = refused.value.response

                    assert (response.status_code, response.headers["Retry-After"]) == (503, "10")

        run(main())
