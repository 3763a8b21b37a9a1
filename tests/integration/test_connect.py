"""`hubbub connect`: a chat in a terminal, a filter in a pipe, and nothing that is received steers either."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import stat
import struct
import sys
import termios
from collections.abc import AsyncIterator
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from hubbub import Hub
from hubbub.hub.hooks import Credentials
from hubbub.server import Server
from integration.client.terminal import Terminal
from support.client import FULL, Client
from support.client import connect as connect_plain
from support.loop import PATIENCE, run
from support.server import Child, serving

# What a terminal would obey: clear the screen, red, a title, a colour by the 8-bit introducer, the direction.
STEERING = "\x1b[2J\x1b[31mred\x1b]0;title\x07\x9b31m\u202eback"
WRITTEN_OUT = r"\x1b[2J\x1b[31mred\x1b]0;title\x07\x9b31m\u202eback"

ROWS, COLUMNS = 40, 120


def environment(home: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HUBBUB_", "XDG_"))}
    fixed = {"HOME": str(home), "TERM": "xterm-256color"}
    return {name: value for name, value in {**kept, **fixed}.items() if name != "NO_COLOR"} | more


def command(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "hubbub", "connect", *arguments)


class Screen:
    """`hubbub connect` in a pseudo-terminal."""

    def __init__(self, process: asyncio.subprocess.Process, master: int) -> None:
        self.process = process
        self._master = master
        # All that was ever written to the terminal, and what it shows.
        self.raw = b""
        self._terminal = Terminal(ROWS)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._changed = asyncio.Event()
        asyncio.get_running_loop().add_reader(master, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._master, 65_536)
        except OSError:
            # The other end is gone.
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._master)
        self.raw += data
        self._terminal.write(self._decoder.decode(data))
        if self._terminal.answers:
            os.write(self._master, self._terminal.answers.encode())
            self._terminal.answers = ""
        self._changed.set()

    @property
    def text(self) -> str:
        """What the terminal shows, with all that has scrolled by."""
        return self._terminal.text

    def type(self, *lines: str) -> None:
        """Type lines, each ended by Enter."""
        for line in lines:
            self.press(f"{line}\r")

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    async def shows(self, words: str) -> None:
        """Wait until the terminal shows these words."""
        try:
            async with asyncio.timeout(PATIENCE):
                while words not in self.text:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"there is no {words!r} in\n{self.text}") from None

    async def ends(self) -> int:
        """Wait for the end of the program; its exit status."""
        async with asyncio.timeout(PATIENCE):
            return await self.process.wait()


@contextlib.asynccontextmanager
async def screen(home: Path, *arguments: str, **more: str) -> AsyncIterator[Screen]:
    """`hubbub connect` with `arguments` in a terminal, for the length of a block."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    process = await asyncio.create_subprocess_exec(
        *command(*arguments),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment(home, **more),
        start_new_session=True,
    )
    os.close(slave)
    shown = Screen(process, master)
    try:
        yield shown
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        asyncio.get_running_loop().remove_reader(master)
        os.close(master)


async def pipe(home: Path, stdin: str, *arguments: str, **more: str) -> tuple[int, str, str]:
    """Run `hubbub connect` with this standard input: exit status, standard output, standard error."""
    process = await asyncio.create_subprocess_exec(
        *command(*arguments), stdin=PIPE, stdout=PIPE, stderr=PIPE, env=environment(home, **more)
    )
    try:
        async with asyncio.timeout(PATIENCE):
            out, errors = await process.communicate(stdin.encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), errors.decode()


@contextlib.asynccontextmanager
async def member(server: Server, user: str, room: str = "lobby") -> AsyncIterator[Client]:
    """Somebody in the room, whose client is not ours."""
    async with connect_plain(server.address, user) as client:
        await client.join(room)
        yield client


# ----------------------------------------------------------------------------------------------- in a terminal


