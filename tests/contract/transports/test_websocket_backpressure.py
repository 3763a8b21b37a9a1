"""Peers that do not read, and receivers that do not want to; on both event loops."""

from __future__ import annotations

import socket

import pytest

from contract.transports.harness import (
    BINARY,
    CLOSE_1000,
    PING,
    PONG,
    TEXT,
    Client,
    Recorder,
    Run,
    Served,
    frame,
    plain,
    serving,
)
from hubbub.transports.base import TransportLimits


async def _fill(recorder: Recorder) -> int:
    """Write until the socket takes no more; how many frames that took."""
    count = 0
    while not recorder.named("blocked"):
        recorder.say(b"x" * 60_000, binary=True)
        count += 1

        assert count < 10_000
    return count


def test_a_full_socket_blocks_and_an_empty_one_unblocks(run: Run) -> None:
    """`blocked` comes with the very write that did not leave, `unblocked` when all has."""

    async def main() -> None:
        async with serving() as served:
            client, recorder = await served.join()
            client.stop_reading()
            count = await _fill(recorder)
            client.go_on_reading()
            for _ in range(count):
                await client.frame()
            await recorder.until(lambda: recorder.named("unblocked"))

            assert [event[0] for event in recorder.events] == ["opened", "blocked", "unblocked"]

    run(main())


@plain
def test_the_way_into_the_kernel_never_waits(run: Run) -> None:
    """Not even where the application has asked for sockets that wait: one full socket would stop everybody."""

    async def main() -> None:
        async with serving() as served:
            before = socket.getdefaulttimeout()
            socket.setdefaulttimeout(0.2)
            try:
                client, recorder = await served.join()
            finally:
                socket.setdefaulttimeout(before)
            client.stop_reading()
            data = recorder.writer.framing(True)(b"x" * 60_000)

            def fill() -> None:
                for _ in range(10_000):
                    recorder.writer.send(data)

            with pytest.raises(BlockingIOError):
                fill()
            recorder.writer.abort()

    run(main())


async def _stalled(served: Served) -> tuple[Client, Recorder]:
    client, recorder = await served.join()
    client.stop_reading()
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
            await served.deserted()
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
                client.finish_sending()

            assert (await recorder.end())[0] == {CLOSE_1000: 1000, frame(3): 1002, b"": 1006}[last]
            assert served.websocket.connections
            served.pass_time(6)
            await served.deserted()

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
            sent = await client.fill(lambda number: frame(BINARY, b"x" * 60_000))

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
            client.stop_reading()
            sent = await client.fill(lambda number: frame(BINARY, b"%10d" % number + b"x" * 60_000))
            client.go_on_reading()
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
