"""From a load to a plan: how many workers on how many machines, what their engine takes, and where that ends."""

from __future__ import annotations

import math
from bisect import bisect_left
from enum import StrEnum
from typing import Final

from msgspec import Struct

from hubbub.core.limits import ConnectionLimits
from hubbub.core.log import HistoryLimits
from hubbub.errors import ConfigError
from hubbub.planning.figures import COSTS, ENGINES, EngineCosts
from hubbub.planning.load import Load, Machine

__all__ = ["EnginePlan", "Limit", "Plan", "Wall", "plan"]

# The part of a core that a worker uses when all is well. The rest is for moments, and for who comes from elsewhere.
_BUSY: Final = 0.5

# The part of its core that an engine's server may use, and a worker after a machine has died.
_BUSIEST: Final = 0.8

# Connections of one worker: at its rate of handshakes so many are back within a client's longest wait, half a minute.
_MOST: Final = 50_000

# Seconds within which everybody of a machine that has died should be back.
_RETURN: Final = 60.0

# The part of a machine's memory, and of its network, that is used at most.
_FULL: Final = 0.7

# Seconds that sessions may wait for the engine: a client waits for five (spec/client.md §2).
_PATIENCE: Final = 4.0

# Of machines: beyond, something else is wrong.
_MANY: Final = 10_000


class Limit(StrEnum):
    """Who lets no more in when many come back."""

    RATE = "rate"
    """The workers, by their `handshake_rate`."""

    WORKERS = "workers"
    """The workers' CPU."""

    ENGINE = "engine"
    """The engine's CPU."""


class EnginePlan(Struct, frozen=True, kw_only=True):
    """The server of the engine."""

    name: str
    # How many of it: one, or the primaries of a cluster.
    servers: int
    # The part of its core that each uses.
    busy: float
    # GiB of all, for sessions, and for messages that are kept.
    sessions: float
    history: float


class Wall(Struct, frozen=True, kw_only=True):
    """What is in the way of more."""

    # How many times this load it takes to be there.
    times: float
    what: str
    next: str


# Where nobody says anything, and the engine has grown with who comes.
_NOTHING: Final = Wall(times=math.inf, what="nothing that was measured", next="measure")


class Plan(Struct, frozen=True, kw_only=True):
    """What a load takes. Memory is in GiB, network in Gbit/s."""

    load: Load
    machine: Machine
    machines: int
    workers: int
    # Of each worker: connections, the part of its core, memory, and files that it may have to open.
    connections: int
    busy: float
    memory: float
    files: int
    # Of each machine, with what the kernel keeps for its connections.
    machine_memory: float
    network: float
    # None where one worker is enough: it keeps everything itself.
    engine: EnginePlan | None
    # What that one keeps of messages.
    history: float
    # When a machine dies: who has to come back, how many a second are let in, and by whom that is limited.
    lost: int
    arrivals: float
    limit: Limit
    # The `connections_opening` of each worker with which nobody who is let in waits too long for the engine; None where
    # that is so as it comes.
    connections_opening: int | None
    wall: Wall

    @property
    def back(self) -> float:
        """Seconds after which everybody of a machine that has died is back."""
        return self.lost / self.arrivals


def plan(
    load: Load,
    machine: Machine = Machine(),
    *,
    machines: int = 1,
    engine: str = "redis",
    history: HistoryLimits = HistoryLimits(),
    handshakes: float = 2_000.0,
) -> Plan:
    """What `load` takes, on at least so many `machines`. `handshakes` are those that a worker lets in, a second.

    Raises `ConfigError` where no number of workers or machines is enough, or there are no figures of the engine.
    """
    if engine not in ENGINES:
        raise ConfigError(f"there are no figures of an engine {engine!r}: take {' or '.join(ENGINES)}")
    machines, workers = _fewest_machines(load, machine, machines, _fewest_workers(load))
    return _Shape(load, machine, machines, workers, ENGINES[engine], engine, history, handshakes).plan()


