"""Your code between a message and its channel: routes, changes, keeps, refuses; its faults stay its sender's."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import msgspec
import pydantic
import pytest

from hubbub import Hub, HubbubError, Message, Next, Reject, Session
from hubbub.engines.memory import MemoryEngine
from hubbub.errors import Unavailable
from support.client import FULL, connect
from support.loop import eventually, run
from support.server import serving

pytestmark = pytest.mark.every_engine


class Item(msgspec.Struct):
    name: str
    price: float


class Order(msgspec.Struct):
    table: int
    items: list[Item]


class Bid(pydantic.BaseModel):
    amounts: list[int]


def test_a_handler_routes_changes_and_keeps() -> None:
    """Returned unchanged it goes on; changed, changed; `None` keeps it, and the sender still has its ack."""

    async def main() -> None:
        hub = Hub()
        kept: list[tuple[str, object]] = []

        @hub.on("plain")
        async def plain(message: Message[Any]) -> Message[Any]:
            return message

        @hub.on("shout")
        async def shout(message: Message[str]) -> Message[str]:
            message.content = message.content.upper()
            return message

        @hub.on("redirect")
        async def redirect(message: Message[Any]) -> Message[Any]:
            message.to, message.room, message.type = "bob", None, "redirected"
            return message

        @hub.on("keep")
        async def keep(message: Message[Any]) -> None:
            kept.append((message.from_, message.content))

        async with (
            serving(hub) as server,
            connect(server.address, "alice") as alice,
            connect(server.address, "bob") as bob,
        ):
            for number, kind in enumerate(("plain", "shout", "redirect", "keep", "unhandled")):
                await alice.send({"type": kind, "content": "hi", "id": f"m{number}"})
            acks = [await alice.expect("ack", id=f"m{number}") for number in range(5)]
            heard = [(m["type"], m["content"], m.get("to"), m["seq"]) for m in await bob.sync()]

            # In order in each channel; between two of them nobody promises any.
            assert [one for one in heard if one[2] is None] == [
                ("plain", "hi", None, 1),
                ("shout", "HI", None, 2),
                ("unhandled", "hi", None, 3),
            ]
            assert [one for one in heard if one[2] is not None] == [("redirected", "hi", "bob", 1)]
            assert [ack.get("seq") for ack in acks] == [1, 2, 1, None, 3]
            assert kept == [("alice", "hi")]

    run(main())


def test_a_retry_is_not_given_to_the_handler_again() -> None:
    """What was published once is acknowledged again, and the application does not see it twice."""

    async def main() -> None:
        hub = Hub()
        calls: list[str | None] = []

        @hub.on("order")
        async def order(message: Message[Any]) -> Message[Any]:
            calls.append(message.id)
            return message

        async with serving(hub) as server, connect(server.address, "alice") as alice:
            for _ in range(3):
                await alice.send({"type": "order", "id": "o1"})
            first = await alice.expect("ack", id="o1")

            assert [await alice.expect("ack", id="o1") for _ in range(2)] == [{**first, "duplicate": True}] * 2
            assert calls == ["o1"] and len(alice.heard("order")) == 1

    run(main())


@pytest.mark.parametrize("outcome", ["kept", "to somebody else", "into a room", "by another id", "volatile"])
def test_what_the_application_made_of_a_message_is_known_to_its_retries(outcome: str) -> None:
    """protocol.md §5.3: it is called once, and each retry gets the first ack again, as a duplicate."""

    async def main() -> None:
        hub = Hub()
        calls: list[str | None] = []

        @hub.on("order")
        async def order(message: Message[Any]) -> Message[Any] | None:
            calls.append(message.id)
            match outcome:
                case "kept":
                    return None
                case "to somebody else":
                    message.to = "bob"
                case "into a room":
                    message.room = "kitchen"
                case "by another id":
                    message.id = "another"
                case "volatile":
                    message.volatile = True
            return message

        async with serving(hub) as server, connect(server.address, "alice") as alice:
            await alice.join("kitchen")
            acks = []
            for _ in range(3):
                await alice.send({"type": "order", "id": "o1"})
                acks.append(await alice.expect("ack", id="o1"))

            assert calls == ["o1"]
            assert acks[1:] == [{**acks[0], "duplicate": True}] * 2
            assert ("seq" in acks[0]) is (outcome not in ("kept", "volatile"))
            # Others have ids of their own.
            async with connect(server.address, "carol") as carol:
                await carol.join("kitchen")
                await carol.send({"type": "order", "id": "o1"})
                await carol.expect("ack", id="o1")

            assert len(calls) == 2

    run(main())


@pytest.mark.parametrize("outcome", ["refused", "failed", "kept for a moment", "volatile"])
def test_a_retry_is_tried_anew_where_nothing_is_remembered(outcome: str) -> None:
    """After an error, after the window, and of volatile messages, which know no duplicates (protocol.md §5.3, §5.5)."""

    async def main() -> None:
        hub = Hub()
        calls: list[str | None] = []

        @hub.on("order")
        async def order(message: Message[Any]) -> None:
            calls.append(message.id)
            if outcome == "refused" and len(calls) == 1:
                raise Reject("sold_out", "There is none left.")
            if outcome == "failed" and len(calls) == 1:
                raise RuntimeError

        window = 0.01 if outcome == "kept for a moment" else 300
        async with serving(hub, dedupe_window=window) as server, connect(server.address, "alice") as alice:
            sent = {"type": "order", "id": "o1", "volatile": outcome == "volatile"}
            await alice.send(sent)
            first = await alice.expect(id="o1", from_=None)
            ticks = hub.wheel.now
            await eventually(lambda: hub.wheel.now > ticks)
            await alice.send(sent)

            assert first["type"] == ("error" if outcome in ("refused", "failed") else "ack")
            assert await alice.expect("ack", id="o1") == {"type": "ack", "id": "o1"}
            assert len(calls) == 2

    run(main(), logs_errors=outcome == "failed")


def test_reject_refuses_with_its_code_and_text() -> None:
    """With `retry_after` and `where`, the message's id and room; nothing is stored and nobody else hears."""

    async def main() -> None:
        hub = Hub()

        @hub.on("order")
        async def order(message: Message[Any]) -> Message[Any]:
            raise Reject("sold_out", "There is none left.", retry_after=2.5, where="$.dish")

        async with (
            serving(hub) as server,
            connect(server.address, "alice") as alice,
            connect(server.address, "bob") as bob,
        ):
            await alice.join("kitchen")
            await bob.join("kitchen")
            await alice.send({"type": "order", "room": "kitchen", "id": "o1"})

            assert await alice.expect("error", id="o1") == {
                "type": "error",
                "code": "sold_out",
                "message": "There is none left.",
                "id": "o1",
                "room": "kitchen",
                "retry_after": 2.5,
                "where": "$.dish",
            }
            assert (await bob.ask("history", room="kitchen"))["messages"] == []
            assert bob.heard("order") == []

    run(main())


