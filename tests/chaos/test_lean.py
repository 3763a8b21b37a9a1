"""The fleet's own client: what it must not do to the others."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from chaos.lean import Connection, LeanClient
from chaos.ledger import Ledger
from chaos.misfortune import LINGER
from chaos.tally import Tally
from support.loop import run


@contextmanager
def resetting() -> Iterator[tuple[str, int]]:
    """A server that resets every connection at once; gives its address."""
    with socket.create_server(("localhost", 0), backlog=100) as server:

        def reset_all() -> None:
            while True:
                connection, _ = server.accept()
                if over.is_set():
                    connection.close()
                    return
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
                connection.close()

        over = threading.Event()
        thread = threading.Thread(target=reset_all)
        thread.start()
        try:
            yield server.getsockname()
        finally:
            over.set()
            socket.create_connection(server.getsockname()).close()
            thread.join()


def test_a_connection_that_dies_at_once_takes_no_other_with_it() -> None:
    """Its file is closed once: a second time it would be somebody else's, who then fails, or waits for ever."""

    async def main(address: tuple[str, int]) -> None:
        async def connect(client: LeanClient) -> None:
            for _ in range(40):
                connection = Connection(client)
                if await client.connect(connection):
                    await connection.gone.wait()

        ledger, tally = Ledger({"user:u": ["u"], "room:r": ["u"]}), Tally()
        async with asyncio.TaskGroup() as group:
            for _ in range(50):
                group.create_task(connect(LeanClient("u", "r", address, ledger, tally, "")))

    with resetting() as address:
        run(main(address))
