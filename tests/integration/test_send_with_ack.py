"""What the application sends and wants acknowledged: it learns who has it, in time, and who has not."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from hubbub import Acknowledged, AckTimeout, Hub, HubbubError, Message, Reject, Unavailable
from hubbub.engines.base import Accepted
from hubbub.engines.memory import MemoryEngine
from hubbub.protocol.codes import ErrorCode
from hubbub.server import Server
from hubbub.types import Publication
from support.client import connect
from support.loop import PATIENCE, eventually, run
from support.server import serving

pytestmark = pytest.mark.every_engine

# Seconds for what nobody is going to acknowledge.
SOON = 0.05

BAD_CALLS: dict[str, tuple[Any, str, Any, str | None]] = {
    "no name": ("", "order", 1, None),
    "one of several": (["bob", "a\nb"], "order", 1, None),
    "a type of the protocol": ("bob", "receipt", 1, None),
    "no id": ("bob", "order", 1, ""),
    "no content": ("bob", "order", object(), None),
}


def waits(hub: Hub) -> int:
    """How many receipts the hub waits for."""
    assert hub._node is not None
    return hub._node.receipts._count


def ask(hub: Hub, user: str, content: object = None, **options: Any) -> asyncio.Task[Acknowledged]:
    """A call, for the test to go on beside it."""
    return asyncio.create_task(hub.send_with_ack(user, "order", content, **{"timeout": PATIENCE, **options}))


def test_it_returns_when_the_recipient_has_acknowledged() -> None:
    """Not when it is sent, nor when something before it is acknowledged."""

    async def main() -> None:
        hub = Hub()
        async with serving(hub) as server, connect(server.address, "bob", full=True) as bob:
            before = await hub.send_to("bob", "note", "earlier")
            asked = ask(hub, "bob", {"item": "tea"})
            order = await bob.expect("order")
            await bob.send({"type": "ack", "seq": before.seq})
            await bob.sync()

            assert not asked.done()
            await bob.send({"type": "ack", "seq": order["seq"]})
            acknowledged = await asked

            assert acknowledged == Acknowledged("bob", 2, before.epoch, acknowledged.time)
            assert acknowledged.time is not None and order["time"] <= acknowledged.time <= time.time() * 1000
            assert (order["content"], order["to"], order["receipt"]) == ({"item": "tea"}, "bob", True)
            assert "from" not in order and order["id"]
            assert waits(hub) == 0

    run(main())


def test_written_to_a_plain_client_is_acknowledged() -> None:
    async def main() -> None:
        hub = Hub()
        async with serving(hub) as server, connect(server.address, "bob") as bob:
            acknowledged = await hub.send_with_ack("bob", "order", 1, id="o1")

            assert (acknowledged.user, acknowledged.seq) == ("bob", 1)
            assert (await bob.expect("order"))["id"] == "o1"

    run(main())


def test_one_device_is_enough() -> None:
    async def main() -> None:
        hub = Hub()
        async with (
            serving(hub) as server,
            connect(server.address, "bob", full=True) as phone,
            connect(server.address, "bob", full=True) as laptop,
        ):
            asked = ask(hub, "bob")
            for device in (phone, laptop):
                await device.expect("order", seq=1)
            await laptop.send({"type": "ack", "seq": 1})
            await asked
            await phone.send({"type": "ack", "seq": 1})
            await phone.sync()

    run(main())


@pytest.mark.parametrize("full", [False, True], ids=["plain", "full"])
def test_who_is_away_may_come_back_in_time(full: bool) -> None:
    async def main() -> None:
        hub = Hub()
        async with serving(hub) as server:
            asked = ask(hub, "bob", 1)
            async with connect(server.address, "bob", full=full) as bob:
                order = await bob.expect("order")
                if full:
                    await bob.send({"type": "ack", "seq": order["seq"]})

                assert (await asked).seq == order["seq"]

    run(main())


def test_who_does_not_come_is_a_timeout() -> None:
    """The message waits in the inbox all the same, and the error says which it is."""

    async def main() -> None:
        hub = Hub()
        async with serving(hub) as server:
            with pytest.raises(AckTimeout, match="it stays in the inbox") as missed:
                await hub.send_with_ack("bob", "order", 1, timeout=SOON, id="o1")

            assert (missed.value.user, missed.value.id, missed.value.seq) == ("bob", "o1", 1)
            assert waits(hub) == 0
            async with connect(server.address, "bob") as bob:
                assert (await bob.expect("order"))["seq"] == missed.value.seq

    run(main())


def test_a_retry_waits_on_and_sends_nothing_twice() -> None:
    """Before the acknowledgement it waits for that; afterwards it is answered at once, without a time."""

    async def main() -> None:
        hub = Hub()
        async with serving(hub) as server, connect(server.address, "bob", full=True) as bob:
            with pytest.raises(AckTimeout) as missed:
                await hub.send_with_ack("bob", "order", 1, timeout=SOON)
            asked = ask(hub, "bob", 1, id=missed.value.id)
            await eventually(lambda: waits(hub) == 1)
            await bob.send({"type": "ack", "seq": 1})
            second = await asked
            third = await hub.send_with_ack("bob", "order", 1, timeout=PATIENCE, id=missed.value.id)

            assert second.time is not None
            assert third == Acknowledged("bob", 1, second.epoch, None)
            await bob.sync()
            assert len(bob.heard("order")) == 1

    run(main())


def test_calls_with_the_same_id_wait_side_by_side() -> None:
    """All hear of the one receipt, and one that gives up takes nothing from the others."""

    async def main() -> None:
        hub = Hub()
        async with serving(hub) as server, connect(server.address, "bob", full=True) as bob:
            first, second, leaves = (ask(hub, "bob", 1, id="o1") for _ in range(3))
            with pytest.raises(AckTimeout):
                await hub.send_with_ack("bob", "order", 1, timeout=SOON, id="o1")
            leaves.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaves

            assert waits(hub) == 2
            await bob.send({"type": "ack", "seq": 1})
            assert await first == await second
            await bob.sync()
            assert len(bob.heard("order")) == 1 and waits(hub) == 0

    run(main())


def test_an_id_belongs_to_its_recipient() -> None:
    """The receipt of one user does not answer for another."""

    async def main() -> None:
        hub = Hub()
        async with serving(hub) as server, connect(server.address, "bob") as bob:
            await hub.send_with_ack("bob", "order", 1, id="o1")
            with pytest.raises(AckTimeout):
                await hub.send_with_ack("carol", "order", 1, timeout=SOON, id="o1")
            await bob.sync()
            async with connect(server.address, "carol") as carol:
                assert (await carol.expect("order"))["id"] == "o1"

    run(main())


def test_several_users_each_have_their_own_outcome() -> None:
    """Those in time, and those not; a second call with the id, to the latter, waits on."""

    async def main() -> None:
        hub = Hub()
        async with (
            serving(hub) as server,
            connect(server.address, "plain"),
            connect(server.address, "full", full=True) as full,
            connect(server.address, "mute", full=True) as mute,
        ):
            asked = asyncio.create_task(
                hub.send_with_ack(["plain", "full", "mute", "away", "full"], "order", 1, timeout=0.5)
            )
            order = await full.expect("order")
            await full.send({"type": "ack", "seq": order["seq"]})
            outcome = await asked

            assert outcome.acknowledged.keys() == {"plain", "full"}
            assert outcome.acknowledged["full"].seq == order["seq"]
            assert outcome.missing == ("mute", "away") and outcome.unavailable == {}
            assert outcome.id == order["id"]
            await mute.send({"type": "ack", "seq": (await mute.expect("order"))["seq"]})
            async with connect(server.address, "away"):
                again = await hub.send_with_ack(outcome.missing, "order", 1, timeout=PATIENCE, id=outcome.id)

            assert again.acknowledged.keys() == {"mute", "away"} and again.missing == ()
            for client in (full, mute):
                await client.sync()
                assert len(client.heard("order")) == 1

    run(main())


def test_nobody_has_nothing_to_acknowledge() -> None:
    async def main() -> None:
        hub = Hub()
        async with serving(hub):
            outcome = await hub.send_with_ack([], "order", 1)

            assert (outcome.acknowledged, outcome.missing, outcome.unavailable) == ({}, (), {})

    run(main())


@pytest.mark.local
def test_what_could_not_be_sent_is_told_apart() -> None:
    """It is in no inbox: another thing than one that nobody has acknowledged."""

    async def main() -> None:
        hub = Hub()
        async with serving(hub, channels=1):
            outcome = await hub.send_with_ack(["bob", "carol"], "order", 1, timeout=SOON)
            with pytest.raises(Unavailable, match="too many channels"):
                await hub.send_with_ack("carol", "order", 1)

            assert outcome.missing == ("bob",) and outcome.acknowledged == {}
            assert outcome.unavailable.keys() == {"carol"}
            assert waits(hub) == 0

    run(main())


@pytest.mark.parametrize("call", BAD_CALLS.values(), ids=BAD_CALLS)
def test_what_no_client_could_understand_is_sent_to_nobody(call: tuple[Any, str, Any, str | None]) -> None:
    async def main() -> None:
        hub = Hub()
        user, kind, content, id = call
        async with serving(hub) as server, connect(server.address, "bob") as bob:
            with pytest.raises(HubbubError):
                await hub.send_with_ack(user, kind, content, id=id)

            assert await bob.sync() == []

    run(main())


def test_the_receipt_may_be_here_before_the_engine_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the recipient is on another node than the sender: nobody promises an order."""
    passed = asyncio.Event()
    publish = MemoryEngine.publish

    async def slow_publish(
        self: MemoryEngine, channel: str, publication: Publication, *, volatile: bool = False, origin: str | None = None
    ) -> Accepted:
        accepted = await publish(self, channel, publication, volatile=volatile, origin=origin)
        if channel == "user:bob":
            await asyncio.wait_for(passed.wait(), PATIENCE)
        return accepted

    submit = MemoryEngine.submit

    def noted_submit(self: MemoryEngine, channel: str, *arguments: Any) -> None:
        submit(self, channel, *arguments)
        if channel == "user:":
            passed.set()

    monkeypatch.setattr(MemoryEngine, "publish", slow_publish)
    monkeypatch.setattr(MemoryEngine, "submit", noted_submit)

    async def main() -> None:
        hub = Hub()
        async with serving(hub) as server, connect(server.address, "bob"):
            acknowledged = await hub.send_with_ack("bob", "order", 1, timeout=PATIENCE)

            assert acknowledged.time is not None

    run(main())


