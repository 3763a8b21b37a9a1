"""permessage-deflate over real connections: what is agreed on, what is sent, what is let in."""

from __future__ import annotations

import asyncio
import itertools
import random
import zlib

import pytest

from contract.transports.harness import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Client,
    Recorder,
    Run,
    Served,
    frame,
    handshake,
    serving,
)
from hubbub.protocol.deflate import CompressionOptions
from hubbub.transports.base import TransportLimits

ON = CompressionOptions(compression=True)
RSV1 = 4

OFFER = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
LONG = "round and round and round it goes " * 100
# What nothing makes shorter.
NOISE = random.Random(5).randbytes(1_000)


def deflated(data: bytes) -> bytes:
    """As a client compresses."""
    stream = zlib.compressobj(wbits=-15)
    return (stream.compress(data) + stream.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\x00\x00\xff\xff")


def inflated(payload: bytes, window: int = 15) -> bytes:
    return zlib.decompressobj(-window).decompress(payload + b"\x00\x00\xff\xff")


async def compressed(served: Served, offer: str = OFFER) -> tuple[Client, Recorder]:
    """A client that has agreed on compression, and the receiver that it met."""
    client, recorder = await served.join("/ws", offer)
    return client, recorder


async def agreed(served: Served, *lines: str) -> str | None:
    client = await served.client()
    client.send(handshake("/ws", *lines))
    status, headers, _ = await client.response()

    assert status == 101
    return headers.get("sec-websocket-extensions")


def test_it_is_off_unless_it_is_switched_on(run: Run) -> None:
    """No extension is answered, and a frame that says it is compressed breaks the rules."""

    async def main() -> None:
        async with serving() as served:
            assert await agreed(served, OFFER) is None
            client, recorder = await served.join("/ws", OFFER)
            recorder.say(LONG.encode())

            assert await client.frame() == (TEXT, LONG.encode())
            client.send(frame(TEXT, deflated(b"x"), rsv=RSV1))
            assert await client.close_code() == 1002

    run(main())


def test_both_sides_forget_after_each_message(run: Run) -> None:
    """The answer says so, and which window if the client asked."""
    both = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"

    async def main() -> None:
        async with serving(compression=ON) as served:
            assert await agreed(served) is None
            assert await agreed(served, "Sec-WebSocket-Extensions: x-bzip2") is None
            assert await agreed(served, OFFER) == both
            assert await agreed(served, OFFER + "; server_max_window_bits=8") is None
            window = "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=10"
            assert await agreed(served, window) == both + "; server_max_window_bits=9"

    run(main())


@pytest.mark.parametrize("on", [False, True], ids=["off", "on"])
def test_extensions_that_are_malformed_are_refused(run: Run, on: bool) -> None:
    """RFC 6455 §9.1; the next client is served."""

    async def main() -> None:
        async with serving(compression=CompressionOptions(compression=on)) as served:
            client = await served.client()
            client.send(handshake("/ws", 'Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits="9'))
            status, _, _ = await client.response()

            assert status == 400
            assert await client.end() == b""
            await served.join("/ws", OFFER)

    run(main())


def test_long_messages_go_out_compressed(run: Run) -> None:
    """From the threshold on, where it saves anything; text and binary; no control frame."""

    async def main() -> None:
        async with serving(compression=ON) as served:
            client, recorder = await compressed(served)
            recorder.say(LONG.encode())
            recorder.say(LONG.encode(), binary=True)
            recorder.say(b"short")
            recorder.say(NOISE, binary=True)
            recorder.writer.ping()
            for opcode in (TEXT, BINARY):
                found, rsv1, payload = await client.any_frame()

                assert (found, rsv1, inflated(payload)) == (opcode, True, LONG.encode())
                assert len(payload) < len(LONG) / 10
            assert await client.frame() == (TEXT, b"short")
            assert await client.frame() == (BINARY, NOISE)
            assert await client.frame() == (PING, b"")
            recorder.writer.close(1000, "a reason that is long and long and long and long enough")
            assert (await client.frame())[0] == CLOSE

    run(main())


def test_who_agreed_alike_gets_the_same_bytes(run: Run) -> None:
    """One function for all of them, another for each other window, and the plain one for the others."""

    async def main() -> None:
        async with serving(compression=ON) as served:
            recorders = [
                (await served.join("/ws", *lines))[1]
                for lines in (
                    (),
                    (OFFER,),
                    ("Sec-WebSocket-Extensions: permessage-deflate",),
                    ("Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=15",),
                    ("Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9",),
                    ("Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=11",),
                )
            ]
            for binary in (False, True):
                plain, first, *alike, other, same = [recorder.writer.framing(binary) for recorder in recorders]

                assert all(framing is first for framing in alike)
                assert same is other
                assert len({plain, first, other}) == 3

    run(main())


@pytest.mark.parametrize("window", range(9, 16))
def test_a_window_is_kept(run: Run, window: int) -> None:
    """A client that has no more memory can read what is sent."""
    words = " ".join(str(number * number) for number in range(20_000))[:60_000]

    async def main() -> None:
        async with serving(compression=ON) as served:
            offer = f"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits={window}"
            client, recorder = await compressed(served, offer)
            recorder.say(words.encode())
            _, rsv1, payload = await client.any_frame()

            assert rsv1 and inflated(payload, window) == words.encode()

    run(main())


def test_compressed_messages_come_in(run: Run) -> None:
    """Whole or in fragments, among others that are not compressed, with a ping in between."""

    async def main() -> None:
        async with serving(compression=ON) as served:
            client, recorder = await compressed(served)
            payload = deflated(LONG.encode())
            client.send(frame(TEXT, payload, rsv=RSV1) + frame(BINARY, payload, rsv=RSV1))
            client.send(frame(TEXT, b"plain") + frame(TEXT, b"pl", fin=False) + frame(CONTINUATION, b"ain"))
            client.send(frame(TEXT, payload[:9], rsv=RSV1, fin=False) + frame(PING, b"!"))
            client.send(frame(CONTINUATION, b"", fin=False) + frame(CONTINUATION, payload[9:]))
            client.send(frame(TEXT, b"\x00", rsv=RSV1) + frame(BINARY, b"", rsv=RSV1))
            await recorder.until(lambda: len(recorder.messages) == 7)

            assert recorder.messages == [LONG, LONG.encode(), "plain", "plain", LONG, "", b""]
            assert await client.frame() == (PONG, b"!")

    run(main())


def test_echo_is_compressed_too(run: Run) -> None:
    async def main() -> None:
        async with serving(compression=ON) as served:
            client = await served.client()
            client.send(handshake("/echo", OFFER) + frame(BINARY, deflated(LONG.encode()), rsv=RSV1))
            _, headers, _ = await client.response()

            assert headers["sec-websocket-extensions"].startswith("permessage-deflate;")
            opcode, rsv1, payload = await client.any_frame()
            assert (opcode, rsv1, inflated(payload)) == (BINARY, True, LONG.encode())

    run(main())


BOMB = deflated(b"\0" * 1_000_000)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(frame(TEXT, b"\x00", rsv=2 | RSV1), 1002, id="rsv2"),
        pytest.param(frame(TEXT, b"\x00", rsv=1), 1002, id="rsv3"),
        pytest.param(frame(PING, b"", rsv=RSV1), 1002, id="a ping"),
        pytest.param(frame(CLOSE, b"\x03\xe8", rsv=RSV1), 1002, id="a close frame"),
        pytest.param(frame(3, b"", rsv=RSV1), 1002, id="opcode 3"),
        pytest.param(frame(CONTINUATION, b"", rsv=RSV1), 1002, id="nothing to continue"),
        pytest.param(frame(TEXT, fin=False) + frame(CONTINUATION, b"\x00", rsv=RSV1), 1002, id="in the middle"),
        pytest.param(frame(TEXT, fin=False, rsv=RSV1) + frame(CONTINUATION, b"\x00", rsv=RSV1), 1002, id="said again"),
        pytest.param(frame(TEXT, fin=False, rsv=RSV1) + frame(TEXT, b"\x00"), 1002, id="unfinished"),
        pytest.param(frame(TEXT, b"hello", rsv=RSV1), 1007, id="not compressed"),
        pytest.param(frame(BINARY, deflated(b"hello")[:-2], rsv=RSV1), 1007, id="cut off"),
        pytest.param(frame(TEXT, deflated(b"\xff"), rsv=RSV1), 1007, id="not UTF-8"),
        pytest.param(frame(BINARY, BOMB, rsv=RSV1), 1009, id="a bomb"),
        pytest.param(
            frame(BINARY, BOMB[:300], rsv=RSV1, fin=False) + frame(CONTINUATION, BOMB[300:]), 1009, id="in two parts"
        ),
        pytest.param(frame(BINARY, deflated(b"x" * 1_001), rsv=RSV1), 1009, id="a byte too many"),
        pytest.param(frame(BINARY, b"x" * 1_001, rsv=RSV1), 1009, id="too big as it is"),
        pytest.param(
            frame(TEXT, fin=False, rsv=RSV1) + frame(CONTINUATION, fin=False) * 8, 1009, id="too many fragments"
        ),
    ],
)
def test_violations_are_answered_with_their_code(run: Run, data: bytes, code: int) -> None:
    """And what came before still counts."""

    async def main() -> None:
        limits = TransportLimits(message_size=1_000, message_fragments=8)
        async with serving(limits, compression=ON) as served:
            client, recorder = await compressed(served)
            client.send(frame(TEXT, deflated(b"before"), rsv=RSV1) + data + frame(TEXT, b"after"))

            assert await client.close_code() == code
            assert (await recorder.end())[0] == code
            assert recorder.messages == ["before"]

    run(main())