def test_an_exception_costs_its_sender_an_error_and_nobody_else_anything() -> None:
    """`internal`, without a word of the exception; the connection lives; the log has the traceback."""

    async def main() -> None:
        hub = Hub()

        @hub.on("explode")
        async def explode(message: Message[Any]) -> Message[Any]:
            raise RuntimeError("canary-of-the-exception")

        @hub.on("explode-in-a-thread")
        def explode_too(message: Message[Any]) -> Message[Any]:
            raise RuntimeError("canary-of-the-exception")

        @hub.on("nonsense")
        async def nonsense(message: Message[Any]) -> Message[Any]:
            message.content = object()
            return message

        async with (
            serving(hub) as server,
            connect(server.address, "alice") as alice,
            connect(server.address, "bob") as bob,
        ):
            for kind in ("explode", "explode-in-a-thread", "nonsense"):
                error = await alice.ask(kind, content="x")

                assert (error["type"], error["code"]) == ("error", "internal")
                assert "canary" not in str(error)
            await alice.say("still here")
            await bob.expect("chat", content="still here")

            assert [message["type"] for message in bob.seen] == ["chat"]
            assert server.hub.statistics().errors["internal"] == 3

    run(main(), logs_errors=True)


@pytest.mark.memory
def test_codes_without_end_are_counted_together() -> None:
    """An application may make up a new one for each message: its metrics do not grow with that."""

    async def main() -> None:
        hub = Hub()

        @hub.on("order")
        async def order(message: Message[int]) -> None:
            raise Reject(f"no_table_{message.content}" if message.content else "There is no such table. " * 3)

        async with serving(hub) as server, connect(server.address, "alice") as alice:
            for number in range(120):
                await alice.ask("order", content=number % 110)
            errors = server.hub.statistics().errors

            # The text, twice, and the last ten, of which each came once.
            assert (len(errors), errors["no_table_1"], errors["other"]) == (100, 2, 2 + 10)

    run(main())


