"""One room for all codecs: everybody gets everything, in order, each in their own codec."""

from __future__ import annotations

import asyncio
import base64
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from itertools import cycle
from typing import Any

import pytest

from hubbub.hub.formats import CODECS as OURS
from hubbub.server import Server
from hubbub.types import Publication
from support.client import Client, Message, connect
from support.codecs import CODECS, EXACT, Codec, Number, content_of, same
from support.loop import eventually, run
from support.server import serving

pytestmark = pytest.mark.every_engine


def contents(seed: int) -> Iterator[Any]:
    """Any content after the other, the same ones for a seed."""
    chance = random.Random(seed)

    def text() -> str:
        return "".join(chance.choice('aß😀\0"\\/\u2028é\n') for _ in range(chance.randrange(12)))

    def value(depth: int) -> Any:
        kind = chance.randrange(12 if depth else 9)
        match kind:
            case 0:
                return chance.choice([None, True, False])
            case 1 | 2:
                return chance.choice([1, -1]) * (2 ** chance.randrange(200) + chance.randrange(-2, 3))
            case 3 | 4:
                return chance.choice([0.0, -0.0, 1.0, 5e-324, 1.7e308, chance.random(), chance.gauss(0, 1e20)])
            case 5:
                return Number(f"{chance.choice(['', '-'])}{chance.randrange(1, 99)}e{chance.randrange(400, 10**20)}")
            case 6 | 7 | 8:
                return text()
            case 9:
                return {text(): value(depth - 1) for _ in range(chance.randrange(5))}
            case _:
                return [value(depth - 1) for _ in range(chance.randrange(5))]

    while True:
        if chance.random() < 0.1:
            yield chance.randbytes(chance.choice([0, 1, 300]))
        elif chance.random() < 0.1:
            found = value(0)
            for _ in range(63):
                found = [found] if chance.random() < 0.5 else {"a": found}
            yield found
        else:
            yield value(4)


def message_of(content: Any, **fields: Any) -> Message:
    if isinstance(content, bytes):
        return {"type": "chat", "content": base64.b64encode(content).decode(), "binary": True, **fields}
    return {"type": "chat", "content": content, **fields}


def heard(client: Client) -> list[Message]:
    """What came into the room, which must be in order and without a hole."""
    messages = client.heard("chat")
    first = messages[0]["seq"]

    assert [message["seq"] for message in messages] == list(range(first, first + len(messages)))
    return messages


def check_contents(messages: list[Message], expected: list[Any]) -> None:
    assert len(messages) == len(expected)
    for message, content in zip(messages, expected, strict=True):
        assert same(content_of(message), content), (message, content)


def test_any_content_reaches_everybody_live_from_the_past_and_on_resuming() -> None:
    """Hundreds of contents from a sender of each codec, and each way to receive them in each codec."""

    each = 130

    async def main() -> None:
        async with serving(history_size=5_000) as server, AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(connect(server.address, name, codec=codec, full=True))
                for name, codec in EXACT.items()
            ]
            for client in clients:
                await client.join("r")
            expected: list[Any] = []
            for client, _ in zip(cycle(clients), range(3 * each), strict=False):
                source = sources.setdefault(client.user, contents(len(sources)))
                content = next(source)
                accepted = await said(client, content)
                expected.append(content)

                assert accepted["seq"] == len(expected)
            for client in clients:
                await client.expect("chat", seq=len(expected))
                check_contents(heard(client), expected)
            for codec in EXACT.values():
                await read_the_past(server, codec, expected)

    sources: dict[str, Iterator[Any]] = {}
    run(main())


async def said(client: Client, content: Any) -> Message:
    """Say it in the room; the `ack`, not the echo."""
    id = f"{client.user}-{len(client.seen)}"
    await client.send(message_of(content, room="r", id=id))
    return await client.expect("ack", id=id)


