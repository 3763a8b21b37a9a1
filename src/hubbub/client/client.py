"""The Python client: runs the state machine on asyncio, with a socket, a timer and futures.

async with connect("ws://localhost:8000/ws?user_id=alice") as client:
    await client.join("lobby", last=20)
    await client.send("chat", "hello", room="lobby")
    async for message in client:
        print(message.from_, message.content)
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import secrets
import ssl as ssl_module
import string
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from importlib import metadata
from types import TracebackType
from typing import Any, Final, Literal, Self

from msgspec import UNSET, UnsetType

from hubbub.client.events import (
    Action,
    AskToken,
    Connect,
    Deliver,
    Drop,
    EventName,
    Reason,
    Settle,
    State,
    StateChange,
    Tell,
    Unanswered,
    Write,
)
from hubbub.client.machine import Machine
from hubbub.client.sending import MOST
from hubbub.client.socket import Refused, Socket, websocket_url
from hubbub.client.wire import Ack, CodecName, History, Left, Message, codec_named
from hubbub.errors import AckTimeout, ConnectError, HubbubError, Reject
from hubbub.protocol.codes import ErrorCode
from hubbub.protocol.envelope import Joined, PresenceList, Receipt, UsersOnline
from hubbub.types import Acknowledged, Position

__all__ = ["Client", "Token", "connect"]

log = logging.getLogger("hubbub.client")

Token = str | Callable[[], str | Awaitable[str]]
"""A token, or a function that gets a new one whenever it is needed."""

_ID_LETTERS: Final = string.ascii_letters + string.digits


class Client:
    """One user's connection to a hub, which comes back by itself with nothing lost or doubled.

    Messages come by `async for`, in order per channel: each counts as handled when the next one is asked
    for, and only then is the inbox acknowledged that far. Everything else that happens (`state`, `gap`,
    `member-joined`, …) is told to whoever asked with `on`, and so are messages where that suits better.
    Whatever is sent or asked is on its way when the call returns; awaiting the result brings the answer.
    """

    def __init__(
        self,
        url: str,
        *,
        token: Token | None = None,
        listen: bool = True,
        tries: int | None = 1,
        ssl: ssl_module.SSLContext | None = None,
        codec: CodecName = "json",
        trace: Callable[[str, str | bytes], None] | None = None,
    ) -> None:
        """Only names what to connect to; `async with` or `open` connects.

        `listen`: False for a client that only sends; the user's inbox then stays unread. `tries`: how often
        the first connection is tried before `ConnectError`; None: until it is there. `codec` is how messages
        are written: JSON, or the smaller MessagePack or Protobuf, for which `hubbub[protobuf]` has to be
        installed; what is sent and heard is the same. `trace` is called with `>` or `<` and each message that is
        written or read. Raises `ConnectError` for a URL that cannot be one, `HubbubError` for a codec that is not
        there.
        """
        self._url = websocket_url(url)
        self._token = token
        self._listen = listen
        self._tries = tries
        self._ssl = ssl
        self._trace = trace
        self._codec = codec_named(codec)
        prefix = "".join(secrets.choice(_ID_LETTERS) for _ in range(12))
        self._machine = Machine(
            prefix,
            secrets.SystemRandom().random,
            renews=callable(token),
            acknowledges=listen,
            client=f"hubbub-python/{metadata.version('hubbub')}",
            codec=self._codec,
        )
        self._callbacks: dict[str, list[Callable[[Any], object]]] = {}

        # Who waits for which outcome, and who for the connection.
        self._futures: dict[str, asyncio.Future[Any]] = {}
        self._opened: asyncio.Future[None] | None = None

        # Who waits for a receipt, by the message's id; None comes where no receipt can come any more.
        self._receipts: dict[str, asyncio.Future[Receipt | None]] = {}

        # Handed out by the machine, not yet taken by the `async for`; and the one it is busy with.
        self._inbox: deque[Deliver] = deque()
        self._current: Deliver | None = None
        self._arrival = asyncio.Event()

        # The newest socket, and those that are still closing.
        self._socket: Socket | None = None
        self._closing: set[Socket] = set()

        # Dialling, or asking for a token; ends with the socket, at the latest with the client.
        self._connecting: asyncio.Task[None] | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due: float | None = None
        self._performing = False

        # What the last failure to connect was, for `raise … from`.
        self._cause: BaseException | None = None

    def __repr__(self) -> str:
        return f"<Client user={self.user!r} {self.state}>"

    # -------------------------------------------------------------------------------------- looking at it

    @property
    def state(self) -> State:
        """Where it is in its life."""
        return self._machine.state

    @property
    def connected(self) -> bool:
        """Whether there is a session."""
        return self._machine.connected

    @property
    def reason(self) -> Reason | None:
        """Why there is no connection, where one is waited for or given up."""
        return self._machine.reason

    @property
    def retry_at(self) -> float | None:
        """While it waits: when it tries again, on the event loop's clock."""
        return self._machine.retry_at

    @property
    def user(self) -> str:
        """Who the server says this is; empty before the first session."""
        return self._machine.user

    @property
    def session(self) -> str:
        """The id of the last session, for logs and operators."""
        return self._machine.session

    @property
    def rooms(self) -> tuple[str, ...]:
        """The rooms it wants to be in, connected or not."""
        return self._machine.rooms

    @property
    def unsettled(self) -> int:
        """How many sent messages have no outcome yet."""
        return self._machine.unsettled

    def position(self, channel: str) -> Position | None:
        """The last position handled in `inbox`, `all` or `room:<name>`."""
        return self._machine.position(channel)

    @property
    def failure(self) -> ConnectError | None:
        """Why trying again is useless, where it is."""
        reason = self._machine.reason
        if self.state is not State.FAILED or reason is None:
            return None
        error = ConnectError(reason.message, final=reason.code != "unreachable")
        error.__cause__ = self._cause
        return error

    def on(self, name: EventName | Literal["message"], callback: Callable[[Any], object]) -> None:
        """Call `callback` with each event of this name (spec/client.md §9); it must not block.

        With one for `message`, messages come there, in order with the other events, and not by `async for`:
        each is handled when the call returns.
        """
        self._callbacks.setdefault(name, []).append(callback)
        if name == "message":
            # What came before anybody listened.
            waiting, self._inbox = self._inbox, deque()
            for delivery in waiting:
                self._hand_out(delivery)
            self._perform()

    # ------------------------------------------------------------------------------------ coming and going

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            # The message that it happened with was not handled: it will come again.
            self._current = None
        await self.close()

    async def open(self) -> None:
        """Connect, and wait for it; raises `ConnectError`. After `close` this resumes where it was."""
        loop = asyncio.get_running_loop()
        if self._opened is None or self._opened.done():
            self._opened = loop.create_future()
        self._machine.tries = self._tries
        self._machine.open(loop.time())
        self._perform()
        try:
            await self._opened
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Disconnect; messages without an outcome get one. Takes some seconds at most."""
        if self._current is not None:
            self._handled()
        self._machine.close()
        self._machine.end()
        self._perform()
        tasks = [task for task in (self._connecting, self._renewing) if task is not None]
        if self._renewing is not None:
            self._renewing.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(socket.wait_gone() for socket in self._closing))
        self._closing.clear()

    # ----------------------------------------------------------------------------------------- what it does

    def send(
        self,
        type: str,
        content: Any = UNSET,
        *,
        to: str | None = None,
        room: str | None = None,
        id: str | None = None,
        receipt: bool = False,
        echo: bool = True,
        volatile: bool = False,
    ) -> asyncio.Future[Ack]:
        """Send a message to a user, to a room, or to everyone; await the result for the server's `ack`.

        Connected or not: it goes as soon as it can, once. The await raises `Reject` where the server refused
        it and `Unanswered` where no answer can be had; while there is no connection it lasts. A `volatile`
        message is for now or never. Raises `HubbubError` at once for content that JSON cannot hold. With
        `receipt` there is an event `receipt` when the recipient has acknowledged it; `send_with_ack` waits for it.
        """
        envelope: dict[str, Any] = {"type": type}
        if not isinstance(content, UnsetType):
            envelope["content"] = content
        envelope |= {key: value for key, value in (("to", to), ("room", room), ("id", id)) if value is not None}
        envelope |= {key: True for key, value in (("receipt", receipt), ("volatile", volatile)) if value}
        if not echo:
            envelope["echo"] = False
        return self._future(self._machine.send(envelope, self._now()))

    async def send_with_ack(
        self, user: str, type: str, content: Any = UNSET, *, timeout: float = 10.0, id: str | None = None
    ) -> Acknowledged:
        """Send a message to `user`, and wait until one of the user's devices has acknowledged it.

        Raises `AckTimeout` after `timeout` seconds, `Unanswered` when the client ends before, `HubbubError`
        where the application took the message for itself, and whatever else awaiting `send` raises.

        A timeout does not say that nobody has it: receipts are not stored, so one that comes while there is no
        connection is lost. Calling again with the same `id` sends nothing twice; it helps where the message has
        not been acknowledged yet, and brings no second receipt where it has.
        """
        if id in self._receipts:
            raise Reject(ErrorCode.CONFLICT, f"a message with the id {id!r} waits to be acknowledged already")
        if len(self._receipts) >= MOST:
            raise Unanswered("too_many")
        if id is None:
            id = self._machine.new_id()
        accepted = self.send(type, content, to=user, id=id, receipt=True)
        receipt = self._receipts[id] = asyncio.get_running_loop().create_future()
        ack: Ack | None = None
        try:
            async with asyncio.timeout(timeout):
                ack = await accepted
                if ack.seq is None or ack.epoch is None:
                    raise HubbubError("the application took the message for itself: nobody can acknowledge it")
                told = await receipt
        except TimeoutError:
            epoch, seq = (None, None) if ack is None else (ack.epoch, ack.seq)
            raise AckTimeout(user, id, epoch, seq) from None
        finally:
            del self._receipts[id]
        if told is None:
            raise Unanswered("disconnected")
        return Acknowledged(told.by, ack.seq, ack.epoch, told.time)

    def join(self, room: str, *, last: int | None = None) -> asyncio.Future[Joined]:
        """Be in a room from now on, through every reconnection, with its newest `last` messages to begin with.

        The await lasts while there is no connection, and raises `Reject` or `Unanswered`. `members` are not
        known where the answer came with a resumed connection.
        """
        return self._future(self._machine.join(room, self._now(), last))

    def leave(self, room: str) -> asyncio.Future[Left]:
        """Be in a room no longer."""
        return self._future(self._machine.leave(room, self._now()))

    def history(
        self, room: str | None = None, *, before: int | None = None, after: int | None = None, limit: int | None = None
    ) -> asyncio.Future[History]:
        """A page of a room's log, or of the own inbox's: the newest, or from a `seq` on (protocol.md §4.5)."""
        fields = {"room": room, "before": before, "after": after, "limit": limit}
        return self._request("history", {key: value for key, value in fields.items() if value is not None})

    def presence(self, room: str) -> asyncio.Future[PresenceList]:
        """Who is in a room that one is in."""
        return self._request("presence", {"room": room})

    def users(self, ids: Iterable[str]) -> asyncio.Future[UsersOnline]:
        """Who of these users is online."""
        return self._request("users", {"ids": list(ids)})

    def _request(self, type: str, fields: dict[str, Any]) -> asyncio.Future[Any]:
        return self._future(self._machine.request(type, fields, self._now()))

    def _future(self, id: str) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._futures[id] = future
        self._perform()
        return future

    # ---------------------------------------------------------------------------------------- what comes in

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        """The next message; the one before counts as handled. Ends with `close`, raises where it failed."""
        if self._current is not None:
            self._handled()
        while not self._inbox:
            if self.failure is not None:
                raise self.failure
            if self.state is State.CLOSED:
                raise StopAsyncIteration
            self._arrival.clear()
            await self._arrival.wait()
        self._current = self._inbox.popleft()
        message: Message = self._current.item.message
        return message

    def _handled(self) -> None:
        assert self._current is not None
        current, self._current = self._current, None
        self._machine.handled(current.channel, current.item, self._now())
        self._perform()

    # ------------------------------------------------------------------------------------ the machine's shell

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    def _perform(self) -> None:
        """Do what the machine wants; a callback that calls back only adds to the list."""
        if self._performing:
            return
        self._performing = True
        try:
            while actions := self._machine.actions():
                for action in actions:
                    self._do(action)
        finally:
            self._performing = False
        self._set_timer()

    def _do(self, action: Action) -> None:
        match action:
            case Write(message):
                if self._socket is not None:
                    self._socket.write(message)
                    if self._trace is not None:
                        self._trace(">", message)
            case Deliver():
                self._hand_out(action)
            case Settle(id, outcome):
                self._settle(id, outcome)
            case Tell(name, event):
                self._tell(name, event)
            case Connect(number):
                self._cause = None
                self._socket = Socket(number, self, self._codec)
                self._connecting = asyncio.create_task(self._connect(self._socket))
            case Drop(_, code):
                self._drop(code)
            case AskToken():
                if self._renewing is None or self._renewing.done():
                    self._renewing = asyncio.create_task(self._renew())

    def _hand_out(self, delivery: Deliver) -> None:
        if self._listen and "message" not in self._callbacks:
            self._inbox.append(delivery)
            self._arrival.set()
            return
        self._tell("message", delivery.item.message)
        self._machine.handled(delivery.channel, delivery.item, self._now())

    def _settle(self, id: str, outcome: Any) -> None:
        future = self._futures.pop(id, None)
        if future is None or future.done():
            return
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    def _tell(self, name: str, event: Any) -> None:
        if isinstance(event, StateChange):
            self._changed(event)
        elif isinstance(event, Receipt):
            self._acknowledged(event)
        for callback in self._callbacks.get(name, ()):
            try:
                callback(event)
            except Exception as error:
                log.exception("a callback for %r failed", name)
                if name != "error":
                    self._tell("error", error)

    def _acknowledged(self, receipt: Receipt) -> None:
        waiting = self._receipts.get(receipt.id)
        if waiting is not None and not waiting.done():
            waiting.set_result(receipt)

    def _changed(self, change: StateChange) -> None:
        if change.state is State.OPEN:
            # From here on it comes back as often as it takes.
            self._machine.tries = None
        elif change.state is State.FAILED:
            self._machine.end()
        if change.state in (State.FAILED, State.CLOSED):
            for waiting in self._receipts.values():
                if not waiting.done():
                    waiting.set_result(None)
        if self._opened is not None and not self._opened.done():
            if change.state is State.OPEN:
                self._opened.set_result(None)
            elif change.state in (State.FAILED, State.CLOSED):
                self._opened.set_exception(self.failure or ConnectError("the client was closed before it was open"))
        # An `async for` that waits looks at the state.
        self._arrival.set()

    def _drop(self, code: int) -> None:
        if self._socket is None:
            return
        socket, self._socket = self._socket, None
        if not socket.drop(code) and self._connecting is not None:
            # Nothing is there yet but a wait for a token, a name or an address.
            self._connecting.cancel()
        self._closing = {other for other in self._closing if not other.is_gone} | {socket}

    async def _connect(self, socket: Socket) -> None:
        number = socket.number
        token = None
        try:
            if self._token is not None:
                token = await self._ask_token()
        except Exception as error:
            if socket is self._socket:
                self._cause = error
                self._machine.token_failed(error, self._now())
                self._perform()
            return
        try:
            await socket.open(self._url, self._ssl)
        except ConnectError as error:
            if socket is self._socket:
                self._cause = error if isinstance(error, Refused) else error.__cause__
            if isinstance(error, Refused):
                reason = Reason(error.code or error.status, str(error))
                self._machine.refused(number, error.status, reason, error.retry_after, self._now())
            else:
                self._machine.broken(number, str(error), self._now())
        else:
            self._machine.opened(number, self._now(), token)
        self._perform()

    async def _renew(self) -> None:
        try:
            self._machine.renewed(await self._ask_token(), self._now())
        except Exception as error:
            self._machine.token_failed(error, self._now())
        self._perform()

    async def _ask_token(self) -> str:
        token = self._token() if callable(self._token) else self._token
        if inspect.isawaitable(token):
            token = await token
        assert isinstance(token, str), "the token function must return a string"
        return token

    def _set_timer(self) -> None:
        due = None if self.state is State.CLOSED else self._machine.due
        if due == self._timer_due:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if due is None else asyncio.get_running_loop().call_at(due, self._tick)
        self._timer_due = due

    def _tick(self) -> None:
        self._timer = self._timer_due = None
        self._machine.tick(self._now())
        self._perform()

    # ------------------------------------------------------------------------------------- the socket's calls

    def received(self, number: int, text: str | bytes) -> None:
        """A message came; for the socket to call."""
        if self._trace is not None:
            self._trace("<", text)
        self._machine.received(number, text, self._now())
        self._perform()

    def alive(self, number: int) -> None:
        """A ping or pong came; for the socket to call."""
        self._machine.alive(number, self._now())

    def closed(self, number: int, code: int, reason: str) -> None:
        """The connection is gone; for the socket to call."""
        self._machine.closed(number, code, reason, self._now())
        self._perform()


connect = Client
"""`async with connect(url) as client:` reads like what it does."""
