"""Code as users write it has types that a checker sees, and does at run time what they say."""

from __future__ import annotations

import asyncio
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

from hubbub.engines.memory import MemoryEngine
from hubbub.errors import RoomFull, Unavailable
from hubbub.hub import Hub, HubOptions
from support.client import connect
from support.loop import eventually, run
from support.server import serving

HEAD = "from hubbub import Hub, Message, Next, Session\n\nhub = Hub()\n"

APPLICATION = Path(__file__).with_name("application.py")

# What a user may write that the checker must not let pass, and what it says.
WRONG = {
    "content of another type": (
        """
@hub.on("x")
async def handler(message: Message[int]) -> Message[int]:
    message.content = "x"
    return message
""",
        "assignment",
    ),
    "a hook without its room": (
        """
@hub.on_join
async def joined(session: Session) -> None: ...
""",
        "arg-type",
    ),
    "a middleware that does not wait": (
        """
@hub.middleware
def around(message: Message[int], next: Next) -> None: ...
""",
        "arg-type",
    ),
    "an argument that does not exist": (
        """
async def publishes() -> None:
    await hub.publish("x", to="alice")
""",
        "call-arg",
    ),
    "a user who is a number": (
        """
async def sends() -> None:
    await hub.send_to(7, "x")
""",
        "arg-type",
    ),
    "the answer of many for the answer of one": (
        """
async def waits() -> None:
    print((await hub.send_with_ack(["alice", "bob"], "x")).seq)
""",
        "attr-defined",
    ),
}


def test_the_program_runs() -> None:
    """What the checker was promised is so: typed content is converted, changed, refused and routed."""
    program = runpy.run_path(str(APPLICATION))
    hub: Hub = program["hub"]

    async def main() -> None:
        async with serving(hub, dev=False) as server, connect(server.address, None, query="token=alice") as alice:
            await alice.send({"type": "join", "room": "shop", "id": "j1"})
            await alice.expect("joined")
            await alice.send({"type": "order", "room": "shop", "content": {"item": "PEN"}})
            ordered = await alice.expect("order")
            await alice.send({"type": "order", "room": "shop", "content": {"item": "pen", "count": 0}, "id": "a1"})
            refused = await alice.expect("error")
            await alice.send({"type": "rating", "room": "shop", "content": {"stars": "many"}, "id": "a2"})
            unrated = await alice.expect("error")
            await alice.send({"type": "rating", "room": "shop", "content": {"stars": 5}})
            rated = await alice.expect("rating")
            await alice.send({"type": "note", "room": "shop", "content": "thanks", "id": "a3"})
            await alice.expect("ack", id="a3")
            ended = await program["closing_time"]("night")
            code, _ = await alice.closed()
            await eventually(lambda: "alice went" in program["seen"])

            assert ordered["content"] == {"item": "pen", "count": 1}
            assert (refused["code"], refused["where"]) == ("invalid_content", "$.count")
            assert (unrated["code"], unrated["where"]) == ("invalid_content", "$.stars")
            assert rated["content"] == {"stars": 5}
            assert ended == 3
            assert code == 4504

    run(main())

    assert program["seen"] == ["alice came", "note from alice in ['shop']", "alice went"]


def test_errors_carry_what_a_program_needs() -> None:
    may_fail = runpy.run_path(str(APPLICATION))["may_fail"]

    assert may_fail(Unavailable(retry_after=3)) == 3
    assert may_fail(RoomFull()) is None
    assert may_fail(ValueError()) is None


def test_a_hub_can_be_started_by_hand() -> None:
    """Without a server: for programs that bring their own, and for tests."""

    async def main() -> list[Any]:
        hub = Hub()
        await hub.start(MemoryEngine(), HubOptions(dev=True))
        try:
            accepted = await hub.publish("note", "hi", room="lobby")
            return [accepted.seq, await hub.members("lobby"), hub.local_sessions()]
        finally:
            await hub.stop()

    assert asyncio.run(main()) == [1, [], []]


def test_what_is_wrong_does_not_pass(tmp_path: Path) -> None:
    """The types are worth something only where a mistake is one for the checker, too."""
    # In one file, because starting the checker is what takes its time.
    file = tmp_path / "wrong.py"
    file.write_text(HEAD + "".join(code for code, _ in WRONG.values()), encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), "wrong.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    start = HEAD.count("\n")
    for name, (code, expected) in WRONG.items():
        end = start + code.count("\n")
        said = [line for line in errors if start < int(line.split(":")[1]) <= end]

        assert len(said) == 1, f"{name}: {done.stdout}{done.stderr}"
        assert said[0].endswith(f"[{expected}]")
        start = end

    assert len(errors) == len(WRONG)
