"""What the application does of its own accord: publish, send, ask who is there, and end sessions."""

from __future__ import annotations

import asyncio
import re
import signal
from pathlib import Path
from typing import Any

import msgspec
import pydantic
import pytest

from hubbub import Hub, HubbubError
from support.client import connect
from support.loop import eventually, run
from support.server import Child, command, serving

pytestmark = pytest.mark.every_engine


class Score(msgspec.Struct):
    home: int
    away: int


class Alert(pydantic.BaseModel):
    text: str


def test_publish_reaches_everyone_or_a_room() -> None:
    """Without `from`, or with the one it is given; nothing of it goes through handlers."""

    async def main() -> None:
        hub = Hub()

        @hub.on("news")
        async def news(message: object) -> None:
            raise AssertionError("the server's own messages need no handler")

        async with (
            serving(hub) as server,
            connect(server.address, "alice") as alice,
            connect(server.address, "bob") as bob,
        ):
            joined = await alice.join("lobby")
            first = await hub.publish("news", {"a": [1]})
            second = await hub.publish("news", Score(2, 1), room="lobby", from_="referee")
            third = await hub.publish("news", Alert(text="!"), room="lobby")
            await alice.sync()
            await bob.sync()
            heard = [{k: v for k, v in m.items() if k != "time"} for m in alice.heard("news")]

            assert heard == [
                {"type": "news", "content": {"a": [1]}, "seq": 1},
                {"type": "news", "from": "referee", "room": "lobby", "content": {"home": 2, "away": 1}, "seq": 1},
                {"type": "news", "room": "lobby", "content": {"text": "!"}, "seq": 2},
            ]
            assert [m["content"] for m in bob.heard("news")] == [{"a": [1]}]
            assert (first.seq, second.seq, third.seq) == (1, 1, 2) and second.epoch == joined["position"][0]

    run(main())


def test_bytes_are_published_as_bytes() -> None:
    """Whatever holds them; in JSON they are base64."""

    async def main() -> None:
        hub = Hub()
        async with serving(hub) as server, connect(server.address, "alice") as alice:
            for content in (b"AB", bytearray(b"AB"), memoryview(b"AB")):
                await hub.publish("news", content)
                await hub.send_to("alice", "note", content)
                assert (await alice.expect("news"))["content"] == "QUI="
                assert (await alice.expect("note"))["binary"] is True

            history = await alice.ask("history")
            assert [(m["content"], m["binary"]) for m in history["messages"]] == [("QUI=", True)] * 3

    run(main())


def test_publish_with_an_id_sends_once() -> None:
    async def main() -> None:
        hub = Hub()
        async with serving(hub) as server, connect(server.address, "alice") as alice:
            accepted = [await hub.publish("news", 1, id="n1") for _ in range(3)]
            await alice.sync()

            assert [a.duplicate for a in accepted] == [False, True, True]
            assert {a.seq for a in accepted} == {1} and len(alice.heard("news")) == 1

    run(main())


def test_send_to_waits_for_who_is_away() -> None:
    """All devices of a user get it; a volatile one is for those who are there."""

    async def main() -> None:
        hub = Hub()
        async with serving(hub) as server:
            await hub.send_to("alice", "note", "waiting")
            await hub.send_to("alice", "note", "missed", volatile=True)
            async with (
                connect(server.address, "alice") as phone,
                connect(server.address, "alice") as laptop,
                connect(server.address, "bob") as bob,
            ):
                await hub.send_to("alice", "note", "now", from_="app")
                await phone.sync()
                await laptop.sync()

                assert [m["content"] for m in phone.heard("note")] == ["waiting", "now"]
                assert laptop.heard("note", content="now", from_="app", to="alice")
                assert await bob.sync() == []

    run(main())


