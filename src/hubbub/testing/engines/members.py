"""What every engine promises about users: who is in a room, and how far an inbox has been read."""

from __future__ import annotations

import asyncio

from msgspec import Raw

from hubbub.engines.base import Engine
from hubbub.errors import RoomFull
from hubbub.protocol import json
from hubbub.protocol.envelope import Member
from hubbub.testing.engines.ear import DEN, LOBBY, Ear, contents, raises, say
from hubbub.testing.engines.engine import OneEngine, case
from hubbub.types import Place, Publication, inbox_channel

__all__ = ["Members"]


class Members(OneEngine):
    """Rooms, cursors and receipts."""

    # -------------------------------------------------------------------------------------------- rooms

    @case()
    async def test_a_user_comes_with_the_first_session_and_goes_with_the_last(self, engine: Engine, ear: Ear) -> None:
        """Entering and leaving twice is harmless, and a second device is no news."""
        news = [
            await engine.enter(LOBBY, "alice", "s1", 1, 10),
            await engine.enter(LOBBY, "alice", "s1", 2, 10),
            await engine.enter(LOBBY, "alice", "s2", 3, 10),
            await engine.leave(LOBBY, "alice", "s1"),
            await engine.leave(LOBBY, "alice", "s1"),
            await engine.leave(LOBBY, "alice", "s2"),
            await engine.leave(LOBBY, "alice", "s2"),
        ]

        assert news == [True, False, False, False, False, True, False]
        assert await engine.members(LOBBY, 10) == ([], 0)

    @case()
    async def test_members_are_listed_in_the_order_of_coming(self, engine: Engine, ear: Ear) -> None:
        """With how many sessions and since when; as many as asked for, and how many there are."""
        for user, session, now in (("carol", "s1", 1), ("alice", "s2", 2), ("bob", "s3", 3), ("carol", "s4", 4)):
            await engine.enter(LOBBY, user, session, now, 10)
        first, count = await engine.members(LOBBY, 2)
        everyone, _ = await engine.members(LOBBY, 10)

        assert first == [Member("carol", 2, 1), Member("alice", 1, 2)]
        assert count == 3
        assert [member.user for member in everyone] == ["carol", "alice", "bob"]

    @case()
    async def test_who_comes_back_comes_last(self, engine: Engine, ear: Ear) -> None:
        """The time in the room begins anew, too."""
        await engine.enter(LOBBY, "alice", "s1", 1, 10)
        await engine.enter(LOBBY, "bob", "s2", 2, 10)
        await engine.leave(LOBBY, "alice", "s1")
        await engine.enter(LOBBY, "alice", "s1", 3, 10)
        members, _ = await engine.members(LOBBY, 10)

        assert members == [Member("bob", 1, 2), Member("alice", 1, 3)]

    @case()
    async def test_rooms_are_apart(self, engine: Engine, ear: Ear) -> None:
        """Being in one says nothing of another, and leaving where one is not is harmless."""
        await engine.enter(LOBBY, "alice", "s1", 1, 10)
        left = await engine.leave(DEN, "alice", "s1")

        assert left is False
        assert await engine.members(DEN, 10) == ([], 0)
        assert await engine.members(LOBBY, 10) == ([Member("alice", 1, 1)], 1)

    @case()
    async def test_a_full_room_takes_nobody_new(self, engine: Engine, ear: Ear) -> None:
        """Its capacity is in users: who is in it may come with another device. A place left is free."""
        await engine.enter(LOBBY, "alice", "s1", 1, 1)
        await raises(RoomFull, engine.enter(LOBBY, "bob", "s2", 2, 1))
        second_device = await engine.enter(LOBBY, "alice", "s3", 3, 1)
        _, while_full = await engine.members(LOBBY, 10)
        await engine.leave(LOBBY, "alice", "s1")
        await engine.leave(LOBBY, "alice", "s3")
        came = await engine.enter(LOBBY, "bob", "s2", 4, 1)

        assert (second_device, while_full, came) == (False, 1, True)

    @case()
    async def test_a_crowd_at_the_door_fills_the_room_exactly(self, engine: Engine, ear: Ear) -> None:
        """Counting and entering are one step: of fifty at once as many get in as there are places."""
        crowd = [engine.enter(LOBBY, f"user-{number}", f"s{number}", number, 10) for number in range(50)]
        outcomes = await asyncio.gather(*crowd, return_exceptions=True)
        _, count = await engine.members(LOBBY, 100)

        assert sum(1 for outcome in outcomes if outcome is True) == count == 10
        assert sum(1 for outcome in outcomes if isinstance(outcome, RoomFull)) == 40

    @case()
    async def test_each_session_of_a_user_has_a_place(self, engine: Engine, ear: Ear) -> None:
        """With the node it is on and since when, in the order of coming; others have theirs."""
        await engine.enter(LOBBY, "alice", "s1", 1, 10)
        await engine.enter(LOBBY, "bob", "s2", 2, 10)
        await engine.enter(LOBBY, "alice", "s3", 3, 10)
        await engine.enter(DEN, "alice", "s4", 4, 10)
        await engine.leave(LOBBY, "bob", "s2")

        assert await engine.places(LOBBY, "alice") == [Place("s1", "node.1", 1), Place("s3", "node.1", 3)]
        assert await engine.places(LOBBY, "bob") == []

    @case()
    async def test_it_is_known_when_a_user_was_seen_last(self, engine: Engine, ear: Ear) -> None:
        """From the last session that left the inbox: neither from one before it, nor from a room."""
        inbox = inbox_channel("alice")
        known = [await engine.last_seen("alice")]
        for session in ("s1", "s2"):
            await engine.enter(inbox, "alice", session, 1, 10)
        await engine.enter(LOBBY, "alice", "s1", 1, 10)
        for channel, session, seen in ((LOBBY, "s1", 5), (inbox, "s1", 6), (inbox, "s2", 7), (inbox, "s2", 8)):
            await engine.leave(channel, "alice", session, seen)
            known.append(await engine.last_seen("alice"))

        assert known == [None, None, None, 7, 7]
        assert await engine.last_seen("bob") is None

    # ----------------------------------------------------------------------------------------- cursors

    @case()
    async def test_a_cursor_only_moves_forward(self, engine: Engine, ear: Ear) -> None:
        """A smaller `seq` changes nothing, and each user has one; before the first time there is none."""
        await say(engine, *(str(number) for number in range(10)), channel=inbox_channel("alice"))
        stood = [await engine.cursor("alice")]
        for seq in (3, 7, 5, 7):
            await engine.set_cursor("alice", seq)
            stood.append(await engine.cursor("alice"))

        assert stood == [None, 3, 7, 7, 7]
        assert await engine.cursor("bob") is None

    @case()
    async def test_a_cursor_stays_within_the_inbox(self, engine: Engine, ear: Ear) -> None:
        """What has not been sent cannot be acknowledged: None says so, and nothing is moved."""
        nowhere = await engine.set_cursor("alice", 1)
        (place,) = await say(engine, "one", channel=inbox_channel("alice"))
        beyond = await engine.set_cursor("alice", (place.seq or 0) + 1)
        stood = await engine.cursor("alice")
        at_the_end = await engine.set_cursor("alice", place.seq or 0)

        assert (nowhere, beyond, stood, at_the_end) == (None, None, None, [])

    @case()
    async def test_a_receipt_is_due_when_the_cursor_passes(self, engine: Engine, ear: Ear) -> None:
        """Moving it returns what wanted to know: the oldest first, as it was published, and nothing else."""
        seqs = await _ask_for_receipts(engine, "one", None, "three", "four")
        passed = [await engine.set_cursor("alice", seqs[place]) or [] for place in (1, 0, 3, 3)]

        assert [contents(publications) for publications in passed] == [["one"], [], ["three", "four"], []]
        assert passed[0][0].seq == seqs[0]
        assert (passed[0][0].from_, passed[0][0].id, passed[0][0].to) == ("bob", "one", "alice")

    @case()
    async def test_a_receipt_is_due_once(self, engine: Engine, ear: Ear) -> None:
        """However many devices acknowledge at the same moment, and however far each of them is."""
        texts = [str(number) for number in range(20)]
        seqs = await _ask_for_receipts(engine, *texts)
        places = [7, 3, 19, 11, 19, 5, 16]
        passed = await asyncio.gather(*(engine.set_cursor("alice", seqs[place]) for place in places))
        due = [text for publications in passed for text in contents(publications or [])]

        assert sorted(due) == sorted(texts)
        assert await engine.cursor("alice") == seqs[19]

    @case(keep=3)
    async def test_no_receipt_is_due_for_what_was_dropped(self, engine: Engine, ear: Ear) -> None:
        """Nobody can have read it."""
        texts = [str(number) for number in range(8)]
        seqs = await _ask_for_receipts(engine, *texts)
        passed = await engine.set_cursor("alice", seqs[-1]) or []

        assert contents(passed) == texts[-3:]


async def _ask_for_receipts(engine: Engine, *ids: str | None) -> list[int]:
    """Publish to alice's inbox, with the id as the text; without an id no receipt is asked for. Returns the seqs."""
    seqs = []
    for id in ids:
        content = Raw(json.encode(id))
        asked = Publication("chat", "bob", to="alice", content=content, id=id, receipt=id is not None)
        accepted = await engine.publish(inbox_channel("alice"), asked)
        seqs.append(accepted.seq or 0)
    return seqs
