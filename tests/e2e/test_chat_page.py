"""The chat page in a real Chromium, against a real server: what a person sees, does, and must not lose."""

from __future__ import annotations

import asyncio
import json
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Locator,
    Page,
    WebSocketRoute,
    expect,
    sync_playwright,
)

from hubbub.client import connect

START_TIMEOUT = 15.0
STOP_TIMEOUT = 15.0

# The longest that a page may take to come back: its waits double, and the server is away for a second or two.
RETURN_TIMEOUT = 30_000

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# While the server is away the browser itself reports what it could not reach; that is no error of the page.
EXPECTED_WHILE_AWAY = re.compile(r"WebSocket connection to .* failed|Failed to load resource: net::ERR_")


class Server:
    """`hubbub serve --dev` in a process of its own, which can be ended and started again at the same address."""

    def __init__(self, rate_limit: str = "off") -> None:
        # Off, for the tests type faster than a person.
        self._rate_limit = rate_limit
        self.url = ""
        self.was_away = False
        self._process: subprocess.Popen[str] | None = None

    @property
    def ws(self) -> str:
        return self.url.replace("http", "ws", 1) + "/ws"

    def start(self) -> None:
        port = self.url.rpartition(":")[2] or "0"
        # No grace: that somebody has gone shows at once.
        options = ["--port", port, "--presence-grace", "0", "--rate-limit", self._rate_limit]
        command = [sys.executable, "-m", "hubbub", "serve", "--dev", *options]
        process = self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, args=(process, lines), daemon=True).start()
        said = []
        while (line := lines.get(timeout=START_TIMEOUT)) is not None:
            said.append(line)
            if ready := re.search(r"ready on (http://\S+)", line):
                self.url = ready[1]
                return
        pytest.fail(f"the server ended before it was ready: {''.join(said)}")

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self._process is None:
            return
        self.was_away = True
        self._process.send_signal(how)
        try:
            self._process.wait(STOP_TIMEOUT)
        finally:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT)
            self._process = None

    @staticmethod
    def _read(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
        assert process.stdout is not None
        with process.stdout as output:
            for line in output:
                lines.put(line)
        lines.put(None)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    server.start()
    yield server
    server.end()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.fail("These tests need Chromium: install it so that `chromium` is in the PATH.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


class Windows:
    """The browser windows of a test, and the errors of their pages."""

    def __init__(self, browser: Browser, server: Server) -> None:
        self._browser = browser
        self._server = server
        self.opened: list[BrowserContext] = []
        self.errors: list[str] = []

    def new(self, width: int = 1280) -> BrowserContext:
        window = self._browser.new_context(viewport={"width": width, "height": 800}, locale="en-GB")
        window.set_default_timeout(10_000)
        self.opened.append(window)
        return window

    def open(self, user: str | None = None, width: int = 1280, window: BrowserContext | None = None) -> Page:
        """The chat page, in a window of its own: a tab behind another is slowed down by the browser."""
        page = (window or self.new(width)).new_page()
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.goto(f"{self._server.url}/?user_id={user}" if user else self._server.url)
        if user:
            expect_online(page)
        return page

    def terminal(self, user: str) -> Terminal:
        return Terminal(self.new().new_page(), self._server, user)

    def _console(self, message: ConsoleMessage) -> None:
        expected = self._server.was_away and EXPECTED_WHILE_AWAY.search(message.text)
        if message.type in ("error", "warning") and not expected:
            self.errors.append(message.text)


@pytest.fixture
def windows(browser: Browser, server: Server) -> Iterator[Windows]:
    """Opens the page; when the test ends, no page may have had an error."""
    windows = Windows(browser, server)
    yield windows
    for window in windows.opened:
        window.close()
    assert windows.errors == []


class Terminal:
    """A plain client such as wscat: no subprotocol, no hello. It lives in a page, for want of a client in Python."""

    def __init__(self, page: Page, server: Server, user: str) -> None:
        self._page = page
        page.goto(f"{server.url}/web/client.js")
        page.evaluate(
            """address => new Promise((resolve, reject) => {
                window.heard = [];
                window.socket = new WebSocket(address);
                window.socket.onmessage = event => window.heard.push(JSON.parse(event.data));
                window.socket.onopen = resolve;
                window.socket.onerror = () => reject(new Error("no connection"));
            })""",
            f"{server.ws}?user_id={user}",
        )

    def type(self, **envelope: Any) -> None:
        self._page.evaluate("line => window.socket.send(line)", json.dumps(envelope))

    def expect(self, **fields: Any) -> dict[str, Any]:
        """Waits until a message with these fields has come."""
        found = self._page.wait_for_function(
            "fields => window.heard.find(message =>"
            " Object.entries(fields).every(([name, value]) => message[name] === value))",
            arg=fields,
        )
        message: dict[str, Any] = found.json_value()
        return message


def expect_online(page: Page, timeout: float = 10_000) -> None:
    expect(page.locator("#connection")).to_have_attribute("data-state", "online", timeout=timeout)


def messages(page: Page, text: str) -> Locator:
    """The messages on the page with exactly this text."""
    exactly = re.compile(f"^{re.escape(text)}$")
    return page.get_by_role("log").locator(".message").filter(has=page.locator(".text").filter(has_text=exactly))


def say(page: Page, text: str) -> None:
    box = page.locator("#message")
    box.fill(text)
    box.press("Enter")
    expect(box).to_have_value("")


def expect_state(page: Page, text: str, state: str, timeout: float = 10_000) -> None:
    expect(messages(page, text).get_by_role("img", name=state, exact=True)).to_have_count(1, timeout=timeout)


def conversation(page: Page, name: str) -> Locator:
    return page.get_by_role("navigation", name="Conversations").get_by_role("button", name=re.compile(rf"\b{name}\b"))


def expect_no_sideways_scroll(page: Page) -> None:
    widths = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert widths[0] <= widths[1]


def test_two_tabs_of_one_browser_are_two_people_who_talk(windows: Windows) -> None:
    """The name is the tab's, and what one says reaches the other once, and is marked as accepted for oneself."""
    browser_window = windows.new()
    first, second = windows.open(window=browser_window), windows.open(window=browser_window)
    for page, name in ((first, "ada"), (second, "grace")):
        page.get_by_label("Your name").fill(name)
        page.get_by_role("button", name="Start chatting").click()
        expect_online(page)
    people = first.get_by_role("complementary", name="People")
    expect(people.get_by_role("button", name="grace")).to_be_visible()

    say(first, "hello, grace")
    say(second, "hello, ada")

    for page in (first, second):
        expect(messages(page, "hello, grace")).to_have_count(1)
        expect(messages(page, "hello, ada")).to_have_count(1)
    expect_state(first, "hello, grace", "Accepted")
    expect(messages(second, "hello, grace").locator(".author")).to_have_text("ada")

    second.close()
    expect(people.get_by_role("button", name="grace")).to_contain_text(re.compile("Offline|Last seen"))


def test_a_direct_message_reaches_one_person_and_says_so(windows: Windows) -> None:
    """A click on a member writes to them alone; the sender sees that it was delivered, nobody else sees it."""
    alice, bob, eve = windows.open("alice"), windows.open("bob"), windows.open("eve")
    alice.get_by_role("complementary", name="People").get_by_role("button", name="bob").click()
    say(alice, "only for you")

    expect_state(alice, "only for you", "Delivered")
    unread = conversation(bob, "alice")
    expect(unread).to_contain_text("1 unread")
    unread.click()
    expect(messages(bob, "only for you")).to_have_count(1)
    expect(unread).not_to_contain_text("unread")
    say(bob, "and for you")
    expect(messages(alice, "and for you")).to_have_count(1)
    expect(conversation(eve, "alice")).to_have_count(0)


def test_a_direct_message_waits_for_somebody_who_is_away(windows: Windows) -> None:
    """An inbox is kept: who comes later finds the message unread, and only then is it delivered."""
    alice, bob = windows.open("alice"), windows.open("bob")
    alice.get_by_role("complementary", name="People").get_by_role("button", name="bob").click()
    bob.close()
    expect(alice.locator("#subtitle")).to_have_text(re.compile("Offline|Last seen"))
    say(alice, "for later")
    expect_state(alice, "for later", "Accepted")

    bob = windows.open("bob")

    expect(conversation(bob, "alice")).to_contain_text("1 unread")
    expect_state(alice, "for later", "Delivered")


def test_who_joins_sees_what_was_said_and_can_read_further_back(windows: Windows, server: Server) -> None:
    """A room opens with its last 50 messages, the ones before come when asked for, in order and once."""
    terminal = windows.terminal("bot")
    terminal.type(type="join", room="lobby", id="join")
    terminal.expect(type="joined")
    for number in range(120):
        terminal.type(type="chat", room="lobby", content=f"line {number}", id=f"m{number}")
    terminal.expect(type="ack", id="m119")

    page = windows.open("alice")
    shown = page.locator("#messages .text")
    expect(shown).to_have_count(50)
    expect(shown.last).to_be_in_viewport()
    earlier = page.get_by_role("button", name="Load earlier messages")
    for count in (100, 120):
        earlier.click()
        expect(shown).to_have_count(count)

    assert shown.all_text_contents() == [f"line {number}" for number in range(120)]
    expect(earlier).to_be_hidden()
    expect(page.locator("#messages .divider").first).to_have_text("Today")


def test_a_long_room_stays_short_on_the_page(windows: Windows, server: Server) -> None:
    """The page holds 500 elements however much is said, follows the newest, and leaves a reader further up alone."""
    page = windows.open("alice")
    terminal = windows.terminal("bot")
    terminal.type(type="join", room="lobby", id="join")
    for number in range(700):
        terminal.type(type="chat", room="lobby", content=f"line {number}", id=f"m{number}")
    terminal.expect(type="ack", id="m699")
    items = page.locator("#messages > li")
    expect(messages(page, "line 699")).to_be_in_viewport()
    expect(items).to_have_count(500)

    page.get_by_role("log").evaluate("log => log.scrollTo(0, 2000)")
    latest = page.get_by_role("button", name="Latest messages")
    expect(latest).to_be_visible()
    terminal.type(type="chat", room="lobby", content="news", id="news")
    terminal.expect(type="ack", id="news")

    expect(items).to_have_count(500)
    expect(messages(page, "news")).to_have_count(0)
    latest.click()
    expect(messages(page, "news")).to_be_in_viewport()
    expect(items).to_have_count(500)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "drained"])
