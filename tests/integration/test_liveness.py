"""Who is gone is noticed in time, and who answers stays."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.frames import Frame, Opcode

from contract.transports.harness import TEXT, frame, handshake
from support.client import FULL, connect
from support.loop import eventually, run
from support.server import serving

# All times of the protocol, a hundredth as long; the server's clock ticks every quarter of a second.
QUICK: dict[str, Any] = {"ping_interval": 0.4, "silence_limit": 1.2, "envelope_ping_interval": 0.6, "pong_timeout": 0.4}


def mute(raw: ClientConnection) -> None:
    """Let a connection read on without answering: a peer whose program hangs."""
    raw.protocol.data_to_send = list  # type: ignore[method-assign]


@pytest.mark.tls_too
def test_a_plain_client_is_pinged_and_closed_when_it_is_silent() -> None:
    """A WebSocket ping after a while; nothing in return, and it is closed with 4001."""

    async def main() -> None:
        async with serving(**QUICK) as server, connect(server.address, "alice") as alice:
            mute(alice.raw)
            await eventually(lambda: not server.hub.local_sessions("alice"))
            received = alice.raw.protocol
            await eventually(lambda: received.close_rcvd)

            assert received.close_rcvd is not None and received.close_rcvd.code == 4001
            assert alice.seen == []

    run(main())


def test_a_plain_client_that_answers_is_pinged_after_each_silence() -> None:
    """Also where the limit is far away: a proxy between them may be of less patience than the server."""

    async def main() -> None:
        pings: list[float] = []
        async with (
            serving(ping_interval=0.3, silence_limit=60.0) as server,
            connect(server.address, "alice") as alice,
        ):
            send = alice.raw.protocol.send_frame

            def count(frame: Frame) -> None:
                if frame.opcode is Opcode.PONG:
                    pings.append(asyncio.get_running_loop().time())
                send(frame)

            alice.raw.protocol.send_frame = count  # type: ignore[method-assign]  # each pong stands for a ping
            await eventually(lambda: len(pings) == 3)

            assert pings[2] - pings[0] < 10

    run(main())


@pytest.mark.tls_too
def test_a_full_client_that_answers_no_ping_is_closed() -> None:
    """With 4001, after a goodbye with the same code."""

    async def main() -> None:
        async with serving(**QUICK) as server, connect(server.address, "alice", full=True) as alice:
            assert alice.welcome["ping"] == 600
            await alice.expect("ping")
            goodbye = await alice.expect("goodbye")

            assert goodbye["code"] == 4001
            assert await alice.closed() == (4001, goodbye["reason"])
            assert len(alice.heard("ping")) == 1

    run(main())


@pytest.mark.parametrize("full", [False, True], ids=["plain", "full"])
def test_a_part_of_a_frame_is_no_sign_of_life(full: bool) -> None:
    """However often another byte of it comes: who never ends a frame is silent."""

    async def main() -> None:
        async with serving(**QUICK) as server:
            host, _, port = server.address.removeprefix("http://").rpartition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(handshake("/ws?user_id=mallory", *([f"Sec-WebSocket-Protocol: {FULL}"] if full else [])))
            writer.write((frame(TEXT, b'{"type":"hello"}') if full else b"") + frame(TEXT, b"x" * 60_000)[:30_000])
            await eventually(lambda: server.hub.local_sessions("mallory"))
            dribbled = 0
            while server.hub.local_sessions("mallory"):
                writer.write(b"x")
                dribbled += 1
                await asyncio.sleep(0.02)

            # Not yet a whole frame.
            assert dribbled < 10_000
            assert b"\x0f\xa1" in await reader.read()
            writer.close()

    run(main())


@pytest.mark.tls_too
def test_whoever_answers_stays() -> None:
    """A plain client's library answers by itself; a full client answers `pong`, or says anything else."""

    async def main() -> None:
        async with (
            serving(**QUICK) as server,
            connect(server.address, "plain") as plain,
            connect(server.address, "ponging", full=True) as ponging,
            connect(server.address, "talking", full=True) as talking,
            connect(server.address, "gone", full=True) as gone,
        ):
            for _ in range(3):
                await ponging.expect("ping")
                await ponging.send({"type": "pong"})
                await talking.expect("ping")
                await talking.say("I am here", to="nobody")

            assert (await gone.closed())[0] == 4001
            assert plain.seen == []
            await plain.sync()
            await ponging.sync()
            await talking.sync()

    run(main())


@pytest.mark.tls_too
@pytest.mark.parametrize("full", [False, True], ids=["plain", "full"])
def test_a_ping_is_answered_behind_everything_sent_before(full: bool) -> None:
    """`pong` has the ping's id and content; a pong that nobody asked for is ignored."""

    async def main() -> None:
        async with serving() as server, connect(server.address, "alice", full=full) as alice:
            for number in range(50):
                await alice.say(number)
            await alice.send({"type": "pong"})
            await alice.send({"type": "ping", "id": "p", "content": {"x": [1]}})
            pong = await alice.expect("pong")

            assert pong == {"type": "pong", "id": "p", "content": {"x": [1]}}
            assert len(alice.heard("chat")) == 50 and alice.seen[-1] is pong
            assert alice.heard("error") == []

    run(main())


@pytest.mark.tls_too
def test_a_peer_that_vanishes_without_a_word_is_noticed() -> None:
    """A cut ends the session at once, and its rooms with it."""

    async def main() -> None:
        async with serving(presence_grace=0) as server, connect(server.address, "bob") as bob:
            await bob.join("lobby")
            async with connect(server.address, "alice", subprotocols=[FULL]) as alice:
                await alice.send({"type": "hello", "resume": {"rooms": {"lobby": None}}})
                await bob.expect("member-joined", user="alice")
                alice.cut()
                await bob.expect("member-left", user="alice")
            await asyncio.sleep(0)

            assert server.hub.local_sessions("alice") == []

    run(main())
