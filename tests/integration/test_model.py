"""Channels and sessions against a plain list: whatever happens, each client can follow every channel without a hole.

The hub and the memory engine are the real ones, the connections are `support.wire`'s. The model of a channel is a
list of what was accepted; the clients follow the protocol's own rule (protocol.md 5.1): the next message of a
channel is the one after the position that the client has reached.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from itertools import count
from typing import Any, TypeVar
from unittest.mock import patch

import pytest
import uvloop
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hubbub import Hub, Session
from hubbub.core.log import HistoryLimits
from hubbub.core.outbox import OutboxLimits, Overflow
from hubbub.core.rates import OFF, RateLimits
from hubbub.engines.base import Accepted
from hubbub.engines.memory import MemoryEngine
from hubbub.hub import HubOptions
from hubbub.transports.base import Accept, Handshake
from support.wire import Wire

T = TypeVar("T")

USERS = ["alice", "bob", "carol"]
ROOMS = ["den", "lobby"]
CHANNELS = ["all", *(f"user:{user}" for user in USERS), *(f"room:{room}" for room in ROOMS)]
NAMED = ["", "new", "retry", "receipt"]
# Small, so that retention and bounds are always near.
KEPT, CAPACITY, OUTBOX = 6, 2, 4


class Past:
    """What a channel's log should be: a list, whose item 0 has seq 1."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str, int]] = []
        # The seq of the newest message that retention has dropped.
        self.dropped = 0
        # Who said what lately: a retry gets the same seq.
        self.known: dict[tuple[str, str], int] = {}
        # None until it is known.
        self.epoch: str | None = None
        # Epochs that were told before the log began: they may hold or not.
        self.early: set[str] = set()

    @property
    def end(self) -> int:
        return len(self.said)

    def append(self, kind: str, user: str, content: int) -> int:
        self.said.append((kind, user, content))
        self.dropped = max(self.dropped, self.end - KEPT)
        return self.end

    def expire(self) -> None:
        self.dropped = self.end
        self.known.clear()

    def recovers(self, epoch: str, seq: int) -> set[bool]:
        """What `recovered` may be for this position."""
        there = self.dropped <= seq <= self.end
        if epoch == self.epoch:
            return {there}
        return {False, there} if epoch in self.early else {False}


class Cursor:
    """Where a user's cursor may be: a plain client's moves when the hub gets round to it."""

    def __init__(self) -> None:
        self.low = self.high = 0

    def set(self, seq: int) -> None:
        self.low, self.high = max(self.low, seq), max(self.high, seq)


class Client:
    """One session's other end, following its channels."""

    def __init__(self, user: str, full: bool) -> None:
        self.user = user
        self.full = full
        self.wire = Wire()
        self.session: Session
        # Where it stands, by channel; of a plain one's inbox None until something comes.
        self.positions: dict[str, tuple[str, int] | None] = {}
        # What requests under way must be answered with, by id.
        self.expected: dict[str, dict[str, Any]] = {}
        # Ids of messages for which an ack stands instead of an echo, and the receipts that came.
        self.unechoed: set[str] = set()
        self.receipts: set[str] = set()
        self.was_stalled = False
        # Where a plain one's inbox may begin, and how far it has been read.
        self.begins = range(0)
        self.read = 0
        self.volatile: list[int] = []
        self.volatile_due: list[int] = []

    def __repr__(self) -> str:
        return f"<{self.user} {'full' if self.full else 'plain'} {self.positions}>"

    @property
    def inbox(self) -> str:
        return "user:" + self.user

    @property
    def rooms(self) -> list[str]:
        return [name.removeprefix("room:") for name in self.positions if name.startswith("room:")]

    @property
    def busy(self) -> bool:
        """Whether what it says now would have to wait."""
        return self.session.busy


class Saved:
    """What a client that was cut off remembers."""

    def __init__(self, client: Client) -> None:
        self.user = client.user
        self.positions = {name: at for name, at in client.positions.items() if at is not None and at[0]}


