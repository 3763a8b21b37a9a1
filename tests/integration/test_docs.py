"""What the documentation shows is true: code runs, commands work, exchanges happen, links lead somewhere.

Each block of code of a page runs against the server that the page last started, with the code shown so far:

- `python` and `toml`: a block that begins with a comment of a file name (`# app.py`) begins that file; the blocks
  after it go on with it. It must import; one that a command runs is run there instead.
- `console`: lines with `$` are commands, and really run. What `hubbub serve` prints must be so. With `wscat`, lines
  with `>` are sent and lines with `<` are what must come; where there are both, all of it and nothing else.
- `wire`: the same for several clients. `alice → …` is sent, `bob ← …` must come next; `bob comes`, `bob goes`.
- `json` must be JSON, one text or one a line. `javascript` runs in Chromium.

What cannot run says why: `<!-- not run: reason -->` on the line before the block.
"""

from __future__ import annotations

import asyncio
import json
import re
import runpy
import shlex
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import async_playwright
from websockets.exceptions import InvalidStatus

import hubbub
from hubbub import CloseCode, Hub, Message
from hubbub.config import load
from hubbub.protocol.codes import HANDSHAKE
from support.client import Client, open_client
from support.loop import PATIENCE, run
from support.server import Child, command, get

ROOT = Path(__file__).resolve().parents[2]

# Whose blocks are tested. Those in spec/ have tests of their own; those of bench/ take minutes.
PAGES = sorted(
    path
    for where in ("*.md", "docs/**/*.md", "examples/*/README.md", "deploy/*/README.md")
    for path in ROOT.glob(where)
)

# Programs that are not ours, or do what other tests do: packages are installed in tests/packaging.
OTHERS = {"cd", "git", "kill", "pip", "ulimit"}

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: .+ -->\s*\Z")
FILE_NAME = re.compile(r"# (\w+\.(?:py|toml))\n")
LINK = re.compile(r"\]\(([^()\s]+)\)")
SHOWN_ADDRESS = re.compile(r"(?:localhost|127\.0\.0\.1):8000")
SHOWN_TOKEN = re.compile(r"eyJ[\w.-]*…")
REAL_EPOCH = re.compile(r"[0-9a-f]{8}\.\d+")

# What is another value each time.
VARYING = {"cpu_seconds", "last_seen", "retry_after", "session", "since", "time"}

BROWSER_FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]


@dataclass(frozen=True)
class Block:
    """One block of code of a page."""

    page: Path
    line: int
    language: str
    text: str
    exempt: bool

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def before(self) -> list[Block]:
        """The blocks of the page up to and with this one."""
        return [block for block in blocks_of(self.page) if block.line <= self.line]


def blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        indent, language, body = found.groups()
        before = text[: found.start()]
        yield Block(
            page,
            before.count("\n") + 1,
            language,
            re.sub(rf"^{indent}", "", body, flags=re.MULTILINE),
            NOT_RUN.search(before) is not None,
        )


def blocks(*languages: str) -> list[Any]:
    """The blocks to be tested in these languages, each with a readable id."""
    found = [block for page in PAGES for block in blocks_of(page)]
    return [pytest.param(block, id=str(block)) for block in found if block.language in languages and not block.exempt]


def commands_of(block: Block) -> list[tuple[list[str], dict[str, str], list[str]]]:
    """The commands of a `console` block: words, variables set for them, and the lines shown after them."""
    found: list[tuple[list[str], dict[str, str], list[str]]] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            words = shlex.split(line[2:], comments=True)
            variables = {}
            while words and (name := re.fullmatch(r"(\w+)=(.*)", words[0])):
                variables[name[1]] = name[2]
                del words[0]
            found.append((words, variables, []))
        elif line and found:
            found[-1][2].append(line)
    return found


def is_serve(words: list[str]) -> bool:
    return Path(words[0]).name == "hubbub" and words[1:2] == ["serve"]


def serve_options(block: Block) -> tuple[list[str], dict[str, str]]:
    """The arguments of the last `hubbub serve` that the page has shown, and its variables; the demo's before any."""
    options, set_for_it = ["--dev"], dict[str, str]()
    for shown in block.before:
        if shown.language == "console" and not shown.exempt:
            for words, variables, lines in commands_of(shown):
                if words[:2] == ["make", "run"]:
                    options, set_for_it = ["--dev"], {}
                elif is_serve(words) and not lines_of_refusal(lines):
                    options, set_for_it = words[2:], variables
    if "--port" in options:
        at = options.index("--port")
        options = options[:at] + options[at + 2 :]
    return options, set_for_it


def lines_of_refusal(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("hubbub: ")]