def _fewest_workers(load: Load) -> int:
    """The fewest that have enough to spare."""
    least = math.ceil(load.connections / _MOST)
    if least == 1 and load.busy(1) <= _BUSY:
        return 1
    # From two on, more workers have less to do each, down to what everybody hears.
    candidates = range(max(2, least), max(3, load.connections + 1))
    found = bisect_left(candidates, True, key=lambda workers: load.busy(workers) <= _BUSY)
    if found == len(candidates):
        raise ConfigError(
            f"no number of workers is enough, for each would hear nearly all of {load.publications:,.0f} messages a "
            f"second and can hear {_BUSY / COSTS.hear * 1e6:,.0f}: say less often what so many hear"
        )
    return candidates[found]


def _fewest_machines(load: Load, machine: Machine, least: int, workers: int) -> tuple[int, int]:
    """So many that the others have room for its clients when one of them dies; and the workers on all of them."""
    for machines in range(max(least, math.ceil(workers / machine.cores)), max(least + 1, _MANY)):
        running = workers if machines == 1 else machines * machine.cores
        left = max(1, machines - 1)
        on_each = running // machines
        connections = load.connections / left
        memory = on_each * load.memory(running, connections / on_each) + connections * COSTS.socket / 1024**2
        if (
            load.busy(running) * machines / left <= _BUSIEST
            and memory <= _FULL * machine.memory
            and load.network / left <= _FULL * machine.network
        ):
            return machines, running
    raise ConfigError(
        f"{max(least, _MANY):,} machines with {machine.cores} cores, {machine.memory:g} GiB and "
        f"{machine.network:g} Gbit/s are not enough: take larger ones"
    )


