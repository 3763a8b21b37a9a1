"""Nobody comes in without proof of who they are, however the proof travels."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from hubbub import Credentials, Hub, Reject, Session, Unavailable
from support.client import FULL, connect, open_client
from support.loop import eventually, run
from support.server import command, serving

TOKENS = {"secret-of-alice": "alice", "secret-of-bob": "bob"}


def hub_with_tokens(seen: list[Credentials] | None = None) -> Hub:
    """A hub that knows two tokens, and takes a cookie for a third user."""
    hub = Hub()

    @hub.authenticate
    async def who(credentials: Credentials) -> str | None:
        if seen is not None:
            seen.append(credentials)
        if credentials.token is not None:
            return TOKENS.get(credentials.token)
        if credentials.handshake is not None and credentials.handshake.cookies.get("session") == "carols":
            return "carol"
        return None

    return hub


WAYS: dict[str, dict[str, Any]] = {
    "header": {"headers": {"Authorization": "Bearer secret-of-alice"}},
    "query": {"query": "token=secret-of-alice"},
    "subprotocol": {"subprotocols": [FULL, "bearer.secret-of-alice"]},
    "hello": {"subprotocols": [FULL]},
}


def test_without_dev_and_without_a_hook_serve_refuses_to_start() -> None:
    """It says in one sentence what to do, and exits with 2."""

    async def main() -> None:
        status, out, errors = await command("serve", "--port", "0")

        assert status == 2 and out == ""
        assert errors.startswith("hubbub: ") and errors.count("\n") == 1
        assert "--dev" in errors and "@hub.authenticate" in errors

    run(main())


@pytest.mark.parametrize("way", WAYS)
def test_a_token_is_taken_from_where_it_is(way: str) -> None:
    """The Authorization header, the query, the list of subprotocols, or `hello`."""

    async def main() -> None:
        async with (
            serving(hub_with_tokens(), dev=False) as server,
            connect(server.address, None, **WAYS[way]) as alice,
        ):
            if "subprotocols" in WAYS[way]:
                assert alice.raw.subprotocol == FULL
                await alice.send({"type": "hello", **({"token": "secret-of-alice"} if way == "hello" else {})})
                assert (await alice.expect("welcome"))["user"] == "alice"
            await alice.say("me")
            assert (await alice.expect("chat"))["from"] == "alice"

    run(main())


def test_a_hook_sees_the_whole_handshake() -> None:
    """Cookies for instance; a plain session may be proved so, too."""

    async def main() -> None:
        seen: list[Credentials] = []
        async with (
            serving(hub_with_tokens(seen), dev=False) as server,
            connect(server.address, None, headers={"Cookie": "a=b; session=carols"}, query="x=1") as carol,
        ):
            await carol.say("me")

            assert (await carol.expect("chat"))["from"] == "carol"
            [credentials] = seen
            assert credentials.token is None and credentials.handshake is not None
            assert credentials.handshake.query == {"x": "1"} and credentials.handshake.path == "/ws"
            assert "secret" not in repr(Credentials("secret", credentials.handshake)) and "carols" not in repr(seen)

    run(main())


@pytest.mark.parametrize("token", [None, "wrong", "secret-of-alicE", "x" * 5_000])
def test_a_plain_handshake_without_good_proof_is_401(token: str | None) -> None:
    """A JSON body, `WWW-Authenticate`, and not a word about what was sent."""

    async def main() -> None:
        async with serving(hub_with_tokens(), dev=False) as server:
            headers = {} if token is None else {"Authorization": f"Bearer {token}"}
            with pytest.raises(InvalidStatus) as refused:
                await open_client(server.address, "alice", headers=headers)
            response = refused.value.response

            assert response.status_code == 401 and response.headers["WWW-Authenticate"] == "Bearer"
            assert json.loads(response.body or b"")["error"]["code"] == "unauthorized"
            assert token is None or token.encode() not in (response.body or b"")

    run(main())


def test_a_full_handshake_may_bring_its_proof_later_but_not_a_wrong_one() -> None:
    """Without a token `hello` may have it; with a wrong one the handshake is refused already."""

    async def main() -> None:
        async with serving(hub_with_tokens(), dev=False) as server:
            with pytest.raises(InvalidStatus) as refused:
                await open_client(server.address, None, subprotocols=[FULL], query="token=wrong")
            assert refused.value.response.status_code == 401

    run(main())


@pytest.mark.parametrize("hello", [{}, {"token": "wrong"}])
def test_a_hello_without_good_proof_is_4501(hello: dict[str, str]) -> None:
    """An error `unauthorized`, then the close: no session has begun."""

    async def main() -> None:
        async with (
            serving(hub_with_tokens(), dev=False) as server,
            connect(server.address, None, subprotocols=[FULL]) as stranger,
        ):
            await stranger.send({"type": "hello", "id": "h", **hello})
            error = await stranger.expect("error", id="h")

            assert error["code"] == "unauthorized"
            assert (await stranger.closed())[0] == 4501
            assert [message["type"] for message in stranger.seen] == ["error"]

    run(main())


def test_the_token_of_hello_counts_before_that_of_the_handshake() -> None:
    async def main() -> None:
        async with (
            serving(hub_with_tokens(), dev=False) as server,
            connect(server.address, None, subprotocols=[FULL], query="token=secret-of-alice") as session,
            connect(server.address, None, subprotocols=[FULL], query="token=secret-of-alice") as wrong,
        ):
            await session.send({"type": "hello", "token": "secret-of-bob"})
            assert (await session.expect("welcome"))["user"] == "bob"
            await wrong.send({"type": "hello", "token": "wrong"})
            assert (await wrong.closed())[0] == 4501

    run(main())


def test_auth_takes_a_new_token_of_the_same_user_only() -> None:
    """Another user's is a conflict, a wrong one unauthorized, and the session goes on with the old one."""

    async def main() -> None:
        async with (
            serving(hub_with_tokens(), dev=False) as server,
            connect(server.address, None, query="token=secret-of-alice") as alice,
        ):
            assert await alice.ask("auth", token="secret-of-alice", id="r1") == {"type": "ack", "id": "r1"}
            for token, code in (("secret-of-bob", "conflict"), ("wrong", "unauthorized")):
                answer = await alice.ask("auth", token=token)

                assert (answer["type"], answer["code"]) == ("error", code)
            await alice.say("still me")
            assert (await alice.expect("chat"))["from"] == "alice"

    run(main())


