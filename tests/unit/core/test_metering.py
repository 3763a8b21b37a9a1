"""What a session may send: by type, by user, by address, and in what order it gets through."""

from __future__ import annotations

from typing import Any

import pytest

from hubbub.config import load
from hubbub.core.metering import Allowance, Metering
from hubbub.core.rates import OFF, Rate, Refused, Wait


def metering(**limits: Any) -> Metering:
    return Metering(load(limits, {}).hub.rates)


def session(node: Metering, user: str = "alice", ip: str = "203.0.113.5") -> Allowance:
    return Allowance(node, user, ip)


def passed(allowance: Allowance, now: float, count: int, type: str = "chat") -> int:
    """How many of so many messages at once are let through."""
    return sum(allowance.take(type, now) is None for _ in range(count))


def test_ten_at_once_and_ten_a_second() -> None:
    alice = session(metering())

    assert passed(alice, 0, 30) == 10
    assert passed(alice, 1.0, 30) == 10


def test_sessions_do_not_share_unless_told_to() -> None:
    node = metering()
    assert passed(session(node), 0, 30) == 10

    assert passed(session(node), 0, 30) == 10


def test_requests_and_messages_of_all_types_count_together() -> None:
    alice = session(metering())

    assert passed(alice, 0, 4, "join") + passed(alice, 0, 4, "chat") + passed(alice, 0, 4, "history") == 10


class TestTypes:
    """A type with a rate of its own is held to that, and to nothing else of the session's."""

    def test_slower(self) -> None:
        alice = session(metering(rate_limits={"typing": Rate(2)}))

        assert passed(alice, 0, 5, "typing") == 2
        assert passed(alice, 0, 30) == 10

    def test_faster(self) -> None:
        alice = session(metering(rate_limits={"cursor": Rate(60)}))

        assert passed(alice, 0, 100, "cursor") == 60

    def test_not_at_all(self) -> None:
        alice = session(metering(rate_limits={"cursor": OFF}))

        assert passed(alice, 0, 1000, "cursor") == 1000

    def test_signs_of_life_have_an_allowance_that_no_receiver_uses_up(self) -> None:
        """A thousand at once: the acknowledgements of a whole inbox, one by one. They cost messages nothing."""
        alice = session(metering(rate_limit="1/s"))
        signs = [passed(alice, 0, 400, type) for type in ("ack", "pong", "ping")]

        assert signs == [400, 400, 200]
        assert passed(alice, 0, 5) == 1

    def test_signs_of_life_can_be_set_as_any_type(self) -> None:
        alice = session(metering(rate_limits={"ack": Rate(5)}))

        assert passed(alice, 0, 10, "ack") == 5
        assert passed(alice, 0, 10, "pong") == 10


class TestShared:
    """A user, or an address, may have a rate beside each session's."""

    def test_of_a_user(self) -> None:
        node = metering(rate_limit_user="15/s")

        assert [passed(session(node), 0, 10) for _ in range(3)] == [10, 5, 0]
        assert passed(session(node, "bob"), 0, 10) == 10

    def test_of_an_address(self) -> None:
        node = metering(rate_limit_ip="15/s")
        sessions = [session(node, user, "2001:db8::" + user) for user in "abc"]

        assert [passed(one, 0, 10) for one in sessions] == [10, 5, 0]
        assert passed(session(node, "d", "2001:db8:0:1::d"), 0, 10) == 10
        assert node.sizes() == {"user": 0, "ip": 2}

    def test_what_one_refuses_uses_up_nothing_of_the_others(self) -> None:
        """A session that is over its address's rate does not use up its user's, nor its own."""
        node = metering(rate_limit="100/s", rate_limit_user="100/s", rate_limit_ip="1/s")
        here, there = session(node), session(node, ip="203.0.113.6")
        assert passed(here, 0, 50) == 1

        assert passed(there, 0, 1) == 1
        assert node.users is not None
        meter = node.users.of("alice", 0)
        assert sum(meter.take(0) is None for _ in range(200)) == 98

    def test_signs_of_life_are_nobodys_messages(self) -> None:
        node = metering(rate_limit_user="1/s")

        assert passed(session(node), 0, 50, "ack") == 50

    def test_the_longest_wait_counts(self) -> None:
        node = metering(rate_limit="10/s leaky", rate_limit_user="1/s leaky")
        alice = session(node)
        alice.take("chat", 0)

        assert alice.take("chat", 0) == Wait(1.0)

    def test_an_unlimited_type_is_still_its_users(self) -> None:
        node = metering(rate_limit_user="5/s", rate_limits={"cursor": OFF})

        assert passed(session(node), 0, 10, "cursor") == 5