@pytest.mark.memory
@pytest.mark.parametrize("users", ["bob", ["bob", "carol"]], ids=["one", "several"])
def test_a_hub_that_stops_ends_the_wait(users: Any) -> None:
    """At once, and not as a timeout: whether it would have been acknowledged is not known."""

    async def main() -> None:
        hub = Hub()
        async with serving(hub) as server:
            asked: asyncio.Task[Any] = asyncio.create_task(hub.send_with_ack(users, "order", 1, timeout=3600))
            await eventually(lambda: waits(hub) and _stored(server, "user:bob"))
            await server.stop()
            with pytest.raises(HubbubError, match="stopped") as stopped:
                await asyncio.wait_for(asked, PATIENCE)

            assert not isinstance(stopped.value, TimeoutError | Unavailable)
        # It can be started again, and waits anew.
        async with serving(hub) as server, connect(server.address, "bob"):
            assert (await hub.send_with_ack("bob", "order", 1)).user == "bob"

    run(main())


def _stored(server: Server, channel: str) -> bool:
    assert isinstance(server._engine, MemoryEngine)
    return channel in server._engine._logs


@pytest.mark.memory
def test_only_so_many_are_waited_for() -> None:
    """Beyond 10,000 the call is refused before anything is sent."""

    async def main() -> None:
        hub = Hub()
        async with serving(hub) as server:
            crowd = [f"user{number}" for number in range(9_999)]
            asked = asyncio.create_task(hub.send_with_ack(crowd, "order", 1, timeout=3600))
            await eventually(lambda: waits(hub) == 9_999)
            with pytest.raises(Unavailable) as refused:
                await hub.send_with_ack(["bob", "carol"], "order", 1)

            assert refused.value.retry_after is not None
            assert not _stored(server, "user:bob")
            async with connect(server.address, "bob"):
                assert (await hub.send_with_ack("bob", "order", 1)).user == "bob"
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked

            assert waits(hub) == 0

    run(main())