def test_messages_of_a_session_stay_in_order_while_a_handler_waits() -> None:
    """What comes behind a waiting message of the same session waits; other sessions do not."""

    async def main() -> None:
        hub = Hub()
        gate = asyncio.Event()

        @hub.on("slow")
        async def slow(message: Message[Any]) -> Message[Any]:
            await gate.wait()
            return message

        async with (
            serving(hub, session_queue=8) as server,
            connect(server.address, "alice") as alice,
            connect(server.address, "bob") as bob,
        ):
            await alice.send({"type": "slow", "content": 0})
            # More than may wait: then the socket is not read.
            for number in range(1, 101):
                await alice.say(number)
            await alice.send({"type": "ping", "id": "p"})
            await bob.say("meanwhile")
            await bob.expect("chat", content="meanwhile")
            await alice.expect("chat", content="meanwhile")

            assert len(bob.seen) == 1
            gate.set()
            await alice.expect("pong", id="p")
            await bob.sync()

            assert [message["content"] for message in bob.seen if message["type"] != "pong"] == [
                "meanwhile",
                *range(101),
            ]

    run(main())


def test_a_session_that_ends_while_its_handler_waits() -> None:
    """The handler goes on to its end, and what waited behind it is forgotten."""

    async def main() -> None:
        hub = Hub()
        started, gate, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

        @hub.on("slow")
        async def slow(message: Message[Any]) -> None:
            started.set()
            await gate.wait()
            done.set()

        async with serving(hub) as server, connect(server.address, "bob") as bob:
            async with connect(server.address, "alice") as alice:
                await alice.send({"type": "slow", "id": "s"})
                # Not while it still waits behind the opening of the session: then it would be forgotten, too.
                await started.wait()
                await alice.say("behind it")
                await eventually(lambda: server.hub.statistics().messages_in == 2)
                alice.cut()
                await eventually(lambda: not server.hub.local_sessions("alice"))
            gate.set()
            await done.wait()

            assert await bob.sync() == []

    run(main())


def test_blocking_handlers_run_in_threads_and_their_queue_is_bounded() -> None:
    """So many run, so many wait, the next gets `unavailable` with a time to come again; the loop never stops."""

    async def main() -> None:
        hub = Hub()
        gate = threading.Event()
        ran: list[int] = []

        @hub.on("block")
        def block(message: Message[Any]) -> Message[Any]:
            gate.wait(20)
            ran.append(threading.get_ident())
            return message

        async with (
            serving(hub, handler_threads=2, handler_queue=1) as server,
            connect(server.address, "a") as a,
            connect(server.address, "b") as b,
            connect(server.address, "c") as c,
            connect(server.address, "d") as d,
        ):
            try:
                for client in (a, b, c):
                    await client.send({"type": "block", "id": client.user})
                threads = hub._hooks.pipeline.threads
                assert threads is not None
                await eventually(lambda: threads._taken == 3)
                error = await d.ask("block")

                assert (error["type"], error["code"]) == ("error", "unavailable")
                assert error["retry_after"] > 0
                # The loop is free.
                await d.sync()
            finally:
                gate.set()
            for client in (a, b, c):
                await client.expect("ack", id=client.user)
            assert len(ran) == 3 and threading.get_ident() not in ran
            # There is room again.
            await d.send({"type": "block", "id": "again"})
            await d.expect("ack", id="again")

    run(main())


