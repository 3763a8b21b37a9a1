"""What the operator sees: one sentence for a mistake, a line when it is ready, and no secret in any log."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from support.client import FULL, connect, open_client
from support.loop import run
from support.server import Child, command, get


@contextlib.contextmanager
def listening() -> Iterator[int]:
    """A port that is taken."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


async def fails(*arguments: str, cwd: Path | None = None) -> str:
    """Run `hubbub`, which must say in one sentence why not and exit with 2."""
    status, out, errors = await command(*arguments, cwd=cwd)

    assert status == 2, (status, errors)
    assert out == ""
    assert errors.startswith("hubbub: ") and errors.count("\n") == 1 and errors.endswith("\n"), errors
    return errors


def test_a_port_in_use_is_said_with_the_remedy() -> None:
    async def main() -> None:
        with listening() as port:
            errors = await fails("serve", "--dev", "--port", str(port))

            assert f":{port}" in errors and "in use" in errors and "--port" in errors

    run(main())


def test_an_address_that_is_not_ours_is_said_with_the_remedy() -> None:
    async def main() -> None:
        errors = await fails("serve", "--dev", "--port", "0", "--host", "192.0.2.1")

        assert "192.0.2.1" in errors and "--host" in errors

    run(main())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--port", "http"), "--port"),
        (("--port", "65536"), "--port"),
        (("--port", "-1"), "--port"),
        (("--message-size", "1"), "--message-size"),
        (("--overflow", "explode"), "--overflow"),
        (("--log-level", "loud"), "--log-level"),
        (("--ping-interval", "0"), "--ping-interval"),
        (("--ping-interval", "90"), "silence_limit"),
        (("--config", "missing.toml"), "missing.toml"),
        (("--no-such-option", "1"), "--no-such-option"),
        (("--prot", "9000"), "did you mean --port? (`hubbub serve --help`"),
        (("--prot=9000",), "there is no option --prot:"),
        (("--engine", "mysql://hub:secret@localhost"), "there is no engine of this kind: begin its URL with nats://"),
        (("--nats-prefix", "a b"), "'^[A-Za-z0-9_-]{1,32}$'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_wrong_option_is_one_sentence(arguments: tuple[str, ...], says: str) -> None:
    """It names the option; the exit status is 2."""

    async def main() -> None:
        assert says in await fails("serve", "--dev", *arguments)

    run(main())


def test_a_wrong_key_in_the_file_is_one_sentence(tmp_path: Path) -> None:
    """With what was probably meant."""
    (tmp_path / "hubbub.toml").write_text("prot = 1\n")

    async def main() -> None:
        assert "did you mean port?" in await fails("serve", "--dev", cwd=tmp_path)

    run(main())


def test_a_misspelt_variable_is_one_line_in_the_log() -> None:
    """It cannot be refused, for Kubernetes and others set such as well; its value may be anything, and is not shown."""

    async def main() -> None:
        async with Child.spawned(
            "--dev", HUBBUB_PROT="canary", HUBBUB_SERVICE_HOST="10.0.0.1", HUBBUB_VERSION="1"
        ) as child:
            await get(child.address, "/health")
            child.signal(signal.SIGTERM)
            await child.exit_status()
            (line,) = child.errors().splitlines()

            assert "HUBBUB_PROT" in line and "HUBBUB_PORT" in line and "WARNING" in line
            assert "canary" not in line

    run(main())


def test_serve_says_where_it_is_and_what_dev_means() -> None:
    """The address on standard output, before anyone connects; nothing on standard error."""

    async def main() -> None:
        async with Child.spawned("--dev") as child:
            assert (await get(child.address, "/ready")).json() == {"status": "ready"}
            child.signal(signal.SIGTERM)
            assert child.process.stdout is not None
            hints = (await child.process.stdout.read()).decode()

            # Whatever is named can be typed where it stands.
            assert ("hubbub connect" if shutil.which("hubbub") else "python -m hubbub connect") in hints
            assert "wscat" in hints and "?user_id=alice" in hints and "anyone may be anyone" in hints
            assert await child.exit_status() == 0
            assert child.errors() == ""

    run(main())


APP = """
from hubbub import Credentials, Hub, Message, Reject

hub = Hub()


@hub.authenticate
async def who(credentials: Credentials) -> str | None:
    if credentials.token == "canary-token-failing":
        raise RuntimeError("on purpose")
    return "alice" if credentials.token == "canary-token-good" else None


@hub.on("explode")
async def explode(message: Message[str]) -> None:
    raise RuntimeError("on purpose")


@hub.on("slow")
async def slow(message: Message[str]) -> None:
    import asyncio

    await asyncio.sleep(60)
"""


def test_the_log_has_no_token_and_no_content(tmp_path: Path) -> None:
    """At the level `debug`, whatever goes wrong: canaries in tokens, cookies, queries and messages stay out."""
    (tmp_path / "app.py").write_text(APP)

    async def main() -> None:
        arguments = ("app", "--log-level", "debug", "--hook-timeout", "0.3", "--message-size", "1000")
        async with Child.spawned(*arguments, cwd=tmp_path) as child:
            for token in ("wrong", "failing"):
                for options in (
                    {"headers": {"Authorization": f"Bearer canary-token-{token}"}},
                    {"query": f"token=canary-token-{token}"},
                    {"subprotocols": [FULL, f"bearer.canary-token-{token}"]},
                ):
                    with pytest.raises(InvalidStatus):
                        await open_client(child.address, None, **options)
                async with connect(child.address, None, subprotocols=[FULL]) as stranger:
                    await stranger.send({"type": "hello", "token": f"canary-token-{token}"})
                    await stranger.expect("error")
                    await stranger.closed()
            good = {"query": "token=canary-token-good", "headers": {"Cookie": "session=canary-cookie"}}
            async with connect(child.address, None, **good) as alice:
                await alice.send_text('{"type":"chat","content":"canary-content"')
                await alice.send({"type": "chat", "content": "canary-content", "id": []})
                await alice.send({"type": "canary-type\n"})
                await alice.say("canary-content", room="canary-room")
                await alice.send({"type": "auth", "token": "canary-token-failing"})
                for kind in ("explode", "slow"):
                    await alice.send({"type": kind, "content": "canary-content", "id": kind})
                    await alice.expect("error", id=kind)
                await alice.raw.send("canary-content" * 100)
                assert (await alice.closed())[0] == 1009
            await get(child.address, "/ws?token=canary-token-bad", "Connection: close")
            await get(child.address, "/canary-path?token=canary-token-bad", "Connection: close")
            child.signal(signal.SIGTERM)

            assert await child.exit_status() == 0
            errors = child.errors()
            # The failures are there, for whoever has to find them.
            assert errors.count("on purpose") >= 3 and "took too long" in errors
            assert "canary" not in errors

    run(main())


def test_two_servers_at_once_keep_apart() -> None:
    """A free port each; users of one are not known to the other."""

    async def main() -> None:
        async with (
            Child.spawned("--dev") as one,
            Child.spawned("--dev") as other,
            connect(one.address, "alice") as alice,
            connect(other.address, "bob") as bob,
        ):
            await alice.say("hi")
            await alice.expect("chat")
            await asyncio.sleep(0)

            assert one.address != other.address
            assert await bob.sync() == []
            assert (await bob.ask("users", ids=["alice"]))["users"]["alice"]["online"] is False

    run(main())