def test_a_restart_of_the_server_loses_and_doubles_nothing(
    windows: Windows, server: Server, how: signal.Signals
) -> None:
    """The page counts down, keeps what is written meanwhile, comes back by itself and sends it once."""
    alice, bob = windows.open("alice"), windows.open("bob")
    say(alice, "before")
    expect(messages(bob, "before")).to_have_count(1)

    server.end(how)
    for page in (alice, bob):
        expect(page.locator("#connection-label")).to_have_text(re.compile(r"Reconnecting in \d+ s"))
        expect(page.get_by_role("button", name="Retry now")).to_be_visible()
    say(alice, "while away, from alice")
    say(bob, "while away, from bob")
    expect_state(alice, "while away, from alice", "Sending")
    server.start()

    for page in (alice, bob):
        expect_online(page, RETURN_TIMEOUT)
    expect_state(alice, "while away, from alice", "Accepted")
    expect_state(bob, "while away, from bob", "Accepted")
    say(alice, "after")
    expect(messages(bob, "after")).to_have_count(1)
    for page in (alice, bob):
        for text in ("before", "while away, from alice", "while away, from bob", "after"):
            expect(messages(page, text)).to_have_count(1)
        expect(page.locator("#subtitle")).to_have_text("2 people here")


def test_retry_now_does_not_wait_for_the_countdown(windows: Windows, server: Server) -> None:
    """The button tries at once, whatever the countdown says."""
    page = windows.open("alice")
    server.end(signal.SIGKILL)
    # The waits double: after a few tries they are long enough for a person, and for this test.
    expect(page.locator("#connection-label")).to_have_text(re.compile(r"in ([5-9]|\d\d) s"), timeout=60_000)
    server.start()

    page.get_by_role("button", name="Retry now").click()

    expect_online(page, 4_000)


