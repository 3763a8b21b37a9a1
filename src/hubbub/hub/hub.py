"""The hub as you use it: register your code, publish, ask who is there."""

from __future__ import annotations

import asyncio
import inspect
import secrets
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, overload

import msgspec
from msgspec import Struct

from hubbub.core.log import HistoryLimits, Retention
from hubbub.core.outbox import Overflow
from hubbub.core.pacing import pace
from hubbub.core.rooms import RoomOptions, RoomPatterns, room_options
from hubbub.core.wheel import Wheel
from hubbub.engines.base import Accepted, Engine
from hubbub.errors import AckTimeout, HubbubError, Unavailable
from hubbub.hub import admission, control, tickets
from hubbub.hub.admission import Ticket
from hubbub.hub.control import CONTROL, disconnect, kick
from hubbub.hub.door import over_tls, screen
from hubbub.hub.hooks import (
    AuthenticateHook,
    Authenticator,
    AuthorizeHook,
    ConnectHook,
    Hooks,
    OfflineHook,
    OnlineHook,
    RoomHook,
)
from hubbub.hub.node import Node, jitter
from hubbub.hub.options import HubOptions
from hubbub.hub.pipeline import Handler, Middleware, Threads, encode_content, is_binary
from hubbub.hub.presence import is_kept
from hubbub.hub.receipts import Acknowledgements
from hubbub.hub.revocation import LOG_SIZE, MARGIN, REVOCATIONS, revoke_token, revoke_user
from hubbub.hub.session import Session
from hubbub.hub.tickets import TICKETS
from hubbub.protocol.codec import UNFIT
from hubbub.protocol.codes import RESERVED_FROM_CLIENT, RESERVED_FROM_SERVER, CloseCode
from hubbub.protocol.content import pack_bytes
from hubbub.protocol.envelope import Member
from hubbub.transports.base import Accept, Handshake, Refuse
from hubbub.types import ALL, Acknowledged, Packed, Place, Publication, inbox_channel, room_channel, token_id

__all__ = ["Hub", "HubStatistics"]

H = TypeVar("H", bound=Callable[..., Any])


class HubStatistics(Struct, frozen=True, kw_only=True):
    """The state of a hub at one moment."""

    connections: int
    users: int
    rooms: int
    blocked: int
    # Bytes of messages that have come in chunks, and are not whole yet.
    transfer_bytes: int
    # Since the start.
    messages_in: int
    publications: int
    errors: dict[str, int]
    # How many users and addresses have used up something of their rates lately, by kind of meter.
    meters: dict[str, int]


