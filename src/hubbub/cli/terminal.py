"""The chat of `hubbub connect`: messages scroll by above a prompt, below it is who and where one is."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, Final

from msgspec import Struct
from prompt_toolkit import PromptSession, print_formatted_text
from prompt_toolkit.application.current import get_app_or_none
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.renderer import print_formatted_text as write_formatted_text
from prompt_toolkit.shortcuts import CompleteStyle
from prompt_toolkit.styles import Style

from hubbub.cli.line_history import open_history
from hubbub.cli.wording import Line, colour, message_line, visible
from hubbub.client import (
    Ack,
    Client,
    Fault,
    Joined,
    MemberJoined,
    MemberLeft,
    Message,
    Missed,
    Receipt,
    Recovered,
    RoomLeft,
    State,
    StateChange,
)
from hubbub.errors import HubbubError
from hubbub.types import ALL, room_channel, room_of

__all__ = ["Terminal"]

_STYLE: Final = Style.from_dict(
    {
        "time": "ansibrightblack",
        "where": "ansibrightblack",
        "notice": "ansibrightblack",
        "error": "ansired",
        "mark": "ansigreen",
        "prompt": "bold",
        "bottom-toolbar": "noreverse ansibrightblack",
        "bottom-toolbar.text": "",
        "offline": "ansiyellow",
        "name0": "ansicyan bold",
        "name1": "ansigreen bold",
        "name2": "ansiyellow bold",
        "name3": "ansiblue bold",
        "name4": "ansimagenta bold",
        "name5": "ansired bold",
    }
)

# Own messages without an outcome that are shown above the prompt; there may be more.
_SHOWN_UNSENT: Final = 4

# For what was just sent, when the user leaves.
_PARTING: Final = 2.0

# Members of a room that are named when it is entered.
_NAMED: Final = 8

# Users, beside the members of rooms, whose names Tab knows; sent messages whose receipts are understood.
_REMEMBERED: Final = 500


class _Own(Struct):
    """A message of one's own that is not among the others yet."""

    text: str
    room: str | None
    to: str | None
    accepted: bool = False


