"""Patterns are compared exactly, so that of several options the right one counts, and a contradiction is found."""

from __future__ import annotations

import re
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.core.log import HistoryLimits, Retention
from hubbub.core.outbox import Overflow
from hubbub.core.rooms import RoomOptions, RoomPatterns, common, matches, room_options
from hubbub.errors import ConfigError

# `x` occurs in no pattern: it stands for all characters that a pattern does not name.
NAMES = ["".join(letters) for length in range(1, 7) for letters in product("abx", repeat=length)]

patterns = st.text("ab*", min_size=1, max_size=4).filter(lambda pattern: "**" not in pattern)


def matched(pattern: str) -> set[str]:
    """By brute force: the names that a pattern matches, as regular expressions see it."""
    expression = re.compile(".*".join(re.escape(part) for part in pattern.split("*")), re.DOTALL)
    return {name for name in NAMES if expression.fullmatch(name)}


class TestPatterns:
    """Against all short names: six characters are enough to tell patterns of four from each other."""

    @given(patterns)
    def test_a_pattern_matches_what_its_text_says(self, pattern: str) -> None:
        assert {name for name in NAMES if matches(pattern, name)} == matched(pattern)

    @given(patterns, patterns)
    def test_a_pattern_contains_another_exactly_where_all_of_it_matches(self, outer: str, inner: str) -> None:
        assert matches(outer, inner) == (matched(inner) <= matched(outer))

    @given(patterns, patterns)
    def test_what_two_patterns_have_in_common_is_found(self, one: str, other: str) -> None:
        """The shortest of it, or nothing where there is nothing."""
        both = matched(one) & matched(other)
        example = common(one, other)
        if example is None:
            assert both == set()
        else:
            assert example in both
            assert len(example) == min(len(name) for name in both)

    @pytest.mark.parametrize(
        ("pattern", "name", "expected"),
        [
            ("lobby", "lobby", True),
            ("lobby", "lobby2", False),
            ("game:*", "game:", True),
            ("game:*", "Game:1", False),
            ("*", "anything\u2028 at all", True),
            ("a.c", "abc", False),
            ("[ab]?", "a", False),
            ("*:vip:*", "eu:vip:1", True),
            ("a*a", "a", False),
            ("game:*", "game:*", True),
        ],
    )
    def test_only_the_star_is_special(self, pattern: str, name: str, expected: bool) -> None:
        assert matches(pattern, name) is expected

    def test_no_room_has_a_name_so_long(self) -> None:
        """Patterns that meet only beyond the length of a name do not meet."""
        assert common("a" * 100 + "*", "*" + "b" * 28) == "a" * 100 + "b" * 28
        assert common("a" * 100 + "*", "*" + "b" * 29) is None


class TestResolving:
    """Each option by itself: the more specific pattern counts."""

    def test_the_more_specific_pattern_counts_for_each_option(self) -> None:
        """In whatever order they were written."""
        sources = {
            "*": RoomOptions(capacity=100, history_size=5),
            "game:chess:1": RoomOptions(volatile=True),
            "game:*": RoomOptions(capacity=10, presence_events=True),
            "game:chess:*": RoomOptions(capacity=2, presence_events=False),
        }
        for order in (list(sources), list(reversed(sources))):
            found = RoomPatterns({pattern: sources[pattern] for pattern in order})

            assert found.of("lobby") == RoomOptions(capacity=100, history_size=5)
            assert found.of("game:go") == RoomOptions(capacity=10, history_size=5, presence_events=True)
            assert found.of("game:chess:2") == RoomOptions(capacity=2, history_size=5, presence_events=False)
            assert found.of("game:chess:1") == RoomOptions(
                capacity=2, history_size=5, presence_events=False, volatile=True
            )

    def test_what_no_pattern_says_is_left_open(self) -> None:
        assert RoomPatterns().of("lobby") == RoomOptions()
        assert RoomPatterns({"game:*": RoomOptions(capacity=2)}).of("lobby") == RoomOptions()

    @given(
        st.dictionaries(
            patterns, st.builds(RoomOptions, capacity=st.none() | st.integers(1, 3), volatile=st.booleans())
        ),
        st.text("abx", min_size=1, max_size=6),
    )
    def test_against_brute_force(self, source: dict[str, RoomOptions], room: str) -> None:
        """A contradiction is refused; without one, no pattern that is more specific says something else."""
        conflict = any(
            matched(one) & matched(other)
            and not matched(one) <= matched(other)
            and not matched(other) <= matched(one)
            and (
                source[one].volatile != source[other].volatile
                or len({source[one].capacity, source[other].capacity} - {None}) == 2
            )
            for one in source
            for other in source
        )
        try:
            found = RoomPatterns(source).of(room)
        except ConfigError:
            assert conflict
            return

        assert not conflict
        setting = [pattern for pattern in source if room in matched(pattern) and source[pattern].capacity is not None]
        finest = [pattern for pattern in setting if not any(matched(other) < matched(pattern) for other in setting)]
        assert {source[pattern].capacity for pattern in finest} == ({found.capacity} - {None})

    def test_what_was_found_is_remembered_in_bounds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("hubbub.core.rooms._MOST_REMEMBERED", 3)
        found = RoomPatterns({"game:*": RoomOptions(capacity=2)})
        rooms = [f"game:{number}" for number in range(10)]

        assert {found.of(room).capacity for room in rooms * 2} == {2}
        assert found.of("game:9") is found.of("game:9")
        assert found._remembered.cache_info().currsize == 3

    def test_it_is_known_whether_a_message_need_ask(self) -> None:
        assert not RoomPatterns({"*": RoomOptions(volatile=False)}).some_volatile
        assert RoomPatterns({"*": RoomOptions(), "cursor:*": RoomOptions(volatile=True)}).some_volatile


