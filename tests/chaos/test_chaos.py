"""Whatever dies in between: every acknowledged message comes exactly once, in order, to every reader.

Twenty seconds of what `make chaos` does for three minutes.
"""

from __future__ import annotations

from pathlib import Path
from random import SystemRandom
from typing import Any

import pytest

from chaos.checker import Fault
from chaos.plan import Plan
from chaos.report import report
from chaos.run import run as rage
from support.loop import run

pytestmark = pytest.mark.alone


def seed() -> int:
    """Another one each time: what falls between two choices is never the same anyway, and the report says it."""
    return SystemRandom().randrange(2**32)


@pytest.mark.timeout(240)
def test_nothing_is_lost_whatever_dies(tmp_path: Path) -> None:
    """Kills, resets and stalls on SQLite `full`: nothing acknowledged is lost, doubled or reordered."""
    outcome = run(rage(Plan(seed=seed(), directory=tmp_path, seconds=20)), timeout=200)

    assert outcome.passed, report(outcome)
    assert outcome.tally.kills >= 2, report(outcome)


def test_a_server_that_forgets_is_found_out(tmp_path: Path) -> None:
    """The memory engine loses everything with each kill: the same run says so, and how to repeat it."""
    small: dict[str, Any] = {
        "seconds": 5,
        "rate": 500,
        "clients": 40,
        "rooms": 4,
        "real": 4,
        "kills": (2.0, 3.0),
        "rest": 3,
    }
    plan = Plan(seed=seed(), directory=tmp_path, durability=None, **small)
    outcome = run(rage(plan))
    text = report(outcome)

    assert not outcome.passed
    assert outcome.verdict.findings.counts[Fault.LOST] > 0
    assert outcome.tally.unrecovered
    assert "FAILED" in text and "lost: u0" in text and f"--seed {plan.seed}" in text
