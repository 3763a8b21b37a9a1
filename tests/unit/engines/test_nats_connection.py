"""What NATS says, in whatever pieces it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from hubbub.engines.nats.connection import Connection

Told = list[tuple[int, bytes, bytes, bytes]]

HEAD = b"NATS/1.0\r\nNats-Sequence: 7\r\n\r\n"
SAID = (
    b'INFO {"server_id":"a","version":"2.15.1","headers":true,"max_payload":1024}\r\n'
    b"PING\r\nPONG\r\n+OK\r\n"
    b"MSG bus.a 3 5\r\none\r\n\r\n"
    b"MSG bus.b 4 reply 0\r\n\r\n"
    b"HMSG bus.c 5 %d %d\r\n%bMSG x 1 3\r\n" % (len(HEAD), len(HEAD) + 9, HEAD)
)
HEARD: Told = [(3, b"bus.a", b"", b"one\r\n"), (4, b"bus.b", b"", b""), (5, b"bus.c", HEAD, b"MSG x 1 3")]


def hearing(test: Callable[[Connection, Told], Awaitable[None]]) -> None:
    async def main() -> None:
        connection, told = Connection(), Told()
        connection.message = lambda *message: told.append(message)
        await test(connection, told)

    asyncio.run(main())


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, len(SAID)])
def test_it_is_heard_in_pieces_of_any_size(size: int) -> None:
    async def main(connection: Connection, told: Told) -> None:
        for begin in range(0, len(SAID), size):
            connection.data_received(SAID[begin : begin + size])

        assert told == HEARD
        assert connection.ended is None and connection.info is not None and connection.info.max_payload == 1024

    hearing(main)


@pytest.mark.parametrize("cut", range(1, len(SAID)))
def test_it_may_be_cut_at_any_byte(cut: int) -> None:
    async def main(connection: Connection, told: Told) -> None:
        connection.data_received(SAID[:cut])
        connection.data_received(SAID[cut:])

        assert told == HEARD

    hearing(main)


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"MSG\r\n",
        b"MSG a b 1\r\nx\r\n",
        b"MSG a 1 -1\r\nx\r\n",
        b"MSG a 1 999999999999\r\n",
        b"HMSG a 1 x 3\r\nabc\r\n",
        b"HMSG a 1 4 3\r\nabc\r\n",
        b"HMSG a 1 -1 3\r\nabc\r\n",
        b"INFO nonsense\r\n",
        b"x" * 70_000,
        b"\r\n",
        b"-ERR 'Stale Connection'\r\n",
    ],
)
def test_whatever_else_it_says_ends_the_connection(said: bytes) -> None:
    """And nothing is told of it; who used the connection is."""

    async def main(connection: Connection, told: Told) -> None:
        lost: list[bool] = []
        connection.lost = lambda: lost.append(True)
        connection.data_received(said)

        assert connection.ended and lost == [True] and told == []

    hearing(main)
