"""A server that is killed and started again on its data has lost nothing: its clients notice a cut, and no more."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hubbub import Hub, Reject
from hubbub.hub.session import Session
from support.client import Client, Message, connect
from support.loop import run
from support.server import Child, command, serving


@contextlib.asynccontextmanager
async def killed_later(folder: Path, *arguments: str) -> AsyncIterator[Child]:
    """A server on `folder`, killed with SIGKILL at the end of the block."""
    async with Child.spawned("--dev", "--data", str(folder), *arguments) as child:
        yield child
        child.signal(signal.SIGKILL)
        await child.exit_status()


def contents(messages: list[Message], **fields: Any) -> list[Any]:
    return [
        message["content"]
        for message in messages
        if message["type"] == "chat" and all(message.get(name) == value for name, value in fields.items())
    ]


async def say_all(speaker: Client, *contents: object, **fields: Any) -> None:
    """Say each of `contents` with an id, and wait until it is acknowledged."""
    for content in contents:
        await speaker.say(content, id=f"{fields}-{content}", **fields)
        await speaker.expect("ack", id=f"{fields}-{content}")


WHERE: dict[str, dict[str, Any]] = {"all": {}, "lobby": {"room": "lobby"}, "inbox": {"to": "alice"}}


def test_who_comes_back_after_a_kill_has_missed_nothing(tmp_path: Path) -> None:
    """Inbox, `all` and rooms are recovered from where the client was, with what was acknowledged after it had gone."""

    async def main() -> None:
        async with killed_later(tmp_path) as server, connect(server.address, "bob", full=True) as bob:
            await bob.join("lobby")
            async with connect(server.address, "alice", full=True) as alice:
                await alice.join("lobby")
                for fields in WHERE.values():
                    await say_all(bob, 1, 2, **fields)
                await alice.sync()
                at = {
                    where: max(
                        message["seq"] for message in alice.heard("chat", **{"room": None, "to": None, **fields})
                    )
                    for where, fields in WHERE.items()
                }
                epoch = alice.welcome["positions"]["all"][0]
            for fields in WHERE.values():
                await say_all(bob, 3, **fields)
        resume = {
            "inbox": [epoch, at["inbox"]],
            "all": [epoch, at["all"]],
            "rooms": {"lobby": [epoch, at["lobby"]], "den": [epoch, 0]},
        }
        async with (
            killed_later(tmp_path) as server,
            connect(server.address, "alice", full=True, hello={"resume": resume}) as alice,
            connect(server.address, "bob") as bob,
        ):
            await bob.join("lobby")
            for fields in WHERE.values():
                await say_all(bob, 4, **fields)
            told = await alice.sync()

            assert alice.welcome["recovered"] == {"inbox": True, "all": True, "rooms": {"lobby": True, "den": True}}
            for fields in WHERE.values():
                assert contents(told, **{"room": None, "to": None, **fields}) == [3, 4]

    run(main())


def test_a_retry_after_a_kill_is_a_retry(tmp_path: Path) -> None:
    """Whoever did not hear the `ack` says it again, and it is there once."""

    async def main() -> None:
        async with killed_later(tmp_path) as server, connect(server.address, "bob") as bob:
            await bob.say("once", to="alice", id="a1")
            first = await bob.expect("ack", id="a1")
        async with killed_later(tmp_path) as server, connect(server.address, "bob") as bob:
            await bob.say("once", to="alice", id="a1")
            again = await bob.expect("ack", id="a1")
            async with connect(server.address, "alice") as alice:
                told = await alice.sync()

        assert again == {**first, "duplicate": True}
        assert contents(told) == ["once"]

    run(main())


def test_each_device_catches_up_on_its_own(tmp_path: Path) -> None:
    """A phone that was away over two restarts gets from its position what the laptop has read long ago."""

    async def main() -> None:
        async with killed_later(tmp_path) as server, connect(server.address, "bob") as bob:
            await say_all(bob, 1, to="alice")
            async with connect(server.address, "alice", full=True) as phone:
                got = await phone.expect("chat")
                position = [phone.welcome["positions"]["inbox"][0], got["seq"]]
            await say_all(bob, 2, 3, to="alice")
        async with killed_later(tmp_path) as server, connect(server.address, "alice", full=True) as laptop:
            # It has no position: from where the user got to, and nobody has acknowledged anything.
            laptops = contents(await laptop.sync())
            await laptop.send({"type": "ack", "seq": 3})
            await laptop.sync()
        async with killed_later(tmp_path) as server:
            async with connect(server.address, "alice", full=True, hello={"resume": {"inbox": position}}) as phone:
                phones = contents(await phone.sync())
            async with connect(server.address, "alice") as fresh:
                nothing = contents(await fresh.sync())

        assert laptops == [1, 2, 3]
        assert phones == [2, 3]
        assert nothing == []

    run(main())


@pytest.mark.parametrize("full", [True, False], ids=["full", "plain"])
def test_an_inbox_that_overflowed_says_so_after_a_kill(tmp_path: Path, full: bool) -> None:
    """What fell out unread is named: `recovered` is false, or a `gap` comes first, and the rest follows."""

    async def main() -> None:
        async with killed_later(tmp_path, "--inbox-size", "3") as server, connect(server.address, "bob") as bob:
            await say_all(bob, 1, 2, 3, 4, 5, to="alice")
        async with (
            killed_later(tmp_path, "--inbox-size", "3") as server,
            connect(server.address, "alice", full=full) as alice,
        ):
            told = await alice.sync()

            assert contents(told) == [3, 4, 5]
            if full:
                assert alice.welcome["recovered"]["inbox"] is False
            else:
                assert {"type": "gap", "from": 1, "to": 2} in told

    run(main())


def test_a_receipt_is_given_after_a_kill(tmp_path: Path) -> None:
    """The message asked for it before, and the reader acknowledges it after."""

    async def main() -> None:
        async with killed_later(tmp_path) as server, connect(server.address, "bob") as bob:
            await bob.say("read me", to="alice", id="a1", receipt=True)
            await bob.expect("ack", id="a1")
        async with (
            killed_later(tmp_path) as server,
            connect(server.address, "bob") as bob,
            connect(server.address, "alice", full=True) as alice,
        ):
            told = await alice.expect("chat")
            await alice.send({"type": "ack", "seq": told["seq"]})
            receipt = await bob.expect("receipt")

            assert (told["content"], receipt["id"], receipt["by"]) == ("read me", "a1", "alice")

    run(main())


def test_who_rejoins_is_asked_again(tmp_path: Path) -> None:
    """Who may no longer be in a room does not get its past by resuming after a restart."""

    async def main() -> None:
        allowed, hub = True, Hub()

        @hub.on_join
        async def check(session: Session, room: str) -> None:
            if not allowed:
                raise Reject("forbidden", "no longer")

        async with serving(hub, data=str(tmp_path)) as server, connect(server.address, "alice", full=True) as alice:
            position = (await alice.join("lobby"))["position"]
            await say_all(alice, "secret", room="lobby")
        allowed = False
        resume = {"rooms": {"lobby": position}}
        async with (
            serving(hub, data=str(tmp_path)) as server,
            connect(server.address, "alice", full=True, hello={"resume": resume}) as alice,
        ):
            told = await alice.sync()

            assert alice.welcome["recovered"]["rooms"] == {}
            assert contents(told) == []
            assert [message["code"] for message in told if message["type"] == "error"] == ["forbidden"]

    run(main())


def test_a_second_server_on_the_same_folder_is_told_off(tmp_path: Path) -> None:
    """In one sentence, with the remedy; the first goes on."""

    async def main() -> None:
        async with killed_later(tmp_path):
            status, out, errors = await command("serve", "--dev", "--port", "0", "--data", str(tmp_path))

            assert (status, out) == (2, "")
            assert errors == (
                f"hubbub: {tmp_path} is in use by another hubbub: stop that one, or name another folder with --data\n"
            )

    run(main())
