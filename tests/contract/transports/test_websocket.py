"""What a WebSocket transport owes its receiver and its peer, on both event loops."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

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
    Served,
    frame,
    handshake,
    serving,
)

from hubbub.transports.base import Accept, Handshake, TransportLimits

Run = Callable[[Coroutine[Any, Any, None]], None]

CLOSE_1000 = frame(CLOSE, b"\x03\xe8")


# --- messages ---


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
    """`frame` and `write` go together, one frame or many at once."""

    async def main() -> None:
        async with serving() as served:
            client, recorder = await served.join()
            writer = recorder.writer
            writer.write(writer.frame(b"a", False) + writer.frame(b"b" * 70_000, True))

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


# --- signs of life ---


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


# --- the peer breaks the rules ---


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
            recorder.on_message = lambda message: recorder.writer.write(recorder.writer.frame(b"got it", False))
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
            with pytest.raises(ConnectionError):
                async with asyncio.timeout(10):
                    while True:
                        client.send(frame(3) * 10_000)
                        await client.writer.drain()

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

            assert recorder.named("closed") == []
            served.pass_time(6)
            assert (await recorder.end())[0] == 1002

    run(main())


# --- the peer closes ---


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999])
def test_a_peers_close_is_echoed_and_the_server_ends_it(run: Run, code: int) -> None:
    """RFC 6455 §5.5.1 and §7.1.1."""

    async def main() -> None:
        async with serving() as served:
            client, recorder = await served.join()
            client.send(frame(CLOSE, code.to_bytes(2) + b"bye") + frame(TEXT, b"too late"))

            assert await client.frame() == (CLOSE, code.to_bytes(2))
            assert await client.end() == b""
            assert await recorder.end() == (code, "bye")
            assert recorder.messages == []

    run(main())


def test_a_close_without_a_code_is_1005(run: Run) -> None:
    async def main() -> None:
        async with serving() as served:
            client, recorder = await served.join()
            client.send(frame(CLOSE))

            assert await client.frame() == (CLOSE, b"")
            assert await client.end() == b""
            assert await recorder.end() == (1005, "")

    run(main())


def test_what_was_written_leaves_before_the_echo(run: Run) -> None:
    async def main() -> None:
        async with serving() as served:
            client, recorder = await served.join()
            for number in range(100):
                recorder.writer.write(recorder.writer.frame(b"%d" % number, False))
            client.send(CLOSE_1000)

            assert [await client.frame() for _ in range(100)] == [(TEXT, b"%d" % number) for number in range(100)]
            assert await client.close_code() == 1000

    run(main())


def test_a_peer_that_hangs_up_is_1006(run: Run) -> None:
    """Half closed (it could still read) or closed altogether: without a close frame it is abnormal."""

    async def main() -> None:
        async with serving() as served:
            client, recorder = await served.join()
            client.writer.write_eof()

            assert await client.end() == b""
            assert await recorder.end() == (1006, "")

    run(main())


def test_a_reset_is_1006(run: Run) -> None:
    async def main() -> None:
        async with serving() as served:
            client, recorder = await served.join()
            sock = client.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.reset()

            assert await recorder.end() == (1006, "")

    run(main())


def test_a_peer_that_hangs_up_amid_a_message(run: Run) -> None:
    async def main() -> None:
        async with serving() as served:
            client, recorder = await served.join()
            client.send(frame(TEXT, b"begun", fin=False) + frame(CONTINUATION, b"x" * 50)[:20])
            client.writer.write_eof()

            assert await recorder.end() == (1006, "")
            assert recorder.messages == []

    run(main())


# --- the hub closes ---


def test_a_close_waits_for_the_answer(run: Run) -> None:
    """The peer's code does not change ours, and its messages on the way are dropped."""

    async def main() -> None:
        async with serving() as served:
            client, recorder = await served.join()
            recorder.writer.write(recorder.writer.frame(b"last", False))
            recorder.writer.close(4000, "slow consumer")
            recorder.writer.write(recorder.writer.frame(b"too late", False))
            recorder.writer.ping()

            assert await client.frame() == (TEXT, b"last")
            assert await client.frame() == (CLOSE, (4000).to_bytes(2) + b"slow consumer")
            client.send(frame(TEXT, b"on the way") + frame(PING) + frame(CLOSE, b"\x03\xe8"))
            assert await client.end() == b""
            assert await recorder.end() == (4000, "slow consumer")
            assert recorder.messages == []

    run(main())


def test_an_unanswered_close_ends_at_its_deadline(run: Run) -> None:
    async def main() -> None:
        async with serving(TransportLimits(close_timeout=5)) as served:
            client, recorder = await served.join()
            recorder.writer.close(1001, "")
            await client.frame()
            served.pass_time(4)
            await asyncio.sleep(0)

            assert recorder.named("closed") == []
            served.pass_time(2)
            assert await recorder.end() == (1001, "")
            assert await client.end() == b""

    run(main())


