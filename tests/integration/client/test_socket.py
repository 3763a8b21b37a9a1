"""The client's connection, where the network is at its worst."""

from __future__ import annotations

import asyncio
from typing import Any

from hubbub.client.socket import Socket
from hubbub.errors import ConnectError
from hubbub.protocol import json
from support.loop import run
from support.resetting import resetting


class _Nobody:
    """Hears of connections, and does nothing about it."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


def test_a_connection_that_dies_at_once_takes_no_other_with_it() -> None:
    """Its file is closed once: a second time it would be somebody else's, who then fails, or waits for ever."""

    refused = 0

    async def main(url: str) -> None:
        async def connect() -> None:
            nonlocal refused
            for number in range(40):
                connection = Socket(number, _Nobody(), json)
                try:
                    await connection.open(url, None)
                except ConnectError:
                    refused += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(50):
                group.create_task(connect())

    with resetting() as (host, port):
        run(main(f"ws://{host}:{port}/ws"))

    assert refused == 2000
