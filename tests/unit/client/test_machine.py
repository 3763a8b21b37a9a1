"""The procedures of spec/client.md §4: trying again, resuming, being in rooms."""

from __future__ import annotations

import pytest

from hubbub.client.events import Recovered, RoomLeft, State, StateChange, Unanswered
from hubbub.errors import Reject
from unit.client.player import Player


def lose(player: Player) -> None:
    player.machine.broken(player.socket, "cut", player.now)


def wait(player: Player) -> float:
    """Seconds until the next try."""
    [change] = [event for name, event in player.told if name == "state" and event.state is State.WAITING][-1:]
    at: float = change.retry_at
    return at - player.now


# ----------------------------------------------------------------------------------------------- trying again


def test_the_wait_doubles_up_to_half_a_minute() -> None:
    """§5: full jitter; with the highest chance each wait is its bound."""
    player = Player()
    player.machine.open(player.now)
    waits = []
    for _ in range(9):
        player.did()
        lose(player)
        player.did()
        waits.append(wait(player))
        player.later(waits[-1])

    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_chance_scales_the_whole_wait() -> None:
    """Ten thousand clients that lost the same server come back at ten thousand moments."""
    player = Player(chance=0.25)
    player.machine.open(player.now)
    player.did()
    lose(player)
    player.did()

    assert wait(player) == 0.125


@pytest.mark.parametrize(("asked", "waited"), [(0.1, 0.5), (7, 7), (3_600, 300)])
def test_the_servers_word_is_a_lower_bound_of_at_most_five_minutes(asked: float, waited: float) -> None:
    player = Player().to(State.OPEN)
    player.hear("goodbye", code=1012, reason="", retry_after=asked)
    player.did()

    assert wait(player) == waited


def test_a_server_that_accepts_and_closes_at_once_is_not_hammered() -> None:
    """`attempt` goes back to 0 only after 10 s of being open."""
    player = Player().to(State.OPEN)
    lose(player)
    for _ in range(3):
        player.again()
        player.later(9)
        lose(player)
    player.did()

    assert wait(player) == 4
    player.again()
    player.later(10)
    lose(player)
    player.did()
    assert wait(player) == 0.5


def test_opening_by_hand_while_waiting_does_not_make_the_next_wait_shorter() -> None:
    player = Player().to(State.WAITING)
    player.machine.open(player.now)
    player.did()
    lose(player)
    player.did()

    assert wait(player) == 1


@pytest.mark.parametrize("state", [State.CLOSED, State.FAILED])
def test_opening_again_starts_afresh(state: State) -> None:
    player = Player().to(state)
    player.machine.open(player.now)
    player.did()
    lose(player)
    player.did()

    assert wait(player) == 0.5


def test_a_limit_of_tries_ends_in_unreachable() -> None:
    player = Player()
    player.machine.tries = 2
    player.machine.open(player.now)
    player.did()
    lose(player)

    assert player.is_in(State.WAITING)
    player.later(0.5)
    player.did()
    lose(player)
    assert player.is_in(State.FAILED)
    assert player.machine.reason is not None
    assert (player.machine.reason.code, player.machine.reason.message) == ("unreachable", "cut")


def test_codes_that_nobody_knows_are_sorted_by_their_range() -> None:
    """§5: 4500–4999 stay away, all others come back."""
    for code, state in ((4499, State.WAITING), (4500, State.FAILED), (4999, State.FAILED), (3000, State.WAITING)):
        player = Player().to(State.OPEN)
        player.machine.closed(player.socket, code, "", player.now)

        assert player.is_in(state), code


def test_an_old_socket_is_not_listened_to() -> None:
    """§2: each new socket is a new generation."""
    player = Player().to(State.OPEN)
    old = player.socket
    lose(player)
    player.again()
    player.did()
    machine, now = player.machine, player.now
    machine.received(old, '{"type":"ping"}', now)
    machine.closed(old, 4504, "", now)
    machine.broken(old, "cut", now)
    machine.opened(old, now)
    machine.alive(old, now)

    assert player.did() == []
    assert machine.state is State.OPEN


def test_without_a_token_function_an_expired_token_is_the_end() -> None:
    player = Player(renews=False).to(State.OPEN)
    player.machine.closed(player.socket, 4003, "", player.now)

    assert player.is_in(State.FAILED)
    assert player.machine.reason is not None
    assert player.machine.reason.code == "token_expired"


def test_a_token_that_expires_at_once_is_not_renewed_in_a_loop() -> None:
    """Without a delay only where the last renewal is over 30 s ago."""
    player = Player().to(State.OPEN)
    for expected in (0, 0.5):
        player.machine.closed(player.socket, 4003, "", player.now)
        player.did()

        assert wait(player) == expected
        player.again()


def test_a_refused_renewal_is_told_and_tried_again_while_the_old_token_is_good() -> None:
    player = Player().to(State.OPEN)
    player.machine.renewed("t1", player.now)
    player.hear("error", id="x-2", code="unauthorized", message="")

    assert player.did() == ["write auth x", "tell error"]
    assert player.silent(10) == ["ask token"]


