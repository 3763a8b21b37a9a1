"""How long a proof is good: it ends on the live connection, can be renewed, revoked, and given on by a ticket."""

from __future__ import annotations

import asyncio
import base64
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from websockets.exceptions import InvalidStatus

from hubbub import Action, Credentials, Hub, HubbubError, Identity, Message, Next, Session, Unavailable
from hubbub.auth.jwt import JwtAuthenticator
from hubbub.core.revocations import Revocation, Revocations
from hubbub.core.tickets import LIFE
from hubbub.hub.tickets import redeem
from hubbub.types import Publication, token_id
from support.client import FULL, connect
from support.loop import eventually, run
from support.server import Answer, get, serving
from support.tokens import SECRET, claims, private_key, public_pem, token

# The wheel's slot and a turn: a timer may be so late.
LATE = 1.0


def in_ms(seconds: float) -> int:
    return int((time.time() + seconds) * 1000)


def a_hub(known: dict[str, Identity | str]) -> Hub:
    hub = Hub()

    @hub.authenticate
    async def who(credentials: Credentials) -> Identity | str | None:
        handshake = credentials.handshake
        if credentials.token is None and handshake is not None and handshake.cookies.get("sid") == "c":
            return "carol"
        return known.get(credentials.token or "")

    return hub


def a_slow_hub(known: Identity | str) -> tuple[Hub, asyncio.Event, asyncio.Event]:
    """A hub that takes every token for this, when it may answer; the events that it was asked, and that it may."""
    hub, asked, answer = Hub(), asyncio.Event(), asyncio.Event()

    @hub.authenticate
    async def who(credentials: Credentials) -> Identity | str | None:
        if credentials.token is None:
            return None
        asked.set()
        await answer.wait()
        return known

    return hub, asked, answer


async def post(address: str, path: str, *lines: str) -> Answer:
    return await get(address, path, *lines, "Connection: close", "Content-Length: 0", method="POST")


async def refused(address: str, query: str, status: int = 401) -> None:
    with pytest.raises(InvalidStatus) as refusal:
        async with connect(address, None, query=query):
            pass

    assert refusal.value.response.status_code == status


class TestExpiry:
    @pytest.mark.parametrize("full", [False, True], ids=["plain", "full"])
    def test_a_token_that_ends_ends_the_session(self, full: bool) -> None:
        """4003 within a second, and not before."""

        async def main() -> None:
            known: dict[str, Identity | str] = {"a": Identity(user="alice", expires=in_ms(2.5))}
            async with (
                serving(a_hub(known), dev=False) as server,
                connect(server.address, None, query="token=a", full=full) as alice,
            ):
                ends = known["a"].expires  # type: ignore[union-attr]  # it is an identity
                assert ends is not None
                if full:
                    assert alice.welcome["expires"] == ends
                code, _ = await alice.closed()
                late = time.time() - ends / 1000

                assert code == 4003 and 0 <= late <= LATE
                if full:
                    assert alice.seen[-1]["type"] == "goodbye" and alice.seen[-1]["code"] == 4003
                await refused(server.address, "token=a")

        run(main())

    def test_a_token_of_hello_ends_the_session_too(self) -> None:
        async def main() -> None:
            hub = a_hub({"a": Identity(user="alice", expires=in_ms(2.5))})
            async with (
                serving(hub, dev=False) as server,
                connect(server.address, None, subprotocols=[FULL]) as alice,
            ):
                await alice.send({"type": "hello", "token": "a"})
                await alice.expect("welcome")

                assert (await alice.closed())[0] == 4003

        run(main())

    def test_auth_renews_it_without_reconnecting(self) -> None:
        """The new end counts, also where it is none; a token that is not good leaves the old one in force."""

        async def main() -> None:
            known: dict[str, Identity | str] = {
                "a1": Identity(user="alice", expires=in_ms(3)),
                "a2": Identity(user="alice", expires=in_ms(5)),
                "old": Identity(user="alice", expires=in_ms(-1)),
                "b": "bob",
            }
            async with (
                serving(a_hub(known), dev=False) as server,
                connect(server.address, None, query="token=a1", full=True) as alice,
                connect(server.address, None, query="token=a1") as other,
                connect(server.address, None, query="token=a1") as third,
            ):
                assert (await alice.ask("auth", token="a2"))["expires"] == known["a2"].expires  # type: ignore[union-attr]
                for wrong, code in (("x", "unauthorized"), ("old", "unauthorized"), ("b", "conflict")):
                    assert (await other.ask("auth", token=wrong))["code"] == code
                known["a3"] = "alice"
                assert "expires" not in await third.ask("auth", token="a3")

                assert (await other.closed())[0] == 4003
                assert (await alice.closed())[0] == 4003
                assert time.time() * 1000 >= known["a2"].expires  # type: ignore[union-attr]
                await third.sync()

        run(main())

    @pytest.mark.parametrize("ends", [1_800_000_000, 1_800_000_000.5, "tomorrow"])
    def test_a_hook_that_mistakes_the_unit_is_told(self, ends: Any) -> None:
        """Seconds are what tokens and Python count in: nobody comes in by mistake, and the log says what is wrong."""

        async def main() -> None:
            hub = a_hub({"a": Identity(user="alice", expires=ends)})
            async with serving(hub, dev=False) as server:
                await refused(server.address, "token=a", 500)

        run(main(), logs_errors=True)


