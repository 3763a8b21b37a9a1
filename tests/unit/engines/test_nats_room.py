"""A room as the stream of places tells it: whoever applies the same entries knows the same."""

from __future__ import annotations

import random

import msgspec

from hubbub.engines.nats.room import Entry, Room, decode_entry, encode_entry
from hubbub.protocol.envelope import Member
from hubbub.types import Place


def comes(seq: int, user: str, session: str, *, node: str = "n1", capacity: int = 10, came: int = 0) -> Entry:
    return Entry("room:a", node, user, session, since=seq, came=came or seq, capacity=capacity, seq=seq)


def goes(seq: int, user: str, session: str, *, node: str = "n1") -> Entry:
    return Entry("room:a", node, user, session, ends=1, seq=seq)


def test_a_user_comes_with_the_first_session_and_goes_with_the_last() -> None:
    room = Room()
    entries = [comes(1, "alice", "s1"), comes(2, "alice", "s2", node="n2", came=1), goes(3, "alice", "s1")]
    news = [room.apply(entry) for entry in [*entries, goes(4, "alice", "s2", node="n2")]]

    assert news == [True, False, False, True]
    assert len(room) == 0


def test_a_full_room_takes_nobody_new() -> None:
    """And what did not count changes nothing when it is taken back."""
    room = Room()
    entries = [
        comes(1, "alice", "s1", capacity=1),
        comes(2, "bob", "s2", capacity=1),
        comes(3, "alice", "s3", capacity=1),
    ]
    news = [room.apply(entry) for entry in [*entries, goes(4, "bob", "s2")]]

    assert news == [True, None, False, False]
    assert [member.user for member in room.members(10)] == ["alice"]


def test_what_is_known_already_changes_nothing() -> None:
    """An entry may be read, and be heard afterwards."""
    room, _ = Room.read([comes(5, "alice", "s1"), goes(6, "bob", "s2")], lambda node: 0)
    late = [room.apply(comes(4, "bob", "s2")), room.apply(comes(5, "alice", "s1")), room.apply(comes(7, "carol", "s3"))]

    assert late == [False, False, True]
    assert [member.user for member in room.members(10)] == ["alice", "carol"]


def test_who_came_first_stays_first_when_that_device_is_gone() -> None:
    """With the node that died; each entry says since when its user was there."""
    room = Room()
    for entry in (comes(1, "alice", "s1", node="dead"), comes(2, "bob", "s2"), comes(3, "alice", "s3", came=1)):
        room.apply(entry)
    room.drop("dead", 10)

    assert room.members(10) == [Member("alice", 1, 1), Member("bob", 1, 2)]
    assert room.places("alice") == [Place("s3", "n1", 3)]


def test_what_a_node_enters_after_its_death_counts() -> None:
    room = Room()
    room.apply(comes(1, "alice", "s1"))
    room.apply(comes(9, "bob", "s2"))
    room.drop("n1", 5)

    assert [member.user for member in room.members(10)] == ["bob"]


def test_who_reads_knows_what_those_know_who_heard() -> None:
    """Wherever in a random life of a room somebody begins to watch it, with what the stream still has by then."""
    chance = random.Random(7)
    for _ in range(50):
        heard, stream = Room(), dict[tuple[str, str], Entry]()
        reads: list[Room] = []
        inside: set[tuple[str, str]] = set()
        for seq in range(1, 60):
            user, session = chance.choice("abcd"), f"s{chance.randrange(3)}"
            if (user, session) in inside:
                entry = goes(seq, user, session)
                inside.discard((user, session))
            else:
                entry = comes(seq, user, session, capacity=100, came=heard.came(user, seq))
                inside.add((user, session))
            news = {heard.apply(entry), *(read.apply(entry) for read in reads)}
            # The stream keeps the newest of each.
            stream[user, session] = entry
            if chance.random() < 0.2:
                read, _ = Room.read(list(stream.values()), lambda node: 0)
                reads.append(read)

            assert len(news) == 1
        for read in reads:
            assert sorted(read.members(10), key=repr) == sorted(heard.members(10), key=repr)


def test_an_entry_is_read_as_it_was_written() -> None:
    """Where it stands is the stream's to say."""
    entry = comes(3, "é", "s1")

    assert decode_entry(encode_entry(entry), 8) == msgspec.structs.replace(entry, seq=8)
