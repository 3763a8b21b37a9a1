"""The configurations of `deploy/` in the real nginx and the real HAProxy, in front of real servers."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import InvalidStatus

from hubbub import Credentials, Hub
from hubbub import client as package
from hubbub.config import load
from hubbub.server import Server
from support.certificates import AUTHORITY
from support.client import connect, open_client
from support.deployed import CONFIGURATIONS, Proxy, free_port, proxying
from support.loop import PATIENCE, eventually, run
from support.redis import serving_redis
from support.server import Child, get, serving

# Options of servers behind a proxy on this machine.
BEHIND: dict[str, Any] = {"trusted_proxies": "127.0.0.1", "require_tls": True}

# The setting of each that cuts connections over which nothing goes.
IDLE = {"nginx": "proxy_read_timeout 75s", "haproxy": "timeout tunnel 75s"}

each = pytest.mark.parametrize("program", [*CONFIGURATIONS])


@contextlib.asynccontextmanager
async def deployed(
    program: str, changes: dict[str, str] | None = None, hub: Hub | None = None, **options: Any
) -> AsyncIterator[tuple[Proxy, Server, Server]]:
    """The proxy, and the two servers behind it; the first of them has `hub`."""
    async with serving(hub, **BEHIND, **options) as one, serving(**BEHIND, **options) as two:
        with proxying(program, (port_of(one), port_of(two)), changes) as proxy:
            yield proxy, one, two


def port_of(server: Server) -> int:
    return int(server.address.rpartition(":")[2])


def count(server: Server) -> int:
    """How many sessions a server has."""
    return len(server.hub.local_sessions())


@contextlib.asynccontextmanager
async def from_elsewhere(proxy: Proxy, source: str, first: bytes = b"", **headers: str) -> AsyncIterator[None]:
    """A client that comes from `source`, an address of this machine, and says `first` before TLS begins."""
    sock = socket.socket()
    sock.setblocking(False)
    sock.bind((source, 0))
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", proxy.port))
    await loop.sock_sendall(sock, first)
    async with open_websocket(
        f"wss://127.0.0.1:{proxy.port}/ws?user_id=alice",
        sock=sock,
        ssl=AUTHORITY.trusted,
        additional_headers=headers,
        proxy=None,
    ):
        yield


@each
def test_what_is_passed_on(program: str) -> None:
    """WebSocket both ways in TLS, and tickets; nothing else, and what has no password least of all."""

    async def main() -> None:
        hub = Hub()

        @hub.authenticate
        async def who(credentials: Credentials) -> str | None:
            return "alice" if credentials.token == "good" else None

        async with serving(hub, dev=False, **BEHIND) as server:
            with proxying(program, (port_of(server), port_of(server))) as proxy:
                token = "Authorization: Bearer good"
                answer = await get(
                    proxy.address, "/api/tickets", token, "Content-Length: 0", "Connection: close", method="POST"
                )
                ticket = answer.json()["ticket"]
                async with connect(proxy.address, None, query=f"ticket={ticket}", full=True) as alice:
                    await alice.say("x" * 60_000, to="alice")
                    heard = await alice.expect("chat")
                    with pytest.raises(InvalidStatus) as refused:
                        await open_client(proxy.address, None, query="token=bad")
                    statuses = {
                        path: (await get(proxy.address, path)).status
                        for path in ("/ws", "/", "/health", "/ready", "/metrics", "/ws/", "/api/tickets/")
                    }

                    assert answer.status == 201
                    assert heard["content"] == "x" * 60_000
                    assert refused.value.response.status_code == 401
                    assert b'"unauthorized"' in (refused.value.response.body or b"")
                    assert statuses.pop("/ws") == 426
                    assert set(statuses.values()) == {404}

    run(main())


@each
def test_no_log_has_a_token(program: str) -> None:
    """Neither of who comes in, nor of who does not because no server is there."""

    async def main() -> None:
        with proxying(program, (free_port(), free_port())) as proxy:
            for query in ("token=sesame", "ticket=sesame"):
                with pytest.raises(InvalidStatus) as refused:
                    await open_client(proxy.address, None, query=query)

                assert refused.value.response.status_code in (502, 503)
            await eventually(lambda: proxy.logged().count("/ws") == 2)

            assert "sesame" not in proxy.logged()
        async with deployed(program) as (proxy, _, _):
            async with connect(proxy.address, "alice", query="token=sesame") as alice:
                await alice.sync()
            await eventually(lambda: "/ws" in proxy.logged())

            assert "sesame" not in proxy.logged()

    run(main())


@each
def test_the_clients_address_is_the_clients_and_cannot_be_forged(program: str) -> None:
    """Whatever a client says of itself, the server hears where it really is, and that it came by TLS."""

    async def main() -> None:
        forged: dict[str, Any] = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "http"}
        async with (
            deployed(program) as (proxy, one, two),
            from_elsewhere(proxy, "127.0.0.2"),
            from_elsewhere(proxy, "127.0.0.3", **forged),
        ):
            sessions = [*one.hub.local_sessions(), *two.hub.local_sessions()]

            assert {session.ip for session in sessions} == {"127.0.0.2", "127.0.0.3"}

    run(main())


@each
def test_behind_a_load_balancer_that_speaks_proxy(program: str) -> None:
    """With the lines that the configurations name, the address is the one that it says."""
    changes = {
        "nginx": {
            "ssl reuseport backlog=4096;\n        listen [": "ssl proxy_protocol;\n        listen [",
            "# set_real_ip_from 10.0.0.0/8;": "set_real_ip_from 127.0.0.1;",
            "# real_ip_header proxy_protocol;": "real_ip_header proxy_protocol;",
        },
        "haproxy": {
            "backlog 4096": "backlog 4096 accept-proxy",
            "tcp-request connection track": "tcp-request session track",
            "tcp-request connection reject": "tcp-request session reject",
        },
    }

    async def main() -> None:
        said = b"PROXY TCP4 203.0.113.7 192.0.2.1 50000 443\r\n"
        async with (
            deployed(program, changes[program]) as (proxy, one, two),
            from_elsewhere(proxy, "127.0.0.1", said),
        ):
            sessions = [*one.hub.local_sessions(), *two.hub.local_sessions()]

            assert [session.ip for session in sessions] == ["203.0.113.7"]

    run(main())


@each
def test_who_is_silent_stays_while_the_server_pings(program: str) -> None:
    """Where heartbeats are closer together than the proxy's patience lasts, nobody is cut; otherwise everybody is."""
    patience = {IDLE[program]: IDLE[program].replace("75s", "2s")}

    async def main() -> None:
        beating: dict[str, Any] = {"ping_interval": 0.6, "envelope_ping_interval": 0.6, "pong_timeout": 0.4}
        async with (
            deployed(program, patience, **beating) as (proxy, _, _),
            connect(proxy.address, "listening") as listening,
            connect(proxy.address, "full", full=True) as full,
        ):
            for _ in range(4):
                await full.expect("ping")
                await full.send({"type": "pong"})
            await listening.sync()
            await full.sync()
        async with deployed(program, patience) as (proxy, _, _), connect(proxy.address, "alice") as alice:
            code, _ = await alice.closed()

            assert code == 1006

    run(main())


