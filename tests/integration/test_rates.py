"""How fast sessions may send and clients may come, with the real defaults and real sockets."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import AsyncExitStack
from typing import Any

import pytest

from hubbub import Hub, Message
from hubbub.client import connect as real_client
from hubbub.hub.hooks import Credentials
from support.client import FULL, Client, connect, open_client
from support.loop import PATIENCE, eventually, run
from support.refusals import behind, refused
from support.server import Answer, get, serving

DEFAULT = "10/s burst 10"


async def burst(client: Client, count: int, first: int = 0, **fields: Any) -> None:
    """Say so many things at once, with ids m0 and so on."""
    for number in range(first, first + count):
        await client.say(number, id=f"m{number}", **fields)


def answers(client: Client, type: str) -> list[str]:
    """The ids that were answered by `ack` or `error`, in order."""
    return [message["id"] for message in client.heard(type) if "id" in message]


def contents(client: Client) -> list[Any]:
    return [message["content"] for message in client.heard("chat")]


# ------------------------------------------------------------------------------------------------ one session


@pytest.mark.parametrize("full", [False, True], ids=["plain", "full"])
def test_ten_at_once_and_the_rest_is_refused_each_with_its_own_error(full: bool) -> None:
    """Each id is answered exactly once, in order; `retry_after` is the second until there are ten again."""

    async def main() -> None:
        async with (
            serving(rate_limit=DEFAULT) as server,
            connect(server.address, "alice", full=full) as alice,
            connect(server.address, "bob", full=full) as bob,
        ):
            await burst(alice, 30)
            await alice.expect("error", id="m29")

            assert answers(alice, "ack") == [f"m{number}" for number in range(10)]
            assert answers(alice, "error") == [f"m{number}" for number in range(10, 30)]
            assert {error["code"] for error in alice.heard("error")} == {"rate_limited"}
            assert 0.5 < alice.heard("error")[0]["retry_after"] <= 1.02
            # Another session is another matter, and everybody heard what was let through.
            await bob.say("hi", id="b")
            await bob.expect("ack", id="b")
            assert contents(bob)[:10] == list(range(10))
            assert server.hub.statistics().errors["rate_limited"] == 20

    run(main())


def test_whoever_waits_as_told_is_let_through() -> None:
    """The refused message and nine more; the error names the room, and nothing of it was stored."""

    async def main() -> None:
        async with serving(rate_limit=DEFAULT) as server, connect(server.address, "alice") as alice:
            await alice.join("lobby")
            await burst(alice, 10, room="lobby")
            error = await alice.expect("error", id="m9")
            assert error["room"] == "lobby"

            await asyncio.sleep(error["retry_after"])
            await burst(alice, 10, first=9, room="lobby")
            ack = await alice.expect("ack", id="m18")

            assert ack["seq"] == 19
            assert len(alice.heard("error")) == 1

    run(main())


def test_what_is_sent_behind_a_refused_message_does_not_overtake_it() -> None:
    """There would be a token after a tenth of a second; but until the refusal is over there is none."""

    async def main() -> None:
        async with serving(rate_limit=DEFAULT) as server, connect(server.address, "alice") as alice:
            await burst(alice, 11)
            first = await alice.expect("error", id="m10")
            await asyncio.sleep(0.3)
            await alice.say("later", id="later")
            second = await alice.expect("error", id="later")

            assert second["retry_after"] < first["retry_after"] - 0.2
            await asyncio.sleep(second["retry_after"])
            await alice.say("again", id="again")
            await alice.expect("ack", id="again")

    run(main())


def test_over_time_it_is_the_rate() -> None:
    """However often one tries: never more than ten and ten a second."""

    async def main() -> None:
        async with serving(rate_limit=DEFAULT) as server, connect(server.address, "alice") as alice:
            start, number = time.monotonic(), 0
            while time.monotonic() - start < 2.5:
                await burst(alice, 1, first=number)
                number += 1
                await asyncio.sleep(0.01)
            await asyncio.wait_for(
                eventually(lambda: len(answers(alice, "ack") + answers(alice, "error")) == number), 5
            )
            took = time.monotonic() - start

            assert 20 <= len(answers(alice, "ack")) <= 10 + 10 * took

    run(main())


def test_requests_count_as_messages_do() -> None:
    async def main() -> None:
        async with serving(rate_limit=DEFAULT) as server, connect(server.address, "alice") as alice:
            for number in range(12):
                await alice.send({"type": "join", "room": f"r{number}", "id": f"j{number}"})
            await alice.expect("error", id="j11", room="r11", code="rate_limited")

            assert answers(alice, "joined") == [f"j{number}" for number in range(10)]

    run(main())


def test_a_type_may_have_its_own_rate() -> None:
    """And then uses up nothing of the others': a request like a message."""

    async def main() -> None:
        limits: dict[str, Any] = {"rate_limit": DEFAULT, "rate_limits": {"typing": "2/s", "history": "1/m"}}
        async with serving(**limits) as server, connect(server.address, "alice") as alice:
            for number in range(4):
                await alice.send({"type": "typing", "id": f"t{number}"})
            await alice.expect("error", id="t3", code="rate_limited")
            await alice.ask("history")
            error = await alice.ask("history")
            await burst(alice, 10)
            await alice.expect("ack", id="m9")

            assert answers(alice, "ack")[:2] == ["t0", "t1"]
            assert (error["code"], 50 < error["retry_after"] <= 60.1) == ("rate_limited", True)

    run(main())


