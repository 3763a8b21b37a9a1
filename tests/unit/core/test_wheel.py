"""A timer is never early and at most one granularity late; whoever owns the wheel says what time it is."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from hubbub.core.wheel import Wheel

GRANULARITY = 0.25

# Whole ticks and everything between, also where floats are coarse.
TIMES = st.one_of(st.floats(0, 100), st.integers(0, 400).map(lambda ticks: ticks * GRANULARITY))
STARTS = st.one_of(TIMES, st.floats(1e9, 2e9))


def a_wheel(now: float = 0.0) -> Wheel:
    return Wheel(now, GRANULARITY)


def noting(fired: list[str], name: str) -> Callable[[], object]:
    return lambda: fired.append(name)


def run(wheel: Wheel, now: float) -> None:
    for callback in wheel.advance(now):
        callback()


@given(start=STARTS, delay=st.floats(0, 1000), steps=st.lists(st.floats(0.01, 5), min_size=1, max_size=30))
def test_a_timer_fires_in_time(start: float, delay: float, steps: list[float]) -> None:
    """At the first tick that is a granularity or more after its time, and at none before its time."""
    wheel = a_wheel(start)
    when = start + delay
    fired: list[str] = []
    wheel.at(when, noting(fired, "timer"))
    now = start
    for step in steps:
        now += step
        run(wheel, now)

        if fired:
            assert now >= when
            break
        assert now <= when + GRANULARITY + 1e-6


@given(start=STARTS, late=st.floats(0, 1), delay=st.floats(0, 10))
def test_a_delay_is_never_cut_short(start: float, late: float, delay: float) -> None:
    """`after` is called between two ticks: the wheel does not know how long ago the last one was."""
    wheel = a_wheel(start)
    real = start + late * GRANULARITY
    fired: list[str] = []
    wheel.after(delay, noting(fired, "timer"))
    now = start
    while not fired:
        now += GRANULARITY
        run(wheel, now)

    assert now >= real + delay or abs(now - real - delay) < 1e-6
    assert now <= start + delay + 3 * GRANULARITY + 1e-6


@given(times=st.lists(TIMES, max_size=20), pause=st.floats(100.5, 1e6))
def test_a_long_pause_loses_nothing(times: list[float], pause: float) -> None:
    """A laptop that slept: everything that was due meanwhile is due now, once."""
    wheel = a_wheel()
    fired: list[str] = []
    for when in times:
        wheel.at(when, noting(fired, str(when)))
    run(wheel, pause)
    run(wheel, pause + 100)

    assert sorted(fired) == sorted(map(str, times))
    assert len(wheel) == 0


@given(times=st.lists(TIMES, max_size=20), step=st.floats(0.05, 200))
def test_what_is_due_comes_in_order(times: list[float], step: float) -> None:
    """Slot by slot, however far the wheel moves at once; within a slot in the order of setting."""
    wheel = a_wheel()
    fired: list[float] = []
    for when in times:
        wheel.at(when, lambda when=when: fired.append(when))  # type: ignore[misc]  # bound now, not later
    now = 0.0
    while now < 101:
        now += step
        for callback in wheel.advance(now):
            callback()
    slots = [int(when / GRANULARITY) for when in fired]

    assert slots == sorted(slots)
    assert sorted(fired) == sorted(times)


@given(times=st.lists(TIMES, min_size=1, max_size=20), data=st.data())
def test_a_cancelled_timer_never_fires(times: list[float], data: st.DataObject) -> None:
    wheel = a_wheel()
    fired: list[str] = []
    timers = [wheel.at(when, noting(fired, str(index))) for index, when in enumerate(times)]
    cancelled = data.draw(st.sets(st.sampled_from(range(len(times)))))
    for index in cancelled:
        timers[index].cancel()
        timers[index].cancel()
    pending = len(wheel)
    run(wheel, 101)

    assert pending == len(times) - len(cancelled)
    assert {int(index) for index in fired} == set(range(len(times))) - cancelled


def test_a_timer_cancelled_in_its_own_tick_does_not_fire() -> None:
    """By one that was due before it: whoever cancels may rely on it."""
    wheel = a_wheel()
    fired: list[str] = []
    wheel.at(1, lambda: later.cancel())
    later = wheel.at(1, noting(fired, "later"))
    run(wheel, 2)

    assert fired == []


def test_a_timer_fires_once() -> None:
    """However often its owner calls what `advance` returned."""
    wheel = a_wheel()
    fired: list[str] = []
    wheel.at(1, noting(fired, "timer"))
    [callback] = wheel.advance(2)
    callback()
    callback()

    assert fired == ["timer"]


def test_cancelling_lets_go_of_the_callback() -> None:
    """A session that has ended must not live on in a timer that was set for hours."""
    wheel = a_wheel()
    timer = wheel.at(3600, lambda: None)
    timer.cancel()

    assert timer.callback is None
    assert not timer.active


def test_a_timer_that_fired_is_no_longer_active() -> None:
    wheel = a_wheel()
    timer = wheel.at(1, lambda: None)
    before = timer.active
    run(wheel, 2)
    timer.cancel()

    assert before
    assert not timer.active


def test_a_timer_in_the_past_fires_with_the_next_tick() -> None:
    wheel = a_wheel(100.0)
    fired: list[str] = []
    wheel.at(1.0, noting(fired, "late"))
    run(wheel, 100.0)
    at_once = list(fired)
    run(wheel, 100.0 + GRANULARITY)

    assert at_once == []
    assert fired == ["late"]


def test_a_timer_set_by_a_timer_waits_for_a_later_tick() -> None:
    """Else one that sets itself again for now would never let go of the loop."""
    wheel = a_wheel()
    fired: list[str] = []

    def again() -> None:
        fired.append("again")
        wheel.at(0, again)

    wheel.at(0, again)
    for tick in range(1, 4):
        run(wheel, tick * GRANULARITY)

    assert fired == ["again"] * 3


def test_one_that_raises_keeps_no_other_from_running() -> None:
    """What is due is handed out, not called: the owner calls each by itself."""
    wheel = a_wheel()
    fired: list[str] = []
    wheel.at(0, lambda: 1 / 0)
    wheel.at(0, noting(fired, "other"))
    for callback in wheel.advance(1):
        try:
            callback()
        except ZeroDivisionError:
            fired.append("raised")

    assert fired == ["raised", "other"]


def test_a_clock_that_goes_back_changes_nothing() -> None:
    wheel = a_wheel(10.0)
    fired: list[str] = []
    wheel.at(11.0, noting(fired, "timer"))
    run(wheel, 5.0)

    assert wheel.now == 10.0
    assert fired == []


def test_a_far_timer_costs_no_slots_on_the_way() -> None:
    wheel = a_wheel()
    wheel.at(1e9, lambda: None)

    assert len(wheel._slots) == 1
