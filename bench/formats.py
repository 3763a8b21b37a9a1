"""What each codec costs: bytes, and CPU to write and to read, for a chat message, a price tick and a 10 KB document.

python bench/formats.py            the table, and what it means in words; a minute or so
python bench/formats.py --quick    a few calls, to see that everything works

Beside the standard library's `json`, which is what most programs in Python use, and beside Protobuf with a schema for
the content itself: what is said of that format is mostly said of such messages.
"""

from __future__ import annotations

import argparse
import json as standard
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from hubbub.client.wire import Wire
from hubbub.protocol import json, msgpack, protobuf
from hubbub.protocol.codec import Codec
from hubbub.types import Publication

CODECS: dict[str, Codec] = {"JSON": json, "MessagePack": msgpack, "Protobuf": protobuf}
ROUNDS = 15
# Seconds that one figure of one round takes.
LONG = 0.02

CHAT = {"text": "Shall we meet at eight? I have the tickets, and Ada brings the map.", "reply_to": "a7f3-112"}
TICK = {"symbol": "EURUSD", "bid": 1.08427, "ask": 1.08431, "volume": 1250000, "time": 1766200000123}
DOCUMENT = {
    "title": "Inventory of the north hall",
    "revision": 4711,
    "items": [
        {
            "id": 100_000 + number,
            "name": f"Shelf {number % 17} / crate {number}",
            "weight": round(1.5 + number * 7 / 3, 3),
            "fragile": number % 5 == 0,
            "tags": ["north", f"row-{number % 9}", "checked"],
            "note": "handle with care, this side up" if number % 3 else None,
        }
        for number in range(69)
    ],
}
CONTENTS: dict[str, dict[str, Any]] = {"chat message": CHAT, "price tick": TICK, "10 KB document": DOCUMENT}


# ------------------------------------------------------------------------- Protobuf with a schema of its own

_TYPES = {
    str: descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
    int: descriptor_pb2.FieldDescriptorProto.TYPE_INT64,
    float: descriptor_pb2.FieldDescriptorProto.TYPE_DOUBLE,
    bool: descriptor_pb2.FieldDescriptorProto.TYPE_BOOL,
}


def schema_of(file: descriptor_pb2.FileDescriptorProto, name: str, value: dict[str, Any]) -> str:
    """Add a message for objects like `value` to a schema, as somebody would write it who knows the content."""
    message = file.message_type.add(name=name)
    for number, (key, item) in enumerate(value.items(), 1):
        field = message.field.add(name=key, number=number, label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL)
        if isinstance(item, list):
            field.label = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
            item = item[0]
        if isinstance(item, dict):
            field.type = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
            field.type_name = "." + schema_of(file, f"{name}_{key}", item)
        else:
            field.type = _TYPES[str if item is None else type(item)]
    return name


def class_of(value: dict[str, Any]) -> Any:
    """The class of messages for objects like `value`."""
    file = descriptor_pb2.FileDescriptorProto(name="content.proto", syntax="proto3")
    name = schema_of(file, "Content", value)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


def read_all(message: Any) -> dict[str, Any]:
    """The fields of a message as a program that uses them gets them."""
    found: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.message_type is not None:
            found[field.name] = [read_all(item) for item in value]
        else:
            found[field.name] = list(value) if field.is_repeated else value
    return found


# ------------------------------------------------------------------------------------------------- measuring


@dataclass
class Measured:
    """One way to say one thing: how many bytes it takes, and the CPU of each round in µs."""

    content: str
    way: str
    size: int
    encode: list[float]
    decode: list[float]


def cpu_of(call: Callable[[], object], long: float) -> float:
    """µs of CPU that one call takes."""
    calls = 1
    while True:
        started = time.process_time()
        for _ in range(calls):
            call()
        taken = time.process_time() - started
        if taken >= long:
            return taken / calls * 1e6
        calls *= 4


Way = tuple[str, Callable[[], str | bytes], Callable[[], object], int]


def clients(value: dict[str, Any]) -> list[Way]:
    """What a client does: from a Python value to the bytes of its envelope, and from a publication's bytes back."""
    envelope = {"type": "chat", "room": "lobby", "id": "x4Tz-117", "content": value}
    told: dict[str, Any] = {"type": "chat", "from": "alice", **envelope, "seq": 48_113, "time": 1_766_200_000_123}
    text = standard.dumps(told, separators=(",", ":"), ensure_ascii=False)
    ways: list[Way] = [
        (
            "json (standard library)",
            lambda: standard.dumps(envelope, separators=(",", ":"), ensure_ascii=False),
            lambda: standard.loads(text),
            len(text.encode()),
        )
    ]
    for name, codec in CODECS.items():
        wire, said = Wire(codec), encoded(codec, value)
        ways.append((name, partial(wire.encode, envelope), partial(wire.decode, said), len(said)))
    made = class_of(value)
    wire = Wire(protobuf)
    data = bytes(made(**value).SerializeToString())
    said = encoded(protobuf, data)
    ways.append(
        (
            "Protobuf, own schema",
            lambda: wire.encode(envelope | {"content": made(**value).SerializeToString()}),
            lambda: read_all(made.FromString(wire.decode(said).content)),
            len(said),
        )
    )
    return ways