# 64 KiB each, which is no more than a message may be: a hundred bytes on their way.
SWELLING = frame(BINARY, deflated(b"\0" * 65_000), rsv=RSV1)


def test_what_swells_is_inflated_a_little_at_a_time(run: Run) -> None:
    """Hundreds of them come with one read; in between, others have their turn, and nothing more is read."""

    async def main() -> None:
        async with serving(compression=ON) as served:
            client, recorder = await compressed(served)
            other, heard = await served.join()
            turns: list[int] = []
            loop = asyncio.get_running_loop()

            def turn() -> None:
                turns.append(len(recorder.messages))
                if turns[-1] < 30:
                    loop.call_soon(turn)

            turn()
            client.send(SWELLING * 500)
            other.send(frame(TEXT, b"me too"))
            await recorder.until(lambda: len(recorder.messages) >= 30)
            # The most in one turn: 3 ms for this connection, of which each takes 1.3 ms and more.
            most = max(later - earlier for earlier, later in itertools.pairwise(turns))

            assert most <= 4
            assert heard.messages == ["me too"]
            assert len(recorder.messages) < 40

    run(main())


def test_what_waits_stays_in_order(run: Run) -> None:
    """Whole messages and fragments, compressed or not, pings, and the close frame behind them."""

    async def main() -> None:
        async with serving(compression=ON) as served:
            client, recorder = await compressed(served)
            expected: list[str | bytes] = []
            for number in range(8):
                client.send(SWELLING + frame(TEXT, b"%d" % number) + frame(PING, b"%d" % number))
                client.send(frame(TEXT, deflated(b"x")[:1], fin=False, rsv=RSV1) + frame(PING, b"!"))
                client.send(frame(CONTINUATION, deflated(b"x")[1:]) + frame(TEXT, b"a", fin=False))
                client.send(frame(CONTINUATION, b"b"))
                expected += [bytes(65_000), str(number), "x", "ab"]
            client.send(frame(CLOSE, b"\x03\xe8bye") + frame(TEXT, b"too late"))
            pongs = [await client.frame() for _ in range(16)]

            assert pongs == [(PONG, payload) for number in range(8) for payload in (b"%d" % number, b"!")]
            assert await client.close_code() == 1000
            assert await recorder.end() == (1000, "bye")
            assert recorder.messages == expected

    run(main())