def test_members_and_sessions_are_as_the_clients_see_them() -> None:
    async def main() -> None:
        hub = Hub()
        async with (
            serving(hub) as server,
            connect(server.address, "alice", full=True, hello={"client": "test/1"}) as phone,
            connect(server.address, "alice") as laptop,
            connect(server.address, "bob") as bob,
        ):
            for client in (bob, phone, laptop):
                await client.join("lobby")
            await phone.join("den")

            assert [(m.user, m.sessions) for m in await hub.members("lobby")] == [("bob", 1), ("alice", 2)]
            assert [m.user for m in await hub.members("lobby", 1)] == ["bob"]
            assert await hub.members("nowhere") == []
            assert sorted(session.user for session in hub.local_sessions()) == ["alice", "alice", "bob"]
            by_way = {session.full: session for session in hub.local_sessions("alice")}
            assert by_way[True].rooms == {"lobby", "den"} and by_way[False].rooms == {"lobby"}
            assert by_way[True].id == phone.welcome["session"] and by_way[True].device == "test/1"
            assert hub.local_sessions("nobody") == []
            statistics = hub.statistics()

            assert (statistics.connections, statistics.users, statistics.rooms) == (3, 2, 2)

    run(main())


def test_disconnect_ends_every_session_of_a_user() -> None:
    """With 4504, after a goodbye in the full way, and of nobody else."""

    async def main() -> None:
        hub = Hub()
        async with (
            serving(hub) as server,
            connect(server.address, "alice", full=True) as phone,
            connect(server.address, "alice") as laptop,
            connect(server.address, "bob") as bob,
        ):
            assert await hub.disconnect("alice", "enough") == 2
            for device in (phone, laptop):
                assert await device.closed() == (4504, "enough")
            assert phone.seen[-1] == {"type": "goodbye", "code": 4504, "reason": "enough"}
            assert await hub.disconnect("alice") == await hub.disconnect("nobody") == 0
            await bob.sync()
            assert hub.local_sessions("alice") == []

    run(main())


def test_disconnect_finds_a_session_that_is_still_reading_its_backlog() -> None:
    """Also who has not caught up is a session of the user."""

    async def main() -> None:
        hub = Hub()
        async with serving(hub, sndbuf=4_608) as server, connect(server.address, "bob") as bob:
            for number in range(1_000):
                await bob.say([number, "x" * 500], to="alice")
            await bob.sync()
            async with connect(server.address, "alice", rcvbuf=2_304) as alice:
                alice.stall()
                await eventually(lambda: hub.statistics().blocked)

                assert len(hub.local_sessions("alice")) == 1
                assert (await bob.ask("users", ids=["alice"]))["users"]["alice"]["online"] is True
                assert await hub.disconnect("alice") == 1
                alice.resume()
                assert (await alice.closed())[0] == 4504

    run(main())


def test_a_hub_that_does_not_run_says_so() -> None:
    """One sentence with the remedy, instead of an attribute of None; and a hub runs once at a time."""

    async def main() -> None:
        hub = Hub()
        for call in (hub.publish("news"), hub.send_to("a", "news"), hub.members("lobby"), hub.disconnect("a")):
            with pytest.raises(HubbubError, match="not running"):
                await call
        with pytest.raises(HubbubError, match="not running"):
            hub.local_sessions()
        await hub.stop()
        async with serving(hub):
            with pytest.raises(HubbubError, match="already"):
                async with serving(hub):
                    pass

    run(main())


@pytest.mark.parametrize("kind", ["", "x" * 65, "welcome", "ack", "join", "hello", "a\nb"])
def test_publish_refuses_what_no_client_could_understand(kind: str) -> None:
    """The protocol's own types, and what is no type at all."""

    async def main() -> None:
        hub = Hub()
        async with serving(hub):
            with pytest.raises(HubbubError):
                await hub.publish(kind, 1)

    run(main())


@pytest.mark.parametrize("name", ["", "x" * 129, "a\nb"])
def test_publish_and_send_to_refuse_what_is_no_name(name: str) -> None:
    async def main() -> None:
        hub = Hub()
        async with serving(hub):
            with pytest.raises(HubbubError):
                await hub.publish("news", 1, room=name)
            with pytest.raises(HubbubError):
                await hub.send_to(name, "news", 1)

    run(main())