def test_a_close_hears_the_answer_though_reading_was_paused(run: Run) -> None:
    async def main() -> None:
        async with serving() as served:
            client, recorder = await served.join()
            recorder.writer.pause_reading()
            recorder.writer.close(1000, "")
            await client.frame()
            client.send(CLOSE_1000)

            assert (await recorder.end())[0] == 1000

    run(main())


def test_a_peer_that_hangs_up_instead_of_answering(run: Run) -> None:
    async def main() -> None:
        async with serving() as served:
            client, recorder = await served.join()
            recorder.writer.close(1001, "going")
            client.writer.write_eof()

            assert await recorder.end() == (1001, "going")

    run(main())


def test_a_peer_that_breaks_the_rules_instead_of_answering(run: Run) -> None:
    """One close frame was sent, so no second one is."""

    async def main() -> None:
        async with serving() as served:
            client, recorder = await served.join()
            recorder.writer.close(1001, "")
            client.send(frame(3) + frame(TEXT, b"\xff"))

            assert await client.end() == b"\x88\x02\x03\xe9"
            assert (await recorder.end())[0] == 1001

    run(main())


def test_closing_twice_is_closing_once(run: Run) -> None:
    async def main() -> None:
        async with serving() as served:
            client, recorder = await served.join()
            recorder.writer.close(1000, "first")
            recorder.writer.close(1001, "second")
            client.send(CLOSE_1000)

            assert await client.end() == b"\x88\x07\x03\xe8first"
            assert await recorder.end() == (1000, "first")

    run(main())


def test_an_abort_says_nothing(run: Run) -> None:
    async def main() -> None:
        async with serving() as served:
            client, recorder = await served.join()
            recorder.writer.abort()

            assert await recorder.end() == (1006, "")
            assert await client.end() == b""

    run(main())


def test_a_writer_outlives_its_connection(run: Run) -> None:
    """After the end every method does nothing."""

    async def main() -> None:
        async with serving() as served:
            client, recorder = await served.join()
            client.reset()
            await recorder.end()
            writer = recorder.writer
            for _ in range(10):
                writer.write(writer.frame(b"x", False))
            writer.ping()
            writer.pause_reading()
            writer.resume_reading()
            writer.close(1000, "")
            writer.abort()

            assert recorder.events[-1] == ("closed", 1006, "")

    run(main())


def test_closing_from_within_a_message(run: Run) -> None:
    """What came in the same read is dropped."""

    async def main() -> None:
        async with serving() as served:
            client, recorder = await served.join()
            recorder.on_message = lambda message: recorder.writer.close(4500, "enough")
            client.send(frame(TEXT, b"a") + frame(TEXT, b"b") + frame(BINARY, b"c"))

            assert await client.frame() == (CLOSE, (4500).to_bytes(2) + b"enough")
            client.send(CLOSE_1000)
            assert await recorder.end() == (4500, "enough")
            assert recorder.messages == ["a"]

    run(main())


def test_aborting_from_within_a_message(run: Run) -> None:
    async def main() -> None:
        async with serving() as served:
            client, recorder = await served.join()
            recorder.on_message = lambda message: recorder.writer.abort()
            client.send(frame(TEXT, b"a") + frame(TEXT, b"b"))

            assert await recorder.end() == (1006, "")
            assert recorder.messages == ["a"]

    run(main())


def test_a_receivers_fault_is_ours_to_say(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """A receiver must not raise; if one does, its connection ends with 1011 and the log says why."""

    def fail(message: str | bytes) -> None:
        raise ZeroDivisionError

    async def main() -> None:
        async with serving() as served:
            client, recorder = await served.join()
            recorder.on_message = fail
            client.send(frame(TEXT, b"a"))

            assert await client.close_code() == 1011
            assert (await recorder.end())[0] == 1011

    with caplog.at_level(logging.ERROR):
        run(main())

    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ZeroDivisionError]
    caplog.clear()


# --- backpressure ---


async def _fill(recorder: Recorder) -> int:
    """Write until the socket takes no more; how many frames that took."""
    block = recorder.writer.frame(b"x" * 60_000, True)
    count = 0
    while not recorder.named("blocked"):
        recorder.writer.write(block)
        count += 1

        assert count < 10_000
    return count


def test_a_full_socket_blocks_and_an_empty_one_unblocks(run: Run) -> None:
    """`blocked` comes with the very write that did not leave, `unblocked` when all has."""

    async def main() -> None:
        async with serving() as served:
            client, recorder = await served.join()
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is a ReadTransport too
            count = await _fill(recorder)
            client.writer.transport.resume_reading()  # type: ignore[attr-defined]  # the same
            for _ in range(count):
                await client.frame()
            await recorder.until(lambda: recorder.named("unblocked"))

            assert [event[0] for event in recorder.events] == ["opened", "blocked", "unblocked"]

    run(main())


