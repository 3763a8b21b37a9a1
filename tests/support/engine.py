"""The memory engine as one far away would be: being told what to listen to takes until the test lets it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from hubbub.engines.memory import MemoryEngine

__all__ = ["FarEngine"]


class FarEngine(MemoryEngine):
    """`listen` and `unlisten` wait for `answer`; everything else is memory's."""

    def __init__(self) -> None:
        super().__init__()
        # What it has been asked, in order, such as "listen room:lobby"; and what it has not answered yet.
        self.asked: list[str] = []
        self.waiting: dict[str, asyncio.Future[None]] = {}

    async def listen(self, channels: Sequence[str]) -> None:
        """See `Engine.listen`."""
        await self._ask("listen", channels, super().listen)

    async def unlisten(self, channels: Sequence[str]) -> None:
        """See `Engine.unlisten`."""
        await self._ask("unlisten", channels, super().unlisten)

    def answer(self, question: str, error: Exception | None = None) -> None:
        """Let it do what it was asked, or fail."""
        answer = self.waiting.pop(question)
        if error is None:
            answer.set_result(None)
        else:
            answer.set_exception(error)

    def hears(self, channel: str) -> bool:
        """Whether it tells its node what comes into the channel."""
        return channel in self._listening

    async def _ask(self, what: str, channels: Sequence[str], do: Callable[[Sequence[str]], Awaitable[None]]) -> None:
        question = f"{what} {' '.join(channels)}"
        # What a node listens to from its start is not what a test is about.
        if not question.startswith("listen all "):
            # No two things at a time about one channel, in whatever order they would arrive.
            assert not any(waiting.split()[1] in channels for waiting in self.waiting), (question, self.waiting)
            self.asked.append(question)
            answer = self.waiting[question] = asyncio.get_running_loop().create_future()
            await answer
        await do(channels)
