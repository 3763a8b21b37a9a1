"""The Python client with a real server: it talks, it comes back, and nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, get_args
from urllib.parse import quote

import pytest

from hubbub import Hub, Reject
from hubbub.client import Client, Message, Recovered, State, StateChange, Unanswered, connect
from hubbub.client.wire import CodecName
from hubbub.errors import AckTimeout, ConnectError, HubbubError
from hubbub.hub.hooks import Credentials
from integration.client.proxy import Network
from support.client import connect as plain
from support.loop import PATIENCE, eventually, run
from support.server import Child, serving


@pytest.fixture(autouse=True, params=get_args(CodecName))
def codec(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> CodecName:
    """All of this holds in each codec: what `as_user` makes speaks this one."""
    chosen: CodecName = request.param
    monkeypatch.setitem(SPOKEN, "codec", chosen)
    return chosen


SPOKEN: dict[str, Any] = {}


def as_user(address: str, user: str, **options: Any) -> Client:
    return connect(f"{address}/?user_id={quote(user)}", **(SPOKEN | options))


async def heard(client: Client, count: int) -> list[Message]:
    """The next messages, which all count as handled."""
    messages: list[Message] = []
    async with asyncio.timeout(PATIENCE):
        while len(messages) < count:
            messages.append(await anext(client))
    return messages


def told(client: Client, name: Any) -> list[Any]:
    """What will be told under this name."""
    events: list[Any] = []
    client.on(name, events.append)
    return events


async def within(awaitable: Awaitable[Any]) -> Any:
    async with asyncio.timeout(PATIENCE):
        return await awaitable


# ---------------------------------------------------------------------------------------------- the basic exchange


def test_a_room_a_user_and_everyone() -> None:
    async def main() -> None:
        async with (
            serving() as server,
            as_user(server.address, "alice") as alice,
            as_user(server.address, "bob") as bob,
        ):
            came = told(alice, "member-joined")
            assert (await alice.join("lobby")).count == 1
            assert [member.user for member in (await bob.join("lobby")).members or ()] == ["alice", "bob"]

            ack = await bob.send("chat", {"text": "hi"}, room="lobby")
            await bob.send("chat", b"\x00\xff", to="alice")
            await bob.send("news", None)
            in_room, direct, everyone = sorted(await heard(alice, 3), key=lambda m: (m.room is None, m.to is None))

            assert (in_room.type, in_room.from_, in_room.room, in_room.content) == (
                "chat",
                "bob",
                "lobby",
                {"text": "hi"},
            )
            assert (in_room.seq, in_room.id) == (ack.seq, ack.id)
            assert (direct.to, direct.content) == ("alice", b"\x00\xff")
            assert (everyone.type, everyone.room, everyone.to, everyone.content) == ("news", None, None, None)
            assert [event.user for event in came] == ["bob"]
            assert (alice.user, alice.state, alice.rooms) == ("alice", State.OPEN, ("lobby",))

    run(main())


def test_requests_are_answered_and_refused() -> None:
    async def main() -> None:
        async with serving() as server, as_user(server.address, "alice") as alice:
            await alice.join("lobby")
            for number in range(5):
                await alice.send("chat", number, room="lobby")
            page = await alice.history("lobby", limit=2, before=5)

            assert [message.content for message in page.messages] == [2, 3]
            assert page.more
            assert [member.user for member in (await alice.presence("lobby")).members] == ["alice"]
            users = (await alice.users(["alice", "carol"])).users
            assert (users["alice"].online, users["carol"].online) == (True, False)
            await alice.leave("lobby")
            with pytest.raises(Reject) as refused:
                await alice.send("chat", "hi", room="lobby")
            assert refused.value.code == "not_joined"
            with pytest.raises(Reject):
                await alice.presence("lobby")

    run(main())


def test_the_last_messages_come_before_the_live_ones() -> None:
    async def main() -> None:
        async with (
            serving() as server,
            as_user(server.address, "alice") as alice,
            as_user(server.address, "bob") as bob,
        ):
            await alice.join("lobby")
            for number in range(5):
                await alice.send("chat", number, room="lobby")
            joined = await bob.join("lobby", last=3)
            await alice.send("chat", 5, room="lobby")

            assert joined.recovered is True
            assert [message.content for message in await heard(bob, 4)] == [2, 3, 4, 5]

    run(main())


def test_a_sender_that_asked_hears_of_the_receipt() -> None:
    """Given when the recipient's client has handled the message, and not before."""

    async def main() -> None:
        async with (
            serving() as server,
            as_user(server.address, "alice") as alice,
            as_user(server.address, "bob") as bob,
        ):
            receipts = told(alice, "receipt")
            ack = await alice.send("chat", "hi", to="bob", receipt=True)
            await heard(bob, 1)
            await bob.users([])

            assert receipts == []
            await bob.close()
            await eventually(lambda: receipts)
            assert (receipts[0].id, receipts[0].by) == (ack.id, "bob")

    run(main())