def test_a_handler_that_takes_too_long_is_given_up() -> None:
    """`unavailable`, and the session goes on; a thread that is stuck still counts as taken."""

    async def main() -> None:
        hub = Hub()
        never = asyncio.Event()
        gate = threading.Event()

        @hub.on("slow")
        async def slow(message: Message[Any]) -> None:
            await never.wait()

        @hub.on("stuck")
        def stuck(message: Message[Any]) -> None:
            gate.wait(20)

        async with (
            serving(hub, hook_timeout=0.2, handler_threads=1, handler_queue=0) as server,
            connect(server.address, "alice") as alice,
        ):
            try:
                for kind in ("slow", "stuck"):
                    error = await alice.ask(kind)

                    assert (error["type"], error["code"]) == ("error", "unavailable")
                error = await alice.ask("stuck")
                assert "queue" in error["message"]
            finally:
                gate.set()
            await alice.sync()

    run(main(), logs_errors=True)


def test_typed_content_that_is_wrong_says_where() -> None:
    """`invalid_content` with the path to the first wrong place; the handler never sees it (protocol.md 6.1)."""

    async def main() -> None:
        hub = Hub()
        orders: list[Order] = []
        bids: list[Bid] = []

        @hub.on("order")
        async def order(message: Message[Order]) -> Message[Order]:
            orders.append(message.content)
            return message

        @hub.on("bid")
        async def bid(message: Message[Bid]) -> Message[Bid]:
            bids.append(message.content)
            return message

        good: dict[str, Any] = {"table": 4, "items": [{"name": "soup", "price": 4.5}]}
        async with serving(hub) as server, connect(server.address, "alice") as alice:
            await alice.send({"type": "order", "content": good})
            await alice.send({"type": "bid", "content": {"amounts": [1, 2]}})

            assert (await alice.expect("order"))["content"] == good
            assert (await alice.expect("bid"))["content"] == {"amounts": [1, 2]}
            assert orders == [Order(4, [Item("soup", 4.5)])] and bids == [Bid(amounts=[1, 2])]
            wrong: list[tuple[str, object, str]] = [
                ("order", {**good, "items": [{"name": "soup", "price": "free"}]}, "$.items[0].price"),
                ("order", {**good, "table": None}, "$.table"),
                ("order", {"table": 1}, "$"),
                ("order", [], "$"),
                ("bid", {"amounts": [1, "canary"]}, "$.amounts[1]"),
                ("bid", {}, "$.amounts"),
                ("bid", "canary", "$"),
            ]
            for kind, content, where in wrong:
                error = await alice.ask(kind, content=content)

                assert (error["type"], error["code"], error["where"]) == ("error", "invalid_content", where)
                assert error["message"] and "canary" not in error["message"]
            # No content at all is not an order either.
            assert (await alice.ask("order"))["code"] == "invalid_content"
            assert len(orders) == len(bids) == 1

    run(main())


def test_middleware_goes_around_all_handlers_in_order() -> None:
    """The first registered is outermost; it may change, refuse or keep, and sees types without a handler."""

    async def main() -> None:
        hub = Hub()
        trace: list[str] = []

        @hub.middleware
        async def outer(message: Message[Any], next: Next) -> Message[Any] | None:
            trace.append("outer in")
            result = await next(message)
            trace.append("outer out")
            return result

        @hub.middleware
        async def inner(message: Message[Any], next: Next) -> Message[Any] | None:
            if message.content == "banned":
                raise Reject("forbidden", "Not that word.")
            if message.content == "kept":
                return None
            trace.append("inner in")
            result = await next(message)
            trace.append("inner out")
            return result

        @hub.on("chat")
        async def chat(message: Message[Any]) -> Message[Any]:
            trace.append("handler")
            return message

        async with serving(hub) as server, connect(server.address, "alice") as alice:
            await alice.say("hi")
            await alice.expect("chat", content="hi")

            assert trace == ["outer in", "inner in", "handler", "inner out", "outer out"]
            assert (await alice.ask("chat", content="banned"))["code"] == "forbidden"
            assert "seq" not in await alice.ask("chat", content="kept")
            assert (await alice.ask("other", content="banned"))["code"] == "forbidden"
            await alice.send({"type": "other", "content": "fine"})
            await alice.expect("other", seq=2)

    run(main())


