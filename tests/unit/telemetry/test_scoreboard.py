"""What processes write for each other: the newest that is whole, in a file that nobody else can open."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from hubbub.telemetry.scoreboard import LARGEST, Roster, Scoreboard


@pytest.fixture(params=["in memory", "on disk"])
def supervisor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scoreboard]:
    """On disk where the system has no files in memory."""
    if request.param == "on disk":
        monkeypatch.delattr(os, "memfd_create", raising=False)
    scoreboard = Scoreboard.made()
    yield scoreboard
    scoreboard.close()


@pytest.fixture
def worker(supervisor: Scoreboard) -> Scoreboard:
    """The same file, as a worker has it."""
    return Scoreboard(supervisor.file, 3)


def content(scoreboard: Scoreboard, place: int) -> bytes | None:
    record = scoreboard.read(place)
    return None if record is None else record.content


def test_the_newest_is_read(supervisor: Scoreboard, worker: Scoreboard) -> None:
    """Each place by itself; a shorter one leaves nothing of the longer before it."""
    assert supervisor.read(3) is None
    assert supervisor.roster() == Roster()
    for value in ("first", "second, and longer", "third", 4):
        worker.write(value)
        supervisor.write(Roster(restarts={1: 0}))

        assert content(supervisor, 3) == (b"4" if value == 4 else f'"{value}"'.encode())
        assert worker.roster() == Roster(restarts={1: 0})
        assert supervisor.read(2) is supervisor.read(4) is None


def test_a_successor_in_the_same_place_is_newer(supervisor: Scoreboard, worker: Scoreboard) -> None:
    """Whichever half its predecessor wrote last."""
    for times in (1, 2):
        for _ in range(times):
            worker.write("old")
        Scoreboard(worker.file, 3).write("new")

        assert content(supervisor, 3) == b'"new"'


def test_what_is_half_written_is_not_read(supervisor: Scoreboard, worker: Scoreboard) -> None:
    """A process may be stopped at any moment: then there is what it wrote before."""
    worker.write("before")
    worker.write("after this")
    whole = os.fstat(supervisor.file).st_size
    for missing in range(1, len('"after this"') + 17):
        os.ftruncate(supervisor.file, whole - missing)

        assert content(supervisor, 3) == b'"before"', missing


def test_the_age(supervisor: Scoreboard, worker: Scoreboard) -> None:
    """Seconds since it was written, by a clock that all processes share."""
    began = time.monotonic()
    worker.write("")
    record = supervisor.read(3)

    assert record is not None
    assert 0 <= record.age <= time.monotonic() - began


def test_a_place_is_large_enough_for_what_is_in_it(supervisor: Scoreboard, worker: Scoreboard) -> None:
    """The neighbours are not written over."""
    worker.write("x" * (LARGEST - 2))
    worker.write("y" * (LARGEST - 2))
    with pytest.raises(ValueError, match=f"at most {LARGEST} bytes"):
        worker.write("z" * (LARGEST - 1))

    assert content(supervisor, 3) == b'"' + b"y" * (LARGEST - 2) + b'"'
    assert supervisor.read(2) is supervisor.read(4) is None


def test_most_workers_that_there_may_be(supervisor: Scoreboard) -> None:
    numbers = range(1, 257)
    roster = Roster(
        restarts=dict.fromkeys(numbers, 1_000_000),
        serving={number: 2 * number for number in numbers},
        leaving={number: 2 * number + 1 for number in numbers},
    )
    supervisor.write(roster)

    assert supervisor.roster() == roster