class Terminal:
    """One user at one terminal."""

    def __init__(self, client: Client) -> None:
        self._client = client

        # Where plain text goes.
        self._room: str | None = None

        # Who is in each room, in the order of coming.
        self._members: dict[str, dict[str, None]] = {}
        self._users: dict[str, None] = {}

        # By id: own messages until they are shown, and direct ones until they are read.
        self._own: dict[str, _Own] = {}
        self._unread: dict[str, _Own] = {}
        self._prefix = secrets.token_hex(6)
        self._count = 0

        # Lines of this turn of the loop, printed together: each print draws the prompt anew.
        self._lines: list[Line] = []

        # Channels of which something was missed for good, and which were not named yet.
        self._gone: list[str] = []

        self._tasks: set[asyncio.Task[None]] = set()
        self._session: PromptSession[str] = PromptSession(
            self._prompt,
            style=_STYLE,
            history=open_history(),
            completer=_Names(self),
            complete_while_typing=False,
            complete_style=CompleteStyle.READLINE_LIKE,
            reserve_space_for_menu=0,
            bottom_toolbar=self._toolbar,
            refresh_interval=1.0,
            interrupt_exception=EOFError,
            erase_when_done=True,
        )
        # The prompt stays: a line that was entered is taken out of it, and nothing is left on the screen.
        self._session.default_buffer.accept_handler = self._entered

    async def run(self, rooms: list[str], last: int) -> int:
        """Talk until the user leaves; raises `ConnectError` where the server ends it for good."""
        client = self._client
        for name, callback in self._callbacks().items():
            client.on(name, callback)  # type: ignore[arg-type]  # each is the name of an event
        self._say_notice(f"You are {client.user}. Type /help for what can be done here.")
        for room in reversed(rooms):
            self._join(room, last)
        try:
            await self._session.prompt_async()
        except EOFError:
            await self._part()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._print()
        if client.failure is not None:
            raise client.failure
        return 0

    async def _part(self) -> None:
        """Give what was just sent a moment, and tell what is not."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_PARTING if self._client.connected else 0):
                while self._client.unsettled:
                    await asyncio.sleep(0.02)
        if self._client.unsettled:
            self._say_error(f"{_count(self._client.unsettled, 'message')} had not been accepted yet")

    def _leave(self) -> None:
        if self._session.app.is_running:
            self._session.app.exit(exception=EOFError())

    def _spawn(self, answer: Awaitable[object]) -> None:
        """Wait for something of the server's, and say what goes wrong."""

        async def wait() -> None:
            try:
                await answer
            except HubbubError as error:
                self._say_error(str(error))

        task = asyncio.create_task(wait())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ------------------------------------------------------------------------------------------- what is shown

    def _say(self, *line: tuple[str, str]) -> None:
        """Show a line; its text must be safe already."""
        if not self._lines:
            asyncio.get_running_loop().call_soon(self._print)
        self._lines.append(list(line))

    def _say_notice(self, text: str) -> None:
        self._say(("class:notice", f"— {visible(text)}"))

    def _say_error(self, text: str) -> None:
        self._say(("class:error", f"✗ {visible(text)}"))

    def _print(self) -> None:
        lines, self._lines = self._lines, []
        if not lines:
            return
        text = FormattedText([piece for line in lines for piece in (*line, ("", "\n"))])
        app = self._session.app
        if get_app_or_none() is not app:
            # Before and after the prompt, or while another one stands in for it.
            print_formatted_text(text, end="", style=_STYLE)
            return
        # Not prompt_toolkit's own way, which lets the terminal echo keys for a moment: who types while others
        # write would see letters left behind.
        app.renderer.erase()
        write_formatted_text(app.output, text, _STYLE)
        app.renderer.request_absolute_cursor_position()
        app.invalidate()

    def _prompt(self) -> FormattedText:
        pieces: Line = []
        for own in list(self._own.values())[:_SHOWN_UNSENT]:
            place = f"to {own.to}" if own.to is not None else f"#{own.room}" if own.room is not None else "to everyone"
            state = "sending" if self._client.connected else "waiting for a connection"
            pieces.append(("class:notice", f"{visible(place)}: {visible(own.text[:200])} … {state}\n"))
        if len(self._own) > _SHOWN_UNSENT:
            pieces.append(("class:notice", f"and {len(self._own) - _SHOWN_UNSENT} more\n"))
        pieces.append(("class:prompt", "> " if self._room is None else f"#{visible(self._room)}> "))
        return FormattedText(pieces)

    def _toolbar(self) -> FormattedText:
        client = self._client
        pieces: Line = [("", f" {visible(client.user)}")]
        if self._room is not None:
            count = len(self._members.get(self._room, ()))
            pieces.append(("", f" · #{visible(self._room)}" + (f", {_count(count, 'member')}" if count else "")))
        if client.connected:
            pieces.append(("class:mark", " · connected"))
        else:
            pieces.append(("class:offline", f" · {self._whereabouts()}"))
        return FormattedText(pieces)

    def _whereabouts(self) -> str:
        retry_at = self._client.retry_at
        if retry_at is None:
            return "connecting …" if self._client.state in (State.CONNECTING, State.OPENING) else "disconnected"
        seconds = max(0, round(retry_at - asyncio.get_running_loop().time()))
        return f"offline, next try in {seconds} s" if seconds else "offline, trying again …"

    # ------------------------------------------------------------------------------------------- what comes in

    def _show(self, message: Message) -> None:
        own = message.from_ == self._client.user and message.id in self._own
        if own and message.id is not None:
            del self._own[message.id]
        if message.from_:
            self._users[message.from_] = None
            if len(self._users) > _REMEMBERED:
                del self._users[next(iter(self._users))]
        self._say(*message_line(message, room=self._room, me=self._client.user, mark="✓" if own else ""))

    def _callbacks(self) -> dict[str, Callable[[Any], None]]:
        return {
            "message": self._show,
            "state": self._changed,
            "recovered": self._recovered,
            "gap": self._missed,
            "left": self._was_taken_out,
            "receipt": self._was_read,
            "member-joined": self._came,
            "member-left": self._went,
            "error": self._failed,
        }

    def _changed(self, change: StateChange) -> None:
        if change.state is State.WAITING and change.was is State.OPEN and change.reason is not None:
            self._say_notice(f"The connection was lost: {change.reason.message}. What you write waits for it.")
        elif change.state is State.OPEN:
            self._say_notice("Connected again.")
            for room in self._client.rooms:
                self._spawn(self._refresh(room))
        elif change.state is State.FAILED:
            self._leave()
        self._session.app.invalidate()

    def _recovered(self, recovered: Recovered) -> None:
        if recovered.recovered:
            return
        if not self._gone:
            # All channels are told one after the other: one line is enough for them.
            asyncio.get_running_loop().call_soon(self._say_gone)
        self._gone.append(recovered.channel)
        # What was accepted there does not come back as a message any more.
        for id, own in list(self._own.items()):
            if own.accepted and recovered.channel == (ALL if own.room is None else room_channel(own.room)):
                self._show_own(id)

    def _say_gone(self) -> None:
        gone, self._gone = self._gone, []
        self._say_notice(f"What was said meanwhile cannot be had any more: {', '.join(map(_where, gone))}.")

    def _missed(self, missed: Missed) -> None:
        number = _count(missed.to - missed.from_ + 1, "message")
        self._say_notice(f"{number} {_where(missed.channel)} came too fast and were left out: see /history.")

    def _was_taken_out(self, left: RoomLeft) -> None:
        self._say_notice(f"You are not in #{left.room} any more ({left.code}).")
        self._forget(left.room)

    def _was_read(self, receipt: Receipt) -> None:
        own = self._unread.pop(receipt.id, None)
        if own is not None:
            if receipt.id in self._own and own.to != self._client.user:
                # What has been read has been accepted, though the answer to that comes behind.
                self._show_own(receipt.id)
            self._say_notice(f"{receipt.by} has got: {own.text[:60]}")

    def _came(self, event: MemberJoined) -> None:
        self._members.setdefault(event.room, {})[event.user] = None
        self._say_notice(f"{event.user} came into #{event.room}.")

    def _went(self, event: MemberLeft) -> None:
        self._members.setdefault(event.room, {}).pop(event.user, None)
        self._say_notice(f"{event.user} left #{event.room}.")

    def _failed(self, error: Fault | Exception) -> None:
        self._say_error(error.message if isinstance(error, Fault) else str(error))

    # ------------------------------------------------------------------------------------------- what is typed

    def _entered(self, buffer: Buffer) -> bool:
        text = buffer.text.strip()
        if text.startswith("/") and not text.startswith("//"):
            name, _, rest = text[1:].partition(" ")
            command = _COMMANDS.get(name)
            if command is None:
                self._say_error(f"There is no /{name}: see /help. A text that begins with / is written //…")
            else:
                command.do(self, rest.strip())
        elif text:
            self._send_to_room(text.removeprefix("/") if text.startswith("//") else text)
        # False: the prompt is empty again.
        return False

    def _send_to_room(self, text: str) -> None:
        if self._room is None:
            self._say_error("You are in no room: /join one, or write /all or /to somebody.")
        else:
            self._send(text, room=self._room)

    def _send(self, text: str, *, room: str | None = None, to: str | None = None) -> None:
        self._count += 1
        id = f"{self._prefix}-{self._count}"
        self._own[id] = own = _Own(text, room, to)
        if to is not None:
            self._unread[id] = own
            if len(self._unread) > _REMEMBERED:
                del self._unread[next(iter(self._unread))]
        sent = self._client.send("chat", text, room=room, to=to, id=id, receipt=to is not None)
        sent.add_done_callback(partial(self._settled, id))

    def _settled(self, id: str, sent: asyncio.Future[Ack]) -> None:
        if sent.cancelled():
            return
        error = sent.exception()
        own = self._own.get(id)
        if own is None:
            # The message itself was here first.
            return
        if error is not None:
            del self._own[id]
            self._say_error(f"Not sent: {own.text[:200]} — {error}")
            return
        ack, own.accepted = sent.result(), True
        comes_back = ack.seq is not None and own.to in (None, self._client.user)
        if not comes_back or (own.room is not None and own.room not in self._client.rooms):
            self._show_own(id)

    def _show_own(self, id: str) -> None:
        """Show an accepted message that does not come back from the server."""
        own = self._own.pop(id)
        now = int(time.time() * 1000)
        message = Message(type="chat", from_=self._client.user, to=own.to, room=own.room, content=own.text, time=now)
        self._say(*message_line(message, room=self._room, me=self._client.user, mark="✓"))

    # -------------------------------------------------------------------------------------------- the commands

    def do_join(self, rest: str) -> None:
        """Join a room, or go back to one."""
        if not rest:
            self._say_error("Join which room? /join lobby")
        elif rest in self._client.rooms:
            self._room = rest
        else:
            self._join(rest, 20)

    def _join(self, room: str, last: int) -> None:
        # Here already, for what is typed next is meant for it: the server takes one after the other.
        before, self._room = self._room, room
        self._spawn(self._joined(room, before, self._client.join(room, last=last or None)))

    async def _joined(self, room: str, before: str | None, joining: Awaitable[Joined]) -> None:
        try:
            joined = await joining
        except HubbubError as error:
            if self._room == room:
                self._room = before if before in self._client.rooms else None
            self._say_error(f"You cannot join #{room}: {error}")
            return
        if isinstance(joined.members, list):
            self._members[room] = {member.user: None for member in joined.members}
        others = [name for name in self._members.get(room, ()) if name != self._client.user]
        if len(others) > _NAMED:
            others[_NAMED:] = [f"{len(others) - _NAMED} more"]
        self._say_notice(f"You are in #{room}" + (f" with {', '.join(others)}." if others else "."))

    async def _refresh(self, room: str) -> None:
        """Who came and went while the connection was away."""
        presence = await self._client.presence(room)
        self._members[room] = {member.user: None for member in presence.members}

    def do_leave(self, rest: str) -> None:
        """Leave a room, by default this one."""
        room = rest or self._room
        if room is None or room not in self._client.rooms:
            self._say_error("You are not there.")
        else:
            self._spawn(self._client.leave(room))
            self._forget(room)
            self._say_notice(f"You left #{room}.")

    def _forget(self, room: str) -> None:
        self._members.pop(room, None)
        if self._room == room:
            rooms = [other for other in self._client.rooms if other != room]
            self._room = rooms[-1] if rooms else None

    def do_rooms(self, rest: str) -> None:
        """List the rooms you are in."""
        for room in self._client.rooms:
            count = len(self._members.get(room, ()))
            here = " ← here" if room == self._room else ""
            self._say_notice(f"#{room}, {_count(count, 'member')}{here}")
        if not self._client.rooms:
            self._say_notice("You are in no room.")

    def do_who(self, rest: str) -> None:
        """List who is in a room, by default in this one."""
        room = rest or self._room
        if room is None:
            self._say_error("You are in no room.")
        else:
            self._spawn(self._who(room))

    async def _who(self, room: str) -> None:
        presence = await self._client.presence(room)
        self._members[room] = {member.user: None for member in presence.members}
        self._say_notice(f"In #{room}: {_count(presence.count, 'member')}")
        for member in presence.members:
            since = time.strftime("%H:%M", time.localtime(member.since / 1000))
            devices = f", {member.sessions} devices" if member.sessions > 1 else ""
            details = ("class:notice", f" since {since}{devices}")
            self._say(("", "  "), (colour(member.user), visible(member.user)), details)

    def do_to(self, rest: str) -> None:
        """Write to one user; a name with spaces stands in "quotes"."""
        if rest.startswith('"'):
            user, _, text = rest[1:].partition('"')
        else:
            user, _, text = rest.partition(" ")
        text = text.strip()
        if user and text:
            self._send(text, to=user)
        else:
            self._say_error("Write what to whom? /to bob hello")

    def do_all(self, rest: str) -> None:
        """Write to everyone on the hub."""
        if rest:
            self._send(rest)
        else:
            self._say_error("Write what? /all hello")

    def do_history(self, rest: str) -> None:
        """Show the last messages of this room, by default 20."""
        if self._room is None:
            self._say_error("You are in no room.")
        elif rest and not (rest.isascii() and rest.isdigit() and 1 <= int(rest) <= 500):
            self._say_error("How many? /history takes a number from 1 to 500.")
        else:
            self._spawn(self._show_history(self._room, int(rest or 20)))

    async def _show_history(self, room: str, limit: int) -> None:
        history = await self._client.history(room, limit=limit)
        self._say_notice(f"The last {_count(len(history.messages), 'message')} of #{room}:")
        for message in history.messages:
            self._say(*message_line(message, room=room, me=self._client.user))
        self._say_notice("That was the history.")

    def do_help(self, rest: str) -> None:
        """Show this."""
        for name, command in _COMMANDS.items():
            usage = f"/{name} {command.arguments}".ljust(20)
            self._say(("class:prompt", f"  {usage}"), ("class:notice", command.help))
        self._say_notice("Everything else is sent to the room. Tab completes, ↑ brings back. Ctrl-C leaves.")

    def do_quit(self, rest: str) -> None:
        """Leave."""
        self._leave()

    # ------------------------------------------------------------------------------------------ what Tab knows

    def names(self, kind: str) -> Iterable[str]:
        """The rooms, or the users, that are known."""
        if kind == "room":
            return self._client.rooms
        members = (user for room in self._members.values() for user in room)
        return dict.fromkeys((*members, *self._users))


