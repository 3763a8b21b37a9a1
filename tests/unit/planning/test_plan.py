"""A plan is enough for its load, also when a machine dies; and it says so where nothing is."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from hubbub.core.limits import ConnectionLimits
from hubbub.core.log import HistoryLimits
from hubbub.errors import ConfigError
from hubbub.planning import ENGINES, Limit, Load, Machine, plan

LOADS = [
    Load(connections=100_000, rooms=10_000, rooms_each=2, rate=1_667),
    Load(connections=500_000, rooms=200, rate=200),
    Load(connections=1_000_000, direct=500),
    Load(connections=50_000, broadcast=100),
    Load(connections=100_000, rooms=5_000, rate=100_000),
    Load(connections=200_000, rooms=10, rate=20, size=4_096, tls=True),
]


@pytest.mark.parametrize("load", LOADS, ids=lambda load: f"{load.connections}-{load.publications:g}")
def test_everything_has_room(load: Load) -> None:
    """Half of a core, some of the memory and the network; and the others take over from a machine that dies."""
    found = plan(load)
    left = found.workers if found.machines == 1 else found.workers - found.workers // found.machines

    assert found.connections * found.workers >= load.connections
    assert found.busy <= 0.5 and found.busy * found.workers / left <= 0.8
    assert found.machine_memory <= 0.7 * found.machine.memory and found.network <= 0.7 * found.machine.network
    assert found.workers <= found.machines * found.machine.cores
    assert found.files > load.connections / left
    assert found.engine is not None and found.engine.busy <= 0.5
    assert found.back <= 60


def test_a_load_for_one_worker_needs_no_engine() -> None:
    """And what is in the way of more is its core."""
    found = plan(Load(connections=5_000, rooms=100, rate=50))

    assert (found.workers, found.machines, found.engine, found.connections_opening) == (1, 1, None, None)
    assert found.limit is Limit.RATE and found.lost == 5_000
    assert "workers" in found.wall.next


def test_more_load_never_takes_less() -> None:
    """In clients, in messages, in rooms of each."""
    for name in ("connections", "rate", "rooms_each"):
        loads = []
        for times in (1, 2, 4, 8, 16):
            fields: dict[str, Any] = {"connections": 20_000, "rooms": 1_000, "rooms_each": 1, "rate": 1_000}
            fields[name] *= times
            loads.append(plan(Load(**fields)))
        for less, more in itertools.pairwise(loads):
            assert less.workers <= more.workers
            assert less.machines <= more.machines


def test_nobody_who_is_let_in_waits_longer_than_a_client_does() -> None:
    """Otherwise clients give up what the engine has begun, and come again."""
    for load in (*LOADS, Load(connections=4_000_000, rooms=100_000)):
        found = plan(load)
        opening = found.connections_opening or ConnectionLimits().connections_opening
        joins = load.rooms_each if load.rooms else 0
        costs = ENGINES["redis"]
        each = (costs.arrival + costs.join * joins) / 1e6

        assert found.engine is not None
        assert opening * found.workers * each / found.engine.servers < 5.0


def test_a_machine_too_few_is_more_than_the_plan() -> None:
    """Who asks for machines gets them, with a worker on each core."""
    found = plan(Load(connections=10_000), Machine(cores=2), machines=3)

    assert (found.machines, found.workers, found.lost) == (3, 6, 3_334)
    assert plan(Load(connections=10_000_000), machines=20_000).machines == 20_000


def test_what_is_kept_is_bounded_as_it_is_configured() -> None:
    load = Load(connections=1_000_000, direct=500)
    week, day = plan(load), plan(load, history=HistoryLimits(inbox_age=86_400))

    assert week.engine is not None and day.engine is not None
    assert week.engine.history == pytest.approx(7 * day.engine.history)
    bounded = plan(load, engine="nats").engine
    assert bounded is not None and bounded.history == 1.0


def test_where_no_number_of_workers_is_enough_it_says_so() -> None:
    """What everybody hears costs each worker the same, however many there are."""
    with pytest.raises(ConfigError, match=r"no number of workers is enough, for each would hear .*: say less often"):
        plan(Load(connections=100_000, broadcast=30_000))


def test_where_no_number_of_machines_is_enough_it_says_so() -> None:
    with pytest.raises(ConfigError, match=r"machines with 4 cores, 0\.01 GiB and 10 Gbit/s are not enough"):
        plan(Load(connections=1_000_000), Machine(memory=0.01))


def test_what_cannot_be_shared_is_one_server() -> None:
    """Of NATS there is one, which is enough or not."""
    found = plan(Load(connections=500_000, rooms=200, rate=200), engine="nats")

    assert found.engine is not None and (found.engine.name, found.engine.servers) == ("nats", 1)
    with pytest.raises(ConfigError, match="take --engine redis, of which there can be a cluster"):
        plan(Load(connections=100_000, rooms=5_000, rate=100_000), engine="nats")


def test_there_are_figures_of_some_engines_alone() -> None:
    with pytest.raises(ConfigError, match="no figures of an engine 'kafka': take redis or nats"):
        plan(Load(connections=1), engine="kafka")