class ChannelsAndSessions(RuleBasedStateMachine):
    """Anything that users and operators do, in any order."""

    def __init__(self) -> None:
        super().__init__()
        # Small, too: a backlog has several pages, and more comes meanwhile than is kept aside.
        self.patches = [patch("hubbub.hub.recovery._PAGE", 2), patch("hubbub.core.channel._MOST_HELD", 3)]
        for small in self.patches:
            small.start()
        self.loop = uvloop.new_event_loop()
        self.time = 0.0
        self.hub = Hub()
        self.numbers, self.steps = count(1), 0
        self.pasts: dict[str, Past] = {}
        self.old_epochs: dict[str, set[str]] = {}
        self.cursors: dict[str, Cursor] = {}
        # By room and user: the clients in it, users in the order of coming.
        self.members: dict[str, dict[str, set[Client]]] = {room: {} for room in ROOMS}
        self.clients: list[Client] = []
        self.saved: list[Saved] = []
        # Messages that ask for a receipt, by id: to whom, at which seq.
        self.receipts: dict[str, tuple[str, int]] = {}

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(coroutine)

    def teardown(self) -> None:
        for small in self.patches:
            small.stop()
        self.run(self.hub.stop())
        self.loop.close()

    async def start(self) -> None:
        limits = HistoryLimits(history_size=KEPT, inbox_size=KEPT)
        options = HubOptions(
            # It says more in a second than people do.
            rates=RateLimits(rate_limit=OFF),
            dev=True,
            room_capacity=CAPACITY,
            # Its time is not the model's; test_grace.py is about it.
            presence_grace=0,
            outbox=OutboxLimits(outbox_messages=OUTBOX, overflow=self.policy, write_deadline=3600),
        )
        self.engine = MemoryEngine(limits, clock=lambda: self.time)
        await self.hub.start(self.engine, options)

    # ------------------------------------------------------------------------------ the model

    def past(self, channel: str) -> Past:
        return self.pasts.setdefault(channel, Past())

    def cursor(self, user: str) -> Cursor:
        return self.cursors.setdefault(user, Cursor())

    def learn(self, channel: str, epoch: str) -> None:
        """An epoch was told: it stays the channel's, and never was another log's."""
        past = self.past(channel)
        if past.epoch is None:
            assert epoch not in self.old_epochs.get(channel, ())
            past.epoch = epoch

        assert epoch == past.epoch

    def listened(self, channel: str) -> bool:
        if channel == "all":
            return True
        if channel.startswith("room:"):
            return bool(self.members[channel[5:]])
        return any(client.inbox == channel for client in self.clients)

    def forget(self, channel: str) -> None:
        past = self.pasts.pop(channel)
        self.old_epochs.setdefault(channel, set()).update({past.epoch or ""} | past.early)
        self.cursors.pop(channel.removeprefix("user:"), None)

    def ended(self, client: Client) -> None:
        """A session is over: out of its rooms; what it remembers may be resumed."""
        self.clients.remove(client)
        self.saved.append(Saved(client))
        for room in ROOMS:
            self.left(client, room)
        self.unlistened(client.inbox)

    def unlistened(self, channel: str) -> None:
        """The epoch of a log that has not begun is not kept for nobody."""
        past = self.past(channel)
        if not past.said and past.epoch is not None and not self.listened(channel):
            past.early.add(past.epoch)
            past.epoch = None

    def left(self, client: Client, room: str) -> None:
        sessions = self.members[room].get(client.user)
        if sessions is not None:
            sessions.discard(client)
            if not sessions:
                del self.members[room][client.user]
            self.unlistened("room:" + room)

    def may_enter(self, client: Client, room: str) -> bool:
        return client.user in self.members[room] or len(self.members[room]) < CAPACITY

    def entered(self, client: Client, room: str) -> None:
        self.members[room].setdefault(client.user, set()).add(client)

    def accepted(self, channel: str, kind: str, user: str, content: int, id: str | None = None) -> int:
        past = self.past(channel)
        seq = past.append(kind, user, content)
        if id is not None:
            past.known[user, id] = seq
        if any(not client.full and client.inbox == channel for client in self.clients):
            self.cursor(channel[5:]).high = seq
        return seq

    # ------------------------------------------------------------------------- what clients hear

    async def settle(self) -> None:
        """Let the hub come to rest, and the clients hear what has come."""
        for _ in range(8):
            await asyncio.sleep(0)
        # At the next tick it would happen by itself, and runs would not repeat.
        if self.hub._node is not None:
            self.hub._node.acknowledge_written()
        for client in list(self.clients):
            for message in client.wire.hear():
                self.hear(client, message)
            if client.wire.close_code is not None or client.wire.gone:
                assert client.wire.close_code == 4000
                client.wire.cut()
                self.ended(client)

    def hear(self, client: Client, message: dict[str, Any]) -> None:
        match message["type"]:
            case "welcome" | "joined" | "left" | "error" if message.get("id") in client.expected:
                self.answered(client, message, client.expected.pop(message["id"]))
            case "gap":
                channel = "room:" + message["room"] if "room" in message else message.get("channel", client.inbox)
                self.gap(client, channel, message["from"], message["to"])
            case "ack":
                self.acked(client, message)
            case "receipt":
                to, seq = self.receipts[message["id"]]

                assert message["id"] not in client.receipts and message["by"] == to
                assert self.cursor(to).high >= seq
                client.receipts.add(message["id"])
            case "goodbye":
                assert message["code"] == 4000
            case "error":
                assert message["room"] in ROOMS and message["code"] == "room_full"
            case _:
                self.published(client, message)

    def answered(self, client: Client, message: dict[str, Any], expected: dict[str, Any]) -> None:
        for key, value in expected.items():
            if isinstance(value, set):
                assert message[key] in value
            elif key != "since":
                assert message[key] == value, (key, message)
        if message["type"] == "left":
            client.positions.pop("room:" + message["room"], None)
        if message["type"] == "joined":
            channel = "room:" + message["room"]
            epoch, end = message["position"]
            self.learn(channel, epoch)
            # It may have left again before it hears this.
            self.unlistened(channel)
            # A recovery begins where it was asked for, and everything else at the end.
            client.positions[channel] = (epoch, expected["since"] if message["recovered"] else end)
        if message["type"] == "welcome":
            self.welcomed(client, message, expected["since"])

    def welcomed(self, client: Client, welcome: dict[str, Any], resume: dict[str, tuple[str, int]]) -> None:
        told = {"all": welcome["positions"]["all"], client.inbox: welcome["positions"]["inbox"]}
        told |= {"room:" + room: position for room, position in welcome["positions"]["rooms"].items()}
        recovered = {"all": welcome["recovered"]["all"], client.inbox: welcome["recovered"]["inbox"]}
        recovered |= {"room:" + room: how for room, how in welcome["recovered"]["rooms"].items()}

        assert told.keys() == recovered.keys()
        for channel, (epoch, seq) in told.items():
            past, since = self.past(channel), resume.get(channel)
            possible = past.recovers(*since) if since is not None else {None}
            self.learn(channel, epoch)
            if channel == client.inbox and recovered[channel] is not True:
                # From the cursor on, or from what is left of that.
                cursor = self.cursor(client.user)

                assert max(cursor.low, past.dropped) <= seq <= max(cursor.high, past.dropped)
                assert recovered[channel] in possible | {False}
                if seq > past.dropped:
                    cursor.low = cursor.high = seq
            else:
                assert recovered[channel] in possible, channel
                assert seq == past.end
            client.positions[channel] = (epoch, since[1] if recovered[channel] and since is not None else seq)

    def published(self, client: Client, message: dict[str, Any]) -> None:
        room, to = message.get("room"), message.get("to")
        channel = "room:" + room if room else "all" if to is None else "user:" + to

        assert channel in client.positions, "a channel that the client does not listen to"
        if "seq" not in message:
            client.volatile.append(message["content"])
            return
        said = self.past(channel).said[message["seq"] - 1]

        assert (message["type"], message.get("from", ""), message["content"]) == said
        self.advance(client, channel, message["seq"], message["seq"])
        if channel == client.inbox:
            client.read = message["seq"]

    def gap(self, client: Client, channel: str, first: int, last: int) -> None:
        # Only rooms drop, unless it is the past of an inbox that has gone.
        assert channel.startswith("room:") or channel == client.inbox
        self.advance(client, channel, first, last)

    def acked(self, client: Client, ack: dict[str, Any]) -> None:
        id = ack.get("id")
        if "seq" not in ack:
            return
        room, to = ack.get("room"), ack.get("to")
        channel = "room:" + room if room else "all" if to is None else "user:" + to
        self.learn(channel, ack["epoch"])
        # It stands for the message where there was no echo.
        if (id is None or id in client.unechoed) and not ack.get("duplicate") and channel in client.positions:
            self.advance(client, channel, ack["seq"], ack["seq"])

    def advance(self, client: Client, channel: str, first: int, last: int) -> None:
        """The client's one rule."""
        at = client.positions[channel]
        if at is None:
            assert first - 1 in client.begins
            at = ("", first - 1)

        assert first == at[1] + 1 <= last, f"{client.user} is at {at} of {channel} and hears {first}–{last}"
        client.positions[channel] = (at[0] or self.past(channel).epoch or "", last)

    # ----------------------------------------------------------------------------- what happens

    @initialize(policy=st.sampled_from(list(Overflow)))
    def begin(self, policy: Overflow) -> None:
        """A hub with somebody in it: most things need that."""
        self.policy = policy
        self.run(self.start())
        for user, full in (("alice", True), ("alice", False), ("bob", True)):
            client = self.come(user, full, {})
            for room in ROOMS:
                self.enter(client, room, "fresh")

    def pick(self, data: st.DataObject, *, idle: bool = True) -> Client:
        """Some client; `idle`: one whose messages are handled at once."""
        return data.draw(st.sampled_from([client for client in self.clients if not (idle and client.busy)]))

    @precondition(lambda self: len(self.clients) < 6)
    @rule(user=st.sampled_from(USERS), full=st.booleans(), resume=st.booleans(), data=st.data())
    def connect(self, user: str, full: bool, resume: bool, data: st.DataObject) -> None:
        saved = [state for state in self.saved if state.user == user] if full and resume else []
        self.come(user, full, data.draw(st.sampled_from(saved)).positions if saved else {})

    def come(self, user: str, full: bool, remembered: dict[str, tuple[str, int]]) -> Client:
        client = Client(user, full)
        subprotocols = ("hubbub.v1.json",) if full else ()
        handshake = Handshake(
            path="/ws", query={"user_id": user}, headers={}, subprotocols=subprotocols, ip="127.0.0.1"
        )
        accept = self.run(self.hub.admit(handshake))
        assert isinstance(accept, Accept) and isinstance(accept.receiver, Session)
        client.session = accept.receiver
        past, cursor = self.past(client.inbox), self.cursor(user)
        if not full:
            client.positions = {"all": (self.past("all").epoch or "", self.past("all").end), client.inbox: None}
            client.begins = range(cursor.low, cursor.high + 1)
            # What it finds there is written to it.
            cursor.high = past.end
        self.now(lambda: client.wire.open(client.session))
        self.clients.append(client)
        if full:
            self.greet(client, remembered)
        self.run(self.settle())
        if not full and client.positions.get(client.inbox, 0) is None:
            # Nothing was unread.
            assert past.end in client.begins
            client.positions[client.inbox] = (past.epoch or "", past.end)
        return client

    def greet(self, client: Client, remembered: dict[str, tuple[str, int]]) -> None:
        rooms = {name[5:]: at for name, at in remembered.items() if name.startswith("room:")}
        resume = {"inbox": remembered.get(client.inbox), "all": remembered.get("all"), "rooms": rooms}
        client.expected["hello"] = {"type": "welcome", "since": remembered}
        self.say(client, {"type": "hello", "id": "hello", "resume": resume})
        for room in rooms:
            if self.may_enter(client, room):
                self.entered(client, room)

    def now(self, call: Callable[[], object]) -> None:
        """Call something of the hub's as the event loop does."""

        async def calling() -> None:
            call()

        self.run(calling())

    def say(self, client: Client, message: dict[str, Any]) -> None:
        self.now(lambda: client.wire.say(message))

    def cut(self, client: Client) -> None:
        self.now(client.wire.cut)
        self.ended(client)
        self.run(self.settle())

    @precondition(lambda self: self.clients)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        """A client's connection breaks."""
        self.cut(self.pick(data, idle=False))

    @precondition(lambda self: any(client.full for client in self.clients))
    @rule(data=st.data(), missed=st.lists(st.sampled_from(CHANNELS), max_size=2 * KEPT))
    def lose_for_a_moment(self, data: st.DataObject, missed: list[str]) -> None:
        """A client's connection breaks, it misses something, and comes back with what it remembers."""
        client = data.draw(st.sampled_from([client for client in self.clients if client.full]))
        self.cut(client)
        for channel in missed:
            self.announce(channel, 1)
        self.come(client.user, True, Saved(client).positions)

    @precondition(lambda self: any(not client.busy for client in self.clients))
    @rule(data=st.data(), room=st.sampled_from(ROOMS), how=st.sampled_from(["fresh", "since", "last"]))
    def join(self, data: st.DataObject, room: str, how: str) -> None:
        client = self.pick(data)
        states = [state.positions for state in self.saved if "room:" + room in state.positions]
        since = data.draw(st.sampled_from(states))["room:" + room] if states and how == "since" else ("unknown", 1)
        self.enter(client, room, how, since, data.draw(st.integers(0, KEPT + 1)) if how == "last" else 0)

    def enter(self, client: Client, room: str, how: str, since: tuple[str, int] = ("", 0), last: int = 0) -> None:
        past, id = self.past("room:" + room), f"j{next(self.numbers)}"
        asked: dict[str, Any] = {"type": "join", "room": room, "id": id}
        expected: dict[str, Any] = {"type": "joined", "recovered": None, "since": past.end}
        if how == "since":
            asked["since"] = since
            expected |= {"recovered": past.recovers(*since), "since": since[1]}
        elif how == "last":
            asked["last"] = last
            expected |= {"recovered": True, "since": max(past.dropped, past.end - last)}
        if self.may_enter(client, room):
            self.entered(client, room)
            expected |= {"count": len(self.members[room])}
        else:
            expected = {"type": "error", "code": "room_full", "room": room}
        client.expected[id] = expected
        self.say(client, asked)
        self.run(self.settle())

    @precondition(lambda self: any(not client.busy for client in self.clients))
    @rule(data=st.data(), room=st.sampled_from(ROOMS))
    def leave(self, data: st.DataObject, room: str) -> None:
        client, id = self.pick(data), f"l{next(self.numbers)}"
        client.expected[id] = {"type": "left", "room": room}
        self.say(client, {"type": "leave", "room": room, "id": id})
        self.left(client, room)
        self.run(self.settle())

    @precondition(lambda self: any(not client.busy for client in self.clients))
    @rule(data=st.data(), where=st.sampled_from(CHANNELS), named=st.sampled_from(NAMED), echo=st.booleans())
    def talk(self, data: st.DataObject, where: str, named: str, echo: bool) -> None:
        self.speak(self.pick(data), where, named, echo)

    def speak(self, client: Client, where: str, named: str, echo: bool) -> None:
        kind, _, name = where.partition(":")
        number = next(self.numbers)
        past = self.past(where)
        message: dict[str, Any] = {"type": "ab"[number % 2], "content": number, "echo": echo}
        if kind != "all":
            message["to" if kind == "user" else "room"] = name
        retried = [id for user, id in past.known if user == client.user]
        id = None
        if named == "retry" and retried:
            id = message["id"] = retried[number % len(retried)]
        elif named:
            id = message["id"] = f"m{number}"
        if named == "receipt" and kind == "user":
            message["receipt"] = True
            self.receipts[f"m{number}"] = (name, past.end + 1)
        hears = client in self.members[name].get(client.user, ()) if kind == "room" else where in ("all", client.inbox)
        if kind == "room" and not hears:
            message["id"] = id = f"m{number}"
            client.expected[id] = {"type": "error", "code": "not_joined", "room": name}
        fresh = (hears or kind == "user") and (id is None or (client.user, id) not in past.known)
        if fresh:
            self.accepted(where, message["type"], client.user, number, id)
            if not echo and id is not None:
                client.unechoed.add(id)
        self.say(client, message)
        if fresh and not echo and hears and not client.full and id is None:
            self.skip(client, where)
        self.run(self.settle())

    def skip(self, client: Client, channel: str) -> None:
        """Nothing tells a plain client of its own message without an echo: it asked for nothing."""
        at = client.positions.get(channel)
        # Behind a full socket it would not be known where: then it is as if it had been cut.
        if client.wire.stalled or at is None:
            self.cut(client)
        else:
            client.positions[channel] = (at[0], at[1] + 1)

    @rule(where=st.sampled_from(CHANNELS))
    def speak_in_passing(self, where: str) -> None:
        """A volatile message of the server's own."""
        number = next(self.numbers)
        for client in self.clients:
            if where in ("all", client.inbox) or client in self.members.get(where[5:], {}).get(client.user, ()):
                client.volatile_due.append(number)
        self.run(self.publish("v", number, where, volatile=True))
        self.run(self.settle())

    async def publish(self, kind: str, number: int, where: str, *, volatile: bool = False) -> Accepted:
        if where.startswith("user:"):
            return await self.hub.send_to(where[5:], kind, number, volatile=volatile)
        return await self.hub.publish(kind, number, room=None if where == "all" else where[5:], volatile=volatile)

    @rule(where=st.sampled_from(CHANNELS), burst=st.integers(1, OUTBOX + 2))
    def announce(self, where: str, burst: int) -> None:
        """Messages of the server's own, several in one turn."""

        async def publish() -> None:
            for _ in range(burst):
                number = next(self.numbers)
                accepted = await self.publish("n", number, where)
                self.learn(where, accepted.epoch)

                assert accepted.seq == self.accepted(where, "n", "", number)
            await self.settle()

        self.run(publish())

    @precondition(lambda self: any(not client.wire.stalled for client in self.clients))
    @rule(data=st.data(), room=st.integers(0, 400))
    def stall(self, data: st.DataObject, room: int) -> None:
        """A client stops reading; the kernel still takes `room` bytes for it."""
        client = data.draw(st.sampled_from([client for client in self.clients if not client.wire.stalled]))
        client.was_stalled = True
        client.wire.stall(room)

    @precondition(lambda self: any(client.wire.stalled for client in self.clients))
    @rule(data=st.data())
    def go_on(self, data: st.DataObject) -> None:
        client = data.draw(st.sampled_from([client for client in self.clients if client.wire.stalled]))
        self.now(client.wire.go_on)
        self.run(self.settle())

    @precondition(lambda self: any(not client.wire.stalled and client.rooms for client in self.clients))
    @rule(data=st.data(), heard=st.lists(st.booleans(), min_size=2, max_size=2 * OUTBOX))
    def fall_behind(self, data: st.DataObject, heard: list[bool]) -> None:
        """A member stops reading while the room goes on, partly with what it says itself, and reads again."""
        client = data.draw(st.sampled_from([c for c in self.clients if not c.wire.stalled and c.rooms and not c.busy]))
        room = "room:" + data.draw(st.sampled_from(client.rooms))
        client.was_stalled = True
        client.wire.stall(0)
        for others in heard:
            if client in self.clients:
                if others:
                    self.announce(room, 1)
                else:
                    self.speak(client, room, "new", echo=False)
        if client in self.clients:
            self.now(client.wire.go_on)
            self.run(self.settle())

    @precondition(lambda self: any(not client.wire.stalled and not client.busy for client in self.clients))
    @rule(
        data=st.data(),
        room=st.sampled_from(ROOMS),
        last=st.integers(1, KEPT),
        meanwhile=st.lists(st.booleans(), max_size=KEPT),
        reads=st.booleans(),
    )
    def catch_up_slowly(self, data: st.DataObject, room: str, last: int, meanwhile: list[bool], reads: bool) -> None:
        """A client joins and reads nothing of the backlog while the room goes on, seqs and volatile ones mixed."""
        client = data.draw(st.sampled_from([c for c in self.clients if not c.wire.stalled and not c.busy]))
        client.was_stalled = True
        client.wire.stall(0)
        # Fills the socket, so that the backlog has to wait.
        self.announce("all", 1)
        self.enter(client, room, "last", last=last)
        for logged in meanwhile:
            if logged:
                self.announce("room:" + room, 1)
            else:
                self.speak_in_passing("room:" + room)
        if reads and client in self.clients:
            self.now(client.wire.go_on)
            self.run(self.settle())

    @precondition(lambda self: any(client.full and not client.busy for client in self.clients))
    @rule(data=st.data(), back=st.integers(0, 3))
    def acknowledge(self, data: st.DataObject, back: int) -> None:
        client = data.draw(st.sampled_from([client for client in self.clients if client.full and not client.busy]))
        at = client.positions.get(client.inbox)
        if at is not None and at[1] > back:
            self.cursor(client.user).set(at[1] - back)
            self.say(client, {"type": "ack", "seq": at[1] - back})
            self.run(self.settle())

    @precondition(lambda self: self.steps % 8 == 7)
    @rule()
    def let_everything_expire(self) -> None:
        """A long time passes, and the engine sweeps: logs that nobody listens to are forgotten."""
        self.time += 10_000_000
        self.run(self.settle())
        for past in self.pasts.values():
            past.expire()
        # Who stalls still has to hear of the old logs, which the model would not know any more.
        if not any(client.wire.stalled for client in self.clients):
            self.engine.sweep()
            for channel, past in list(self.pasts.items()):
                if self.listened(channel):
                    continue
                if past.said:
                    self.forget(channel)
                else:
                    # Nothing is kept of it, so nothing says that its epoch stays.
                    past.epoch = None

    @precondition(lambda self: self.steps % 16 == 15)
    @rule()
    def restart(self) -> None:
        """The server starts anew: other epochs, and nothing is left."""
        for client in list(self.clients):
            self.ended(client)
        self.run(self.hub.stop())
        for channel in list(self.pasts):
            self.forget(channel)
        self.receipts.clear()
        self.run(self.start())

    # --------------------------------------------------------------------------- what is always so

    @invariant()
    def readers_are_up_to_date(self) -> None:
        """Who reads has everything, of every channel that it listens to, and knows who it is with."""
        self.steps += 1
        for client in self.clients:
            if client.wire.stalled:
                continue
            for channel, at in client.positions.items():
                assert at is not None and at[1] == self.past(channel).end, (client, channel)
            assert sorted(client.rooms) == sorted(
                room for room in ROOMS if client in self.members[room].get(client.user, ())
            )
            assert client.expected == {}
            if not client.was_stalled:
                assert client.volatile == client.volatile_due
            if not client.full:
                # Read is acknowledged.
                self.cursor(client.user).set(client.read)

    @invariant()
    def rooms_have_their_members(self) -> None:
        """In the order of coming, counted by session."""
        if not self.hub.running:
            return
        for room in ROOMS:
            members = self.run(self.hub.members(room))
            expected = {user: len(sessions) for user, sessions in self.members[room].items()}

            assert [(member.user, member.sessions) for member in members] == list(expected.items())


# Making a failure small takes longer than finding it.
TestChannelsAndSessions = pytest.mark.timeout(600)(ChannelsAndSessions.TestCase)
TestChannelsAndSessions.settings = settings(
    max_examples=100,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