def test_the_sessions_of_a_user_may_share_a_rate() -> None:
    async def main() -> None:
        async with (
            serving(rate_limit=DEFAULT, rate_limit_user="15/m") as server,
            connect(server.address, "alice") as here,
            connect(server.address, "alice", full=True) as there,
            connect(server.address, "bob") as bob,
        ):
            await burst(here, 10)
            await here.expect("ack", id="m9")
            await burst(there, 10, first=100)
            await there.expect("error", id="m109")
            await burst(bob, 10)
            await bob.expect("ack", id="m9")

            assert len(answers(there, "ack")) == 5
            assert server.hub.statistics().meters == {"user": 2, "ip": 0, "handshake_ip": 1}
            assert b'hubbub_meters{kind="user"} 2.0' in (await get(server.address, "/metrics")).body

    run(main())


def test_the_sessions_from_an_address_may_share_a_rate() -> None:
    async def main() -> None:
        async with (
            serving(rate_limit=DEFAULT, rate_limit_ip="15/m") as server,
            connect(server.address, "alice") as alice,
            connect(server.address, "bob") as bob,
        ):
            await burst(alice, 10)
            await alice.expect("ack", id="m9")
            await burst(bob, 10)
            await bob.expect("error", id="m9")

            assert len(answers(bob, "ack")) == 5

    run(main())


def test_bad_messages_cost_as_much_as_others() -> None:
    async def main() -> None:
        async with serving(rate_limit=DEFAULT) as server, connect(server.address, "alice") as alice:
            for _ in range(8):
                await alice.send_text("not JSON")
            await burst(alice, 3)
            await alice.expect("error", id="m2", code="rate_limited")

            assert len(answers(alice, "ack")) == 2

    run(main())


def test_a_server_that_takes_its_time_does_not_make_a_burst_of_what_waited() -> None:
    """What counts is when a message came: forty slow ones that had to wait for a handler are forty slow ones."""

    async def main() -> None:
        hub, go_on = Hub(), asyncio.Event()

        @hub.on("slow")
        async def slow(message: Message[Any]) -> Message[Any]:
            await go_on.wait()
            return message

        async with serving(hub, rate_limit="100/s burst 5") as server, connect(server.address, "alice") as alice:
            await alice.send({"type": "slow", "id": "first"})
            for number in range(40):
                await burst(alice, 1, first=number)
                await asyncio.sleep(0.02)
            go_on.set()
            await alice.expect("ack", id="m39")

            assert alice.heard("error") == []

    run(main())


# ---------------------------------------------------------------------------------------------------- leaky


def test_what_is_too_fast_for_a_leaky_bucket_waits_its_turn() -> None:
    """Order is kept and nothing is lost; and what the queue has no place for is refused."""

    async def main() -> None:
        async with (
            serving(rate_limit="20/s leaky burst 19") as server,
            connect(server.address, "alice") as alice,
            connect(server.address, "bob") as bob,
        ):
            start = time.monotonic()
            await burst(alice, 25)
            await bob.say("meanwhile", id="b")
            await bob.expect("ack", id="b")
            assert time.monotonic() - start < 0.5

            await alice.expect("error", id="m24")
            assert 0.9 < time.monotonic() - start < 3
            assert answers(alice, "ack") == [f"m{number}" for number in range(20)]
            assert answers(alice, "error") == [f"m{number}" for number in range(20, 25)]
            assert [content for content in contents(bob) if content != "meanwhile"] == list(range(20))

    run(main())


def test_more_than_a_session_may_queue_waits_in_the_socket() -> None:
    """The queue of a leaky bucket may be longer than that of a session: then reading pauses, and nothing is lost."""

    async def main() -> None:
        limits: dict[str, Any] = {"rate_limit": "200/s leaky burst 1000", "session_queue": 4}
        async with serving(**limits) as server, connect(server.address, "alice") as alice:
            await burst(alice, 100)
            await alice.expect("ack", id="m99")

            assert contents(alice) == list(range(100))

    run(main())


