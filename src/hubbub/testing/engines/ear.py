"""A listener that writes down what it is told, and the smallest publications to tell it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Final

import msgspec
from msgspec import Raw, Struct

from hubbub.engines.base import Accepted, Engine
from hubbub.protocol import json
from hubbub.types import Packed, Publication, room_channel

__all__ = ["DEN", "LOBBY", "PATIENCE", "Ear", "Told", "a_publication", "contents", "raises", "say"]

PATIENCE: Final = 10.0
"""Seconds for what should happen at once, also where it goes over a network."""

LOBBY: Final = room_channel("lobby")
DEN: Final = room_channel("den")


class Told(Struct, frozen=True):
    """One call of the listener."""

    channel: str
    publication: Publication
    origin: str | None
    encoded: bytes | None

    @property
    def text(self) -> str:
        """The content, where it is a string; else nothing."""
        if isinstance(self.publication, Packed):
            return ""
        content = msgspec.json.decode(self.publication.content)
        return content if isinstance(content, str) else ""


class Ear:
    """A listener that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        # The channels of which it was told that they do not go on.
        self.lost_channels: list[str] = []
        # How much it had been told each time.
        self.lost_after: list[int] = []
        # Who has gone with a node that died, and who is back without having been asked, and their channels.
        self.departed: list[tuple[str, str]] = []
        self.returned: list[tuple[str, str]] = []
        self._changed = asyncio.Event()

    def publication(self, channel: str, publication: Publication, origin: str | None, encoded: bytes | None) -> None:
        """See `hubbub.engines.base.Listener`."""
        self.told.append(Told(channel, publication, origin, encoded))
        self._changed.set()

    def lost(self, channel: str) -> None:
        """See `hubbub.engines.base.Listener`."""
        self.lost_channels.append(channel)
        self.lost_after.append(len(self.told))
        self._changed.set()

    def gone(self, channel: str, user: str) -> None:
        """See `hubbub.engines.base.Listener`."""
        self.departed.append((channel, user))
        self._changed.set()

    def came(self, channel: str, user: str) -> None:
        """See `hubbub.engines.base.Listener`."""
        self.returned.append((channel, user))
        self._changed.set()

    def texts(self, channel: str = LOBBY) -> list[str]:
        """What came into `channel`, in order."""
        return [told.text for told in self.told if told.channel == channel]

    async def hear(self, text: str, channel: str = LOBBY) -> None:
        """Wait until `text` has come into `channel`; raises `TimeoutError` when it does not come."""
        async with asyncio.timeout(PATIENCE):
            while text not in self.texts(channel):
                self._changed.clear()
                await self._changed.wait()


def a_publication(text: str, *, id: str | None = None, from_: str = "alice") -> Publication:
    """A message whose content is `text`."""
    return Publication("chat", from_, room="lobby", content=Raw(json.encode(text)), id=id)


async def say(engine: Engine, *texts: str, channel: str = LOBBY) -> list[Accepted]:
    """Publish each of `texts`, one after the other."""
    return [await engine.publish(channel, a_publication(text)) for text in texts]


def contents(publications: Sequence[Publication]) -> list[str]:
    """The texts of publications that `a_publication` made."""
    return [msgspec.json.decode(publication.content, type=str) for publication in publications]


async def raises(error: type[Exception], call: Awaitable[object]) -> None:
    """Fail unless `call` raises `error`: what pytest has for this is not needed to run the contract."""
    try:
        await call
    except error:
        return
    raise AssertionError(f"{error.__name__} was not raised")
