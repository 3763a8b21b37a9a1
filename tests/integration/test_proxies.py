"""Behind a proxy the client's address is the client's, everywhere; and nobody else's word about it counts."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import pytest

from hubbub import Hub
from hubbub.hub.hooks import Credentials
from support.client import connect
from support.loop import run
from support.refusals import behind, refused
from support.server import serving

DEFAULT = "10/s burst 10"


def test_behind_a_trusted_proxy_the_clients_address_is_the_clients() -> None:
    """For sessions, hooks, counts of connections, and the rates of messages and handshakes."""

    async def main() -> None:
        hub, seen = Hub(), []

        @hub.authenticate
        async def authenticate(credentials: Credentials) -> str | None:
            assert credentials.handshake is not None
            seen.append((credentials.handshake.ip, credentials.handshake.secure))
            return "alice"

        options: dict[str, Any] = {
            "trusted_proxies": "127.0.0.0/8,10.0.0.0/8",
            "rate_limit": DEFAULT,
            "rate_limit_ip": "3/m",
            "handshake_rate_ip": "4/m",
            "connections_per_ip": 2,
        }
        async with serving(hub, dev=False, **options) as server, AsyncExitStack() as stack:
            for client in ("203.0.113.5", "203.0.113.6, 10.0.0.9", "6.6.6.6, 203.0.113.5"):
                headers = {"X-Forwarded-Proto": "https"} if client == "203.0.113.5" else {}
                await stack.enter_async_context(connect(server.address, "x", **behind(client, **headers)))

            assert seen == [("203.0.113.5", True), ("203.0.113.6", False), ("203.0.113.5", False)]
            assert [session.ip for session in server.hub.local_sessions("alice")] == [ip for ip, _ in seen]
            # Two connections are as many as that address may have, and the fourth handshake its last.
            for retry_after in (10, 10, 15):
                status = await refused(server.address, "x", **behind("203.0.113.5"))
                assert status is not None
                assert status[0] == 429
                assert retry_after - 1 <= status[1] <= retry_after
            assert await refused(server.address, "x", **behind("203.0.113.7")) is None
            assert len(seen) == 4

    run(main())


def test_the_word_of_somebody_else_is_not_believed() -> None:
    """A client that invents an address does not get past the limit of its own."""

    async def main() -> None:
        async with serving(connections_per_ip=2, trusted_proxies="10.0.0.0/8") as server, AsyncExitStack() as stack:
            for number in range(2):
                client = connect(server.address, "alice", **behind(f"203.0.113.{number}"))
                await stack.enter_async_context(client)

            assert await refused(server.address, **behind("203.0.113.9")) == (429, 10)
            assert {session.ip for session in server.hub.local_sessions("alice")} == {"127.0.0.1"}

    run(main())


def test_a_proxy_that_was_forgotten_is_named_in_the_log_once(caplog: pytest.LogCaptureFixture) -> None:
    """All of its clients would share one limit, and nobody would know why."""

    async def main() -> None:
        async with serving() as server:
            for _ in range(3):
                assert await refused(server.address, **behind("203.0.113.9")) is None

    run(main())

    said = [record.getMessage() for record in caplog.records if "trusted_proxies" in record.getMessage()]
    assert said == [
        "127.0.0.1 sends X-Forwarded-… headers and is none of trusted_proxies: the clients of a proxy count as one"
    ]


def test_what_is_recorded_of_a_refusal_is_the_clients_address(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        limits: dict[str, Any] = {"rate_limit": DEFAULT, "handshake_rate_ip": "1/h", "trusted_proxies": "127.0.0.1"}
        async with serving(**limits) as server:
            for _ in range(2):
                await refused(server.address, **behind("2001:db8::5"))

    with caplog.at_level("INFO", "hubbub.audit"):
        run(main())
    events = [record.__dict__["audit"] for record in caplog.records if record.name == "hubbub.audit"]

    assert {"event": "refusal", "ip": "2001:db8::5", "status": 429, "code": "rate_limited"} in events
    assert {event["ip"] for event in events} == {"2001:db8::5"}
