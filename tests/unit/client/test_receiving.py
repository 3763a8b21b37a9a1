"""Messages come in order and once each; positions and acknowledgements follow what was handled."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.client.events import Missed, State
from hubbub.client.places import HELD_LIMIT
from hubbub.client.receiving import MOST_PENDING
from unit.client.player import Player


def heard(player: Player) -> list[Any]:
    """The contents that were handed out since the last call."""
    player.did()
    return player.handle()


def test_doubles_fall_out_and_what_is_early_waits() -> None:
    player = Player().to(State.OPEN)
    for seq in (41, 43, 44, 43):
        player.chat(seq)

    assert heard(player) == []
    player.chat(42)
    player.chat(42)
    assert heard(player) == [42, 43, 44]
    assert player.silent(2) == []


def test_numbers_that_an_engine_leaves_out_are_no_hole() -> None:
    """§6: the next message is the one whose `prev` is the position."""
    player = Player().to(State.OPEN)
    player.chat(50, prev=41)
    player.chat(60, prev=50)

    assert heard(player) == [50, 60]


def test_a_filled_hole_ends_its_timer_and_a_next_one_has_its_own() -> None:
    player = Player().to(State.OPEN)
    player.chat(43)
    player.chat(45)
    player.later(0.9)
    player.chat(42)
    player.later(0.9)

    assert player.is_in(State.OPEN)
    player.later(0.1)
    assert player.is_in(State.WAITING)


def test_too_many_early_messages_are_fetched_anew() -> None:
    player = Player().to(State.OPEN)
    for seq in range(43, 43 + HELD_LIMIT):
        player.chat(seq)

    assert player.is_in(State.OPEN)
    player.chat(43 + HELD_LIMIT)
    assert player.is_in(State.WAITING)


def test_a_user_who_is_too_slow_gets_the_rest_later() -> None:
    """What may wait is bounded, and the connection stands; when half is handled, resuming brings what was let go."""
    player = Player().to(State.OPEN)
    end = 42 + MOST_PENDING
    for seq in range(42, end + 10):
        player.chat(seq)
    player.hear("ping")

    assert player.did()[-1] == "write pong"
    assert len(player.out) == MOST_PENDING
    for _ in range(MOST_PENDING // 2):
        assert player.is_in(State.OPEN)
        player.machine.handled(*player.out.pop(0), player.now)
        # What comes now is let go as well: it is no hole.
        player.chat(end + 10)
        player.later(0.001)
    assert player.is_in(State.WAITING)
    player.again(rooms={"lobby": ("p9", end + 9)})
    for seq in range(42 + MOST_PENDING // 2, end + 10):
        player.chat(seq)
    assert heard(player) == list(range(42 + MOST_PENDING // 2, end + 10))


def test_volatile_messages_for_a_user_who_is_too_slow_are_let_go() -> None:
    player = Player().to(State.OPEN)
    for _ in range(MOST_PENDING + 10):
        player.hear("typing", room="lobby")
    player.did()

    assert player.is_in(State.OPEN)
    assert len(player.out) == MOST_PENDING


def test_messages_of_a_room_that_was_left_are_ignored() -> None:
    player = Player().to(State.OPEN)
    player.machine.leave("lobby", player.now)
    player.chat(42)
    player.hear("typing", room="lobby")
    player.hear("gap", room="lobby", from_=42, to=43)

    assert player.did() == ["write leave x lobby"]


def test_messages_of_the_old_membership_do_not_begin_the_new_one() -> None:
    """Left and joined again at once: what was on its way comes before the answers."""
    player = Player().to(State.OPEN)
    player.machine.leave("lobby", player.now)
    id = player.machine.join("lobby", player.now, 2)
    player.chat(42)
    player.hear("left", room="lobby", id="x-2")
    player.hear("joined", room="lobby", position=["p9", 42], recovered=True, count=1, id=id)
    player.chat(41)
    player.chat(42)

    assert heard(player) == [41, 42]


def test_a_gap_counts_also_where_it_begins_before_the_position() -> None:
    player = Player().to(State.OPEN)
    player.hear("gap", room="lobby", from_=30, to=45)
    player.chat(46)
    player.hear("gap", channel="all", from_=10, to=11)
    player.hear("gap", from_=18, to=19)

    assert heard(player) == [46]
    assert [event for name, event in player.told if name == "gap"] == [
        Missed("room:lobby", 30, 45),
        Missed("all", 10, 11),
        Missed("inbox", 18, 19),
    ]
    assert player.machine.position("inbox") == ("k3", 19)


def test_an_ack_stands_where_the_message_would_have_come() -> None:
    """protocol.md §5.4: what comes before it is handed out before it, and it is no hole."""
    player = Player().to(State.OPEN)
    player.send(id="m1", echo=False)
    player.hear("ack", id="m1", room="lobby", seq=43, epoch="p9")
    player.chat(44)
    player.chat(42)

    assert heard(player) == [42, 44]


def test_an_ack_behind_a_jump_is_no_hole() -> None:
    """protocol.md §5.4: it has the `prev` of its message."""
    player = Player().to(State.OPEN)
    player.send(id="m1", echo=False)
    player.hear("ack", id="m1", room="lobby", seq=50, prev=41, epoch="p9")
    player.chat(60, prev=50)

    assert heard(player) == [60]


def test_a_duplicates_ack_stands_nowhere() -> None:
    """The message is in the recovery, like those of others."""
    player = Player().to(State.OPEN)
    player.send(id="m1", echo=False)
    player.hear("ack", id="m1", room="lobby", seq=43, epoch="p9", duplicate=True)
    player.chat(42)
    player.chat(43)

    assert heard(player) == [42, 43]


def test_the_ack_of_a_message_to_somebody_else_is_of_no_channel() -> None:
    player = Player().to(State.OPEN)
    player.send(id="m1", to="bob", echo=False)
    player.hear("ack", id="m1", to="bob", seq=99, epoch="k3")
    player.send(id="m2", to="alice", echo=False)
    player.hear("ack", id="m2", to="alice", seq=18, epoch="k3")

    assert player.machine.position("inbox") == ("k3", 18)
    player.later(2)
    assert player.is_in(State.OPEN)


@pytest.mark.parametrize("first", [40, 44])
def test_with_last_the_first_message_says_where_the_room_begins(first: int) -> None:
    """Also where that is a live one, because nothing was kept."""
    player = Player().to(State.OPEN)
    id = player.machine.join("news", player.now, 5)
    player.hear("joined", room="news", position=["n1", 43], recovered=True, count=1, id=id)

    assert player.machine.position("room:news") is None
    player.chat(first, room="news")
    assert heard(player) == [first]
    assert player.machine.position("room:news") == ("n1", first)


def test_with_last_a_hole_before_the_first_message_is_noticed() -> None:
    player = Player().to(State.OPEN)
    id = player.machine.join("news", player.now, 5)
    player.hear("joined", room="news", position=["n1", 43], recovered=True, count=1, id=id)
    player.chat(45, room="news")

    assert heard(player) == []
    player.later(1)
    assert player.is_in(State.WAITING)


def test_a_position_between_two_messages_is_no_hole() -> None:
    """An engine that numbers several channels together may end a log with a number that is none of its messages'."""
    player = Player().to(State.OPEN)
    player.chat(45, prev=38)

    assert heard(player) == [45]