@each
def test_who_only_talks_stays(program: str) -> None:
    """The server pings nobody whom it hears, and need not say anything: what goes in one direction is enough."""

    async def main() -> None:
        patience = {IDLE[program]: IDLE[program].replace("75s", "1s")}
        async with deployed(program, patience) as (proxy, _, _), connect(proxy.address, "alice") as alice:
            for _ in range(7):
                await alice.say("nothing comes back", to="nobody")
                # Not to wait for something: this is how often it talks.
                await asyncio.sleep(0.25)

            assert alice.seen == []
            await alice.sync()

    run(main())


@each
def test_the_shipped_times_fit_those_of_the_server(program: str) -> None:
    """Who is silent is pinged, and given up, before the proxy cuts; hooks may take their time; readers have theirs."""
    hub, transport = load({}, {}).hub, load({}, {}).transport
    text = CONFIGURATIONS[program].read_text()

    def seconds(name: str) -> float:
        (found,) = re.findall(rf"^ +{name} (\d+)s;?$", text, re.MULTILINE)
        return float(found)

    idle, head, answer, reader = (
        ("proxy_read_timeout", "client_header_timeout", "proxy_read_timeout", "send_timeout")
        if program == "nginx"
        else ("timeout tunnel", "timeout http-request", "timeout server", "timeout client-fin")
    )

    assert hub.ping_interval < hub.silence_limit < seconds(idle) - transport.close_timeout
    assert hub.envelope_ping_interval + hub.pong_timeout < seconds(idle) - transport.close_timeout
    assert seconds(head) == transport.handshake_timeout
    assert seconds(answer) > max(hub.hook_timeout, transport.handshake_timeout)
    assert seconds(reader) == hub.outbox.write_deadline


@each
def test_a_server_that_drains_or_is_gone_gets_nobody_and_nobody_notices(program: str) -> None:
    """Its refusal, or that nobody listens, makes the proxy ask the other one, before any check has found out."""

    async def main() -> None:
        async with (
            deployed(program, close_timeout=20) as (proxy, one, two),
            connect(one.address, "slow", headers={"X-Forwarded-Proto": "https"}) as slow,
            AsyncExitStack() as stack,
        ):
            slow.stall()
            draining = asyncio.ensure_future(one.drain(PATIENCE))
            await eventually(lambda: one.hub.draining)
            for number in range(6):
                await stack.enter_async_context(connect(proxy.address, f"u{number}"))
            slow.resume()
            await draining
            await one.stop()
            for number in range(6, 12):
                await stack.enter_async_context(connect(proxy.address, f"u{number}"))

            assert count(two) == 12

    run(main())