def test_send_with_ack_waits_for_the_recipient() -> None:
    """A message that the recipient's client has handled is acknowledged; one that was only accepted is not."""

    async def main() -> None:
        async with (
            serving() as server,
            as_user(server.address, "alice", listen=False) as alice,
            as_user(server.address, "bob") as bob,
        ):
            receipts = told(alice, "receipt")
            asked = asyncio.create_task(alice.send_with_ack("bob", "chat", "hi", timeout=PATIENCE))
            (message,) = await heard(bob, 1)
            await bob.users([])
            await alice.users([])

            assert alice.unsettled == 0 and not asked.done()
            await bob.close()
            acknowledged = await asked
            assert (acknowledged.user, acknowledged.seq) == ("bob", message.seq)
            assert message.content == "hi" and message.receipt
            assert (receipts[0].id, receipts[0].time) == (message.id, acknowledged.time)

    run(main())


def test_send_with_ack_to_nobody_is_a_timeout_and_can_be_tried_again() -> None:
    async def main() -> None:
        async with serving() as server, as_user(server.address, "alice") as alice:
            with pytest.raises(AckTimeout) as missed:
                await alice.send_with_ack("bob", "chat", "hi", timeout=0.2)

            assert (missed.value.user, missed.value.seq) == ("bob", 1)
            again = alice.send_with_ack("bob", "chat", "hi", timeout=PATIENCE, id=missed.value.id)
            asked = asyncio.create_task(again)
            async with plain(server.address, "bob") as bob:
                assert (await asked).seq == 1
                await bob.sync()
                assert len(bob.heard("chat")) == 1

    run(main())


def test_send_with_ack_without_a_connection() -> None:
    """The error says that it is not in the inbox yet; it goes there when there is a connection."""

    async def main() -> None:
        async with (
            serving() as server,
            Network.to(server.address) as network,
            as_user(network.address, "alice") as alice,
            plain(server.address, "bob") as bob,
        ):
            network.cut(refuse=True)
            await eventually(lambda: not alice.connected)
            with pytest.raises(AckTimeout, match="not accepted it yet") as missed:
                await alice.send_with_ack("bob", "chat", "hi", timeout=0.05)

            assert (missed.value.epoch, missed.value.seq) == (None, None)
            network.mend()
            assert (await bob.expect("chat"))["id"] == missed.value.id

    run(main())


def test_send_with_ack_over_a_cut() -> None:
    """A receipt that comes after the cut is as good; one that came during it is lost, which is a timeout."""

    async def main() -> None:
        async with (
            serving() as server,
            Network.to(server.address) as network,
            as_user(network.address, "alice") as alice,
            plain(server.address, "bob", full=True) as bob,
        ):
            asked = asyncio.create_task(alice.send_with_ack("bob", "chat", 1, timeout=PATIENCE))
            await bob.expect("chat", seq=1)
            await eventually(lambda: alice.unsettled == 0)
            network.cut()
            await eventually(lambda: network.count == 2 and alice.connected)
            await bob.send({"type": "ack", "seq": 1})
            await asked

            asked = asyncio.create_task(alice.send_with_ack("bob", "chat", 2, timeout=1.0))
            await bob.expect("chat", seq=2)
            await eventually(lambda: alice.unsettled == 0)
            network.hold_answers()
            await bob.send({"type": "ack", "seq": 2})
            await bob.sync()
            network.cut()
            with pytest.raises(AckTimeout) as missed:
                await asked

            assert missed.value.seq == 2

    run(main())