def test_strict_types_refuses_what_no_handler_takes() -> None:
    async def main() -> None:
        hub = Hub()

        @hub.on("chat")
        async def chat(message: Message[Any]) -> Message[Any]:
            return message

        async with serving(hub, strict_types=True) as server, connect(server.address, "alice") as alice:
            await alice.say("hi", id="known")
            await alice.expect("ack", id="known")

            assert (await alice.ask("whatever"))["code"] == "unknown_type"
            # The protocol's own types are no application's.
            await alice.join("lobby")

    run(main())


def test_hooks_tell_of_every_session_and_room_once() -> None:
    """Connect before open, disconnect after the end, join before, leave after; for a cut as for a goodbye."""

    async def main() -> None:
        hub = Hub()
        trace: list[str] = []

        @hub.on_connect
        async def connected(session: Session) -> None:
            trace.append(f"+{session.user}")

        @hub.on_disconnect
        async def disconnected(session: Session) -> None:
            trace.append(f"-{session.user}")

        @hub.on_join
        def joined(session: Session, room: str) -> None:
            trace.append(f"{session.user}>{room}")

        @hub.on_leave
        async def left(session: Session, room: str) -> None:
            trace.append(f"{session.user}<{room}")

        async with serving(hub) as server:
            async with connect(server.address, "alice") as alice:
                await alice.join("a")
                await alice.join("a")
                await alice.ask("leave", room="a")
                await alice.ask("leave", room="a")
                await alice.join("b")
                alice.cut()
                await eventually(lambda: "-alice" in trace)
            resume = {"rooms": {"c": None}}
            async with connect(server.address, "bob", full=True, hello={"resume": resume}) as bob:
                await bob.leave()
                await eventually(lambda: "-bob" in trace)

        assert trace[:6] == ["+alice", "alice>a", "alice<a", "alice>b", "alice<b", "-alice"]
        assert trace[6:] == ["+bob", "bob>c", "bob<c", "-bob"]

    run(main())


def test_on_connect_may_refuse() -> None:
    """Plain and full: an error with its code, then 4503; nobody is told that it was there."""

    async def main() -> None:
        hub = Hub()
        ended: list[str] = []

        @hub.on_connect
        async def connected(session: Session) -> None:
            if session.user == "mallory":
                raise Reject("forbidden", "Not you.")

        @hub.on_disconnect
        async def disconnected(session: Session) -> None:
            ended.append(session.user)

        async with serving(hub) as server:
            async with (
                connect(server.address, "mallory") as plain,
                connect(server.address, "mallory", subprotocols=[FULL]) as full,
                connect(server.address, "alice") as alice,
            ):
                await full.send({"type": "hello"})
                for session in (plain, full):
                    await session.expect("error", code="forbidden", message="Not you.")

                    assert (await session.closed())[0] == 4503
                assert [m["type"] for m in full.seen] == ["error"]
                assert (await alice.ask("users", ids=["mallory"]))["users"]["mallory"]["online"] is False
                assert server.hub.statistics().connections == 1
            await eventually(lambda: ended)

            assert ended == ["alice"]

    run(main())


def test_messages_sent_while_on_connect_waits_are_handled_afterwards() -> None:
    """In their order, and not before the hook has let the session in."""

    async def main() -> None:
        hub = Hub()
        gate = asyncio.Event()

        @hub.on_connect
        async def connected(session: Session) -> None:
            await gate.wait()

        async with serving(hub) as server, connect(server.address, "alice") as alice:
            for number in range(3):
                await alice.say(number)
            await eventually(lambda: server.hub.statistics().messages_in == 3)

            assert alice.seen == [] and server.hub.local_sessions() == []
            gate.set()
            await alice.sync()

            assert [message["content"] for message in alice.heard("chat")] == [0, 1, 2]

    run(main())