def test_any_message_answers_a_probe() -> None:
    player = Player().to(State.OPEN)
    player.machine.network_changed(player.now, online=True)
    player.later(4)
    player.hear("member-left", room="lobby", user="bob")
    player.later(4)

    assert player.is_in(State.OPEN)


def test_pings_keep_a_connection_open() -> None:
    """Both kinds of ping: the server's envelope and a WebSocket's frame."""
    player = Player().to(State.OPEN)
    player.later(59)
    player.hear("ping")
    player.later(59)
    player.machine.alive(player.socket, player.now)
    player.later(59)

    assert player.is_in(State.OPEN)
    player.later(1)
    assert player.is_in(State.WAITING)


def test_states_are_told_with_all_that_a_page_shows() -> None:
    """§9: in `waiting` the time of the next try, in `failed` the reason."""
    player = Player().to(State.OPEN)
    player.hear("goodbye", code=1012, reason="server restart", retry_after=3)
    player.did()
    [(_, waiting)] = player.told
    player.machine.open(player.now)
    player.did()
    player.machine.closed(player.socket, 4503, "no", player.now)
    player.did()
    failed = player.told[-1][1]

    assert isinstance(waiting, StateChange)
    assert (waiting.was, waiting.state) == (State.OPEN, State.WAITING)
    assert waiting.retry_at == player.now + 3
    assert waiting.reason is not None
    assert (waiting.reason.code, waiting.reason.message) == (1012, "server restart")
    assert (failed.state, failed.reason.code, failed.reason.message) == (State.FAILED, 4503, "no")


# --------------------------------------------------------------------------------------------------- resuming


def test_the_first_hello_resumes_nothing() -> None:
    player = Player()
    player.machine.open(player.now)
    player.did()
    player.machine.opened(player.socket, player.now, "t0")
    player.did()

    assert player.written == [{"type": "hello", "client": "hubbub-python", "token": "t0"}]


def test_a_resume_names_what_was_handled_and_no_more() -> None:
    """§6: a position moves after the message was handled."""
    player = Player().to(State.OPEN)
    player.chat(42)
    player.did()
    player.handle()
    player.chat(43)
    player.chat(18, room=None, to="alice")
    player.chat(10, room=None)
    player.did()
    lose(player)
    player.again()
    player.did()

    assert player.resume == {"inbox": ["k3", 17], "all": ["k1", 9], "rooms": {"lobby": ["p9", 42]}}


def test_what_was_handed_out_before_a_cut_is_not_handed_out_again() -> None:
    """It comes again, for the server was told an older position; but it is being handled already."""
    player = Player().to(State.OPEN)
    player.chat(42)
    player.did()
    lose(player)
    player.again(rooms={"lobby": ("p9", 43)})
    player.chat(42)
    player.chat(43)
    player.did()

    assert player.handle() == [42, 43]
    assert player.machine.position("room:lobby") == ("p9", 43)


def test_a_position_that_cannot_be_recovered_is_replaced_and_told() -> None:
    player = Player().to(State.OPEN)
    lose(player)
    player.again(
        all=("k2", 3),
        rooms={"lobby": ("q1", 5)},
        recovered={"inbox": True, "all": False, "rooms": {"lobby": False}},
    )
    player.did()

    assert player.machine.position("all") == ("k2", 3)
    assert player.machine.position("room:lobby") == ("q1", 5)
    assert [event for name, event in player.told if name == "recovered"] == [
        Recovered("inbox", True),
        Recovered("all", False),
        Recovered("room:lobby", False),
    ]


def test_an_old_logs_messages_do_not_move_the_new_logs_position() -> None:
    player = Player().to(State.OPEN)
    player.chat(42)
    player.did()
    lose(player)
    player.again(rooms={"lobby": ("q1", 5)}, recovered={"inbox": True, "all": True, "rooms": {"lobby": False}})
    player.did()

    assert player.handle() == [42]
    assert player.machine.position("room:lobby") == ("q1", 5)


# ------------------------------------------------------------------------------------------------------ rooms


def test_a_room_with_old_messages_is_joined_after_welcome() -> None:
    """`hello` cannot ask for `last`."""
    player = Player()
    id = player.machine.join("lobby", player.now, 20)
    player.machine.open(player.now)
    player.did()
    player.machine.opened(player.socket, player.now)
    player.welcome()
    player.did()

    assert player.written[-1] == {"type": "join", "room": "lobby", "last": 20, "id": id}
    player.hear("joined", room="lobby", position=["p9", 41], recovered=True, count=1, members=[], id=id)
    player.chat(40)
    player.chat(41)
    player.did()
    assert player.handle() == [40, 41]
    lose(player)
    player.again()
    player.did()
    assert player.resume["rooms"] == {"lobby": ["p9", 41]}


