"""How often clients may come, by a clock that is turned by hand."""

from __future__ import annotations

from typing import Any

from hubbub.config import load
from hubbub.hub.arrivals import Arrivals
from hubbub.testing.clock import FakeClock


def arrivals(clock: FakeClock, **limits: Any) -> Arrivals:
    return Arrivals(load(limits, {}).hub.rates, clock)


def let_in(gate: Arrivals, ip: str, count: int) -> int:
    return sum(gate.take(ip) is None for _ in range(count))


def test_the_defaults_to_the_handshake() -> None:
    """An office: 500 at once, and 50 a second."""
    gate = arrivals(clock := FakeClock())

    assert let_in(gate, "203.0.113.5", 600) == 500
    clock.advance(1.0)
    assert let_in(gate, "203.0.113.5", 600) == 50


def test_addresses_are_counted_by_themselves_and_ipv6_by_network() -> None:
    gate = arrivals(FakeClock(), handshake_rate_ip="1/m")
    addresses = ["203.0.113.5", "203.0.113.6", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"]

    assert [let_in(gate, ip, 2) for ip in addresses] == [1, 1, 1, 0, 1]
    assert len(gate) <= 4


def test_who_is_over_the_own_rate_uses_up_nothing_of_everybodys() -> None:
    """So one flooding address keeps nobody else out."""
    gate = arrivals(FakeClock(), handshake_rate_ip="5/m", handshake_rate="10/m")
    let_in(gate, "6.6.6.6", 1000)

    assert let_in(gate, "203.0.113.5", 10) == 5


def test_what_all_together_are_refused_costs_no_address_anything() -> None:
    gate = arrivals(clock := FakeClock(), handshake_rate_ip="5/h", handshake_rate="3/s")

    assert let_in(gate, "203.0.113.5", 10) == 3
    clock.advance(1.0)
    assert let_in(gate, "203.0.113.5", 10) == 2


def test_a_refusal_is_429_with_whole_seconds_to_wait() -> None:
    gate = arrivals(FakeClock(), handshake_rate_ip="1/m")
    gate.take("203.0.113.5")
    refuse = gate.take("203.0.113.5")

    assert refuse is not None
    assert (refuse.status, refuse.code, refuse.retry_after) == (429, "rate_limited", 60)
