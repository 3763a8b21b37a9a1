"""The Python client with tokens that end: it brings new ones in time, or comes back with one, and nothing is lost."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from hubbub.client import Client, State, StateChange, connect
from hubbub.errors import ConnectError
from support.loop import PATIENCE, eventually, run
from support.server import serving
from support.tokens import SECRET, claims, token

KEYS: dict[str, Any] = {"dev": False, "jwt_secret": SECRET, "jwt_leeway": 0}


def made(life: float, user: str = "alice") -> str:
    """A token that is good for so many seconds."""
    return token(claims(sub=user, iat=int(time.time()), exp=time.time() + life))


def states(client: Client) -> list[State]:
    """The states that it will get into."""
    seen: list[State] = []

    def note(change: StateChange) -> None:
        seen.append(change.state)

    client.on("state", note)
    return seen


def test_it_renews_its_token_without_reconnecting() -> None:
    """The function is asked well before the end; the connection is the same one."""

    async def main() -> None:
        given: list[float] = []

        def renewed() -> str:
            given.append(time.monotonic())
            return made(6)

        async with serving(**KEYS) as server, connect(server.address, token=renewed) as alice:
            seen = states(alice)
            (session,) = server.hub.local_sessions("alice")
            assert session.identity is not None
            first = session.identity.expires or 0
            await eventually(lambda: session.identity is not None and (session.identity.expires or 0) > first)
            await alice.send("chat", "still here", to="alice")

            assert server.hub.local_sessions("alice") == [session]
            assert seen == []

    run(main())


def test_it_comes_back_with_a_new_token_and_what_it_missed() -> None:
    """A function that is late: the session ends with 4003, and the next one resumes."""

    async def main() -> None:
        asked, missed = 0, asyncio.Event()

        async def late() -> str:
            nonlocal asked
            asked += 1
            if asked == 1:
                return made(3)
            # Until the token has ended, the connection with it, and something has been missed.
            await missed.wait()
            return made(600)

        async with serving(**KEYS) as server, connect(server.address, token=late) as alice:
            await alice.send("chat", 1, to="alice")
            await eventually(lambda: not server.hub.local_sessions("alice"))
            await server.hub.send_to("alice", "chat", 2)
            missed.set()
            async with asyncio.timeout(PATIENCE):
                got = [(await anext(alice)).content, (await anext(alice)).content]

            assert got == [1, 2]

    run(main())


def test_a_revoked_token_keeps_it_away() -> None:
    """4501 says that trying again is pointless; the user hears why."""

    async def main() -> None:
        async with serving(**KEYS) as server:
            shown = made(600)
            async with connect(server.address, token=shown) as alice:
                await server.hub.revoke(token=shown)
                async with asyncio.timeout(PATIENCE):
                    with pytest.raises(ConnectError, match="revoked"):
                        await anext(alice)
            with pytest.raises(ConnectError) as refused:
                async with connect(server.address, token=shown):
                    pass

            assert refused.value.final

    run(main())
