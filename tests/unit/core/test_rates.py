"""A rate lets through what it says, to the last one, and forgets nobody who is over it."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.config import load
from hubbub.core.rates import OFF, Bucket, Kind, Leaky, Meters, Rate, Refused, Wait, Window
from hubbub.errors import ConfigError

# Where a monotonic clock may be: freshly started, or up for a year.
STARTS = st.sampled_from([0.0, 1.0, 86_400.3, 3.15e7])
# Seconds from one to the next.
PAUSES = st.lists(st.one_of(st.just(0.0), st.floats(0, 3), st.sampled_from([0.1, 0.05, 1.0, 60.0])), max_size=200)
BUCKETS = st.builds(Rate, st.integers(1, 50), st.sampled_from([1.0, 60.0]), burst=st.integers(1, 40))


def bucket(count: int, burst: int) -> Bucket:
    return Bucket(Rate(count, burst=burst))


class TestText:
    """A rate is one short line, and what is none says how one is written."""

    @pytest.mark.parametrize(
        ("text", "rate", "again"),
        [
            ("10/s", Rate(10, 1.0, Kind.BUCKET, 10), "10/s burst 10"),
            ("10/s burst 20", Rate(10, 1.0, Kind.BUCKET, 20), "10/s burst 20"),
            ("10/s bucket burst 20", Rate(10, 1.0, Kind.BUCKET, 20), "10/s burst 20"),
            (" 10/S   Burst 20 ", Rate(10, 1.0, Kind.BUCKET, 20), "10/s burst 20"),
            ("100/m window", Rate(100, 60.0, Kind.WINDOW), "100/m window"),
            ("5/s leaky burst 20", Rate(5, 1.0, Kind.LEAKY, 20), "5/s leaky burst 20"),
            ("5/h leaky", Rate(5, 3600.0, Kind.LEAKY, 5), "5/h leaky burst 5"),
            ("off", OFF, "off"),
        ],
    )
    def test_what_is_a_rate(self, text: str, rate: Rate, again: str) -> None:
        """And what it says of itself means the same."""
        found = Rate.parse(text)

        assert found == rate
        assert str(found) == again
        assert Rate.parse(again) == found
        assert eval(repr(found), {"Rate": Rate}) == found  # noqa: S307  # its own repr

    @pytest.mark.parametrize(
        "text",
        ["", "10", "10/d", "10 /s", "1.5/s", "-1/s", "10/s 20", "10/s burst", "ten/s", "10/s burst 20 leaky", None, 10],
    )
    def test_what_is_none(self, text: object) -> None:
        with pytest.raises(ConfigError, match=r"^a rate is written like 10/s burst 20, 100/m window, .* or off$"):
            Rate.parse(text)

    @pytest.mark.parametrize("text", ["0/s", "10/s burst 0"])
    def test_nothing_at_all_is_no_rate(self, text: str) -> None:
        """It could be meant as no limit, or as a ban."""
        with pytest.raises(ConfigError, match="write off"):
            Rate.parse(text)

    def test_a_window_has_no_burst(self) -> None:
        with pytest.raises(ConfigError, match="a window has no burst"):
            Rate.parse("10/s window burst 3")

    def test_off_needs_no_meter(self) -> None:
        assert OFF.off and OFF.meter() is None
        assert not Rate(1).off

    @pytest.mark.parametrize("name", ["handshake_rate", "handshake_rate_ip"])
    def test_a_handshake_does_not_wait(self, name: str) -> None:
        with pytest.raises(ConfigError, match=rf"^{name} cannot be leaky"):
            load({name: "5/s leaky"}, {})


class TestBucket:
    """A burst at once, and the rate over time."""

    def test_the_default_to_the_message(self) -> None:
        """10/s burst 10: ten, and then one each tenth of a second."""
        meter = bucket(10, 10)
        now = 1e7

        assert [meter.take(now) for _ in range(10)] == [None] * 10
        assert isinstance(meter.take(now), Refused)
        assert isinstance(meter.take(now + 0.099), Refused)
        assert meter.take(now + 0.1) is None
        assert isinstance(meter.take(now + 0.199), Refused)
        assert meter.take(now + 0.2) is None

    @given(rate=BUCKETS, start=STARTS, pauses=PAUSES)
    def test_never_more_than_burst_and_rate_over_time(self, rate: Rate, start: float, pauses: list[float]) -> None:
        """Over every stretch of time, whenever it begins and whoever asks how often."""
        meter, now, passed = Bucket(rate), start, []
        for pause in pauses:
            now += pause
            if meter.take(now) is None:
                passed.append(now)

        for first in range(len(passed)):
            for last in range(first, len(passed)):
                most = rate.burst + (passed[last] - passed[first]) / rate.interval
                assert last - first + 1 <= most + 1e-3

    @given(rate=BUCKETS, start=STARTS, pauses=PAUSES)
    def test_exactly_what_counting_tokens_lets_through(self, rate: Rate, start: float, pauses: list[float]) -> None:
        """The usual description of a token bucket, as the model; a hair's breadth from a whole token either may be."""
        meter, now = Bucket(rate), start
        tokens, then = float(rate.burst), start
        for pause in pauses:
            now += pause
            tokens, then = min(rate.burst, tokens + (now - then) / rate.interval), now
            passed = meter.take(now) is None
            if abs(tokens - 1) > 1e-3:
                assert passed == (tokens > 1)
            tokens -= passed

    @given(rate=BUCKETS, start=STARTS, taken=st.integers(0, 60))
    def test_whoever_comes_when_told_is_let_through(self, rate: Rate, start: float, taken: int) -> None:
        """And it is worth the wait: there is the whole burst, or a second's worth, or one where that is longer."""
        meter = Bucket(rate)
        refused = None
        for _ in range(taken + rate.burst):
            refused = meter.take(start) or refused
        if refused is not None:
            assert refused.seconds <= max(1.0, rate.interval) + 1e-6
            later = start + refused.seconds
            for _ in range(max(1, int(min(refused.seconds / rate.interval + 1e-6, rate.burst)))):
                assert meter.take(later) is None

    def test_a_message_may_cost_a_part(self) -> None:
        meter = bucket(10, 1)

        assert [meter.take(5.0, 0.1) is None for _ in range(12)] == [True] * 10 + [False] * 2

    def test_what_is_given_back_can_be_taken_again(self) -> None:
        meter = bucket(1, 1)

        assert meter.take(5.0) is None
        meter.give_back()
        assert meter.take(5.0) is None
        assert meter.take(5.0) is not None

    def test_a_refusal_costs_nothing(self) -> None:
        """Whoever asks too often is not kept out for longer."""
        meter = bucket(10, 1)
        for _ in range(100):
            meter.take(5.0)

        assert meter.take(5.1) is None


