"""Whatever a client sends, it gets the error that the protocol names, and nobody else notices."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from contract.transports.harness import CLOSE, PING, PONG, frame, handshake
from support.client import FULL, Client, Message, connect
from support.loop import PATIENCE, eventually, run
from support.server import serving

pytestmark = pytest.mark.every_engine

BIG = "x" * 20_000

# Values of every wrong kind; each field is sent all of those that it does not allow.
NOTHING_ALLOWED: list[Any] = [
    0,
    -1,
    1.5,
    2**63,
    10**30,
    1e308,
    True,
    False,
    None,
    [],
    {},
    [[]],
    ["a"],
    [1, 2, 3],
    {"__class__": "os.system"},
    {"__proto__": {"x": 1}},
    "",
    "__class__",
    "x" * 129,
    BIG,
    "a\x00b",
    "a\nb",
    "\x7f",
    "\x9f",
    "\ud800",
]
TEXT_OK: list[Any] = ["__class__"]
# For each reserved type that clients send: what is right with it, and for each field the values above that
# are right after all.
TYPES: dict[str, tuple[Message, dict[str, list[Any]]]] = {
    "auth": ({"token": "t"}, {"id": TEXT_OK, "token": ["__class__", "x" * 129, "a\x00b", "a\nb", "\x7f", "\x9f"]}),
    "ping": ({}, {"id": TEXT_OK}),
    "pong": ({}, {"id": TEXT_OK}),
    "join": ({"room": "lobby"}, {"id": TEXT_OK, "room": TEXT_OK, "since": [], "last": [0]}),
    "leave": ({"room": "lobby"}, {"id": TEXT_OK, "room": TEXT_OK}),
    "ack": ({"seq": 1, "room": "lobby"}, {"id": TEXT_OK, "room": TEXT_OK, "seq": []}),
    "history": ({"room": "lobby"}, {"id": TEXT_OK, "room": TEXT_OK, "before": [0], "after": [0], "limit": []}),
    "presence": ({"room": "lobby"}, {"id": TEXT_OK, "room": TEXT_OK}),
    "users": ({"ids": ["alice"]}, {"id": TEXT_OK, "ids": [[], ["a"]]}),
    "hello": (
        {},
        {
            "id": TEXT_OK,
            "token": ["__class__", "x" * 129, "a\x00b", "a\nb", "\x7f", "\x9f"],
            "client": ["__class__", "a\x00b", "a\nb", "\x7f", "\x9f"],
            "resume": [{}, {"__class__": "os.system"}, {"__proto__": {"x": 1}}],
        },
    ),
    "chat": (
        {"content": 1},
        {
            "id": TEXT_OK,
            "to": TEXT_OK,
            "room": TEXT_OK,
            "receipt": [False],
            "echo": [True, False],
            "volatile": [True, False],
            "binary": [False],
        },
    ),
}
FIELDS = [(kind, field) for kind, (_, fields) in TYPES.items() for field in fields]


def wrong_values(kind: str, field: str) -> list[Any]:
    allowed = TYPES[kind][1][field]
    return [value for value in NOTHING_ALLOWED if not any(value == ok and type(value) is type(ok) for ok in allowed)]


def check_error(error: Message) -> None:
    """An `error` of the protocol: nothing of what was sent in its text, nothing of the server's insides."""
    assert (error["type"], error["code"]) == ("error", "bad_message")
    text = error["message"]
    assert 0 < len(text) < 200
    for leak in ("__class__", "__proto__", "os.system", "xxxx", "Traceback", "hubbub.", "msgspec", "object at 0x"):
        assert leak not in text


@pytest.mark.parametrize(("kind", "field"), FIELDS)
def test_every_field_refuses_every_other_type(kind: str, field: str, caplog: pytest.LogCaptureFixture) -> None:
    """`bad_message` for each, with the id where that is good; the connection lives; nothing is logged."""

    async def main() -> None:
        async with serving() as server:
            good, _ = TYPES[kind]
            values = wrong_values(kind, field)
            # Nine bad messages are one connection's allowance.
            for start in range(0, len(values), 9):
                await try_values(server.address, good, kind, field, values[start : start + 9])

    with caplog.at_level(logging.DEBUG, logger="hubbub"):
        run(main())

    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert "__class__" not in caplog.text and "xxxx" not in caplog.text


async def try_values(address: str, good: Message, kind: str, field: str, values: list[Any]) -> None:
    """Send each value where it does not belong, on one connection, which must live on."""
    if kind == "hello":
        # Before the welcome each wrong message is the last.
        for value in values:
            async with connect(address, "alice", subprotocols=[FULL]) as client:
                await client.send({"type": kind, **good, field: value})
                check_error(await client.expect("error"))

                assert (await client.closed())[0] == 4500
        return
    async with connect(address, "alice") as client:
        for number, value in enumerate(values):
            message = {"type": kind, "id": f"m{number}", **good, field: value}
            await client.send(message)
            error = await client.expect("error")
            check_error(error)

            assert error.get("id") == (f"m{number}" if field != "id" and value != "\ud800" else None), value
        await still_works(client)