def test_a_conversation_in_a_room(tmp_path: Path) -> None:
    """History, members, who comes, what others say, and one's own with a mark when accepted."""

    async def main() -> None:
        async with serving(presence_grace=1) as server, member(server, "bob") as bob:
            await bob.say("from before", room="lobby")
            async with screen(tmp_path, f"{server.address}/?user_id=alice") as terminal:
                await terminal.shows("You are alice.")
                await terminal.shows("You are in #lobby with bob.")
                await terminal.shows("bob: from before")
                await terminal.shows("#lobby, 2 members · connected")
                async with member(server, "carol"):
                    await terminal.shows("carol came into #lobby.")
                await terminal.shows("carol left #lobby.")
                terminal.type("hello, bob")
                await terminal.shows("alice: hello, bob ✓")
                await bob.expect("chat", content="hello, bob", from_="alice")
                await bob.say("hello, alice", room="lobby")
                await terminal.shows("bob: hello, alice")
                terminal.type("//slash")
                await bob.expect("chat", content="/slash")

    run(main())


def test_the_commands(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            serving() as server,
            member(server, "bob") as bob,
            screen(tmp_path, f"{server.address}/?user_id=alice", "--room", "dev", "--room", "lobby") as terminal,
        ):
            await terminal.shows("\n#dev>")
            await terminal.shows("You are in #dev.")
            terminal.type("/join lobby", "in the lobby")
            await bob.expect("chat", content="in the lobby")
            await terminal.shows("alice: in the lobby ✓")
            terminal.type("/join new", "at once")
            await terminal.shows("\n#new>")
            await terminal.shows("alice: at once ✓")
            terminal.type("/rooms")
            await terminal.shows("#lobby, 2 members")
            await terminal.shows("#new, 1 member ← here")
            terminal.type("/leave")
            await terminal.shows("You left #new.")
            terminal.type("/leave dev", "/who")
            await terminal.shows("In #lobby: 2 members")
            terminal.type("/to bob psst")
            await bob.expect("chat", content="psst", to="bob")
            await terminal.shows("alice to bob: psst ✓")
            await terminal.shows("bob has got: psst")
            await bob.say("yes?", to="alice")
            await terminal.shows("bob to you: yes?")
            terminal.type('/to "no one" hi', "/all hear, hear")
            await terminal.shows("alice to no one: hi ✓")
            await terminal.shows("to everyone alice: hear, hear ✓")
            terminal.type("/history 1")
            await terminal.shows("The last 1 message of #lobby:")
            await terminal.shows("alice: in the lobby")
            terminal.type("/nonsense")
            await terminal.shows("There is no /nonsense")
            terminal.type("/help")
            await terminal.shows("/quit")
            terminal.type("/leave", "to nobody")
            await terminal.shows("You are in no room")
            terminal.type("/quit")

            assert await terminal.ends() == 0

    run(main())


def test_tab_completes_commands_rooms_and_users(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            serving() as server,
            member(server, "bartholomew") as bartholomew,
            screen(tmp_path, f"{server.address}/?user_id=alice") as terminal,
        ):
            await terminal.shows("with bartholomew.")
            terminal.press("/t\tba\thello\r")
            await bartholomew.expect("chat", content="hello", to="bartholomew")
            terminal.press("/j\tlob\t\r/leave lo\t\r")
            await terminal.shows("You left #lobby.")

    run(main())


@pytest.mark.parametrize("key", ["\x03", "\x04"], ids=["Ctrl-C", "Ctrl-D"])
def test_ctrl_c_and_ctrl_d_leave_cleanly(tmp_path: Path, key: str) -> None:
    async def main() -> None:
        async with (
            serving(presence_grace=0) as server,
            member(server, "bob") as bob,
            screen(tmp_path, f"{server.address}/?user_id=alice") as terminal,
        ):
            await terminal.shows("connected")
            terminal.press(key)

            assert await terminal.ends() == 0
            await bob.expect("member-left", user="alice")
            assert "Traceback" not in terminal.text

    run(main())


def test_a_lost_connection_counts_down_and_what_was_typed_meanwhile_is_sent(tmp_path: Path) -> None:
    async def main() -> None:
        async with Child.spawned("--dev") as child, screen(tmp_path, f"{child.address}/?user_id=alice") as terminal:
            await terminal.shows("connected")
            child.signal(signal.SIGKILL)
            await child.exit_status()
            await terminal.shows("The connection was lost")
            await terminal.shows("offline, ")
            terminal.type("are you there?")
            await terminal.shows("#lobby: are you there? … waiting for a connection")
            async with Child.spawned("--dev", "--port", child.address.rpartition(":")[2]):
                await terminal.shows("Connected again.")
                await terminal.shows("alice: are you there? ✓")
                terminal.type("/quit")

                assert await terminal.ends() == 0

    run(main())


