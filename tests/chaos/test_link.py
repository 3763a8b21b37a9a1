"""The bad network of the tests: a link passes on what it gets, and does what it is told to do to that."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import cast

import pytest

from support.link import Direction, Link
from support.loop import PATIENCE, eventually, run


class Echo(asyncio.Protocol):
    """A connection of a server that says back what it hears, and writes that down."""

    def __init__(self, heard: bytearray) -> None:
        self._heard = heard
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._heard += data
        self._transport.write(data)


@contextlib.asynccontextmanager
async def linked() -> AsyncIterator[tuple[Link, bytearray]]:
    """A link to an echo, and what that hears."""
    heard = bytearray()
    server = await asyncio.get_running_loop().create_server(lambda: Echo(heard), "127.0.0.1", 0)
    link = Link(server.sockets[0].getsockname)
    await link.start()
    try:
        yield link, heard
    finally:
        await link.stop()
        server.close()
        await server.wait_closed()


@contextlib.asynccontextmanager
async def caller(link: Link) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection through the link."""
    reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def hears(reader: asyncio.StreamReader, count: int) -> bytes:
    async with asyncio.timeout(PATIENCE):
        return await reader.readexactly(count)


def test_a_good_link_changes_nothing() -> None:
    """Everything arrives, in order, much more than it may keep, and the end, too."""

    async def main() -> None:
        sent = bytes(range(256)) * 20_000
        async with linked() as (link, _), caller(link) as (reader, writer):
            writer.write(sent)
            came = await hears(reader, len(sent))
            writer.close()

            assert came == sent

    run(main())


def test_a_slow_link_is_late_and_loses_nothing() -> None:
    """By as much as it is told, whatever follows when it is quick again."""

    async def main() -> None:
        async with linked() as (link, _), caller(link) as (reader, writer):
            link.slow(0.05)
            began = asyncio.get_running_loop().time()
            writer.write(b"a")
            first = await hears(reader, 1)
            took = asyncio.get_running_loop().time() - began
            sent = bytes(range(256)) * 8_000
            writer.write(sent)
            link.mend()
            writer.write(b"b")

            assert first == b"a" and took >= 0.1
            assert await hears(reader, len(sent) + 1) == sent + b"b"

    run(main())


@pytest.mark.parametrize("lost", [(Direction.OUT,), (Direction.BACK,), tuple(Direction)], ids=["out", "back", "both"])
def test_a_half_open_link_stands_and_swallows(lost: tuple[Direction, ...]) -> None:
    """Neither side is told, and it arrives never; new connections fare no better. Mended, those are reset."""

    async def main() -> None:
        async with linked() as (link, heard), caller(link) as (reader, writer):
            writer.write(b"a")
            await hears(reader, 1)
            link.swallow(*lost)
            writer.write(b"b")
            await eventually(lambda: link.disturbed == 1)
            async with caller(link) as (_, later):
                later.write(b"c")
                await eventually(lambda: link.disturbed == 2)

                assert not reader.at_eof()
                assert bytes(heard) == (b"abc" if lost == (Direction.BACK,) else b"a")

            link.mend()
            with pytest.raises(ConnectionResetError):
                await hears(reader, 1)
            async with caller(link) as (reader, writer):
                writer.write(b"d")

                assert await hears(reader, 1) == b"d"

    run(main())


def test_a_link_that_is_cut_is_reset_to_both_sides() -> None:
    """Those that stand; whoever comes back is let through."""

    async def main() -> None:
        async with linked() as (link, _), caller(link) as (reader, writer):
            writer.write(b"a")
            await hears(reader, 1)
            cut = link.cut()
            with pytest.raises(ConnectionResetError):
                await hears(reader, 1)
            async with caller(link) as (reader, writer):
                writer.write(b"b")

                assert await hears(reader, 1) == b"b"
                assert cut == 1

    run(main())


def test_a_link_to_nowhere_resets_who_comes() -> None:
    """Nobody listens there, or there is no there."""

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            place = closed.getsockname()
        for link in (Link(lambda: place), Link(lambda: None)):
            await link.start()
            async with caller(link) as (reader, _):
                with pytest.raises(ConnectionResetError):
                    await hears(reader, 1)
            await link.stop()

    run(main())