class TestRevocation:
    def test_a_user_is_out_on_all_devices_within_a_second(self) -> None:
        async def main() -> None:
            known: dict[str, Identity | str] = {
                name: Identity(user="alice", issued=in_ms(-60), expires=in_ms(600)) for name in ("a1", "a2", "a3")
            }
            known["b"] = "bob"
            async with (
                serving(a_hub(known), dev=False) as server,
                connect(server.address, None, query="token=a1") as phone,
                connect(server.address, None, query="token=a2", full=True) as page,
                connect(server.address, None, query="token=b") as bob,
            ):
                started = time.monotonic()

                assert await server.hub.revoke(user="alice") == 2
                assert [(await client.closed())[0] for client in (phone, page)] == [4501, 4501]
                assert time.monotonic() - started <= 1
                # Also one that was never shown here, for it was made before.
                for token in ("a1", "a2", "a3"):
                    await refused(server.address, f"token={token}")
                known["new"] = Identity(user="alice", issued=in_ms(1), expires=in_ms(600))
                async with connect(server.address, None, query="token=new") as again:
                    await again.sync()
                await bob.sync()

        run(main())

    def test_one_token_is_out_and_the_users_others_stay(self) -> None:
        async def main() -> None:
            hub = a_hub({"a1": "alice", "a2": "alice"})
            async with (
                serving(hub, dev=False) as server,
                connect(server.address, None, query="token=a1") as lost,
                connect(server.address, None, query="token=a2") as kept,
            ):
                assert await server.hub.revoke(token="a1") == 1
                assert (await lost.closed())[0] == 4501
                await refused(server.address, "token=a1")
                assert (await kept.ask("auth", token="a1"))["code"] == "unauthorized"
                await kept.sync()

        run(main())

    def test_disconnect_keeps_the_tokens_out_that_it_met(self) -> None:
        """The same client does not come back with them, whatever it makes of 4504."""

        async def main() -> None:
            hub = a_hub({"a1": "alice", "a2": "alice"})
            async with (
                serving(hub, dev=False) as server,
                connect(server.address, None, query="token=a1") as alice,
            ):
                assert await server.hub.disconnect("alice") == 1
                assert (await alice.closed())[0] == 4504
                await refused(server.address, "token=a1")
                async with connect(server.address, None, query="token=a2") as again:
                    await again.sync()

        run(main())

    def test_a_restart_forgets_no_revocation(self, tmp_path: Path) -> None:
        """With a store on disk: who was revoked yesterday is out today."""

        async def main() -> None:
            hub = a_hub({"a": Identity(user="alice", issued=in_ms(-60)), "b1": "bob", "b2": "bob"})
            async with serving(hub, dev=False, data=str(tmp_path)) as server:
                await server.hub.revoke(user="alice")
                await server.hub.revoke(token="b1")
            async with serving(hub, dev=False, data=str(tmp_path)) as server:
                await refused(server.address, "token=a")
                await refused(server.address, "token=b1")
                async with connect(server.address, None, query="token=b2") as bob:
                    await bob.sync()

        run(main())

    def test_a_flood_of_messages_drops_no_revocation(self, tmp_path: Path) -> None:
        """What is kept of rooms makes room for others; what is revoked stays."""

        async def main() -> None:
            for data in ("", str(tmp_path)):
                options: dict[str, Any] = {"history_bytes": 200_000, "data": data, "dedupe_window": 0.01}
                async with serving(dev=True, **options) as server:
                    await server.hub.revoke(token="t1")
                    for number in range(600):
                        await server.hub.publish("chat", "x" * 2_000, room=f"room-{number % 7}")
                        server._engine.sweep()
                    page = await server._engine.after("server:revocations", 0, 10)

                    assert page.complete and len(page.publications) == 1

        run(main())

    def test_while_authentication_waits_a_revocation_is_not_missed(self) -> None:
        """At the handshake and at `hello`: the proof is looked at again when the application has answered."""

        async def main() -> None:
            hub, asked, answer = a_slow_hub(Identity(user="alice", issued=in_ms(-60)))
            async with serving(hub, dev=False) as server:

                async def at_the_handshake() -> None:
                    await refused(server.address, "token=a")

                async def at_hello() -> None:
                    async with connect(server.address, None, subprotocols=[FULL]) as client:
                        await client.send({"type": "hello", "token": "a"})

                        assert (await client.closed())[0] == 4501

                for attempt in (at_the_handshake, at_hello):
                    asked.clear()
                    answer.clear()
                    trying = asyncio.create_task(attempt())
                    await asked.wait()
                    await server.hub.revoke(user="alice")
                    answer.set()
                    await trying

        run(main())

    def test_a_hook_that_knew_the_token_before_it_was_revoked_lets_nobody_in(self) -> None:
        """It has read its database, then the token is forgotten there and revoked here, then it answers."""

        async def main() -> None:
            hub, asked, answer = a_slow_hub("alice")
            async with serving(hub, dev=False) as server:
                trying = asyncio.create_task(refused(server.address, "token=a"))
                await asked.wait()
                await server.hub.revoke(user="alice")
                answer.set()
                await trying

        run(main())

    def test_who_is_there_is_out_whatever_the_clock_says(self) -> None:
        """A token that seems to be of the future, as where the clock was set back: its session is here now."""

        async def main() -> None:
            known: dict[str, Identity | str] = {"a": Identity(user="alice", issued=in_ms(60), expires=in_ms(600))}
            async with (
                serving(a_hub(known), dev=False) as server,
                connect(server.address, None, query="token=a") as alice,
            ):
                assert await server.hub.revoke(user="alice") == 1
                assert (await alice.closed())[0] == 4501
                await refused(server.address, "token=a")

        run(main())

    def test_a_hook_cannot_shorten_a_revocation(self) -> None:
        """An end that moves with each answer is none: what was shown stays out until nothing could be good."""

        async def main() -> None:
            hub = Hub()

            @hub.authenticate
            async def who(credentials: Credentials) -> Identity | None:
                if credentials.token is None:
                    return None
                # By a name of its own, and good for a moment from now.
                return Identity(user="alice", token_id="mine", expires=in_ms(5))

            async with serving(hub, dev=False) as server:
                async with connect(server.address, None, query="token=a"):
                    await server.hub.disconnect("alice")
                server.hub._running.revocations.sweep(in_ms(3_600))
                await refused(server.address, "token=a")
                async with connect(server.address, None, query="token=b") as other:
                    assert await server.hub.revoke(token="b") == 1
                    assert (await other.closed())[0] == 4501

        run(main())

    def test_what_an_expelled_session_had_said_is_not_done(self) -> None:
        """Not even what was waiting for a hook or a middleware when its end came."""

        async def main() -> None:
            hub, asked, answer = a_hub({"a": "alice", "b": "bob"}), asyncio.Event(), asyncio.Event()

            async def wait() -> None:
                asked.set()
                await answer.wait()

            @hub.authorize
            async def may(session: Session, action: Action, name: str) -> bool:
                if action is Action.BROADCAST and session.user == "alice":
                    await wait()
                return True

            @hub.middleware
            async def slowly(message: Message[Any], next: Next) -> Message[Any] | None:
                if message.to == "bob":
                    await wait()
                return await next(message)

            async with serving(hub, dev=False) as server, connect(server.address, None, query="token=b") as bob:
                for fields in ({}, {"to": "bob"}):
                    asked.clear()
                    answer.clear()
                    server.hub._running.revocations = Revocations()
                    async with connect(server.address, None, query="token=a") as alice:
                        await alice.say("psst", **fields)
                        await asked.wait()
                        await server.hub.disconnect("alice")
                        answer.set()
                        assert (await alice.closed())[0] == 4504
                    await eventually(lambda: not server.hub._running.tasks)

                    assert await bob.sync() == []

        run(main())

    def test_a_hello_that_was_given_up_leaves_nothing(self) -> None:
        """The client is gone while the hook is asked: no timer holds its session until the token's end."""

        async def main() -> None:
            hub, asked, answer = a_slow_hub(Identity(user="alice", expires=in_ms(600)))
            async with serving(hub, dev=False) as server:
                before = len(server.hub.wheel)
                async with connect(server.address, None, subprotocols=[FULL]) as client:
                    await client.send({"type": "hello", "token": "a"})
                    await asked.wait()
                    client.cut()
                    await eventually(lambda: not server.hub._running.sessions)
                    answer.set()
                    await eventually(lambda: not server.hub._running.tasks)

                    assert len(server.hub.wheel) <= before

        run(main())

    @pytest.mark.memory
    def test_many_at_once_are_one_walk_over_the_sessions(self) -> None:
        """Heard in one turn of the loop, as of a log that is read: nobody waits long; and none for what is known."""

        class Walked(dict[str, Session]):
            walks = 0

            def values(self) -> Any:
                self.walks += 1
                return super().values()

        async def main() -> None:
            hub = a_hub({"a": Identity(user="alice", issued=in_ms(-60)), "b": "bob", "c": "carol"})
            async with (
                serving(hub, dev=False) as server,
                connect(server.address, None, query="token=a") as alice,
                connect(server.address, None, query="token=b") as bob,
                connect(server.address, None, query="token=c") as carol,
            ):
                node = hub._running
                await eventually(lambda: len(node.present) == 3)
                sessions = node.sessions = Walked(node.sessions)
                (session,) = hub.local_sessions("bob")
                assert session.identity is not None
                names = [*map(str, range(200)), session.identity.token_id]
                told = [Revocation(at=in_ms(0), until=in_ms(600), token_id=name) for name in names]
                told.append(Revocation(at=in_ms(0), until=in_ms(600), user="alice"))
                for _ in range(2):
                    for one in told:
                        content = msgspec.Raw(msgspec.json.encode(one))
                        node.publication("server:revocations", Publication("revoke", content=content), None, None)
                    # The end of this turn.
                    await asyncio.sleep(0)

                assert sessions.walks == 1
                assert [(await client.closed())[0] for client in (alice, bob)] == [4501, 4501]
                await carol.sync()

        run(main())

    def test_a_full_memory_says_so_and_still_ends_sessions(self) -> None:
        async def main() -> None:
            async with (
                serving(a_hub({"a": "alice"}), dev=False) as server,
                connect(server.address, None, query="token=a") as alice,
            ):
                server.hub._running.revocations = Revocations(capacity=0)
                with pytest.raises(Unavailable, match="too many"):
                    await server.hub.revoke(token="a")

                assert (await alice.closed())[0] == 4501
                async with connect(server.address, None, query="token=a") as again:
                    with pytest.raises(Unavailable, match="too many"):
                        await server.hub.disconnect("alice")

                    assert (await again.closed())[0] == 4504

        run(main(), logs_errors=True)

    @pytest.mark.parametrize("arguments", [{}, {"user": "a", "token": "t"}, {"user": ""}, {"user": "a\n"}])
    def test_a_call_that_makes_no_sense_is_refused(self, arguments: Any) -> None:
        async def main() -> None:
            async with serving() as server:
                with pytest.raises(HubbubError):
                    await server.hub.revoke(**arguments)

        run(main())


