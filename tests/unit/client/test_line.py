"""No faster than the server takes it (spec/client.md §7): all of it goes out, in order, and without a storm."""

from __future__ import annotations

from collections import deque
from itertools import cycle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.client.events import State
from hubbub.config import load
from hubbub.core.metering import Allowance, Metering
from hubbub.core.rates import Refused
from hubbub.errors import Reject
from unit.client.player import Player


def names(player: Player) -> list[str]:
    """The ids, or the types of what has none, that were written since the last call."""
    player.did()
    written = [envelope.get("id", envelope["type"]) for envelope in player.written]
    player.written.clear()
    return written


def refuse(player: Player, id: str | None, retry_after: float | None = 1.0) -> None:
    fields: dict[str, Any] = {} if id is None else {"id": id}
    if retry_after is not None:
        fields["retry_after"] = retry_after
    player.hear("error", code="rate_limited", message="", **fields)


def accept(player: Player, id: str) -> None:
    player.hear("ack", id=id, room="lobby", seq=1, epoch="p9", duplicate=True)


def sending(count: int, **envelope: Any) -> Player:
    """A player with a session that has sent so many messages, m0 and so on."""
    player = Player().to(State.OPEN)
    for number in range(count):
        player.send(id=f"m{number}", **envelope)
    return player


def test_at_most_100_are_without_an_answer() -> None:
    """However much its user sends: so the server never has to refuse more than that."""
    player = sending(150)

    assert names(player) == [f"m{number}" for number in range(100)]
    accept(player, "m0")
    assert names(player) == ["m100"]
    player.hear("error", id="m1", code="forbidden", message="")
    assert names(player) == ["m101"]


def test_what_was_refused_goes_again_in_order_when_the_hold_is_over_one_at_a_time() -> None:
    player = sending(5)
    names(player)
    accept(player, "m0")
    for number in (1, 2, 3, 4):
        refuse(player, f"m{number}")

    assert player.silent(0.9) == ["settle m0 accepted"]
    assert player.silent(0.1) == ["write chat m1 lobby"]
    assert player.silent(5) == []
    accept(player, "m1")
    assert names(player) == ["m1", "m2"]


def test_what_is_sent_during_a_hold_comes_behind_what_was_refused() -> None:
    player = sending(2)
    names(player)
    refuse(player, "m0")
    player.send(id="later")
    refuse(player, "m1")
    player.later(1)
    accept(player, "m0")
    accept(player, "m1")

    assert names(player) == ["m0", "m1", "later"]


def test_when_nothing_waits_any_more_it_goes_at_full_speed_again() -> None:
    player = sending(2)
    refuse(player, "m1")
    accept(player, "m0")
    player.later(1)
    accept(player, "m1")
    names(player)
    player.send(id="a")
    player.send(id="b")

    assert names(player) == ["a", "b"]


def test_a_refusal_is_no_retry_and_there_is_no_limit_to_them() -> None:
    """It was not the message's fault; and nothing was stored, so it is as if it had never been sent."""
    player = sending(1)
    for _ in range(400):
        refuse(player, "m0")
        player.later(1)

    assert player.machine.unsettled == 1
    assert "m0" not in player.outcomes
    accept(player, "m0")
    assert player.did()[-1] == "settle m0 accepted"


def test_what_may_have_been_stored_once_keeps_its_limit_of_time() -> None:
    """It was on the wire when the connection was lost: after 4.5 minutes a double would be risked."""
    player = sending(1)
    player.machine.broken(player.socket, "cut", player.now)
    player.again()
    for _ in range(270):
        refuse(player, "m0")
        player.later(1)

    assert player.did()[-1] == "settle m0 unknown"


def test_the_answer_to_a_sending_that_was_given_up_does_no_harm() -> None:
    player = sending(1)
    player.later(10)
    refuse(player, "m0")
    refuse(player, "m0")
    player.later(1)
    names(player)
    accept(player, "m0")

    assert player.did() == ["settle m0 accepted"]
    assert player.silent(50) == []