class Hub:
    """Sessions, rooms and users, with your handlers in between.

    Make one, register handlers and hooks on it, and let `hubbub serve module:hub` run it; or start and
    stop it yourself. Methods that need the running hub raise `HubbubError` when it is not running.
    """

    def __init__(self) -> None:
        self._hooks = Hooks()

        # What `room` was told, each pattern by itself.
        self._rooms: list[dict[str, RoomOptions]] = []

        self._node: Node | None = None

    def __repr__(self) -> str:
        state = "running" if self._node is not None else "not running"
        return f"<Hub {state}>"

    # ------------------------------------------------------------------------------------- your code

    def on(self, type: str) -> Callable[[H], H]:
        """Register the decorated function as the handler of messages of `type`.

        It gets a `Message` (or a `Message[YourType]`: then the content is checked and converted) and
        returns it, changed or not, to let it go on; `None` keeps it; `Reject` refuses it. `async def` runs
        on the event loop; `def` runs in a thread. Raises `HubbubError` for a reserved type or a second handler.
        """
        if type in RESERVED_FROM_CLIENT or type in RESERVED_FROM_SERVER:
            raise HubbubError(f"{type!r} is a type of the protocol itself: handlers are for your own types")

        def register(handler: H) -> H:
            self._hooks.pipeline.add_handler(type, _as_handler(handler))
            return handler

        return register

    def middleware(self, middleware: Middleware) -> Middleware:
        """Put `async def middleware(message, next)` around all handlers; the first registered is outermost."""
        self._hooks.pipeline.add_middleware(middleware)
        return middleware

    def authenticate(self, hook: AuthenticateHook) -> AuthenticateHook:
        """Let `hook` say who a client is: it gets `Credentials` and returns the user id, an `Identity`, or None.

        What it does not know, a token may still prove by itself, where the server has keys for tokens.
        """
        if self._hooks.authenticate is not None:
            raise HubbubError("there is an authenticate hook already: a hub has one")
        self._hooks.authenticate = _as_hook(hook, "hook(credentials)")
        return hook

    def authorize(self, hook: AuthorizeHook) -> AuthorizeHook:
        """Let `hook(session, action, name)` say what may be done: True, False, or None to leave it to the policies.

        `action` is `join`, `publish`, `history` or `presence` in the room `name`, `send` to the user `name`, or
        `broadcast`. Where it returns None and there are no policies, the answer is no.
        """
        if self._hooks.authorize is not None:
            raise HubbubError("there is an authorize hook already: a hub has one")
        self._hooks.authorize = _as_hook(hook, "hook(session, action, name)")
        return hook

    def on_connect(self, hook: ConnectHook) -> ConnectHook:
        """Call `hook(session)` before a session opens; raising `Reject` closes it."""
        self._hooks.connect.append(_as_hook(hook, "hook(session)"))
        return hook

    def on_disconnect(self, hook: ConnectHook) -> ConnectHook:
        """Call `hook(session)` after a session has ended."""
        self._hooks.disconnect.append(_as_hook(hook, "hook(session)"))
        return hook

    def on_join(self, hook: RoomHook) -> RoomHook:
        """Call `hook(session, room)` before a session gets into a room; raising `Reject` refuses it."""
        self._hooks.join.append(_as_hook(hook, "hook(session, room)"))
        return hook

    def on_leave(self, hook: RoomHook) -> RoomHook:
        """Call `hook(session, room)` after a session has left a room."""
        self._hooks.leave.append(_as_hook(hook, "hook(session, room)"))
        return hook

    def on_online(self, hook: OnlineHook) -> OnlineHook:
        """Call `hook(user)` when the first session of a user has opened."""
        self._hooks.online.append(_as_hook(hook, "hook(user)"))
        return hook

    def on_offline(self, hook: OfflineHook) -> OfflineHook:
        """Call `hook(user, last_seen)` when no session of a user has been open for `presence_grace` seconds.

        `last_seen` is when something last came from the user, in milliseconds since the Unix epoch. For each user
        these hooks and those of `on_online` are called one after the other on each node; who has gone and come again
        while one of them ran is not told of. When the server stops nobody is: whoever is there comes back.
        """
        self._hooks.offline.append(_as_hook(hook, "hook(user, last_seen)"))
        return hook

    def room(
        self,
        pattern: str,
        *,
        history_size: int | None = None,
        history_age: float | None = None,
        capacity: int | None = None,
        presence_events: bool | None = None,
        overflow: Overflow | str | None = None,
        volatile: bool | None = None,
    ) -> None:
        """Set options of the rooms that match `pattern`, such as `lobby` or `game:*`.

        Several patterns may match a room: for each option the more specific one counts, and after all of them the
        options of the server. `history_age` is in seconds; `overflow` is disconnect, drop_oldest, drop_newest or
        latest. Raises `ConfigError` for what cannot be, and `HubbubError` once the hub runs. Where patterns
        contradict each other or the configuration, the hub does not start.
        """
        if self._node is not None:
            raise HubbubError("the hub is running: say what its rooms are before it starts")
        options = {
            "history_size": history_size,
            "history_age": history_age,
            "capacity": capacity,
            "presence_events": presence_events,
            "overflow": overflow,
            "volatile": volatile,
        }
        self._rooms.append({pattern: room_options(pattern, options)})

    # ------------------------------------------------------------------------------------- what it does

    async def publish(
        self,
        type: str,
        content: object = None,
        *,
        room: str | None = None,
        from_: str = "",
        id: str | None = None,
        volatile: bool = False,
    ) -> Accepted:
        """Send a message to the members of `room`, or to everyone; returns where it stands in its channel.

        `content` is anything that JSON can say, bytes, a msgspec struct or a pydantic model. With an `id`, calling
        again within 5 minutes sends nothing twice. It does not go through handlers.
        """
        node = self._running
        publication = _publication(node, type, content, room=room, from_=from_, id=id)
        channel = ALL if room is None else room_channel(room)
        return await node.engine.publish(channel, publication, volatile=volatile or node.is_volatile(room))

    async def send_to(
        self,
        user: str,
        type: str,
        content: object = None,
        *,
        from_: str = "",
        id: str | None = None,
        volatile: bool = False,
    ) -> Accepted:
        """Send a message to all devices of `user`; who is away gets it from the inbox on return."""
        node = self._running
        publication = _publication(node, type, content, to=user, from_=from_, id=id)
        return await node.engine.publish(inbox_channel(user), publication, volatile=volatile)

    # A string is an iterable of strings, too: here it is one user.
    @overload
    async def send_with_ack(  # type: ignore[overload-overlap]
        self, user: str, type: str, content: object = None, *, timeout: float = 10.0, id: str | None = None
    ) -> Acknowledged: ...

    @overload
    async def send_with_ack(
        self, user: Iterable[str], type: str, content: object = None, *, timeout: float = 10.0, id: str | None = None
    ) -> Acknowledgements: ...

    async def send_with_ack(
        self,
        user: str | Iterable[str],
        type: str,
        content: object = None,
        *,
        timeout: float = 10.0,
        id: str | None = None,
    ) -> Acknowledged | Acknowledgements:
        """Send a message to all devices of `user`, and wait until one of them has acknowledged it.

        Raises `AckTimeout` after `timeout` seconds; the message then waits in the inbox, and the same call with
        the error's `id` waits on: within 5 minutes nothing is sent twice, and what has been acknowledged
        meanwhile is answered at once. Raises `Unavailable` where it could not be sent, or where 10,000 are
        waited for already, and `HubbubError` when the hub stops.

        With several users each gets the message, and the answer says who has acknowledged it and who has not:
        a timeout raises nothing then. A handler that waits for its own sender waits in vain, for the sender's
        next message, the acknowledgement too, comes after it.
        """
        node = self._running
        if id is None:
            id = secrets.token_hex(8)
        users = [user] if isinstance(user, str) else list(dict.fromkeys(user))
        publication = _publication(node, type, content, id=id)
        publication.receipt = True
        for name in users:
            _check("name", name, 128)
        messages = [(name, msgspec.structs.replace(publication, to=name)) for name in users]
        outcomes = await node.receipts.send(id, messages, timeout)
        if isinstance(user, str):
            (outcome,) = outcomes
            if isinstance(outcome, Exception):
                raise outcome
            return outcome
        by_user = dict(zip(users, outcomes, strict=True))
        return Acknowledgements(
            id=id,
            acknowledged={name: found for name, found in by_user.items() if isinstance(found, Acknowledged)},
            missing=tuple(name for name, found in by_user.items() if isinstance(found, AckTimeout)),
            unavailable={name: found for name, found in by_user.items() if isinstance(found, Unavailable)},
        )

    async def members(self, room: str, limit: int = 1000) -> list[Member]:
        """The first `limit` users in `room`, in the order of coming, with how many sessions and since when."""
        members, _ = await self._running.engine.members(room_channel(room), limit)
        return members

    async def sessions(self, user: str) -> list[Place]:
        """The open sessions of `user` on all nodes, in the order of coming: on which node each is, and since when."""
        places = await self._running.engine.places(inbox_channel(user), user)
        return [place for place in places if not is_kept(place.session)]

    def local_sessions(self, user: str | None = None) -> list[Session]:
        """The open sessions on this node, of one user or of all."""
        node = self._running
        if user is None:
            return [session for session in node.sessions.values() if session.since]
        return node.sessions_of(user)

    async def disconnect(self, user: str, reason: str = "disconnected by an operator") -> int:
        """End every session of `user`, on all nodes, with 4504, which clients do not come back from; returns how many.

        The tokens that they came with stay out until they would have expired; with a new one the user may come
        back. Raises `Unavailable` where that could not be told to everybody, or a token not be remembered, and another
        `Reject` where an answer of the engine was lost: call again then. The sessions on this node have ended all the
        same.
        """
        _check("name", user, 128)
        return await disconnect(self._running, user, reason)

    async def kick(self, user: str, room: str) -> int:
        """Take every session of `user` out of `room`, on all nodes; returns how many were in it.

        They are told, with a `left` whose code is `forbidden`; whether they may come back is for policies and hooks
        to say. Raises `Unavailable` where that could not be told to everybody, and another `Reject` where an answer of
        the engine was lost: call again then.
        """
        _check("name", user, 128)
        _check("name", room, 128)
        return await kick(self._running, user, room)

    async def revoke(self, *, user: str | None = None, token: str | None = None) -> int:
        """Let `token`, or every token of `user` that was made until now, be good no more; returns how many it ends.

        Their sessions are closed with 4501, and the tokens stay out until they would have expired. A user whose
        tokens your own authenticate hook knows is kept out by the hook alone: let it forget them first. Raises
        `Unavailable` where that could not be told to everybody, or not be remembered, and another `Reject` where an
        answer of the engine was lost: call again then. The sessions on this node have ended all the same.
        """
        node = self._running
        if (user is None) == (token is None):
            raise HubbubError("revoke either a user or a token: `hub.revoke(user=…)` or `hub.revoke(token=…)`")
        if user is not None:
            _check("name", user, 128)
            return await revoke_user(node, user)
        assert token is not None
        # As the whole, and as what a JWT's signature is made over: the same token can be signed in several ways.
        names = {token_id(token)} | ({token_id(token.rpartition(".")[0])} if token.count(".") == 2 else set())
        return await revoke_token(node, names)

    def statistics(self) -> HubStatistics:
        """How many of everything there are."""
        node = self._running
        return HubStatistics(
            connections=node.counts.total,
            users=node.users,
            rooms=node.rooms,
            blocked=len(node.blocked),
            transfer_bytes=node.large.held,
            messages_in=node.messages_in,
            publications=node.publications,
            errors=dict(node.errors),
            meters={
                **(node.metering.sizes() if node.metering is not None else {"user": 0, "ip": 0}),
                "handshake_ip": len(node.arrivals),
            },
        )

    # ------------------------------------------------------------------------------------- its life

    @property
    def running(self) -> bool:
        """Whether the hub has been started and not stopped."""
        return self._node is not None

    @property
    def draining(self) -> bool:
        """Whether it takes no new connections and is saying goodbye."""
        return self._node is not None and self._node.draining

    @property
    def wheel(self) -> Wheel:
        """The running hub's timers, for transports to share."""
        return self._running.wheel

    def retention(self, options: HubOptions, limits: HistoryLimits) -> Callable[[str], Retention]:
        """How much each channel keeps: what an engine for this hub asks.

        Raises `ConfigError` where two room patterns contradict each other.
        """
        patterns = self._room_patterns(options)
        own = {
            REVOCATIONS: Retention(size=LOG_SIZE, age=options.token_age + MARGIN / 1000, pinned=True),
            CONTROL: control.KEPT,
            TICKETS: tickets.KEPT,
        }

        def retention(channel: str) -> Retention:
            return own.get(channel) or patterns.retention(channel, limits)

        return retention

    @property
    def authenticates(self) -> bool:
        """Whether an authenticate hook is registered."""
        return self._hooks.authenticate is not None

    def _room_patterns(self, options: HubOptions) -> RoomPatterns:
        return RoomPatterns(*self._rooms, options.rooms)

    async def start(
        self, engine: Engine, options: HubOptions = HubOptions(), *, authenticator: Authenticator | None = None
    ) -> None:
        """Run the hub on `engine`; `authenticator` knows tokens that prove themselves.

        Raises `HubbubError` when it runs already, `ConfigError` as `retention` does and where the engine cannot be
        used; what was begun by then has ended again.
        """
        if self._node is not None:
            raise HubbubError("the hub is running already")
        node = Node(engine, options, self._room_patterns(options), self._hooks, authenticator)
        await node.start()
        self._hooks.pipeline.threads = Threads(options.handler_threads, options.handler_queue)
        self._node = node

    async def admit(self, handshake: Handshake) -> Accept | Refuse:
        """Let a client in as a session, or say why not: what a transport asks at each handshake."""
        node = self._running
        answer = await admission.admit(node, self._hooks, handshake)
        if isinstance(answer, Refuse):
            node.count_error(answer.code)
        return answer

    def record_refusal(self, ip: str, refuse: Refuse) -> None:
        """Tell the audit that somebody was refused before becoming a session."""
        self._running.records.record("refusal", ip=ip, status=refuse.status, code=refuse.code, why=refuse.why)

    async def give_ticket(self, request: Handshake) -> Ticket | Refuse:
        """A ticket for whoever asks with a good proof, which lets in once; or why not."""
        node = self._running
        answer = await admission.give_ticket(node, self._hooks, request)
        if isinstance(answer, Refuse):
            node.count_error(answer.code)
        return answer

    def screen(self, handshake: Handshake) -> Handshake | Refuse:
        """The handshake to go on with, or a refusal: for paths that are not the hub's; `admit` does it by itself."""
        return screen(self._running.options, handshake)

    def over_tls(self, request: Handshake) -> Refuse | None:
        """A refusal for a request that should have come over TLS; the same is a part of `screen`."""
        return over_tls(self._running.options, request)

    async def check(self) -> None:
        """Raise `Unavailable` unless the hub can do its work: the engine is asked the real way round."""
        await self._running.engine.check()

    async def drain(self, timeout: float) -> None:
        """Ask every client to come back elsewhere, in paced batches, and wait until they are gone.

        Returns after `timeout` seconds at the latest, whoever is left.
        """
        node = self._running
        node.draining = True
        deadline = node.loop.time() + timeout
        leaving = [session for session in node.sessions.values() if not session.ending]
        paced = pace(len(leaving), timeout)
        busy: list[Session] = []
        for start in range(0, len(leaving), paced.batch):
            if start:
                await asyncio.sleep(paced.interval)
            for session in leaving[start : start + paced.batch]:
                if session.busy:
                    session.pause()
                    busy.append(session)
                else:
                    session.close(CloseCode.RESTART, "the server restarts", retry_after=jitter(paced.spread))
        # Handlers get until half time: what they are doing for somebody is answered before the goodbye.
        while busy:
            if node.loop.time() < deadline - timeout / 2:
                await asyncio.sleep(0.02)
                ready = [session for session in busy if not session.busy]
            else:
                ready = busy
            for session in ready:
                session.close(CloseCode.RESTART, "the server restarts", retry_after=jitter(paced.spread))
            busy = [session for session in busy if session not in ready]
        while (node.sessions or node.tasks) and node.loop.time() < deadline:
            await asyncio.sleep(0.02)

    async def stop(self) -> None:
        """End what is left at once; harmless when the hub is not running."""
        node, self._node = self._node, None
        if node is None:
            return
        await node.stop()
        threads, self._hooks.pipeline.threads = self._hooks.pipeline.threads, None
        if threads is not None:
            threads.close()

    @property
    def _running(self) -> Node:
        if self._node is None:
            raise HubbubError("the hub is not running: start it with `hubbub serve module:hub` or `await hub.start(…)`")
        return self._node