def test_a_cut_at_the_worst_moment_loses_and_doubles_nothing(windows: Windows) -> None:
    """A message whose `ack` is lost is sent again and not shown twice; what others said meanwhile is recovered."""
    routes: list[WebSocketRoute] = []
    deaf = threading.Event()

    def through(page_side: WebSocketRoute) -> None:
        server_side = page_side.connect_to_server()
        routes.append(page_side)
        server_side.on_message(lambda text: None if deaf.is_set() else page_side.send(text))

    bob = windows.open("bob")
    window = windows.new()
    window.route_web_socket(re.compile("user_id=alice"), through)
    alice = windows.open("alice", window=window)
    say(alice, "first")
    expect_state(alice, "first", "Accepted")

    deaf.set()
    say(alice, "is it there?")
    expect(messages(bob, "is it there?")).to_have_count(1)
    expect_state(alice, "is it there?", "Sending")
    say(bob, "yes, once")
    deaf.clear()
    routes[-1].close(code=1012, reason="cut")

    expect_state(alice, "is it there?", "Accepted")
    expect(messages(alice, "yes, once")).to_have_count(1)
    say(alice, "good")
    expect(messages(bob, "good")).to_have_count(1)
    assert len(routes) == 2
    for page in (alice, bob):
        texts = page.locator("#messages .text").all_text_contents()
        assert texts == ["first", "is it there?", "yes, once", "good"]


