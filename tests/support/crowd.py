"""Clients in a room of whom one goes on speaking, whatever is done to the server meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from hubbub.client import Client, connect
from support.loop import eventually

__all__ = ["Crowd"]


class Crowd:
    """Clients in a room, who write down what they hear, while one of them goes on speaking."""

    def __init__(self, address: str, size: int) -> None:
        self._clients = [connect(f"{address}/?user_id=u{number}") for number in range(size)]
        self.heard: list[list[int]] = [[] for _ in self._clients]
        self.said = 0
        self._speaking = asyncio.Event()

    async def __aenter__(self) -> Crowd:
        for client in self._clients:
            await client.open()
            await client.join("lobby")
        self._reading = [
            asyncio.create_task(self._read(client, heard))
            for client, heard in zip(self._clients, self.heard, strict=True)
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._reading:
            task.cancel()
        await asyncio.gather(*self._reading, return_exceptions=True)
        for client in self._clients:
            await client.close()

    async def _read(self, client: Client, heard: list[int]) -> None:
        async for message in client:
            heard.append(message.content)  # noqa: PERF401  # others look at it meanwhile

    async def speak_while(self, what: Callable[[], Awaitable[object]]) -> None:
        """Let one speak until `what` is done, and wait until all have heard everything."""
        doing = asyncio.ensure_future(what())
        while not doing.done():
            await self._clients[0].send("chat", self.said, room="lobby")
            self.said += 1
        await doing
        await eventually(lambda: all(len(heard) >= self.said for heard in self.heard))