class TestTickets:
    """`POST /api/tickets` with a proof, then `?ticket=`: once, within half a minute."""

    def test_a_ticket_lets_in_once_with_all_that_the_token_proves(self) -> None:
        async def main() -> None:
            ends = in_ms(600)
            hub = a_hub({"a": Identity(user="alice", roles=("member",), expires=ends)})
            async with serving(hub, dev=False) as server:
                answer = await post(server.address, "/api/tickets", "Authorization: Bearer a")
                given = answer.json()

                assert answer.status == 201 and answer.headers["cache-control"] == "no-store"
                assert 29 < given["expires"] / 1000 - time.time() <= 30
                async with connect(server.address, None, query=f"ticket={given['ticket']}", full=True) as alice:
                    assert alice.welcome["user"] == "alice" and alice.welcome["expires"] == ends
                    (session,) = server.hub.local_sessions("alice")

                    assert session.identity is not None and session.identity.roles == ("member",)
                await refused(server.address, f"ticket={given['ticket']}")

        run(main())

    @pytest.mark.parametrize("lines", [(), ("Authorization: Bearer x",), ("Authorization: Basic YTph",)])
    def test_no_proof_no_ticket(self, lines: tuple[str, ...]) -> None:
        async def main() -> None:
            async with serving(a_hub({"a": "alice"}), dev=False) as server:
                answer = await post(server.address, "/api/tickets", *lines)

                assert answer.status == 401 and answer.json()["error"]["code"] == "unauthorized"
                assert answer.headers["www-authenticate"] == "Bearer"

        run(main())

    @pytest.mark.parametrize(
        "ticket",
        [
            "",
            "guess",
            "%00",
            "a" * 5_000,
            "1.",
            "1.guess",
            "0.x",
            "-1.x",
            "%C2%B2.x",
            "9" * 30 + ".x",
            "9007199254740991.x",
        ],
    )
    def test_a_guessed_ticket_is_none(self, ticket: str) -> None:
        """Nor does `?user_id=` help in dev mode: who shows a ticket means it."""

        async def main() -> None:
            async with serving(a_hub({"a": "alice"})) as server:
                await refused(server.address, f"ticket={ticket}&user_id=mallory")

        run(main())

    def test_a_ticket_is_good_for_half_a_minute(self) -> None:
        async def main() -> None:
            async with serving(a_hub({"a": "alice"}), dev=False) as server:
                given = [(await post(server.address, "/api/tickets", "Authorization: Bearer a")).json() for _ in "12"]
                node = server.hub._running
                for ticket, later, good in zip(given, (LIFE - 1, LIFE), (True, False), strict=True):
                    now = ticket["expires"] - LIFE + later
                    with pytest.MonkeyPatch.context() as patch:
                        patch.setattr(node, "now_ms", lambda now=now: now)

                        assert (await redeem(node, ticket["ticket"]) is not None) is good

        run(main())

    def test_a_ticket_of_another_place_is_none(self) -> None:
        """The secret of one with the place of another, or of what says that one was used."""

        async def main() -> None:
            async with serving(a_hub({"a": "alice", "b": "bob"}), dev=False) as server:
                given = [
                    (await post(server.address, "/api/tickets", f"Authorization: Bearer {token}")).json()["ticket"]
                    for token in "ab"
                ]
                node = server.hub._running
                secrets = [ticket.partition(".")[2] for ticket in given]

                assert await redeem(node, f"1.{secrets[1]}") is None
                bob = await redeem(node, given[1])

                assert bob is not None and (bob.user, bob.token_id) == ("bob", token_id("b"))
                assert [await redeem(node, f"{place}.{secrets[1]}") for place in range(1, 5)] == [None] * 4
                assert await redeem(node, given[0]) is not None

        run(main())

    def test_a_ticket_of_a_revoked_token_is_none(self) -> None:
        async def main() -> None:
            async with serving(a_hub({"a": "alice"}), dev=False) as server:
                given = (await post(server.address, "/api/tickets", "Authorization: Bearer a")).json()
                await server.hub.revoke(token="a")
                await refused(server.address, f"ticket={given['ticket']}")

        run(main())

    def test_a_ticket_counts_before_a_cookie(self) -> None:
        """The browser sends the cookie whether the page wants it or not."""

        async def main() -> None:
            async with serving(a_hub({"a": "alice", "k": "kim"}), dev=False, token_cookie="key") as server:
                given = (await post(server.address, "/api/tickets", "Authorization: Bearer a")).json()
                cookie = {"Cookie": "key=k"}
                async with connect(
                    server.address, None, query=f"ticket={given['ticket']}", headers=cookie, full=True
                ) as c:
                    assert c.welcome["user"] == "alice"
                async with connect(server.address, None, headers=cookie, full=True) as c:
                    assert c.welcome["user"] == "kim"

        run(main())

    def test_a_user_cannot_take_all_tickets(self) -> None:
        async def main() -> None:
            async with serving(a_hub({"a": "alice", "b": "bob"}), dev=False) as server:
                for _ in range(100):
                    assert (await post(server.address, "/api/tickets", "Authorization: Bearer a")).status == 201
                answer = await post(server.address, "/api/tickets", "Authorization: Bearer a")

                assert answer.status == 429 and int(answer.headers["retry-after"]) == 30
                assert (await post(server.address, "/api/tickets", "Authorization: Bearer b")).status == 201

        run(main())

    def test_a_page_that_may_connect_may_ask_for_one(self) -> None:
        """The browser asks first (CORS); a page that may not connect gets neither an answer nor a ticket."""

        async def main() -> None:
            app, evil = "https://app.example.com", "https://evil.example"
            async with serving(a_hub({"a": "alice"}), dev=False, origins=app) as server:
                first = await get(
                    server.address, "/api/tickets", f"Origin: {app}", "Connection: close", method="OPTIONS"
                )

                assert first.status == 204 and first.headers["access-control-allow-origin"] == app
                assert first.headers["access-control-allow-headers"] == "Authorization"
                assert "access-control-allow-credentials" not in first.headers
                given = await post(server.address, "/api/tickets", f"Origin: {app}", "Authorization: Bearer a")

                assert given.status == 201 and given.headers["access-control-allow-origin"] == app
                refusals = [
                    await get(server.address, "/api/tickets", f"Origin: {evil}", "Connection: close", method="OPTIONS"),
                    await post(server.address, "/api/tickets", f"Origin: {evil}", "Authorization: Bearer a"),
                ]

                assert [refusal.status for refusal in refusals] == [403, 403]
                assert not any("access-control-allow-origin" in refusal.headers for refusal in refusals)

        run(main())

    def test_a_ticket_gets_no_other(self) -> None:
        """It would be good for ever: whoever had found one would stay."""

        async def main() -> None:
            async with serving(a_hub({"a": "alice"}), dev=False) as server:
                given = (await post(server.address, "/api/tickets", "Authorization: Bearer a")).json()["ticket"]

                assert (await post(server.address, f"/api/tickets?ticket={given}")).status == 401
                async with connect(server.address, None, query=f"ticket={given}") as alice:
                    await alice.sync()

        run(main())

    def test_only_post(self) -> None:
        """A link or an image of somebody else's must not make one."""

        async def main() -> None:
            async with serving() as server:
                refused = await get(server.address, "/api/tickets")

                assert refused.status == 405 and "POST" in refused.json()["error"]["message"]

        run(main())


