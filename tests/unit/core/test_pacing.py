"""Whoever has to go comes back at a pace that one other server can take."""

from __future__ import annotations

import pytest

from hubbub.core.pacing import absence, pace, spread


@pytest.mark.parametrize("timeout", [0.0, 1.0, 30.0, 120.0, 3_600.0])
@pytest.mark.parametrize("sessions", [0, 1, 99, 100, 1_000, 15_000, 50_000, 1_000_000])
def test_all_are_told_in_half_the_time_and_no_more_than_a_thousand_a_second_come_back(
    sessions: int, timeout: float
) -> None:
    """They are told slowly, or stay away for long."""
    paced = pace(sessions, timeout)
    told_in = sessions / paced.batch * paced.interval

    assert told_in <= max(timeout / 2, paced.interval)
    # An interval more or less.
    assert sessions / max(told_in, paced.spread) <= 1_000


def test_who_is_told_slowly_is_away_for_a_moment() -> None:
    """50,000 in a drain of two minutes are asked a thousand a second."""
    assert (pace(50_000, 120.0).batch, pace(50_000, 120.0).spread) == (100, 1.0)
    assert pace(50_000, 30.0).spread == 50.0


def test_nobody_comes_back_at_once_and_all_within_the_spread() -> None:
    assert (absence(spread(10_000), 0.0), absence(spread(10_000), 1.0)) == (0.5, 10.5)
