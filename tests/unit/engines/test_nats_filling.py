"""What a channel in NATS makes of its log, where that is another one than it was."""

from __future__ import annotations

from hubbub.engines.nats.live import Live
from hubbub.engines.nats.notes import Note
from hubbub.engines.nats.reading import Ends, Found
from hubbub.engines.nats.streams import Stream
from hubbub.engines.shared.live import Ears
from hubbub.types import Publication


def a_note(seq: int, second: int) -> Note:
    stamp = f"2026-01-01T00:00:{second:02}Z".encode()
    return Note(seq, 0, stamp, "run", seq, None, Publication("chat", "alice", seq=seq))


def test_what_was_told_is_not_told_again() -> None:
    """An older copy of the log: by the time at which each was stored, for numbers are given a second time."""
    told: list[object] = []
    ears = Ears(lambda _, publication, __: told.append(publication.seq), told.append, lambda live: None)
    live = Live("room:a", Stream("rooms", "hubbub-rooms", {}), "other", ears)
    live.open(Ends("old", 0, 0), 0.0)
    for seq in (1, 2, 3):
        live.heard(a_note(seq, seq))
    live.begin_anew("new")
    live.filled(Found("new", [a_note(1, 1), a_note(2, 9)], complete=True, more=False))

    assert told == [1, 2, 3, "room:a", 2]


def test_who_has_begun_in_the_new_log_is_told_where_it_has_a_hole() -> None:
    """It may have dropped something since."""
    told: list[object] = []
    ears = Ears(lambda _, publication, __: told.append(publication.seq), told.append, lambda live: None)
    live = Live("room:a", Stream("rooms", "hubbub-rooms", {}), "other", ears)
    live.open(Ends("old", 0, 0), 0.0)
    live.begin_anew("new")
    live.filled(Found("new", [a_note(7, 7)], complete=False, more=False))

    assert told == ["room:a", "room:a", 7]
