"""A fake clock goes when it is told to, and never back."""

from __future__ import annotations

import pytest

from hubbub.testing.clock import FakeClock


def test_it_stands_still() -> None:
    clock = FakeClock(5.0)

    assert [clock(), clock()] == [5.0, 5.0]


def test_it_goes_as_far_as_it_is_told() -> None:
    clock = FakeClock()
    clock.advance(1.5)
    clock.advance(0)
    clock.advance(2)

    assert clock() == 3.5
    assert repr(clock) == "<FakeClock at 3.5 s>"


def test_it_never_goes_back() -> None:
    with pytest.raises(ValueError, match="does not go back"):
        FakeClock().advance(-1)