@pytest.mark.parametrize("how", ["leaves", "is cut", "is sent away", "is drained"])
def test_a_session_that_ends_leaves_no_message_waiting(how: str) -> None:
    """Its timer ends with it; and a drain does not wait for the whole queue."""

    async def main() -> None:
        async with serving(rate_limit="1/s leaky burst 100") as server, connect(server.address, "bob") as bob:
            alice = await open_client(server.address, "alice")
            await burst(alice, 20)
            await alice.expect("ack", id="m0")
            (session,) = server.hub.local_sessions("alice")
            delay = session._delay
            assert delay is not None
            if how == "leaves":
                await alice.leave()
            elif how == "is cut":
                alice.cut()
            elif how == "is sent away":
                await server.hub.disconnect("alice")
            else:
                await server.hub.drain(0.5)
            await eventually(lambda: not server.hub.local_sessions("alice"))

            assert delay.cancelled()
            assert len(bob.heard("chat")) <= 1
            await alice.closed()

    run(main())


# ------------------------------------------------------------------------------------------------ offenders


@pytest.mark.parametrize("full", [False, True], ids=["plain", "full"])
def test_who_goes_on_in_spite_of_refusals_is_closed_with_4500(full: bool) -> None:
    """After ten that were let through, one that was refused, and twenty strikes."""

    async def main() -> None:
        limits: dict[str, Any] = {"rate_limit": DEFAULT, "rate_limit_strikes": 20}
        async with (
            serving(**limits) as server,
            connect(server.address, "alice", full=full) as alice,
            connect(server.address, "bob", full=full) as bob,
        ):
            await burst(alice, 60)

            assert await alice.closed() == (4500, "too many messages in spite of rate_limited")
            assert answers(alice, "ack") == [f"m{number}" for number in range(10)]
            assert len(answers(alice, "error")) == 22
            assert len(alice.heard("goodbye", code=4500)) == full
            assert await bob.sync() != []

    run(main())


def test_an_offline_queue_that_goes_out_at_once_does_not_end_the_session() -> None:
    """A hundred messages of a client that knows nothing of limits."""

    async def main() -> None:
        async with serving(rate_limit=DEFAULT) as server, connect(server.address, "alice") as alice:
            await burst(alice, 100)
            await alice.expect("error", id="m99")
            await alice.sync()

            assert len(answers(alice, "ack")) >= 10

    run(main())


@pytest.mark.parametrize("type", ["pong", "ping", "ack"])
def test_a_flood_of_signs_of_life_ends(type: str) -> None:
    """10^5 of them (hazards: unsolicited pongs): closed by rate, without a task, and others do not notice."""

    async def main() -> None:
        async with (
            serving(rate_limit=DEFAULT) as server,
            connect(server.address, "alice", full=True) as alice,
            connect(server.address, "bob") as bob,
        ):
            node = server.hub._running
            text = json.dumps({"type": type, **({"seq": 1} if type == "ack" else {})})
            await bob.say("for the inbox", to="alice")
            await alice.expect("chat")

            async def flood() -> None:
                for _ in range(100_000):
                    await alice.send_text(text)

            flooding = asyncio.ensure_future(flood())
            assert (await alice.closed())[0] == 4500
            await asyncio.gather(flooding, return_exceptions=True)

            assert node.tasks == set()
            assert node.messages_in < 10_000
            assert len(alice.heard("error", code="rate_limited")) == 602
            await bob.sync()

    run(main())


def test_pongs_before_hello_end_it_at_once() -> None:
    async def main() -> None:
        async with serving(rate_limit=DEFAULT) as server, connect(server.address, None, subprotocols=[FULL]) as rude:
            await rude.send({"type": "pong"})

            assert (await rude.closed())[0] == 4500

    run(main())


def test_who_acknowledges_each_message_is_not_held_up() -> None:
    """A whole inbox, one `ack` for each, and then as many messages as ever."""

    async def main() -> None:
        async with serving(rate_limit=DEFAULT) as server:
            for number in range(1000):
                await server.hub.send_to("alice", "chat", number)
            async with connect(server.address, "alice", full=True) as alice:
                for _ in range(1000):
                    message = await alice.expect("chat")
                    await alice.send({"type": "ack", "seq": message["seq"]})
                await burst(alice, 10)
                await alice.expect("ack", id="m9")

                assert alice.heard("error") == []

    run(main())


# ----------------------------------------------------------------------------------------------- handshakes


