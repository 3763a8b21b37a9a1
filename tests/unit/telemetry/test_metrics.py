"""The metrics of several workers in one answer: each family once, each sample with the worker's name."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from hubbub.hub import Hub, HubStatistics
from hubbub.telemetry import metrics
from hubbub.telemetry.metrics import Metrics
from hubbub.telemetry.scoreboard import Roster, Scoreboard

NOTHING = HubStatistics(
    connections=0,
    users=0,
    rooms=0,
    blocked=0,
    transfer_bytes=0,
    messages_in=0,
    publications=0,
    errors={},
    meters={},
)


@pytest.fixture
def supervisor() -> Iterator[Scoreboard]:
    scoreboard = Scoreboard.made()
    yield scoreboard
    scoreboard.close()


def write(supervisor: Scoreboard, place: int, content: object) -> None:
    """As the worker does that has this place."""
    Scoreboard(supervisor.file, place).write(content)


def samples(scoreboard: Scoreboard | None) -> list[tuple[str, dict[str, str], float]]:
    """What is shown, of a worker whose own hub does not run."""
    text = Metrics(Hub(), scoreboard).render().decode()
    families = list(text_string_to_metric_families(text))

    assert len({family.name for family in families}) == len(families) == text.count("# HELP ")
    return [(one.name, one.labels, one.value) for family in families for one in family.samples]


def of(scoreboard: Scoreboard, name: str) -> dict[str, float]:
    return {labels["worker"]: value for found, labels, value in samples(scoreboard) if found == name}


def test_a_hub_that_does_not_run_counts_nothing() -> None:
    assert samples(None) == []


def test_what_has_labels_of_its_own_has_one_more(supervisor: Scoreboard) -> None:
    counted = msgspec.structs.replace(NOTHING, errors={"forbidden": 3}, meters={"ip": 1})
    write(supervisor, 2, counted)
    write(supervisor, 5, counted)
    supervisor.write(Roster(restarts={1: 0, 2: 7}, serving={1: 2, 2: 5}))
    shown = samples(supervisor)

    for worker in ("1", "2"):
        assert ("websocket_connection_errors_total", {"worker": worker, "error_type": "forbidden"}, 3.0) in shown
        assert ("hubbub_meters", {"worker": worker, "kind": "ip"}, 1.0) in shown
    assert of(supervisor, "hubbub_worker_up") == {"1": 1.0, "2": 1.0}
    assert of(supervisor, "hubbub_worker_restarts_total") == {"1": 0.0, "2": 7.0}


def test_who_is_not_on_the_roster_is_not_shown(supervisor: Scoreboard) -> None:
    """One that starts and one that has ended; and one that is, but has written nothing, is as one that hangs."""
    for place in (2, 3, 4, 5):
        write(supervisor, place, msgspec.structs.replace(NOTHING, connections=place))
    supervisor.write(Roster(restarts={1: 0, 2: 0, 3: 0}, serving={1: 3, 3: 6}, leaving={1: 2}))

    assert of(supervisor, "websocket_active_connections") == {"1": 3.0, "1-leaving": 2.0}
    assert of(supervisor, "hubbub_worker_up") == {"1": 1.0, "2": 0.0, "3": 0.0}


def test_who_says_nothing_more_is_not_up(supervisor: Scoreboard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last numbers stay."""
    write(supervisor, 2, msgspec.structs.replace(NOTHING, connections=5))
    supervisor.write(Roster(restarts={1: 0}, serving={1: 2}))
    monkeypatch.setattr(metrics, "_SILENT", 0.0)

    assert of(supervisor, "hubbub_worker_up") == {"1": 0.0}
    assert of(supervisor, "websocket_active_connections") == {"1": 5.0}


def test_another_version_counts_other_things(supervisor: Scoreboard) -> None:
    """In the middle of a roll: what it counts beyond ours is not shown, nor is one that lacks something of ours."""
    more = msgspec.to_builtins(NOTHING) | {"connections": 5, "news": [1]}
    write(supervisor, 2, more)
    write(supervisor, 4, {"connections": 5})
    supervisor.write(Roster(restarts={1: 0, 2: 0}, serving={1: 2, 2: 4}))

    assert of(supervisor, "websocket_active_connections") == {"1": 5.0}
    assert of(supervisor, "hubbub_worker_up") == {"1": 1.0, "2": 1.0}


def test_a_hub_that_does_not_run_writes_nothing(supervisor: Scoreboard) -> None:
    Metrics(Hub(), Scoreboard(supervisor.file, 2)).post()

    assert supervisor.read(2) is None