def test_nothing_is_inflated_for_who_wants_to_hear_nothing(run: Run) -> None:
    """Where the receiver has paused reading, what has been read waits as it came."""

    async def main() -> None:
        async with serving(compression=ON) as served:
            client, recorder = await compressed(served)
            recorder.on_message = lambda _: recorder.writer.pause_reading()
            client.send(SWELLING * 3 + frame(TEXT, b"last"))
            for number in range(1, 4):
                await recorder.until(lambda number=number: len(recorder.messages) == number)  # type: ignore[misc]  # now
                await asyncio.sleep(0.02)

                assert len(recorder.messages) == number
                recorder.writer.resume_reading()
            await recorder.until(lambda: len(recorder.messages) == 4)
            assert recorder.messages[-1] == "last"
            recorder.on_message = lambda _: None
            recorder.writer.resume_reading()
            client.send(frame(TEXT, b"and on"))
            await recorder.until(lambda: len(recorder.messages) == 5)

    run(main())


@pytest.mark.parametrize(
    ("behind", "code"),
    [
        pytest.param(frame(TEXT, b"\xff"), 1007, id="not UTF-8"),
        pytest.param(frame(3), 1002, id="broken framing"),
        pytest.param(frame(BINARY, b"x" * 70_000), 1009, id="too big"),
        pytest.param(frame(BINARY, BOMB, rsv=RSV1), 1009, id="a bomb"),
    ],
)
def test_a_violation_waits_for_its_turn_too(run: Run, behind: bytes, code: int) -> None:
    """What came before it is taken first, also where picows finds it at once."""

    async def main() -> None:
        async with serving(compression=ON) as served:
            client, recorder = await compressed(served)
            client.send(SWELLING * 8 + frame(TEXT, b"last") + behind)

            assert await client.close_code() == code
            assert (await recorder.end())[0] == code
            # picows drops the one before broken framing.
            assert recorder.messages[:8] == [bytes(65_000)] * 8
            assert recorder.messages[8:] in (["last"], [])

    run(main())


