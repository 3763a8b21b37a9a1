"""One connection of one user: what it says is handled in order, what it gets goes through its outbox."""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from hubbub import audit
from hubbub.core.metering import Allowance, Metering
from hubbub.core.outbox import Outbox
from hubbub.core.rates import Refused
from hubbub.core.wheel import Timer
from hubbub.eager import step
from hubbub.hub import commands
from hubbub.hub.routing import route
from hubbub.hub.state import State
from hubbub.hub.transfers import SessionTransfers
from hubbub.hub.waiting import First, Waiting
from hubbub.protocol.codes import CloseCode, ErrorCode
from hubbub.protocol.conversation import BadChunk, Conversation, Violation
from hubbub.protocol.envelope import (
    REQUESTS,
    Chunk,
    Envelope,
    Fault,
    Goodbye,
    Hello,
    PackedEnvelope,
    Request,
    ServerPing,
)
from hubbub.types import Identity, Publication

if TYPE_CHECKING:
    from hubbub.core.permissions import Permissions
    from hubbub.hub.hooks import Hooks
    from hubbub.hub.node import Node
    from hubbub.hub.recovery import Recovery
    from hubbub.protocol.codec import Codec
    from hubbub.transports.base import Handshake, Writer

__all__ = ["Session"]

# Close codes that say that the client broke a rule.
_VIOLATIONS = frozenset((1002, 1007, 1009, int(CloseCode.PROTOCOL_VIOLATION)))

# Close codes that say that who was here may not be.
_EXPULSIONS = frozenset((CloseCode.UNAUTHORIZED, CloseCode.DISCONNECTED, CloseCode.TOKEN_EXPIRED))

# What a request is called on the wire.
_NAMES = {request: name for name, request in REQUESTS.items()}


