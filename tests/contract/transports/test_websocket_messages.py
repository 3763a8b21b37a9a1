"""Messages over WebSocket: whole, in order, within the rules; on both event loops."""

from __future__ import annotations

import asyncio

import pytest
from picows.picows import WSProtocol  # type: ignore[attr-defined]  # as in hubbub.transports.websocket

from contract.transports.harness import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Run,
    frame,
    handshake,
    serving,
)
from hubbub.transports.base import TransportLimits


def test_messages_come_whole_and_in_order(run: Run) -> None:
    """Text as str, binary as bytes, however they are cut and whatever comes between."""

    async def main() -> None:
        async with serving() as served:
            client, recorder = await served.join()
            client.send(frame(TEXT, "né".encode()) + frame(BINARY, b"\xff") + frame(TEXT, b""))
            client.send(frame(TEXT, b"he", fin=False) + frame(PING, b"!") + frame(CONTINUATION, b"llo"))
            await recorder.until(lambda: len(recorder.messages) == 4)

            assert recorder.messages == ["né", b"\xff", "", "hello"]
            assert await client.frame() == (PONG, b"!")

    run(main())


def test_a_message_may_ride_behind_the_handshake(run: Run) -> None:
    """In the same segment as the head, and larger than any buffer of the framing."""

    async def main() -> None:
        async with serving() as served:
            client = await served.client()
            long = "x" * 20_000
            client.send(handshake() + frame(TEXT, b"first") + frame(TEXT, long.encode()))
            await client.response()
            [recorder] = served.recorders
            await recorder.until(lambda: len(recorder.messages) == 2)

            assert recorder.messages == ["first", long]

    run(main())


def test_messages_byte_by_byte(run: Run) -> None:
    async def main() -> None:
        async with serving() as served:
            client, recorder = await served.join()
            for byte in frame(TEXT, b"slow") + frame(TEXT, b"ly", fin=False) + frame(CONTINUATION, b"!"):
                client.send(bytes((byte,)))
                await asyncio.sleep(0)
            await recorder.until(lambda: len(recorder.messages) == 2)

            assert recorder.messages == ["slow", "ly!"]

    run(main())


def test_written_frames_arrive(run: Run) -> None:
    """`framing` and `write` go together, one frame or many at once."""

    async def main() -> None:
        async with serving() as served:
            client, recorder = await served.join()
            text, binary = recorder.writer.framing(False), recorder.writer.framing(True)
            recorder.writer.write(text(b"a") + binary(b"b" * 70_000))

            assert await client.frame() == (TEXT, b"a")
            assert await client.frame() == (BINARY, b"b" * 70_000)

    run(main())


def test_the_largest_message_is_let_in_and_no_larger(run: Run) -> None:
    async def main() -> None:
        async with serving(TransportLimits(message_size=65_536)) as served:
            client = await served.echoing()
            client.send(frame(BINARY, b"x" * 65_536))

            assert await client.frame() == (BINARY, b"x" * 65_536)
            client.send(frame(BINARY, b"x" * 65_537))
            assert await client.close_code() == 1009

    run(main())


def test_the_subprotocol_is_answered(run: Run) -> None:
    async def main() -> None:
        async with serving(subprotocol="hubbub.v1.json") as served:
            client = await served.client()
            client.send(handshake("/ws", "Sec-WebSocket-Protocol: hubbub.v1.json, bearer.x"))
            status, headers, _ = await client.response()

            assert status == 101
            assert headers["sec-websocket-protocol"] == "hubbub.v1.json"
            assert headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

    run(main())


def test_pings_are_answered_and_count_as_life(run: Run) -> None:
    async def main() -> None:
        async with serving() as served:
            client, recorder = await served.join()
            client.send(frame(PING, b"x" * 125) + frame(PONG, b"unasked"))

            assert await client.frame() == (PONG, b"x" * 125)
            await recorder.until(lambda: recorder.lives == 2)
            recorder.writer.ping()
            assert await client.frame() == (PING, b"")

    run(main())


