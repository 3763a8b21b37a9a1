"""Chromium agrees on compression by itself, and its pages notice nothing."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
from playwright.async_api import async_playwright

from e2e.test_chat_page import FLAGS
from support.client import connect
from support.loop import eventually, run
from support.server import serving

# Opens a socket that writes down what it hears.
OPEN = """address => new Promise(resolve => {
    window.heard = [];
    window.socket = new WebSocket(address);
    socket.onmessage = event => heard.push(JSON.parse(event.data));
    socket.onopen = () => resolve(socket.extensions);
})"""


@pytest.mark.parametrize("compression", [True, False], ids=["on", "off"])
def test_a_page_talks_to_a_client_without_compression(compression: bool) -> None:
    """Long messages, both ways; the browser's own tools show what was answered."""
    long = "all work and no play " * 200

    async def main() -> None:
        chromium = shutil.which("chromium")
        if chromium is None:
            pytest.fail("These tests need Chromium: install it so that `chromium` is in the PATH.")
        async with (
            serving(compression=compression) as server,
            connect(server.address, "bob") as bob,
            async_playwright() as playwright,
        ):
            browser = await playwright.chromium.launch(executable_path=chromium, args=FLAGS)
            try:
                page = await browser.new_page()
                devtools = await page.context.new_cdp_session(page)
                answers: list[dict[str, Any]] = []
                devtools.on("Network.webSocketHandshakeResponseReceived", lambda event: answers.append(event))
                await devtools.send("Network.enable")
                await page.goto(f"{server.address}/health")
                address = server.address.replace("http", "ws", 1)
                extensions = await page.evaluate(OPEN, f"{address}/ws?user_id=anna")

                assert extensions.startswith("permessage-deflate") is compression
                await bob.say(long)
                await page.wait_for_function("heard.length == 1")
                assert (await page.evaluate("heard[0].content")) == long
                await page.evaluate("long => socket.send(JSON.stringify({type: 'chat', content: long}))", long)
                heard = await bob.expect("chat", **{"from": "anna"})
                assert heard["content"] == long
                await eventually(lambda: answers)
                [answer] = answers
                headers = {name.lower(): value for name, value in answer["response"]["headers"].items()}
                assert ("sec-websocket-extensions" in headers) is compression
            finally:
                await browser.close()

    run(main())