class TestRetention:
    """What a room keeps is the pattern's, and else the server's; patterns are about rooms alone."""

    def test_each_channel_keeps_its_own(self) -> None:
        limits = HistoryLimits(history_size=10, history_age=60, inbox_size=20, inbox_age=90)
        found = RoomPatterns(
            {
                "*": RoomOptions(history_age=5),
                "log:*": RoomOptions(history_size=0),
                "chat:*": RoomOptions(history_size=7),
            }
        )

        assert found.retention("room:chat:1", limits) == Retention(size=7, age=5)
        assert found.retention("room:log:1", limits) == Retention(size=0, age=5)
        assert found.retention("room:lobby", limits) == Retention(size=10, age=5)
        assert found.retention("all", limits) == Retention(size=10, age=60)
        assert found.retention("user:chat:1", limits) == Retention(size=20, age=90)


class TestContradictions:
    """What nobody could decide is refused, in a sentence with an example."""

    def test_two_patterns_that_cross(self) -> None:
        with pytest.raises(ConfigError) as caught:
            RoomPatterns({"game:*": RoomOptions(capacity=2, volatile=True), "*:vip": RoomOptions(capacity=9)})

        assert str(caught.value).startswith(
            "the room patterns 'game:*' and '*:vip' both match 'game:vip', and set capacity to 2 and to 9"
        )

    @pytest.mark.parametrize(
        "other",
        [
            {"*:vip": RoomOptions(capacity=2)},
            {"*:vip": RoomOptions(overflow=Overflow.LATEST)},
            {"team:*": RoomOptions(capacity=9)},
            {"*": RoomOptions(capacity=9)},
            {"game:vip": RoomOptions(capacity=9)},
        ],
        ids=["agree", "say different things", "do not meet", "less specific", "more specific"],
    )
    def test_patterns_that_do_not_contradict(self, other: dict[str, RoomOptions]) -> None:
        RoomPatterns({"game:*": RoomOptions(capacity=2)}, other)

    def test_one_pattern_set_twice(self) -> None:
        """Once in the configuration and once in code, say: what one says and the other does not is added."""
        found = RoomPatterns({"a*": RoomOptions(capacity=2)}, {"a*": RoomOptions(capacity=2, volatile=True)})
        with pytest.raises(ConfigError, match=r"volatile of rooms 'a\*' is set twice, to true and to false"):
            RoomPatterns({"a*": RoomOptions(volatile=True)}, {"a*": RoomOptions(volatile=False)})

        assert found.of("abc") == RoomOptions(capacity=2, volatile=True)


class TestReading:
    """What cannot be is said with the pattern, the option and what was meant."""

    def test_values_become_what_they_are(self) -> None:
        """Also where they come as text."""
        options = room_options("a*", {"history_size": "10", "overflow": "latest", "volatile": "true", "capacity": None})

        assert options == RoomOptions(history_size=10, overflow=Overflow.LATEST, volatile=True)

    @pytest.mark.parametrize(
        ("pattern", "values", "said"),
        [
            ("a*", {"capasity": 1}, "rooms 'a*' have no option 'capasity': did you mean capacity?"),
            ("a*", {"zzz": 1}, "there are history_size, history_age, capacity, presence_events, overflow, volatile"),
            ("a*", {"capacity": 0}, "capacity of rooms 'a*' cannot be 0: expected `int` >= 1 (users in the room)"),
            ("a*", {"history_age": 0}, "history_age of rooms 'a*' cannot be 0: expected `float` > 0.0"),
            ("a*", {"overflow": "late"}, "disconnect, drop_oldest, drop_newest, latest"),
            ("a*", {"presence_events": "often"}, "presence_events of rooms 'a*' cannot be 'often': expected `bool`"),
            ("a**b", {}, "the room pattern 'a**b' has two stars in a row"),
            ("", {}, "a room pattern is 1 to 128 characters"),
            ("a" * 129, {}, "a room pattern is 1 to 128 characters"),
            ("a\n", {}, "none of them a control character"),
        ],
    )
    def test_a_wrong_one(self, pattern: str, values: dict[str, object], said: str) -> None:
        with pytest.raises(ConfigError) as caught:
            room_options(pattern, values)

        assert said in str(caught.value)