def test_a_hole_is_noticed_and_filled(windows: Windows) -> None:
    """A publication that got lost on the way is seen by the next one's `seq`, and fetched from the room's history."""

    def through(page_side: WebSocketRoute) -> None:
        server_side = page_side.connect_to_server()
        server_side.on_message(lambda text: None if json.loads(text).get("content") == "lost" else page_side.send(text))

    bob = windows.open("bob")
    window = windows.new()
    window.route_web_socket(re.compile("user_id=alice"), through)
    alice = windows.open("alice", window=window)

    for text in ("one", "lost", "two"):
        say(bob, text)

    expect(alice.locator("#messages .text")).to_have_text(["one", "lost", "two"])


def test_an_end_for_good_is_not_argued_with(windows: Windows) -> None:
    """After a close code of 4500–4999 the page does not come back by itself, and says that it is disconnected."""
    routes: list[WebSocketRoute] = []

    def through(page_side: WebSocketRoute) -> None:
        page_side.connect_to_server()
        routes.append(page_side)

    window = windows.new()
    window.route_web_socket(re.compile("user_id=alice"), through)
    page = windows.open("alice", window=window)
    routes[-1].close(code=4504, reason="An operator ended this session.")

    expect(page.locator("#connection")).to_have_attribute("data-state", "stopped")
    expect(page.locator("#connection-label")).to_have_text("Disconnected")
    expect(page.locator("#connection")).to_have_attribute("title", "An operator ended this session.")
    assert len(routes) == 1
    page.get_by_role("button", name="Reconnect").click()
    expect_online(page)
    expect(page.locator("#message")).to_be_focused()


def test_too_much_to_keep_gives_up_the_oldest_and_says_so(windows: Windows, server: Server) -> None:
    """While the server is away 100 messages wait; the one before them is marked as not sent and can be sent again."""
    page = windows.open("alice")
    server.end(signal.SIGKILL)
    expect(page.locator("#connection")).to_have_attribute("data-state", re.compile("waiting|connecting"))
    page.evaluate(
        """() => {
            for (let number = 0; number <= 100; number += 1) {
                document.querySelector("#message").value = `line ${number}`;
                document.querySelector("#composer").requestSubmit();
            }
        }"""
    )
    expect_state(page, "line 0", "Not sent")
    expect(messages(page, "line 0")).to_contain_text("too many", ignore_case=True)
    expect(page.get_by_role("img", name="Sending")).to_have_count(100)
    server.start()

    expect_online(page, RETURN_TIMEOUT)
    expect(page.get_by_role("img", name="Accepted")).to_have_count(100)
    page.get_by_role("button", name="Try again: line 0").click()
    expect(page.get_by_role("img", name="Accepted")).to_have_count(101)
    expect(page.locator("#messages .text").last).to_have_text("line 0")