def test_user_id_is_believed_in_dev_mode_only() -> None:
    """With a hook and without --dev it is nothing but a query."""

    async def main() -> None:
        async with serving(hub_with_tokens(), dev=False) as server:
            with pytest.raises(InvalidStatus) as refused:
                await open_client(server.address, "alice")
            assert refused.value.response.status_code == 401
        async with (
            serving() as server,
            connect(server.address, "ålice 😀/?&=") as named,
            connect(server.address, None) as guest,
            connect(server.address, "") as empty,
        ):
            for session, user in ((named, "ålice 😀/?&="), (guest, "guest-"), (empty, "guest-")):
                await session.say("who am I?", to="ålice 😀/?&=", id="i")
                await session.expect("ack", id="i")
                assert (await named.expect("chat"))["from"].startswith(user)

    run(main())


@pytest.mark.parametrize("name", ["x" * 129, "a\nb", "a\x00", "\x9f"])
def test_a_user_id_that_is_no_name_is_400(name: str) -> None:
    async def main() -> None:
        async with serving() as server:
            with pytest.raises(InvalidStatus) as refused:
                await open_client(server.address, name)
            assert refused.value.response.status_code == 400
            assert json.loads(refused.value.response.body or b"")["error"]["code"] == "bad_message"

    run(main())


