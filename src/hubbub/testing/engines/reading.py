"""What every engine promises about the past: whole pages, and never a hole that is not said."""

from __future__ import annotations

from typing import Final

from hubbub.engines.base import Engine
from hubbub.protocol import json
from hubbub.testing.engines.ear import LOBBY, Ear, a_publication, contents, say
from hubbub.testing.engines.engine import OneEngine, case
from hubbub.types import Position

__all__ = ["Reading"]

# Longer than anything is kept.
_AGES: Final = 60 * 86_400.0


class Reading(OneEngine):
    """Positions and pages."""

    # ------------------------------------------------------------------------------------------- reading

    @case()
    async def test_a_channel_that_nobody_wrote_to_is_at_0(self, engine: Engine, ear: Ear) -> None:
        """It is whole, with nothing in it; a position beyond that is of another log."""
        await engine.listen([LOBBY])
        position = await engine.position(LOBBY)
        page = await engine.after(LOBBY, 0, 10)
        before = await engine.before(LOBBY, None, 10)
        beyond = await engine.after(LOBBY, 5, 10)
        (first,) = await say(engine, "one")

        assert position.seq == 0
        assert (page.publications, page.position, page.complete, page.more) == ([], position, True, False)
        assert (before.publications, before.more) == ([], False)
        assert not beyond.complete
        assert first.epoch == position.epoch

    @case()
    async def test_pages_forward_make_the_whole_log(self, engine: Engine, ear: Ear) -> None:
        """Oldest first, each after the last one's end, whole; `more` says that another follows."""
        texts = [str(number) for number in range(10)]
        accepted = await say(engine, *texts)
        end = Position(accepted[-1].epoch, accepted[-1].seq or 0)
        seq, pages = 0, list[list[str]]()
        for more in (True, True, True, False):
            page = await engine.after(LOBBY, seq, 3)
            pages.append(contents(page.publications))
            seq = page.publications[-1].seq or 0

            assert (page.position, page.complete, page.more) == (end, True, more)

        assert pages == [texts[0:3], texts[3:6], texts[6:9], texts[9:]]
        assert await _after(engine, end.seq) == ([], True, False)

    @case()
    async def test_a_page_that_fits_exactly_has_no_more(self, engine: Engine, ear: Ear) -> None:
        """`more` is about what is there, not about a full page."""
        await say(engine, "one", "two")

        assert await _after(engine, 0, limit=2) == (["one", "two"], True, False)
        assert await _after(engine, 0, limit=1) == (["one"], True, True)

    @case()
    async def test_pages_backward_make_the_whole_log(self, engine: Engine, ear: Ear) -> None:
        """The newest of what precedes, oldest first; without a place, the newest of all."""
        texts = [str(number) for number in range(10)]
        await say(engine, *texts)
        before: int | None = None
        pages: list[list[str]] = []
        for more in (True, True, True, False):
            page = await engine.before(LOBBY, before, 3)
            pages.append(contents(page.publications))
            before = page.publications[0].seq

            assert page.more is more

        assert pages == [texts[7:], texts[4:7], texts[1:4], texts[:1]]
        assert (await engine.before(LOBBY, before, 3)).publications == []

    @case()
    async def test_a_place_beyond_the_end_is_not_complete(self, engine: Engine, ear: Ear) -> None:
        """Whoever has it has seen another log."""
        (last,) = await say(engine, "one")

        assert await _after(engine, (last.seq or 0) + 1) == ([], False, False)

    @case()
    async def test_what_is_read_has_its_place(self, engine: Engine, ear: Ear) -> None:
        """A publication from the log is the one that was told, field by field."""
        await engine.listen([LOBBY])
        await engine.publish(LOBBY, a_publication("one", id="a1"))
        await say(engine, "two")
        await ear.hear("two")
        page = await engine.after(LOBBY, 0, 10)

        assert [json.encode(found) for found in page.publications] == [
            json.encode(told.publication) for told in ear.told
        ]

    @case(keep=3)
    async def test_what_was_dropped_is_never_passed_over_in_silence(self, engine: Engine, ear: Ear) -> None:
        """`complete` is true from the newest dropped one on, and false for every place before it."""
        accepted = await say(engine, *(str(number) for number in range(8)))
        for place, found in enumerate(accepted):
            texts, complete, more = await _after(engine, found.seq or 0)

            assert complete is (place >= 4)
            assert texts == [str(number) for number in range(max(5, place + 1), 8)]
            assert not more

        assert (await _after(engine, 0))[1] is False

    @case(keep=3)
    async def test_seqs_go_on_after_what_was_dropped(self, engine: Engine, ear: Ear) -> None:
        """Retention forgets messages, not how many there were."""
        accepted = await say(engine, *(str(number) for number in range(8)))
        seqs = [place.seq or 0 for place in accepted]
        page = await engine.before(LOBBY, None, 10)

        assert seqs == sorted(set(seqs))
        assert [publication.seq for publication in page.publications] == seqs[-3:]
        assert (await engine.position(LOBBY)).seq == seqs[-1]
        assert not page.more

    @case()
    async def test_an_old_position_is_never_taken_for_a_new_one(self, engine: Engine, ear: Ear) -> None:
        """After ages a log may be gone; if its channel begins anew, then in another epoch."""
        (old,) = await say(engine, "old")
        await self.time_passes(engine, _AGES)
        (new,) = await say(engine, "new")

        assert new.epoch != old.epoch or (new.seq or 0) > (old.seq or 0)

    @case()
    async def test_who_listens_keeps_its_position(self, engine: Engine, ear: Ear) -> None:
        """A log that somebody listens to is not begun anew, however long nothing is written to it."""
        await engine.listen([LOBBY])
        (old,) = await say(engine, "old")
        await self.time_passes(engine, _AGES)
        (new,) = await say(engine, "new")

        assert new.epoch == old.epoch
        assert (new.seq or 0) > (old.seq or 0)


async def _after(engine: Engine, seq: int, limit: int = 100) -> tuple[list[str], bool, bool]:
    page = await engine.after(LOBBY, seq, limit)
    return contents(page.publications), page.complete, page.more