def test_a_reload_keeps_the_tab_as_it_was(windows: Windows) -> None:
    """Name, rooms, Everyone and both sides of a direct exchange are there after a reload, each message once."""
    alice, bob = windows.open("alice"), windows.open("bob")
    alice.get_by_label("Join or create a room").fill("garden")
    alice.keyboard.press("Enter")
    conversation(alice, "Everyone").click()
    say(alice, "to all")
    expect(conversation(bob, "Everyone")).to_contain_text("1 unread")
    conversation(alice, "lobby").click()
    alice.get_by_role("complementary", name="People").get_by_role("button", name="bob").click()
    say(alice, "hello, bob")
    expect_state(alice, "hello, bob", "Delivered")
    conversation(bob, "alice").click()
    say(bob, "hello, alice")
    expect(messages(alice, "hello, alice")).to_have_count(1)

    alice.reload()

    expect_online(alice)
    expect(alice.locator("#title")).to_have_text("bob")
    expect(alice.locator("#messages .text")).to_have_text(["hello, bob", "hello, alice"])
    expect(conversation(alice, "garden")).to_be_visible()
    conversation(alice, "Everyone").click()
    expect(alice.locator("#messages .text")).to_have_text(["to all"])


def test_a_terminal_and_the_page_talk(windows: Windows, server: Server) -> None:
    """What the empty room tells a newcomer to type works as it stands, and neither side needs more than that."""
    page = windows.open("alice")
    commands = page.locator("#empty code")
    expect(commands.first).to_have_text(f"npx wscat -c '{server.ws}?user_id=bob'")
    join, chat = (json.loads(text) for text in commands.all_text_contents()[1:])

    terminal = windows.terminal("bob")
    terminal.type(**join)
    terminal.expect(type="joined", room="lobby")
    terminal.type(**chat)
    terminal.type(type="chat", content="hi, all")

    expect(messages(page, "hello")).to_have_count(1)
    expect(page.locator("#empty")).to_be_hidden()
    everyone = conversation(page, "Everyone")
    expect(everyone).to_contain_text("1 unread")
    everyone.click()
    expect(messages(page, "hi, all")).to_have_count(1)
    conversation(page, "lobby").click()
    say(page, "hello, bob")
    assert terminal.expect(type="chat", content="hello, bob")["from"] == "alice"


def test_content_is_shown_as_text_whatever_it_is(windows: Windows, server: Server) -> None:
    """Markup is never run, other content is compact JSON, other types carry their name."""
    page = windows.open("alice")
    terminal = windows.terminal("<b>bob</b>")
    markup = "<img src=x onerror=\"document.title='owned'\"> <script>1</script>"
    terminal.type(type="join", room="lobby")
    terminal.type(type="chat", room="lobby", content=markup)
    terminal.type(type="deploy", room="lobby", content={"version": [1, 2], "ok": True})
    terminal.type(type="chat", room="lobby", content=None)
    terminal.type(type="photo", room="lobby", content="AAECAw==", binary=True)

    expect(messages(page, markup)).to_have_count(1)
    expect(messages(page, '{"version":[1,2],"ok":true}').locator(".tag")).to_have_text("deploy")
    expect(messages(page, "null")).to_have_count(1)
    expect(messages(page, "<4 bytes>").locator(".tag")).to_have_text("photo")
    expect(page.locator(".author").first).to_have_text("<b>bob</b>")
    expect(page.locator("#chat img, #chat script, #chat b")).to_have_count(0)
    expect(page).to_have_title("lobby · Hubbub")


def test_what_is_too_long_is_said_in_plain_words(windows: Windows) -> None:
    """Nothing is sent that the server would not take, and the text is not lost."""
    page = windows.open("alice")
    page.locator("#message").fill("x" * 70_000)
    page.locator("#message").press("Enter")

    expect(page.locator("#toasts")).to_have_text("That message is too long.")
    expect(page.locator("#message")).to_have_value("x" * 70_000)
    page.get_by_role("button", name="Dismiss").click()
    expect(page.locator("#toasts")).to_be_empty()
    expect_online(page)


def test_a_room_is_left_for_good(windows: Windows) -> None:
    """After leaving, nothing of the room arrives, and its members see one person less."""
    alice, bob = windows.open("alice"), windows.open("bob")
    expect(bob.locator("#subtitle")).to_have_text("2 people here")
    alice.get_by_role("button", name="Leave #lobby").click()

    expect(bob.locator("#subtitle")).to_have_text("1 person here")
    expect(conversation(alice, "lobby")).to_have_count(0)
    expect(alice.locator("#title")).to_have_text("Everyone")
    say(bob, "gone?")
    expect_state(bob, "gone?", "Accepted")
    alice.get_by_label("Join or create a room").fill("#lobby")
    alice.keyboard.press("Enter")
    expect(messages(alice, "gone?")).to_have_count(1)


