"""Two hundred clients in twenty rooms, who publish at a steady pace, and come to rest when asked to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import cycle
from random import Random
from typing import get_args

from chaos.cluster import Cluster
from chaos.lean import LeanClient
from chaos.ledger import Ledger
from chaos.plan import Plan
from chaos.real import RealClient
from chaos.tally import Tally
from hubbub.client.wire import CodecName
from hubbub.types import inbox_channel, room_channel

__all__ = ["Fleet"]

# Seconds between two looks at what is due.
_TURN = 0.01
# One of so many goes to an inbox.
_TO_INBOX = 8
# Characters of a message, at most; one of so many is long.
_SHORT, _LONG = 100, 4000
_LONG_ONES = 20

_LETTERS = "abcdefghijklmnopqrstuvwxyz äöü😀"


class Fleet:
    """All clients of a run."""

    def __init__(self, plan: Plan, cluster: Cluster, tally: Tally) -> None:
        self._plan = plan
        self._tally = tally
        self._chance = Random(f"{plan.seed} fleet")
        names = [f"u{index:03}" for index in range(plan.clients)]
        room_of = {name: f"r{index % plan.rooms:02}" for index, name in enumerate(names)}
        readers = {inbox_channel(name): [name] for name in names}
        for name, room in room_of.items():
            readers.setdefault(room_channel(room), []).append(name)
        self.ledger = Ledger(readers)
        # In each room some of each codec. They know one address, and whoever they come to is chosen behind it.
        door = ("127.0.0.1", cluster.door.port)
        self.real = [
            RealClient(name, room_of[name], door, self.ledger, tally, codec)
            for name, codec in zip(names[: plan.real], cycle(get_args(CodecName)), strict=False)
        ]
        self.lean = [
            LeanClient(name, room_of[name], cluster.some_node, self.ledger, tally, f"{plan.seed} {name}")
            for name in names[plan.real :]
        ]
        self.members: list[RealClient | LeanClient] = [*self.real, *self.lean]
        self._padding = "".join(self._chance.choices(_LETTERS, k=1000 + _LONG))

        # How long publishing took, in seconds.
        self.published_for = 0.0

    async def run(self) -> None:
        """Keep everyone connected, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for member in self.members:
                group.create_task(member.run())
            while True:
                await asyncio.sleep(1)
                for member in self.members:
                    member.tick()

    @property
    def connected(self) -> int:
        """How many have a session."""
        return sum(member.connected for member in self.members)

    async def everyone(self, condition: Callable[[RealClient | LeanClient], bool], within: float) -> bool:
        """Wait until `condition` is true of each, at most `within` seconds; whether it came to that."""
        try:
            async with asyncio.timeout(within):
                while not all(map(condition, self.members)):
                    self.hurry()
                    await asyncio.sleep(0.05)
        except TimeoutError:
            return False
        return True

    def hurry(self) -> None:
        """The network is back: real clients need not wait for the end of their delay."""
        for member in self.real:
            member.hurry()

    async def publish(self, over: asyncio.Event) -> None:
        """Publish at the plan's rate until it is `over`."""
        loop = asyncio.get_running_loop()
        begin, due = loop.time(), 0
        while not over.is_set():
            elapsed = loop.time() - begin
            target = int(elapsed * self._plan.rate)
            for _ in range(target - due):
                self._publish_one()
            due = target
            await asyncio.sleep(_TURN)
        self.published_for = loop.time() - begin

    def _publish_one(self) -> None:
        chance = self._chance
        member = chance.choice(self.members)
        if member.unsettled >= member.most_unsettled:
            self._tally.held_back += 1
            return
        start = chance.randrange(1000)
        size = chance.randrange(_LONG if not chance.randrange(_LONG_ONES) else _SHORT)
        text = self._padding[start : start + size]
        content = b'{"n":%d,"text":"%s"}' % (len(self.ledger.sent_to), text.encode())
        if chance.randrange(_TO_INBOX):
            number, id = self.ledger.send(room_channel(member.room), member.name, content)
            member.publish(number, id, content, room=member.room)
        else:
            # The own inbox too, now and then.
            to = chance.choice(self.members).name
            number, id = self.ledger.send(inbox_channel(to), member.name, content)
            member.publish(number, id, content, to=to)

    async def settle(self, within: float) -> list[str]:
        """Bring everyone to the end of everything, at most so many seconds; what did not come to it, in words."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within
        if not await self.everyone(lambda member: not member.unsettled, within):
            return [f"{member!r} has messages without an ack" for member in self.members if member.unsettled]
        ends = self.ledger.ends()

        def at_the_end(member: RealClient | LeanClient) -> bool:
            channels = inbox_channel(member.name), room_channel(member.room)
            return member.connected and all(
                self.ledger.reading(member.name, channel).end >= ends[channel]
                for channel in channels
                if channel in ends
            )

        if not await self.everyone(at_the_end, deadline - loop.time()):
            return [f"{member!r} is not at the end" for member in self.members if not at_the_end(member)]
        # Whatever else is under way, such as a message that comes twice.
        for member in self.members:
            member.sync()
        await self.everyone(lambda member: member.synced, max(1.0, deadline - loop.time()))
        return []