def test_send_with_ack_ends_with_the_client() -> None:
    """At once, whether the message was accepted or not; and one id is waited for once."""

    async def main() -> None:
        async with serving() as server, as_user(server.address, "alice") as alice:
            accepted = asyncio.create_task(alice.send_with_ack("bob", "chat", 1, timeout=3600, id="a1"))
            await eventually(lambda: "a1" in alice._receipts and alice.unsettled == 0)
            with pytest.raises(Reject) as refused:
                await alice.send_with_ack("bob", "chat", 1, id="a1")
            pending = asyncio.create_task(alice.send_with_ack("bob", "chat", 2, timeout=3600))
            # One turn: it has been sent, and no answer can be here.
            await asyncio.sleep(0)
            assert alice.unsettled == 1
            await alice.close()

            assert refused.value.code == "conflict"
            for asked in (accepted, pending):
                with pytest.raises(Unanswered):
                    await within(asked)
            assert alice._receipts == {}

    run(main())


def test_send_with_ack_of_what_goes_nowhere() -> None:
    """Refused by the application, or taken by it: nobody is waited for."""

    async def main() -> None:
        hub = Hub()

        @hub.on("refused")
        async def refused(message: object) -> None:
            raise Reject("sold_out")

        @hub.on("taken")
        async def taken(message: object) -> None:
            """Nothing goes on."""

        async with serving(hub) as server, as_user(server.address, "alice") as alice:
            with pytest.raises(Reject, match="sold_out"):
                await alice.send_with_ack("bob", "refused", timeout=3600)
            with pytest.raises(HubbubError, match="took the message"):
                await alice.send_with_ack("bob", "taken", timeout=3600)

    run(main())


def test_what_was_not_handled_comes_again() -> None:
    """A program that dies over a message finds it in its inbox; after `break` the message is handled."""

    async def main() -> None:
        async with serving() as server, as_user(server.address, "alice") as alice:
            for number in range(3):
                await alice.send("chat", number, to="bob")
            with suppress(ZeroDivisionError):
                async with as_user(server.address, "bob") as bob:
                    async for message in bob:
                        assert 1 / message.content
            seen = []
            async with as_user(server.address, "bob") as bob:
                async for message in bob:
                    seen.append(message.content)
                    if message.content == 1:
                        break
            async with as_user(server.address, "bob") as bob:
                seen += [message.content for message in await heard(bob, 1)]

            assert seen == [0, 1, 2]

    run(main())


def test_a_client_that_does_not_listen_leaves_the_inbox_unread() -> None:
    async def main() -> None:
        async with serving() as server, as_user(server.address, "alice") as alice:
            await alice.send("chat", "hi", to="bob")
            async with as_user(server.address, "bob", listen=False) as sender:
                await sender.send("chat", "hello", to="alice")
            async with as_user(server.address, "bob") as bob:
                assert [message.content for message in await heard(bob, 1)] == ["hi"]

    run(main())


def test_a_message_is_sent_when_the_call_returns() -> None:
    """Nobody needs to await it: what follows on the same connection comes behind it."""

    async def main() -> None:
        async with serving() as server, as_user(server.address, "alice") as alice:
            joining = alice.join("lobby")
            sending = [alice.send("chat", number, room="lobby") for number in range(100)]
            page = await alice.history("lobby")

            assert joining.done()
            assert all(future.done() for future in sending)
            assert [message.content for message in page.messages] == list(range(100))

    run(main())


def test_the_server_is_not_sent_what_it_would_not_take() -> None:
    """`welcome` says how much that is."""

    async def main() -> None:
        async with (
            serving(message_size=1_000, large_message_size=0) as server,
            as_user(server.address, "alice") as alice,
        ):
            with pytest.raises(Reject) as refused:
                await alice.send("chat", "x" * 1_000)

            assert refused.value.code == "too_large"
            assert (await alice.send("chat", "x" * 100)).seq == 1

    run(main())


def test_content_that_json_cannot_hold_raises_where_it_is_sent() -> None:
    async def main() -> None:
        async with serving() as server, as_user(server.address, "alice") as alice:
            with pytest.raises(HubbubError, match="JSON"):
                alice.send("chat", object())

    run(main())