def test_content_that_is_no_json_is_told_to_the_caller() -> None:
    async def main() -> None:
        hub = Hub()
        async with serving(hub) as server, connect(server.address, "alice") as alice:
            with pytest.raises(HubbubError):
                await hub.publish("news", object())

            assert await alice.sync() == []

    run(main())


APP = """
from hubbub import Credentials, Hub, Message, Reject

chat = Hub()


@chat.authenticate
async def who(credentials: Credentials) -> str | None:
    return credentials.token


@chat.on("shout")
async def shout(message: Message[str]) -> Message[str]:
    message.content = message.content.upper()
    await chat.send_to(message.from_, "receipted", 1)
    return message
"""


def test_serve_runs_the_hub_of_a_module(tmp_path: Path) -> None:
    """`hubbub serve app:chat`, found in the current folder, with its hook and handlers and without --dev."""
    (tmp_path / "app.py").write_text(APP)

    async def main() -> None:
        async with Child.spawned("app:chat", cwd=tmp_path) as child:
            async with connect(child.address, None, query="token=alice") as alice:
                await alice.send({"type": "shout", "content": "hi"})

                assert (await alice.expect("shout"))["content"] == "HI"
                await alice.expect("receipted", to="alice")
            child.signal(signal.SIGTERM)

            assert await child.exit_status() == 0
            assert child.errors() == ""

    run(main())


@pytest.mark.parametrize(
    ("app", "says"),
    [("missing", "no module 'missing'"), ("app:absent", "no Hub named 'absent'"), ("app:who", "no Hub named 'who'")],
)
def test_serve_says_what_is_wrong_with_the_module(tmp_path: Path, app: str, says: str) -> None:
    """One sentence on standard error, exit status 2."""
    (tmp_path / "app.py").write_text(APP)

    async def main() -> None:
        status, out, errors = await command("serve", app, "--port", "0", cwd=tmp_path)

        assert status == 2 and out == ""
        assert errors.startswith("hubbub: ") and errors.count("\n") == 1 and says in errors

    run(main())


def test_a_module_that_fails_shows_its_own_traceback(tmp_path: Path) -> None:
    """Its mistake is in its own code: hiding where would help nobody."""
    (tmp_path / "app.py").write_text("import nothing_of_that_name\n")

    async def main() -> None:
        status, _, errors = await command("serve", "app", cwd=tmp_path)

        assert status != 0
        assert "app.py" in errors and "nothing_of_that_name" in errors

    run(main())


def test_stopping_leaves_nothing_running() -> None:
    """After `stop` no task and no timer of the hub is left, whatever was under way."""

    async def main() -> None:
        hub = Hub()
        never = asyncio.Event()

        @hub.on("slow")
        async def slow(message: object) -> None:
            await never.wait()

        before = asyncio.all_tasks()
        async with serving(hub) as server, connect(server.address, "alice") as alice:
            await alice.send({"type": "slow"})
            await eventually(lambda: hub.statistics().messages_in == 1)
            await server.stop()
            await alice.closed()

            assert not hub.running
        # The loop's own callbacks get their turn.
        await eventually(lambda: asyncio.all_tasks() == before)

    run(main())


@pytest.mark.parametrize(
    ("register", "hook", "says"),
    [
        ("authenticate", lambda: None, "hook(credentials)"),
        ("authorize", lambda session: True, "hook(session, action, name)"),
        ("on_connect", lambda: None, "hook(session)"),
        ("on_join", lambda session: None, "hook(session, room)"),
        ("on_online", lambda: None, "hook(user)"),
        ("on_offline", lambda user: None, "hook(user, last_seen)"),
    ],
)
def test_a_hook_of_another_shape_is_refused_at_once(register: str, hook: Any, says: str) -> None:
    """Not when the first client comes; one that takes more, with defaults, is as good."""
    with pytest.raises(HubbubError, match=re.escape(f"is called as {says}: give it these arguments")):
        getattr(Hub(), register)(hook)
    getattr(Hub(), register)(lambda *arguments, more=1: None)
