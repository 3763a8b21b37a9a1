"""The contract tells a good engine from a bad one: each promise that is broken fails the test of that promise."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from hubbub.core.log import HistoryLimits, Page
from hubbub.engines.base import Accepted, Capabilities
from hubbub.engines.memory import MemoryEngine
from hubbub.protocol.envelope import Member
from hubbub.testing.engines import EngineContract
from hubbub.types import Publication


class Deaf(MemoryEngine):
    """Stores, and tells nobody."""

    async def listen(self, channels: Sequence[str]) -> None:
        pass


class Forgetful(MemoryEngine):
    """Knows no retries."""

    async def publish(self, channel: str, publication: Publication, **options: Any) -> Accepted:
        return await super().publish(channel, replace(publication, id=None), **options)


class Rewriting(MemoryEngine):
    """Decodes the content and encodes it anew."""

    async def publish(self, channel: str, publication: Publication, **options: Any) -> Accepted:
        content = bytes(publication.content).replace(b" ", b"")
        return await super().publish(
            channel, replace(publication, content=type(publication.content)(content)), **options
        )


class Jumping(MemoryEngine):
    """Leaves numbers out, and does not say which."""

    async def publish(self, channel: str, publication: Publication, **options: Any) -> Accepted:
        if not options.get("volatile"):
            await super().unlisten([channel])
            await super().publish(channel, replace(publication, id=None))
            await super().listen([channel])
        return await super().publish(channel, publication, **options)


class Storing(MemoryEngine):
    """Keeps volatile messages like all others."""

    async def publish(self, channel: str, publication: Publication, **options: Any) -> Accepted:
        return await super().publish(channel, publication, **{**options, "volatile": False})


class Glossing(MemoryEngine):
    """Passes over what was dropped."""

    async def after(self, channel: str, seq: int, limit: int) -> Page:
        return replace(await super().after(channel, seq, limit), complete=True)


class Endless(MemoryEngine):
    """Takes a full page for a sign of more."""

    async def after(self, channel: str, seq: int, limit: int) -> Page:
        page = await super().after(channel, seq, limit)
        return replace(page, more=len(page.publications) == limit)


class Crowded(MemoryEngine):
    """Looks whether there is a place, and takes it later."""

    async def enter(self, channel: str, user: str, session: str, now: int, capacity: int) -> bool:
        _, count = await self.members(channel, 0)
        await asyncio.sleep(0)
        return await super().enter(channel, user, session, now, capacity if count >= capacity else 1_000)


class Unsorted(MemoryEngine):
    """Lists members by name."""

    async def members(self, channel: str, limit: int) -> tuple[list[Member], int]:
        members, count = await super().members(channel, 1_000)
        return sorted(members, key=lambda member: member.user)[:limit], count


class Repeating(MemoryEngine):
    """Asks for a receipt each time that a cursor is moved."""

    async def set_cursor(self, user: str, seq: int) -> list[Publication]:
        await super().set_cursor(user, seq)
        page = await self.after("user:" + user, 0, seq)
        return [publication for publication in page.publications if publication.receipt]


class Undead(MemoryEngine):
    """Is ready for ever, and goes on telling."""

    async def stop(self) -> None:
        pass


class Tardy(MemoryEngine):
    """Tells of what is in the log already."""

    def publish_now(self, *arguments: Any) -> Accepted:
        listener, self._listener = self._listener, None
        accepted = super().publish_now(*arguments)
        self._listener = listener
        channel, publication, _, origin = arguments
        if listener is not None and channel in self._listening:
            asyncio.get_running_loop().call_later(0.01, listener.publication, channel, publication, origin, None)
        return accepted


class Boundless(MemoryEngine):
    """Acknowledges what has not been sent."""

    async def set_cursor(self, user: str, seq: int) -> list[Publication] | None:
        self._cursors[user] = seq
        return []


class Mute(MemoryEngine):
    """Says of one submission in two what became of it."""

    said = True

    def submit(self, channel: str, publication: Publication, volatile: bool, origin: str | None, done: Any) -> None:
        self.said = not self.said
        super().submit(channel, publication, volatile, origin, done if self.said else lambda _: None)


class Lonely(MemoryEngine):
    """Says that others share its channels, and would leave the rooms if they died."""

    capabilities = Capabilities(durable=False, shared=True, lease=0.01)


BROKEN: list[tuple[type[MemoryEngine], str]] = [
    (Deaf, "from_listen_on_nothing_is_missed"),
    (Forgetful, "a_retry_is_answered_as_before"),
    (Forgetful, "retries_at_once_are_one"),
    (Rewriting, "it_is_told_as_it_was_published"),
    (Jumping, "each_publication_has_its_place"),
    (Storing, "volatile_ones_are_told_and_forgotten"),
    (Glossing, "what_was_dropped_is_never_passed_over_in_silence"),
    (Glossing, "a_place_beyond_the_end_is_not_complete"),
    (Endless, "a_page_that_fits_exactly_has_no_more"),
    (Crowded, "a_crowd_at_the_door_fills_the_room_exactly"),
    (Unsorted, "members_are_listed_in_the_order_of_coming"),
    (Repeating, "a_receipt_is_due_once"),
    (Tardy, "what_was_read_has_been_told"),
    (Boundless, "a_cursor_stays_within_the_inbox"),
    (Mute, "what_is_submitted_is_published"),
    (Undead, "nothing_is_told_after_stop"),
    (Undead, "a_stopped_engine_is_not_ready"),
    (Lonely, "another_node_hears_the_same"),
    (Lonely, "a_dead_node_is_out_of_all_rooms_within_its_lease"),
]


@pytest.mark.parametrize(("broken", "promise"), BROKEN, ids=lambda value: getattr(value, "__name__", value))
def test_a_broken_promise_fails_its_test(
    broken: type[MemoryEngine], promise: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the engine without that fault passes the same test."""
    # What cannot come must be missed quickly.
    monkeypatch.setattr("hubbub.testing.engines.ear.PATIENCE", 0.05)
    made: list[type[MemoryEngine]] = [MemoryEngine, broken]

    class Contract(EngineContract):
        def engine(self, keep: int = 1000) -> MemoryEngine:
            return made.pop(0)(HistoryLimits(history_size=keep, inbox_size=keep))

        def peer(self, engine: Any) -> MemoryEngine:
            return broken()

        async def kill(self, engine: Any) -> None:
            pass

        async def time_passes(self, engine: Any, seconds: float) -> None:
            pass

    test = getattr(Contract(), f"test_{promise}")
    if broken is Lonely:
        # Only an engine that says it is shared is asked for a second node.
        made.pop(0)
    else:
        test()
    with pytest.raises((AssertionError, TimeoutError)):
        test()


def test_an_engine_has_to_be_made() -> None:
    """A subclass that forgets to say how is told so."""
    contract: Any = EngineContract()
    with pytest.raises(NotImplementedError, match="how its engine is made"):
        contract.test_a_running_engine_is_ready()


def test_every_promise_has_a_sentence() -> None:
    """The rule that a test guards is what its user reads when it fails."""
    tests = [getattr(EngineContract, name) for name in dir(EngineContract) if name.startswith("test_")]

    assert len(tests) > 40
    assert all(test.__doc__ for test in tests)