@pytest.mark.parametrize(("named", "waits"), [(None, 1.0), (0.5, 0.5), (-3, 0.0), (9_000, 300.0)])
def test_how_long_it_holds(named: float | None, waits: float) -> None:
    """A second where nothing is said, and five minutes at most."""
    player = sending(1)
    names(player)
    refuse(player, "m0", named)

    if waits:
        # Longer than the silence that a client bears: the server pings meanwhile.
        while waits > 30:
            player.later(20)
            player.hear("ping")
            waits -= 20
        player.did()
        assert player.silent(waits - 0.01) == []
        assert player.silent(0.01) == ["write chat m0 lobby"]
    else:
        assert names(player) == ["m0"]


def test_a_type_that_is_held_does_not_hold_others() -> None:
    """An application may say `rate_limited` about a type of its own."""
    player = Player().to(State.OPEN)
    player.send("attack", id="a")
    names(player)
    refuse(player, "a", 30)
    player.send(id="chat 1")
    player.send("attack", id="b")

    assert names(player) == ["chat 1"]
    accept(player, "chat 1")
    player.send(id="chat 2")
    assert names(player) == ["chat 2"]


def test_what_was_refused_for_the_same_reason_keeps_its_order_over_types() -> None:
    """The hold of the second ends a moment earlier, because it was told a moment less."""
    player = Player().to(State.OPEN)
    player.machine.join("news", player.now)
    player.send(id="m0", room="news")
    (join, _) = names(player)
    refuse(player, join, 1.0)
    refuse(player, "m0", 0.95)

    assert player.silent(0.99) == []
    assert player.silent(0.01) == ["write join x news"]
    player.hear("joined", id=join, room="news", position=["n1", 7], recovered=None, count=1)
    assert names(player) == [join, "m0"]


def test_a_request_is_asked_again() -> None:
    player = Player().to(State.OPEN)
    id = player.machine.request("presence", {"room": "lobby"}, player.now)
    refuse(player, id)
    player.later(1)
    player.hear("presence", id=id, room="lobby", members=[], count=0)

    assert player.did() == ["write presence x lobby", "write presence x lobby", "settle x presencelist"]


def test_a_request_waits_a_minute_and_says_what_held_it_up() -> None:
    player = Player().to(State.OPEN)
    id = player.machine.request("presence", {"room": "lobby"}, player.now)
    refuse(player, id, 100)
    for _ in range(3):
        player.later(20)
        player.hear("ping")
    player.did()

    outcome = player.outcomes[id]
    assert isinstance(outcome, Reject)
    assert outcome.code == "rate_limited"


def test_many_rooms_are_all_joined() -> None:
    """More than the server lets through at once."""
    player = Player().to(State.OPEN)
    ids = [player.machine.join(f"r{number}", player.now) for number in range(20)]
    names(player)
    for number, id in enumerate(ids):
        if number < 10:
            player.hear("joined", id=id, room=f"r{number}", position=["n1", 7], recovered=None, count=1)
        else:
            refuse(player, id)
    player.later(1)

    assert names(player) == ids[10:11]
    assert len(player.machine.rooms) == 21


def test_volatile_messages_are_refused_here_while_their_type_is_held() -> None:
    """They are for now or never; and one after the other for the server to refuse would end the session."""
    player = Player().to(State.OPEN)
    player.send("cursor", id="v1", volatile=True)
    player.send("cursor", id="v2", volatile=True)
    refuse(player, "v1")
    names(player)
    player.send("cursor", volatile=True)
    player.send("other", volatile=True)

    assert player.did() == ["settle x refused:rate_limited", "write other lobby", "settle x accepted"]
    player.later(1)
    names(player)
    player.send("cursor", id="v3", volatile=True)
    assert names(player) == ["v3"]


def test_an_error_without_an_id_is_about_some_volatile_message() -> None:
    """So all of them wait; messages that are kept do not."""
    player = Player().to(State.OPEN)
    player.send("cursor", volatile=True)
    player.did()
    refuse(player, None)
    player.send("cursor", volatile=True)
    player.send(id="kept")

    assert player.did() == ["tell error", "settle x refused:rate_limited", "write chat kept lobby"]


def test_a_lost_connection_ends_all_holds() -> None:
    """Another session is another allowance."""
    player = sending(3)
    refuse(player, "m2", 100)
    player.machine.broken(player.socket, "cut", player.now)
    player.send(id="m3")
    names(player)
    player.again()

    assert [name for name in names(player) if name != "hello"] == ["m0", "m1", "m2", "m3"]