def test_an_empty_room_joined_with_last_is_resumed_like_any() -> None:
    player = Player().to(State.OPEN)
    id = player.machine.join("news", player.now, 5)
    player.hear("joined", room="news", position=["n1", 0], recovered=True, count=1, id=id)

    assert player.machine.position("room:news") == ("n1", 0)


def test_the_position_waits_for_the_oldest_that_is_not_handled() -> None:
    player = Player().to(State.OPEN)
    player.chat(42)
    player.chat(43)
    player.did()
    first, second = player.out
    player.machine.handled(*second, player.now)

    assert player.machine.position("room:lobby") == ("p9", 41)
    player.machine.handled(*first, player.now)
    assert player.machine.position("room:lobby") == ("p9", 43)


def test_the_inbox_is_acknowledged_every_32_messages() -> None:
    """§8: only what was handled, cumulative."""
    player = Player().to(State.OPEN)
    for seq in range(18, 18 + 40):
        player.chat(seq, room=None, to="alice")
    player.did()
    player.handle()

    assert player.did() == ["write ack 49"]
    assert player.silent(1) == ["write ack 57"]
    assert player.silent(40) == []


def test_what_is_not_handled_is_not_acknowledged() -> None:
    player = Player().to(State.OPEN)
    player.chat(18, room=None, to="alice")

    assert player.silent(40) == ["deliver 18"]


def test_an_ack_that_may_have_been_lost_is_sent_again() -> None:
    player = Player().to(State.OPEN)
    player.chat(18, room=None, to="alice")
    player.did()
    player.handle()
    player.later(1)
    player.machine.broken(player.socket, "cut", player.now)
    player.again(inbox=("k3", 18))
    player.did()

    assert player.silent(1) == ["write ack 18"]


def test_chunks_in_a_wrong_order_make_no_sense() -> None:
    for chunk in (
        {"index": 1, "total": 2, "data": "AA=="},
        {"index": 0, "total": 0, "data": "AA=="},
        {"index": 0, "total": 2, "data": ""},
        {"index": 0, "total": 2, "data": "?"},
    ):
        player = Player().to(State.OPEN)
        player.hear("chunk", id="t1", **chunk)

        assert player.did() == ["drop 4500"], chunk


def test_only_so_many_transfers_are_collected() -> None:
    """For as long as they take: it is the server that gives up on a slow reader."""
    player = Player().to(State.OPEN)
    for number in range(4):
        player.hear("chunk", id=f"t{number}", index=0, total=2, data="AA==")
    player.later(59)

    assert player.is_in(State.OPEN)
    player.hear("chunk", id="t5", index=0, total=2, data="AA==")
    assert player.is_in(State.WAITING)


@given(st.data())
def test_whatever_the_order_everything_is_handed_out_once_and_in_order(data: st.DataObject) -> None:
    """Messages, doubles, gaps and jumps of the numbering, shuffled: what comes out is the log."""
    steps = data.draw(st.lists(st.sampled_from(["message", "jump", "gap"]), max_size=30))
    envelopes: list[dict[str, Any]] = []
    seq, expected = 41, []
    for step in steps:
        prev, seq = seq, seq + (1 if step == "message" else 3)
        if step == "gap":
            envelopes.append({"type": "gap", "room": "lobby", "from": prev + 1, "to": seq})
        else:
            expected.append(seq)
            chat = {"type": "chat", "room": "lobby", "content": seq, "seq": seq}
            envelopes.append(chat if step == "message" else {**chat, "prev": prev})
    doubles = data.draw(st.lists(st.sampled_from(envelopes), max_size=5)) if envelopes else []
    player = Player().to(State.OPEN)
    for envelope in data.draw(st.permutations(envelopes + doubles)):
        player.hear(**envelope)

    assert heard(player) == expected
    assert player.machine.position("room:lobby") == ("p9", seq)
