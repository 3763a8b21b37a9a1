"""Members are counted by user, the grace ends what nobody took over, and last-seen times are kept in bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.core.presence import Grace, LastSeen, Members
from hubbub.core.wheel import Wheel
from hubbub.errors import RoomFull
from hubbub.protocol.envelope import Member


def test_it_tells_when_a_user_went() -> None:
    seen = LastSeen()
    seen.note("alice", 1000)

    assert seen.get("alice") == 1000


def test_it_knows_nothing_of_strangers() -> None:
    assert LastSeen().get("mallory") is None


def test_the_last_time_counts() -> None:
    seen = LastSeen()
    seen.note("alice", 1000)
    seen.note("alice", 3000)

    assert seen.get("alice") == 3000
    assert len(seen) == 1


def test_the_longest_gone_is_forgotten_first() -> None:
    seen = LastSeen(size=2)
    for now, user in enumerate(["alice", "bob", "alice", "carol"]):
        seen.note(user, now)

    assert [seen.get(user) for user in ("alice", "bob", "carol")] == [2, None, 3]
    assert len(seen) == 2


class TestMembers:
    """The contract of every engine is tested elsewhere; this is the table beneath those of one process."""

    def test_a_refused_user_leaves_no_trace(self) -> None:
        """Also where the room would have begun with that user."""
        members = Members()
        with pytest.raises(RoomFull):
            members.enter("room:lobby", "alice", "s1", 1, 0)

        assert len(members) == 0
        assert members.of("room:lobby", 10) == ([], 0)

    def test_a_room_that_everybody_left_is_gone(self) -> None:
        members = Members()
        members.enter("room:lobby", "alice", "s1", 1, 10)
        members.enter("room:den", "alice", "s1", 1, 10)
        members.leave("room:lobby", "alice", "s1")

        assert len(members) == 1

    @given(
        st.lists(
            st.tuples(st.booleans(), st.sampled_from("ab"), st.sampled_from("xyz"), st.integers(0, 2)), max_size=40
        )
    )
    def test_it_is_a_list_of_who_came_and_did_not_leave(self, steps: list[tuple[bool, str, str, int]]) -> None:
        """Against a plain list: each (room, user, session) once, users in the order of coming."""
        members, model = Members(), list[tuple[str, str, str, int]]()
        for now, (enters, channel, user, number) in enumerate(steps):
            session = f"{user}{number}"
            mine = [entry for entry in model if entry[:2] == (channel, user)]
            users = {entry[1] for entry in model if entry[0] == channel}
            if not enters:
                gone = [entry for entry in mine if entry[2] == session]
                model = [entry for entry in model if entry not in gone]

                assert members.leave(channel, user, session) == bool(gone and len(mine) == 1)
            elif not mine and len(users) >= 2:
                with pytest.raises(RoomFull):
                    members.enter(channel, user, session, now, 2)
            else:
                assert members.enter(channel, user, session, now, 2) == (not mine)
                if all(entry[2] != session for entry in mine):
                    model.append((channel, user, session, mine[0][3] if mine else now))
        for channel in "ab":
            since: dict[str, list[int]] = {}
            for room, user, _, came in model:
                if room == channel:
                    since.setdefault(user, []).append(came)
            expected = sorted((Member(user, len(times), times[0]) for user, times in since.items()), key=_since)

            assert members.of(channel, 10) == (expected, len(expected))
        assert len(members) == len({entry[0] for entry in model})


def _since(member: Member) -> int:
    return member.since


class TestGrace:
    """What is kept ends once: when its time is over, or at once where there is no place for it."""

    def test_it_ends_when_its_time_is_over(self) -> None:
        wheel, ended = Wheel(0.0), list[str]()
        grace = Grace(wheel, 10.0)
        grace.keep("room:lobby", "alice", "s1", lambda: ended.append("s1"))
        turn(wheel, 9.9)

        assert (ended, grace.kept("room:lobby", "alice")) == ([], "s1")
        turn(wheel, 10.6)
        assert (ended, grace.kept("room:lobby", "alice"), len(grace)) == (["s1"], None, 0)

    def test_what_is_taken_over_does_not_end(self) -> None:
        wheel, ended = Wheel(0.0), list[str]()
        grace = Grace(wheel, 10.0)
        grace.keep("room:lobby", "alice", "s1", lambda: ended.append("s1"))
        grace.release("room:lobby", "alice", "s1")
        grace.release("room:lobby", "alice", "s1")
        turn(wheel, 100.0)

        assert (ended, len(grace)) == ([], 0)

    def test_a_later_one_of_the_same_ends_the_earlier(self) -> None:
        """And whoever took the earlier over does not take the later."""
        wheel, ended = Wheel(0.0), list[str]()
        grace = Grace(wheel, 10.0)
        grace.keep("room:lobby", "alice", "s1", lambda: ended.append("s1"))
        grace.keep("room:lobby", "alice", "s2", lambda: ended.append("s2"))
        grace.keep("room:den", "alice", "s2", lambda: ended.append("den"))
        grace.release("room:lobby", "alice", "s1")

        assert (ended, grace.kept("room:lobby", "alice"), len(grace)) == (["s1"], "s2", 2)
        turn(wheel, 100.0)
        assert ended == ["s1", "s2", "den"]

    @pytest.mark.parametrize(("seconds", "size"), [(0.0, 10), (10.0, 0)], ids=["no grace", "no place"])
    def test_where_nothing_is_kept_it_ends_at_once(self, seconds: float, size: int) -> None:
        wheel, ended = Wheel(0.0), list[str]()
        grace = Grace(wheel, seconds, size)
        grace.keep("room:lobby", "alice", "s1", lambda: ended.append("s1"))

        assert (ended, len(grace), len(wheel)) == (["s1"], 0, 0)


def turn(wheel: Wheel, now: float) -> None:
    for callback in wheel.advance(now):
        callback()
