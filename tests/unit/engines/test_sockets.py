"""How a connection to an engine ends that is given up."""

from __future__ import annotations

import asyncio
import socket

import pytest

from hubbub.engines.shared.sockets import reset
from support.loop import PATIENCE, run


class Lost(asyncio.Protocol):
    def __init__(self) -> None:
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.set_result(None)


def read_all(connection: socket.socket) -> None:
    while connection.recv(65_536):
        pass


def test_what_was_given_up_does_not_arrive_later() -> None:
    """What waits in the kernel is thrown away; the server may have it back by another connection already."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as server:
            transport, protocol = await loop.create_connection(Lost, *server.getsockname())
            accepted, _ = server.accept()
            with accepted:
                accepted.settimeout(PATIENCE)
                # More than the server's side takes while nobody reads.
                transport.write(b"x" * 20_000_000)
                reset(transport)
                reset(transport)
                await asyncio.wait_for(protocol.lost, PATIENCE)
                with pytest.raises(ConnectionResetError):
                    read_all(accepted)

    run(main())
