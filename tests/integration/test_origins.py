"""A page comes in where it may, on every path; and a cookie counts only for a page that was meant."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import InvalidStatus

from hubbub import Credentials, Hub
from hubbub.transports.base import Handshake
from support.certificates import AUTHORITY
from support.client import connect, open_client
from support.loop import run
from support.origins import NEVER
from support.server import get, serving

LISTED = "https://app.example.com"


def hub_with_cookies(seen: list[Handshake] | None = None) -> Hub:
    """A hub that knows a token, and a cookie."""
    hub = Hub()

    @hub.authenticate
    async def who(credentials: Credentials) -> str | None:
        handshake = credentials.handshake
        assert handshake is not None
        if seen is not None:
            seen.append(handshake)
        if credentials.token is not None:
            return {"good": "alice"}.get(credentials.token)
        return {"good": "carol"}.get(handshake.cookies.get("session", ""))

    return hub


COOKIE = {"Cookie": "theme=dark; session=good"}
TOKEN = {"Authorization": "Bearer good"}


async def refusal(address: str, headers: dict[str, str], **options: Any) -> dict[str, str]:
    """What a handshake is refused with: 403, and JSON."""
    with pytest.raises(InvalidStatus) as refused:
        await open_client(address, None, headers=headers, **options)
    response = refused.value.response

    assert response.status_code == 403
    assert response.headers["Content-Type"] == "application/json"
    error: dict[str, str] = json.loads(response.body or b"")["error"]
    assert error["code"] == "forbidden"
    return error


# What can be sent in a header at all.
SENT = [origin for origin in NEVER.values() if origin == origin.strip() and origin.isascii() and "\0" not in origin]


def test_no_page_comes_in_that_only_looks_like_one_that_may() -> None:
    """However good its token and its cookie are; and it is not told which pages may."""

    async def main() -> None:
        seen: list[Handshake] = []
        async with serving(hub_with_cookies(seen), dev=False, origins=f"{LISTED},http://plain.example") as server:
            for origin in SENT:
                for proof in (TOKEN, COOKIE):
                    error = await refusal(server.address, {"Origin": origin, **proof})

                    assert error["message"] == "this page may not connect"

            assert len(SENT) > 30
            # Nobody was even asked about them.
            assert seen == [] and server.hub.statistics().connections == 0

    run(main())


def test_two_origins_are_no_handshake() -> None:
    """Two readers of such a request could disagree about it."""

    async def main() -> None:
        async with serving(hub_with_cookies(), dev=False, origins=LISTED) as server:
            answer = await get(
                server.address,
                "/ws?token=good",
                *("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
                *("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", f"Origin: {LISTED}", f"Origin: {LISTED}"),
            )

            assert (answer.status, answer.json()["error"]["code"]) == (400, "bad_message")

    run(main())


@pytest.mark.parametrize("proof", [TOKEN, COOKIE], ids=["token", "cookie"])
def test_pages_that_may_come_in(proof: dict[str, str]) -> None:
    """Listed ones, those of the server's own host, and what is no page."""

    async def main() -> None:
        async with serving(hub_with_cookies(), dev=False, origins=["capacitor://localhost", LISTED]) as server:
            for origin in (LISTED, "capacitor://localhost", server.address, None):
                headers = {**proof, **({} if origin is None else {"Origin": origin})}
                async with connect(server.address, None, headers=headers) as client:
                    await client.say("me")

                    assert (await client.expect("chat"))["from"] == ("alice" if proof is TOKEN else "carol")

    run(main())


def test_with_any_a_foreign_page_comes_in_without_its_cookies() -> None:
    """The browser sends them whether or not the user wants it to; a token is the page's own."""

    async def main() -> None:
        seen: list[Handshake] = []
        async with serving(hub_with_cookies(seen), dev=False, origins="any") as server:
            for origin in ("https://evil.example", "null", "http://localhost:3000"):
                with pytest.raises(InvalidStatus) as refused:
                    await open_client(server.address, None, headers={"Origin": origin, **COOKIE})
                assert refused.value.response.status_code == 401
                async with connect(server.address, None, headers={"Origin": origin, **COOKIE, **TOKEN}) as alice:
                    await alice.say("me")
                    assert (await alice.expect("chat"))["from"] == "alice"

            assert all("cookie" not in handshake.headers and handshake.cookies == {} for handshake in seen)
            # A page of the server's own may show its cookie as before.
            async with connect(server.address, None, headers={"Origin": server.address, **COOKIE}) as carol:
                await carol.say("me")
                assert (await carol.expect("chat"))["from"] == "carol"

    run(main())


def test_who_sends_no_origin_can_be_refused() -> None:
    async def main() -> None:
        async with serving(hub_with_cookies(), dev=False, require_origin=True) as server:
            assert (await refusal(server.address, TOKEN))["message"] == "this page may not connect"
            async with connect(server.address, None, headers={"Origin": server.address, **TOKEN}):
                pass
            # It is about WebSocket: probes are no browsers either.
            assert (await get(server.address, "/health")).status == 200

    run(main())


@pytest.mark.parametrize("path", ["/ws?user_id=alice", "/echo"])
def test_every_path_asks(path: str, caplog: pytest.LogCaptureFixture) -> None:
    """In dev mode it is said what to do, to the client and in the log: browsers show nobody why."""

    async def main() -> None:
        async with serving() as server:
            address = server.address.replace("http", "ws", 1) + path
            for origin, remedy in (
                ("https://evil.example", "allow them with --origins https://evil.example"),
                ("http://localhost.evil.example", "allow them with --origins http://localhost.evil.example"),
                ("null", "serve them from a web server, not from a file or in a sandbox"),
            ):
                with pytest.raises(InvalidStatus) as refused:
                    await open_websocket(address, additional_headers={"Origin": origin}, proxy=None)

                assert refused.value.response.status_code == 403
                said = json.loads(refused.value.response.body or b"")["error"]["message"]
                assert said == f"pages of {origin} may not connect: {remedy}"
            for origin in ("http://localhost:5173", server.address):
                async with open_websocket(address, additional_headers={"Origin": origin}, proxy=None):
                    pass

    with caplog.at_level(logging.WARNING):
        run(main())

    assert [record.getMessage().startswith("refused: pages of ") for record in caplog.records] == [True] * 3


def test_over_tls_a_plain_page_of_the_same_host_is_foreign(tmp_path: Any) -> None:
    async def main() -> None:
        pair: dict[str, Any] = {**AUTHORITY.signs().written(tmp_path)}
        async with serving(hub_with_cookies(), dev=False, **pair) as server:
            plain = server.address.replace("https", "http")
            await refusal(server.address, {"Origin": plain, **COOKIE})
            async with connect(server.address, None, headers={"Origin": server.address, **COOKIE}):
                pass

    run(main())


def test_behind_a_trusted_proxys_tls_too() -> None:
    """What the browser sees is the proxy's: its host, and its TLS."""

    async def main() -> None:
        async with serving(hub_with_cookies(), dev=False, trusted_proxies="127.0.0.1,::1") as server:
            behind = {"X-Forwarded-Proto": "https", **COOKIE}
            await refusal(server.address, {"Origin": server.address, **behind})
            page = server.address.replace("http", "https")
            async with connect(server.address, None, headers={"Origin": page, **behind}):
                pass

    run(main())