class TestWindow:
    """So many in a period, which begins with the first."""

    def test_all_at_once_and_then_nothing_until_it_is_over(self) -> None:
        meter = Window(Rate.parse("3/m window"))

        assert [meter.take(100.0) for _ in range(3)] == [None] * 3
        assert meter.take(130.0) == Refused(30.0)
        assert meter.take(159.9) is not None
        assert meter.take(160.0) is None

    def test_a_new_one_begins_with_the_next_that_comes(self) -> None:
        """And not where a clock on the wall would have it."""
        meter = Window(Rate.parse("1/m window"))
        meter.take(100.0)
        meter.take(175.0)

        assert meter.take(180.0) == Refused(55.0)

    @given(count=st.integers(1, 20), start=STARTS, pauses=PAUSES)
    def test_at_most_twice_over_any_period(self, count: int, start: float, pauses: list[float]) -> None:
        """The end of one window and the beginning of the next: that is what a fixed window is."""
        meter, now, passed = Window(Rate(count, 60.0, Kind.WINDOW)), start, []
        for pause in pauses:
            now += pause
            if meter.take(now) is None:
                passed.append(now)

        assert all(later - first >= 60 - 1e-6 for first, later in zip(passed, passed[2 * count :], strict=False))

    def test_what_is_given_back_can_be_taken_again(self) -> None:
        meter = Window(Rate.parse("1/m window"))
        meter.take(0.0)
        meter.give_back()

        assert meter.take(1.0) is None