def write_files(block: Block, folder: Path) -> dict[str, str]:
    """Write the files that the page has shown so far; returns them by name. An example's page has real ones."""
    files: dict[str, str] = {}
    name = ""
    for shown in block.before:
        if shown.language in ("python", "toml") and not shown.exempt:
            if named := FILE_NAME.match(shown.text):
                name = named[1]
                files[name] = ""
            files[name] += shown.text
    if ROOT / "examples" in block.page.parents:
        shutil.copytree(block.page.parent, folder, dirs_exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return files


@asynccontextmanager
async def served(block: Block, folder: Path) -> AsyncIterator[Child]:
    """The server that the page last started."""
    write_files(block, folder)
    options, variables = serve_options(block)
    # Who goes has gone in a moment.
    variables = {"HUBBUB_PRESENCE_GRACE": "2", **variables}
    async with Child.spawned(*options, cwd=folder, **variables) as child:  # type: ignore[arg-type]  # strings all
        yield child


# ------------------------------------------------------------------------------------------- code and commands


@pytest.mark.parametrize("block", blocks("python"))
def test_python_can_be_imported(block: Block, tmp_path: Path) -> None:
    """Each block, with those before it in its file, imports without an error."""
    files = write_files(block, tmp_path)
    name = [*files][-1]
    run_by_command = any(
        words[:2] == ["python", name]
        for shown in blocks_of(block.page)
        if shown.language == "console"
        for words, _, _ in commands_of(shown)
    )

    assert name, "say with a first line like `# app.py` which file this is"
    if run_by_command:
        compile(files[name], name, "exec")
    else:
        runpy.run_path(str(tmp_path / name), run_name="shown")


@pytest.mark.parametrize("block", blocks("toml"))
def test_toml_is_a_configuration(block: Block, tmp_path: Path) -> None:
    """Each option exists and may have this value."""
    (tmp_path / "hubbub.toml").write_text(block.text, encoding="utf-8")

    load({}, {}, tmp_path / "hubbub.toml")


@pytest.mark.parametrize("block", blocks("json"))
def test_json_is_json(block: Block) -> None:
    """A block is one JSON text, or one on each line."""
    try:
        json.loads(block.text)
    except json.JSONDecodeError:
        for line in block.text.splitlines():
            json.loads(line)


@pytest.mark.parametrize("block", blocks("console"))
def test_commands_work(block: Block, tmp_path: Path) -> None:
    """Each command that is ours does what is shown."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            server: Child | None = None
            token = ""
            for words, variables, lines in commands_of(block):
                program = Path(words[0]).name
                load({}, variables)
                if program in OTHERS:
                    continue
                if is_serve(words):
                    await check_serve(block, words[2:], variables, lines, tmp_path)
                elif program == "hubbub" and words[1] == "token":
                    status, token, _ = await command(*words[1:], cwd=tmp_path, **variables)

                    assert status == 0
                    assert [line for line in lines if not same_beginning(line, token)] == []
                elif program == "hubbub":
                    await check_command(words[1:], lines)
                elif program == "make":
                    await check_target(words[1:])
                else:
                    if server is None:
                        server = await stack.enter_async_context(served(block, tmp_path))
                    await talk([SHOWN_TOKEN.sub(token.strip(), word) for word in words], lines, server, tmp_path)

    run(main())


def same_beginning(shown: str, token: str) -> bool:
    """Whether the header of the token is as it is shown: the rest is another one each time."""
    return SHOWN_TOKEN.fullmatch(shown) is not None and shown.split(".")[0] == token.split(".")[0]


async def check_serve(
    block: Block, options: list[str], variables: dict[str, str], lines: list[str], folder: Path
) -> None:
    """The server starts and says what is shown, or refuses with the sentence that is shown."""
    write_files(block, folder)
    if refusal := lines_of_refusal(lines):
        status, _, errors = await command("serve", *options, cwd=folder, **variables)

        assert (status, errors.splitlines()) == (2, refusal)
        return
    if "--port" in options:
        options = options[: options.index("--port")] + options[options.index("--port") + 2 :]
    async with Child.spawned(*options, cwd=folder, **variables) as child:  # type: ignore[arg-type]  # strings all
        child.signal(signal.SIGTERM)
        assert child.process.stdout is not None
        said = f"Hubbub is ready on {child.address}\n" + (await child.process.stdout.read()).decode()
        said = said.replace(f":{urlsplit(child.address).port}", ":8000")

        assert await child.exit_status() == 0
        assert [line for line in lines if line not in said.splitlines()] == []


async def check_command(words: list[str], lines: list[str]) -> None:
    """A command that ends by itself prints what is shown; one that does not has the options that are shown."""
    if words == ["--version"]:
        assert (await command(*words))[1].splitlines() == lines
        return
    status, usage, _ = await command(words[0], "--help")

    assert status == 0
    assert [word for word in words[1:] if word.startswith("-") and word not in usage] == []


async def check_target(words: list[str]) -> None:
    """The Makefile can make it."""
    make = await asyncio.create_subprocess_exec(
        "make", "--dry-run", *words, cwd=ROOT, stdout=asyncio.subprocess.DEVNULL
    )
    async with asyncio.timeout(PATIENCE):
        assert await make.wait() == 0


async def talk(words: list[str], lines: list[str], server: Child, folder: Path) -> None:
    """A program that talks to the server."""
    netloc = urlsplit(server.address).netloc
    if words[0] == "curl":
        url = urlsplit(next(word for word in words if "://" in word))
        headers = [value for option, value in pairwise(words) if option == "-H"]
        method = words[words.index("-X") + 1] if "-X" in words else "GET"
        answer = await get(server.address, url.path, *headers, "Content-Length: 0", "Connection: close", method=method)
        status = next((int(line.split()[1]) for line in lines if line.startswith("HTTP/1.1 ")), 200)
        body = [line for line in lines if not line.startswith("HTTP/1.1 ")]

        assert answer.status == (201 if method == "POST" and status == 200 else status)
        assert [line for line in body if line not in answer.body.decode().splitlines()] == []
    elif words[0] == "python":
        script = folder / words[1]
        script.write_text(SHOWN_ADDRESS.sub(netloc, script.read_text(encoding="utf-8")), encoding="utf-8")
        child = await asyncio.create_subprocess_exec(
            sys.executable, words[1], cwd=folder, stdout=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(PATIENCE):
            said, _ = await child.communicate()

        assert (child.returncode, said.decode().splitlines()) == (0, lines)
    elif words[:2] == ["npx", "wscat"]:
        await wscat(words[2:], lines, server.address)
    else:
        pytest.fail(f"a test does not know what {words[0]} does")


# ---------------------------------------------------------------------------------------------------- exchanges


async def wscat(words: list[str], lines: list[str], address: str) -> None:
    """What one typed into wscat, and what it showed."""
    given = dict(zip(words[::2], words[1::2], strict=True))
    url = urlsplit(given["-c"])
    headers = dict([given["-H"].split(": ", 1)]) if "-H" in given else None
    subprotocols = [given["-s"]] if "-s" in given else None

    assert url.path == "/ws"
    try:
        client = await open_client(address, None, query=url.query, headers=headers, subprotocols=subprotocols)
    except InvalidStatus as refused:
        if lines != [f"error: Unexpected server response: {refused.response.status_code}"]:
            raise
        return
    try:
        known: dict[str, str] = {}
        for line in lines:
            if line.startswith("> "):
                await client.send_text(real(line[2:], known))
            elif line.startswith("< "):
                await hear(client, line[2:], known)
            else:
                code, reason = await client.closed()

                assert line == f'Disconnected (code: {code}, reason: "{reason}")'
                return
        heard = await client.sync() if subprotocols is None or lines else []
        if {line[0] for line in lines} == {">", "<"}:
            assert heard == []
        else:
            # Where nothing was typed, what comes by itself goes on coming.
            assert [message for message in heard if message["type"] == "error"] == []
    finally:
        client.cut()
        await client.closed()


@pytest.mark.parametrize("block", blocks("wire"))
def test_exchanges_happen(block: Block, tmp_path: Path) -> None:
    """Every client gets what is shown, in that order, and nothing else."""

    async def main() -> None:
        async with served(block, tmp_path) as server, AsyncExitStack() as stack:
            clients: dict[str, Client] = {}
            known: dict[str, str] = {}
            lines = [line.split(" ", 2) for line in block.text.splitlines() if line]

            async def come(name: str) -> None:
                first = next(line for line in lines if line[0] == name and line[1] != "comes")
                full = first[1] == "→" and json.loads(first[2])["type"] == "hello"
                clients[name] = await open_client(
                    server.address, name, subprotocols=["hubbub.v1.json"] if full else None
                )
                stack.push_async_callback(leave, clients[name])

            for name in dict.fromkeys(line[0] for line in lines):
                if next(line for line in lines if line[0] == name)[1] != "comes":
                    await come(name)
            while lines:
                name, what, *text = lines[0]
                if what == "comes":
                    await come(name)
                elif what == "goes":
                    await leave(clients.pop(name))
                elif what == "→":
                    await clients[name].send_text(real(text[0], known))
                else:
                    assert what == "←"
                    await hear(clients[name], text[0], known)
                del lines[0]
            for client in clients.values():
                assert await client.sync() == []

    run(main())


async def leave(client: Client) -> None:
    client.cut()
    await client.closed()


async def hear(client: Client, shown: str, known: dict[str, str]) -> None:
    """The next message must be this one."""
    wanted, heard = json.loads(shown), await client.expect()

    assert same(wanted, heard, known), f"shown {wanted}, heard {heard}"


def same(shown: Any, heard: Any, known: dict[str, str]) -> bool:
    """Whether both are equal, but for times and the like, and with an epoch's shown name for its real one."""
    if isinstance(shown, dict) and isinstance(heard, dict):
        return shown.keys() == heard.keys() and all(
            (key in VARYING and not isinstance(shown[key], list)) or same(shown[key], heard[key], known)
            for key in shown
        )
    if isinstance(shown, list) and isinstance(heard, list):
        return len(shown) == len(heard) and all(same(*pair, known) for pair in zip(shown, heard, strict=True))
    if isinstance(heard, str) and REAL_EPOCH.fullmatch(heard):
        return known.setdefault(shown, heard) == heard
    return bool(shown == heard)


def real(shown: str, known: dict[str, str]) -> str:
    """A shown message with the real epochs in it."""
    for name, epoch in known.items():
        shown = shown.replace(f'"{name}"', f'"{epoch}"')
    return shown


@pytest.mark.parametrize("block", blocks("javascript"))
def test_javascript_runs_in_a_browser(block: Block, tmp_path: Path) -> None:
    """In a page of the server it raises nothing, and writes to the console what its comments say."""

    async def main() -> None:
        chromium = shutil.which("chromium")

        assert chromium, "this test needs Chromium: install it so that `chromium` is in the PATH"
        async with served(block, tmp_path) as server, async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=chromium, args=BROWSER_FLAGS)
            page = await browser.new_page()
            faults: list[object] = []
            page.on("pageerror", lambda fault: faults.append(fault))
            await page.goto(f"{server.address}/health")
            async with page.expect_console_message(lambda message: message.type == "log") as said:
                script = SHOWN_ADDRESS.sub(urlsplit(server.address).netloc, block.text)
                await page.evaluate("() => {" + script + "}")
            wanted = re.findall(r"// prints (.+)", block.text)

            assert [(await said.value).text] == wanted
            assert faults == []
            await browser.close()

    run(main())