async def still_works(client: Client) -> None:
    await client.sync()
    joined = await client.ask("join", room="afterwards")

    assert joined["type"] == "joined"


def test_a_type_of_every_kind() -> None:
    """`type` itself: missing, of another kind, too long, with control characters."""

    async def main() -> None:
        async with serving() as server:
            values = [value for value in NOTHING_ALLOWED if value != "__class__"]
            for start in range(0, len(values), 9):
                async with connect(server.address, "alice") as client:
                    for value in values[start : start + 9]:
                        await client.send({"type": value, "content": BIG})
                        check_error(await client.expect("error"))
                    await still_works(client)
            async with connect(server.address, "alice") as client:
                await client.send({"content": "no type"})
                check_error(await client.expect("error"))
                # A name like any other.
                await client.send({"type": "__class__", "content": {"__init__": "__globals__"}})
                heard = await client.expect("__class__")

                assert heard["content"] == {"__init__": "__globals__"}

    run(main())


def test_what_the_server_sets_is_ignored_whatever_its_type() -> None:
    """`from`, `seq`, `prev`, `time`, `epoch` and unknown fields of every kind change nothing (1.1)."""

    async def main() -> None:
        async with serving() as server, connect(server.address, "alice") as client:
            # The longest would make the message too large, seven times over.
            values = [value for value in NOTHING_ALLOWED if value not in ("\ud800", BIG)]
            for number, value in enumerate(values, 1):
                fields = dict.fromkeys(("from", "seq", "prev", "time", "epoch", "unknown", "__class__"), value)
                await client.say(number, **fields)
                heard = await client.expect("chat", seq=number)

                assert heard.keys() == {"type", "from", "content", "seq", "time"}
                assert heard["from"] == "alice" and heard["time"] > 1_600_000_000_000

    run(main())


