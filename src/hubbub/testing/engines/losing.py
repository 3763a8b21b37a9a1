"""What every engine promises that can lose what it has while it runs: whoever listens is told, and it goes on."""

from __future__ import annotations

import asyncio

from hubbub.engines.base import Accepted, Engine
from hubbub.errors import Reject
from hubbub.testing.engines.ear import DEN, LOBBY, Ear, a_publication, contents, say
from hubbub.testing.engines.engine import OneEngine, case

__all__ = ["Losing"]


class Losing(OneEngine):
    """Logs that are lost."""

    @case()
    async def test_who_listens_is_told_of_a_loss(self, engine: Engine, ear: Ear) -> None:
        """Of each channel that it listens to and of no other, before anything that comes after it."""
        await engine.listen([LOBBY])
        old = (await say(engine, "1", "2", "3"))[-1]
        await say(engine, "1", channel=DEN)
        await self.lose(engine)
        new = await _again(engine, "new")
        await say(engine, "newer")
        await ear.hear("newer")

        assert ear.texts() == ["1", "2", "3", "new", "newer"]
        assert set(ear.lost_channels) == {LOBBY}
        assert max(ear.lost_after) == 3
        assert new.epoch != old.epoch

    @case()
    async def test_what_is_lost_is_neither_there_nor_known(self, engine: Engine, ear: Ear) -> None:
        """A position in it is good for nothing, and a message that was in it can be sent again."""
        old = await engine.publish(LOBBY, a_publication("old", id="a1"))
        await self.lose(engine)
        new = await _again(engine, "old", id="a1")
        page = await engine.after(LOBBY, 0, 10)

        assert not new.duplicate and new.epoch != old.epoch
        assert page.position.epoch == new.epoch
        assert contents(page.publications) == ["old"]


async def _again(engine: Engine, text: str, id: str | None = None) -> Accepted:
    """Publish `text` as soon as the engine takes it."""
    while True:
        try:
            return await engine.publish(LOBBY, a_publication(text, id=id))
        except Reject:
            await asyncio.sleep(0.02)
