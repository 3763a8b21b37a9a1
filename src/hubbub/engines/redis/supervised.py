"""A task that keeps one connection standing: it connects, serves, and connects anew, and cannot end in silence."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from hubbub.engines.redis.address import Address
from hubbub.engines.redis.connection import Connection, Refused
from hubbub.engines.redis.node import Node
from hubbub.engines.redis.places import Places
from hubbub.engines.redis.primary import has_moved, reach, run_of
from hubbub.engines.shared.backoff import Backoff
from hubbub.errors import ConfigError

__all__ = ["Supervised"]

log = logging.getLogger("hubbub.engines.redis")

# Seconds between two questions to sentinels. A primary that only they are cut off from says nothing of their choice.
_ASKED: Final = 5.0


class Supervised:
    """What both connections to Redis have in common; a subclass says what begins, and what ends."""

    # For logs, and for whoever looks at the server's clients.
    role = "commands"

    def __init__(self, address: Address, places: Places, node: Node) -> None:
        self._address = address
        self._places = places
        self._node = node
        self._name = f"hubbub-{node.name}-{self.role}"
        # None while there is none that serves.
        self.connection: Connection | None = None
        # Which run of which server it leads to; and since when it serves (the loop's clock).
        self.run = ""
        self.since = 0.0
        self._task: asyncio.Task[None] | None = None
        # Tries in a row that failed.
        self._failed = 0

    async def open(self) -> None:
        """Connect for the first time, and stay connected from then on; raises `OSError`, `Refused`, `ConfigError`."""
        connection = await self._connect()
        self._task = asyncio.get_running_loop().create_task(self._keep(connection))
        while self.connection is None and connection.ended is None:
            await asyncio.sleep(0)

    async def close(self) -> None:
        """End it for good; harmless twice."""
        task, self._task = self._task, None
        if self.connection is not None:
            self.connection.leave("the engine was stopped")
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._drop("the engine was stopped")

    async def prepare(self, connection: Connection, said: dict[str, str]) -> None:
        """Do what has to be done before `connection` serves, to a server that has `said` so much about itself.

        May raise as `open` does.
        """

    def begin(self, connection: Connection) -> None:
        """`connection` serves from now on."""

    def end(self, why: str) -> None:
        """There is no connection any more."""

    async def _connect(self) -> Connection:
        connection, said = await reach(self._address, self._places.slot, self._name)
        try:
            await self.prepare(connection, said)
            self.run = run_of(said)
        except BaseException:
            connection.abort("it was not wanted")
            raise
        return connection

    async def _keep(self, first: Connection) -> None:
        connection: Connection | None = first
        loop = asyncio.get_running_loop()
        backoff = Backoff()
        while True:
            began = loop.time()
            try:
                if connection is None:
                    connection = await self._connect()
                await self._serve(connection)
                why = connection.ended or ""
                self._node.outages.ended(self, why)
                if connection.silent:
                    self._node.outages.away(self, why)
                backoff.reset()
            except (OSError, Refused, ConfigError) as error:
                self._failed += 1
                # Not at the first: one connection that is cut is no reason to wake anybody.
                if self._failed > 1:
                    self._node.outages.away(self, str(error))
            except Exception:
                # A fault of ours: it must not end the one task that could go on.
                log.exception("the connection for %s failed", self.role)
            finally:
                self._drop("the connection was lost")
            served, connection = connection is not None, None
            await backoff.pause(loop.time() - began if served else 0.0)

    async def _serve(self, connection: Connection) -> None:
        over = asyncio.Event()
        connection.lost = over.set
        if connection.ended is not None:
            return
        self.connection = connection
        self.since = asyncio.get_running_loop().time()
        self._failed = 0
        self.begin(connection)
        self._node.outages.over(self)
        watching = asyncio.get_running_loop().create_task(self._watch(connection)) if self._address.primary else None
        try:
            await over.wait()
        finally:
            if watching is not None:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)

    async def _watch(self, connection: Connection) -> None:
        """See whether the sentinels have chosen another primary."""
        while True:
            await asyncio.sleep(_ASKED)
            try:
                if await has_moved(self._address, connection.endpoint):
                    connection.abort("the sentinels have another primary")
            except Exception:
                # A fault of ours: the next question must be asked.
                log.exception("the sentinels could not be asked")

    def _drop(self, why: str) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.lost = None
            why = connection.ended or why
            connection.abort(why)
            self.end(why)
