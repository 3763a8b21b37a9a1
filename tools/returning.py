"""A million clients lose their server at once: who is back when, with the code that clients and servers really run.

Pure and seeded. The waits are those of `hubbub.client.retry`, the rate of handshakes is kept by `hubbub.core.rates`, a
drain is paced by `hubbub.core.pacing`, and what everything takes is in `hubbub.planning`. One client stands for many.
"""

from __future__ import annotations

import heapq
import math
import random
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Final

from hubbub.client.retry import delay
from hubbub.core.limits import ConnectionLimits
from hubbub.core.pacing import absence, pace
from hubbub.core.rates import Bucket, Rate, Refused
from hubbub.planning import COSTS, ENGINES

__all__ = ["Goodbye", "Storm", "crash", "drain", "storm"]

# Clients that one of the simulation stands for.
WEIGHT: Final = 100

# Of a worker: connections that wait to be accepted. More are turned away, which a proxy tells after its second.
BACKLOG: Final = 4_096
TURNED_AWAY: Final = 1.0

# Seconds that a client waits for `welcome` (spec/client.md §2).
PATIENCE: Final = 5.0

# The part of each core that has other things to do.
BUSY: Final = 0.2

# Seconds after which the simulation ends, whoever is missing.
HORIZON: Final = 300.0

Delay = Callable[[int, float, float | None], float]
"""Seconds until the next try: after so many failures, by chance from 0 to 1, at least what the server asks for."""


@dataclass(frozen=True)
class Goodbye:
    """When a client loses its server, and how long that asked it to stay away."""

    at: float = 0.0
    retry_after: float | None = None


@dataclass
class Storm:
    """What happened; times are seconds since the first client lost its server."""

    clients: int
    workers: int
    # When each simulated client was back, in order.
    back: list[float] = field(default_factory=list)
    # Seconds for which each was away.
    away: list[float] = field(default_factory=list)
    # Tries in each second. Of these: refused by rate, turned away, and let in when the client had given up.
    tries: Counter[int] = field(default_factory=Counter)
    refused: int = 0
    turned_away: int = 0
    in_vain: int = 0

    def within(self, share: float) -> float:
        """Seconds within which this share of the clients was back; infinite where it was not."""
        place = math.ceil(share * self.clients / WEIGHT) - 1
        return self.back[place] if place < len(self.back) else math.inf

    def share(self, second: float) -> float:
        """The part of the clients that was back by then."""
        return bisect_right(self.back, second) * WEIGHT / self.clients

    @property
    def peak(self) -> int:
        """The most tries that one worker got in one second."""
        return round(max(self.tries.values()) * WEIGHT / self.workers)


@dataclass
class _Try:
    """A client that has come to a worker."""

    who: int
    # After how many failures, with this one; and when.
    attempt: int
    came: float


class _Worker:
    """A core that takes one handshake after the other."""

    def __init__(self, rate: Rate, opening: int) -> None:
        self._meter = Bucket(rate)
        self._most = opening
        # Those that wait, and whether another is being handled.
        self.waiting: deque[_Try] = deque()
        self.busy = False
        # When the engine has opened each session that is not open.
        self.opening: deque[float] = deque()

    @property
    def full(self) -> bool:
        """Whether there is no place to wait in."""
        return len(self.waiting) * WEIGHT >= BACKLOG

    def take(self, now: float) -> Refused | None:
        """Let a client in, or not, as the door has it (hub/admission.py)."""
        while self.opening and self.opening[0] <= now:
            self.opening.popleft()
        refused = self._meter.take(now, WEIGHT)
        if isinstance(refused, Refused):
            return refused
        return Refused(1.0) if 0 < self._most <= len(self.opening) * WEIGHT else None


class _Engine:
    """The servers of an engine, among which sessions are spread evenly: one, so many times as fast."""

    def __init__(self, servers: int) -> None:
        costs = ENGINES["redis"]
        self._each = (costs.arrival + costs.join) * WEIGHT / servers / (1 - BUSY) / 1e6
        self._free = 0.0

    def open(self, now: float) -> float:
        """When a session that asks now is open."""
        self._free = max(self._free, now) + self._each
        return self._free

    def close(self, now: float) -> None:
        """A session that asked now has gone; to leave takes half as much as to come."""
        self._free = max(self._free, now) + self._each / 2