async def _stalled(served: Served) -> tuple[Client, Recorder]:
    client, recorder = await served.join()
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is a ReadTransport too
    await _fill(recorder)
    return client, recorder


def test_a_stalled_peer_cannot_hold_a_closing_connection(run: Run) -> None:
    """A graceful end would wait for its reading for ever."""

    async def main() -> None:
        async with serving(TransportLimits(close_timeout=5)) as served:
            _, recorder = await _stalled(served)
            recorder.writer.close(4000, "slow consumer")
            served.pass_time(6)

            assert await recorder.end() == (4000, "slow consumer")
            assert not recorder.named("unblocked")

    run(main())


@pytest.mark.parametrize("last", [CLOSE_1000, frame(3), b""], ids=["close", "violation", "eof"])
def test_a_stalled_peer_cannot_hold_its_own_end(run: Run, last: bytes) -> None:
    """It said goodbye, or broke the rules, or hung up halfway, and takes nothing."""

    async def main() -> None:
        async with serving(TransportLimits(close_timeout=5)) as served:
            client, recorder = await _stalled(served)
            if last:
                client.send(last)
            else:
                client.writer.write_eof()
            while all(connection.write == connection._tcp.write for connection in served.websocket.connections):  # type: ignore[union-attr]
                await asyncio.sleep(0)
            served.pass_time(6)

            assert (await recorder.end())[0] == {CLOSE_1000: 1000, frame(3): 1002, b"": 1006}[last]

    run(main())


def test_a_stalled_peer_can_be_aborted(run: Run) -> None:
    async def main() -> None:
        async with serving() as served:
            _, recorder = await _stalled(served)
            recorder.writer.abort()

            assert await recorder.end() == (1006, "")

    run(main())


def test_paused_reading_is_felt_by_the_peer(run: Run) -> None:
    """And nothing is lost by it."""

    async def main() -> None:
        async with serving() as served:
            client, recorder = await served.join()
            recorder.writer.pause_reading()
            sent = 0
            client.writer.transport.set_write_buffer_limits(high=0)
            with pytest.raises(TimeoutError):
                while True:
                    client.send(frame(BINARY, b"x" * 60_000))
                    sent += 1
                    async with asyncio.timeout(0.2):
                        await client.writer.drain()

            # At most what had been read when it was paused.
            assert len(recorder.messages) < sent
            recorder.writer.resume_reading()
            await recorder.until(lambda: len(recorder.messages) == sent)

    run(main())


def test_echo_stops_reading_while_its_client_does(run: Run) -> None:
    """Or a client that only sends would fill the server's memory."""

    async def main() -> None:
        async with serving() as served:
            client = await served.echoing()
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is a ReadTransport too
            client.writer.transport.set_write_buffer_limits(high=0)
            sent = 0
            with pytest.raises(TimeoutError):
                while True:
                    client.send(frame(BINARY, b"%10d" % sent + b"x" * 60_000))
                    sent += 1
                    async with asyncio.timeout(0.2):
                        await client.writer.drain()
            client.writer.transport.resume_reading()  # type: ignore[attr-defined]  # the same
            for number in range(sent):
                opcode, payload = await client.frame()

                assert (opcode, payload[:10]) == (BINARY, b"%10d" % number)

    run(main())


def test_echo_returns_the_kind_that_came(run: Run) -> None:
    async def main() -> None:
        async with serving() as served:
            client = await served.echoing()
            client.send(frame(TEXT, "né".encode()) + frame(BINARY, b"\xff") + frame(PING) + CLOSE_1000)

            assert await client.frame() == (TEXT, "né".encode())
            assert await client.frame() == (BINARY, b"\xff")
            assert await client.frame() == (PONG, b"")
            assert await client.close_code() == 1000

    run(main())


# --- what is left behind ---


def test_an_ended_connection_leaves_nothing_to_the_collector(run: Run) -> None:
    """No reference cycles: freed as it ends, whichever way it ends."""

    async def main() -> None:
        recorders: list[weakref.ref[Recorder]] = []

        async def admit(handshake: Handshake) -> Accept:
            recorder = Recorder()
            recorders.append(weakref.ref(recorder))
            return Accept(recorder)

        async with serving(admit=admit) as served:
            for last in (CLOSE_1000, frame(3), frame(TEXT, b"\xff"), b""):
                client = await served.client()
                client.send(handshake())
                await client.response()
                client.send(last)
                if last:
                    await client.close_code()
                await client.leave()
            async with asyncio.timeout(10):
                while served.websocket.connections:
                    await asyncio.sleep(0)
            # picows' own timer after a violation.
            await asyncio.sleep(0.05)

            assert [ref() for ref in recorders] == [None] * 4

    gc.disable()
    try:
        run(main())
    finally:
        gc.enable()