def test_on_join_may_refuse() -> None:
    """The session is not in the room, whoever is in it hears nothing, and another room is fine."""

    async def main() -> None:
        hub = Hub()

        @hub.on_join
        async def joined(session: Session, room: str) -> None:
            if room == "staff" and session.user != "boss":
                raise Reject("forbidden", "Staff only.")

        async with (
            serving(hub) as server,
            connect(server.address, "boss") as boss,
            connect(server.address, "alice") as alice,
        ):
            await boss.join("staff")
            error = await alice.ask("join", room="staff")

            assert (error["code"], error["message"], error["room"]) == ("forbidden", "Staff only.", "staff")
            assert (await alice.ask("chat", room="staff", content="hi"))["code"] == "not_joined"
            await alice.join("lobby")

            assert await boss.sync() == []
            assert [member.user for member in await server.hub.members("staff")] == ["boss"]

    run(main())


def test_hooks_that_fail_or_hang_cost_one_session() -> None:
    """`on_connect`: 1011 and 1013; `on_join`: an error; `on_leave` and `on_disconnect`: only the log."""

    async def main() -> None:
        hub = Hub()
        never = asyncio.Event()

        @hub.on_connect
        async def connected(session: Session) -> None:
            if session.user == "failing":
                raise RuntimeError("canary")
            if session.user == "hanging":
                await never.wait()

        @hub.on_join
        async def joined(session: Session, room: str) -> None:
            if room == "failing":
                raise RuntimeError("canary")
            if room == "hanging":
                await never.wait()

        @hub.on_leave
        async def left(session: Session, room: str) -> None:
            raise RuntimeError("canary")

        @hub.on_disconnect
        async def disconnected(session: Session) -> None:
            raise RuntimeError("canary")

        async with serving(hub, hook_timeout=0.2) as server:
            async with (
                connect(server.address, "failing") as failing,
                connect(server.address, "hanging") as hanging,
                connect(server.address, "alice") as alice,
            ):
                assert (await failing.expect("error"))["code"] == "internal"
                assert (await failing.closed())[0] == 1011
                assert (await hanging.expect("error"))["code"] == "unavailable"
                assert (await hanging.closed())[0] == 1013
                assert (await alice.ask("join", room="failing"))["code"] == "internal"
                assert (await alice.ask("join", room="hanging"))["code"] == "unavailable"
                assert await server.hub.members("failing") == await server.hub.members("hanging") == []
                await alice.join("lobby")
                await alice.ask("leave", room="lobby")
                await alice.sync()

                assert "canary" not in str(alice.seen + failing.seen)
                assert await server.hub.members("lobby") == []
            await eventually(lambda: server.hub.statistics().connections == 0)

    run(main(), logs_errors=True)


def test_wrong_registrations_are_told_at_once() -> None:
    """A reserved type, a second handler, a second authenticate hook, middleware that cannot wait."""
    hub = Hub()

    @hub.on("chat")
    async def chat(message: Message[Any]) -> Message[Any]:
        return message

    @hub.authenticate
    def who(credentials: object) -> str:
        return "alice"

    for kind in ("join", "welcome", "ping", "chunk", "chat"):
        with pytest.raises(HubbubError):
            hub.on(kind)(chat)
    with pytest.raises(HubbubError):
        hub.authenticate(who)

    def blocking(message: Message[Any], next: Next) -> None:
        pass

    with pytest.raises(HubbubError):
        hub.middleware(blocking)  # type: ignore[arg-type]


def test_strict_types_are_refused_before_middleware() -> None:
    """Middleware is for messages that the application takes; it does not make a type known."""

    async def main() -> None:
        hub = Hub()
        seen: list[str] = []

        @hub.middleware
        async def everything(message: Message[Any], next: Next) -> Message[Any] | None:
            seen.append(message.type)
            return await next(message)

        @hub.on("chat")
        async def chat(message: Message[Any]) -> Message[Any]:
            return message

        async with serving(hub, strict_types=True) as server, connect(server.address, "alice") as alice:
            assert (await alice.ask("whatever")).get("code") == "unknown_type"
            assert (await alice.ask("chat"))["seq"] == 1
            assert seen == ["chat"]

    run(main())