def test_the_server_can_end_it_for_good(tmp_path: Path) -> None:
    async def main() -> None:
        hub = Hub()
        async with serving(hub) as server, screen(tmp_path, f"{server.address}/?user_id=alice") as terminal:
            await terminal.shows("connected")
            await hub.disconnect("alice")

            assert await terminal.ends() == 1
            await terminal.shows("hubbub: ")

    run(main())


def test_what_is_received_does_not_steer_the_terminal(tmp_path: Path) -> None:
    """Neither contents nor types nor names; a second line cannot pretend to be somebody else's message."""

    async def main() -> None:
        async with (
            serving() as server,
            member(server, "eve\u202egnp") as eve,
            screen(tmp_path, f"{server.address}/?user_id=alice") as terminal,
        ):
            await terminal.shows(r"You are in #lobby with eve\u202egnp.")
            await eve.say(STEERING, room="lobby")
            await terminal.shows(WRITTEN_OUT)
            await eve.send({"type": "or\u202eder", "room": "lobby", "content": {"\x9b": STEERING}})
            await terminal.shows(r"[or\u202eder]: ")
            await eve.say("one\nalice: I owe you", room="lobby")
            await terminal.shows("one\n      | alice: I owe you")

            assert b"\x1b[2J\x1b[31mred" not in terminal.raw
            assert b"\x1b]0;title" not in terminal.raw
            assert "\x9b".encode() not in terminal.raw
            assert "\u202e".encode() not in terminal.raw

    run(main())


def test_lines_are_remembered_in_a_file_of_ones_own(tmp_path: Path) -> None:
    """Mode 0600, in the state directory of the XDG standard."""

    async def main() -> None:
        async with serving() as server:
            for state in ({}, {"XDG_STATE_HOME": str(tmp_path / "state")}):
                file = (tmp_path / "state" if state else tmp_path / ".local" / "state") / "hubbub" / "history"
                async with screen(tmp_path, f"{server.address}/?user_id=alice", **state) as terminal:
                    await terminal.shows("connected")
                    terminal.type("remember me")
                    await terminal.shows("remember me ✓")
                    terminal.type("/quit")
                    await terminal.ends()

                assert json.loads(file.read_text().splitlines()[0]) == "remember me"
                assert stat.S_IMODE(file.stat().st_mode) == 0o600
            async with screen(tmp_path, f"{server.address}/?user_id=alice", **state) as terminal:
                await terminal.shows("connected")
                # Up twice: behind `/quit`.
                terminal.press("\x1b[A\x1b[A")
                await terminal.shows("#lobby> remember me")

    run(main())


