"""Pages in a real Chromium, which sends the origin and the cookies that it sends: who can connect, and as whom.

A page from elsewhere is one of another port of localhost: another origin, with which the browser shares the cookies.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import BrowserContext, async_playwright

from e2e.test_chat_page import FLAGS
from hubbub import Credentials, Hub
from hubbub.server import Server
from support.loop import run
from support.server import serving

# Resolves to whether the connection was opened.
CONNECT = """address => new Promise(resolve => {
    const socket = new WebSocket(address);
    socket.onopen = () => { socket.close(); resolve(true); };
    socket.onerror = () => resolve(false);
})"""


# Gets a ticket with a token, and connects with it; resolves to whether that worked.
BY_TICKET = """async address => {
    const headers = { Authorization: "Bearer good" };
    try {
        const answer = await fetch(`${address}/api/tickets`, { method: "POST", headers });
        const { ticket } = await answer.json();
        return await CONNECT(`${address.replace("http", "ws")}/ws?ticket=${ticket}`);
    } catch { return false; }
}""".replace("CONNECT", f"({CONNECT})")


class Asked:
    """A hub that believes a token and a cookie, and what it was shown."""

    def __init__(self) -> None:
        self.hub = Hub()
        # Whether there was a cookie, for each time that it was asked.
        self.cookies: list[bool] = []

        @self.hub.authenticate
        async def who(credentials: Credentials) -> str | None:
            assert credentials.handshake is not None
            cookie = credentials.handshake.cookies.get("session")
            self.cookies.append(cookie is not None)
            return "alice" if "good" in (credentials.token, cookie) else None


@contextlib.asynccontextmanager
async def window(server: Server) -> AsyncIterator[BrowserContext]:
    """A browser in which somebody has logged in at the server."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.fail("These tests need Chromium: install it so that `chromium` is in the PATH.")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        try:
            context = await browser.new_context()
            await context.add_cookies([{"name": "session", "value": "good", "url": server.address}])
            yield context
        finally:
            await browser.close()


async def connects(context: BrowserContext, page_of: Server, server: Server, query: str = "") -> bool:
    """Whether a page of one server can connect to another, or the same."""
    page = await context.new_page()
    try:
        await page.goto(f"{page_of.address}/health")
        address = server.address.replace("http", "ws", 1)
        found: bool = await page.evaluate(CONNECT, f"{address}/ws{query}")
        return found
    finally:
        await page.close()


def test_a_page_of_another_origin_cannot_connect() -> None:
    """Neither with the cookie that the browser sends along, nor with a token of its own."""

    async def main() -> None:
        asked = Asked()
        async with serving(asked.hub, dev=False) as server, serving() as other, window(server) as context:
            assert not await connects(context, other, server)
            assert not await connects(context, other, server, "?token=good")
            # Nobody was asked, so nobody could have believed it.
            assert asked.cookies == []
            # It was sent: what is the server's own gets in by it.
            assert await connects(context, server, server)
            assert asked.cookies == [True]
            await context.clear_cookies()
            assert not await connects(context, other, server)
            assert not await connects(context, server, server)
            assert asked.cookies == [True, False]

    run(main())


def test_a_page_that_was_listed_can() -> None:
    async def main() -> None:
        asked = Asked()
        async with (
            serving() as other,
            serving(asked.hub, dev=False, origins=other.address) as server,
            window(server) as context,
        ):
            assert await connects(context, other, server)
            assert asked.cookies == [True]

    run(main())


def test_a_page_gets_a_ticket_where_it_may_connect() -> None:
    """Across origins the browser asks the server first, and lets no page read what it may not."""

    async def main() -> None:
        asked = Asked()
        async with (
            serving() as other,
            serving() as stranger,
            serving(asked.hub, dev=False, origins=other.address) as server,
            window(server) as context,
        ):
            for page_of, works in ((other, True), (server, True), (stranger, False)):
                page = await context.new_page()
                await page.goto(f"{page_of.address}/health")

                assert await page.evaluate(BY_TICKET, server.address) is works
                await page.close()

    run(main())


def test_where_every_page_can_its_cookies_count_for_nothing() -> None:
    async def main() -> None:
        asked = Asked()
        async with (
            serving() as other,
            serving(asked.hub, dev=False, origins="any") as server,
            window(server) as context,
        ):
            assert not await connects(context, other, server)
            assert await connects(context, other, server, "?token=good")
            assert asked.cookies == [False, False]

    run(main())
