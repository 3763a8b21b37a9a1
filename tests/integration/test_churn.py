"""Members come and go while others talk: each sees an unbroken sequence for as long as it is in the room."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack

import pytest

from hubbub.server import Server
from support.client import Client, Message, connect
from support.loop import run
from support.server import serving

pytestmark = pytest.mark.every_engine

ROOM = "station"
TRAVELLERS, CYCLES = 20, 100


def test_two_thousand_joins_and_leaves_race_publications() -> None:
    """Joins of every kind, plain and full: no gap, no double, nothing before `joined`, nothing after `left`."""

    async def main() -> None:
        async with serving() as server, AsyncExitStack() as stack:
            talker = await stack.enter_async_context(connect(server.address, "talker"))
            joined = await talker.join(ROOM)
            travellers = [
                await stack.enter_async_context(connect(server.address, f"t{n}", full=n % 2 == 0))
                for n in range(TRAVELLERS)
            ]
            talking = asyncio.ensure_future(talk(server, talker))
            try:
                journeys = (
                    travel(client, random.Random(n), joined["position"][0]) for n, client in enumerate(travellers)
                )
                await asyncio.gather(*journeys)
            finally:
                talking.cancel()
            await asyncio.gather(talking, return_exceptions=True)
            await talker.sync()
            said = {message["seq"]: message["content"] for message in talker.heard("chat")}

            assert list(said) == list(range(1, len(said) + 1)) and len(said) > CYCLES
            for client in travellers:
                await client.sync()
                check(client.seen, said)
            assert [member.user for member in await server.hub.members(ROOM)] == ["talker"]

    run(main())


async def talk(server: Server, talker: Client) -> None:
    """Say something again and again, over a socket and from the server's own code."""
    number = 0
    while True:
        number += 1
        await talker.say(number, room=ROOM)
        await server.hub.publish("chat", -number, room=ROOM)
        await talker.sync()


async def travel(client: Client, chance: random.Random, epoch: str) -> None:
    """Join and leave again and again; the id of each join says what it asked for."""
    for cycle in range(CYCLES):
        last = next((message["seq"] for message in reversed(client.seen) if message["type"] == "chat"), None)
        asked = chance.choice(["fresh", "last", "since"])
        if asked == "since" and last is not None:
            await client.join(ROOM, since=[epoch, last], id=f"since-{last}-{cycle}")
        elif asked == "last":
            await client.send({"type": "join", "room": ROOM, "last": 3, "id": f"last-3-{cycle}"})
        else:
            await client.send({"type": "join", "room": ROOM, "id": f"fresh-0-{cycle}"})
        for _ in range(chance.randrange(3)):
            await asyncio.sleep(0)
        if chance.random() < 0.1:
            # Joining where one is already begins anew after the position that was asked for.
            await client.send({"type": "join", "room": ROOM, "last": 3, "id": f"last-3-{cycle}-again"})
        await client.ask("leave", room=ROOM)


def check(seen: list[Message], said: dict[int, object]) -> None:
    """Follow the room through all the joins and leaves of one session."""
    position: int | None = None
    joins = 0
    for message in seen:
        match message["type"]:
            case "joined":
                joins += 1
                asked, number, *_ = message["id"].split("-")
                end = message["position"][1]
                if asked == "fresh":
                    assert message["recovered"] is None
                    position = end
                else:
                    assert message["recovered"] is True
                    position = int(number) if asked == "since" else end - min(3, end)
            case "left":
                position = None
            case "chat":
                assert position is not None, "a message of a room that the session is not in"
                assert message["seq"] == position + 1
                assert message["content"] == said[message["seq"]]
                position += 1
            case _:
                assert message["type"] in ("welcome", "member-joined", "member-left", "ping", "pong")
    assert joins >= CYCLES