TEXTS: dict[str, str] = {
    "nothing": "",
    "not JSON": "hello",
    "half of it": '{"type":"chat"',
    "two": '{"type":"a"}{"type":"b"}',
    "a number": "1",
    "a string": '"chat"',
    "a list": '[{"type":"chat"}]',
    "null": "null",
    "NaN": '{"type":"chat","content":NaN}',
    "Infinity": '{"type":"chat","content":-Infinity}',
    "a comment": '{"type":"chat"/**/}',
    "single quotes": "{'type':'chat'}",
    "a byte order mark": '\ufeff{"type":"chat"}',
    "a trailing comma": '{"type":"chat",}',
    "an unpaired surrogate": '{"type":"chat","content":"\\ud800"}',
    "an unpaired surrogate as a name": '{"type":"join","room":"\\udfff"}',
    "a bare control character": '{"type":"chat","content":"\x01"}',
    "nested 65 deep": '{"type":"chat","content":' + "[" * 64 + "]" * 64 + "}",
    "nested 30,000 deep": '{"type":"chat","content":' + "[" * 30_000 + "]" * 30_000 + "}",
    "nested in what is ignored": '{"type":"chat","x":' + '{"a":' * 10_000 + "1" + "}" * 10_000 + "}",
    "nested and unclosed": '{"type":"chat","content":' + "[" * 60_000,
    "both targets": '{"type":"chat","to":"a","room":"b"}',
    "a receipt for nobody": '{"type":"chat","receipt":true,"id":"a"}',
    "a receipt without an id": '{"type":"chat","receipt":true,"to":"a"}',
    "a receipt for a volatile message": '{"type":"chat","receipt":true,"to":"a","id":"a","volatile":true}',
    "binary that is no base64": '{"type":"chat","binary":true,"content":"?"}',
    "binary without content": '{"type":"chat","binary":true}',
    "since and last": '{"type":"join","room":"a","since":["e",1],"last":1}',
    "since of three": '{"type":"join","room":"a","since":["e",1,1]}',
    "since of one": '{"type":"join","room":"a","since":["e"]}',
    "since the wrong way round": '{"type":"join","room":"a","since":[1,"e"]}',
    "since with an empty epoch": '{"type":"join","room":"a","since":["",1]}',
    "since before the beginning": '{"type":"join","room":"a","since":["e",-1]}',
    "since with a fraction": '{"type":"join","room":"a","since":["e",1.0]}',
    "a seq with an exponent": '{"type":"ack","seq":1e3}',
    "a seq too large": '{"type":"ack","seq":9007199254740992}',
    "too many ids": json.dumps({"type": "users", "ids": ["a"] * 101}),
    "a limit of none": '{"type":"history","limit":0}',
    "a limit too large": '{"type":"history","limit":501}',
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_what_is_no_message_is_a_bad_message(text: str) -> None:
    """protocol.md 1.3: answered, and the connection stays."""

    async def main() -> None:
        async with serving() as server, connect(server.address, "alice") as client:
            await client.send_text(text)
            check_error(await client.expect("error"))
            await still_works(client)

    run(main())


@pytest.mark.parametrize("kind", ["welcome", "receipt", "joined", "left", "error", "gap", "goodbye", "member-joined"])
def test_what_the_server_says_is_not_for_clients_to_say(kind: str) -> None:
    """A client that sends one of the server's types gets `bad_message`, with its id and room."""

    async def main() -> None:
        async with serving() as server, connect(server.address, "alice") as client:
            await client.send({"type": kind, "id": "i", "room": "r", "code": 1, "seq": "x"})
            error = await client.expect("error", id="i", room="r")
            check_error(error)
            await still_works(client)

    run(main())


def test_binary_is_the_wrong_kind_of_message() -> None:
    async def main() -> None:
        async with serving() as server, connect(server.address, "alice") as client:
            await client.raw.send(b'{"type":"chat"}')
            check_error(await client.expect("error"))
            await still_works(client)

    run(main())


def test_hello_on_an_open_session_is_a_conflict() -> None:
    """Plain or full; it is no bad message and changes nothing."""

    async def main() -> None:
        async with (
            serving() as server,
            connect(server.address, "alice") as plain,
            connect(server.address, "alice", full=True) as full,
        ):
            for client in (plain, full):
                error = await client.ask("hello", resume={"rooms": {"lobby": None}})

                assert (error["type"], error["code"]) == ("error", "conflict")
                assert (await client.ask("presence", room="lobby"))["code"] == "not_joined"

    run(main())


RESUMES: list[Any] = [
    {"inbox": 1},
    {"inbox": []},
    {"inbox": ["e", "1"]},
    {"all": ["e", -1]},
    {"all": {"epoch": "e", "seq": 1}},
    {"rooms": []},
    {"rooms": None},
    {"rooms": {"": None}},
    {"rooms": {"x" * 129: None}},
    {"rooms": {"a\nb": None}},
    {"rooms": {"lobby": 1}},
    {"rooms": {"lobby": ["x" * 65, 1]}},
    {"rooms": {"lobby": ["e", 2**53]}},
    {"rooms": {"lobby": [None, None]}},
]


@pytest.mark.parametrize("resume", RESUMES, ids=json.dumps)
def test_a_bad_resume_ends_the_handshake(resume: object) -> None:
    """All of `hello` is checked before anything is answered: an error, and 4500 (protocol.md 3.3)."""

    async def main() -> None:
        async with serving() as server, connect(server.address, "alice", subprotocols=[FULL]) as client:
            await client.send({"type": "hello", "resume": resume})
            check_error(await client.expect("error"))

            assert (await client.closed())[0] == 4500
            assert server.hub.local_sessions() == []

    run(main())


class Flood(asyncio.Protocol):
    """A client that hears while it floods: a reset may follow the server's last word at once."""

    def __init__(self) -> None:
        self.heard = b""
        self.gone = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.heard += data

    def connection_lost(self, error: Exception | None) -> None:
        self.gone.set()


@pytest.mark.memory
@pytest.mark.parametrize("opcode", [PING, PONG])
def test_control_frames_before_hello_spawn_nothing(opcode: int) -> None:
    """10^5 of them that nobody asked for, on a connection that has not even greeted: closed by rate, and no task."""

    async def main() -> None:
        async with serving() as server:
            tasks = asyncio.all_tasks()
            port = int(server.address.rpartition(":")[2])
            transport, flood = await asyncio.get_running_loop().create_connection(Flood, "localhost", port)
            transport.write(handshake("/ws?user_id=mallory", f"Sec-WebSocket-Protocol: {FULL}"))
            for _ in range(1_000):
                if transport.is_closing():
                    break
                transport.write(frame(opcode) * 100)
                await asyncio.sleep(0)

                assert asyncio.all_tasks() == tasks
            transport.close()
            async with asyncio.timeout(PATIENCE):
                await flood.gone.wait()
            head, _, answers = flood.heard.partition(b"\r\n\r\n")
            pongs, close, payload = answers.partition(bytes((0x80 | CLOSE,)))

            assert head.startswith(b"HTTP/1.1 101 ") and close
            # An answer to each ping of the allowance, and then 4500.
            assert pongs == frame(PONG, mask=False) * (100 if opcode == PING else 0)
            assert int.from_bytes(payload[1:3]) == 4500
            await eventually(lambda: server.hub.statistics().connections == 0)

    run(main())
