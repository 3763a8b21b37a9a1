"""NaN and the infinities, which JSON does not have, get in by no way: one of them would reach everybody."""

from __future__ import annotations

import dataclasses
import math
import struct
from collections.abc import Callable
from typing import Any

import msgspec
import pydantic
import pytest

from hubbub import Hub, HubbubError, Message
from hubbub.client import Client as HubbubClient
from support.client import connect
from support.codecs import CODECS, schema
from support.loop import run
from support.server import serving

pytestmark = pytest.mark.every_engine


class Price(msgspec.Struct):
    value: float


@dataclasses.dataclass
class DataPrice:
    value: float


class PydanticPrice(pydantic.BaseModel):
    value: float


CONTENTS: dict[str, Callable[[float], object]] = {
    "alone": lambda value: value,
    "nested": lambda value: {"a": [None, {"b": value}]},
    "in a struct": Price,
    "in a dataclass": DataPrice,
    "in a pydantic model": lambda value: PydanticPrice(value=value),
}


@pytest.mark.parametrize("make", CONTENTS.values(), ids=CONTENTS)
def test_no_nan_from_the_application(make: Callable[[float], object]) -> None:
    """What is sent from code, what a handler sets, and what it changes in place; who caused it hears of an error."""
    hub = Hub()

    @hub.on("set")
    async def set_it(message: Message[Any]) -> Message[Any]:
        message.content = make(math.nan)
        return message

    @hub.on("change")
    async def change_it(message: Message[Any]) -> Message[Any]:
        message.content["a"] = make(math.inf)
        return message

    async def main() -> None:
        async with serving(hub) as server, connect(server.address, "alice") as alice:
            for value in (math.nan, math.inf, -math.inf):
                content = make(value)
                for sent in (
                    hub.publish("price", content),
                    hub.publish("price", content, room="r", volatile=True),
                    hub.send_to("alice", "price", content),
                    hub.send_with_ack("alice", "price", content),
                ):
                    with pytest.raises(HubbubError, match="cannot be sent as JSON"):
                        await sent
            for type in ("set", "change"):
                answer = await alice.ask(type, content={"a": 1})

                assert (answer["type"], answer["code"]) == ("error", "internal")
            await alice.sync()
            assert {message["type"] for message in alice.seen} <= {"error", "pong"}

    run(main(), logs_errors=True)


# NaN, a NaN that carries something, infinity; as doubles and in 32 bits.
PACKED = [struct.pack(">Bd", 0xCB, value) for value in (math.nan, math.inf, -math.inf)]
PACKED += [struct.pack(">Bf", 0xCA, value) for value in (math.nan, math.inf, -math.inf)]
PACKED += [b"\xcb\xff\xf8\x00\x00\x00\x00\xbe\xef", b"\xca\x7f\x80\x00\x01"]
WORDS = ["NaN", "Infinity", "-Infinity", "nan", "inf", "1e", "+1"]


@pytest.mark.parametrize("name", CODECS)
def test_no_nan_from_a_client(name: str) -> None:
    """On its own, within something, and where a number of the protocol should be."""

    async def main() -> None:
        async with serving() as server, connect(server.address, "watcher") as watcher:
            for start in range(0, len(messages), 9):
                async with connect(server.address, "mallory", codec=CODECS[name]) as client:
                    for message in messages[start : start + 9]:
                        await client.raw.send(message)
                        error = await client.expect("error")

                        assert error["code"] == "bad_message"
                    await client.sync()
            assert await watcher.sync() == []

    messages: list[str | bytes] = []
    if name == "msgpack":
        for packed in PACKED:
            messages += [b"\x82\xa4type\xa4chat\xa7content" + packed, b"\x82\xa4type\xa4ping\xa7content\x91" + packed]
            messages += [b"\x82\xa4type\xa3ack\xa3seq" + packed]
    else:
        for word in WORDS:
            for text in (word, '{"a":[1,' + word + "]}"):
                if name == "json":
                    messages += ['{"type":"chat","content":' + text + "}"]
                else:
                    messages += [schema()(type="chat", json=text).SerializeToString()]
    run(main())


@pytest.mark.parametrize("name", CODECS)
def test_no_nan_from_our_own_client(name: Any) -> None:
    """It refuses to send it, and stays connected."""

    async def main() -> None:
        async with serving() as server, connect(server.address, "watcher") as watcher:
            async with HubbubClient(server.address + "?user_id=bob", codec=name) as client:
                for make in CONTENTS.values():
                    with pytest.raises(HubbubError, match="cannot be sent as JSON"):
                        await client.send("price", make(math.nan))
                await client.send("price", 1.5)
            await watcher.expect("price", content=1.5)

            assert watcher.heard("price") == watcher.seen

    run(main())