class TestJwt:
    """The same with tokens that prove themselves: what is revoked is the token, however it is spelled."""

    KEYS = (
        {"kid": "h", "algorithms": ["HS256"], "secret": SECRET},
        {"kid": "e", "algorithms": ["ES256"], "public_key": public_pem("ES256")},
    )

    def test_a_revoked_token_is_out_in_every_spelling(self) -> None:
        """ECDSA has two signatures for each token, and anybody can make the one of the other."""

        async def main() -> None:
            mine = token(today(), algorithm="ES256", key=private_key("ES256"), kid="e")
            other = turned(mine)
            async with (
                serving(dev=False, jwt_keys=self.KEYS) as server,
                connect(server.address, None, query=f"token={mine}") as alice,
                connect(server.address, None, query=f"token={other}") as twin,
            ):
                assert other != mine and await server.hub.revoke(token=other) == 2
                assert [(await client.closed())[0] for client in (alice, twin)] == [4501, 4501]
                for spelled in (mine, other):
                    await refused(server.address, f"token={spelled}")

        run(main())

    def test_a_token_that_is_not_good_yet_can_be_revoked(self) -> None:
        async def main() -> None:
            soon = token(today(nbf=time.time() + 6), kid="h")
            async with serving(dev=False, jwt_keys=self.KEYS, jwt_leeway=5) as server:
                await refused(server.address, f"token={soon}")
                await server.hub.revoke(token=soon)
                identity = await JwtAuthenticator(server.config.auth).identify(soon, time.time() + 10)

                assert server.hub._running.revocations.concern(identity)

        run(main())

    def test_a_users_token_without_its_time_is_out(self) -> None:
        """It may have been made before. One that says it was made after is in."""

        async def main() -> None:
            timeless = today()
            timeless.pop("iat", None)
            async with serving(dev=False, jwt_keys=self.KEYS) as server:
                async with connect(server.address, None, query=f"token={token(timeless, kid='h')}") as alice:
                    await server.hub.revoke(user=timeless["sub"])

                    assert (await alice.closed())[0] == 4501
                await refused(server.address, f"token={token(timeless, kid='h')}")
                await refused(server.address, f"token={token(timeless | {'iat': int(time.time())}, kid='h')}")
                later = token(timeless | {"iat": time.time() + 1}, kid="h")
                async with connect(server.address, None, query=f"token={later}") as alice:
                    await alice.sync()

        run(main())

    def test_a_cookie_carries_it_where_the_operator_says_so(self) -> None:
        async def main() -> None:
            good = {"Cookie": f"a=b; sid={token(today(), kid='h')}"}
            async with (
                serving(dev=False, jwt_keys=self.KEYS, token_cookie="sid") as server,
                connect(server.address, None, headers=good, full=True) as alice,
            ):
                assert alice.welcome["user"] == today()["sub"]
            async with serving(dev=False, jwt_keys=self.KEYS) as server:
                with pytest.raises(InvalidStatus, match="401"):
                    async with connect(server.address, None, headers=good):
                        pass

        run(main())

    def test_a_hook_comes_first_and_the_keys_take_what_it_does_not_know(self) -> None:
        async def main() -> None:
            async with serving(a_hub({"a": "alice"}), dev=False, jwt_keys=self.KEYS) as server:
                for query in ("token=a", f"token={token(today(sub='bob'), kid='h')}"):
                    async with connect(server.address, None, query=query) as client:
                        await client.sync()
                await refused(server.address, "token=x")

        run(main())


def today(**more: Any) -> dict[str, Any]:
    """Claims that are good now."""
    return claims(iat=time.time() - 60, exp=time.time() + 7_200, **more)


def turned(token: str) -> str:
    """The other ES256 signature of a token: (r, n − s)."""
    text, _, signature = token.rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    made = raw[:32] + (order - int.from_bytes(raw[32:])).to_bytes(32)
    return f"{text}.{base64.urlsafe_b64encode(made).rstrip(b'=').decode()}"