class TestLeaky:
    """One after the other, at the pace of the rate."""

    def test_a_burst_waits_in_line_and_the_rest_is_refused(self) -> None:
        """5/s burst 20: one goes, twenty wait a fifth of a second each, and the next is too much."""
        meter = Leaky(Rate.parse("5/s leaky burst 20"))
        waits = [meter.take(1e6) for _ in range(21)]

        assert waits[0] is None
        assert [wait.seconds for wait in waits[1:] if isinstance(wait, Wait)] == pytest.approx(
            [0.2 * place for place in range(1, 21)]
        )
        refused = meter.take(1e6)
        assert isinstance(refused, Refused)
        assert refused.seconds == pytest.approx(1.0)
        assert isinstance(meter.take(1e6 + refused.seconds), Wait)

    @given(
        rate=st.builds(Rate, st.integers(1, 50), st.just(1.0), st.just(Kind.LEAKY), st.integers(1, 40)),
        start=STARTS,
        pauses=PAUSES,
    )
    def test_turns_come_in_order_and_at_the_rate(self, rate: Rate, start: float, pauses: list[float]) -> None:
        """And no more than `burst` wait at any time."""
        meter, now, turns = Leaky(rate), start, list[float]()
        for pause in pauses:
            now += pause
            verdict = meter.take(now)
            waiting = sum(turn > now + 1e-5 for turn in turns)
            if isinstance(verdict, Refused):
                assert waiting >= rate.burst
            else:
                turns.append(now + (verdict.seconds if verdict else 0.0))
                assert waiting <= rate.burst

        assert all(later - earlier > rate.interval - 1e-5 for earlier, later in pairwise(turns))

    def test_who_is_slow_enough_never_waits(self) -> None:
        meter = Leaky(Rate.parse("10/s leaky"))

        assert [meter.take(0.1 * turn) for turn in range(100)] == [None] * 100

    def test_what_is_given_back_lets_the_next_go_sooner(self) -> None:
        meter = Leaky(Rate.parse("1/s leaky burst 5"))
        meter.take(0.0)
        meter.take(0.0)
        meter.give_back()

        assert meter.take(0.0) == Wait(1.0)


@pytest.mark.parametrize("text", ["10/s burst 10", "10/s window", "10/s leaky"])
def test_a_meter_that_is_shut_lets_nothing_through(text: str) -> None:
    """Its owner knows why; and how long it is says the refusal."""
    meter = Rate.parse(text).meter()
    assert meter is not None
    meter.shut = 5.0

    assert meter.take(4.0) == Refused(1.0)
    assert not meter.is_idle(4.0)
    assert meter.take(5.0) is None


class TestMeters:
    """One for each user or address, in bounds."""

    def test_each_key_has_its_own(self) -> None:
        meters = Meters(Rate(1))

        assert meters.of("alice", 0).take(0) is None
        assert meters.of("bob", 0).take(0) is None
        assert meters.of("alice", 0).take(0) is not None

    def test_who_has_nothing_to_pay_back_is_forgotten_as_others_come(self) -> None:
        """So the table is as large as the crowd of this moment, and not of the day."""
        meters = Meters(Rate(1, burst=2))
        for now in range(1000):
            meters.of(f"u{now}", now).take(now)

        assert len(meters) <= 4

    def test_it_never_grows_past_its_bound(self) -> None:
        meters = Meters(Rate(1), most=10)
        for number in range(1000):
            meters.of(f"u{number}", 0).take(0)
            assert len(meters) <= 10

    def test_an_idle_one_goes_before_one_that_owes(self) -> None:
        """Also where it was used later."""
        meters = Meters(Rate(1), most=3)
        for _ in range(5):
            meters.of("owes", 0).take(0)
        for name in ("a", "b"):
            meters.of(name, 0)
        meters.of("new", 0)

        assert meters.of("owes", 0).take(0) is not None

    def test_who_is_being_refused_cannot_wash_it_off_with_a_crowd(self) -> None:
        """It is used all the time, so that it is the last to go."""
        meters, chance = Meters(Rate(1), most=50), random.Random(1)
        meters.of("attacker", 0).take(0)
        for number in range(1000):
            meters.of(f"helper {number}", 0).take(0)
            if chance.random() < 0.1:
                assert meters.of("attacker", 0).take(0) is not None