class _Shape(Struct, frozen=True):
    """A load on so many workers and machines, and all that follows from that."""

    load: Load
    machine: Machine
    machines: int
    workers: int
    costs: EngineCosts
    engine: str
    history: HistoryLimits
    handshakes: float

    def plan(self) -> Plan:
        load, machines, workers = self.load, self.machines, self.workers
        each = math.ceil(load.connections / workers)
        lost = math.ceil(load.connections / machines)
        memory = load.memory(workers, each)
        arrivals, limit = self.arrivals()
        return Plan(
            load=load,
            machine=self.machine,
            machines=machines,
            workers=workers,
            connections=each,
            busy=load.busy(workers),
            memory=memory,
            # Those of a machine that has died come, too; and the kernel does not spread quite evenly.
            files=_rounded(1.1 * load.connections / self.left + 200),
            machine_memory=memory * workers / machines + lost * COSTS.socket / 1024**2,
            network=load.network / machines,
            engine=self.server() if workers > 1 else None,
            history=self.kept() if workers == 1 else 0.0,
            lost=lost,
            arrivals=arrivals,
            limit=limit,
            connections_opening=self.opening(),
            wall=min(self.walls(), key=lambda wall: wall.times, default=_NOTHING),
        )

    @property
    def left(self) -> int:
        """The workers that there are after a machine has died; where there is one machine, when it is back."""
        return self.workers if self.machines == 1 else self.workers - self.workers // self.machines

    def kept(self) -> float:
        """GiB of messages that are kept."""
        load, limits = self.load, self.history
        rooms = min(load.rooms * limits.history_size, load.rate * limits.history_age)
        inboxes = min(load.connections * limits.inbox_size, load.direct * limits.inbox_age)
        everybody = min(limits.history_size, load.broadcast * limits.history_age)
        each, most = (self.costs.kept + load.size / 1024) / 1024**2, limits.history_bytes / 1024**3
        if self.workers == 1:
            return min(most, (rooms + inboxes + everybody) * each)
        return sum(min(most if self.costs.bounded else math.inf, kept * each) for kept in (rooms, inboxes, everybody))

    # ------------------------------------------------------------------------------------------ the engine

    def spent(self) -> float:
        """Cores of the engine's servers for messages."""
        heard = self.load.heard(self.workers)
        return (self.load.publications * self.costs.publication + heard * self.costs.node) / 1e6

    def arrival(self) -> float:
        """Seconds of such a core for a client that comes back."""
        joins = self.load.rooms_each if self.load.rooms else 0
        return (self.costs.arrival + self.costs.join * joins) / 1e6

    def servers(self) -> int:
        """So many that each has enough to spare, and nobody waits long for them when a machine has died."""
        if not self.costs.shares:
            if self.spent() > _BUSY:
                raise ConfigError(
                    f"{self.engine} would need {self.spent() / _BUSY:.1f} cores for so many messages, and there are "
                    "figures of one alone: take --engine redis, of which there can be a cluster"
                )
            return 1
        returning = self.load.connections / self.machines / _RETURN * self.arrival()
        return max(1, math.ceil(self.spent() / _BUSY), math.ceil((self.spent() + returning) / _BUSIEST))

    def opened(self) -> float:
        """Sessions that they open in a second, beside what else they do."""
        return (self.servers() * _BUSIEST - self.spent()) / self.arrival()

    def server(self) -> EnginePlan:
        load, costs, servers = self.load, self.costs, self.servers()
        return EnginePlan(
            name=self.engine,
            servers=servers,
            busy=self.spent() / servers,
            sessions=(load.connections * costs.session + load.memberships * costs.membership) / 1024**2,
            history=self.kept(),
        )

    # ------------------------------------------------------------------------------------- where that ends

    def arrivals(self) -> tuple[float, Limit]:
        """How many a second are let in when a machine has died, and by whom that is limited."""
        load, left = self.load, self.left
        # Where there was one machine its workers have nothing else to do.
        busy = 0.0 if self.machines == 1 else load.busy(self.workers) * self.workers / left
        each = COSTS.handshake + COSTS.tls_handshake * load.tls
        each += COSTS.shared_handshake * (self.workers > 1)
        if load.rooms:
            each += load.rooms_each * (COSTS.join if self.workers == 1 else COSTS.shared_join)
        found = {Limit.RATE: left * self.handshakes, Limit.WORKERS: left * (1 - busy) / each * 1e6}
        if self.workers > 1:
            found[Limit.ENGINE] = self.opened()
        limit = min(found, key=found.__getitem__)
        return found[limit], limit

    def opening(self) -> int | None:
        """See `Plan`. Where everybody comes at once, and the engine is behind, clients give up what it has begun."""
        if self.workers == 1:
            return None
        most = int(self.opened() * _PATIENCE / self.workers)
        return max(1, most) if most < ConnectionLimits().connections_opening else None

    def walls(self) -> list[Wall]:
        """What else there is in the way, with as many workers and machines as it takes."""
        load, workers = self.load, self.workers
        if workers == 1:
            times = min(_BUSY / load.busy(1), _MOST / load.connections)
            return [Wall(times=times, what="the one core of a process", next="workers: `hubbub serve --workers 4`")]
        walls = []
        if self.servers() == 1:
            returning = load.connections / self.machines / _RETURN * self.arrival()
            times = _BUSIEST / (self.spent() + returning)
            what = "the one core of the engine"
            if returning > self.spent():
                what += ", when all clients of a machine come back within a minute"
            walls.append(Wall(times=times, what=what, next=self.costs.next))
        elif busiest := max(load.broadcast, load.rate / max(1, load.rooms)):
            times = _BUSIEST / (busiest * (self.costs.publication + (workers - 1) * self.costs.node) / 1e6)
            what = "the one core that has the busiest channel, for a channel is on one primary"
            walls.append(Wall(times=times, what=what, next="what is said there in several rooms"))
        if hears := load.heard(workers) / workers * COSTS.hear / 1e6:
            walls.append(
                Wall(
                    times=_BUSY / hears,
                    what="a worker's core, for each hears what all others do, however many there are",
                    next="fewer messages with more in each, or hubs of their own for regions or topics",
                )
            )
        return walls


def _rounded(number: float) -> int:
    """Up, to two digits."""
    step = int(10 ** max(0, int(math.log10(number)) - 1))
    return math.ceil(number / step) * step