class _Command(Struct, frozen=True):
    """One thing that can be typed with a slash."""

    do: Callable[[Terminal, str], None]
    arguments: str = ""
    # What its first argument names.
    names: str = ""

    @property
    def help(self) -> str:
        """What it does, as its method says."""
        return self.do.__doc__ or ""


_COMMANDS: Final = {
    "join": _Command(Terminal.do_join, "room", "room"),
    "leave": _Command(Terminal.do_leave, "[room]", "room"),
    "rooms": _Command(Terminal.do_rooms),
    "who": _Command(Terminal.do_who, "[room]", "room"),
    "to": _Command(Terminal.do_to, "user text", "user"),
    "all": _Command(Terminal.do_all, "text"),
    "history": _Command(Terminal.do_history, "[n]"),
    "help": _Command(Terminal.do_help),
    "quit": _Command(Terminal.do_quit),
}


class _Names(Completer):
    """Completes commands, rooms and users."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        """What the text before the cursor can go on with."""
        text = document.text_before_cursor
        if not text.startswith("/"):
            return
        name, space, typed = text[1:].partition(" ")
        if not space:
            found: Iterable[str] = (f"{command} " for command in _COMMANDS)
            typed = name
        else:
            command = _COMMANDS.get(name)
            if command is None or not command.names:
                return
            # A name that could steer the terminal is not offered to be written to it.
            names = (name for name in self._terminal.names(command.names) if visible(name) == name)
            found = (f'"{name}" ' if command.names == "user" and " " in name else f"{name} " for name in names)
        for candidate in sorted(found):
            if candidate.startswith(typed) and candidate != typed:
                yield Completion(candidate, start_position=-len(typed))


def _where(channel: str) -> str:
    room = room_of(channel)
    return f"in #{room}" if room is not None else "to everyone" if channel == ALL else "to you"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
