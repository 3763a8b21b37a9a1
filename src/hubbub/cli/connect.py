"""`hubbub connect`: talk to a hub from a terminal, or from a script."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import secrets
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from hubbub.cli.wording import NEXT_LINE, message_line, plain, visible, visible_json
from hubbub.client import Client, Message, Refused, State, StateChange, connect
from hubbub.client.socket import websocket_url
from hubbub.errors import ConnectError, HubbubError

__all__ = ["add_to"]

# Lines that are sent and not yet accepted: fewer than the client drops when the connection is away.
_IN_FLIGHT: Final = 64


def add_to(commands: Any) -> None:
    """Add the subcommand to the parser's."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "connect",
        help="talk to a hub from a terminal",
        description="Talk to a hub from a terminal. Where standard input is no terminal, each of its lines is sent "
        "to the first room, and at its end the command waits until all are accepted.",
    )
    parser.add_argument(
        "url", metavar="URL", help="the hub, such as ws://localhost:8000/ws?user_id=alice or http://localhost:8000"
    )
    parser.add_argument("--token", metavar="TOKEN", help="proves who you are; default: the variable HUBBUB_TOKEN")
    parser.add_argument(
        "--room", metavar="ROOM", action="append", help="a room to join, may be given several times [lobby]"
    )
    parser.add_argument(
        "--history", metavar="N", type=int, help="old messages of each room to show [20; for a script 0]"
    )
    parser.add_argument("--json", action="store_true", help="print what the server sends as it comes, one JSON a line")
    parser.set_defaults(run=_run, parser=parser)


def _run(parsed: argparse.Namespace) -> int:
    # What libraries have to say would be written over the prompt; what matters is told in words of ours.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        return asyncio.run(_connect(parsed))
    except ConnectError as error:
        print(f"hubbub: {_explain(error)}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever read our output has enough. Nothing is left to be flushed at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _explain(error: ConnectError) -> str:
    """One sentence, with what to do where that is known."""
    cause = error.__cause__
    said = visible(str(error))
    if isinstance(cause, Refused):
        return f"the server refused the connection with {cause.status}: {said}"
    if isinstance(cause, ConnectionRefusedError):
        return f"{said}: start one with `hubbub serve --dev`"
    return said


async def _connect(parsed: argparse.Namespace) -> int:
    rooms = list(dict.fromkeys(parsed.room or ["lobby"]))
    token = parsed.token or os.environ.get("HUBBUB_TOKEN")
    url = parsed.url if token else _named(parsed.url)
    # Either may be closed, and is None then.
    if all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout)) and not parsed.json:
        # Here, because nobody else needs to wait until it is imported.
        from hubbub.cli.terminal import Terminal

        async with connect(url, token=token) as client:
            return await Terminal(client).run(rooms, 20 if parsed.history is None else parsed.history)
    envelopes: asyncio.Queue[str] | None = asyncio.Queue() if parsed.json else None

    def trace(direction: str, text: str | bytes) -> None:
        if envelopes is not None and direction == "<" and isinstance(text, str):
            envelopes.put_nowait(text)

    async with connect(url, token=token, trace=trace if parsed.json else None) as client:
        return await _Pipe(client, envelopes).run(rooms, parsed.history or 0)


def _named(url: str) -> str:
    """The URL with a name in it: a guest would get another one after each cut, and be somebody else."""
    websocket_url(url)
    parts = urlsplit(url)
    if "user_id" in parse_qs(parts.query):
        return url
    name = f"user_id=guest-{secrets.token_hex(2)}"
    return parts._replace(query=f"{parts.query}&{name}" if parts.query else name).geturl()


