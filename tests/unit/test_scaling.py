"""The page about scale: all that is counted on it is counted anew, and the storm is one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hubbub.core.rates import Rate

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture
def storms(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of the simulation."""
    monkeypatch.syspath_prepend(str(TOOLS))
    import returning

    return returning


def test_the_page_and_its_picture_are_fresh() -> None:
    """Figures, outputs of `hubbub plan`, the table and the picture of the storm."""
    done = subprocess.run(
        [sys.executable, TOOLS / "scaling.py", "--check"], capture_output=True, text=True, timeout=110, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_everybody_is_back_once(storms: Any) -> None:
    """With the same seed in the same moments."""
    one, other = (storms.storm(storms.crash(100_000), 8, rate=Rate(500, burst=500)) for _ in range(2))

    assert len(one.back) * storms.WEIGHT == 100_000
    assert one.back == other.back == sorted(one.back)
    assert storms.storm(storms.crash(100_000), 8, rate=Rate(500, burst=500), seed=2).back != one.back


def test_nobody_is_let_in_faster_than_the_rate(storms: Any) -> None:
    """Of all workers together, after their bursts."""
    found = storms.storm(storms.crash(100_000), 4, rate=Rate(500, burst=500))

    assert found.within(1.0) >= (100_000 - 4 * 500) / (4 * 500)
    assert found.refused > 0 and found.in_vain == 0


def test_an_engine_that_is_behind_is_not_asked_for_more(storms: Any) -> None:
    """Ten workers let in three times what it can take: without a bound nobody who waits is let in in time."""
    lost, opening = storms.crash(200_000), Rate(2_000, burst=5_000)
    bounded, unbounded = (storms.storm(lost, 10, rate=opening, opening=most) for most in (500, 0))

    assert bounded.in_vain == 0 and bounded.within(1.0) < 100
    assert unbounded.in_vain > 100


def test_a_drain_is_no_storm(storms: Any) -> None:
    """Each comes once, for there is room when it comes."""
    found = storms.storm(storms.drain(40_000, 1, 120.0), 4, rate=Rate(2_000, burst=5_000))

    assert sum(found.tries.values()) == len(found.back)
    assert max(found.away) < 3
