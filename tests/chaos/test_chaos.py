"""Whatever dies: every acknowledged message comes exactly once, in order, to every reader, or its loss is told.

Some seconds of what `make chaos` does for three minutes on each engine.
"""

from __future__ import annotations

from pathlib import Path
from random import SystemRandom
from typing import Any

import pytest

from chaos.engines import SHARED
from chaos.misfortune import Misfortune
from chaos.plan import Hand, Plan, hands
from chaos.report import report
from chaos.run import run as rage
from support.loop import run


def seed() -> int:
    """Another one each time: what falls between two choices is never the same anyway, and the report says it."""
    return SystemRandom().randrange(2**32)


@pytest.mark.alone
@pytest.mark.timeout(240)
def test_nothing_is_lost_whatever_dies(tmp_path: Path) -> None:
    """Kills, resets and stalls on SQLite `full`: nothing acknowledged is lost, doubled or reordered."""
    outcome = run(rage(Plan(seed=seed(), directory=tmp_path, seconds=20)), timeout=200)

    assert outcome.passed, report(outcome)
    assert outcome.tally.happened[Misfortune.KILL] >= 2, report(outcome)


def test_a_server_that_forgets_is_found_out(tmp_path: Path) -> None:
    """The memory engine loses everything with each kill: the same run says so, and how to repeat it."""
    small: dict[str, Any] = {"seconds": 5, "rate": 500, "clients": 40, "rooms": 4, "real": 4, "rest": 3}
    kills = (Hand((Misfortune.KILL,), (2.0, 3.0)),)
    plan = Plan(seed=seed(), directory=tmp_path, engine="memory", hands=kills, **small)
    outcome = run(rage(plan))
    text = report(outcome)

    assert not outcome.passed
    assert outcome.verdict.told > 0
    assert "FAILED" in text and "not recovered: u0" in text and f"--seed {plan.seed}" in text


@pytest.mark.timeout(240)
@pytest.mark.parametrize("engine", SHARED)
@pytest.mark.parametrize("forgets", [False, True], ids=["keeps", "forgets"])
def test_nothing_is_lost_on_several_nodes(tmp_path: Path, engine: str, forgets: bool) -> None:
    """Nodes, engine and the links between them fail, all at once: nothing is lost, or nothing without a word."""
    plan = Plan(
        seed=seed(),
        directory=tmp_path,
        engine=engine,
        forgets=forgets,
        nodes=3,
        seconds=10 if forgets else 20,
        rate=300,
        clients=60,
        rooms=6,
        real=9,
        hands=hands(engine, forgets=forgets, hurry=6),
        lasts=(0.3, 2.5),
    )
    outcome = run(rage(plan), timeout=200)

    assert outcome.passed, report(outcome)