# -------------------------------------------------------------------------------------------------- completeness


@pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES])
def test_every_block_has_a_language(page: Path) -> None:
    """A block without one, or in one that no test knows, would be tested by nobody."""
    known = {"console", "javascript", "json", "python", "text", "toml", "wire"}
    unknown = [str(block) for block in blocks_of(page) if block.language not in known and not block.exempt]

    assert unknown == []


def test_links_lead_somewhere() -> None:
    """Each relative link of each page leads to a file, and to a heading in it where it names one."""
    pages = {*PAGES, *ROOT.glob("spec/**/*.md"), *ROOT.glob("bench/**/*.md"), *ROOT.glob("tests/**/*.md")}
    broken = []
    for page in pages:
        for target in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
            path, _, heading = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            if urlsplit(target).scheme:
                continue
            if not file.exists() or (heading and heading not in headings(file)):
                broken.append(f"{page.relative_to(ROOT)}: {target}")

    assert broken == []


def headings(page: Path) -> set[str]:
    """The anchors of a page, made as GitHub makes them."""
    found = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def test_options_page_is_fresh(capsys: pytest.CaptureFixture[str]) -> None:
    """The page of options is what the tool makes of them now."""
    main = runpy.run_path(str(ROOT / "tools" / "options.py"))["main"]

    assert main(["--check"]) == 0, capsys.readouterr().out


def test_troubleshooting_has_every_code() -> None:
    """Whoever sees a close code or a refused handshake finds it among the headings."""
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    found = {
        int(number)
        for heading in re.findall(r"^### (.+)$", text, re.MULTILINE)
        for number in re.findall(r"\d+", heading)
    }

    assert {code.value for code in CloseCode if code is not CloseCode.ABNORMAL} | set(HANDSHAKE) | {1006} <= found


def test_reference_has_every_public_name() -> None:
    """What `hubbub` exports, and what the classes one works with can do, is in the reference."""
    text = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    names = [*hubbub.__all__, *(name for kind in (Hub, Message) for name in vars(kind) if not name.startswith("_"))]

    assert [name for name in names if not re.search(rf"\b{name}\b", text)] == []
