"""Who does not read costs nobody else anything: bounded, told what was dropped, and gone when it is too much."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest

from hubbub import Hub
from hubbub.core.outbox import OutboxLimits, Overflow
from hubbub.engines.memory import MemoryEngine
from hubbub.hub import HubOptions
from hubbub.server import Server
from hubbub.transports.base import Accept, Handshake
from support.client import FULL, Client, Message, connect
from support.loop import PATIENCE, eventually, run
from support.server import serving
from support.wire import Wire

pytestmark = pytest.mark.every_engine

# Small buffers in the kernel on both sides, so that a reader that stops is noticed after some kilobytes.
SNDBUF, RCVBUF = 8_192, 4_096
PADDING = "x" * 1_000


@contextlib.asynccontextmanager
async def stalled(server: Server, user: str, room: str | None = None, **options: Any) -> AsyncIterator[Client]:
    """A session that reads no more, after joining `room`."""
    async with connect(server.address, user, rcvbuf=RCVBUF, **options) as client:
        if room is not None:
            await client.join(room)
        await client.sync()
        client.stall()
        yield client


async def publish(server: Server, count: int, pace: Client | None = None, **fields: Any) -> None:
    """Publish as many messages, each when `pace` has the one before; `from_` takes turns among three."""
    for number in range(count):
        accepted = await server.hub.publish("chat", [number, PADDING], from_=f"sender-{number % 3}", **fields)
        if pace is not None:
            await pace.expect("chat", seq=accepted.seq)
        else:
            await asyncio.sleep(0)


def account(messages: list[Message], position: int) -> tuple[list[int], list[tuple[int, int]], int]:
    """Follow a channel from `position`: the seqs that came, the gaps, and where it ends; no hole, no double."""
    came: list[int] = []
    gaps: list[tuple[int, int]] = []
    for message in messages:
        if message["type"] == "gap":
            assert message["from"] == position + 1 and message["to"] >= message["from"], (position, message)
            gaps.append((message["from"], message["to"]))
            position = message["to"]
        elif "seq" in message:
            assert message["seq"] == position + 1, (position, message["seq"])
            came.append(message["seq"])
            position = message["seq"]
    return came, gaps, position


@pytest.mark.memory
@pytest.mark.tls_too
def test_stalled_readers_are_gone_at_the_bound_and_a_hundred_healthy_get_everything() -> None:
    """The outbox is bounded, its owner is closed with 4000, and nobody else notices."""

    count = 400

    async def main() -> None:
        async with (
            serving(sndbuf=SNDBUF, outbox_messages=50, close_timeout=60) as server,
            AsyncExitStack() as stack,
        ):
            healthy = [await stack.enter_async_context(connect(server.address, f"h{n}")) for n in range(100)]
            slow = [await stack.enter_async_context(stalled(server, f"s{n}", full=n % 2 == 0)) for n in range(10)]
            await publish(server, count)
            await asyncio.gather(*(client.expect("chat", seq=count) for client in healthy))

            assert {session.user for session in server.hub.local_sessions()} == {f"h{n}" for n in range(100)}
            for client in healthy:
                assert [message["seq"] for message in client.heard("chat")] == list(range(1, count + 1))
            for client in slow:
                client.resume()

                assert (await client.closed())[0] == 4000
                # What came before is whole.
                came, _, _ = account(client.heard("chat"), 0)
                assert len(came) < count

    run(main())


@pytest.mark.memory
@pytest.mark.tls_too
def test_a_goodbye_that_is_too_much_ends_the_session_once(caplog: pytest.LogCaptureFixture) -> None:
    """An outbox that is full to the brim does not take the goodbye either; that is the end, and not two ends."""

    async def main() -> None:
        async with serving(sndbuf=SNDBUF, outbox_messages=20) as server, stalled(server, "bob", full=True) as bob:
            (session,) = server.hub.local_sessions("bob")
            while session.outbox.statistics().held < 20:
                await server.hub.publish("chat", PADDING)
            await server.hub.disconnect("bob")

            assert session.ending
            assert server.hub.local_sessions("bob") == []
            bob.resume()
            await bob.closed()

    run(main())

    assert caplog.records == []


@pytest.mark.memory
def test_a_reader_that_takes_nothing_is_gone_at_the_write_deadline() -> None:
    """However little waits for it."""

    async def main() -> None:
        async with (
            serving(sndbuf=SNDBUF, write_deadline=0.3, outbox_messages=100_000) as server,
            connect(server.address, "alice") as alice,
            stalled(server, "bob") as bob,
        ):
            await publish(server, 100)

            assert server.hub.local_sessions("bob")
            await eventually(lambda: not server.hub.local_sessions("bob"))
            await publish(server, 1)
            await alice.expect("chat", seq=101)
            bob.resume()
            assert (await bob.closed())[0] == 4000

    run(main())


@pytest.mark.memory
def test_a_slow_reader_that_keeps_reading_stays() -> None:
    """The deadline is for taking something, not for taking everything."""

    count = 150

    async def main() -> None:
        async with (
            serving(sndbuf=SNDBUF, write_deadline=0.5, outbox_messages=100_000) as server,
            stalled(server, "bob") as bob,
        ):
            await publish(server, count)
            breaths = 0
            while len(bob.heard("chat")) < count and server.hub.local_sessions("bob"):
                # So little at a time that all of it takes several deadlines.
                bob.resume()
                await asyncio.sleep(0)
                bob.stall()
                await asyncio.sleep(0.1)
                breaths += 1
            bob.resume()
            await bob.sync()

            assert breaths > 10
            assert account(bob.heard("chat"), 0) == (list(range(1, count + 1)), [], count)

    run(main())


@pytest.mark.tls_too
@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest", "latest"])
def test_every_dropped_message_is_in_a_gap(policy: str) -> None:
    """What came and the gaps together are the whole sequence, in its order; the newest of each sender stays
    with `latest`, the newest of all with `drop_oldest`, the oldest with `drop_newest`.
    """

    count, room_for = 600, 20

    async def main() -> None:
        async with (
            serving(sndbuf=SNDBUF, overflow=policy, outbox_messages=room_for) as server,
            connect(server.address, "alice", full=True) as alice,
            stalled(server, "bob", "lobby", full=True) as bob,
        ):
            await alice.join("lobby")
            await publish(server, count, alice, room="lobby")
            bob.resume()
            await eventually(lambda: not server.hub.statistics().blocked)
            await server.hub.publish("chat", "the end", room="lobby")
            await bob.expect("chat", seq=count + 1)
            came, gaps, end = account([m for m in bob.seen if m["type"] in ("chat", "gap")], 0)
            dropped = sum(last - first + 1 for first, last in gaps)

            assert end == count + 1 and len(came) + dropped == end and dropped > 100
            assert all(gap["room"] == "lobby" and "channel" not in gap for gap in bob.heard("gap"))
            match policy:
                case "drop_oldest":
                    assert came[-room_for - 1 :] == list(range(count - room_for + 1, count + 2))
                case "drop_newest":
                    # The kernel may take some more in between, so that the last of all may come.
                    assert came[:room_for] == list(range(1, room_for + 1))
                case "latest":
                    assert {count - 2, count - 1, count} <= set(came)
            assert account(alice.heard("chat"), 0) == (list(range(1, count + 2)), [], count + 1)

    run(main())


@pytest.mark.tls_too
def test_a_disconnected_reader_resumes_without_a_gap() -> None:
    """The default policy: closed with 4000, and what was missed comes with the resume."""

    count = 600

    async def main() -> None:
        async with (
            serving(sndbuf=SNDBUF, outbox_messages=20, close_timeout=60) as server,
            stalled(server, "bob", "lobby", full=True) as bob,
        ):
            epoch = bob.heard("joined")[0]["position"][0]
            await publish(server, count, room="lobby")

            assert not server.hub.local_sessions("bob")
            bob.resume()
            code, _ = await bob.closed()
            came, _, position = account(bob.heard("chat"), 0)

            assert code == 4000 and position < count
            resume = {"rooms": {"lobby": [epoch, position]}}
            async with connect(server.address, "bob", full=True, hello={"resume": resume}) as back:
                await back.expect("chat", seq=count)

                assert back.welcome["recovered"]["rooms"]["lobby"] is True
                assert came + account(back.heard("chat"), position)[0] == list(range(1, count + 1))

    run(main())


@contextlib.asynccontextmanager
async def blocked_in_lobby() -> AsyncIterator[tuple[Hub, Wire]]:
    """A hub that drops the oldest, and a member of its lobby whose socket takes nothing.

    In memory, to the message: the buffers of a kernel give way a little now and then.
    """
    hub, wire = Hub(), Wire()
    outbox = OutboxLimits(outbox_messages=4, overflow=Overflow.DROP_OLDEST)
    await hub.start(MemoryEngine(), HubOptions(dev=True, outbox=outbox))
    accept = await hub.admit(
        Handshake(path="/ws", query={"user_id": "bob"}, headers={}, subprotocols=(FULL,), ip="127.0.0.1")
    )
    assert isinstance(accept, Accept)
    wire.open(accept.receiver)
    wire.say({"type": "hello", "resume": {"rooms": {"lobby": None}}})
    await asyncio.sleep(0)
    assert wire.hear()[0]["type"] == "welcome"
    wire.stall(0)
    try:
        yield hub, wire
    finally:
        await hub.stop()


async def announce(hub: Hub, count: int) -> None:
    """Publish as many messages, each in a turn of its own."""
    for number in range(count):
        await hub.publish("chat", number, room="lobby")
        await asyncio.sleep(0)


def test_an_ack_keeps_the_place_of_its_message_among_the_gaps() -> None:
    """Where an ack stands for a message without an echo, the gap before it comes before it (protocol.md 5.4)."""

    async def main() -> None:
        async with blocked_in_lobby() as (hub, wire):
            for number in range(2):
                await announce(hub, 9)
                wire.say({"type": "chat", "room": "lobby", "echo": False, "id": f"mine-{number}"})
            await announce(hub, 9)
            wire.go_on()
            heard = wire.hear()
            _, gaps, end = account(heard, 0)

            assert [message["seq"] for message in heard if message["type"] == "ack"] == [10, 20]
            assert gaps == [(2, 9), (11, 19), (21, 27)] and end == 29

    run(main())


@pytest.mark.parametrize("request_", [{"type": "join"}, {"type": "leave"}], ids=["joined", "left"])
def test_gaps_come_before_what_ends_them(request_: Message) -> None:
    """What was dropped before `joined` and `left` is told before them: then the room begins anew, or is over."""

    async def main() -> None:
        async with blocked_in_lobby() as (hub, wire):
            await announce(hub, 9)
            wire.say({**request_, "room": "lobby", "id": "end"})
            # Answers push out what was held before, and after a `joined` so do messages.
            for _ in range(3):
                wire.say({"type": "ping"})
            await announce(hub, 9)
            wire.go_on()
            heard = wire.hear()
            end = next(index for index, message in enumerate(heard) if message.get("id") == "end")
            rest = [message for message in heard[end + 1 :] if "room" in message]

            assert account(heard[:end], 0)[2] == 9
            if request_["type"] == "leave":
                assert rest == []
            else:
                assert heard[end]["position"][1] == 9
                assert account(rest, 9)[2] == 18

    run(main())


@pytest.mark.parametrize("fields", [{}, {"to": "bob"}], ids=["all", "inbox"])
@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest", "latest"])
def test_nothing_of_all_and_inboxes_is_ever_dropped(policy: str, fields: dict[str, str]) -> None:
    """Whatever rooms do, these disconnect (protocol.md 5.8)."""

    async def main() -> None:
        async with (
            serving(sndbuf=SNDBUF, outbox_messages=20, close_timeout=60, overflow=policy) as server,
            connect(server.address, "alice") as alice,
            stalled(server, "bob", "lobby", full=True) as bob,
        ):
            for number in range(200):
                await alice.say([number, PADDING], **fields)
                await alice.sync()
            await eventually(lambda: not server.hub.local_sessions("bob"))
            bob.resume()

            assert (await bob.closed())[0] == 4000
            assert bob.heard("gap") == []
            account(bob.heard("chat"), 0)

    run(main())


@pytest.mark.memory
def test_a_publication_waits_for_nobody() -> None:
    """With twenty readers stalled, publishing goes through without once giving up the thread."""

    async def main() -> None:
        async with serving(sndbuf=SNDBUF) as server, AsyncExitStack() as stack:
            for n in range(20):
                await stack.enter_async_context(stalled(server, f"s{n}", "lobby"))
            for number in range(1_000):
                for target in (None, "lobby"):
                    publishing = server.hub.publish("chat", [number, PADDING], room=target)
                    with pytest.raises(StopIteration):
                        publishing.send(None)
            await eventually(lambda: not server.hub.local_sessions())

    run(main())


@pytest.mark.memory
def test_the_healthy_are_as_quick_beside_stalled_readers() -> None:
    """A hundred healthy members of a room with twenty stalled ones hear each message as soon as without.

    Measured in processor time, with the two rooms taking turns: a busy machine slows both alike.
    """

    rounds = 150

    async def main() -> None:
        async with serving(sndbuf=SNDBUF, rooms_per_session=2) as server, AsyncExitStack() as stack:
            healthy = [await stack.enter_async_context(connect(server.address, f"h{n}")) for n in range(100)]
            for client in healthy:
                await client.join("alone")
                await client.join("beside")
            for n in range(20):
                await stack.enter_async_context(stalled(server, f"s{n}", "beside"))
            for client in healthy:
                await client.sync()
            # The server has its own quiet collector; this process has the clients' garbage too.
            gc.disable()
            stack.callback(gc.enable)
            times: dict[str, list[float]] = {"alone": [], "beside": []}
            for number in range(rounds):
                for room in times if number % 2 else reversed(times):
                    started = time.process_time()
                    await server.hub.publish("chat", PADDING, room=room)
                    await asyncio.gather(*(client.expect("chat", room=room) for client in healthy))
                    times[room].append(time.process_time() - started)

            assert percentile(times["beside"], 0.99) <= 2 * percentile(times["alone"], 0.99) + 0.002
            assert percentile(times["beside"], 0.5) <= 2 * percentile(times["alone"], 0.5)

    run(main())


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[int(len(values) * share)]


@pytest.mark.memory
@pytest.mark.tls_too
def test_answers_to_a_stalled_reader_are_bounded_too() -> None:
    """Who asks and never reads the answers is gone at the same bound."""

    async def main() -> None:
        async with serving(sndbuf=SNDBUF, outbox_messages=50) as server, stalled(server, "bob") as bob:
            async with asyncio.timeout(PATIENCE):
                while server.hub.local_sessions("bob"):
                    await bob.send({"type": "ping", "content": PADDING})
                    await asyncio.sleep(0)

    run(main())