async def read_the_past(server: Server, codec: Codec, expected: list[Any]) -> None:
    """By `last`, by `since`, by pages of history and by resuming, in one codec."""
    where: list[Any] = []
    async with connect(server.address, "late", codec=codec, full=True) as late:
        joined = await late.join("r", last=len(expected))
        where += joined["position"]
        await late.expect("chat", seq=len(expected))
        check_contents(heard(late), expected)
        found: list[Message] = []
        while True:
            before = {"before": found[0]["seq"]} if found else {}
            page = await late.ask("history", room="r", limit=100, **before)
            found[:0] = page["messages"]
            if not page["more"]:
                break
        check_contents(found, expected)
    since = len(expected) // 3
    async with connect(server.address, "since", codec=codec, full=True) as late:
        joined = await late.join("r", since=[where[0], since])
        await late.expect("chat", seq=len(expected))

        assert joined["recovered"] is True
        check_contents(heard(late), expected[since:])
    resume = {"rooms": {"r": [where[0], since]}}
    async with connect(server.address, "resumed", codec=codec, full=True, hello={"resume": resume}) as late:
        await late.expect("chat", seq=len(expected))

        assert late.welcome["recovered"]["rooms"] == {"r": True}
        check_contents(heard(late), expected[since:])


def test_a_publication_is_encoded_once_for_each_codec(monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    """Thirty members, ten of each codec, who all speak at once: all get all, and each is encoded once per codec."""

    encodings: Counter[tuple[str, str]] = Counter()
    for name, codec in OURS.items():

        def encode(message: object, name: str = name, original: Any = codec.encode) -> Any:
            if isinstance(message, Publication):
                encodings[name, message.id or ""] += 1
            return original(message)

        monkeypatch.setattr(codec, "encode", encode)

    async def main() -> None:
        async with serving() as server, AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(connect(server.address, f"u{number}", codec=codec, full=True))
                for number, codec in zip(range(30), cycle(CODECS.values()), strict=False)
            ]
            for client in clients:
                await client.join("r")
            acks = await asyncio.gather(*(speak(client) for client in clients))
            for client in clients:
                await client.expect("chat", seq=90)

            everything = heard(clients[0])
            assert sorted(message["content"][0] for message in everything) == sorted(
                f"u{number}" for number in range(30) for _ in range(3)
            )
            assert sorted(seq for seqs in acks for seq in seqs) == list(range(1, 91))
            for client, seqs in zip(clients, acks, strict=True):
                assert heard(client) == everything
                own = [message["seq"] for message in everything if message["from"] == client.user]
                assert own == seqs == sorted(seqs)
            assert set(encodings.values()) == {1}
            # Not at all where it is already in that form: the record serves. In Redis and NATS its number is not in it.
            assert Counter(name for name, _ in encodings) == {
                "hubbub.v1.protobuf": 90,
                "hubbub.v1.msgpack": 90 if engine in ("redis", "nats") else 60,
                "hubbub.v1.json": 90 if engine in ("redis", "nats") else 30,
            }
            await ask_about(clients)

    run(main())


async def speak(client: Client) -> list[int]:
    """Three messages at once; the seqs of their acks."""
    ids = [f"{client.user}-{number}" for number in range(3)]
    for id in ids:
        await client.send({"type": "chat", "room": "r", "id": id, "content": [client.user, 1.5, None]})
    return [(await client.expect("ack", id=id))["seq"] for id in ids]


async def ask_about(clients: list[Client]) -> None:
    """What is asked has the same answer in every codec."""
    asked = clients[:3]
    questions: list[Message] = [
        {"type": "presence", "room": "r"},
        {"type": "history", "room": "r", "limit": 7},
        {"type": "history", "room": "r", "after": 80, "limit": 3},
        {"type": "users", "ids": ["nobody"]},
        {"type": "presence", "room": "elsewhere"},
        {"type": "chat", "room": "elsewhere", "content": 1},
        {"type": "ping", "content": {"a": [1, None]}},
    ]
    for question in questions:
        answers = [await client.ask(id="q", **question) for client in asked]

        assert answers[0] == answers[1] == answers[2]
    for client in asked:
        online = (await client.ask("users", ids=["u0", "u29"]))["users"]
        assert [online[user].keys() for user in ("u0", "u29")] == [{"online", "since", "last_seen"}] * 2
    members = (await asked[0].ask("presence", room="r"))["members"]
    assert {member["user"] for member in members} == {client.user for client in clients}


