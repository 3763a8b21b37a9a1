"""Starts workers on one port, starts those again that die, and replaces them one by one.

Each worker has a listening socket of its own on the same address (SO_REUSEPORT), over which the kernel spreads new
connections. The supervisor made the sockets and keeps them: what waits in the socket of a worker that dies is
taken by the one that comes after it, and a worker that leaves lets its successor listen before.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Final

from hubbub.config import Config
from hubbub.errors import ConfigError
from hubbub.server import announce, bind, why_not
from hubbub.supervisor.cores import cores
from hubbub.supervisor.pace import Pace
from hubbub.supervisor.process import Child, Voice, how
from hubbub.supervisor.store import Store
from hubbub.telemetry.logs import set_up
from hubbub.telemetry.scoreboard import Roster, Scoreboard
from hubbub.worker import LEAVE, VARIABLE, Worker

__all__ = ["count", "supervise"]

log = logging.getLogger("hubbub.supervisor")

# Seconds beyond its drain that a worker gets to end.
_LONGER: Final = 5.0
# Seconds for a worker to be ready: a large store is looked through, an application loads a model.
_READY: Final = 120.0
# The most seconds between two signs of life of a worker.
_BEAT: Final = 1.0
# Workers that are started together.
_AT_ONCE: Final = 8
# Connections that may wait in one socket.
_BACKLOG: Final = 4096


def count(config: Config) -> int:
    """How many workers that is on this machine; 1: no supervisor."""
    return config.server.workers or cores()


def supervise(config: Config, arguments: Sequence[str]) -> int:
    """Run `hubbub` with these arguments in several processes until SIGTERM or SIGINT; returns the exit status.

    Raises `ConfigError` where they cannot be started.
    """
    set_up(config.server.log_level)
    return asyncio.run(_Supervisor(config, arguments).run())


class _Slot:
    """One worker after another, on the same sockets."""

    def __init__(self, number: int, sockets: Sequence[socket.socket]) -> None:
        self.number = number
        self.sockets = sockets
        self.pace = Pace()
        self.child: Child | None = None
        # The voice of that.
        self.voice: Voice | None = None
        # Its predecessor, from when it is ready; that drains.
        self.previous: Child | None = None
        # How often one has ended by itself, or hung.
        self.restarts = 0
        # That of the child on the scoreboard: one of two, for its predecessor has the other.
        self.place = 2 * number
        # Held by whoever starts one: there is one at a time.
        self.starting = asyncio.Lock()

    @property
    def next_place(self) -> int:
        """The place of whoever comes after the child."""
        return self.place ^ 1

    async def turn_away(self, host: str) -> None:
        """Let the kernel give what comes to the others until a worker listens again: nobody takes it here (Linux).

        By other sockets, which the next worker listens on when it is ready: Linux gives nothing more to one that has
        stopped listening and begun anew. Raises `OSError`.
        """
        if sys.platform == "linux":
            port = self.sockets[0].getsockname()[1]
            for sock in self.sockets:
                sock.close()
            self.sockets = await bind(host, port, reuse_port=True)


class _Supervisor:
    def __init__(self, config: Config, arguments: Sequence[str]) -> None:
        self._config = config
        # -P: the current folder is no place to look for Python's own modules. That of an application is added later.
        self._command = (sys.executable, "-P", "-m", "hubbub", *arguments)
        self._environment = dict(os.environ)
        self._engine = ""
        self._slots: list[_Slot] = []
        self._store = None if config.engine.engine else Store(config)
        # Seconds between two signs of life of a worker, and between two looks for them; 0: none.
        self._beat = min(_BEAT, config.server.worker_timeout / 4)
        # Held open as long as this process lives.
        self._lifeline = os.pipe()
        # Where each worker says what it has counted, and we say whose is what.
        self._scoreboard = Scoreboard.made()
        self._stopping = asyncio.Event()
        # All workers that live: those that start, those in their slots, and those that drain for a successor.
        self._children: set[Child] = set()
        # Whether it was started from a terminal, whose end is then ours.
        self._from_terminal = _has_terminal()
        self._rolling: asyncio.Task[None] | None = None
        # Set while a roll was asked for that has not begun.
        self._roll_again = False
        self._address = ""

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        keeping: list[asyncio.Task[None]] = []
        try:
            loop.add_signal_handler(signal.SIGTERM, self._stopping.set)
            loop.add_signal_handler(signal.SIGINT, self._interrupted)
            loop.add_signal_handler(signal.SIGHUP, self._stopping.set)
            await self._bind()
            self._post()
            if self._store is not None:
                self._engine = await self._store.start()
            status = await self._begin()
            if status or self._stopping.is_set():
                return status
            loop.add_signal_handler(signal.SIGHUP, self._hung_up)
            announce(self._address, self._config)
            keeping = [loop.create_task(self._keep(slot)) for slot in self._slots]
            stopping = loop.create_task(self._stopping.wait())
            await asyncio.wait((stopping, *keeping), return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            # They end by themselves only where something is wrong with us.
            return next((1 for task in keeping if task.done()), 0)
        finally:
            if self._rolling is not None:
                keeping.append(self._rolling)
            for task in keeping:
                task.cancel()
            for outcome in await asyncio.gather(*keeping, return_exceptions=True):
                if isinstance(outcome, Exception):
                    log.error("the supervisor has failed", exc_info=outcome)
            await self._end()

    async def _bind(self) -> None:
        server = self._config.server
        try:
            # Without SO_REUSEPORT, which would share the port with anybody of this user's.
            for sock in await bind(server.host, server.port):
                sock.close()
            port = server.port
            for number in range(1, count(self._config) + 1):
                if number > 1 and sys.platform != "linux":
                    # Only there does the kernel spread connections: elsewhere all take from one socket.
                    sockets: Sequence[socket.socket] = self._slots[0].sockets
                else:
                    sockets = await bind(server.host, port, reuse_port=True)
                    for sock in sockets:
                        sock.listen(_BACKLOG)
                port = sockets[0].getsockname()[1]
                self._slots.append(_Slot(number, sockets))
        except OSError as error:
            raise ConfigError(why_not(error, self._config)) from error

    async def _begin(self) -> int:
        """Start all workers; 0 when they are ready, else the exit status of one that never was."""
        # One first: what is wrong with all of them is said once. Then not all at once: they have to be ready in time.
        begun = 0
        while begun < len(self._slots) and not self._stopping.is_set():
            some = self._slots[begun : begun + _AT_ONCE] if begun else self._slots[:1]
            begun += len(some)
            for status in await asyncio.gather(*map(self._start, some)):
                if status:
                    return status
        return 0

    async def _start(self, slot: _Slot) -> int:
        """Start a worker; 0 when it is ready and its slot's, else how it ended, or 1 where it could not be started."""
        try:
            return await self._start_one(slot)
        except OSError as error:
            log.error("worker %d cannot be started: %s", slot.number, error)
            return 1

    async def _start_one(self, slot: _Slot) -> int:
        theirs, status = os.pipe()
        worker = Worker(
            number=slot.number,
            count=len(self._slots),
            sockets=tuple(sock.fileno() for sock in slot.sockets),
            status=status,
            lifeline=self._lifeline[0],
            scoreboard=self._scoreboard.file,
            place=slot.next_place,
            engine=self._engine,
            beat=self._beat,
        )
        try:
            child = await Child.start(
                self._command,
                {**self._environment, VARIABLE: worker.encode()},
                worker.files,
            )
        except BaseException:
            os.close(theirs)
            raise
        finally:
            os.close(status)
        self._children.add(child)
        child.ended.add_done_callback(lambda _: self._children.discard(child))
        voice = await Voice.of(theirs)
        child.ended.add_done_callback(lambda _: voice.close())
        reading = asyncio.ensure_future(voice.line())
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((reading, stopping), timeout=_READY, return_when=asyncio.FIRST_COMPLETED)
            late = not reading.done()
            address = "" if late else reading.result()
        finally:
            for task in (reading, stopping):
                task.cancel()
            await asyncio.gather(reading, stopping, return_exceptions=True)
        if address:
            self._address = address
            slot.previous, slot.child, slot.voice, slot.place = slot.child, child, voice, slot.next_place
            child.ended.add_done_callback(lambda _: self._post())
            self._post()
            if slot.previous is not None:
                slot.previous.signal(LEAVE)
                await slot.previous.end(self._config.server.drain_timeout + _LONGER)
            return 0
        child.signal(signal.SIGTERM)
        ended = await child.end(_LONGER)
        if self._stopping.is_set():
            return 0
        if late:
            log.error("worker %d was not ready within %d s", slot.number, _READY)
        elif ended < 0:
            # Who ends by itself says why.
            log.error("worker %d has ended (%s) before it was ready", slot.number, how(ended))
        return max(ended, 1)

    def _post(self) -> None:
        """Let the workers know who of them lives, and where each writes what it has counted."""
        slots = self._slots
        self._scoreboard.write(
            Roster(
                restarts={slot.number: slot.restarts for slot in slots},
                serving={slot.number: slot.place for slot in slots if slot.child is not None and slot.child.lives},
                leaving={
                    slot.number: slot.next_place for slot in slots if slot.previous is not None and slot.previous.lives
                },
            )
        )

    async def _keep(self, slot: _Slot) -> None:
        """Start the worker again whenever it has ended by itself."""
        while True:
            child, lived = slot.child, 0.0
            if child is not None:
                trouble = await self._trouble(slot, child)
                lived = child.lived
            async with slot.starting:
                if slot.child is not child:
                    # Its successor is there.
                    continue
                if child is not None:
                    log.error("worker %d %s: another is started", slot.number, trouble)
                    slot.child = None
                    slot.restarts += 1
                    self._post()
                await asyncio.sleep(slot.pace.wait(lived))
                if await self._start(slot):
                    log.error("worker %d does not start: the others go on, and it is tried again", slot.number)
                    await slot.turn_away(self._config.server.host)

    async def _trouble(self, slot: _Slot, child: Child) -> str:
        """Wait for the end of a worker, and make one where its event loop gives no sign of life; what was wrong."""
        timeout = self._config.server.worker_timeout
        silent = 0
        while True:
            # By our own ticks, and not by a clock: while all of us are stopped, or the machine sleeps, none is missed.
            await asyncio.wait((child.ended,), timeout=self._beat or None)
            if not child.lives:
                return f"has ended ({how(child.ended.result())})"
            # Who leaves for a successor has a limit of its own.
            mine = slot.voice if slot.child is child else None
            silent = 0 if mine is None or mine.heard() else silent + 1
            if silent and silent * self._beat >= timeout:
                # It would hear nothing else.
                child.signal(signal.SIGKILL)
                await child.ended
                return f"has given no sign of life for {timeout:g} s and was killed"

    def _hung_up(self) -> None:
        """Replace the workers one by one, unless nobody asks for that: the terminal has been closed."""
        if self._from_terminal and not _has_terminal():
            self._stopping.set()
        elif self._rolling is None or self._rolling.done():
            self._rolling = asyncio.get_running_loop().create_task(self._replace_all())
        else:
            self._roll_again = True

    async def _replace_all(self) -> None:
        while True:
            self._roll_again = False
            log.info("replacing the workers one by one")
            for slot in self._slots:
                async with slot.starting:
                    failed = await self._start(slot)
                if failed:
                    log.error("the successor of worker %d does not start: the workers stay as they are", slot.number)
                    break
            else:
                log.info("all workers have been replaced")
            if not self._roll_again:
                return

    def _interrupted(self) -> None:
        if self._stopping.is_set():
            # They have been asked politely.
            for child in self._children:
                child.signal(signal.SIGINT)
                asyncio.get_running_loop().call_later(_LONGER, child.signal, signal.SIGKILL)
        self._stopping.set()

    async def _end(self) -> None:
        children = list(self._children)
        for child in children:
            child.signal(signal.SIGTERM)
        await asyncio.gather(*(child.end(self._config.server.drain_timeout + _LONGER) for child in children))
        if self._store is not None:
            await self._store.stop()
        for sock in {sock for slot in self._slots for sock in slot.sockets}:
            sock.close()
        for file in self._lifeline:
            os.close(file)
        self._scoreboard.close()


def _has_terminal() -> bool:
    # One that has been closed is none any more.
    return any(map(os.isatty, (0, 1, 2)))