def test_volatile_messages_are_for_now_or_never() -> None:
    async def main() -> None:
        async with serving() as server, as_user(server.address, "alice") as alice:
            await alice.join("lobby")
            assert (await alice.send("typing", room="lobby", volatile=True)).seq is None
            assert (await alice.send("typing", room="lobby", volatile=True, id="v1")).id == "v1"
            assert [message.seq for message in await heard(alice, 2)] == [None, None]
            await alice.close()
            with pytest.raises(Unanswered) as unanswered:
                await alice.send("typing", room="lobby", volatile=True)
            assert unanswered.value.code == "not_connected"

    run(main())


# --------------------------------------------------------------------------------------------------- coming back


def test_a_cut_loses_and_doubles_nothing() -> None:
    """What others say meanwhile is recovered, and what one said oneself is sent again."""

    async def main() -> None:
        async with (
            serving() as server,
            Network.to(server.address) as network,
            as_user(network.address, "alice") as alice,
            as_user(server.address, "bob") as bob,
        ):
            await alice.join("lobby")
            await bob.join("lobby")
            for number in range(0, 60, 3):
                if number % 15 == 9:
                    network.cut()
                own = alice.send("chat", number, room="lobby")
                await bob.send("chat", number + 1, room="lobby")
                await within(own)
                await bob.send("chat", number + 2, room="lobby")
            mine, his = await heard(alice, 60), await heard(bob, 60)

            assert [message.content for message in mine] == [message.content for message in his]
            assert sorted(message.content for message in mine) == list(range(60))
            assert [message.seq for message in mine] == list(range(1, 61))
            assert network.count == 5

    run(main())


def test_a_message_whose_ack_was_lost_is_not_doubled() -> None:
    """The server has it, the client does not know: it sends it again under the same id."""

    async def main() -> None:
        async with (
            serving() as server,
            Network.to(server.address) as network,
            as_user(network.address, "alice") as alice,
            as_user(server.address, "bob") as bob,
        ):
            await alice.join("lobby")
            await bob.join("lobby")
            network.hold_answers()
            own = alice.send("chat", "once", room="lobby")
            await heard(bob, 1)

            assert not own.done()
            network.cut()
            ack = await within(own)
            assert (ack.seq, ack.duplicate) == (1, True)
            await bob.send("chat", "end", room="lobby")
            assert [message.content for message in await heard(alice, 2)] == ["once", "end"]
            assert [message.content for message in await heard(bob, 1)] == ["end"]

    run(main())


def test_what_is_sent_while_away_goes_when_back_and_the_oldest_of_too_many_is_dropped() -> None:
    async def main() -> None:
        async with (
            serving() as server,
            Network.to(server.address) as network,
            as_user(network.address, "alice") as alice,
        ):
            await alice.join("lobby")
            dropped = told(alice, "dropped")
            network.cut(refuse=True)
            await eventually(lambda: not alice.connected)
            sending = [alice.send("chat", number, room="lobby") for number in range(101)]
            with pytest.raises(Unanswered) as unanswered:
                await sending[0]

            assert unanswered.value.code == "dropped"
            assert len(dropped) == 1
            network.mend()
            await within(asyncio.gather(*sending[1:]))
            assert [message.content for message in await heard(alice, 100)] == list(range(1, 101))

    run(main())


def test_states_and_recoveries_are_told() -> None:
    async def main() -> None:
        async with (
            serving() as server,
            Network.to(server.address) as network,
            as_user(network.address, "alice") as alice,
        ):
            await alice.join("lobby")
            changes: list[StateChange] = told(alice, "state")
            recovered = told(alice, "recovered")
            network.cut()
            await eventually(lambda: changes and alice.connected)

            assert [change.state for change in changes] == [
                State.WAITING,
                State.CONNECTING,
                State.OPENING,
                State.OPEN,
            ]
            assert changes[0].reason is not None
            assert (changes[0].reason.code, changes[0].reason.message) == (1006, "the connection was cut")
            assert recovered == [Recovered(channel, True) for channel in ("inbox", "all", "room:lobby")]

    run(main())