@pytest.mark.local
def test_it_costs_nothing_before_it_is_used() -> None:
    """Receipts for clients go their own way, and the node listens to the server's inbox from the first call on."""

    async def main() -> None:
        hub = Hub()
        async with (
            serving(hub) as server,
            connect(server.address, "alice") as alice,
            connect(server.address, "bob"),
        ):
            await alice.say("hi", to="bob", id="a1", receipt=True)
            await alice.expect("receipt", id="a1", by="bob")

            engine: Any = server._engine

            assert "user:" not in engine._listening
            await hub.send_with_ack("bob", "order", 1)
            assert "user:" in engine._listening

    run(main())


def test_a_handler_may_wait_for_somebody_else() -> None:
    """What it does not catch is a failure of its own, and no hook that took too long."""

    async def main() -> None:
        hub = Hub()

        @hub.on("order")
        async def order(message: Message[str]) -> Message[str]:
            acknowledged = await hub.send_with_ack(message.content, "prepare", timeout=0.5)
            message.content = f"{acknowledged.user} is on it"
            return message

        async with (
            serving(hub) as server,
            connect(server.address, "alice") as alice,
            connect(server.address, "cook", full=True) as cook,
        ):
            await alice.send({"type": "order", "content": "cook"})
            await cook.send({"type": "ack", "seq": (await cook.expect("prepare"))["seq"]})

            assert (await alice.expect("order"))["content"] == "cook is on it"
            await alice.send({"type": "order", "content": "nobody", "id": "a1"})
            assert (await alice.expect("error", id="a1"))["code"] == "internal"

    run(main(), logs_errors=True)


