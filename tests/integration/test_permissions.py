"""What somebody may do: every command by everybody who must not, and nothing gets past (0 bypasses)."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from hubbub import Action, Credentials, Hub, Identity, Session
from hubbub.server import Server
from hubbub.types import ROOM_ACTIONS
from support.client import FULL, Client, connect
from support.loop import eventually, run
from support.server import serving

ALL_ACTIONS = ROOM_ACTIONS

# What the policies of these tests grant.
ROLES = {
    "member": {"rooms": {"club:*": list(ROOM_ACTIONS)}, "users": ["*"], "broadcast": True},
    "guest": {"rooms": {"lobby": ["join", "publish"]}},
}

# Everything that a client can ask for that concerns others, aimed at alice and her room.
COMMANDS: dict[str, dict[str, Any]] = {
    "join": {"type": "join", "room": "club:1"},
    "join with the past": {"type": "join", "room": "club:1", "last": 10},
    "join since": {"type": "join", "room": "club:1", "since": ["x", 0]},
    "publish": {"type": "chat", "room": "club:1", "content": "psst"},
    "publish a type of its own": {"type": "evil", "room": "club:1", "content": "psst"},
    "unicast": {"type": "chat", "to": "alice", "content": "psst"},
    "broadcast": {"type": "chat", "content": "psst"},
    "volatile": {"type": "chat", "room": "club:1", "content": "psst", "volatile": True},
    "receipt": {"type": "chat", "to": "alice", "content": "psst", "receipt": True},
    "history": {"type": "history", "room": "club:1"},
    "presence": {"type": "presence", "room": "club:1"},
    "users": {"type": "users", "ids": ["alice"]},
}

STRANGERS: dict[str, Identity] = {
    "another user": Identity(user="mallory", rooms={"club:2": ALL_ACTIONS}),
    "a wrong role": Identity(user="mallory", roles=("guest",)),
    "no role": Identity(user="mallory"),
}


def a_hub(**known: Identity) -> Hub:
    """A hub that knows these tokens."""
    hub = Hub()

    @hub.authenticate
    async def who(credentials: Credentials) -> Identity | None:
        return known.get(credentials.token or "")

    return hub


ALICE = Identity(user="alice", roles=("member",))


async def untouched(server: Server, alice: Client) -> None:
    """Nothing has come to alice or into her room, and nobody else is there."""
    assert [message for message in await alice.sync() if message["type"] != "pong"] == []
    assert [member.user for member in await server.hub.members("club:1")] == ["alice"]


@pytest.mark.parametrize("full", [False, True], ids=["plain", "full"])
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("who", STRANGERS)
def test_every_command_is_forbidden_to_strangers(who: str, command: str, full: bool) -> None:
    """One `error`, with `forbidden` (or `not_joined`, for what only a member can ask); the connection stays."""

    async def main() -> None:
        hub = a_hub(a=ALICE, m=STRANGERS[who])
        async with (
            serving(hub, dev=False, roles=ROLES) as server,
            connect(server.address, None, query="token=a") as alice,
            connect(server.address, None, query="token=m", full=full) as mallory,
        ):
            await alice.join("club:1")
            await alice.say("ours", room="club:1")
            await alice.expect("chat")
            answer = await mallory.ask(**COMMANDS[command])

            assert answer["type"] == "error" and answer["code"] in ("forbidden", "not_joined")
            # Outside of dev mode nobody hears which rule it was.
            assert answer["message"] in ("You may not do this.", "join the room first")
            await untouched(server, alice)
            assert await mallory.sync() == []

    run(main())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_closed_to_the_anonymous(command: str) -> None:
    """No token: no connection; on the full way nothing but `hello` is heard, and that needs a token."""

    async def main() -> None:
        async with (
            serving(a_hub(a=ALICE), dev=False, roles=ROLES) as server,
            connect(server.address, None, query="token=a") as alice,
        ):
            await alice.join("club:1")
            with pytest.raises(InvalidStatus, match="401"):
                async with connect(server.address, None):
                    pass
            async with connect(server.address, None, subprotocols=[FULL]) as early:
                await early.send(COMMANDS[command])
                assert (await early.closed())[0] == 4500
            async with connect(server.address, None, subprotocols=[FULL]) as nobody:
                await nobody.send({"type": "hello", "resume": {"rooms": {"club:1": None}}})
                await nobody.send(COMMANDS[command])
                assert (await nobody.closed())[0] == 4501
            await untouched(server, alice)

    run(main())


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("how", ["expired", "revoked user", "revoked token", "disconnected"])
def test_every_command_is_closed_to_who_was_somebody(how: str, command: str) -> None:
    """Once a proof is good no more, nothing that follows is done, and it lets nobody in again."""

    async def main() -> None:
        expires = int(time.time() * 1000) + 1_500 if how == "expired" else None
        bob = Identity(user="bob", roles=("member",), expires=expires)
        async with (
            serving(a_hub(a=ALICE, b=bob), dev=False, roles=ROLES) as server,
            connect(server.address, None, query="token=a") as alice,
            connect(server.address, None, query="token=b", full=True) as live,
        ):
            await alice.join("club:1")
            if how == "revoked user":
                await server.hub.revoke(user="bob")
            elif how == "revoked token":
                await server.hub.revoke(token="b")
            elif how == "disconnected":
                await server.hub.disconnect("bob")
            else:
                assert (await live.closed())[0] == 4003
            with contextlib.suppress(ConnectionClosed):
                await live.send(COMMANDS[command])
            expected = {"expired": 4003, "disconnected": 4504}.get(how, 4501)
            assert (await live.closed())[0] == expected
            with pytest.raises(InvalidStatus, match="401"):
                async with connect(server.address, None, query="token=b"):
                    pass
            async with connect(server.address, None, subprotocols=[FULL]) as again:
                await again.send({"type": "hello", "token": "b"})
                await again.send(COMMANDS[command])
                assert (await again.closed())[0] == 4501
            await untouched(server, alice)

    run(main())


@pytest.mark.parametrize("missing", list(ROOM_ACTIONS))
def test_each_action_is_granted_by_itself(missing: Action) -> None:
    """Who has all but one can do all but that."""

    async def main() -> None:
        granted = tuple(action for action in ROOM_ACTIONS if action != missing)
        bob = Identity(user="bob", rooms={"club:*": granted})
        async with (
            serving(a_hub(a=ALICE, b=bob), dev=False, roles=ROLES) as server,
            connect(server.address, None, query="token=a") as alice,
            connect(server.address, None, query="token=b") as client,
        ):
            await alice.join("club:1")
            await alice.say("ours", room="club:1")
            joined = await client.ask("join", room="club:1")
            if missing == Action.JOIN:
                assert joined["code"] == "forbidden"
                return

            assert ("members" in joined) == (missing != Action.PRESENCE)
            codes = {
                Action.PUBLISH: (await client.ask("chat", room="club:1", content="hi")).get("code"),
                Action.HISTORY: (await client.ask("history", room="club:1")).get("code"),
                Action.PRESENCE: (await client.ask("presence", room="club:1")).get("code"),
            }

            assert codes == {action: "forbidden" if action == missing else None for action in codes}

    run(main())


def test_the_past_cannot_be_had_by_joining() -> None:
    """Without `history`, `last` is forbidden, and `since` recovers nothing: not by join, and not on resume."""

    async def main() -> None:
        bob = Identity(user="bob", rooms={"club:*": (Action.JOIN,)})
        async with (
            serving(a_hub(a=ALICE, b=bob), dev=False, roles=ROLES) as server,
            connect(server.address, None, query="token=a") as alice,
        ):
            await alice.join("club:1")
            await alice.say("ours", room="club:1", id="a1")
            epoch = (await alice.expect("ack"))["epoch"]
            resume = {"rooms": {"club:1": [epoch, 0]}}
            async with connect(server.address, None, query="token=b", full=True, hello={"resume": resume}) as client:
                assert client.welcome["recovered"]["rooms"] == {"club:1": False}
                assert (await client.ask("join", room="club:1", last=5))["code"] == "forbidden"
                joined = await client.ask("join", room="club:1", since=[epoch, 0])

                assert joined["recovered"] is False and joined["position"] == [epoch, 1]
                await alice.say("now", room="club:1")
                assert (await client.expect("chat"))["content"] == "now"
                assert client.heard("chat", content="ours") == []

    run(main())


def test_a_resume_is_checked_again() -> None:
    """Who was in a room, and may be no more, does not come back into it: an `error` with the room, after `welcome`."""

    async def main() -> None:
        known = {"b": Identity(user="bob", roles=("member",))}
        hub = Hub()

        @hub.authenticate
        async def who(credentials: Credentials) -> Identity | None:
            return known.get(credentials.token or "")

        async with serving(hub, dev=False, roles=ROLES) as server:
            async with connect(server.address, None, query="token=b", full=True) as first:
                position = (await first.join("club:1"))["position"]
            known["b"] = Identity(user="bob", roles=("guest",))
            resume = {"rooms": {"club:1": position, "lobby": None}}
            async with connect(server.address, None, query="token=b", full=True, hello={"resume": resume}) as second:
                assert list(second.welcome["positions"]["rooms"]) == ["lobby"]
                refused = await second.expect("error", room="club:1")

                assert refused["code"] == "forbidden"

    run(main())


def test_one_may_write_to_oneself_and_read_ones_inbox() -> None:
    """One's own devices are nobody else's business: no policy can forbid that, and none has to grant it."""

    async def main() -> None:
        async with (
            serving(a_hub(m=Identity(user="mallory")), dev=False, roles=ROLES) as server,
            connect(server.address, None, query="token=m") as mallory,
        ):
            await mallory.say("me", to="mallory")
            await mallory.expect("chat", content="me")

            assert [told["content"] for told in (await mallory.ask("history"))["messages"]] == ["me"]
            assert (await mallory.ask("users", ids=["mallory"]))["users"]["mallory"]["online"] is True

    run(main())


def test_in_dev_mode_the_error_says_which_rule_denied() -> None:
    async def main() -> None:
        async with (
            serving(roles=ROLES) as server,
            connect(server.address, "bob") as bob,
        ):
            refused = await bob.ask("join", room="club:1")

            assert (
                refused["message"]
                == "You may not join 'club:1': there is no role that grants 'join' in `rooms` that match 'club:1'."
            )

    run(main())


def test_in_dev_mode_a_join_with_the_past_says_so_too() -> None:
    async def main() -> None:
        bob = Identity(user="bob", roles=("guest",))
        async with (
            serving(a_hub(b=bob), roles=ROLES) as server,
            connect(server.address, None, query="token=b") as client,
        ):
            refused = await client.ask("join", room="lobby", last=5)

            assert (
                refused["message"] == "You may not read the history of 'lobby': "
                "the role 'guest' grants no 'history' in `rooms` that match 'lobby'."
            )

    run(main())


def test_a_new_token_with_less_takes_the_session_out_of_its_rooms() -> None:
    """`auth` is checked like a join: `left` with a code says which rooms are lost; more rights come without words."""

    async def main() -> None:
        less = Identity(user="bob", roles=("guest",))
        hub = a_hub(b=Identity(user="bob", roles=("member",)), less=less, a=ALICE)
        async with (
            serving(hub, dev=False, roles=ROLES | {"guest": {"rooms": {"lobby": ["join"]}}}) as server,
            connect(server.address, None, query="token=a") as alice,
            connect(server.address, None, query="token=b", full=True) as bob,
        ):
            await bob.join("club:1")
            await alice.join("club:1")
            assert (await bob.ask("auth", token="less"))["type"] == "ack"
            left = await bob.expect("left", room="club:1")

            assert left["code"] == "forbidden"
            await alice.say("among us", room="club:1")
            await alice.expect("chat")
            assert [message["type"] for message in await bob.sync()] == []
            assert (await bob.ask("auth", token="b"))["type"] == "ack"
            await bob.join("club:1")

    run(main())


def test_where_nobody_can_say_a_new_token_takes_the_session_out() -> None:
    """A hook that fails over one room: out of it, and of the others that it forbids; one answer to `auth`."""

    async def main() -> None:
        hub = a_hub(b=Identity(user="bob"), less=Identity(user="bob", roles=("less",)))

        @hub.authorize
        async def may(session: Session, action: Action, name: str) -> bool:
            assert session.identity is not None
            if "less" in session.identity.roles and name == "r1":
                raise RuntimeError("the database is away")
            return "less" not in session.identity.roles or name == "r3"

        async with serving(hub, dev=False) as server, connect(server.address, None, query="token=b") as bob:
            for room in ("r1", "r2", "r3"):
                await bob.join(room)
            await bob.send({"type": "auth", "token": "less", "id": "a1"})

            assert [(await bob.expect("left"))["room"] for _ in range(2)] == ["r1", "r2"]
            assert [message["type"] for message in bob.seen if message.get("id") == "a1"] == ["ack"]
            (session,) = server.hub.local_sessions("bob")

            assert session.rooms == {"r3"}

    run(main(), logs_errors=True)


class TestHook:
    """`@hub.authorize`: True, False, or None, which leaves it to the policies."""

    def test_it_is_asked_about_every_deed(self) -> None:
        async def main() -> None:
            asked: list[tuple[str, str, str]] = []
            hub = Hub()

            @hub.authorize
            async def may(session: Session, action: Action, name: str) -> bool:
                asked.append((session.user, str(action), name))
                return True

            async with serving(hub) as server, connect(server.address, "bob") as bob:
                await bob.join("lobby", last=1)
                await bob.ask("chat", room="lobby")
                await bob.ask("chat", to="carol")
                await bob.ask("chat")
                await bob.ask("history", room="lobby")
                await bob.ask("presence", room="lobby")
                await bob.ask("users", ids=["carol", "bob"])

                assert asked == [
                    ("bob", "join", "lobby"),
                    ("bob", "history", "lobby"),
                    ("bob", "presence", "lobby"),
                    ("bob", "publish", "lobby"),
                    ("bob", "send", "carol"),
                    ("bob", "broadcast", ""),
                    ("bob", "history", "lobby"),
                    ("bob", "presence", "lobby"),
                    ("bob", "send", "carol"),
                ]

        run(main())

    @pytest.mark.parametrize(
        ("answer", "roles", "allowed"),
        [
            (True, {}, True),
            (True, ROLES, True),
            (False, {}, False),
            (False, {"*": {"rooms": {"*": ["join"]}}}, False),
            (None, {}, False),
            (None, ROLES, False),
            (None, {"*": {"rooms": {"*": ["join"]}}}, True),
        ],
    )
    @pytest.mark.parametrize("blocking", [False, True], ids=["async", "thread"])
    def test_its_answer_counts_first(self, answer: bool | None, roles: Any, allowed: bool, blocking: bool) -> None:
        """Where it has no opinion and nobody else has one, the answer is no."""

        async def main() -> None:
            hub = Hub()
            if blocking:
                hub.authorize(lambda session, action, name: answer)
            else:

                @hub.authorize
                async def may(session: Session, action: Action, name: str) -> bool | None:
                    return answer

            async with serving(hub, roles=roles) as server, connect(server.address, "bob") as bob:
                assert ((await bob.ask("join", room="lobby"))["type"] == "joined") is allowed

        run(main())

    @pytest.mark.parametrize("answer", ["yes", 1, [], object()])
    def test_what_is_not_clearly_a_yes_is_none(self, answer: object) -> None:
        """`internal` for the sender, a line in the log for the operator."""

        async def main() -> None:
            hub = Hub()
            hub.authorize(lambda session, action, name: answer)  # type: ignore[arg-type,return-value]  # the very mistake
            async with serving(hub) as server, connect(server.address, "bob") as bob:
                assert (await bob.ask("chat", content="x"))["code"] == "internal"
                assert (await bob.ask("join", room="lobby"))["code"] == "internal"
                assert bob.heard("chat") == []
                assert await server.hub.members("lobby") == []

        run(main(), logs_errors=True)

    def test_it_keeps_the_order_of_a_session(self) -> None:
        """A hook that waits holds back this session's later messages, and nobody else's."""

        async def main() -> None:
            hub = Hub()

            def may(session: Session, action: Action, name: str) -> bool:
                # In a thread: each takes its own time.
                time.sleep(0.002 if session.user == "bob" else 0)
                return True

            hub.authorize(may)
            async with serving(hub) as server, connect(server.address, "bob") as bob:
                for number in range(20):
                    await bob.say(number, id=f"m{number}")
                await eventually(lambda: len(bob.heard("chat")) == 20)

                assert [message["content"] for message in bob.heard("chat")] == list(range(20))
                assert [ack["id"] for ack in bob.heard("ack")] == [f"m{number}" for number in range(20)]

        run(main())

    def test_a_retry_is_still_harmless(self) -> None:
        async def main() -> None:
            hub = Hub()
            hub.authorize(lambda session, action, name: True)
            async with serving(hub) as server, connect(server.address, "bob") as bob:
                first = await bob.ask("chat", content="x", id="m1", echo=False)
                again = await bob.ask("chat", content="x", id="m1", echo=False)

                assert again["duplicate"] is True and again["seq"] == first["seq"]

        run(main())