def test_a_room_joined_while_connecting_is_in_hello_and_answered_by_welcome() -> None:
    player = Player()
    player.machine.open(player.now)
    player.did()
    id = player.machine.join("news", player.now)
    player.machine.opened(player.socket, player.now)
    player.did()

    assert player.resume == {"rooms": {"news": None}}
    player.welcome(rooms={"news": ("n1", 7)})
    assert player.did() == ["settle x joined"]
    assert player.outcomes[id].position == ("n1", 7)


def test_a_room_joined_while_opening_is_joined_after_welcome() -> None:
    player = Player().to(State.OPENING)
    player.machine.join("news", player.now)
    player.welcome(rooms={"lobby": ("p9", 41)})

    assert player.did() == ["write join x news"]


def test_a_room_left_while_opening_is_left_where_welcome_names_it() -> None:
    player = Player().to(State.OPENING)
    player.machine.leave("lobby", player.now)
    player.welcome(rooms={"lobby": ("p9", 41)})

    assert player.did() == ["write leave x lobby"]
    player.chat(42)
    assert player.did() == []


def test_a_room_left_while_opening_is_left_where_welcome_does_not_name_it() -> None:
    player = Player().to(State.OPENING)
    player.machine.leave("lobby", player.now)
    player.welcome()

    assert player.did() == ["settle x left"]


def test_joining_again_asks_for_what_was_missed() -> None:
    """§3.1: `join` with the position it has; this is how a hole is repaired."""
    player = Player().to(State.OPEN)
    player.machine.join("lobby", player.now, 20)
    player.did()

    assert player.written[-1]["since"] == ["p9", 41]
    assert "last" not in player.written[-1]


def test_a_join_that_awaits_a_resume_fails_with_its_error() -> None:
    player = Player()
    id = player.machine.join("staff", player.now)
    player.machine.open(player.now)
    player.did()
    player.machine.opened(player.socket, player.now)
    player.welcome()
    player.hear("error", code="room_full", message="", room="staff")

    assert player.did()[-1:] == ["settle x refused:room_full"]
    assert isinstance(player.outcomes[id], Reject)
    assert player.machine.rooms == ()


def test_a_full_room_is_tried_again_after_a_reconnection() -> None:
    """Nobody left it, so it stays wanted; the wait grows as for a connection."""
    player = Player().to(State.OPEN)
    lose(player)
    player.again(rooms={}, recovered={"inbox": True, "all": True})
    player.did()
    player.hear("error", code="room_full", message="", room="lobby")

    assert player.silent(0.4) == []
    assert player.silent(0.1) == ["write join x lobby"]
    player.hear("error", id=player.written[-1]["id"], code="room_full", message="", room="lobby")
    assert player.silent(0.9) == []
    assert player.silent(0.1) == ["write join x lobby"]
    player.hear("error", id=player.written[-1]["id"], code="forbidden", message="", room="lobby")
    assert player.did() == ["tell left"]
    assert player.told[-1][1] == RoomLeft("lobby", "forbidden")
    assert player.machine.rooms == ()


def test_a_room_tried_again_goes_on_where_it_was() -> None:
    player = Player().to(State.OPEN)
    lose(player)
    player.again(rooms={}, recovered={"inbox": True, "all": True})
    player.hear("error", code="unavailable", message="", room="lobby", retry_after=2)
    player.did()
    player.hear("error", code="forbidden", message="", room="lobby")

    # Only the first says what became of the resume.
    assert player.did() == ["tell error"]
    assert player.silent(2) == ["write join x lobby"]
    join = player.written[-1]
    assert join["since"] == ["p9", 41]
    player.hear("joined", room="lobby", position=["p9", 43], recovered=True, count=1, id=join["id"])
    player.chat(42)
    assert player.did() == ["tell recovered", "deliver 42"]


def test_rooms_and_requests_are_bounded() -> None:
    """§2: 100 of each."""
    player = Player().to(State.WAITING)
    ids = [player.machine.join(f"room-{number}", player.now) for number in range(100)]
    player.did()

    assert isinstance(player.outcomes[ids[-1]], Unanswered)
    assert len(player.machine.rooms) == 100
    player = Player().to(State.OPEN)
    for _ in range(101):
        player.machine.request("users", {"ids": []}, player.now)
    assert player.did()[-1] == "settle x too_many"


def test_a_request_without_an_answer_times_out() -> None:
    player = Player().to(State.OPEN)
    player.machine.request("users", {"ids": []}, player.now)
    player.did()

    assert player.silent(9) == []
    assert player.silent(1) == ["settle x timeout"]


def test_a_client_that_is_not_opened_again_leaves_nobody_waiting() -> None:
    player = Player().to(State.WAITING)
    player.send(id="m1")
    player.machine.join("news", player.now)
    player.machine.close()
    player.machine.end()

    assert player.did() == ["settle x disconnected", "settle m1 dropped"]
