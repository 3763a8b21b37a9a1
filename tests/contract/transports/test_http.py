"""Plain HTTP on the same port: handed over whole, bounded in time, ended in order."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from contract.transports.harness import PATIENCE, Client, Run, Served, serving
from hubbub.transports.base import TransportLimits
from hubbub.transports.http import HttpStatistics

GET = b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"


class App:
    """An application whose requests can be held back."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.go_on = asyncio.Event()
        self.starlette = Starlette(
            routes=[
                Route("/hello", self.hello),
                Route("/body", self.body, methods=["POST"]),
                Route("/slow", self.slow),
                Route("/large", self.large),
                Route("/ws", self.hello),
            ]
        )

    async def hello(self, request: Request) -> Response:
        return PlainTextResponse("hello")

    async def body(self, request: Request) -> Response:
        self.entered.set()
        return PlainTextResponse(str(len(await request.body())))

    async def slow(self, request: Request) -> Response:
        self.entered.set()
        await self.go_on.wait()
        return PlainTextResponse("at last")

    async def large(self, request: Request) -> Response:
        return PlainTextResponse("x" * (32 << 20))


async def ask(client: Client, request: bytes) -> tuple[int, bytes]:
    client.send(request)
    status, _, body = await client.response()
    return status, body


async def left(served: Served) -> None:
    """Wait until no HTTP connection is left."""
    async with asyncio.timeout(PATIENCE):
        while served.http.connections:
            await asyncio.sleep(0)


async def busy(served: Served, app: App, *clients: Client) -> None:
    """Let each wait for an answer that does not come before `app` goes on."""
    for number, client in enumerate(clients, 1):
        app.entered.clear()
        client.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        async with asyncio.timeout(PATIENCE):
            await app.entered.wait()

        assert served.http.connections == number


