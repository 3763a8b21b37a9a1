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
from typing import Final

from hubbub.client.retry import delay
from hubbub.core.pacing import absence, pace
from hubbub.core.rates import Bucket, Rate, Refused
from hubbub.hub.admission import CROWDED
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
    # Tries in each second. Of these: refused at the door, turned away, and let in when the client had given up.
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


class _Worker:
    """A core that takes one handshake after the other."""

    def __init__(self, rate: Rate, opening: int) -> None:
        self.meter = Bucket(rate)
        self.free = 0.0
        # How many may be opening at once, and when each is open.
        self._most = opening
        self._opening: deque[float] = deque()
        # When each of those that wait is done.
        self._waiting: deque[float] = deque()

    def full(self, now: float) -> bool:
        """Whether there is no place to wait in."""
        while self._waiting and self._waiting[0] <= now:
            self._waiting.popleft()
        return len(self._waiting) * WEIGHT >= BACKLOG

    def take(self, now: float, chance: float) -> tuple[bool, float, float | None]:
        """Whether a client that comes is let in, when it hears of that, and when it may come again."""
        starts = max(self.free, now)
        while self._opening and self._opening[0] <= starts:
            self._opening.popleft()
        # As the door has it: hub/arrivals.py, and then hub/admission.py.
        over = self.meter.take(starts, WEIGHT)
        seconds = over.seconds if isinstance(over, Refused) else None
        if seconds is None and 0 < self._most <= len(self._opening) * WEIGHT:
            seconds = absence(CROWDED, chance)
        cost = COSTS.handshake + COSTS.shared_handshake + COSTS.shared_join if seconds is None else COSTS.refusal
        self.free = starts + cost * WEIGHT / (1 - BUSY) / 1e6
        self._waiting.append(self.free)
        return seconds is None, self.free, None if seconds is None else max(1, math.ceil(seconds))

    def opens(self, at: float) -> None:
        """Who was let in last is open then."""
        self._opening.append(at)


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
    opening: int = 0,
    servers: int = 1,
    wait: Delay = delay,
    seed: int = 1,
) -> Storm:
    """All of `goodbyes` come back to any of `workers`, each of which lets them in at `rate`.

    And no more while `opening` of them wait for the engine; 0: whoever waits.
    """
    chance = random.Random(seed)  # noqa: S311  # the same each time is what it is for
    engine, cores = _Engine(servers), [_Worker(rate, opening) for _ in range(workers)]
    found = Storm(len(goodbyes) * WEIGHT, workers)
    # When, who, and after how many failures. By the number, so that two of one moment are in order.
    coming = [(told.at + wait(1, chance.random(), told.retry_after), who, 1) for who, told in enumerate(goodbyes)]
    heapq.heapify(coming)
    while coming and coming[0][0] < HORIZON:
        now, who, attempt = heapq.heappop(coming)
        found.tries[int(now)] += 1
        worker = cores[chance.randrange(workers)]
        retry_after: float | None = None
        if worker.full(now):
            found.turned_away += 1
            failed = now + TURNED_AWAY
        else:
            let_in, decided, retry_after = worker.take(now, chance.random())
            if let_in:
                opened = engine.open(decided)
                worker.opens(opened)
                if opened - now <= PATIENCE:
                    found.back.append(opened)
                    found.away.append(opened - goodbyes[who].at)
                    continue
                found.in_vain += 1
                engine.close(now + PATIENCE)
            else:
                found.refused += 1
            failed = min(decided, now + PATIENCE) if not let_in else now + PATIENCE
        heapq.heappush(coming, (failed + wait(attempt + 1, chance.random(), retry_after), who, attempt + 1))
    found.back.sort()
    return found


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