@asynccontextmanager
async def restarted(child: Child) -> AsyncIterator[Child]:
    """Another process on the same port."""
    port = child.address.rpartition(":")[2]
    async with Child.spawned("--dev", "--port", port) as again:
        yield again


def test_a_killed_server_that_comes_again_on_its_port_gets_each_message_once() -> None:
    """What it had not acknowledged is sent again; what it had, it has forgotten, and that is told."""

    async def main() -> None:
        async with Child.spawned("--dev") as child, as_user(child.address, "alice") as alice:
            recovered = told(alice, "recovered")
            await alice.join("lobby")
            await alice.send("chat", "before", room="lobby")
            # Stopped, it takes what is written to it and answers nothing.
            child.signal(signal.SIGSTOP)
            sending = [alice.send("chat", number, room="lobby") for number in range(10)]
            child.signal(signal.SIGKILL)
            await child.exit_status()
            await eventually(lambda: not alice.connected)
            sending += [alice.send("chat", number, room="lobby") for number in range(10, 20)]
            async with restarted(child):
                acks = await within(asyncio.gather(*sending))
                page = await alice.history("lobby")

                assert [message.content for message in page.messages] == list(range(20))
                assert [ack.seq for ack in acks] == list(range(1, 21))
                assert [message.content for message in await heard(alice, 21)] == ["before", *range(20)]
                assert Recovered("room:lobby", False) in recovered
                await alice.close()

    run(main())


def test_a_server_that_stops_says_goodbye_and_when_to_come_again() -> None:
    async def main() -> None:
        async with Child.spawned("--dev", "--drain-timeout", "2") as child, as_user(child.address, "alice") as alice:
            changes: list[StateChange] = told(alice, "state")
            child.signal(signal.SIGTERM)

            assert await child.exit_status() == 0
            await eventually(lambda: changes)
            assert changes[0].state is State.WAITING
            assert changes[0].reason is not None
            assert changes[0].reason.code == 1012
            async with restarted(child):
                await eventually(lambda: alice.connected)
                await alice.close()

    run(main())


# ----------------------------------------------------------------------------------------------- not coming in


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://localhost/ws", "no address of a hub"),
        ("localhost:8000", "no address of a hub"),
        ("ws://", "no address of a hub"),
        ("ws://localhost:port/", "no address of a hub"),
        ("ws://alice:secret@localhost/", "use a token"),
    ],
)
def test_what_is_no_address_is_refused_at_once(url: str, words: str) -> None:
    with pytest.raises(ConnectError, match=words) as error:
        connect(url)

    assert error.value.final
    assert "secret" not in str(error.value)


async def failure(url: str, **options: Any) -> ConnectError:
    with pytest.raises(ConnectError) as error:
        async with connect(url, **options):
            pass
    return error.value


def test_a_first_connection_that_is_not_had_says_why_in_a_sentence() -> None:
    async def main() -> None:
        async with serving() as server:
            address = server.address
            missing = await failure(f"{address}/nowhere")
            echo = await failure(f"{address}/echo")
            tls = await failure(address.replace("http", "https"))
        nobody = await failure(address)
        nameless = await failure("ws://nowhere.invalid/")

        assert str(missing) == "There is no WebSocket at this path."
        assert "not one of a hub" in str(echo)
        assert "does not speak TLS" in str(tls)
        assert "nothing listens at" in str(nobody)
        assert isinstance(nobody.__cause__, ConnectionRefusedError)
        assert not nobody.final
        assert str(nameless) == "there is no host named nowhere.invalid"

    run(main())


