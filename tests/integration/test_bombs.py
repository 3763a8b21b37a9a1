"""Deflate bombs against `hubbub serve --compression`, those that are too large and those that are just small enough."""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from time import perf_counter

import pytest

from contract.transports.harness import BINARY, CLOSE, CONTINUATION, TEXT, Client, frame, handshake
from support.client import connect
from support.loop import eventually, run
from support.server import Child

pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measures with Linux's /proc"),
]

MIB = 1 << 20
OFFER = "Sec-WebSocket-Extensions: permessage-deflate"
RSV1 = 4

PLAIN = handshake("/ws?user_id=mallory", OFFER)
# Nothing more is said: it is not known who this is.
BEFORE_HELLO = handshake("/ws", OFFER, "Sec-WebSocket-Protocol: hubbub.v1.json")


def zeros(mebibytes: int, times: int = 1) -> bytes:
    """So many MiB of zeros, so many times, deflated: about a thousandth of that."""
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    # The same block again and again: after this flush it refers to nothing before it.
    block = b"".join(stream.compress(bytes(MIB)) for _ in range(mebibytes)) + stream.flush(zlib.Z_FULL_FLUSH)
    return (block * times).removesuffix(b"\x00\x00\xff\xff")


def spacious(size: int) -> bytes:
    """A ping with spaces behind it, so many bytes in all, deflated."""
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = PING.ljust(size)
    return (stream.compress(data) + stream.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\x00\x00\xff\xff")


def in_fragments(payload: bytes, size: int) -> bytes:
    """A compressed message in frames of `size` bytes."""
    pieces = [payload[at : at + size] for at in range(0, len(payload), size)]
    last = len(pieces) - 1
    return b"".join(
        frame(CONTINUATION if number else BINARY, piece, fin=number == last, rsv=0 if number else RSV1)
        for number, piece in enumerate(pieces)
    )


PING = b'{"type":"ping"}'


def costly(size: int) -> bytes:
    """So many bytes that say "ping": before it empty blocks, each with codes of its own, which zlib makes tables of."""
    # BTYPE 2; 257 literal codes of which only "end of block" has bits, one distance code that has none, 18 lengths of
    # codes, in the order of RFC 1951 §3.2.7: 18 has 1 bit, 0 and 1 have 2. Then 138 and 118 zeros, 1, 0, the end.
    block = "00100000" + "00000" + "0111" + "000" * 2 + "100" + "010" + "000" * 13 + "010"
    block += "0" + "1111111" + "0" + "1101011" + "11" + "10" + "0"
    number = size * 8 // len(block)
    bits = block * number + "000"
    bits += "0" * (-len(bits) % 8)
    data = bytes(int(bits[at : at + 8][::-1], 2) for at in range(0, len(bits), 8))
    return data + len(PING).to_bytes(2, "little") + (len(PING) ^ 0xFFFF).to_bytes(2, "little") + PING + b"\x00"


# A hundred bytes for 64,000, which is no more than a message may have.
SWELLING = frame(TEXT, spacious(64_000), rsv=RSV1)
COSTLY = frame(TEXT, costly(60_000), rsv=RSV1)

SMALL = zeros(64)
HUGE = zeros(64, 16)


class Attacked:
    """A server, and what it takes at most."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self.address = child.address
        self._proc = Path(f"/proc/{child.process.pid}")

    def forget(self) -> None:
        """Measure from here on; `clear_refs` sets the peak to what there is now."""
        (self._proc / "clear_refs").write_text("5")
        self._before = self._peak()

    @property
    def cpu(self) -> float:
        """Seconds of CPU that its main thread has used."""
        return int((self._proc / "schedstat").read_text().split()[0]) / 1e9

    @property
    def grown(self) -> int:
        """By how many bytes the resident memory was larger at most."""
        return self._peak() - self._before

    def _peak(self) -> int:
        [line] = [line for line in (self._proc / "status").read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) * 1_024

    async def floods(self, data: bytes, seconds: float) -> None:
        """Send this again and again, and read what comes."""
        host, _, port = self.address.removeprefix("http://").rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(PLAIN)
        reading = asyncio.ensure_future(reader.read(-1))
        try:
            async with asyncio.timeout(seconds):
                while True:
                    writer.write(data)
                    await writer.drain()
        except TimeoutError:
            assert not reader.at_eof()
        finally:
            reading.cancel()
            writer.transport.abort()

    async def throws(self, greeting: bytes, data: bytes) -> int:
        """Open a WebSocket and send this: the code that it is closed with, or 1006 where only the end is seen."""
        host, _, port = self.address.removeprefix("http://").rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=MIB)
        client = Client(reader, writer)
        try:
            client.send(greeting)
            status, headers, _ = await client.response()

            assert status == 101
            assert headers["sec-websocket-extensions"].startswith("permessage-deflate")
            client.send(data)
            # A reset overtakes what was said, where not all of the bomb was read.
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionResetError):
                while True:
                    opcode, _, payload = await client.any_frame()
                    if opcode == CLOSE:
                        return int.from_bytes(payload[:2])
            return 1006
        finally:
            writer.transport.abort()

    @property
    def ends(self) -> list[int]:
        """The codes of all sessions that have ended, as the server's audit has them."""
        return [record["code"] for record in self._child.audit() if record["event"] == "disconnect"]


@contextlib.asynccontextmanager
async def attacked(*options: str) -> AsyncIterator[Attacked]:
    async with Child.spawned("--dev", "--compression", "--presence-grace", "0", *options) as child:
        server = Attacked(child)
        # What the first of anything loads is not to be counted.
        for greeting in (PLAIN, BEFORE_HELLO):
            await server.throws(greeting, frame(TEXT, b"not deflate", rsv=RSV1))
        server.forget()
        yield server

        assert child.process.returncode is None
        assert child.errors() == ""


@pytest.mark.parametrize("greeting", [PLAIN, BEFORE_HELLO], ids=["plain", "before hello"])
@pytest.mark.parametrize(
    "bomb",
    [
        pytest.param(frame(BINARY, SMALL, rsv=RSV1), id="64 KB for 64 MiB"),
        pytest.param(in_fragments(SMALL, 600), id="the same in fragments"),
        pytest.param(in_fragments(HUGE, 60_000), id="1 MiB for 1 GiB"),
    ],
)
def test_a_bomb_is_refused_and_nobody_notices(greeting: bytes, bomb: bytes) -> None:
    """Fifty at once: 1009, less than 16 MiB, and a good client is served in between."""

    async def main() -> None:
        async with attacked() as server, connect(server.address, "anna", compression="deflate") as anna:
            throwing = [asyncio.ensure_future(server.throws(greeting, bomb)) for _ in range(50)]
            waits = []
            while not all(one.done() for one in throwing):
                before = perf_counter()
                await anna.say("still there?" * 50)
                await anna.expect("chat")
                waits.append(perf_counter() - before)
            codes = await asyncio.gather(*throwing)

            assert set(codes) <= {1009, 1006}
            await eventually(lambda: server.ends.count(1009) == 50)
            assert server.grown < 16 * MIB
            assert max(waits) < 0.5

    run(main())


def test_where_large_messages_are_let_in_a_bomb_is_bounded_all_the_same() -> None:
    """1 MiB, all of it read, that would become 1 GiB: cut at the operator's 2 MiB."""

    async def main() -> None:
        async with attacked("--message-size", str(2 * MIB)) as server:
            for _ in range(10):
                # All of it has been read, so what was said arrives.
                assert await server.throws(PLAIN, in_fragments(HUGE, 60_000)) == 1009
            assert server.grown < 16 * MIB

    run(main())


@pytest.mark.parametrize("count", [1, 20])
@pytest.mark.parametrize("data", [SWELLING * 100, COSTLY], ids=["a hundred bytes for 64,000", "many codes"])
def test_a_flood_of_messages_that_are_allowed_takes_its_turns_and_no_more(data: bytes, count: int) -> None:
    """A few milliseconds in each turn of the loop, and everybody else in between. It is not closed for that."""

    async def main() -> None:
        async with attacked() as server, connect(server.address, "anna", compression="deflate") as anna:
            flooding = [asyncio.ensure_future(server.floods(data, 3)) for _ in range(count)]
            waits = []
            while not all(one.done() for one in flooding):
                before = perf_counter()
                await anna.say("still there?" * 50)
                await anna.expect("chat")
                waits.append(perf_counter() - before)
                await asyncio.sleep(0.05)
            await asyncio.gather(*flooding)

            assert server.grown < 16 * MIB
            assert max(waits) < 0.25

    run(main())


def test_the_bombs_are_what_they_are_said_to_be() -> None:
    """Otherwise nothing is shown by surviving them."""
    for bomb, most, size in ((SMALL, 65_536, 64), (HUGE, MIB, 1_024)):
        stream = zlib.decompressobj(-15)
        made = len(stream.decompress(bomb + b"\x00\x00\xff\xff", MIB))
        while stream.unconsumed_tail:
            made += len(stream.decompress(stream.unconsumed_tail, MIB))

        assert made == size * MIB
        assert len(bomb) <= most
    assert len(SWELLING) < 120
    stream = zlib.decompressobj(-15)
    assert stream.decompress(COSTLY[8:] + b"\x00\x00\xff\xff") == PING