def test_it_all_works_with_the_keyboard_alone(windows: Windows) -> None:
    """Skip link, Enter and Shift+Enter, arrows through the rooms, Alt+arrows from anywhere: no mouse is needed."""
    bob = windows.open("bob")
    page = windows.open()
    page.keyboard.type("alice")
    page.keyboard.press("Enter")
    expect_online(page)
    expect(page.get_by_role("textbox", name="Message #lobby")).to_be_focused()
    page.reload()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the message box")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("textbox", name="Message #lobby")).to_be_focused()
    page.keyboard.type("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    page.keyboard.press("Enter")
    expect(messages(bob, "one\ntwo")).to_have_count(1)

    conversation(page, "lobby").focus()
    page.keyboard.press("ArrowUp")
    expect(conversation(page, "Everyone")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#title")).to_have_text("Everyone")
    expect(page.get_by_role("textbox", name="Message Everyone")).to_be_focused()
    page.keyboard.type("from the keys")
    page.keyboard.press("Enter")
    expect(conversation(bob, "Everyone")).to_contain_text("1 unread")
    page.keyboard.press("Alt+ArrowDown")
    expect(page.locator("#title")).to_have_text("#lobby")

    page.get_by_role("complementary", name="People").get_by_role("button", name="bob").focus()
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Enter")
    expect(page.get_by_role("textbox", name="Message bob")).to_be_focused()


def test_it_fits_a_phone(windows: Windows) -> None:
    """At 360 px nothing is wider than the screen; the sides are drawers that Escape closes."""
    page = windows.open(width=360)
    expect_no_sideways_scroll(page)
    page.get_by_role("button", name="Start chatting").click()
    expect_online(page)
    expect_no_sideways_scroll(page)
    say(page, "w" * 300)
    expect_state(page, "w" * 300, "Accepted")
    expect_no_sideways_scroll(page)
    expect(page.locator("#message")).to_be_in_viewport(ratio=1)

    rail, main = page.locator("#rail"), page.locator("#conversation")
    button = page.get_by_role("button", name="Rooms and direct messages")
    expect(rail).not_to_be_in_viewport()
    button.click()
    expect(rail).to_be_in_viewport()
    expect(conversation(page, "lobby")).to_be_focused()
    assert main.evaluate("main => main.inert")
    expect_no_sideways_scroll(page)
    page.keyboard.press("Escape")
    expect(rail).not_to_be_in_viewport()
    expect(button).to_be_focused()

    page.get_by_role("button", name="People", exact=True).click()
    expect(page.locator("#people")).to_be_in_viewport()
    expect_no_sideways_scroll(page)
    page.mouse.click(20, 400)
    expect(page.locator("#people")).not_to_be_in_viewport()


def test_a_screen_reader_finds_its_way(windows: Windows, server: Server) -> None:
    """Regions, lists and the log have roles and names, each control has a name, connection changes are announced."""
    windows.open("bob")
    page = windows.open("alice")
    say(page, "hello")
    expect_state(page, "hello", "Accepted")

    expect(page.get_by_role("main")).to_have_count(1)
    expect(page.get_by_role("heading", level=1)).to_have_text("#lobby")
    expect(page.get_by_role("navigation", name="Conversations")).to_be_visible()
    expect(page.get_by_role("list", name="Rooms").get_by_role("listitem")).to_have_count(2)
    expect(conversation(page, "lobby")).to_have_attribute("aria-current", "true")
    expect(page.get_by_role("complementary", name="People").get_by_role("button", name="online: bob")).to_be_visible()
    log = page.get_by_role("log", name="Messages in lobby")
    expect(log).to_have_attribute("aria-live", "polite")
    expect(log.get_by_role("listitem")).to_contain_text(["You"])
    expect(page.get_by_role("textbox", name="Message #lobby")).to_be_visible()
    expect(page.locator("#announcer")).to_have_role("status")
    tree = page.locator("body").aria_snapshot()
    assert re.findall(r"- (?:button|textbox|link|navigation|log|complementary)(?: \[.*)?:?$", tree, re.M) == []

    server.end(signal.SIGKILL)
    expect(page.locator("#announcer")).to_have_text(re.compile("connection is lost"))
    server.start()
    expect_online(page, RETURN_TIMEOUT)
    expect(page.locator("#announcer")).to_have_text("Connected.")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(windows: Windows, scheme: Any) -> None:
    """WCAG AA: at least 4.5 : 1 between each kind of text and what is behind it, in both colour schemes."""
    page = windows.open("alice")
    page.emulate_media(color_scheme=scheme)
    page.reload()
    expect_online(page)
    say(page, "hello")
    expect_state(page, "hello", "Accepted")
    pairs = [
        ("--ink", "--ground"),
        ("--ink", "--raised"),
        ("--ink", "--mine"),
        ("--ink", "--chosen"),
        ("--ink", "--wait-ground"),
        ("--soft", "--ground"),
        ("--soft", "--rail"),
        ("--soft", "--raised"),
        ("--soft", "--mine"),
        ("--accent-strong", "--ground"),
        ("--accent-strong", "--wait-ground"),
        ("--on-accent", "--accent"),
        ("--bad", "--ground"),
        ("--bad", "--bad-ground"),
    ]
    ratios = page.evaluate(
        """pairs => {
            const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
            const light = name => {
                canvas.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(name);
                canvas.fillRect(0, 0, 1, 1);
                const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map(value => {
                    const part = value / 255;
                    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
                });
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            return pairs.map(([text, ground]) => {
                const [dark, bright] = [light(text), light(ground)].sort((one, other) => one - other);
                return [text, ground, (bright + 0.05) / (dark + 0.05)];
            });
        }""",
        pairs,
    )

    assert [pair for pair in ratios if pair[2] < 4.5] == []


def test_a_burst_that_is_too_fast_goes_out_later_in_order_and_once(browser: Browser) -> None:
    """`rate_limited` is no failure (spec/client.md 7): the client waits, and nothing of it is seen."""
    server = Server("20/s burst 10")
    server.start()
    try:
        page = browser.new_page()
        page.goto(f"{server.url}/?user_id=alice")
        heard = page.evaluate(
            """address => new Promise(async (resolve, reject) => {
                const { HubbubClient } = await import("/web/client.js");
                const client = new HubbubClient(address);
                const [heard, accepted, sent] = [[], [], []];
                client.addEventListener("failed", event => reject(event.detail.code));
                client.addEventListener("accepted", event => accepted.push(event.detail.id));
                client.addEventListener("message", event => {
                    heard.push(event.detail.message.content);
                    if (heard.length === 60) resolve({ heard, accepted, sent });
                });
                client.addEventListener("joined", event => {
                    if (event.detail.room !== "burst") return;
                    for (let number = 0; number < 60; number++)
                        sent.push(client.send({ type: "chat", room: "burst", content: number }));
                });
                for (const room of ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "burst"]) client.join(room);
                client.connect();
            })""",
            f"{server.ws}?user_id=bob",
        )

        assert heard["heard"] == list(range(60))
        assert heard["accepted"] == heard["sent"][: len(heard["accepted"])]
    finally:
        server.end()


def test_a_page_gets_a_large_message_whole_and_in_its_place(server: Server, windows: Windows) -> None:
    """A megabyte comes in chunks, which may cut a character in two."""
    page = windows.new().new_page()
    page.goto(f"{server.url}/web/client.js")
    page.evaluate(
        """address => new Promise(async resolve => {
            const { HubbubClient } = await import("/web/client.js");
            const got = [];
            window.client = new HubbubClient(address);
            window.three = new Promise((all) => window.client.addEventListener("message", ({ detail }) => {
                if (got.push(detail.message.content) === 3) all(got);
            }));
            window.client.addEventListener("joined", resolve);
            window.client.connect();
            window.client.join("room");
        })""",
        f"{server.ws}?user_id=page",
    )
    contents = ["before", "é😀" * 200_000, "behind"]

    async def send() -> None:
        async with connect(f"{server.url}/?user_id=python") as client:
            await client.join("room")
            await asyncio.gather(*(client.send("chat", content, room="room") for content in contents))

    # Playwright has the event loop of this thread.
    sender = threading.Thread(target=lambda: asyncio.run(send()))
    sender.start()
    got = page.evaluate("window.three")
    sender.join()

    assert got == contents
