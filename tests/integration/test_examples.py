"""Each example does what its README says: started as a user starts it, and spoken to once."""

from __future__ import annotations

from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from support.client import connect
from support.loop import run
from support.server import Child

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_every_example_is_small_and_tested() -> None:
    """One folder, one idea, at most 20 lines of README, and a test of this module."""
    folders = sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir())

    assert [name for name in folders if f"test_{name}" not in globals()] == []
    for name in folders:
        assert len((EXAMPLES / name / "README.md").read_text(encoding="utf-8").splitlines()) <= 20, name


def test_chat() -> None:
    """A configuration alone makes a chat: a room with a past, and messages to one user."""

    async def main() -> None:
        async with (
            Child.spawned(cwd=EXAMPLES / "chat") as server,
            connect(server.address, "alice") as alice,
            connect(server.address, "bob") as bob,
        ):
            await alice.join("lobby")
            await alice.say("hello", room="lobby")
            await bob.join("lobby", last=20)
            await bob.expect("chat", room="lobby", content="hello")
            await alice.say("only you", to="bob")
            await bob.expect("chat", to="bob", content="only you")

            assert await bob.sync() == []
            async with connect(server.address, "carol") as carol:
                answers = [await client.ask("join", room="duel:1") for client in (alice, bob, carol)]

                assert [answer["type"] for answer in answers] == ["joined", "joined", "error"]

    run(main())


def test_orders() -> None:
    """An order is priced for the customer and the shop, once; one that is wrong is refused with the place."""

    async def main() -> None:
        async with (
            Child.spawned("orders:hub", "--dev", cwd=EXAMPLES / "orders") as server,
            connect(server.address, "alice") as alice,
            connect(server.address, "shop") as shop,
        ):
            for _ in range(2):
                await alice.send({"type": "order", "id": "o1", "content": {"item": "tea", "count": 2}})
                await alice.expect("ack", id="o1")
            sale = {"customer": "alice", "item": "tea", "count": 2, "price": 6}
            await alice.expect("sale", content=sale)
            await shop.expect("sale", content=sale)
            await alice.send({"type": "order", "id": "o2", "content": {"item": "gold"}})
            await alice.expect("error", id="o2", code="not_found")
            await alice.send({"type": "order", "id": "o3", "content": {"item": "tea", "count": 0}})
            await alice.expect("error", id="o3", code="invalid_content", where="$.count")

            assert await shop.sync() == []

    run(main())


def test_dashboard() -> None:
    """Who looks gets figures without asking; they count who looks."""

    async def main() -> None:
        async with (
            Child.spawned("dashboard:hub", "--dev", cwd=EXAMPLES / "dashboard") as server,
            connect(server.address, "alice") as alice,
        ):
            first = await alice.expect("figures")

            assert first["content"]["sessions"] == 1 and "seq" not in first
            async with connect(server.address, "bob") as bob:
                figures = await bob.expect("figures")

                assert figures["content"]["sessions"] == 2
            assert server.errors() == ""

    run(main())


def test_auth() -> None:
    """A known token is its user; any other is refused before the upgrade."""

    async def main() -> None:
        async with Child.spawned("auth:hub", cwd=EXAMPLES / "auth") as server:
            async with connect(server.address, None, query="token=token-of-alice") as alice:
                await alice.say("me", to="alice")
                await alice.expect("chat", from_="alice")
            with pytest.raises(InvalidStatus, match="401"):
                async with connect(server.address, None, query="token=wrong"):
                    pass

    run(main())
