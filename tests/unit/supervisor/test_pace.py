"""Who falls at once is started less and less often, and who has stood is as new."""

from __future__ import annotations

from itertools import pairwise

from hubbub.supervisor.pace import Pace


def test_the_waits_grow_up_to_a_bound() -> None:
    pace = Pace()
    waits = [pace.wait(0.0) for _ in range(10)]

    assert waits[0] == 0.1
    assert all(later == min(10.0, 2 * earlier) for earlier, later in pairwise(waits))
    assert waits[-1] == 10.0


def test_who_has_stood_begins_anew() -> None:
    """Not by standing for a moment."""
    pace = Pace()
    for _ in range(5):
        pace.wait(29.9)

    assert pace.wait(29.9) > 0.1
    assert pace.wait(30.0) == 0.1
    assert pace.wait(0.0) == 0.2
