"""A server that is told to stop says goodbye, lets everything out that was accepted, and goes in time."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from contextlib import AsyncExitStack

import pytest
from websockets.exceptions import InvalidStatus

from hubbub import Hub, Message, Session
from support.client import connect
from support.loop import eventually, run
from support.server import Child, get, serving

pytestmark = pytest.mark.every_engine


def test_sigterm_says_goodbye_and_exits_with_0() -> None:
    """Full sessions get a goodbye with a time to come back, spread at random; all are closed with 1012."""

    async def main() -> None:
        async with Child.spawned("--dev") as child, AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(connect(child.address, f"u{n}", full=n % 2 == 0)) for n in range(20)
            ]
            await clients[0].say("the last word")
            await asyncio.gather(*(client.expect("chat") for client in clients))
            child.signal(signal.SIGTERM)
            waits = set()
            for number, client in enumerate(clients):
                code, reason = await client.closed()

                assert code == 1012
                if number % 2 == 0:
                    goodbye = client.seen[-1]
                    waits.add(goodbye.pop("retry_after"))
                    assert goodbye == {"type": "goodbye", "code": 1012, "reason": reason}
                else:
                    assert client.heard("goodbye") == []
            assert all(0 < wait < 30 for wait in waits) and len(waits) > 3
            assert await child.exit_status() == 0
            assert child.errors() == ""

    run(main())


def test_a_draining_server_is_not_ready_and_takes_nobody() -> None:
    """While somebody has not answered yet: /ready is 503, a handshake is 503 with Retry-After, /health is 200."""

    async def main() -> None:
        async with Child.spawned("--dev", "--close-timeout", "20") as child, connect(child.address, "slow") as slow:
            assert (await get(child.address, "/ready")).status == 200
            slow.stall()
            child.signal(signal.SIGTERM)
            async with asyncio.timeout(20):
                while (answer := await get(child.address, "/ready")).status == 200:
                    await asyncio.sleep(0.01)

            assert answer.status == 503 and answer.json()["error"]["code"] == "unavailable"
            assert (await get(child.address, "/health")).status == 200
            with pytest.raises(InvalidStatus) as refused:
                async with connect(child.address, "late"):
                    pass
            assert refused.value.response.status_code == 503
            assert int(refused.value.response.headers["Retry-After"]) > 0
            slow.resume()
            assert (await slow.closed())[0] == 1012
            assert await child.exit_status() == 0

    run(main())


def test_a_drain_ends_in_time_with_a_stalled_client() -> None:
    """Who does not answer keeps nobody: the process is gone when its time is over."""

    async def main() -> None:
        arguments = ("--dev", "--drain-timeout", "1", "--close-timeout", "60")
        async with Child.spawned(*arguments) as child, connect(child.address, "stuck") as stuck:
            stuck.stall()
            started = time.monotonic()
            child.signal(signal.SIGTERM)

            assert await child.exit_status(within=10) == 0
            assert 0.9 < time.monotonic() - started < 8

    run(main())


def test_a_drain_lets_out_what_waits_for_a_slow_reader() -> None:
    """What was accepted for a reader whose socket is full goes out before its goodbye, for it is nowhere else."""

    count = 100

    async def main() -> None:
        async with (
            serving(sndbuf=8_192, close_timeout=20) as server,
            connect(server.address, "bob", full=True, rcvbuf=4_096) as bob,
        ):
            bob.stall()
            for number in range(count):
                await server.hub.publish("chat", [number, "x" * 1_000])
                await asyncio.sleep(0)

            assert server.hub.statistics().blocked == 1
            draining = asyncio.ensure_future(server.drain(20))
            await eventually(lambda: server.hub.draining)
            bob.resume()
            await draining

            assert (await bob.closed())[0] == 1012
            assert [message["seq"] for message in bob.heard("chat")] == list(range(1, count + 1))
            assert bob.seen[-1]["type"] == "goodbye"

    run(main())


@pytest.mark.tls_too
def test_goodbyes_are_paced() -> None:
    """They go out in batches, so that not everyone comes back at once; all within the time."""

    async def main() -> None:
        async with serving() as server, AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(connect(server.address, f"u{n}", full=True)) for n in range(250)]
            ends: list[float] = []
            close = Session.close

            def closing(session: Session, code: int, reason: str, *, retry_after: float | None = None) -> None:
                ends.append(time.monotonic())
                close(session, code, reason, retry_after=retry_after)

            # On the server's side: when a client gets to read it says nothing about when it was told.
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Session, "close", closing)
                await asyncio.gather(server.drain(10), *(client.expect("goodbye") for client in clients))

            assert len(ends) == 250
            # Three batches with a pause of a tenth of a second between them.
            assert 0.19 <= max(ends) - min(ends) < 10

    run(main())


def test_what_is_said_while_a_drain_is_under_way_is_answered_or_closed() -> None:
    """Every message with an id either has its ack before the end, or none: never an ack and a loss."""

    async def main() -> None:
        async with serving() as server, connect(server.address, "alice", full=True) as alice:

            async def talk() -> None:
                number = 0
                with contextlib.suppress(Exception):
                    while True:
                        number += 1
                        await alice.say(number, id=f"m{number}")
                        await asyncio.sleep(0)

            talking = asyncio.ensure_future(talk())
            await alice.expect("ack", id="m20")
            await server.drain(10)
            talking.cancel()
            await alice.closed()
            acked = [message["id"] for message in alice.heard("ack")]
            echoed = [message["id"] for message in alice.heard("chat")]

            assert acked == echoed == [f"m{n}" for n in range(1, len(acked) + 1)]

    run(main())


def test_interrupting_once_is_polite_and_twice_is_now() -> None:
    """SIGINT drains like SIGTERM; the second one does not wait for anybody."""

    async def main() -> None:
        arguments = ("--dev", "--close-timeout", "60")
        async with Child.spawned(*arguments) as child, connect(child.address, "stuck") as stuck:
            stuck.stall()
            child.signal(signal.SIGINT)
            async with asyncio.timeout(20):
                while (await get(child.address, "/ready")).status == 200:
                    await asyncio.sleep(0.01)
            started = time.monotonic()
            child.signal(signal.SIGINT)

            assert await child.exit_status(within=10) == 0
            assert time.monotonic() - started < 5
            assert "Traceback" not in child.errors()

    run(main())


def test_a_handler_under_way_is_waited_for() -> None:
    """What it does for somebody is answered and published before the goodbye, and its hooks run to their end."""
    hub = Hub()
    begun, ended = asyncio.Event(), asyncio.Event()

    @hub.on("slow")
    async def slow(message: Message[object]) -> Message[object]:
        begun.set()
        await asyncio.sleep(0.3)
        return message

    @hub.on_disconnect
    async def gone(session: Session) -> None:
        await asyncio.sleep(0.05)
        ended.set()

    async def main() -> None:
        async with serving(hub) as server, connect(server.address, "alice", full=True) as alice:
            await alice.send({"type": "slow", "id": "a1"})
            async with asyncio.timeout(5):
                await begun.wait()
            draining = asyncio.create_task(server.drain(10))

            assert (await alice.expect("ack", id="a1"))["seq"] == 1
            assert (await alice.closed())[0] == 1012
            await draining
            assert ended.is_set()

    run(main())


@pytest.mark.memory
def test_a_plain_message_that_was_not_written_is_not_acknowledged() -> None:
    """Bob closes in the same turn in which two messages reach his outbox: he gets what he missed next time."""

    async def main() -> None:
        async with serving() as server:
            await server.hub.send_to("bob", "chat", 1)
            bob = connect(server.address, "bob")
            async with bob as first:
                await first.expect("chat")
                (session,) = server.hub.local_sessions("bob")
                # Two in one turn: the second waits for the turn's end, and the connection ends before it.
                await server.hub.send_to("bob", "chat", 2)
                await server.hub.send_to("bob", "chat", 3)
                session.closed(1000, "")
            async with connect(server.address, "bob") as again:
                heard = await again.expect("chat", content=3)

            assert heard["seq"] == 3

    run(main())