@pytest.mark.parametrize("end", ["close", "their close", "abort", "reset", "violation"])
def test_what_waits_is_forgotten_however_the_connection_ends(run: Run, end: str) -> None:
    async def main() -> None:
        async with serving(compression=ON) as served:
            client, recorder = await compressed(served)
            recorder.on_message = lambda _: recorder.writer.pause_reading()
            behind = {"their close": frame(CLOSE, b"\x03\xe9"), "violation": frame(3)}.get(end, b"")
            client.send(SWELLING * 3 + behind)
            await recorder.until(lambda: recorder.messages)
            match end:
                case "abort":
                    recorder.writer.abort()
                case "reset":
                    client.reset()
                    # The end is seen in the socket, which nobody reads.
                    recorder.writer.abort()
                case "violation":
                    recorder.on_message = lambda _: None
                    recorder.writer.resume_reading()

                    assert await client.close_code() == 1002
                    await client.leave()
                case _:
                    # The peer's own close frame is among what waits: that is the answer.
                    recorder.writer.close(1000, "")
                    if end == "close":
                        client.send(frame(CLOSE, b"\x03\xe8"))

                    assert await client.close_code() == 1000
            code, _ = await recorder.end()
            assert code == {"violation": 1002, "close": 1000, "their close": 1000}.get(end, 1006)
            await served.deserted()
            assert len(recorder.messages) == (3 if end == "violation" else 1)

    run(main())
