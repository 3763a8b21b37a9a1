"""The fleet's own client: what it must not do to the others."""

from __future__ import annotations

import asyncio

from chaos.lean import Connection, LeanClient
from chaos.ledger import Ledger
from chaos.tally import Tally
from support.loop import run
from support.resetting import resetting


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
                group.create_task(connect(LeanClient("u", "r", lambda: address, ledger, tally, "")))

    with resetting() as address:
        run(main(address))