class Wire:
    """The server's own rule, behind a network that takes its time and keeps its order."""

    def __init__(self, player: Player, rate: str, latencies: list[float]) -> None:
        self.player = player
        self.allowance = Allowance(Metering(load({"rate_limit": rate}, {}).hub.rates), "alice", "203.0.113.5")
        self.accepted: list[str] = []
        self.refusals = 0
        self._latencies = cycle(latencies)
        # With when they arrive.
        self._there: deque[tuple[float, dict[str, Any]]] = deque()
        self._back: deque[tuple[float, dict[str, Any]]] = deque()
        self._ping = player.now

    def run(self, seconds: float = 3600) -> None:
        """Carry messages for so long, or until all have an outcome."""
        player, until = self.player, self.player.now + seconds
        while True:
            for words in player.did():
                assert not words.startswith(("drop", "settle")) or words.endswith("accepted"), words
            for envelope in player.written:
                if "id" in envelope:
                    self._carry(self._there, envelope)
            player.written.clear()
            if player.machine.unsettled == 0 and seconds == 3600:
                return
            coming = [queue[0][0] for queue in (self._there, self._back) if queue]
            due = player.machine.due
            now = max(player.now, min([*coming, self._ping, *([due] if due is not None else [])]))
            if now > until:
                player.now = until
                return
            self._happen(now)

    def _happen(self, now: float) -> None:
        player = self.player
        player.now = now
        if now >= self._ping:
            self._ping = now + 20
            player.hear("ping")
        while self._there and self._there[0][0] <= now:
            self._carry(self._back, self._answer(self._there.popleft()[1], now))
        while self._back and self._back[0][0] <= now:
            player.hear(**self._back.popleft()[1])
        player.machine.tick(now)

    def _carry(self, queue: deque[tuple[float, dict[str, Any]]], envelope: dict[str, Any]) -> None:
        behind = queue[-1][0] if queue else 0.0
        queue.append((max(behind, self.player.now + next(self._latencies)), envelope))

    def _answer(self, envelope: dict[str, Any], now: float) -> dict[str, Any]:
        verdict = self.allowance.take(envelope["type"], now)
        if not isinstance(verdict, Refused):
            self.accepted.append(envelope["id"])
            return {"type": "ack", "id": envelope["id"], "room": "lobby", "seq": len(self.accepted), "epoch": "p9"}
        self.refusals += 1
        assert not self.allowance.offends
        said = {"code": "rate_limited", "message": "", "retry_after": verdict.seconds + 0.005}
        return {"type": "error", "id": envelope["id"], **said}


@pytest.mark.parametrize("count", [100, 1000])
@pytest.mark.parametrize("latency", [0.0005, 0.05, 0.4])
@pytest.mark.parametrize("rate", ["10/s burst 10", "500/m window", "1000/m burst 50"])
def test_a_burst_of_any_length_arrives_in_order_and_once(count: int, latency: float, rate: str) -> None:
    """With the server's own rule on the other side. Meeting the limit costs one refusal, and the first time the
    hundred that were on their way."""
    player = Player().to(State.OPEN)
    wire = Wire(player, rate, [latency])
    start = player.now
    for number in range(count):
        player.send(id=f"m{number}")
    wire.run()

    assert wire.accepted == [f"m{number}" for number in range(count)]
    assert wire.refusals <= 100 + count
    if rate == "10/s burst 10":
        # As fast as the server and the way there and back let one at a time go.
        assert player.now - start <= count * max(0.1, 2 * latency) * 1.15 + 2
        assert wire.refusals <= 100 + count / 10


@given(st.lists(st.floats(0.001, 0.45), min_size=1, max_size=20), st.lists(st.floats(0, 0.3), max_size=60))
def test_nothing_is_overtaken_whatever_the_network_does(latencies: list[float], pauses: list[float]) -> None:
    """As long as it is there and back sooner than a refusal asks to wait."""
    player = Player().to(State.OPEN)
    wire = Wire(player, "10/s burst 10", latencies)
    for number, pause in enumerate(pauses):
        player.send(id=f"m{number}")
        wire.run(pause)
    wire.run()

    assert wire.accepted == [f"m{number}" for number in range(len(pauses))]