def test_colours_are_for_who_wants_them(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving() as server, member(server, "bob") as bob:
            for wanted, more in ((True, {}), (False, {"NO_COLOR": "1"})):
                async with screen(tmp_path, f"{server.address}/?user_id=alice", **more) as terminal:
                    await terminal.shows("connected")
                    await bob.say("hi", room="lobby")
                    await terminal.shows("bob: hi")

                    assert bool(re.search(rb"\x1b\[(\d+;)*[39]\dm", terminal.raw.replace(b"\x1b[39m", b""))) is wanted

    run(main())


# ---------------------------------------------------------------------------------------------------- in a pipe


def test_lines_are_sent_and_the_end_waits_until_they_are_accepted(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving() as server, member(server, "bob") as bob:
            lines = [f"line {number}" for number in range(300)]
            status, out, errors = await pipe(tmp_path, "\n".join([*lines, "", "/etc/hosts"]), server.address)
            await bob.sync()

            assert (status, out, errors) == (0, "", "")
            assert [message["content"] for message in bob.heard("chat")] == [*lines, "/etc/hosts"]
            # One and the same guest, whatever becomes of the connection.
            assert len({message["from"] for message in bob.heard("chat")}) == 1

    run(main())


def test_what_is_received_is_printed_plainly(tmp_path: Path) -> None:
    """One line for each message, without colours, also where the text has more."""

    async def main() -> None:
        async with serving() as server, member(server, "bob") as bob:
            await bob.say("one\ntwo", room="lobby")
            await bob.say(STEERING, room="lobby")
            await bob.say({"a": 1}, room="lobby")
            await bob.say("for you", to="alice")
            status, out, errors = await pipe(tmp_path, "", f"{server.address}/?user_id=alice", "--history", "10")

            assert (status, errors) == (0, "")
            assert sorted(out.splitlines()) == sorted(
                [
                    "#lobby bob: one\\ntwo",
                    f"#lobby bob: {WRITTEN_OUT}",
                    '#lobby bob: {"a":1}',
                    "bob to you: for you",
                ]
            )

    run(main())


def test_json_prints_what_the_server_sends(tmp_path: Path) -> None:
    """Envelopes as they come; what could steer a terminal is escaped, and means the same."""

    async def main() -> None:
        async with serving() as server, member(server, "bob") as bob:
            await bob.say(STEERING, room="lobby")
            address = f"{server.address}/?user_id=alice"
            status, out, errors = await pipe(tmp_path, "hi", address, "--json", "--history", "1")
            envelopes = [json.loads(line) for line in out.splitlines()]

            assert (status, errors) == (0, "")
            assert [envelope["type"] for envelope in envelopes] == ["welcome", "joined", "chat", "ack"]
            assert envelopes[2]["content"] == STEERING
            assert not {"\x9b", "\u202e", "\x1b"} & set(out)

    run(main())


def test_a_line_that_is_not_accepted_is_told_and_the_status_says_so(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(message_size=200, large_message_size=0) as server:
            status, out, errors = await pipe(tmp_path, "short\n" + "x" * 300 + "\n", server.address)

            assert (status, out) == (1, "")
            assert errors.startswith("hubbub: not sent: 'xxx")
            assert errors.count("\n") == 1

    run(main())


def test_a_reader_that_has_enough_ends_it_quietly(tmp_path: Path) -> None:
    """As with `| head -1`."""

    async def main() -> None:
        async with serving() as server, member(server, "bob") as bob:
            reading, writing = os.pipe()
            process = await asyncio.create_subprocess_exec(
                *command(server.address), stdin=PIPE, stdout=writing, stderr=PIPE, env=environment(tmp_path)
            )
            os.close(writing)
            await bob.expect("member-joined")
            await bob.say("one", room="lobby")
            first = await asyncio.to_thread(os.read, reading, 100)
            os.close(reading)
            await bob.say("two", room="lobby")
            async with asyncio.timeout(PATIENCE):
                _, errors = await process.communicate()

            assert (first, errors, process.returncode) == (b"#lobby bob: one\n", b"", 1)

    run(main())


def test_an_interrupted_pipe_says_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(presence_grace=0) as server, member(server, "bob") as bob:
            process = await asyncio.create_subprocess_exec(
                *command(server.address), stdin=PIPE, stdout=PIPE, stderr=PIPE, env=environment(tmp_path)
            )
            await bob.expect("member-joined")
            process.send_signal(signal.SIGINT)
            async with asyncio.timeout(PATIENCE):
                await bob.expect("member-left")

                assert await process.communicate() == (b"", b"")
                assert process.returncode == 130

    run(main())


# -------------------------------------------------------------------------------------------- not coming in


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/nowhere", "the server refused the connection with 404: There is no WebSocket at this path."),
        ("/ws?user_id=%01", "the server refused the connection with 400: user_id must be"),
    ],
)
def test_a_refusal_is_told_in_the_servers_words(tmp_path: Path, path: str, words: str) -> None:
    async def main() -> None:
        async with serving() as server:
            status, out, errors = await pipe(tmp_path, "", f"{server.address}{path}")

            assert (status, out) == (1, "")
            assert errors.startswith(f"hubbub: {words}")
            assert errors.count("\n") == 1

    run(main())


def test_where_nothing_listens_the_remedy_is_named(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving() as server:
            address = server.address
        status, _, errors = await pipe(tmp_path, "", address)
        place = address.removeprefix("http://")

        assert status == 1
        assert errors == f"hubbub: nothing listens at {place}: start one with `hubbub serve --dev`\n"

    run(main())


@pytest.mark.parametrize("url", ["ftp://localhost/", "localhost:8000", "ws://[/"])
def test_a_wrong_url_is_told_with_a_right_one(tmp_path: Path, url: str) -> None:
    async def main() -> None:
        status, _, errors = await pipe(tmp_path, "", url)

        assert status == 1
        assert errors == f"hubbub: this is no address of a hub: {url!r}; one looks like ws://localhost:8000/ws\n"

    run(main())


def test_a_token_comes_from_the_option_or_the_environment(tmp_path: Path) -> None:
    def known(credentials: Credentials) -> str | None:
        return {"t-alice": "alice"}.get(credentials.token or "")

    async def main() -> None:
        hub = Hub()
        hub.authenticate(known)
        async with serving(hub, dev=False) as server:
            by_option = await pipe(tmp_path, "hi", server.address, "--token", "t-alice")
            by_environment = await pipe(tmp_path, "hi", server.address, HUBBUB_TOKEN="t-alice")
            wrong = await pipe(tmp_path, "hi", server.address, "--token", "t-eve")

            assert by_option == by_environment == (0, "", "")
            assert wrong[0] == 1
            assert "token" in wrong[2]
            assert "t-eve" not in wrong[2]

    run(main())


# ---------------------------------------------------------------------------------- a server that means harm


@contextlib.asynccontextmanager
async def harmful() -> AsyncIterator[str]:
    """A server whose every name holds what no name may hold."""

    async def speak(connection: ServerConnection) -> None:
        async def say(type: str, **fields: Any) -> None:
            await connection.send(
                json.dumps({"type": type, **{key.rstrip("_"): value for key, value in fields.items()}})
            )

        positions = {"inbox": ["k", 0], "all": ["k", 0], "rooms": {}}
        async for text in connection:
            match json.loads(text):
                case {"type": "hello"}:
                    recovered: dict[str, Any] = {"inbox": None, "all": None, "rooms": {}}
                    fixed = {"session": "s", "time": 1, "ping": 25_000, "limits": {"message": 65_536}}
                    await say("welcome", user=STEERING, positions=positions, recovered=recovered, **fixed)
                case {"type": "join", "room": room, "id": id}:
                    members = [
                        {"user": STEERING, "sessions": 1, "since": 1},
                        {"user": "x" + STEERING, "sessions": 1, "since": 1},
                    ]
                    await say("joined", room=room, position=["k", 0], recovered=None, count=2, members=members, id=id)
                    await say("member-joined", room=room, user="y" + STEERING)
                    await say("error", code="x", message=STEERING)
                    await say(STEERING, from_=STEERING, room=room, content="one", seq=1, time=1)
                    await say("receipt", id="x", by=STEERING, time=1)
                    await say("left", room=room, code=STEERING)
                    await say("goodbye", code=4999, reason=STEERING)

    async with serve(speak, "127.0.0.1", 0, subprotocols=[Subprotocol(FULL)], compression=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"ws://127.0.0.1:{port}/ws"


def test_a_server_that_means_harm_cannot_steer_the_terminal(tmp_path: Path) -> None:
    async def main() -> None:
        async with harmful() as url, screen(tmp_path, url) as terminal:
            assert await terminal.ends() == 1
            await terminal.shows(f"hubbub: {WRITTEN_OUT}")

            assert terminal.text.count(WRITTEN_OUT) >= 7
            assert b"\x1b[2J\x1b[31mred" not in terminal.raw
            assert b"\x1b]0;title" not in terminal.raw
            assert "\x9b".encode() not in terminal.raw
            assert "\u202e".encode() not in terminal.raw

    run(main())


def test_a_server_that_means_harm_cannot_steer_through_a_pipe(tmp_path: Path) -> None:
    async def main() -> None:
        async with harmful() as url:
            status, out, errors = await pipe(tmp_path, "", url)

            assert status == 1
            assert WRITTEN_OUT in errors
            assert not {"\x9b", "\u202e", "\x1b"} & set(out + errors)

    run(main())
