"""Messages whose last frame does not come: ended in time, bounded over all connections, and forgotten."""

from __future__ import annotations

import pytest

from contract.transports.harness import BINARY, CONTINUATION, PING, TEXT, Run, frame, serving
from hubbub.core.addresses import TrustedProxies
from hubbub.protocol.deflate import CompressionOptions
from hubbub.transports.base import TransportLimits

OFFER = "Sec-WebSocket-Extensions: permessage-deflate"


@pytest.mark.parametrize("rsv", [0, 4], ids=["plain", "compressed"])
def test_a_message_that_does_not_end_ends_the_connection(run: Run, rsv: int) -> None:
    """However lively its sender is."""

    async def main() -> None:
        limits = TransportLimits(message_timeout=60, close_timeout=5)
        async with serving(limits, compression=CompressionOptions(compression=True)) as served:
            client, recorder = await served.join("/ws", OFFER)
            client.send(frame(TEXT, b"begin", fin=False, rsv=rsv) + frame(PING))
            await recorder.until(lambda: recorder.lives == 1)

            assert (len(served.websocket.unfinished), served.websocket.unfinished.size) == (1, 5)
            served.pass_time(59)
            client.send(frame(CONTINUATION, b"more", fin=False) + frame(PING))
            await recorder.until(lambda: recorder.lives == 2)
            assert served.websocket.unfinished.size == 9
            assert recorder.named("closed") == []
            served.pass_time(2)
            assert await client.close_code() == 1009
            assert await recorder.end() == (1009, "the message did not end in time")
            assert served.websocket.unfinished.size == 0

    run(main())


def test_one_that_ends_in_time_is_a_message(run: Run) -> None:
    """And so is the next."""

    async def main() -> None:
        async with serving(TransportLimits(message_timeout=60)) as served:
            client, recorder = await served.join()
            for number in range(1, 4):
                client.send(frame(TEXT, b"be", fin=False) + frame(PING))
                await recorder.until(lambda number=number: recorder.lives == number)  # type: ignore[misc]  # bound now
                served.pass_time(50)
                client.send(frame(CONTINUATION, b"gin"))
                await recorder.until(lambda number=number: len(recorder.messages) == number)  # type: ignore[misc]  # too

                assert recorder.messages[-1] == "begin"
                assert len(served.websocket.unfinished) == 0

    run(main())


def test_who_is_not_read_from_is_not_late(run: Run) -> None:
    """The receiver has paused it: the rest of the message may be in the socket."""

    async def main() -> None:
        async with serving(TransportLimits(message_timeout=60)) as served:
            client, recorder = await served.join()
            client.send(frame(TEXT, b"be", fin=False) + frame(PING))
            await recorder.until(lambda: recorder.lives == 1)
            recorder.writer.pause_reading()
            client.send(frame(CONTINUATION, b"gin"))
            served.pass_time(100)
            recorder.writer.resume_reading()
            await recorder.until(lambda: recorder.messages)

            assert recorder.messages == ["begin"]

    run(main())


def test_there_is_a_bound_for_all_together(run: Run) -> None:
    """Whoever began first, of the address that holds the most, is closed with 1013; the others go on."""

    async def main() -> None:
        limits = TransportLimits(message_size=1_000, unfinished_size=2_500)
        async with serving(limits, proxies=TrustedProxies(["127.0.0.1", "::1"])) as served:
            # One alone, and then all from one network: it is the proxy that says so.
            addresses = ["203.0.113.7", "2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8::4"]
            joined = [await served.join("/ws", f"X-Forwarded-For: {address}") for address in addresses]
            for client, recorder in joined[:3]:
                client.send(frame(BINARY, b"x" * 800, fin=False) + frame(PING))
                await recorder.until(lambda recorder=recorder: recorder.lives)  # type: ignore[misc]  # bound now

            assert served.websocket.unfinished.size == 2_400
            # The oldest of all does not suffer for what others have begun.
            client, recorder = joined[0]
            client.send(frame(CONTINUATION, b"x" * 150, fin=False) + frame(PING))
            await recorder.until(lambda: recorder.lives == 2)
            client, recorder = joined[1]
            assert await client.close_code() == 1013
            assert await recorder.end() == (1013, "too many unfinished messages: try later")
            assert served.websocket.unfinished.size == 950 + 800
            # What is whole needs no room.
            client, recorder = joined[3]
            client.send(frame(BINARY, b"z" * 1_000))
            await recorder.until(lambda: recorder.messages)
            for client, recorder in (joined[0], joined[2]):
                client.send(frame(CONTINUATION, b""))
                await recorder.until(lambda recorder=recorder: recorder.messages)  # type: ignore[misc]  # bound now
            assert (len(served.websocket.unfinished), served.websocket.unfinished.size) == (0, 0)

    run(main())


@pytest.mark.parametrize("end", ["violation", "close", "abort", "reset", "leave", "too big", "their close"])
def test_it_is_forgotten_however_the_connection_ends(run: Run, end: str) -> None:
    async def main() -> None:
        async with serving(TransportLimits(message_size=1_000)) as served:
            client, recorder = await served.join()
            client.send(frame(BINARY, b"x" * 900, fin=False) + frame(PING))
            await recorder.until(lambda: recorder.lives)

            assert served.websocket.unfinished.size == 900
            match end:
                case "violation":
                    client.send(frame(BINARY, b"y"))
                case "too big":
                    client.send(frame(CONTINUATION, b"y" * 200))
                case "close":
                    recorder.writer.close(1000, "")
                    assert served.websocket.unfinished.size == 0
                case "abort":
                    recorder.writer.abort()
                    assert served.websocket.unfinished.size == 0
                case "reset":
                    client.reset()
                case "leave":
                    await client.leave()
                case "their close":
                    client.send(frame(8, b"\x03\xe8"))
            if end == "close":
                client.send(frame(8, b"\x03\xe8"))
            await recorder.end()
            assert (len(served.websocket.unfinished), served.websocket.unfinished.size) == (0, 0)

    run(main())