def test_the_ack_has_the_id_that_was_sent() -> None:
    """Whatever a handler makes of the message: the sender waits for the id that it gave."""

    async def main() -> None:
        hub = Hub()

        @hub.on("renamed")
        async def renamed(message: Message[Any]) -> Message[Any]:
            message.id = "another"
            return message

        @hub.on("nameless")
        async def nameless(message: Message[Any]) -> Message[Any]:
            message.id = None
            return message

        async with serving(hub) as server, connect(server.address, "alice") as alice:
            for seq, kind in enumerate(("renamed", "nameless"), 1):
                await alice.send({"type": kind, "id": f"my {kind}"})

                assert (await alice.expect("ack"))["id"] == f"my {kind}"
                await alice.expect(kind, seq=seq)
            # Who asked for no ack gets none.
            await alice.send({"type": "renamed", "content": "again"})
            await alice.sync()
            assert alice.heard("ack", id="another") == []

    run(main())


MADE: dict[str, dict[str, Any]] = {
    "the server's type": {"type": "welcome"},
    "a client's type": {"type": "join"},
    "no type": {"type": ""},
    "a long type": {"type": "x" * 65},
    "a type of another kind": {"type": 7},
    "both targets": {"to": "bob", "room": "lobby"},
    "a long name": {"to": "x" * 129},
    "no name": {"to": ""},
    "a control character": {"to": "a\n"},
    "no Unicode": {"to": "\ud800"},
    "a long id": {"id": "x" * 65},
    "a receipt for everyone": {"receipt": True},
}


@pytest.mark.parametrize("made", MADE)
def test_what_a_handler_makes_is_checked_like_what_a_client_sends(made: str, caplog: pytest.LogCaptureFixture) -> None:
    """`internal` to the sender, one line in the log with the type of the handler, and nothing is published."""

    async def main() -> None:
        hub = Hub()

        @hub.on("make")
        async def make(message: Message[Any]) -> Message[Any]:
            for field, value in MADE[made].items():
                setattr(message, field, value)
            return message

        async with serving(hub) as server, connect(server.address, "alice") as alice:
            await alice.join("lobby")
            answer = await alice.ask("make", content="no base64!")

            assert (answer["type"], answer.get("code")) == ("error", "internal")
            [record] = [record for record in caplog.records if record.levelname == "ERROR"]
            assert "make" in record.getMessage() and record.exc_info is None
            assert (await alice.ask("history", room="lobby"))["messages"] == []
            await alice.sync()
            assert (await alice.ask("chat"))["seq"] == 1

    run(main(), logs_errors=True)


def test_a_handler_that_returns_no_message_has_failed() -> None:
    async def main() -> None:
        hub = Hub()

        @hub.on("make")
        async def make(message: Message[Any]) -> Any:
            return {"type": "make"}

        async with serving(hub) as server, connect(server.address, "alice") as alice:
            assert (await alice.ask("make"))["code"] == "internal"

    run(main(), logs_errors=True)


def test_binary_stays_with_the_content_that_it_is_about() -> None:
    """Content that was only read is passed on as binary; what was put in its place is not."""

    async def main() -> None:
        hub = Hub()

        @hub.on("read")
        async def read(message: Message[bytes]) -> Message[bytes]:
            assert message.content == b"AB"
            return message

        @hub.on("replace")
        async def replace(message: Message[Any]) -> Message[Any]:
            message.content = {"length": len(message.content)}
            return message

        @hub.on("turn")
        async def turn(message: Message[Any]) -> Message[Any]:
            message.content = message.content[::-1]
            return message

        async with serving(hub) as server, connect(server.address, "alice") as alice:
            for kind in ("read", "replace", "turn"):
                await alice.send({"type": kind, "content": "QUI=", "binary": True})

            assert (await alice.expect("read", content="QUI="))["binary"] is True
            assert "binary" not in await alice.expect("replace", content={"length": 2})
            assert (await alice.expect("turn", content="QkE="))["binary"] is True

    run(main())


