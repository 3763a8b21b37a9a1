"""What becomes of a sent message: accepted once, refused, dropped or unknown, and never nothing."""

from __future__ import annotations

import json

import pytest

from hubbub.client.events import Dropped, State
from hubbub.errors import HubbubError, Reject
from unit.client.player import Player


def lose(player: Player) -> None:
    player.machine.broken(player.socket, "cut", player.now)


def chats(player: Player) -> list[str]:
    """The ids of the messages that were written since the last call."""
    player.did()
    ids = [envelope["id"] for envelope in player.written if envelope["type"] == "chat"]
    player.written.clear()
    return ids


def test_what_waits_goes_out_in_order_when_there_is_a_session() -> None:
    player = Player().to(State.WAITING)
    for number in range(3):
        player.send(id=f"m{number}")
    player.again()

    assert chats(player) == ["m0", "m1", "m2"]


def test_the_101st_message_without_a_connection_drops_the_oldest_and_tells() -> None:
    player = Player().to(State.WAITING)
    for number in range(101):
        player.send(id=f"m{number}", content=number)

    assert player.did() == ["settle m0 dropped", "tell dropped"]
    assert player.told == [("dropped", Dropped("m0", '{"type":"chat","id":"m0","content":0,"room":"lobby"}'))]
    player.again()
    assert chats(player) == [f"m{number}" for number in range(1, 101)]


def test_what_was_on_the_wire_once_is_not_dropped_for_what_never_was() -> None:
    """It may have been accepted."""
    player = Player().to(State.OPEN)
    player.send(id="first")
    lose(player)
    for number in range(100):
        player.send(id=f"m{number}")
    player.did()

    assert player.outcomes == {"x-1": player.outcomes["x-1"]}
    player.send(id="m100")
    assert player.did()[0] == "settle m0 dropped"


def test_the_1001st_message_without_an_outcome_is_refused() -> None:
    player = Player().to(State.OPEN)
    for number in range(1_001):
        player.send(id=f"m{number}")

    assert player.did()[-1] == "settle m1000 too_many"
    assert player.machine.unsettled == 1_000


def test_a_retry_is_the_same_message_to_the_letter() -> None:
    """Also where the content was changed after it was sent."""
    player = Player().to(State.OPEN)
    content = {"total": 1}
    player.send(id="m1", content=content)
    content["total"] = 2
    player.later(10)
    lose(player)
    player.again()
    player.did()
    sent = [envelope for envelope in player.written if envelope["type"] == "chat"]

    assert sent == [{"type": "chat", "id": "m1", "content": {"total": 1}, "room": "lobby"}] * 3


def test_after_three_retries_without_an_answer_the_outcome_is_unknown() -> None:
    player = Player().to(State.OPEN)
    player.send(id="m1")
    player.later(39)
    player.did()

    assert len(player.written) == 4
    assert player.silent(1) == ["settle m1 unknown"]


def test_refusals_are_retried_after_1_2_and_4_seconds_and_then_are_the_outcome() -> None:
    player = Player().to(State.OPEN)
    player.send(id="m1")
    for wait in (1, 2, 4):
        player.hear("error", id="m1", code="internal", message="")
        player.did()

        assert player.silent(wait - 0.1) == []
        assert player.silent(0.1) == ["write chat m1 lobby"]
    player.hear("error", id="m1", code="internal", message="It failed.", retry_after=1)
    assert player.did() == ["settle m1 refused:internal"]
    refused = player.outcomes["m1"]
    assert isinstance(refused, Reject)
    assert (refused.message, refused.retry_after) == ("It failed.", 1)


def test_the_least_chance_halves_the_wait_of_a_retry() -> None:
    player = Player(chance=0).to(State.OPEN)
    player.send(id="m1")
    player.hear("error", id="m1", code="internal", message="")
    player.did()

    assert player.silent(0.5) == ["write chat m1 lobby"]


def test_a_code_that_nobody_knows_is_final() -> None:
    player = Player().to(State.OPEN)
    player.send(id="m1")
    player.hear("error", id="m1", code="sold_out", message="", where="$.item")
    player.did()

    assert player.outcomes["m1"].where == "$.item"


def test_lost_connections_do_not_count_as_retries() -> None:
    """That was not the message's fault."""
    player = Player().to(State.OPEN)
    player.send(id="m1")
    for _ in range(10):
        lose(player)
        player.again()
    player.hear("error", id="m1", code="internal", message="")

    assert chats(player) == ["m1"] * 11
    assert "m1" not in player.outcomes


def test_a_message_that_was_never_on_the_wire_has_no_limit_of_time() -> None:
    player = Player().to(State.CLOSED)
    player.send(id="m1")
    player.later(86_400)
    player.again()

    assert chats(player) == ["m1"]


def test_a_late_answer_to_a_retry_is_of_no_interest() -> None:
    player = Player().to(State.OPEN)
    player.send(id="m1")
    player.later(10)
    player.hear("ack", id="m1", room="lobby", seq=42, epoch="p9")
    player.hear("ack", id="m1", room="lobby", seq=42, epoch="p9", duplicate=True)

    assert player.did() == ["write chat m1 lobby", "write chat m1 lobby", "settle m1 accepted"]


def test_without_an_id_the_client_makes_one_that_no_other_device_has() -> None:
    player = Player().to(State.OPEN)
    first, second = player.send(), player.send()

    assert chats(player) == [first, second]
    assert first != second
    assert first.startswith("x-")


def test_an_id_names_one_message() -> None:
    player = Player().to(State.OPEN)
    player.send(id="m1")
    with pytest.raises(Reject, match="on its way"):
        player.send(id="m1")


def test_what_the_server_would_not_take_is_not_sent() -> None:
    """protocol.md §7: a client knows the limit and does not let it come to 1009."""
    player = Player().to(State.OPEN)
    player.send(id="m1", content="é" * 40_000)
    player.send(id="v1", content="é" * 40_000, volatile=True)

    assert player.did() == ["settle m1 refused:too_large", "settle v1 refused:too_large"]
    assert player.machine.unsettled == 0


def test_content_that_json_cannot_hold_raises_and_leaves_nothing_behind() -> None:
    player = Player().to(State.OPEN)
    with pytest.raises(HubbubError, match="JSON"):
        player.send(content=object())

    assert player.did() == []
    assert player.machine.unsettled == 0


def test_bytes_travel_as_base64() -> None:
    player = Player().to(State.OPEN)
    player.send(content=b"\x00\xff")
    player.did()

    assert player.written[-1]["content"] == "AP8="
    assert player.written[-1]["binary"] is True


def test_volatile_messages_with_an_id_are_unknown_after_a_cut() -> None:
    player = Player().to(State.OPEN)
    player.send(id="v1", volatile=True)
    player.did()
    lose(player)

    assert "settle v1 unknown" in player.did()


def test_a_refused_volatile_message_is_refused() -> None:
    player = Player().to(State.OPEN)
    player.send(id="v1", volatile=True)
    player.hear("error", id="v1", code="unavailable", message="")

    assert player.did() == ["write chat v1 lobby", "settle v1 refused:unavailable"]


def test_the_envelope_is_what_was_asked_for() -> None:
    player = Player().to(State.OPEN)
    player.send("order", id="m1", to="bob", content=None, receipt=True)
    player.did()

    assert json.dumps(player.written[-1]) == json.dumps(
        {"type": "order", "id": "m1", "to": "bob", "content": None, "receipt": True}
    )
