"""A task that keeps the connection standing: it connects, serves, and connects anew, and cannot end in silence."""

from __future__ import annotations

import asyncio
import itertools
import logging

from hubbub.engines.nats.address import Address
from hubbub.engines.nats.connection import Connection, Refused, connect
from hubbub.engines.shared.backoff import Backoff
from hubbub.errors import ConfigError, HubbubError

__all__ = ["Supervised"]

log = logging.getLogger("hubbub.engines.nats")


class Supervised:
    """The connection of this node, whichever of the servers it is to; a subclass says what begins, and what ends."""

    def __init__(self, address: Address, name: str) -> None:
        self._address = address
        self._name = name
        self._hosts = itertools.cycle(address.hosts)
        # None while there is none that serves.
        self.connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        # Tries in a row that failed, and whether it has been said that NATS is away.
        self._failed = 0
        self._said = False

    async def open(self) -> None:
        """Connect for the first time, and stay connected from then on.

        Raises `OSError`, `Refused`, `HubbubError` when none of the servers can be used.
        """
        for left in reversed(range(len(self._address.hosts))):
            try:
                connection = await self._connect()
                break
            except (OSError, Refused, HubbubError):
                if not left:
                    raise
        self._task = asyncio.get_running_loop().create_task(self._keep(connection))

    async def close(self) -> None:
        """End it for good; harmless twice."""
        task, self._task = self._task, None
        if self.connection is not None:
            self.connection.leave("the engine was stopped")
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._drop("the engine was stopped")

    async def prepare(self) -> None:
        """`self.connection` can be used, by whoever is called here; may raise as `open` does."""

    def begin(self) -> None:
        """`self.connection` serves everybody from now on."""

    def end(self) -> None:
        """There is no connection any more."""

    async def _connect(self) -> Connection:
        connection = await connect(self._address, next(self._hosts), self._name)
        self.connection = connection
        try:
            await self.prepare()
            if connection.ended is not None:
                raise OSError(connection.ended)
        except BaseException:
            connection.abort("it was not wanted")
            self._drop("it was not wanted")
            raise
        self._failed = 0
        self.begin()
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
                    if self._said:
                        self._said = False
                        log.warning("NATS at %s is back", self._address)
                await _over(connection)
                log.warning("the connection to NATS has ended: %s", connection.ended)
                if connection.silent:
                    self._tell(connection.ended or "", at_once=True)
                backoff.reset()
            except (OSError, Refused, ConfigError) as error:
                self._tell(str(error))
            except HubbubError as error:
                # JetStream is not there yet, though NATS is.
                self._tell(str(error))
            except Exception:
                # A fault of ours: it must not end the one task that could go on.
                log.exception("the connection to NATS failed")
            finally:
                self._drop("the connection was lost")
            served, connection = connection is not None, None
            await backoff.pause(loop.time() - began if served else 0.0)

    def _drop(self, why: str) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.lost = None
            connection.abort(connection.ended or why)
            self.end()

    def _tell(self, why: str, *, at_once: bool = False) -> None:
        self._failed += 1
        # Not at the first of each: one connection that is cut is no reason to wake anybody.
        if (self._failed > len(self._address.hosts) or at_once) and not self._said:
            self._said = True
            log.error("NATS at %s is away: %s", self._address, why)


async def _over(connection: Connection) -> None:
    over = asyncio.Event()
    connection.lost = over.set
    if connection.ended is None:
        await over.wait()