def test_unknown_subprotocols_are_400() -> None:
    """A browser would otherwise drop the connection without a reason; a token alone is no codec."""

    async def main() -> None:
        async with serving() as server:
            for offered in (["chat"], ["hubbub.v2.json", "mqtt"], ["bearer.x"]):
                with pytest.raises(InvalidStatus) as refused:
                    await open_client(server.address, "alice", subprotocols=offered)
                assert refused.value.response.status_code == 400

    run(main())


def test_a_hook_that_refuses_by_itself_says_why() -> None:
    """`Reject` in the hook: 403 at the handshake, 4503 after `hello`, with its words."""

    async def main() -> None:
        hub = Hub()

        @hub.authenticate
        async def who(credentials: Credentials) -> str | None:
            if credentials.token == "banned":
                raise Reject("forbidden", "You are banned.")
            return credentials.token

        async with serving(hub, dev=False) as server:
            with pytest.raises(InvalidStatus) as refused:
                await open_client(server.address, None, query="token=banned")
            assert refused.value.response.status_code == 403
            assert json.loads(refused.value.response.body or b"") == {
                "error": {"code": "forbidden", "message": "You are banned."}
            }
            async with connect(server.address, None, subprotocols=[FULL]) as banned:
                await banned.send({"type": "hello", "token": "banned"})
                await banned.expect("error", code="forbidden", message="You are banned.")
                assert (await banned.closed())[0] == 4503

    run(main())


def test_a_hook_that_fails_costs_its_client_500_and_leaks_nothing() -> None:
    """Its exception is in the log, without the token, and not in the answer."""

    async def main() -> None:
        hub = Hub()

        @hub.authenticate
        async def who(credentials: Credentials) -> str | None:
            if credentials.token is not None:
                raise RuntimeError("the database is away")
            return None

        async with serving(hub, dev=False) as server:
            with pytest.raises(InvalidStatus) as refused:
                await open_client(server.address, None, query="token=canary-token")
            response = refused.value.response

            assert response.status_code == 500
            assert b"database" not in (response.body or b"")
            async with connect(server.address, None, subprotocols=[FULL]) as session:
                await session.send({"type": "hello", "token": "canary-token"})
                error = await session.expect("error")

                assert error["code"] == "internal" and "database" not in error["message"]
                assert (await session.closed())[0] == 1011

    run(main(), logs_errors=True)


def test_a_slow_hook_is_given_up() -> None:
    """503 at the handshake, 1013 after `hello`: later may be better."""

    async def main() -> None:
        hub = Hub()
        never = asyncio.Event()

        @hub.authenticate
        async def who(credentials: Credentials) -> str | None:
            if credentials.token is not None:
                await never.wait()
            return None

        async with serving(hub, dev=False, hook_timeout=0.2) as server:
            with pytest.raises(InvalidStatus) as refused:
                await open_client(server.address, None, query="token=x")
            assert refused.value.response.status_code == 503
            async with connect(server.address, None, subprotocols=[FULL]) as session:
                await session.send({"type": "hello", "token": "x"})
                error = await session.expect("error")
                assert error["code"] == "unavailable" and error["retry_after"] > 0
                assert (await session.closed())[0] == 1013
            await eventually(lambda: server.hub.statistics().connections == 0)

    run(main(), logs_errors=True)


def test_a_blocking_hook_runs_in_a_thread() -> None:
    """`def` instead of `async def`: it may block, and the loop goes on meanwhile."""

    async def main() -> None:
        hub = Hub()
        loop = asyncio.get_running_loop()
        asked = asyncio.Event()
        answered: asyncio.Future[str] = loop.create_future()

        @hub.authenticate
        def who(credentials: Credentials) -> str | None:
            loop.call_soon_threadsafe(asked.set)

            async def answer() -> str:
                return await answered

            return asyncio.run_coroutine_threadsafe(answer(), loop).result(20)

        @hub.on_connect
        def connected(session: Session) -> None:
            pass

        async with serving(hub, dev=False) as server:
            opening = asyncio.ensure_future(open_client(server.address, None, full=True))
            await asked.wait()
            answered.set_result("alice")
            alice = await opening

            assert alice.welcome["user"] == "alice"
            await alice.leave()

    run(main())