def storm(
    goodbyes: list[Goodbye],
    workers: int,
    *,
    rate: Rate,
    servers: int = 1,
    opening: int = ConnectionLimits().connections_opening,
    wait: Delay = delay,
    seed: int = 1,
) -> Storm:
    """All of `goodbyes` come back to any of `workers`, each of which lets them in at `rate`."""
    return _Run(goodbyes, [_Worker(rate, opening) for _ in range(workers)], _Engine(servers), wait, seed).found


class _Run:
    """One thing after the other, in the order of time."""

    def __init__(
        self, goodbyes: list[Goodbye], workers: list[_Worker], engine: _Engine, wait: Delay, seed: int
    ) -> None:
        self._goodbyes = goodbyes
        self._workers = workers
        self._engine = engine
        self._wait = wait
        self._chance = random.Random(seed)  # noqa: S311  # the same each time is what it is for
        self.found = Storm(len(goodbyes) * WEIGHT, len(workers))

        # When, and what; numbered, so that two of one moment are in order.
        self._now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = count()

        for who, told in enumerate(goodbyes):
            self._try(told.at, who, 1, told.retry_after)
        while self._events and self._events[0][0] < HORIZON:
            self._now, _, event = heapq.heappop(self._events)
            event()
        self.found.back.sort()

    def _at(self, when: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._count), event))

    def _try(self, since: float, who: int, attempt: int, retry_after: float | None = None) -> None:
        when = since + self._wait(attempt, self._chance.random(), retry_after)
        self._at(when, partial(self._come, _Try(who, attempt, when)))

    def _come(self, client: _Try) -> None:
        self.found.tries[int(self._now)] += 1
        worker = self._workers[self._chance.randrange(len(self._workers))]
        if worker.full:
            self.found.turned_away += 1
            self._try(self._now + TURNED_AWAY, client.who, client.attempt + 1)
            return
        worker.waiting.append(client)
        if not worker.busy:
            self._handle(worker)

    def _handle(self, worker: _Worker) -> None:
        client = worker.waiting.popleft()
        refused = worker.take(self._now)
        cost = COSTS.refusal if refused else COSTS.handshake + COSTS.shared_handshake + COSTS.shared_join
        worker.busy = True
        self._at(self._now + cost * WEIGHT / (1 - BUSY) / 1e6, partial(self._handled, worker, client, refused))

    def _handled(self, worker: _Worker, client: _Try, refused: Refused | None) -> None:
        gives_up = client.came + PATIENCE
        if refused is not None:
            self.found.refused += 1
            heard = min(self._now, gives_up)
            # As the door says it (hub/arrivals.py).
            self._try(heard, client.who, client.attempt + 1, max(1, math.ceil(refused.seconds)))
        else:
            opened = self._engine.open(self._now)
            worker.opening.append(opened)
            if opened <= gives_up:
                self.found.back.append(opened)
                self.found.away.append(opened - self._goodbyes[client.who].at)
            else:
                self.found.in_vain += 1
                self._engine.close(gives_up)
                self._try(gives_up, client.who, client.attempt + 1)
        worker.busy = False
        if worker.waiting:
            self._handle(worker)


def crash(clients: int) -> list[Goodbye]:
    """All lose their server in one moment."""
    return [Goodbye()] * (clients // WEIGHT)


def drain(clients: int, workers: int, timeout: float, seed: int = 1) -> list[Goodbye]:
    """So many workers, with so many clients together, are drained at the same time."""
    return [told for number in range(workers) for told in _drained(clients // workers, timeout, seed + number)]


def _drained(clients: int, timeout: float, seed: int) -> Iterator[Goodbye]:
    chance, paced = random.Random(seed), pace(clients, timeout)  # noqa: S311  # the same each time is what it is for
    for place in range(0, clients, WEIGHT):
        yield Goodbye(place // paced.batch * paced.interval, absence(paced.spread, chance.random()))