@pytest.mark.parametrize("sender", CODECS)
@pytest.mark.parametrize("recipient", CODECS)
def test_unicast_retries_receipts_and_presence_events_cross_codecs(sender: str, recipient: str) -> None:
    """The inbox waits, a retry is one message, the receipt comes back, and events of presence are heard."""

    async def main() -> None:
        async with serving(presence_events=True, presence_grace=0) as server, AsyncExitStack() as stack:
            alice = await stack.enter_async_context(connect(server.address, "alice", codec=CODECS[sender], full=True))
            await alice.join("r")
            letter: Message = {
                "type": "letter",
                "to": "bob",
                "id": "a1",
                "receipt": True,
                "content": "AP8=",
                "binary": True,
            }
            first, again = [await alice.ask(**letter) for _ in range(2)]

            assert again == first | {"duplicate": True}
            bob = await stack.enter_async_context(connect(server.address, "bob", codec=CODECS[recipient], full=True))
            got = await bob.expect("letter")
            assert got == letter | {"from": "alice", "seq": 1, "time": got["time"]}
            await bob.send({"type": "ack", "seq": 1})
            receipt = await alice.expect("receipt")
            assert receipt == {"type": "receipt", "id": "a1", "by": "bob", "time": receipt["time"]}

            await bob.join("r")
            assert await alice.expect("member-joined") == {"type": "member-joined", "room": "r", "user": "bob"}
            left = await bob.ask("leave", room="r", id="l")
            assert left == {"type": "left", "room": "r", "id": "l"}
            assert await alice.expect("member-left") == {"type": "member-left", "room": "r", "user": "bob"}

    run(main())


@pytest.mark.parametrize("name", CODECS)
def test_gaps_and_goodbyes_are_told_in_every_codec(name: str) -> None:
    """Who does not read is told what was dropped; who is there in a drain is told when to come back."""

    async def main() -> None:
        options: dict[str, Any] = {"rooms": {"r": {"overflow": "drop_oldest"}}, "outbox_messages": 20}
        async with serving(sndbuf=8_192, **options) as server, AsyncExitStack() as stack:
            watcher = await stack.enter_async_context(connect(server.address, "watcher"))
            client = await stack.enter_async_context(
                connect(server.address, "slow", codec=CODECS[name], full=True, rcvbuf=4_096)
            )
            for member in (watcher, client):
                await member.join("r")
            client.stall()
            for number in range(300):
                accepted = await server.hub.publish("chat", [number, "x" * 1_000], room="r")
                await watcher.expect("chat", seq=accepted.seq)
            client.resume()
            await eventually(lambda: not server.hub.statistics().blocked)
            await client.sync()
            position = 0
            for message in client.heard(room="r"):
                match message["type"]:
                    case "gap":
                        assert message == {"type": "gap", "room": "r", "from": position + 1, "to": message["to"]}
                        position = message["to"]
                    case "chat":
                        assert message["seq"] == position + 1 and message["content"][0] == position
                        position += 1

            assert position == 300 and client.heard("gap")
            draining = asyncio.ensure_future(server.drain(5))
            goodbye = await client.expect("goodbye")
            await draining
            assert goodbye.keys() >= {"type", "code", "reason"} and goodbye["code"] == 1012
            assert (await client.closed())[0] == 1012

    run(main())


def test_a_session_may_come_back_in_another_codec() -> None:
    """What it missed follows, whatever it spoke before: the position is the channel's."""

    async def main() -> None:
        async with serving() as server, connect(server.address, "alice") as alice:
            await alice.join("r")
            position: list[Any] = ["", 0]
            for number, codec in enumerate(CODECS.values()):
                hello = {"resume": {"rooms": {"r": position if number else None}}}
                async with connect(server.address, "bob", codec=codec, full=True, hello=hello) as bob:
                    if number:
                        await bob.expect("chat", content=f"missed {number}")
                    await alice.say(f"live {number}", room="r")
                    last = await bob.expect("chat", content=f"live {number}")
                    position = [bob.welcome["positions"]["rooms"]["r"][0], last["seq"]]
                await eventually(lambda: len(server.hub.local_sessions("bob")) == 0)
                await alice.say(f"missed {number + 1}", room="r")
                await alice.expect("chat", content=f"missed {number + 1}")

    run(main())