def encoded(codec: Codec, content: object) -> str | bytes:
    """A publication as a receiver gets it who speaks the codec of its sender."""
    sent = codec.decode(Wire(codec).encode({"type": "chat", "content": content}))
    publication = sent.published(
        "chat", "alice", None, "lobby", sent.content, sent.binary, "x4Tz-117", seq=48_113, time=1_766_200_000_123
    )
    data = codec.encode(publication)
    return data if codec.BINARY else data.decode()


def servers(value: dict[str, Any]) -> list[Way]:
    """What the server does: an envelope read and its content checked, a publication written for each codec in use."""
    ways: list[Way] = []
    sent: dict[str, Publication] = {}
    for name, codec in CODECS.items():
        said = Wire(codec).encode({"type": "chat", "room": "lobby", "id": "x4Tz-117", "content": value})
        read = codec.decode(said)
        sent[name] = read.published("chat", "alice", None, "lobby", read.content, False, "x4Tz-117", seq=1, time=2)
        ways.append((name, partial(codec.encode, sent[name]), partial(codec.decode, said), len(said)))
    for name, other in (("JSON", "MessagePack"), ("MessagePack", "JSON"), ("JSON", "Protobuf")):
        ways.append((f"{other} of what came in {name}", partial(CODECS[other].encode, sent[name]), lambda: None, 0))
    return ways


def measure(ways: Callable[[dict[str, Any]], list[Way]], rounds: int, long: float) -> list[Measured]:
    """All contents in all ways, in turns: what disturbs the machine disturbs all of them."""
    found: list[Measured] = []
    for content, value in CONTENTS.items():
        these = [Measured(content, way, size, [], []) for way, _, _, size in ways(value)]
        for _ in range(rounds):
            for row, (_, encode, decode, _) in zip(these, ways(value), strict=True):
                row.encode.append(cpu_of(encode, long))
                row.decode.append(cpu_of(decode, long) if row.size else 0.0)
        found += these
    return found


# --------------------------------------------------------------------------------------------------- telling


def table(rows: Sequence[Measured], beside: str) -> None:
    """Print what was measured, and each figure as a share of that of the way `beside`."""
    print(f"{'':16}{'':34}{'bytes':>8}{'':>7}{'encode µs':>11}{'':>7}{'decode µs':>11}{'':>7}")
    for row in rows:
        floor = next(other for other in rows if other.content == row.content and other.way == beside)
        line = f"{row.content:16}{row.way:34}"
        line += f"{row.size:>8,}{row.size / floor.size:>6.2f}×" if row.size else " " * 15
        line += f"{median(row.encode):>11.2f}{median(row.encode) / median(floor.encode):>6.2f}×"
        if row.size:
            line += f"{median(row.decode):>11.2f}{median(row.decode) / median(floor.decode):>6.2f}×"
        print(line)


def words(rows: Sequence[Measured]) -> None:
    """What the first table says about the claim that Protobuf is 10 times faster than JSON and 60 % smaller."""
    by = {(row.content, row.way): row for row in rows}

    def faster(content: str, way: str, than: str) -> float:
        ours, theirs = by[content, way], by[content, than]
        return (median(theirs.encode) + median(theirs.decode)) / (median(ours.encode) + median(ours.decode))

    def smaller(content: str, way: str) -> float:
        return 1 - by[content, way].size / by[content, "JSON"].size

    for way in ("MessagePack", "Protobuf", "Protobuf, own schema"):
        sizes = ", ".join(f"{smaller(content, way):+.0%} ({content})" for content in CONTENTS)
        speeds = ", ".join(f"{faster(content, way, 'JSON'):.2f}" for content in CONTENTS)
        others = ", ".join(f"{faster(content, way, 'json (standard library)'):.2f}" for content in CONTENTS)
        print(f"{way}: bytes saved {sizes}; write and read {speeds} times as fast as JSON here,")
        print(f"  {others} times as fast as the standard library's json.")
    best = "Protobuf, own schema"
    claimed = [
        f"{content}: {faster(content, best, 'JSON'):.1f} × and {smaller(content, best):.0%}" for content in CONTENTS
    ]
    print("“10 × faster and 60 % smaller”, at its best with an own schema, is in Python " + "; ".join(claimed) + ".")


def main(arguments: Sequence[str]) -> int:
    """Measure, and print the tables and the words."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few calls and figures that mean nothing")
    quick = parser.parse_args(arguments).quick
    rounds, long = (1, 0.0) if quick else (ROUNDS, LONG)
    print(f"Python {platform.python_version()}, {rounds} rounds in turns, medians; load {os.getloadavg()[0]:.1f}\n")
    print("A client: a Python value to an envelope, and a publication to a Python value")
    rows = measure(clients, rounds, long)
    table(rows, "JSON")
    print()
    words(rows)
    print("\nThe server: a publication written once for all who speak the codec, and an envelope read and checked")
    table(measure(servers, rounds, long), "JSON")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