def test_requests_are_answered_on_one_connection(run: Run) -> None:
    async def main() -> None:
        async with serving(app=App().starlette) as served:
            client = await served.client()

            assert await ask(client, GET) == (200, b"hello")
            assert await ask(client, GET) == (200, b"hello")
            assert await ask(client, b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n") == (404, b"Not Found")
            assert served.http.connections == 1

    run(main())


def test_what_came_with_the_head_is_handed_over(run: Run) -> None:
    """A body in the same segment, and the next request behind it."""

    async def main() -> None:
        async with serving(app=App().starlette) as served:
            client = await served.client()
            client.send(b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n12345" + GET)

            assert (await client.response())[::2] == (200, b"5")
            assert (await client.response())[::2] == (200, b"hello")

    run(main())


def test_a_head_may_come_in_pieces(run: Run) -> None:
    async def main() -> None:
        async with serving(app=App().starlette) as served:
            client = await served.client()
            for byte in GET:
                client.send(bytes((byte,)))
                await asyncio.sleep(0)

            assert (await client.response())[0] == 200

    run(main())


def test_the_response_is_dated_and_says_no_more_of_us(run: Run) -> None:
    async def main() -> None:
        async with serving(app=App().starlette) as served:
            client = await served.client()
            client.send(GET)
            _, headers, _ = await client.response()

            assert headers["date"].endswith("GMT")
            assert "server" not in headers

    run(main())


def test_http_1_0_and_no_host_are_served(run: Run) -> None:
    """Some load balancers check health like that."""

    async def main() -> None:
        async with serving(app=App().starlette) as served:
            client = await served.client()

            assert await ask(client, b"GET /hello HTTP/1.0\r\n\r\n") == (200, b"hello")
            assert await client.end() == b""

    run(main())


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /ws HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n",
    ],
)
def test_who_wants_no_websocket_gets_http(run: Run, request_: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """On a WebSocket's path too; an upgrade to something else may be ignored (RFC 9110 §7.8)."""

    async def main() -> None:
        async with serving(app=App().starlette) as served:
            client = await served.client()

            assert await ask(client, request_) == (200, b"hello")

    run(main())

    assert caplog.records == []


def test_a_later_request_cannot_become_a_websocket(run: Run) -> None:
    """The port decides once, at the first head; HTTP has no WebSocket to offer."""

    async def main() -> None:
        async with serving(app=App().starlette) as served:
            client = await served.client()
            await ask(client, GET)
            upgrade = b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"

            assert await ask(client, upgrade) == (200, b"hello")

    run(main())


def test_bad_http_is_refused_and_fills_no_log(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with serving(app=App().starlette) as served:
            client = await served.client()
            await ask(client, GET)
            client.send(b"NONSENSE\r\n\r\n")

            assert (await client.end()).startswith(b"HTTP/1.1 400 ")

    with caplog.at_level(logging.WARNING):
        run(main())

    assert caplog.records == []


def test_a_fault_of_the_application_is_logged(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def fail(request: Request) -> Response:
        raise ZeroDivisionError

    async def main() -> None:
        async with serving(app=Starlette(routes=[Route("/hello", fail)])) as served:
            client = await served.client()

            assert (await ask(client, GET))[0] == 500

    run(main())

    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    ("request_", "limit"),
    [
        pytest.param(b"GET /hel", 5, id="half a head"),
        pytest.param(b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n1", 30, id="half a body"),
    ],
)
def test_a_later_request_has_a_deadline_too(run: Run, request_: bytes, limit: int) -> None:
    """Slow-loris on a connection that was once good, whatever it dribbles."""

    async def main() -> None:
        app = App()
        async with serving(TransportLimits(handshake_timeout=5), app=app.starlette) as served:
            client = await served.client()
            await ask(client, GET)
            client.send(request_)
            if b"body" in request_:
                await app.entered.wait()
            else:
                # Nothing can be waited for but its turn to be read.
                [connection] = served.http._connections()
                while connection._awaited is None:
                    await asyncio.sleep(0)
            served.pass_time(limit - 1)
            client.send(b"1")
            await asyncio.sleep(0)

            assert served.http.connections == 1
            served.pass_time(2)
            assert await client.end() == b""
            await left(served)

    run(main())


def test_a_pipelined_body_has_a_deadline_too(run: Run) -> None:
    """Its head was read together with the request before it."""

    async def main() -> None:
        app = App()
        async with serving(app=app.starlette) as served:
            client = await served.client()
            client.send(GET + b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n1")
            await client.response()
            await app.entered.wait()
            served.pass_time(31)

            assert await client.end() == b""
            await left(served)

    run(main())


def test_a_finished_request_has_no_deadline(run: Run) -> None:
    """An application may take its time."""

    async def main() -> None:
        app = App()
        async with serving(app=app.starlette) as served:
            client = await served.client()
            client.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
            await app.entered.wait()
            served.pass_time(120)
            app.go_on.set()

            assert (await client.response())[::2] == (200, b"at last")

    run(main())


def test_a_response_that_nobody_takes_is_dropped(run: Run) -> None:
    async def main() -> None:
        async with serving(app=App().starlette) as served:
            client = await served.client()
            client.stop_reading()
            client.send(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
            async with asyncio.timeout(PATIENCE):
                while not any(each.flow.write_paused for each in served.http._connections()):
                    await asyncio.sleep(0)
            served.pass_time(31)
            await left(served)

    run(main())


def test_idle_connections_are_closed_and_busy_ones_finish(run: Run) -> None:
    """The graceful end: the response in progress is the last of its connection."""

    async def main() -> None:
        app = App()
        async with serving(app=app.starlette) as served:
            idle, busy = await served.client(), await served.client()
            await ask(idle, GET)
            busy.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
            await app.entered.wait()
            closing = asyncio.ensure_future(served.http.close(PATIENCE))

            assert await idle.end() == b""
            assert not closing.done()
            app.go_on.set()
            assert (await busy.response())[::2] == (200, b"at last")
            assert await busy.end() == b""
            await closing

    run(main())


def test_a_request_that_comes_while_closing_is_the_last(run: Run) -> None:
    async def main() -> None:
        async with serving(app=App().starlette) as served:
            client = await served.client()
            served.http.finish()

            assert await ask(client, GET) == (200, b"hello")
            assert await client.end() == b""

    run(main())


def test_closing_waits_no_longer_than_it_may(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        app = App()
        async with serving(app=app.starlette) as served:
            client = await served.client()
            client.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
            await app.entered.wait()
            await served.http.close(0.01)

            assert await client.end() == b""
            await left(served)

    run(main())
    # That a request was cut short is worth a line.
    assert len(caplog.records) == 1
    caplog.clear()


@pytest.mark.parametrize("request_", [GET, b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc"])
def test_one_connection_too_many_is_told_so(run: Run, request_: bytes) -> None:
    """Whoever holds all the connections there may be costs no more than that, and a place that is free is given."""

    async def main() -> None:
        app = App()
        async with serving(app=app.starlette) as served:
            served.http.capacity = 2
            first, second, third = [await served.client() for _ in range(3)]
            await busy(served, app, first, second)
            third.send(request_)
            status, headers, body = await third.response()
            assert (status, headers["connection"], headers["retry-after"]) == (503, "close", "1")
            assert json.loads(body)["error"]["code"] == "unavailable"
            assert await third.end() == b""
            assert served.http.statistics() == HttpStatistics(connections=2, refused=1, shed=0)

            app.go_on.set()
            # What was being served is not cut.
            assert [(await client.response())[2] for client in (first, second)] == [b"at last"] * 2
            fourth = await served.client()
            assert await ask(fourth, GET) == (200, b"hello")

    run(main())


@pytest.mark.parametrize("way", ["silent", "talkative", "at the end"])
def test_who_was_one_too_many_and_stays_is_cut_off(run: Run, way: str) -> None:
    """A refusal may be read in peace, and no longer than that."""

    async def main() -> None:
        app = App()
        async with serving(TransportLimits(close_timeout=5), app=app.starlette) as served:
            served.http.capacity = 1
            holder, client = await served.client(), await served.client()
            await busy(served, app, holder)
            status, _ = await ask(client, GET)
            assert status == 503
            assert len(served.http.turned_away) == 1
            if way == "talkative":
                await client.flood(b"x" * 1_000)
            elif way == "silent":
                served.pass_time(6)
            else:
                app.go_on.set()
                await served.http.close(0)
            async with asyncio.timeout(PATIENCE):
                while served.http.turned_away:
                    await asyncio.sleep(0)

    run(main())


def test_the_refused_make_no_crowd(run: Run) -> None:
    """Beyond as many as are served, the refused are not waited for: connections are bounded in all."""

    async def main() -> None:
        app = App()
        async with serving(app=app.starlette) as served:
            served.http.capacity = 1
            holder, *clients = [await served.client() for _ in range(5)]
            await busy(served, app, holder)
            for client in clients:
                client.send(GET)
                await client.response()

            assert served.http.statistics() == HttpStatistics(connections=1, refused=4, shed=0)
            async with asyncio.timeout(PATIENCE):
                while len(served.http.turned_away) > 1:
                    await asyncio.sleep(0)
            assert all(not refusal.transport.is_closing() for refusal in served.http.turned_away)
            app.go_on.set()

    run(main())


@pytest.mark.parametrize(
    "held",
    [
        pytest.param(GET, id="between two requests"),
        pytest.param(GET + b"G", id="dribbling the next"),
        pytest.param(b"POST /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc", id="dribbling a body"),
    ],
)
def test_who_only_holds_a_place_goes_when_others_come(run: Run, held: bytes) -> None:
    """All places taken by somebody who wants nothing: whoever asks for /health next is answered all the same."""

    async def main() -> None:
        async with serving(app=App().starlette) as served:
            served.http.capacity = 3
            holders = [await served.client() for _ in range(3)]
            for holder in holders:
                holder.send(held)
                await holder.response()
            for shed in (1, 2, 3, 4):
                client = await served.client()

                assert await ask(client, GET) == (200, b"hello")
                assert served.http.statistics() == HttpStatistics(connections=3, refused=0, shed=shed)
            # The oldest first.
            assert await holders[0].end() == b""

    run(main())


def test_an_answer_that_is_still_leaving_is_not_cut(run: Run) -> None:
    """The application is done with it, and the client is not."""

    async def main() -> None:
        async with serving(app=App().starlette) as served:
            served.http.capacity = 1
            slow, client = await served.client(), await served.client()
            slow.stop_reading()
            slow.send(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
            async with asyncio.timeout(PATIENCE):
                while not any(connection.flow.write_paused for connection in served.http.open):
                    await asyncio.sleep(0)

            assert (await ask(client, GET))[0] == 503
            slow.go_on_reading()
            assert len((await slow.response())[2]) == 32 << 20
            # And then it is between two requests like any other.
            newcomer = await served.client()
            assert await ask(newcomer, GET) == (200, b"hello")
            assert served.http.statistics() == HttpStatistics(connections=1, refused=1, shed=1)

    run(main())


@pytest.mark.parametrize("path", [b"/hello", b"/nowhere"])
def test_a_malformed_body_fills_no_log(run: Run, caplog: pytest.LogCaptureFixture, path: bytes) -> None:
    """Any stranger can send one: it gets a 400, or what was answered already, and nothing is logged."""

    async def main() -> None:
        async with serving(app=App().starlette) as served:
            client = await served.client()
            client.send(b"POST %b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" % path)

            assert (await client.end()).startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 404 ", b"HTTP/1.1 405 "))
            await left(served)

    with caplog.at_level(logging.WARNING):
        run(main())

    assert [record for record in caplog.records if record.name != "asyncio"] == []
