"""Every way in which a WebSocket connection ends; on both event loops."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import weakref
from typing import cast

import pytest

from contract.transports.harness import (
    BINARY,
    CLOSE,
    CLOSE_1000,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Recorder,
    Run,
    frame,
    handshake,
    plain,
    serving,
)
from hubbub.core.wheel import Wheel
from hubbub.transports.base import Accept, Handshake, TransportLimits
from hubbub.transports.lent import _LENT
from hubbub.transports.websocket import Connection, WebSocket


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
                recorder.say(b"%d" % number)
            client.send(CLOSE_1000)

            assert [await client.frame() for _ in range(100)] == [(TEXT, b"%d" % number) for number in range(100)]
            assert await client.close_code() == 1000

    run(main())


def test_a_peer_that_hangs_up_is_1006(run: Run) -> None:
    """Half closed (it could still read) or closed altogether: without a close frame it is abnormal."""

    async def main() -> None:
        async with serving() as served:
            client, recorder = await served.join()
            client.finish_sending()

            assert await client.end() == b""
            assert await recorder.end() == (1006, "")

    run(main())


def test_a_reset_is_1006(run: Run) -> None:
    async def main() -> None:
        async with serving() as served:
            client, recorder = await served.join()
            client.reset()

            assert await recorder.end() == (1006, "")

    run(main())


@pytest.mark.parametrize("last", [frame(3), frame(TEXT, b"\xff"), CLOSE_1000], ids=["framing", "text", "close"])
def test_a_reset_right_behind_the_end(run: Run, last: bytes) -> None:
    """The end is told once, and a peer that is gone is nobody's fault."""

    async def main() -> None:
        async with serving() as served:
            client, recorder = await served.join()
            client.send(last)
            client.reset()
            await recorder.end()
            await served.deserted()

    run(main())


def test_a_peer_that_hangs_up_amid_a_message(run: Run) -> None:
    async def main() -> None:
        async with serving() as served:
            client, recorder = await served.join()
            client.send(frame(TEXT, b"begun", fin=False) + frame(CONTINUATION, b"x" * 50)[:20])
            client.finish_sending()

            assert await recorder.end() == (1006, "")
            assert recorder.messages == []

    run(main())


def test_a_close_waits_for_the_answer(run: Run) -> None:
    """The peer's code does not change ours, and its messages on the way are dropped."""

    async def main() -> None:
        async with serving() as served:
            client, recorder = await served.join()
            recorder.say(b"last")
            recorder.writer.close(4000, "slow consumer")
            recorder.say(b"too late")
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
            client.finish_sending()

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
    """After the end every method does nothing, and `send` says that nothing leaves."""

    async def main() -> None:
        async with serving() as served:
            client, recorder = await served.join()
            client.reset()
            await recorder.end()
            writer = recorder.writer
            for _ in range(10):
                recorder.say(b"x")
            writer.ping()
            writer.pause_reading()
            writer.resume_reading()
            writer.close(1000, "")
            writer.abort()
            with pytest.raises(BrokenPipeError):
                writer.send(b"x")

            assert recorder.events[-1] == ("closed", 1006, "")

    run(main())


@plain
def test_the_way_into_the_kernel_ends_with_the_connection(run: Run) -> None:
    """`send` may be kept; afterwards the file's number may be another connection's, and must not be hit."""

    async def main() -> None:
        async with serving() as served:
            client, recorder = await served.join()
            send = recorder.writer.send
            data = recorder.writer.framing(False)(b"straight")

            assert send(data) == len(data)
            assert await client.frame() == (TEXT, b"straight")
            client.send(CLOSE_1000)
            await recorder.end()
            await served.deserted()
            other, _ = await served.join()
            with pytest.raises(OSError, match="Bad file"):
                send(data)
            other.send(frame(PING))
            assert await other.frame() == (PONG, b"")

    run(main())


class Lent:
    """As much of a TCP transport as a connection needs to have: the socket is the transport's."""

    def __init__(self, sock: socket.socket, ssl: object = None) -> None:
        self.known = {"socket": sock, "ssl_object": ssl}
        self.written: list[bytes] = []

    def get_extra_info(self, name: str) -> object:
        return self.known[name]

    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def abort(self) -> None:
        pass


def a_connection(transport: Lent) -> Connection:
    websocket = WebSocket(TransportLimits(), Wheel(0))
    return Connection(websocket, cast(asyncio.Transport, transport), Recorder())


def test_a_connection_that_is_forgotten_closes_no_file() -> None:
    """An event loop may end without the server being stopped: the number may be a stranger's by then."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = a_connection(Lent(ours))
        connection.send(b"before")
        del connection
        gc.collect()
        ours.send(b" and after")

        assert theirs.recv(100) == b"before and after"


def test_a_connection_that_ends_leaves_no_socket_behind() -> None:
    ours, theirs = socket.socketpair()
    before = len(_LENT)
    with ours, theirs:
        connection = a_connection(Lent(ours))
        during = len(_LENT)
        connection.lost()

        assert (during, len(_LENT)) == (before + 1, before)


def test_what_goes_through_tls_ends_with_the_connection_too() -> None:
    """There `send` is the transport's `write`, which says nothing of the end by itself."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        transport = Lent(ours, ssl=object())
        connection = a_connection(transport)
        kept = connection.send

        assert kept(b"before") == len(b"before")
        connection.abort()
        for send in (kept, connection.send):
            with pytest.raises(BrokenPipeError):
                send(b"after")
        assert transport.written == [b"before"]


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
            await served.deserted()
            # picows' own timer after a violation.
            await asyncio.sleep(0.05)

            assert [ref() for ref in recorders] == [None] * 4

    gc.disable()
    try:
        run(main())
    finally:
        gc.enable()