Behave = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(behave: Behave) -> AsyncIterator[str]:
    """Something that listens and is no hub."""
    tasks: set[asyncio.Task[Any]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await behave(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")


async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


def answering(*lines: str, body: str = "") -> Behave:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write("\r\n".join([*lines, f"Content-Length: {len(body)}", "", body]).encode())
        await writer.drain()

    return answer


@pytest.mark.parametrize(
    ("behave", "words"),
    [
        (hang_up, "closed the connection before it was open"),
        (answering("SSH-2.0-OpenSSH_9.9"), "does not speak WebSocket"),
        (answering("HTTP/1.1 200 OK", body="<h1>Hello</h1>"), "answers 200 OK"),
        (answering("HTTP/1.1 302 Found", "Location: https://elsewhere"), "points to https://elsewhere"),
        (answering("HTTP/1.1 502 Bad Gateway"), "answers 502 Bad Gateway"),
        (answering("HTTP/1.1 403 Forbidden", body='{"error":{"code":"forbidden","message":"Not you."}}'), "Not you."),
    ],
    ids=["hangs up", "not HTTP", "200", "302", "502", "403"],
)
def test_what_listens_there_may_not_be_a_hub(behave: Behave, words: str) -> None:
    async def main() -> None:
        async with listening(behave) as url:
            error = await failure(url)

            assert words in str(error)
            assert error.final == (words == "Not you.")

    run(main())


def test_a_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """5 s for the handshake, and 5 s for the welcome; here less, so that nobody waits."""
    monkeypatch.setattr("hubbub.client.machine.CONNECT_TIMEOUT", 0.1)

    async def main() -> None:
        async with listening(say_nothing) as url:
            assert str(await failure(url)) == "the server does not answer"

    run(main())


def test_the_first_connection_may_be_waited_for() -> None:
    """`tries=None`: a service may be started before the server."""

    async def main() -> None:
        async with serving() as server, Network.to(server.address) as network:
            network.cut(refuse=True)
            client = as_user(network.address, "alice", tries=None)
            opening = asyncio.create_task(client.open())
            await eventually(lambda: network.count)
            network.mend()
            await within(opening)

            assert client.connected
            await client.close()

    run(main())


def test_giving_up_to_connect_leaves_nothing_behind() -> None:
    """A cancelled `open` in the middle of a handshake, or of asking for a token."""

    async def never() -> str:
        await asyncio.Event().wait()
        return ""

    async def main() -> None:
        async with listening(say_nothing) as url:
            for token in (None, never):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.1):
                        await connect(url, token=token).open()
        # The test's own.
        assert len(asyncio.all_tasks()) == 1

    run(main())


def test_closing_a_client_that_opens_ends_the_opening() -> None:
    async def main() -> None:
        async with listening(say_nothing) as url:
            client = connect(url)
            opening = asyncio.create_task(client.open())
            await eventually(lambda: client.state is State.CONNECTING)
            await client.close()
            with pytest.raises(ConnectError, match="closed before"):
                await within(opening)

    run(main())


def test_an_end_for_good_ends_everything_that_waits() -> None:
    """4504: the iteration raises, a sent message has an outcome, and nothing is tried again."""

    async def main() -> None:
        hub = Hub()
        async with (
            serving(hub) as server,
            Network.to(server.address) as network,
            as_user(network.address, "alice") as alice,
        ):
            network.cut(refuse=True)
            sending = alice.send("chat", "hi")
            await eventually(lambda: network.count > 1)
            network.mend()
            await within(sending)
            await hub.disconnect("alice")
            # What came before the end comes before it here, too.
            [last] = await heard(alice, 1)
            with pytest.raises(ConnectError) as error:
                await within(anext(alice))

            assert last.content == "hi"
            assert error.value.final
            # Not what went wrong with an earlier connection.
            assert error.value.__cause__ is None
            assert alice.state is State.FAILED
            assert alice.reason is not None
            assert alice.reason.code == 4504

    run(main())


# ------------------------------------------------------------------------------------------------------ tokens


def known(credentials: Credentials) -> str | None:
    return {"t-alice": "alice"}.get(credentials.token or "")


def test_a_token_says_who_one_is() -> None:
    async def main() -> None:
        hub = Hub()
        hub.authenticate(known)
        async with serving(hub, dev=False) as server:
            async with connect(server.address, token="t-alice") as alice:
                assert alice.user == "alice"
            wrong = await failure(server.address, token="t-eve")
            assert wrong.final
            assert "token" in str(wrong)

    run(main())


def test_a_function_is_asked_for_a_token_each_time() -> None:
    async def main() -> None:
        hub = Hub()
        hub.authenticate(known)
        asked = []

        async def token() -> str:
            asked.append(1)
            return "t-alice"

        async with serving(hub, dev=False) as server, Network.to(server.address) as network:
            async with connect(network.address, token=token) as alice:
                network.cut()
                await eventually(lambda: not alice.connected)
                await eventually(lambda: alice.connected)

            assert len(asked) == 2

    run(main())


def test_a_token_function_that_fails_is_why_there_is_no_connection() -> None:
    def token() -> str:
        raise OSError("the vault is closed")

    async def main() -> None:
        async with serving() as server:
            error = await failure(server.address, token=token)

            assert str(error) == "no token could be had: the vault is closed"
            assert isinstance(error.__cause__, OSError)

    run(main())


# ------------------------------------------------------------------------------------------------ small things


def test_a_callback_that_fails_is_told_and_hurts_nobody() -> None:
    async def main() -> None:
        async with serving() as server, as_user(server.address, "alice") as alice:

            def fail(event: object) -> None:
                raise LookupError("no such chair")

            errors = told(alice, "error")
            alice.on("member-joined", fail)
            await alice.join("lobby")
            async with plain(server.address, "bob") as bob:
                await bob.join("lobby")
                await eventually(lambda: errors)

                assert isinstance(errors[0], LookupError)
                assert alice.connected

    run(main(), logs_errors=True)


def test_messages_may_come_by_callback_in_order_with_everything_else() -> None:
    """Also those that came before anybody listened; one that raises counts as handled."""

    async def main() -> None:
        async with serving() as server, as_user(server.address, "bob") as bob:
            await bob.join("lobby")
            await bob.send("chat", 0, to="alice")
            async with as_user(server.address, "alice") as alice:
                await alice.join("lobby")
                await alice.users([])
                seen: list[Any] = []
                alice.on("message", lambda message: seen.append(message.content))
                alice.on("message", lambda message: 1 / (message.content - 1))
                alice.on("member-left", lambda event: seen.append("left"))
                for number in (1, 2):
                    await bob.send("chat", number, room="lobby")
                await bob.leave("lobby")
                await alice.users([])

                assert seen == [0, 1, 2, "left"]
                assert alice.position("inbox") == ((await alice.history()).position.epoch, 1)

    run(main(), logs_errors=True)


def test_everything_on_the_wire_can_be_traced() -> None:
    async def main() -> None:
        lines: list[tuple[str, str]] = []

        def trace(direction: str, text: str | bytes) -> None:
            assert isinstance(text, str)
            lines.append((direction, text.partition(",")[0]))

        async with serving() as server, as_user(server.address, "alice", trace=trace, codec="json") as alice:
            await alice.users([])

            assert lines == [
                (">", '{"type":"hello"'),
                ("<", '{"type":"welcome"'),
                (">", '{"type":"users"'),
                ("<", '{"type":"users"'),
            ]

    run(main())


def test_closing_ends_the_iteration_and_opening_goes_on() -> None:
    async def main() -> None:
        async with serving() as server, as_user(server.address, "alice") as alice:
            await alice.join("lobby")
            await alice.send("chat", 1, room="lobby")
            assert [message.content for message in await heard(alice, 1)] == [1]
            await alice.close()
            with pytest.raises(StopAsyncIteration):
                await anext(alice)
            async with as_user(server.address, "bob") as bob:
                await bob.join("lobby")
                await bob.send("chat", 2, room="lobby")
            await alice.open()

            assert [message.content for message in await heard(alice, 1)] == [2]
        assert len(asyncio.all_tasks()) == 1

    run(main())


def test_a_slow_iteration_loses_nothing_and_gets_answers_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """More came than may be waiting to be handled: the rest comes by resuming."""
    monkeypatch.setattr("hubbub.client.receiving.MOST_PENDING", 400)

    async def main() -> None:
        async with (
            serving() as server,
            as_user(server.address, "alice") as alice,
            as_user(server.address, "bob", listen=False) as bob,
        ):
            changes: list[StateChange] = told(alice, "state")
            await alice.join("lobby")
            await bob.join("lobby")
            await within(asyncio.gather(*(bob.send("chat", number, room="lobby") for number in range(900))))
            seen = []
            async for message in alice:
                seen.append(message.content)
                if len(seen) % 300 == 0:
                    await within(alice.send("chat", "progress", to="carol"))
                if len(seen) == 900:
                    break

            assert seen == list(range(900))
            assert changes[0].state is State.WAITING

    run(main())
