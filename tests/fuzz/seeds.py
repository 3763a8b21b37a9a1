"""What fuzzing begins with: for each target some good inputs, and some at the limits."""

from __future__ import annotations

import json
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from contract.transports.harness import handshake
from fuzz import streams
from fuzz.streams import deflated, frame
from support.tokens import token
from support.vectors import joined

__all__ = ["of"]

_VECTORS = Path(__file__).parents[2] / "spec" / "vectors" / "envelopes.json"


def of(target: str) -> list[bytes]:
    """The seeds of a target."""
    kind, _, what = target.partition("_")
    if kind == "raw":
        return _RAW[what]()
    # Choices: each way to begin once, and a long stretch of everything.
    return [bytes((first, 1)) for first in range(24)] + [bytes(islice(cycle(range(48)), 240)), bytes(range(256))]


def _heads() -> list[bytes]:
    good = handshake()
    size = 16_384 - len(handshake("/ws", "X: ")) + 4
    return [
        good,
        good + b"\x81\x80\0\0\0\0",
        handshake("/ws?user_id=al%20ice", "Sec-WebSocket-Protocol: hubbub.v1.json, bearer.x", "Cookie: a=b"),
        b"GET /health HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        *(handshake("/ws", "X: " + "a" * (size + more)) for more in (-1, 0, 1, 4, 5)),
        *(handshake("/ws", *["X: a"] * count) for count in (95, 96)),
        *(handshake("/ws", line) for line in ("X: a\0b", "X: a\nY: b", "X: é", "Host: b", "Content-Length: 1")),
    ]


def _tokens() -> list[bytes]:
    header, claims, signature = (forged := token(streams.CLAIMS, key=b"the key of somebody else")).split(".")
    none = token(streams.CLAIMS, header={"alg": "none"}).rpartition(".")[0] + "."
    return [text.encode() for text in (forged, none, f"{header}.{claims}", f"{header}..{signature}", "")]


def _streams() -> list[bytes]:
    text = "né😀".encode()
    small = [
        frame(1, text) + frame(2, b"\xff") + frame(9, b"!") + frame(10) + frame(8, b"\x03\xe8bye"),
        b"".join(frame(1 if at == 0 else 0, text[at : at + 1], fin=at == len(text) - 1) for at in range(4)),
        frame(1, b"he", fin=False) + frame(9, b"!") + frame(0, b"llo") + frame(8),
        *(frame(2, bytes(size)) + frame(8) for size in (125, 126, 511, 512, 513)),
        *(frame(2, bytes(256), fin=False) + frame(0, bytes(256 + more)) for more in (0, 1)),
        *(frame(2, fin=False) + frame(0, fin=False) * count + frame(0) for count in (2, 3)),
        *(frame(9) * count for count in (6, 7)),
        *(frame(8, code.to_bytes(2)) for code in (999, 1000, 1004, 1006, 1014, 1015, 2999, 3000, 4999, 5000)),
        frame(1, b"\xed\xa0\x80"),
        frame(1, b"\xf4", fin=False) + frame(0, b"\x90"),
        frame(1, b"\xc3", fin=False) + frame(0),
        frame(1, b"a", rsv=4) + frame(1),
        frame(3) + frame(1),
        b"\x81\x01a",
        *(b"\x82\xff" + length.to_bytes(8) + bytes(20) for length in (0, 125, 65_535, 65_536, 2**63 - 1, 2**63)),
        b"\x82\xfe\x00\x7d" + bytes(129),
    ]
    real = [
        *(frame(2, bytes(size)) + frame(8) for size in (65_535, 65_536, 65_537)),
        *(frame(1, b"a", fin=False) + frame(0, b"b", fin=False) * count + frame(0) for count in (126, 127)),
        *(frame(10) * count + frame(8) for count in (100, 101)),
    ]
    bomb = deflated(bytes(100_000))
    compressed = [
        frame(1, deflated(text), rsv=4) + frame(2, b"\0", rsv=4) + frame(1, text) + frame(2, rsv=4) + frame(8),
        frame(1, deflated(text)[:3], fin=False, rsv=4) + frame(9) + frame(0, deflated(text)[3:]) + frame(8),
        *(frame(2, deflated(bytes(size)), rsv=4) + frame(8) for size in (511, 512, 513, 65_536, 65_537)),
        frame(2, bomb, rsv=4),
        frame(2, bomb[:9], fin=False, rsv=4) + frame(0, bomb[9:]),
        frame(1, deflated(b"\xff"), rsv=4),
        frame(2, deflated(text)[:-2], rsv=4),
        *(frame(2, b"\x03\x00" * ends + b"\x00", rsv=4) + frame(8) for ends in (1, 63, 64)),
        # Each rule of a block that brings its own codes, one bit away.
        frame(1, deflated(("abracadabra, " + " ".join(map(str, range(120)))).encode()), rsv=4) + frame(8),
        frame(0, rsv=4),
        frame(1, fin=False, rsv=4) + frame(0, b"\0", rsv=4),
        frame(9, rsv=4),
    ]
    return [
        *(b"\0" + stream for stream in small),
        *(b"\1" + stream for stream in real),
        *(bytes((choice,)) + stream for choice in (2, 3) for stream in compressed),
    ]


def _envelopes() -> list[bytes]:
    cases: list[dict[str, Any]] = json.loads(_VECTORS.read_text(encoding="utf-8"))["cases"]
    texts = [joined(case["text"]) for case in cases if "text" in case]
    return [text.encode() for text in [*texts, *map(json.dumps, streams.GOOD)]] + [b"\xff", b'{"type":"chat"}' * 2]


def _lines() -> list[bytes]:
    said = [json.dumps(message).encode() for message in streams.SAID]
    return [*said, b"\n".join(said[2:]), b"\n".join(said)]


def _encoded(codec: str) -> list[bytes]:
    cases = json.loads(_VECTORS.with_name("codecs.json").read_text(encoding="utf-8"))
    texts = [case[codec] for case in cases["envelopes"] if codec in case]
    texts += [case["data"] for case in cases["refusals"] if case["codec"] == codec]
    return [bytes.fromhex(joined(text)) for text in texts]


def _of_msgpack() -> list[bytes]:
    return _encoded("msgpack")


def _of_protobuf() -> list[bytes]:
    return _encoded("protobuf")


def _answers() -> list[bytes]:
    cases = json.loads(_VECTORS.with_name("codecs.json").read_text(encoding="utf-8"))["answers"]
    codecs = enumerate(("msgpack", "protobuf"))
    return [bytes([number]) + bytes.fromhex(joined(case[name])) for number, name in codecs for case in cases]


_RAW = {
    "handshake": _heads,
    "token": _tokens,
    "frames": _streams,
    "envelopes": _envelopes,
    "server": _lines,
    "msgpack": _of_msgpack,
    "protobuf": _of_protobuf,
    "answers": _answers,
}