class _Pipe:
    """Lines in, lines out: a client for scripts."""

    def __init__(self, client: Client, envelopes: asyncio.Queue[str] | None) -> None:
        self._client = client

        # What the server sends as it comes, where that is what to print.
        self._envelopes = envelopes

        # The own messages, which need not be shown, and how many of them came to nothing.
        self._mine = f"{secrets.token_hex(6)}-"
        self._failures = 0

    async def run(self, rooms: list[str], last: int) -> int:
        """Send standard input, print what comes meanwhile; 0 where everything was accepted."""
        client = self._client
        client.on("state", self._changed)
        printing = asyncio.gather(self._print_messages(), self._print_envelopes())
        sending = asyncio.create_task(self._send(rooms, last))
        try:
            await asyncio.wait((sending, printing), return_when=asyncio.FIRST_COMPLETED)
            if printing.done():
                # The connection has failed for good, or nobody reads what is printed: it says why.
                await printing
            await sending
            while self._envelopes is not None and not self._envelopes.empty():
                self._print(visible_json(self._envelopes.get_nowait()))
        finally:
            for task in (sending, printing):
                task.cancel()
            await asyncio.gather(sending, printing, return_exceptions=True)
        return 1 if self._failures else 0

    async def _join(self, room: str, last: int) -> None:
        try:
            await self._client.join(room, last=last or None)
        except HubbubError as error:
            raise ConnectError(f"the room {room} cannot be joined: {error}") from None

    async def _send(self, rooms: list[str], last: int) -> None:
        for room in rooms:
            await self._join(room, last)
        places = asyncio.Semaphore(_IN_FLIGHT)
        async with asyncio.TaskGroup() as tasks:
            number = 0
            async for line in _standard_input():
                if line:
                    number += 1
                    await places.acquire()
                    tasks.create_task(self._send_line(line, rooms[0], f"{self._mine}{number}", places))

    async def _send_line(self, line: str, room: str, id: str, places: asyncio.Semaphore) -> None:
        try:
            await self._client.send("chat", line, room=room, id=id, echo=False)
        except HubbubError as error:
            self._failures += 1
            _note(f"not sent: {line[:60]!r}: {error}")
        finally:
            places.release()

    async def _print_messages(self) -> None:
        async for message in self._client:
            if self._envelopes is None and not self._is_mine(message):
                self._print(plain(message_line(message, room=None, me=self._client.user, timed=False)))

    async def _print_envelopes(self) -> None:
        while self._envelopes is not None:
            self._print(visible_json(await self._envelopes.get()))

    @staticmethod
    def _print(line: str) -> None:
        # One message is one line, and written at once, for whoever reads them.
        print(line.replace(NEXT_LINE, "\\n") + "\n", end="", flush=True)

    def _is_mine(self, message: Message) -> bool:
        return message.from_ == self._client.user and (message.id or "").startswith(self._mine)

    def _changed(self, change: StateChange) -> None:
        if change.state is State.WAITING and change.was is State.OPEN and change.reason is not None:
            _note(f"the connection was lost ({change.reason.message}); trying again")
        elif change.state is State.OPEN:
            _note("connected again")


def _note(text: str) -> None:
    print(f"hubbub: {visible(text)}", file=sys.stderr, flush=True)


async def _standard_input() -> AsyncIterator[str]:
    """The lines of standard input, as they come."""
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str | None] = asyncio.Queue()
    places = threading.Semaphore(_IN_FLIGHT)

    def put(line: str | None) -> None:
        places.acquire()
        loop.call_soon_threadsafe(lines.put_nowait, line)

    def read() -> None:
        rest = b""
        # Not sys.stdin, whose lock a thread that waits in it would still hold when the program ends.
        while data := os.read(0, 65_536):
            *whole, rest = (rest + data).split(b"\n")
            for line in whole:
                put(line.decode(errors="replace").rstrip("\r"))
        put(rest.decode(errors="replace"))

    def run() -> None:
        # The loop may have ended meanwhile, and nobody wants to know any more.
        with suppress(RuntimeError):
            # No standard input at all is like an empty one.
            with suppress(OSError):
                read()
            put(None)

    threading.Thread(target=run, name="standard input", daemon=True).start()
    while (line := await lines.get()) is not None:
        places.release()
        yield line