def _publication(
    node: Node,
    type: str,
    content: object,
    *,
    to: str | None = None,
    room: str | None = None,
    from_: str = "",
    id: str | None = None,
) -> Publication:
    """What the application sends, checked: raises `HubbubError` for what no client could understand."""
    if type in RESERVED_FROM_CLIENT or type in RESERVED_FROM_SERVER:
        raise HubbubError(f"{type!r} is a type of the protocol itself: publish your own types")
    _check("type", type, 64)
    for name in (to, room, from_ or None):
        if name is not None:
            _check("name", name, 128)
    if id is not None:
        _check("id", id, 64)
    now = node.now_ms()
    packed = is_binary(content)
    encoded = pack_bytes(bytes(content)) if is_binary(content) else encode_content(content)
    most = node.large.largest
    if memoryview(encoded).nbytes > most:
        raise HubbubError(
            f"this content is larger than {most} bytes: put it where both sides can reach it, and send its address"
        )
    return (Packed if packed else Publication)(type, from_, to, room, encoded, id=id, time=now)


def _check(what: str, text: str, most: int) -> None:
    if not 1 <= len(text) <= most or UNFIT.search(text):
        raise HubbubError(f"a {what} is 1 to {most} characters, none of them a control character: {text[:most]!r}")


def _as_hook(hook: H, call: str) -> H:
    """`hook`, if it can be called like `call`: found out now, and not when the first client comes."""
    try:
        inspect.signature(hook).bind(*call.split(","))
    except TypeError:
        raise HubbubError(f"{getattr(hook, '__name__', hook)!r} is called as {call}: give it these arguments") from None
    except ValueError:
        # Some of C have no signature to look at.
        pass
    return hook


def _as_handler(handler: Callable[..., Any]) -> Handler:
    if not callable(handler):
        raise HubbubError("@hub.on(type) decorates a function")
    return handler
