"""Where an engine numbers several channels together, numbers are left out in each: that is a jump, and not a hole."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from hubbub.client import Message, connect
from integration.client.proxy import Network
from support.client import Client, open_client
from support.client import connect as raw
from support.loop import PATIENCE, run
from support.nats import Nats
from support.server import serving

ROOMS = ("lobby", "den")


def follow(client: Client, room: str, position: int) -> list[Any]:
    """Go through a room as the rule says (protocol.md 5.1); returns what was said there, None where an `ack` stands."""
    said = []
    for message in client.seen:
        if message.get("room") != room or message["type"] not in ("chat", "ack") or message.get("duplicate"):
            continue
        assert message.get("prev", message["seq"] - 1) <= position < message["seq"], message
        position = message["seq"]
        said.append(message.get("content"))
    return said


def test_each_room_goes_on_where_it_was(nats: Nats) -> None:
    """With what others say, and with the `ack` that stands for one's own message, on either side of a resume."""

    async def main() -> None:
        async with serving(**nats.part("numbers")) as server, raw(server.address, "bob", full=True) as bob:
            alice = await open_client(server.address, "alice", full=True)
            joined = {room: (await alice.join(room))["position"] for room in ROOMS}
            for room in ROOMS:
                await bob.join(room)
            for number in range(20):
                for room in ROOMS:
                    await bob.ask("chat", content=number, room=room)
                    await alice.ask("chat", content="mine", room=room, echo=False, id=f"mine-{number}-{room}")
            numbers = [message["seq"] for message in alice.heard("chat", room="lobby")]
            heard = {room: follow(alice, room, joined[room][1]) for room in ROOMS}
            alice.cut()
            for number in range(20, 30):
                for room in ROOMS:
                    await bob.ask("chat", content=number, room=room)
            last = {room: [joined[room][0], alice.heard("ack", room=room)[-1]["seq"]] for room in ROOMS}
            async with raw(server.address, "alice", full=True, hello={"resume": {"rooms": last}}) as back:
                history = await back.ask("history", room="den", limit=5)
                for room in ROOMS:
                    await bob.ask("chat", content="last", room=room)
                    await back.expect("chat", content="last", room=room)

                assert any(later - earlier > 2 for earlier, later in pairwise(numbers))
                assert heard == {room: [said for number in range(20) for said in (number, None)] for room in ROOMS}
                assert back.welcome["recovered"]["rooms"] == dict.fromkeys(ROOMS, True)
                for room in ROOMS:
                    assert follow(back, room, last[room][1]) == [*range(20, 30), "last"]
                assert [message["content"] for message in history["messages"]] == [25, 26, 27, 28, 29]

    run(main())


@pytest.mark.parametrize("cut", [False, True], ids=["undisturbed", "cut"])
def test_the_python_client_takes_a_jump_for_no_hole(nats: Nats, cut: bool) -> None:
    """Everything once, in order and at once, though every second number is another room's."""

    async def main() -> None:
        async with (
            serving(**nats.part(f"client{cut:d}")) as server,
            Network.to(server.address) as network,
            connect(f"{network.address}/?user_id=alice") as alice,
            raw(server.address, "bob", full=True) as bob,
        ):
            gaps: list[Any] = []
            alice.on("gap", gaps.append)
            for room in ROOMS:
                await alice.join(room)
                await bob.join(room)
            for number in range(50):
                if cut and number == 25:
                    network.cut()
                for room in ROOMS:
                    await bob.ask("chat", content=number, room=room)
                await alice.send("chat", "mine", room=ROOMS[number % 2], echo=False)
            messages: list[Message] = []
            # A hole would be waited for, and then resumed.
            async with asyncio.timeout(PATIENCE if cut else 0.9):
                while len(messages) < 100:
                    messages.append(await anext(alice))

            for room in ROOMS:
                assert [message.content for message in messages if message.room == room] == list(range(50))
            assert gaps == []

    run(main())
