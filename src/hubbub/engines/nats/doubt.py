"""Every channel in another epoch: for whoever runs a NATS and cannot say whether the end of what it has is there.

Nodes notice by themselves what is missing of what they have seen. Where they have all ended together with NATS, as in a
power cut, nobody is left who has seen anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec

from hubbub.engines.nats.address import Address
from hubbub.engines.nats.connection import Connection, connect
from hubbub.engines.nats.streams import EPOCH

__all__ = ["doubt"]

# Seconds for each answer.
_PATIENCE: Final = 10.0


async def doubt(url: str) -> bool:
    """Take the epochs from all streams before any node comes, so that they get new ones; whether there were any.

    Raises `OSError` where NATS does not answer, `ConfigError` and `Refused` as `connect` does.
    """
    address = Address.parse(url)
    connection = await connect(address, address.hosts[0], "hubbub-doubt")
    asking, had = _Asking(connection), False
    try:
        async for config in asking.streams():
            metadata = config.get("metadata", {})
            if metadata.pop(EPOCH, None) is not None:
                had = True
                await asking.ask(f"STREAM.UPDATE.{config['name']}", config)
    finally:
        connection.abort("nothing more is to be asked")
    return had


class _Asking:
    """One question after the other."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._answers: asyncio.Queue[bytes] = asyncio.Queue()
        connection.message = lambda sid, subject, head, body: self._answers.put_nowait(body)
        connection.write(b"SUB _INBOX.doubt 1\r\n")

    async def ask(self, what: str, said: Any) -> Any:
        """What JetStream answers; raises `OSError`."""
        body = msgspec.json.encode(said)
        self._connection.write(b"PUB $JS.API.%b _INBOX.doubt %d\r\n%b\r\n" % (what.encode(), len(body), body))
        try:
            answer = msgspec.json.decode(await asyncio.wait_for(self._answers.get(), _PATIENCE))
        except TimeoutError:
            raise OSError("JetStream does not answer") from None
        if "error" in answer:
            raise OSError(f"JetStream does not do what it should: {answer['error'].get('description')}")
        return answer

    async def streams(self) -> AsyncIterator[dict[str, Any]]:
        """How each stream is configured; they come in pages."""
        offset, total = 0, 1
        while offset < total:
            page = await self.ask("STREAM.LIST", {"offset": offset})
            found = page["streams"] or []
            for stream in found:
                yield stream["config"]
            offset, total = offset + max(1, len(found)), page["total"]