@each
def test_where_all_are_full_the_client_is_told_when_to_come_again(program: str) -> None:
    """The servers' own answer comes through; and as soon as there is a place, it is given away."""

    async def main() -> None:
        async with deployed(program, connections=1) as (proxy, one, two):
            alice, bob = await open_client(proxy.address, "alice"), await open_client(proxy.address, "bob")
            with pytest.raises(InvalidStatus) as refused:
                await open_client(proxy.address, "carol")
            await bob.leave()
            await eventually(lambda: count(one) + count(two) == 1)
            carol = await open_client(proxy.address, "carol")

            assert refused.value.response.status_code == 503
            assert refused.value.response.headers["Retry-After"] == "10"
            await alice.leave()
            await carol.leave()

    run(main())


def test_who_is_not_ready_gets_nobody_new_and_keeps_those_that_it_has(tmp_path: Path) -> None:
    """HAProxy asks `/ready`, which says that the server's Redis is away; when that is back, so is the server."""

    async def main() -> None:
        with serving_redis(tmp_path) as redis:
            async with serving(**BEHIND, engine=redis.url) as one, serving(**BEHIND) as two:
                soon = {"check inter 2s": "check inter 50ms"}
                with proxying("haproxy", (port_of(one), port_of(two)), soon) as proxy:
                    async with connect(one.address, "stays", headers={"X-Forwarded-Proto": "https"}) as stays:
                        await stays.sync()
                        redis.kill()
                        await eventually(lambda: not proxy.is_up("one"))
                        async with AsyncExitStack() as stack:
                            for number in range(4):
                                await stack.enter_async_context(connect(proxy.address, f"u{number}"))

                            assert count(two) == 4
                        await stays.sync()
                        redis.start()
                        await eventually(lambda: proxy.is_up("one"))

    run(main(), logs_errors=True)


class Reader:
    """A client of the package's in a room, and what it has handled."""

    def __init__(self, client: package.Client) -> None:
        self.client = client
        self.heard: list[int] = []

    async def read(self) -> None:
        async for message in self.client:
            self.heard.append(message.content)


@each
def test_a_rolling_restart_under_connected_clients(program: str, tmp_path: Path) -> None:
    """One server after the other is told to stop, the first is started anew between: nothing is lost or doubled."""
    readers, port = 12, free_port()

    async def main() -> None:
        with serving_redis(tmp_path) as redis:
            variables: dict[str, Any] = {
                "HUBBUB_ENGINE": redis.url,
                "HUBBUB_TRUSTED_PROXIES": "127.0.0.1",
                "HUBBUB_REQUIRE_TLS": "true",
                # All come from one address.
                "HUBBUB_HANDSHAKE_RATE_IP": "off",
                # As much as is said while somebody is away.
                "HUBBUB_HISTORY_SIZE": "100000",
            }
            async with AsyncExitStack() as stack:
                one, two = [
                    await stack.enter_async_context(Child.spawned("--dev", *options, **variables))
                    for options in (("--port", str(port)), ())
                ]
                second = int(two.address.rpartition(":")[2])
                proxy = stack.enter_context(proxying(program, (port, second)))
                tasks = await stack.enter_async_context(asyncio.TaskGroup())
                everybody: list[Reader] = []
                url = f"wss://127.0.0.1:{proxy.port}/ws?user_id="
                for number in range(readers + 1):
                    client = package.connect(f"{url}u{number}", ssl=AUTHORITY.trusted)
                    everybody.append(Reader(await stack.enter_async_context(client)))
                    await client.join("lobby")
                    tasks.create_task(everybody[-1].read())
                sender = everybody.pop().client
                stopping, sent = asyncio.Event(), 0

                async def send() -> None:
                    nonlocal sent
                    while not stopping.is_set():
                        await sender.send("chat", sent, room="lobby")
                        sent += 1

                def all_heard(number: int) -> bool:
                    return all(len(reader.heard) >= number for reader in everybody)

                sending = tasks.create_task(send())
                await eventually(partial(all_heard, 20))
                one.signal(signal.SIGTERM)
                status = await one.exit_status()
                await eventually(partial(all_heard, sent + 20))
                await stack.enter_async_context(Child.spawned("--dev", "--port", str(port), **variables))
                two.signal(signal.SIGTERM)
                statuses = [status, await two.exit_status()]
                await eventually(partial(all_heard, sent + 20))
                stopping.set()
                await sending
                await eventually(partial(all_heard, sent))

                assert statuses == [0, 0]
                assert [reader.heard for reader in everybody] == [list(range(sent))] * readers
                for client in (*(reader.client for reader in everybody), sender):
                    await client.close()

    run(main())