def test_a_hub_that_does_not_run_says_so() -> None:
    async def main() -> None:
        with pytest.raises(HubbubError, match="not running"):
            await Hub().send_with_ack("bob", "order")

    run(main())


@pytest.mark.memory
def test_an_engine_that_does_not_answer_is_not_waited_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The timeout counts from the call, whatever takes the time; the error says that nothing is known."""

    async def hang(self: MemoryEngine, channel: str, *arguments: Any, **options: Any) -> Accepted:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    async def main() -> None:
        hub = Hub()
        async with serving(hub):
            monkeypatch.setattr(MemoryEngine, "publish", hang)
            with pytest.raises(AckTimeout) as late:
                await asyncio.wait_for(hub.send_with_ack("bob", "order", 1, timeout=0.05), PATIENCE)
            several = await asyncio.wait_for(hub.send_with_ack(["bob", "carol"], "order", 1, timeout=0.05), PATIENCE)

            assert late.value.seq is None
            assert several.missing == ("bob", "carol")

    run(main())


@pytest.mark.memory
def test_a_receipt_that_the_engine_refuses_comes_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is due once, and so it is kept until there is a place for it."""
    submit, refusals = MemoryEngine.submit, iter([True, True])

    def refuse_first(self: MemoryEngine, channel: str, *arguments: Any) -> None:
        if next(refusals, False):
            raise Unavailable
        submit(self, channel, *arguments)

    monkeypatch.setattr(MemoryEngine, "submit", refuse_first)

    async def main() -> None:
        hub = Hub()
        async with serving(hub) as server, connect(server.address, "bob"):
            acknowledged = await hub.send_with_ack("bob", "order", 1, timeout=PATIENCE)

            assert acknowledged.time is not None

    run(main())


@pytest.mark.memory
def test_a_receipt_whose_answer_was_lost_is_not_given_again() -> None:
    """It may have been given; and that the engine did not answer is no fault of the server's."""

    async def main() -> None:
        async with serving() as server:
            node = server.hub._running
            receipt = Publication("receipt", "bob", to="alice", id="o1")
            node._gave_receipt(receipt, Reject(ErrorCode.INTERNAL, "the engine did not answer"))
            lost = len(node._receipts_owed)
            node._gave_receipt(receipt, Unavailable())

            assert (lost, len(node._receipts_owed)) == (0, 1)

    run(main())