def test_control_frames_have_an_allowance(run: Run) -> None:
    """A burst is all right, and so is a steady trickle; more than both is not."""

    async def main() -> None:
        limits = TransportLimits(control_frames_burst=20, control_frames_per_second=10)
        async with serving(limits) as served:
            client, recorder = await served.join()
            client.send(frame(PONG) * 20)
            await recorder.until(lambda: recorder.lives == 20)
            served.pass_time(1.0)
            client.send(frame(PONG) * 10)
            await recorder.until(lambda: recorder.lives == 30)
            client.send(frame(PONG))

            assert await client.close_code() == 4500
            assert (await recorder.end())[0] == 4500

    run(main())


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(frame(TEXT, b"x", mask=False), 1002, id="not masked"),
        pytest.param(frame(TEXT, b"x", rsv=4), 1002, id="rsv1"),
        pytest.param(frame(BINARY, b"x", rsv=2), 1002, id="rsv2"),
        pytest.param(frame(PING, b"x", rsv=1), 1002, id="rsv3 in a ping"),
        pytest.param(frame(CLOSE, b"\x03\xe8", rsv=1), 1002, id="rsv3 in a close"),
        pytest.param(frame(3, b"x"), 1002, id="opcode 3"),
        pytest.param(frame(0xB, b"x"), 1002, id="opcode 11"),
        pytest.param(frame(PING, b"x", fin=False), 1002, id="fragmented ping"),
        pytest.param(frame(PING, b"x" * 126), 1002, id="long ping"),
        pytest.param(frame(CLOSE, b"\x03\xe8" + b"x" * 124), 1002, id="long close"),
        pytest.param(frame(CONTINUATION, b"x"), 1002, id="nothing to continue"),
        pytest.param(frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"), 1002, id="unfinished message"),
        pytest.param(frame(TEXT, b"\xff"), 1007, id="not UTF-8"),
        pytest.param(frame(TEXT, b"\xff", fin=False), 1007, id="not UTF-8 in a fragment"),
        pytest.param(frame(TEXT, b"\xc3", fin=False) + frame(CONTINUATION), 1007, id="half a character"),
        pytest.param(frame(CLOSE, b"\x03"), 1002, id="half a close code"),
        pytest.param(frame(CLOSE, b"\x00\x00"), 1002, id="close code 0"),
        pytest.param(frame(CLOSE, b"\x03\xee"), 1002, id="close code 1006"),
        pytest.param(frame(CLOSE, b"\x13\x88"), 1002, id="close code 5000"),
        pytest.param(frame(CLOSE, b"\x03\xe8\xff"), 1007, id="close reason not UTF-8"),
        pytest.param(frame(BINARY, b"x" * 1_001), 1009, id="too big"),
        pytest.param(frame(BINARY, b"x" * 600, fin=False) * 1 + frame(CONTINUATION, b"x" * 600), 1009, id="in all"),
        pytest.param(frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 8, 1009, id="too many fragments"),
        pytest.param(b"\x82\xff" + (2**63 - 1).to_bytes(8), 1009, id="length 2^63-1"),
        pytest.param(b"\x82\xff" + (2**63).to_bytes(8), 1002, id="length 2^63"),
        pytest.param(b"\x82\xff" + (2**64 - 1).to_bytes(8), 1002, id="length 2^64-1"),
        pytest.param(b"\x82\xfe" + (125).to_bytes(2), 1002, id="16 bits for 125"),
        pytest.param(b"\x82\xff" + (65_535).to_bytes(8), 1002, id="64 bits for 65535"),
        pytest.param(b"\x82\xff" + (0).to_bytes(8), 1002, id="64 bits for 0"),
    ],
)
def test_violations_are_answered_with_their_code(run: Run, data: bytes, code: int) -> None:
    """RFC 6455 §7.1.7: a close frame that says why, and then the end; a message before it still counts."""

    async def main() -> None:
        async with serving(TransportLimits(message_size=1_000, message_fragments=8)) as served:
            client, recorder = await served.join()
            recorder.on_message = lambda message: recorder.say(b"got it")
            client.send(frame(TEXT, b"before") + data + frame(TEXT, b"after"))

            assert await client.frame() == (TEXT, b"got it")
            assert await client.close_code() == code
            assert (await recorder.end())[0] == code
            assert recorder.messages == ["before"]

    run(main())


def test_after_a_violation_nothing_more_is_read(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """Who goes on sending is cut off after a few reads, and cannot fill a log."""

    async def main() -> None:
        async with serving() as served:
            client, recorder = await served.join()
            client.send(frame(3))
            await client.frame()
            await client.flood(frame(3) * 10_000)

            assert (await recorder.end())[0] == 1002

    run(main())

    assert caplog.records == []


def test_who_stays_after_a_violation_is_cut_off(run: Run) -> None:
    """The peer need not hang up, and need not read either."""

    async def main() -> None:
        async with serving(TransportLimits(close_timeout=5)) as served:
            client, recorder = await served.join()
            client.send(frame(3))
            await client.frame()
            await recorder.end()

            assert served.websocket.connections
            served.pass_time(6)
            await served.deserted()
            assert await client.end() == b""

    run(main())


def test_who_sends_fast_does_not_make_the_buffer_grow(run: Run) -> None:
    """picows' doubles whenever a read fills it, and never shrinks: it must not become as large as the socket's."""

    async def main() -> None:
        async with serving() as served:
            client, recorder = await served.join()
            for _ in range(20):
                # What goes over loopback is there at once, and the server reads it in one of the next turns.
                client.send(frame(BINARY, b"x" * 60_000) * 40)
                await asyncio.sleep(0)
            await recorder.until(lambda: len(recorder.messages) == 800)
            (connection,) = served.websocket.connections
            assert connection._tcp is not None
            framing = connection._tcp.get_protocol()
            assert isinstance(framing, WSProtocol)

            assert len(WSProtocol.get_buffer(framing, -1)) < 2 * 65_536

    run(main())
