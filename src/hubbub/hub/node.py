"""What is alive on this node: its sessions, the channels they listen to, its one timer and its tasks."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import random
import re
import secrets
import time
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from hubbub.core.channel import Channel
from hubbub.core.limits import ConnectionCounts
from hubbub.core.metering import Metering
from hubbub.core.outbox import Held, Overflow, Turn
from hubbub.core.pacing import absence, spread
from hubbub.core.permissions import Policies
from hubbub.core.presence import Grace, LastSeen
from hubbub.core.retries import Retries
from hubbub.core.revocations import Revocations
from hubbub.core.rooms import RoomPatterns
from hubbub.core.tickets import Tickets
from hubbub.core.wheel import Wheel
from hubbub.eager import step
from hubbub.engines.base import Accepted, Engine
from hubbub.errors import ConfigError, HubbubError, Reject, Unavailable
from hubbub.hub.arrivals import Arrivals
from hubbub.hub.control import CONTROL, hear_control
from hubbub.hub.formats import Framed
from hubbub.hub.options import HubOptions
from hubbub.hub.pipeline import Outcome
from hubbub.hub.presence import came, tell_change, went
from hubbub.hub.receipts import SERVER_INBOX, Receipts
from hubbub.hub.records import INTERVAL, Records
from hubbub.hub.recovery import fan_out_large
from hubbub.hub.revocation import (
    REVOCATIONS,
    Revoking,
    hear_revocation,
    learn_revocations,
    restore_revocations,
    sweep_revocations,
)
from hubbub.hub.transfers import LargeMessages
from hubbub.protocol.codec import Codec
from hubbub.protocol.codes import CloseCode
from hubbub.protocol.envelope import Ack
from hubbub.types import ALL, Publication, inbox_channel, room_of, user_of

if TYPE_CHECKING:
    from hubbub.hub.hooks import Authenticator, Hooks
    from hubbub.hub.session import Session
    from hubbub.transports.base import Writer

__all__ = ["Node", "jitter"]

log = logging.getLogger("hubbub.hub")

# Seconds after which another try is not worth remembering it.
_NOT_SOON = 10
# Codes that are counted each by itself, and their characters: ours are fewer than fifty, the others an application's.
_MOST_CODES = 100
_LONGEST_CODE = 64


def jitter(spread: float) -> float:
    """Seconds to stay away: not everybody comes back at once."""
    return absence(spread, random.random())  # noqa: S311  # jitter is no secret


def _name(given: str) -> str:
    host = re.sub(r"[^A-Za-z0-9_-]", "-", platform.node().partition(".")[0])[:32]
    return f"{given or host or 'node'}.{os.getpid()}.{secrets.token_hex(4)}"


class Node:
    """One process's share of the hub: it is the engine's ear, and it owns everything that runs."""

    def __init__(
        self,
        engine: Engine,
        options: HubOptions,
        patterns: RoomPatterns,
        hooks: Hooks,
        authenticator: Authenticator | None = None,
    ) -> None:
        # As no other start of any node is called.
        self.name = _name(options.node_name)
        self.engine = engine
        self.hooks = hooks
        self.authenticator = authenticator
        self.options = options
        self.patterns = patterns
        self.strict = options.strict_types
        self.loop = asyncio.get_running_loop()

        # All timers; the loop has one, which ticks this.
        self.wheel = Wheel(self.loop.time())
        self._ticking: asyncio.TimerHandle | None = None

        # What this turn of the loop writes; its end is a single callback for all connections.
        self.turn = Turn(self._turn_opened)

        # When the turn began, milliseconds since the Unix epoch: the time of all its messages.
        self.turn_ms = 0

        # By session id: the sessions that are open or on their way there.
        self.sessions: dict[str, Session] = {}

        # The channels that somebody on this node listens to.
        self.channels: dict[str, Channel[Session]] = {ALL: self._new_channel(ALL)}

        # By channel, what an engine that waits is being told: to listen, or to listen no more. One thing at a
        # time, and whoever wants the channel waits for it.
        self._telling: dict[str, asyncio.Task[None]] = {}

        self.counts = ConnectionCounts(options.limits)

        # What handshakes pass first; and what messages cost, or None where nothing is limited.
        self.arrivals = Arrivals(options.rates, self.loop.time)
        self.metering = None if options.rates.rate_limit.off else Metering(options.rates)

        # What may be done, which proofs are good no more, and which tickets are out.
        self.policies = Policies(options.roles)
        self.revocations = Revocations()
        self.revoking = Revoking()
        self.tickets = Tickets()

        # What strangers do, in the audit.
        self.records = Records(self.loop.time)

        # The sessions that are in their inboxes, for the engine.
        self.present: set[str] = set()

        # Whose session has ended and may be back in a moment; and when something last came by one that has ended.
        self.last_seen = LastSeen()
        self.grace = Grace(self.wheel, options.presence_grace)

        # Users about whom online and offline hooks are being called: whether each is online, and was last seen.
        self.telling: dict[str, tuple[bool, int]] = {}

        # What the application did with messages that did not go into a log as they came.
        self.retries = Retries[Outcome](options.dedupe_window, options.dedupe_size)

        # Sessions whose socket does not take all: since when (the loop's clock) it has taken nothing, and how
        # many bytes waited for it then.
        self.blocked: dict[Session, tuple[float, int]] = {}

        # What this turn has put into the outboxes of plain clients and not written yet, as seqs of their inboxes.
        self.unwritten: dict[Session, int] = {}

        # How far the inboxes of plain clients have been written lately, by user, and whether a receipt
        # waits for that to be acknowledged.
        self._written: dict[str, int] = {}
        self._receipts_due = False

        # Receipts for which the engine had no place; beyond so many the oldest are not given.
        self._receipts_owed: deque[Publication] = deque(maxlen=10_000)

        # What the application has sent with `send_with_ack`, and waits for.
        self.receipts = Receipts(engine)

        # No new connections, and those there are say goodbye.
        self.draining = False

        # One object per kind of frames, for `Channel.fan_out` groups listeners by identity.
        self._formats: dict[object, Framed] = {}

        # What is too large for one message.
        self.large = LargeMessages(self)

        self.tasks: set[asyncio.Task[None]] = set()

        # Counted for statistics and metrics: users and rooms that have somebody here.
        self.users = 0
        self.rooms = 0
        self.messages_in = 0
        self.publications = 0
        self.errors: dict[str, int] = {}

    async def start(self) -> None:
        """Start the engine and the clock, or nothing; raises `ConfigError` where the engine cannot be used."""
        await self.engine.start(self, self.name)
        try:
            await self.engine.listen([ALL, REVOCATIONS, CONTROL])
            await learn_revocations(self)
        except BaseException as error:
            # It runs, and nobody else would end it.
            await self.stop()
            if isinstance(error, Unavailable):
                raise ConfigError(
                    f"the engine went away during the start ({error.message}): see that it runs, and start again"
                ) from None
            raise
        sweep_revocations(self)
        self._tell_records()
        self._tick()

    async def stop(self) -> None:
        """Abort what is left, cancel every task and stop the engine."""
        self.receipts.stop()
        for session in list(self.sessions.values()):
            session.abort()
        if self._ticking is not None:
            self._ticking.cancel()
            self._ticking = None
        tasks = [task for task in self.tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.large.stop()
        await self.engine.stop()

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch."""
        return int(time.time() * 1000)

    def format_for(self, writer: Writer, codec: Codec) -> Framed:
        """The format of a connection: the same object for all connections with the same codec and frames."""
        key = (codec.NAME, writer.framing(codec.BINARY))
        found = self._formats.get(key)
        if found is None:
            found = self._formats[key] = Framed(codec, key[1])
        return found

    # ------------------------------------------------------------------------------- the engine's ear

    def publication(self, channel: str, publication: Publication, origin: str | None, encoded: bytes | None) -> None:
        """Tell the channel's listeners on this node; see `hubbub.engines.base.Listener`."""
        listening = self.channels.get(channel)
        if listening is None:
            if channel == SERVER_INBOX:
                self.receipts.came(publication)
            elif channel == REVOCATIONS:
                hear_revocation(self, publication)
            elif channel == CONTROL:
                hear_control(self, publication)
            return
        self.publications += 1
        skip = None
        if origin is not None:
            session = self.sessions.get(origin)
            skip = session.outbox if session is not None else None
        size = memoryview(publication.content).nbytes if encoded is None else len(encoded)
        if size <= self.large.small:
            listening.fan_out(publication, self.turn, skip, encoded)
        else:
            fan_out_large(self, listening, publication, skip, encoded)
        if self.turn.full:
            self.end_slow()
        if listening.inbox and publication.seq is not None:
            self._to_inbox(listening, publication, skip)

    def lost(self, channel: str) -> None:
        """What the channel's listeners hold of it is good for nothing: see `hubbub.engines.base.Listener`.

        Whoever has a position comes back with it and is told what became of it; plain clients have none, and go on.
        """
        log.error("a part of a log is lost: whoever listens to the channel on this node is asked to resume")
        if channel == REVOCATIONS:
            restore_revocations(self)
        concerned = [outbox.owner for outbox in self.channels.get(channel, ()) if outbox.owner.full]
        # Everybody listens to `all`: not everybody comes back in the same second.
        over = spread(len(concerned))
        for session in concerned:
            session.close(CloseCode.TRY_LATER, "messages were lost: resume", retry_after=jitter(over))

    def gone(self, channel: str, user: str) -> None:
        """Somebody has gone with another node: see `hubbub.engines.base.Listener`."""
        room = room_of(channel)
        if room is not None:
            self.run(tell_change(self, room, user, "member-left"))
        elif user_of(channel) == user:
            went(self, user)

    def came(self, channel: str, user: str) -> None:
        """Somebody is back who had gone: see `hubbub.engines.base.Listener`."""
        room = room_of(channel)
        if room is not None:
            self.run(tell_change(self, room, user, "member-joined"))
        elif user_of(channel) == user:
            came(self, user)

    def _to_inbox(self, inbox: Channel[Session], publication: Publication, skip: object) -> None:
        """A plain client says nothing about what it handled: what is written to it counts as acknowledged."""
        for outbox in inbox.listeners:
            if outbox.owner.full or outbox.closed or outbox is skip:
                continue
            # It may be blocked by this very message, which then has left it all the same.
            if not (outbox.blocked and outbox.holds(publication)):
                self.unwritten[outbox.owner] = publication.seq or 0
                if not outbox.collecting:
                    # It went out at once.
                    self.note_written(outbox.owner)
                if publication.receipt:
                    # Somebody waits for it: not later than the write itself.
                    self._receipts_due = True

    def owe(self, session: Session, seq: int) -> None:
        """The inbox of a plain `session` is in its outbox up to `seq`: to acknowledge once that is written."""
        self.unwritten[session] = seq
        if not session.outbox.collecting:
            self.note_written(session)
        self._receipts_due = True
        if not self.turn.open:
            self.turn.begin()

    def note_written(self, session: Session) -> None:
        """What was put into the outbox of a plain `session` has left it."""
        seq = self.unwritten.pop(session, 0)
        if seq > self._written.get(session.user, 0) and not session.outbox.broken:
            self._written[session.user] = seq

    def acknowledge_written(self) -> None:
        """Move the cursors of plain clients to what has been written to them.

        Not at each message: with every tick, when a receipt is due, and when a session ends.
        """
        self._receipts_due = False
        if self._written:
            written, self._written = self._written, {}
            for user, seq in written.items():
                # Each by itself: the engine has heard of all of them before anything waits.
                self.run(self.note_read(user, seq))

    async def note_read(self, user: str, seq: int) -> None:
        """Acknowledge what a plain client has been written; where the engine is away, again with the next tick."""
        try:
            await self.acknowledge(user, seq)
        except Unavailable as error:
            if (error.retry_after or 0) > _NOT_SOON:
                log.warning("what a client has read cannot be noted: it may get it again")
            else:
                self._written[user] = max(seq, self._written.get(user, 0))

    async def acknowledge(self, user: str, seq: int) -> bool:
        """`user` has handled the inbox up to `seq`: move the cursor, and send the receipts that are due.

        False where `seq` is beyond the inbox's end.
        """
        due = await self.engine.set_cursor(user, seq)
        for publication in due or ():
            self._give_receipt(
                Publication("receipt", user, to=publication.from_, id=publication.id, time=self.now_ms())
            )
        return due is not None

    def _give_receipt(self, receipt: Publication) -> None:
        """Tell the sender; where the engine takes nothing now, with the next tick: it comes only once."""
        channel = inbox_channel(receipt.to or "")
        try:
            self.engine.submit(channel, receipt, True, None, partial(self._gave_receipt, receipt))
        except Unavailable:
            self._receipts_owed.append(receipt)

    def _gave_receipt(self, receipt: Publication, outcome: Accepted | Exception) -> None:
        if isinstance(outcome, Unavailable):
            self._receipts_owed.append(receipt)
        elif isinstance(outcome, Reject):
            # The answer was lost, and it may have been given; a second one would be one too many.
            log.warning("a receipt may not have been given: the engine did not answer")
        elif isinstance(outcome, Exception):
            log.error("a receipt could not be given", exc_info=outcome)

    # -------------------------------------------------------------------------------------- listening

    async def channel(self, name: str) -> Channel[Session]:
        """The channel's listeners on this node; the engine is told when they are the first.

        Returns when the engine listens: it misses nothing from then on. Raises what the engine raises, and then
        the channel is not there.
        """
        while (channel := self.channels.get(name)) is None:
            telling = self._telling.get(name)
            if telling is None:
                telling = self._tell_engine(name, self._listen(name))
            if telling is not None:
                try:
                    await asyncio.shield(telling)
                except asyncio.CancelledError:
                    # Whoever gave up may have been the only one.
                    telling.add_done_callback(lambda _: self.run(self._end_if_empty(name)))
                    raise
        return channel

    async def _listen(self, name: str) -> None:
        try:
            await self.engine.listen([name])
            channel = self.channels[name] = self._new_channel(name)
            self.users += channel.inbox
            self.rooms += not channel.inbox
        finally:
            self._telling.pop(name, None)

    async def _unlisten(self, name: str) -> None:
        try:
            await self.engine.unlisten([name])
        except Exception as error:
            # What it goes on telling nobody hears: no reason to fail who leaves, and who comes back.
            bug = None if isinstance(error, HubbubError) else error
            log.warning("the engine could not be told that nobody listens to a channel: %s", error, exc_info=bug)
        finally:
            self._telling.pop(name, None)

    def _tell_engine(self, name: str, telling: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        """Start `telling`; None where that did it, as always with an engine that does not wait."""
        rest = step(telling)
        if rest is None:
            return None
        task = self._telling[name] = self.loop.create_task(rest)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def _new_channel(self, name: str) -> Channel[Session]:
        # Only rooms may drop: nobody asked to miss a broadcast, and an inbox is what must not be missed.
        room, overflow = room_of(name), Overflow.DISCONNECT
        if room is not None:
            overflow = self.patterns.of(room).overflow or self.options.outbox.overflow
        return Channel(name, overflow, inbox=user_of(name) is not None)

    def sessions_of(self, user: str) -> list[Session]:
        """The open sessions of `user` on this node."""
        channel = self.channels.get(inbox_channel(user))
        return [] if channel is None else [outbox.owner for outbox in channel]

    def is_volatile(self, room: str | None) -> bool:
        """Whether everything that is said in `room` is volatile, whatever its sender says."""
        return room is not None and self.patterns.some_volatile and self.patterns.of(room).volatile is True

    def put_in_place(self, session: Session, ack: Ack, name: str) -> None:
        """Send an `ack` that stands for a message of the channel where that message would have come."""
        if ack.seq is None:
            # It has no place.
            session.send(ack)
            return
        channel = self.channels.get(name)
        hold = None if channel is None else channel.hold_of(session.outbox)
        if hold is None:
            session.send(ack, name, ack.seq)
        elif not hold.stand_in(ack):
            session.close(CloseCode.SLOW_CONSUMER, "reading too slowly: too many acks wait for their place")

    def note_unblocked(self, user: str, written: list[Held]) -> None:
        """What was held for a plain client has been written: its inbox is acknowledged as far as that."""
        inbox = inbox_channel(user)
        seqs = [entry.publication.seq for entry in written if entry.publication and entry.channel == inbox]
        handled = max((seq for seq in seqs if seq is not None), default=0)
        if handled:
            self.run(self.note_read(user, handled))

    def call_off(self, session: Session, channel: Channel[Session]) -> None:
        """What is kept aside for `session` does not come; the acks among it that were asked for come at once."""
        hold = channel.hold_of(session.outbox)
        if hold is not None:
            for ack in hold.give_up():
                session.send(ack)

    def hears(self, session: Session, name: str) -> bool:
        """Whether `session` listens to the channel."""
        channel = self.channels.get(name)
        return channel is not None and session.outbox in channel

    async def unlisten(self, session: Session, name: str) -> None:
        """`session` hears `name` no more; the engine is told when nobody here does."""
        channel = self.channels.get(name)
        if channel is None:
            return
        self.call_off(session, channel)
        channel.unlisten(session.outbox)
        await self._end_if_empty(name)

    async def _end_if_empty(self, name: str) -> None:
        channel = self.channels.get(name)
        if channel is None or len(channel) or name == ALL:
            return
        del self.channels[name]
        self.users -= channel.inbox
        self.rooms -= not channel.inbox
        telling = self._tell_engine(name, self._unlisten(name))
        if telling is not None:
            await asyncio.shield(telling)

    # ------------------------------------------------------------------------------ time and writing

    def _turn_opened(self) -> None:
        self.turn_ms = int(time.time() * 1000)
        self.loop.call_soon(self._end_turn)

    def _end_turn(self) -> None:
        self.turn.flush()
        if self.turn.full:
            self.end_slow()
        for session in list(self.unwritten):
            self.note_written(session)
        if self._receipts_due:
            self.acknowledge_written()

    def end_slow(self) -> None:
        """End the sessions whose outbox overflowed; called when no fan-out is under way."""
        while self.turn.full:
            session = self.turn.full.pop().owner
            session.close(CloseCode.SLOW_CONSUMER, "reading too slowly: the outbox is full")

    def _tick(self) -> None:
        now = self.loop.time()
        self._ticking = self.loop.call_later(self.wheel.granularity, self._tick)
        self.acknowledge_written()
        for _ in range(len(self._receipts_owed)):
            self._give_receipt(self._receipts_owed.popleft())
        for callback in self.wheel.advance(now):
            try:
                callback()
            except Exception:
                log.exception("a timer failed")
        if self.blocked:
            self._end_stalled(now)

    def _end_stalled(self, now: float) -> None:
        """End the sessions whose socket has taken nothing for as long as it may."""
        deadline = now - self.options.outbox.write_deadline
        for session, (since, unsent) in list(self.blocked.items()):
            left = session.unsent
            if left < unsent:
                self.blocked[session] = (now, left)
            elif since < deadline:
                session.close(CloseCode.SLOW_CONSUMER, "reading too slowly: a write took too long")

    def _tell_records(self) -> None:
        self.records.tell()
        self.wheel.after(INTERVAL, self._tell_records)

    # ------------------------------------------------------------------------------------------ tasks

    def run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run `coroutine` now, and own what is left of it as a task if it waits; its errors are logged."""
        try:
            rest = step(coroutine)
        except Exception:
            log.exception("a background step failed")
            return
        if rest is not None:
            self.spawn(rest)

    def spawn(self, coroutine: Coroutine[Any, Any, None], done: Callable[[], object] | None = None) -> None:
        """Own `coroutine` as a task until it ends, or the node stops; its errors are logged."""
        task = self.loop.create_task(coroutine)
        self.tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self.tasks.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("a background task failed", exc_info=error)
            if done is not None:
                done()

        task.add_done_callback(ended)

    def count_error(self, code: str) -> None:
        """Count an error or refusal by its code; where an application makes up ever new ones, or texts, as `other`."""
        if code not in self.errors and (len(self.errors) >= _MOST_CODES or len(code) > _LONGEST_CODE):
            code = "other"
        self.errors[code] = self.errors.get(code, 0) + 1
