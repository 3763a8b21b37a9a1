"""A network between a client and a server that a test can cut, hold up and refuse."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import suppress

__all__ = ["Network"]


class Network:
    """Forwards TCP connections to a server."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        # Cleared: what the server says does not get through.
        self._answers = asyncio.Event()
        self._answers.set()
        self._refusing = False
        # How many connections came.
        self.count = 0
        self.address = ""

    def hold_answers(self) -> None:
        """Whatever the server says from now on is under way until the connection is cut."""
        self._answers.clear()

    def cut(self, *, refuse: bool = False) -> None:
        """Reset all connections, and the next ones too where it is to `refuse`."""
        self._refusing = refuse
        for pair in self._pairs:
            for writer in pair:
                writer.transport.abort()
        self._answers.set()

    def mend(self) -> None:
        """Let connections through again."""
        self._refusing = False

    @classmethod
    @contextlib.asynccontextmanager
    async def to(cls, address: str) -> AsyncIterator[Network]:
        """A network to the server at `address`, for the length of a block."""
        host, _, port = address.removeprefix("http://").rpartition(":")
        network = cls(host, int(port))
        server = await asyncio.start_server(network._accept, "127.0.0.1", 0)
        network.address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield network
        finally:
            server.close()
            network.cut()
            await asyncio.gather(*network._tasks, return_exceptions=True)
            await server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.count += 1
        if self._refusing:
            writer.transport.abort()
            return
        there_reader, there_writer = await asyncio.open_connection(*self._target)
        pair = (writer, there_writer)
        self._pairs.add(pair)
        try:
            await asyncio.gather(self._forward(reader, there_writer), self._forward(there_reader, writer, answers=True))
        finally:
            self._pairs.discard(pair)
            for end in pair:
                end.close()
                with suppress(OSError):
                    await end.wait_closed()

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool = False
    ) -> None:
        # RuntimeError: uvloop's word for a connection that was cut.
        with suppress(OSError, RuntimeError):
            while data := await reader.read(65_536):
                if answers:
                    await self._answers.wait()
                writer.write(data)
                await writer.drain()
            writer.write_eof()
