"""Messages that have begun and not ended: bounded in bytes over all connections, and each in time."""

from __future__ import annotations

import pytest

from hubbub.core.wheel import Wheel
from hubbub.protocol.frames import Violation
from hubbub.transports.base import TransportLimits
from hubbub.transports.unfinished import Unfinished


class Line:
    """A connection that is told when its time is over."""

    def __init__(self, unfinished: Unfinished, ip: str) -> None:
        self._unfinished = unfinished
        self.ip = ip
        self.is_reading = True
        self.violations: list[Violation] = []

    def fail(self, violation: Violation) -> None:
        self.violations.append(violation)
        self._unfinished.release(self)


class Clock:
    """A wheel that a test turns."""

    def __init__(self) -> None:
        self.wheel = Wheel(0.0)
        self.unfinished = Unfinished(TransportLimits(message_timeout=60, unfinished_size=1_000), self.wheel)

    def line(self, ip: str = "192.0.2.1") -> Line:
        return Line(self.unfinished, ip)

    def pass_time(self, seconds: float) -> None:
        target = self.wheel.now + seconds
        while self.wheel.now < target:
            for callback in self.wheel.advance(min(target, self.wheel.now + 0.25)):
                callback()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def codes(*lines: Line) -> list[list[int]]:
    return [[violation.code for violation in line.violations] for line in lines]


def test_the_bound_is_on_all_of_them_together(clock: Clock) -> None:
    """Who has begun first makes room, where all are from one address."""
    first, second, third = clock.line(), clock.line(), clock.line()
    clock.unfinished.hold(first, 500)
    clock.unfinished.hold(second, 300)
    clock.unfinished.hold(third, 200)

    assert codes(first, second, third) == [[], [], []]
    clock.unfinished.hold(third, 201)
    assert codes(first, second, third) == [[1013], [], []]
    assert clock.unfinished.size == 501
    clock.unfinished.hold(second, 1_001)
    assert codes(first, second, third) == [[1013], [1013], []]
    assert (len(clock.unfinished), clock.unfinished.size) == (1, 201)


def test_those_make_room_whose_address_holds_the_most(clock: Clock) -> None:
    """However many they are, and whoever's fragment it is that does not fit."""
    honest = clock.line("192.0.2.1")
    clock.unfinished.hold(honest, 90)
    # A little on each of many connections, from one network of IPv6.
    strangers = [clock.line(f"2001:db8::{number:x}") for number in range(91)]
    for stranger in strangers:
        clock.unfinished.hold(stranger, 10)

    assert clock.unfinished.size == 1_000
    clock.unfinished.hold(honest, 100)
    clock.unfinished.hold(clock.line("192.0.2.2"), 20)
    assert honest.violations == []
    assert [len(stranger.violations) for stranger in strangers] == [1] * 3 + [0] * 88
    assert clock.unfinished.size == 1_000


def test_who_is_ended_may_be_the_one_that_asks(clock: Clock) -> None:
    line = clock.line()
    clock.unfinished.hold(line, 1_001)

    assert codes(line) == [[1013]]
    assert (len(clock.unfinished), clock.unfinished.size, clock.unfinished._shares) == (0, 0, {})


def test_a_size_is_that_of_the_message_so_far(clock: Clock) -> None:
    """And not one more each time."""
    line = clock.line()
    for size in (0, 10, 10, 500):
        clock.unfinished.hold(line, size)

        assert clock.unfinished.size == size
    clock.unfinished.release(line)
    clock.unfinished.release(line)
    assert (len(clock.unfinished), clock.unfinished.size) == (0, 0)


def test_each_has_its_time_from_its_first_frame_on(clock: Clock) -> None:
    """However often a further one comes."""
    early, late = clock.line(), clock.line()
    clock.unfinished.hold(early, 1)
    clock.pass_time(40)
    clock.unfinished.hold(late, 1)
    clock.pass_time(19)
    clock.unfinished.hold(early, 2)

    assert early.violations == []
    clock.pass_time(1.5)
    assert [violation.code for violation in early.violations] == [1009]
    assert late.violations == []
    clock.pass_time(40)
    assert [violation.code for violation in late.violations] == [1009]
    assert len(clock.unfinished) == 0


def test_who_ends_in_time_begins_anew_with_the_next_message(clock: Clock) -> None:
    line = clock.line()
    for _ in range(5):
        clock.unfinished.hold(line, 1)
        clock.pass_time(50)
        clock.unfinished.release(line)

    assert line.violations == []


def test_who_is_told_to_wait_has_its_time_afterwards(clock: Clock) -> None:
    """It is the server that does not read."""
    paused, other = clock.line(), clock.line()
    paused.is_reading = False
    clock.unfinished.hold(paused, 300)
    clock.unfinished.hold(other, 300)
    clock.pass_time(61)

    assert (paused.violations, len(other.violations)) == ([], 1)
    assert clock.unfinished.size == 300
    paused.is_reading = True
    clock.pass_time(58)
    assert paused.violations == []
    clock.pass_time(3)
    assert len(paused.violations) == 1


def test_there_is_one_timer_however_many_there_are(clock: Clock) -> None:
    """And none when there is nothing to wait for; who sends in fragments all day leaves nothing behind."""
    line = clock.line()
    for _ in range(1_000):
        clock.unfinished.hold(line, 1)
        clock.unfinished.hold(clock.line(), 0)
        clock.unfinished.release(line)

    assert len(clock.wheel) == 1
    assert sum(len(slot) for slot in clock.wheel._slots.values()) == 1
    clock.pass_time(61)
    assert (len(clock.unfinished), len(clock.wheel)) == (0, 0)


def test_one_whose_end_ends_another(clock: Clock) -> None:
    """What a closed session does to others of its user happens while the overdue are gone through."""
    first, second = clock.line(), clock.line()
    second.is_reading = False
    clock.unfinished.hold(first, 1)
    clock.unfinished.hold(second, 1)
    fail = first.fail

    def fail_both(violation: Violation) -> None:
        fail(violation)
        clock.unfinished.release(second)

    first.fail = fail_both  # type: ignore[method-assign]  # an end with consequences
    clock.pass_time(61)

    assert (len(clock.unfinished), clock.unfinished.size) == (0, 0)