@pytest.mark.parametrize("name", ["handshake_rate_ip", "handshake_rate"])
def test_handshakes_are_counted_before_anything_is_done_for_them(name: str) -> None:
    """The fourth is refused with 429, and no hook is asked about it; who comes when told gets in."""

    async def main() -> None:
        hub, asked = Hub(), []

        @hub.authenticate
        async def authenticate(credentials: Credentials) -> str | None:
            asked.append(credentials)
            return credentials.token

        limits: dict[str, Any] = {"rate_limit": DEFAULT, name: "2/s burst 3"}
        async with serving(hub, dev=False, **limits) as server:
            tried = [await refused(server.address, "x", query="token=alice") for _ in range(5)]

            assert tried == [None] * 3 + [(429, 1)] * 2
            assert len(asked) == 3
            assert server.hub.statistics().errors["rate_limited"] == 2
            await asyncio.sleep(1)
            assert await refused(server.address, "x", query="token=alice") is None

    run(main())


def test_requests_for_tickets_are_counted_with_handshakes() -> None:
    """Both make the server look at a proof; and the answer has the same form."""

    async def main() -> None:
        hub = Hub()

        @hub.authenticate
        async def authenticate(credentials: Credentials) -> str | None:
            return credentials.token

        limits: dict[str, Any] = {"rate_limit": DEFAULT, "handshake_rate_ip": "2/h", "trusted_proxies": "127.0.0.1"}
        async with serving(hub, dev=False, **limits) as server:

            async def ask(client: str) -> Answer:
                lines = ("Authorization: Bearer alice", f"X-Forwarded-For: 6.6.6.6, {client}", "Connection: close")
                return await get(server.address, "/api/tickets", *lines, method="POST")

            assert (await ask("203.0.113.5")).status == 201
            assert await refused(server.address, "x", query="token=alice", **behind("203.0.113.5")) is None
            answer = await ask("203.0.113.5")

            assert (answer.status, answer.json()["error"]["code"]) == (429, "rate_limited")
            assert 1790 <= int(answer.headers["retry-after"]) <= 1800
            assert (await ask("203.0.113.6")).status == 201

    run(main())


def test_off_is_off_for_all_of_them() -> None:
    async def main() -> None:
        limits: dict[str, Any] = {
            "rate_limit": "off",
            "rate_limit_user": "1/h",
            "rate_limit_ip": "1/h",
            "rate_limits": {"chat": "1/h"},
            "handshake_rate": "1/h",
            "handshake_rate_ip": "1/h",
        }
        async with serving(**limits) as server, AsyncExitStack() as stack:
            for _ in range(20):
                alice = await stack.enter_async_context(connect(server.address, "alice"))
            await burst(alice, 50)
            await alice.expect("ack", id="m49")
            assert server.hub.statistics().meters == {"user": 0, "ip": 0, "handshake_ip": 0}

    run(main())


def test_a_crowd_of_one_office_gets_in() -> None:
    """Two hundred people behind one address, at once, with the defaults."""

    async def main() -> None:
        async with serving(rate_limit=DEFAULT) as server:
            tried = await asyncio.gather(*(refused(server.address, f"u{number}") for number in range(200)))

            assert tried == [None] * 200

    run(main())


# ------------------------------------------------------------------------------------------------ our client


def test_a_hundred_messages_of_our_client_arrive_in_order_and_once() -> None:
    """Sent at once, from twenty rooms joined at once, against the default limit: it takes its time, and that is all."""

    async def main() -> None:
        async with (
            serving(rate_limit=DEFAULT) as server,
            connect(server.address, "bob") as bob,
            real_client(f"{server.address}/?user_id=alice") as alice,
        ):
            sent = [alice.send("chat", number, to="bob") for number in range(100)]
            async with asyncio.timeout(PATIENCE * 2):
                acks = await asyncio.gather(*sent)
            await bob.expect("chat", content=99)

            assert contents(bob) == list(range(100))
            assert [ack.seq for ack in acks] == list(range(1, 101))
            # What was on its way when the first was refused, and one for each time that the limit was met again.
            assert server.hub.statistics().errors["rate_limited"] <= 90 + 15

    run(main())


def test_our_client_joins_more_rooms_than_it_may_at_once() -> None:
    async def main() -> None:
        async with (
            serving(rate_limit=DEFAULT) as server,
            real_client(f"{server.address}/?user_id=alice") as alice,
        ):
            async with asyncio.timeout(PATIENCE):
                joined = await asyncio.gather(*(alice.join(f"r{number}") for number in range(15)))

            assert [answer.room for answer in joined] == [f"r{number}" for number in range(15)]
            assert len(alice.rooms) == 15

    run(main())
