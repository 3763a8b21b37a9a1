"""The names of channels say what they are, and nothing that anyone calls a room or a user can blur that."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hubbub.types import ALL, Position, inbox_channel, room_channel, room_of, user_of

NAMES = st.text(min_size=1, max_size=128) | st.sampled_from(["all", "room:lobby", "user:alice", "user:", ":"])


@given(NAMES)
def test_a_rooms_channel_is_the_rooms_alone(name: str) -> None:
    channel = room_channel(name)

    assert (room_of(channel), user_of(channel)) == (name, None)
    assert channel != ALL


@given(NAMES)
def test_an_inbox_is_its_users_alone(name: str) -> None:
    channel = inbox_channel(name)

    assert (room_of(channel), user_of(channel)) == (None, name)
    assert channel != ALL


@given(NAMES, NAMES)
def test_no_room_is_anyones_inbox(room: str, user: str) -> None:
    assert room_channel(room) != inbox_channel(user)


def test_everyones_channel_is_neither() -> None:
    assert (room_of(ALL), user_of(ALL)) == (None, None)


def test_a_position_is_what_the_wire_says() -> None:
    """`[epoch, seq]`."""
    epoch, seq = Position("p9", 41)

    assert (epoch, seq) == ("p9", 41)