def test_content_that_nothing_can_hold_is_its_senders_error() -> None:
    """`invalid_content` and no traceback, when a handler wants a type that cannot; else it is passed on as it is."""

    async def main() -> None:
        hub = Hub()

        @hub.on("read")
        async def read(message: Message[float]) -> Message[float]:
            return message

        @hub.on("pass")
        async def passes(message: Message[Any]) -> Message[Any]:
            return message

        async with serving(hub) as server, connect(server.address, "alice") as alice:
            await alice.send_text('{"type":"read","content":1e999,"id":"r"}')
            error = await alice.expect("error", id="r")

            assert (error["code"], error["where"]) == ("invalid_content", "$")
            await alice.send_text('{"type":"pass","content":1e999,"id":"p"}')
            await alice.expect("ack", id="p")
            await alice.expect("pass")
            assert '"content":1e999' in alice.texts[-1] + alice.texts[-2]

    run(main())


@pytest.mark.parametrize("outcome", ["published", "in a room", "redirected", "kept", "refused", "failed"])
def test_a_retry_shares_the_outcome_of_the_first_that_is_still_handled(outcome: str) -> None:
    """A client that was cut off sends again what its handler has not finished: it is called once, and both answered."""

    async def main() -> None:
        hub = Hub()
        gate = asyncio.Event()
        calls: list[str | None] = []

        @hub.on("order")
        async def order(message: Message[Any]) -> Message[Any] | None:
            calls.append(message.id)
            await gate.wait()
            if outcome == "refused":
                raise Reject("sold_out", "There is none left.")
            if outcome == "failed":
                raise RuntimeError
            if outcome == "redirected":
                message.to = "bob"
            return None if outcome == "kept" else message

        async with serving(hub) as server, connect(server.address, "bob") as bob:
            sent = {"type": "order", "id": "o1", **({"room": "lobby"} if outcome == "in a room" else {})}
            await bob.join("lobby")
            async with connect(server.address, "alice") as first:
                await first.join("lobby")
                await first.send(sent)
                await eventually(lambda: calls)
            await eventually(lambda: not server.hub.local_sessions("alice"))
            async with connect(server.address, "alice") as again, connect(server.address, "alice") as third:
                for session in (again, third):
                    await session.join("lobby")
                    await session.send(sent)
                seen = server.hub.statistics().messages_in
                # What else is sent waits behind it, so that the order stays.
                await again.say("behind it", id="b")
                await eventually(lambda: server.hub.statistics().messages_in > seen)
                gate.set()
                answers = [await session.expect(id="o1", from_=None) for session in (again, third)]
                await again.expect("ack", id="b")

                assert calls == ["o1"]
                for answer in answers:
                    if outcome in ("refused", "failed"):
                        assert answer["code"] == {"refused": "sold_out", "failed": "internal"}[outcome]
                    else:
                        assert (answer["type"], answer["duplicate"]) == ("ack", True)
                        assert ("seq" in answer) is (outcome != "kept")
                published = [m for m in await bob.sync() if m["type"] == "order"]
                assert len(published) == (outcome in ("published", "in a room", "redirected"))

    run(main(), logs_errors=outcome == "failed")


@pytest.mark.memory
def test_what_an_overloaded_engine_refuses_is_answered_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many messages wait behind one that is handled: each gets its error, the first first."""
    count = 1_000
    monkeypatch.setattr(MemoryEngine, "publish_now", lambda *_: None)

    def refuse(*_: Any) -> None:
        raise Unavailable

    monkeypatch.setattr(MemoryEngine, "submit", refuse)

    async def main() -> None:
        hub, free = Hub(), asyncio.Event()

        @hub.on("slow")
        async def slow(message: Message[Any]) -> None:
            await free.wait()

        async with serving(hub, session_queue=2 * count) as server, connect(server.address, "alice") as alice:
            await alice.say(0, type="slow")
            for number in range(count):
                await alice.say(number, id=f"m{number}")
            (session,) = server.hub.local_sessions("alice")
            await eventually(lambda: len(session._queue or ()) == count)
            free.set()
            await alice.expect("error", id=f"m{count - 1}")

            assert [error["id"] for error in alice.heard("error")] == [f"m{number}" for number in range(count)]
            assert {error["code"] for error in alice.heard("error")} == {"unavailable"}

    run(main())
