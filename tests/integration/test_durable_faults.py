"""The disk takes no more: senders are told, what is stored is still delivered, and all goes on when there is space."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from chaos.server import SERVE, DeadServerError, Server
from support.client import Client, Message, connect
from support.loop import eventually, run
from support.server import Child, get

pytestmark = pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits of another process are Linux's")

# The largest offset that the server may write to: its log cannot grow any more; and nothing can be written at all.
NO_GROWTH, NOTHING = 4096, 0

BEGINNING = 0

# For root permissions count only without these capabilities.
OBEDIENT = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search") if os.geteuid() == 0 else ()


class Disk:
    """What a running server may write, by a limit of the kernel's: beyond it a write fails with EFBIG."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def fill(self, limit: int) -> None:
        """From now on no write to `limit` or beyond succeeds."""
        resource.prlimit(self._pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    def free(self) -> None:
        """There is space again."""
        resource.prlimit(self._pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@contextlib.asynccontextmanager
async def durable(folder: Path) -> AsyncIterator[tuple[Child, Disk]]:
    """A server with a store in `folder`, and its disk."""
    async with Child.spawned("--dev", "--data", str(folder)) as child:
        yield child, Disk(child.process.pid)


async def publish(client: Client, content: object, **fields: Any) -> Message:
    """Send a message without an echo; returns what answers it, `ack` or `error`."""
    return await client.ask("chat", content=content, echo=False, **fields)


async def refused(client: Client, content: object, **fields: Any) -> None:
    """Send a message, which must be `unavailable`, with a time after which to try again."""
    answer = await publish(client, content, **fields)

    assert (answer["type"], answer["code"]) == ("error", "unavailable"), answer
    assert answer["retry_after"] > 0


def contents(client: Client, room: str | None = "lobby") -> list[object]:
    """What a client got from a room, or from its inbox, in order."""
    return [message["content"] for message in client.heard("chat", room=room)]


@pytest.mark.parametrize("limit", [NO_GROWTH, NOTHING], ids=["no-growth", "nothing"])
def test_a_full_disk_refuses_and_heals(tmp_path: Path, limit: int) -> None:
    """`unavailable`, not stored and not delivered; then the same message with the same id takes the next place."""

    async def main() -> None:
        async with durable(tmp_path) as (child, disk), connect(child.address, "bob", full=True) as bob:
            await bob.join("lobby")
            async with connect(child.address, "alice", full=True) as alice:
                await alice.join("lobby")
                for number in range(5):
                    assert (await publish(alice, number, room="lobby"))["seq"] == number + 1
                disk.fill(limit)
                for number in range(5, 8):
                    await refused(alice, number, room="lobby", id=f"late-{number}")
                await refused(alice, "hi", to="bob", id="late")
                await bob.sync()

                assert contents(bob) == [0, 1, 2, 3, 4]
                assert contents(bob, None) == []
                assert (await get(child.address, "/ready")).status == 503
                assert (await get(child.address, "/health")).status == 200

                disk.free()
                for number in range(5, 8):
                    ack = await publish(alice, number, room="lobby", id=f"late-{number}")

                    assert (ack["type"], ack.get("seq"), ack.get("duplicate")) == ("ack", number + 1, None)
                await bob.sync()

                assert contents(bob) == list(range(8))
                assert (await get(child.address, "/ready")).status == 200
            assert child.process.returncode is None
            said = child.errors()

            # Once for the operator, and not for each message; where not even the log can be written, not at all.
            assert said.count("cannot be written to") == (limit == NO_GROWTH), said

    run(main())


@pytest.mark.parametrize("limit", [NO_GROWTH, NOTHING], ids=["no-growth", "nothing"])
def test_what_is_stored_is_delivered_from_a_full_disk(tmp_path: Path, limit: int) -> None:
    """Who comes while nothing can be written resumes, reads, and gets the inbox, also while others are refused."""

    async def main() -> None:
        async with durable(tmp_path) as (child, disk), connect(child.address, "alice", full=True) as alice:
            joined = await alice.join("lobby")
            for number in range(20):
                await publish(alice, number, room="lobby")
                await publish(alice, number, to="bob")
            disk.fill(limit)
            await refused(alice, 20, room="lobby")
            asking = asyncio.create_task(_insist(alice))
            try:
                for _ in range(20):
                    resume = {"rooms": {"lobby": [joined["position"][0], BEGINNING]}}
                    async with connect(child.address, "bob", full=True, hello={"resume": resume}) as bob:
                        await bob.sync()

                        assert bob.welcome["recovered"]["rooms"] == {"lobby": True}
                        assert contents(bob) == contents(bob, None) == list(range(20))
                        history = await bob.ask("history", room="lobby")

                        assert [message["content"] for message in history["messages"]] == list(range(20))
            finally:
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)

    run(main())


async def _insist(client: Client) -> None:
    """Send what is refused, again and again."""
    while True:
        await refused(client, "again", room="lobby")


def test_a_folder_that_becomes_read_only_stops_the_next_start_and_not_this_server(tmp_path: Path) -> None:
    """What runs has its files open and goes on; what starts says in one sentence what to do, and then finds all."""

    async def main() -> None:
        folder, log = tmp_path / "data", tmp_path / "log"
        server = Server([*OBEDIENT, *SERVE, "--data", str(folder)], log)
        await server.start()
        try:
            address = "http://{}:{}".format(*server.address)
            async with connect(address, "alice", full=True) as alice:
                await alice.join("lobby")
                first = await publish(alice, 0, room="lobby")
                _permit(folder, 0o400, 0o500)
                second = await publish(alice, 1, room="lobby")

                assert (first["seq"], second["seq"]) == (1, 2)
            await server.kill()
            with pytest.raises(DeadServerError):
                await server.start()
            said = server.log_tail()

            assert "Traceback" not in said and str(folder) in said and "permissions" in said, said

            _permit(folder, 0o600, 0o700)
            await server.start()
            resume = {"rooms": {"lobby": [first["epoch"], BEGINNING]}}
            async with connect(address, "bob", full=True, hello={"resume": resume}) as bob:
                await bob.sync()

                assert contents(bob) == [0, 1]
        finally:
            _permit(folder, 0o600, 0o700)
            await server.stop()

    run(main())


def _permit(folder: Path, files: int, itself: int) -> None:
    """Set the permissions of the store's files and of its folder."""
    for file in folder.iterdir():
        file.chmod(files)
    folder.chmod(itself)


def test_nothing_refused_comes_back_after_a_kill(tmp_path: Path) -> None:
    """A message that was `unavailable` is in no log, also where the server dies before there is space again."""

    async def main() -> None:
        async with durable(tmp_path) as (child, disk), connect(child.address, "alice", full=True) as alice:
            await alice.join("lobby")
            acknowledged = [await publish(alice, number, room="lobby") for number in range(3)]
            disk.fill(NO_GROWTH)
            for number in range(3, 6):
                await refused(alice, number, room="lobby")
            child.signal(signal.SIGKILL)
            await child.exit_status()
        async with durable(tmp_path) as (child, _):
            resume = {"rooms": {"lobby": [acknowledged[0]["epoch"], BEGINNING]}}
            async with connect(child.address, "bob", full=True, hello={"resume": resume}) as bob:
                await bob.sync()

                assert bob.welcome["recovered"]["rooms"] == {"lobby": True}
                assert contents(bob) == [0, 1, 2]

    run(main())


def test_a_disk_that_fills_in_full_swing_loses_nothing(tmp_path: Path) -> None:
    """Space comes and goes while ten publish at once: what was acknowledged is in the log, once, and nothing else."""

    async def main() -> None:
        async with (
            durable(tmp_path) as (child, disk),
            connect(child.address, "reader", full=True) as reader,
            contextlib.AsyncExitStack() as sessions,
        ):
            await reader.join("lobby")
            opening = [connect(child.address, f"u{number}", full=True) for number in range(10)]
            clients = [await sessions.enter_async_context(client) for client in opening]

            async def answers(type: str, more: int) -> None:
                def count() -> int:
                    return sum(len(client.heard(type)) for client in clients)

                wanted = count() + more
                await eventually(lambda: count() >= wanted)

            enough = asyncio.Event()
            publishing = [asyncio.create_task(_publish_until(enough, client)) for client in clients]
            for _ in range(5):
                disk.fill(NO_GROWTH)
                await answers("error", 20)
                disk.free()
                await answers("ack", 50)
            enough.set()
            accepted = {id: seq for task in publishing for id, seq in (await task).items()}
            await reader.sync()
            seen = reader.heard("chat")

            assert {message["id"]: message["seq"] for message in seen} == accepted
            assert [message["seq"] for message in seen] == list(range(1, len(accepted) + 1))

    run(main())


async def _publish_until(enough: asyncio.Event, client: Client) -> dict[str, int]:
    """Publish one after the other, each with the same id until it is accepted; by id the `seq`."""
    await client.join("lobby")
    accepted: dict[str, int] = {}
    while not enough.is_set():
        id = f"{client.user}-{len(accepted)}"
        answer = await publish(client, id, room="lobby", id=id)
        while answer["type"] != "ack":
            answer = await publish(client, id, room="lobby", id=id)
        accepted[id] = answer["seq"]
    return accepted