class TestOrder:
    """What is sent behind a refused message does not overtake it."""

    def test_until_it_may_come_again_nothing_is_let_through(self) -> None:
        """Though there is a token after a tenth of a second."""
        alice = session(metering())
        passed(alice, 0, 10)

        verdicts = [alice.take("chat", 0.0), alice.take("other", 0.3)]
        assert [verdict.seconds for verdict in verdicts if isinstance(verdict, Refused)] == pytest.approx([1.0, 0.7])
        assert passed(alice, 1.0, 30) == 10

    def test_what_comes_too_early_makes_it_no_later(self) -> None:
        alice = session(metering())
        for tenth in range(10):
            passed(alice, tenth / 10, 30)

        assert passed(alice, 1.0, 30) == 10

    def test_who_was_not_refused_need_not_wait(self) -> None:
        alice = session(metering())
        passed(alice, 0, 10)

        assert passed(alice, 0.1, 1) == 1

    def test_a_refusal_by_the_user_counts_for_this_session_alone(self) -> None:
        node = metering(rate_limit_user="10/s burst 5")
        here, there = session(node), session(node)
        assert passed(here, 0, 6) == 5

        assert passed(there, 0.2, 1) == 1
        assert passed(here, 0.4, 1) == 0

    def test_types_with_a_rate_of_their_own_do_not_wait_for_each_other(self) -> None:
        alice = session(metering(rate_limits={"typing": Rate(1)}))
        passed(alice, 0, 2, "typing")

        assert passed(alice, 0, 10) == 10


class TestOffenders:
    """Whoever goes on in spite of a refusal is noticed; who was unlucky, or comes when told, is not."""

    def test_so_many_within_a_minute(self) -> None:
        """The tenth message takes the last token, the eleventh is refused, and each one after that is a strike."""
        alice = session(metering(rate_limit_strikes=3))
        offends = []
        for _ in range(15):
            alice.take("chat", 0)
            offends.append(alice.offends)

        assert offends == [False] * 14 + [True]

    def test_a_minute_later_it_is_forgotten(self) -> None:
        alice = session(metering(rate_limit_strikes=3))
        for minute in range(10):
            passed(alice, 60.0 * minute, 14)

        assert not alice.offends

    def test_whoever_comes_when_told_never_offends(self) -> None:
        """Though each time one is too many."""
        alice, now = session(metering(rate_limit="1000/m burst 1", rate_limit_strikes=1)), 0.0
        for _ in range(1000):
            verdict = alice.take("chat", now)
            now += verdict.seconds if verdict else 0.001

        assert not alice.offends

    def test_a_queue_that_goes_out_at_once_is_no_offence(self) -> None:
        """A client of ours has at most a hundred on their way."""
        alice = session(metering())
        passed(alice, 0, 600)

        assert not alice.offends

    def test_never_where_the_operator_says_so(self) -> None:
        alice = session(metering(rate_limit_strikes=0))
        passed(alice, 0, 10_000)

        assert not alice.offends

    @pytest.mark.parametrize("limit", ["rate_limit_user", "rate_limit_ip"])
    def test_the_rates_of_others_count_as_well(self, limit: str) -> None:
        """Also where the type itself has no limit."""
        alice = session(metering(rate_limits={"cursor": OFF}, **{limit: "10/s"}))
        passed(alice, 0, 1000, "cursor")

        assert alice.offends

    def test_bad_messages_cost_as_much_as_others(self) -> None:
        alice = session(metering())
        for _ in range(8):
            alice.charge(0)

        assert passed(alice, 0, 5) == 2