class Session:
    """One connection of one user; handlers get it as `message.session`.

    It is the transport's `Receiver`: the transport calls the methods from `opened` to `closed`.
    """

    __slots__ = (
        "_allowance",
        "_busy",
        "_closing",
        "_conversation",
        "_delay",
        "_expiry",
        "_node",
        "_paused",
        "_pinged",
        "_queue",
        "_timer",
        "_transfers",
        "_writable",
        "_writer",
        "device",
        "full",
        "guarded",
        "handshake",
        "hooks",
        "id",
        "identity",
        "ip",
        "last_seen",
        "outbox",
        "permissions",
        "proved_by",
        "room_names",
        "since",
        "user",
    )

    outbox: Outbox[Session]

    def __init__(
        self,
        node: Node,
        hooks: Hooks,
        *,
        identity: Identity | None,
        proved_by: str,
        ip: str,
        device: str,
        codec: Codec,
        full: bool,
    ) -> None:
        self.id = "s-" + secrets.token_hex(8)
        # Empty until `hello` has said who it is, where the handshake did not.
        self.user = ""
        # What has been proved, and the same as far as it is about rights; None while nothing has been.
        self.identity: Identity | None = None
        self.permissions: Permissions | None = None
        # How: header, query, subprotocol, ticket, cookie, hello, auth, application or user_id.
        self.proved_by = proved_by
        # Whether what it asks for needs a look at its rights.
        self.guarded = hooks.authorize is not None
        self.ip = ip
        # What the client calls itself, as far as it said so.
        self.device = device
        # Whether it came the full way: a subprotocol and `hello`.
        self.full = full
        # When it opened, milliseconds since the Unix epoch; 0 before.
        self.since = 0
        # The last sign of life, in seconds on the node's clock.
        self.last_seen = node.wheel.now
        # The rooms it is in, or getting into; None until the first.
        self.room_names: dict[str, None] | None = None
        # How it came; kept only until it is open.
        self.handshake: Handshake | None = None
        self.hooks = hooks
        self._node = node
        self._conversation = Conversation(codec, full=full)
        self._writer: Writer | None = None

        # While a message waits for something, later ones of this session wait behind it, in order.
        self._busy = False
        self._queue: Waiting | None = None

        # What it may send, from its first message on; and the timer of a message whose turn has not come yet.
        self._allowance: Allowance | None = None
        self._delay: asyncio.TimerHandle | None = None

        # What it sends and gets in chunks; None before the first.
        self._transfers: SessionTransfers | None = None

        # The queue is long: the socket is not read until it is done.
        self._paused = False

        # When the last `ping` envelope went out, on the node's clock.
        self._pinged = 0.0
        # Set while somebody waits for the socket to take bytes again.
        self._writable: asyncio.Future[None] | None = None

        # Why it ends, or ended; None before.
        self._closing: tuple[int, str] | None = None
        self._timer: Timer | None = None
        # Ends the session when its token ends.
        self._expiry: Timer | None = None

        if identity is not None:
            self.prove(identity, proved_by)

    def __repr__(self) -> str:
        return f"<Session {self.id} user={self.user!r} {self.state}>"

    @property
    def state(self) -> State:
        """Where the session is in its life."""
        if self._closing is not None or self._writer is None:
            return State.CLOSED if self._closing is not None else State.CONNECTING
        if not self.since:
            return State.CONNECTING
        if self._node.draining:
            return State.DRAINING
        idle = self._node.wheel.now - self.last_seen > self._node.options.ping_interval
        return State.IDLE if idle else State.OPEN

    @property
    def ending(self) -> bool:
        """Whether the session has ended, or is about to."""
        return self._closing is not None

    @property
    def expelled(self) -> bool:
        """Whether it was ended because it may not be here: what it had said, and is not done, is not done any more."""
        return self._closing is not None and self._closing[0] in _EXPULSIONS

    @property
    def unsent(self) -> int:
        """Bytes that the transport still has for the socket."""
        return 0 if self._writer is None else self._writer.unsent()

    @property
    def busy(self) -> bool:
        """Whether a message of this session is being handled, and later ones wait."""
        return self._busy

    @property
    def waits(self) -> bool:
        """Whether the server makes it wait: what it says is not handled now, or not even read."""
        return self._busy or self._paused

    @property
    def transfers(self) -> SessionTransfers:
        """What it sends and gets in chunks."""
        if self._transfers is None:
            self._transfers = SessionTransfers(self._node, self)
        return self._transfers

    async def caught_up(self, channel: str | None = None) -> None:
        """Wait until it has all that has come for it so far, also what is large; in all channels, or in this one."""
        if self._transfers is not None:
            await self._transfers.caught_up(channel)

    def caught(self, recovery: Recovery) -> None:
        """It is live in the channel of this recovery, or is not to be: nobody has to wait for that any more."""
        if self._transfers is None:
            recovery.let_go()
        else:
            self._transfers.caught(recovery)

    async def ended(self, channel: str) -> None:
        """Wait until what is large and has begun, of a channel that it has left, is written."""
        if self._transfers is not None:
            await self._transfers.ended(channel)

    def pause(self) -> None:
        """Take no more messages until those at hand are handled."""
        if self._writer is not None and not self._paused:
            self._paused = True
            self._writer.pause_reading()

    @property
    def rooms(self) -> frozenset[str]:
        """The rooms the session is in."""
        return frozenset(self.room_names or ())

    # --------------------------------------------------------------------------- the transport's calls

    def opened(self, writer: Writer) -> None:
        """The connection stands."""
        node = self._node
        self._writer = writer
        self.outbox = Outbox(
            self, writer, node.format_for(writer, self._conversation.codec), node.turn, node.options.outbox
        )
        node.sessions[self.id] = self
        node.counts.add(self.ip)
        if self.full:
            self._timer = node.wheel.after(node.options.hello_timeout, self._no_hello)
        else:
            self._run(commands.open_plain(node, self))

    def received(self, message: str | bytes) -> None:
        """One whole message of the client's."""
        node = self._node
        self.last_seen = node.wheel.now
        node.messages_in += 1
        if self._busy:
            self._enqueue(message)
        else:
            self._handle(message)

    def alive(self) -> None:
        """A ping or pong frame came."""
        self.last_seen = self._node.wheel.now

    def blocked(self) -> None:
        """The socket takes no more."""
        self.outbox.blocked = True
        self._node.blocked.setdefault(self, (self._node.loop.time(), self.unsent))

    def unblocked(self) -> None:
        """The socket takes bytes again."""
        self._node.blocked.pop(self, None)
        # The peer has read: as good as a word from it, which may have to wait behind much that is large.
        self.last_seen = self._node.wheel.now
        written = self.outbox.unblock()
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        if not self.full and written:
            self._node.note_unblocked(self.user, written)

    def closed(self, code: int, reason: str) -> None:
        """The connection is gone."""
        if self._closing is None:
            # The goodbye came from the client.
            self.last_seen = self._node.wheel.now
            self._end(code, reason)
        self._writer = None

    # ------------------------------------------------------------------------------------ what it says

    def _handle(self, message: str | bytes | Envelope | Request | Fault, arrived: float | None = None) -> None:
        if isinstance(message, str | bytes):
            event = self._conversation.receive(message, self.last_seen)
        else:
            event = self._conversation.received_whole(message, self.last_seen)
        metering = self._node.metering
        if metering is None or self._may(metering, event, arrived):
            self._do(event)

    def put_first(self, item: First) -> None:
        """What is to be handled next, when `go_on` is called."""
        if self._queue is None:
            self._queue = Waiting()
        self._queue.add_first(item, self._node.loop.time())

    def in_turn(self, command: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `command` as if the client had asked for it: not while something else is being handled."""
        if self._busy:
            self.put_first(command)
        else:
            self._run(command())

    def _do(self, event: Envelope | Request | Fault | Violation) -> None:
        if type(event) is Envelope or type(event) is PackedEnvelope:
            waiting = route(self._node, self, event)
            if waiting is not None:
                self._run(waiting)
        elif isinstance(event, Request):
            handler = commands.HANDLERS[type(event)]
            self._run(handler(self._node, self, event))
        elif isinstance(event, BadChunk):
            if self.transfers.spoil(event):
                self.wrong(event.told)
        elif isinstance(event, Fault):
            self.fault(event)
        elif isinstance(event, Violation):
            if event.fault is not None:
                self.fault(event.fault)
            self.close(event.code, event.reason)

    def _may(self, metering: Metering, event: Envelope | Request | Fault | Violation, arrived: float | None) -> bool:
        """Whether the rates let it through now; where they do not, it is refused, or waits its turn."""
        now = self._node.loop.time()
        if arrived is None:
            arrived = now
        allowance = self._allowance
        if allowance is None:
            if type(event) is Hello:
                # The handshake has paid for it; and it is not known yet whose session this is.
                return True
            allowance = self._allowance = Allowance(metering, self.user, self.ip)
        if isinstance(event, Envelope):
            verdict = allowance.take(event.type, arrived)
        elif type(event) is Chunk:
            verdict = allowance.take("chunk", max(arrived, now))
        elif isinstance(event, Request):
            verdict = allowance.take(_NAMES[type(event)], arrived)
        else:
            allowance.charge(arrived)
            return True
        if verdict is None:
            return True
        if type(event) is Chunk:
            # A message with a hole is of no use: it comes slower, and so does what is behind it.
            self.wait()
            ready = max(arrived, now) + verdict.seconds
            self._delay = self._node.loop.call_later(ready - now, self._take_late, metering, event, ready)
            return False
        # It may have waited behind others since it came.
        left = arrived + verdict.seconds - now
        if isinstance(verdict, Refused):
            self._refuse(event, left, allowance)
            return False
        if left <= 0:
            return True
        self.wait()
        self._delay = self._node.loop.call_later(left, self._do_late, event)
        return False

    def _do_late(self, event: Envelope | Request) -> None:
        self._delay = None
        self._busy = False
        try:
            self._do(event)
        finally:
            if not self._busy:
                self.go_on()

    def _take_late(self, metering: Metering, event: Chunk, ready: float) -> None:
        if self._may(metering, event, ready):
            self._do_late(event)

    def _refuse(self, event: Envelope | Request, seconds: float, allowance: Allowance) -> None:
        # A little more than it is: clocks are coarse, and one that comes a millisecond early is refused again.
        retry_after = math.ceil(max(0.0, seconds) * 100 + 0.5) / 100
        room: str | None = getattr(event, "room", None)
        self.fault(Fault(ErrorCode.RATE_LIMITED, "too much at once: wait a little", event.id, room, retry_after))
        if allowance.offends:
            self.close(CloseCode.PROTOCOL_VIOLATION, "too many messages in spite of rate_limited")

    def wrong(self, fault: Fault) -> None:
        """Answer a bad message that only the hub could tell from a good one; the tenth in a minute ends it."""
        self.fault(fault)
        if self._conversation.wrong(self.last_seen):
            self.close(CloseCode.PROTOCOL_VIOLATION, "too many bad messages")

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        rest = step(coroutine)
        if rest is not None:
            self.wait()
            self._node.spawn(rest, self.go_on)

    def wait(self, waits: bool = True) -> None:
        """Keep later messages back until `go_on`: the one at hand has to wait for something; or, after all, has not."""
        self._busy = waits

    def go_on(self) -> None:
        """What had to wait is done: now the messages that came meanwhile."""
        self._busy = False
        queue = self._queue
        while queue and not self._busy:
            if self._closing is not None:
                self._queue = None
                return
            message, arrived = queue.take()
            if callable(message):
                self._run(message())
            else:
                self._handle(message, arrived)
        if not queue:
            self._queue = None
            if self._paused and self._writer is not None and not self._node.draining:
                self._paused = False
                self.last_seen = self._node.wheel.now
                self._writer.resume_reading()

    def _enqueue(self, message: str | bytes) -> None:
        if self._closing is not None:
            return
        if self._queue is None:
            self._queue = Waiting()
        # Now, and not when its turn comes: that the server takes its time must not look like a burst.
        self._queue.add(message, self._node.loop.time())
        if self._queue.is_full(self._node.options.session_queue, self._node.options.message_size):
            # What the last read has brought may still come, uncompressed; the socket brings no more.
            self.pause()

    # ------------------------------------------------------------------------------------ what it gets

    def send(self, message: object, channel: str = "", seq: int | None = None) -> None:
        """Send one message of the server to this session alone; `Outbox.put` says what `channel` and `seq` are."""
        if self._closing is None and self._writer is not None:
            self.put_frame(self.outbox.format.encode(message), None, channel, seq)

    def put(self, publication: Publication, channel: str) -> None:
        """Send one publication of `channel` to this session alone."""
        self.put_frame(self.outbox.format.encode(publication), publication, channel)

    def fault(self, fault: Fault) -> None:
        """Tell the client what did not work."""
        self._node.count_error(fault.code)
        self.send(fault)

    def put_frame(
        self, frame: bytes, publication: Publication | None = None, channel: str = "", seq: int | None = None
    ) -> None:
        """Send what is framed for this session's format; `Outbox.put` says what the others are."""
        turn = self._node.turn
        turn.begin()
        turn.collect(len(frame))
        self.outbox.put(frame, publication, channel, None, seq)
        if turn.full:
            self._node.end_slow()

    async def writable(self) -> bool:
        """Wait until the socket takes something; False when the session has ended."""
        while self.outbox.blocked and self._closing is None:
            if self._writable is None or self._writable.done():
                self._writable = self._node.loop.create_future()
            await self._writable
        return self._closing is None

    # ----------------------------------------------------------------------------- how it lives and ends

    def prove(self, identity: Identity, by: str) -> None:
        """It is known whose session this is; or anew, with a new token."""
        node = self._node
        self.proved_by = by
        self.user = identity.user
        self.identity = identity
        self.permissions = node.policies.of(identity)
        self.guarded = self.permissions is not None or self.hooks.authorize is not None
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        if identity.expires is not None and self._closing is None:
            self._expiry = node.wheel.after((identity.expires - node.now_ms()) / 1000, self._expire)

    def open(self) -> None:
        """From now on it is a session among others: counted as its user's, and watched."""
        node = self._node
        self.since = node.now_ms()
        self.handshake = None
        node.counts.add_user(self.user)
        way = "full" if self.full else "plain"
        audit.record("connect", session=self.id, user=self.user, ip=self.ip, by=self.proved_by, way=way)
        if self._timer is not None:
            self._timer.cancel()
        delay = node.options.envelope_ping_interval if self.full else node.options.ping_interval
        self._timer = node.wheel.after(delay, self._watch)

    def close(self, code: int, reason: str, *, retry_after: float | None = None) -> None:
        """End the session: what was sent before goes out first, then a goodbye (full way) and the close frame."""
        if self._closing is not None or self._writer is None:
            return
        if self.full and self.since:
            self.send(Goodbye(int(code), reason, retry_after))
            if self.ending:
                # The goodbye was too much for its outbox, which has ended it.
                return
        if code == CloseCode.SLOW_CONSUMER:
            # It takes nothing, and comes back for what is held.
            self.outbox.flush()
        else:
            self.outbox.hand_over()
        self._node.note_written(self)
        self._writer.close(int(code), reason)
        self._end(int(code), reason)

    def abort(self) -> None:
        """End the connection without ceremony."""
        if self._writer is not None:
            self._writer.abort()
        if self._closing is None:
            self._end(CloseCode.ABNORMAL, "aborted")

    def _end(self, code: int, reason: str) -> None:
        for timer in (self._timer, self._expiry, self._delay):
            if timer is not None:
                timer.cancel()
        self._closing = (code, reason)
        self._node.blocked.pop(self, None)
        # What did not leave the outbox was not written: the next session gets it.
        self._node.unwritten.pop(self, None)
        self.outbox.close()
        if self._transfers is not None:
            self._transfers.clear()
        if code in _VIOLATIONS:
            audit.record("violation", session=self.id, user=self.user, ip=self.ip, code=code)
        lasted = self._node.now_ms() - self.since if self.since else None
        # Not the reason: it may be the client's own words.
        audit.record("disconnect", session=self.id, user=self.user, ip=self.ip, code=code, lasted=lasted)
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._node.run(commands.depart(self._node, self, code, reason))

    def _expire(self) -> None:
        # The wheel does not notice when the clock is set back.
        if self.identity is not None and self._closing is None:
            if self.identity.expires is not None and self.identity.expires > self._node.now_ms():
                self.prove(self.identity, self.proved_by)
            else:
                self.close(CloseCode.TOKEN_EXPIRED, "the token has expired: come back with a new one")

    def _no_hello(self) -> None:
        # One that came in time may still wait for the application.
        if not self._conversation.greeted:
            self.close(CloseCode.NO_HELLO, "no hello in time")

    def _watch(self) -> None:
        """Is the client still there? A plain one is pinged when it is silent, a full one regularly."""
        node, options = self._node, self._node.options
        now = node.wheel.now
        ends = None if self.identity is None else self.identity.expires
        if ends is not None and ends <= node.now_ms():
            # The clock has been set forward, or the machine has slept, and the timer does not know.
            self._expire()
            return
        if self._paused:
            # It is not the client that is silent: we do not listen.
            self.last_seen = now
        silent = now - self.last_seen
        if self.full:
            self._pinged = now
            # The clock is coarse: a pong within the same tick must still look later than the ping.
            self.last_seen = min(self.last_seen, now - node.wheel.granularity)
            self.send(ServerPing())
            self._timer = node.wheel.after(options.pong_timeout, self._check_pong)
        elif silent >= options.silence_limit:
            self.close(CloseCode.NO_PONG, "silent for too long")
        elif silent >= options.ping_interval:
            if self._writer is not None:
                self._writer.ping()
            # Who answers is silent anew from then on: its next ping may be due long before the limit would be.
            self._timer = node.wheel.after(min(options.ping_interval, options.silence_limit - silent), self._watch)
        else:
            self._timer = node.wheel.after(options.ping_interval - silent, self._watch)

    def _check_pong(self) -> None:
        # Any message since then proves as much as a pong does.
        if not self._paused and self.last_seen < self._pinged:
            self.close(CloseCode.NO_PONG, "no answer to ping")
            return
        options = self._node.options
        self._timer = self._node.wheel.after(options.envelope_ping_interval - options.pong_timeout, self._watch)