REJECTS = {
    "limited": (Reject("rate_limited", "Slowly."), 429, "5", 1013),
    "limited for a while": (Reject("rate_limited", "Slowly.", retry_after=7.2), 429, "8", 1013),
    "unavailable": (Unavailable("Later."), 503, "1", 1013),
    "unauthorized": (Reject("unauthorized", "Expired."), 401, None, 4501),
    "forbidden": (Reject("forbidden", "Banned."), 403, None, 4503),
    "bad": (Reject("bad_message", "No token."), 400, None, 4503),
    "its own": (Reject("unpaid", "Pay first."), 403, None, 4503),
    "its own for a while": (Reject("asleep", "Till dawn.", retry_after=60), 503, "60", 1013),
}


@pytest.mark.parametrize("kind", REJECTS)
def test_a_refusal_by_the_hook_says_whether_to_come_again(kind: str) -> None:
    """As a status of the handshake, and as a close code after `hello` (protocol.md §3.1, §7)."""
    reject, status, retry_after, close_code = REJECTS[kind]

    async def main() -> None:
        hub = Hub()

        @hub.authenticate
        async def who(credentials: Credentials) -> str | None:
            if credentials.token is not None:
                raise Reject(reject.code, reject.message, retry_after=reject.retry_after)
            return None

        async with serving(hub, dev=False) as server:
            with pytest.raises(InvalidStatus) as refused:
                await open_client(server.address, None, query="token=x")
            response = refused.value.response

            assert (response.status_code, response.headers.get("Retry-After")) == (status, retry_after)
            assert json.loads(response.body or b"")["error"] == {"code": reject.code, "message": reject.message}
            async with connect(server.address, None, subprotocols=[FULL]) as late:
                await late.send({"type": "hello", "token": "x"})
                await late.expect("error", code=reject.code, retry_after=reject.retry_after)
                assert (await late.closed())[0] == close_code

    run(main())


@pytest.mark.parametrize("named", [42, "canary" * 100, "canary\n", "\ud800"])
def test_a_hook_that_names_no_user_has_failed(named: Any, caplog: pytest.LogCaptureFixture) -> None:
    """500 and 1011, `internal` to `auth`; the log says so without what it returned; no session, no channel."""

    async def main() -> None:
        hub = Hub()

        @hub.authenticate
        async def who(credentials: Credentials) -> str | None:
            return {"bad": named, "good": "alice"}.get(credentials.token or "")

        async with serving(hub, dev=False) as server:
            with pytest.raises(InvalidStatus) as refused:
                await open_client(server.address, None, query="token=bad")
            assert refused.value.response.status_code == 500
            async with connect(server.address, None, subprotocols=[FULL]) as late:
                await late.send({"type": "hello", "token": "bad"})
                await late.expect("error", code="internal")
                assert (await late.closed())[0] == 1011
            async with connect(server.address, None, query="token=good") as alice:
                assert (await alice.ask("auth", token="bad"))["code"] == "internal"
                assert [session.user for session in server.hub.local_sessions()] == ["alice"]
        assert "canary" not in caplog.text and "no user id" in caplog.text

    run(main(), logs_errors=True)


def test_in_dev_mode_a_wrong_token_is_refused_even_with_a_name() -> None:
    """`?user_id=` counts only where no token was shown: a client that shows one means it."""

    async def main() -> None:
        async with serving(hub_with_tokens()) as server:
            for way in ({}, {"subprotocols": [FULL]}):
                with pytest.raises(InvalidStatus) as refused:
                    await open_client(server.address, "bob", query="token=wrong", **way)  # type: ignore[arg-type]
                assert refused.value.response.status_code == 401
            async with (
                connect(server.address, "bob") as named,
                connect(server.address, "bob", query="token=secret-of-alice") as proved,
            ):
                for session, user in ((named, "bob"), (proved, "alice")):
                    await session.send({"type": "chat", "id": user})
                    await session.expect("chat", id=user, from_=user)

    run(main())
