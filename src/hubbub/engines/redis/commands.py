"""What is asked of Redis: one connection on which any number of commands are on their way, answered in order.

All of one turn of the event loop goes out in one write. A command whose answer was lost with the connection is sent
again where that is harmless; of every other it is said that its end is unknown.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from hubbub.engines.redis.address import Address
from hubbub.engines.redis.connection import Connection, Refused, pack, reason
from hubbub.engines.redis.node import Node
from hubbub.engines.redis.places import Places
from hubbub.engines.redis.primary import run_of
from hubbub.engines.redis.scripts import ADOPT, ALL, Script
from hubbub.engines.redis.supervised import Supervised
from hubbub.engines.shared.answers import settle
from hubbub.errors import HubbubError, Unavailable

__all__ = ["Command", "Commands"]

log = logging.getLogger("hubbub.engines.redis")

# Seconds without any answer, where some are due; then the connection counts as lost. And for a command whose answer
# was lost: then it is not sent again.
_TIMEOUT: Final = 2.0

# What Redis says where it can do nothing for the moment, and what that means.
_PASSING: Final = {
    "LOADING": "Redis is reading its data",
    "BUSY": "Redis is busy with a script",
    "MASTERDOWN": "Redis has lost its primary",
    "NOREPLICAS": "Redis has too few replicas",
    "OOM": "Redis has no memory left",
    "MISCONF": "Redis cannot write to its disk",
    "CLUSTERDOWN": "the cluster is down",
    "TRYAGAIN": "this part of the cluster is being moved",
    "ASK": "this part of the cluster is being moved",
}
# And where it has done nothing, because the server is another one, lost what it had, or is the primary no more.
_ELSEWHERE: Final = ("NOSCRIPT", "STALE", "READONLY", "MOVED")


class Command:
    """One command on its way; `done` gets its reply, or an exception."""

    __slots__ = ("again", "args", "deadline", "done", "keys", "lost", "script", "size", "undone")

    def __init__(
        self,
        script: Script | None,
        keys: Sequence[str],
        args: Sequence[str | bytes | int],
        done: Callable[[Any], object],
        *,
        again: bool = True,
        lost: Callable[[], Exception] = Unavailable,
        size: int = 100,
    ) -> None:
        self.script = script
        self.keys = keys
        # Behind the run and the node, which all scripts get; without a script, the whole command.
        self.args = args
        self.done = done
        # Whether it may be sent a second time where the first answer was lost.
        self.again = again
        # What it is answered where nobody can say whether it was done.
        self.lost = lost
        self.size = size
        self.deadline = 0.0
        # Whether it is certain that Redis has not done it: it was not sent, or refused.
        self.undone = True

    def given_up(self) -> Exception:
        """What it is answered when it is not sent again."""
        return Unavailable("Redis is away") if self.undone else self.lost()


class Commands(Supervised):
    """The connection for commands."""

    def __init__(self, address: Address, places: Places, node: Node) -> None:
        super().__init__(address, places, node)
        self._loop = asyncio.get_running_loop()

        # How many publications the store had seen in this run of the server.
        self.count = 0

        # What this turn of the loop has asked for.
        self._turn: list[Command] = []
        # What was written and is not answered, in order.
        self._sent: deque[Command] = deque()
        # What has to be sent again, before anything else is; None while that is nothing.
        self._redo: list[Command] | None = None
        # When something was last answered, or asked where nothing was due.
        self._last = 0.0

    def call(self, script: Script, keys: Sequence[str], *args: str | bytes | int) -> asyncio.Future[Any]:
        """Run a script, which is harmless to run twice; raises `Unavailable` at once, or later out of the future."""
        answer: asyncio.Future[Any] = self._loop.create_future()
        self.put(Command(script, keys, args, partial(settle, answer)))
        return answer

    def ask(self, *command: str | bytes | int) -> asyncio.Future[Any]:
        """Send a command of Redis' own; else as `call`."""
        answer: asyncio.Future[Any] = self._loop.create_future()
        self.put(Command(None, (), command, partial(settle, answer)))
        return answer

    def put(self, command: Command) -> None:
        """Send `command`, and answer it; raises `Unavailable` where that cannot be, and then nothing is done."""
        if self.connection is None:
            raise Unavailable("Redis is away")
        self._node.load.add(command.size)
        command.deadline = self._loop.time() + _TIMEOUT
        if not self._turn:
            self._loop.call_soon(self._flush)
        self._turn.append(command)

    def seen(self, count: int) -> None:
        """The store has seen so many publications in this run of the server."""
        self.count = max(self.count, count)

    def forget_count(self) -> None:
        """Something is known to be lost: what there was before says nothing any more."""
        self.count = 0

    def tick(self, now: float) -> None:
        """Called several times a second: who answers too late is away."""
        if self.connection is not None:
            if self._sent and self._last + _TIMEOUT < now:
                self.connection.abort("it does not answer", silent=True)
        else:
            # A connection may be back at any moment; what can wait no longer is given up.
            late = [command for command in self._redo or () if command.deadline < now]
            if late:
                self._redo = [command for command in self._redo or () if command.deadline >= now] or None
                for command in late:
                    self._finish(command, command.given_up())

    # ----------------------------------------------------------------------------------------- connecting

    async def prepare(self, connection: Connection, said: dict[str, str]) -> None:
        """See `Supervised.prepare`: load the scripts, and see whether what was told is still there."""
        self._node.inspect(said)
        for script in ALL:
            await connection.ask("SCRIPT", "LOAD", script.text)
        run, places = run_of(said), self._places
        last = (self.run, self.count, places.publish, places.control)
        self.count = await connection.ask("EVALSHA", ADOPT.sha, 1, places.store, run, self._node.name, *last)

    def begin(self, connection: Connection) -> None:
        """See `Supervised.begin`."""
        connection.receive = self._reply
        again, self._redo = self._redo, None
        if again:
            now = self._loop.time()
            for command in again:
                command.deadline = now + _TIMEOUT
            self._write(again)

    def end(self, why: str) -> None:
        """See `Supervised.end`."""
        commands = [*self._sent, *(self._redo or ()), *self._turn]
        self._sent, self._turn = deque(), []
        now = self._loop.time()
        again = []
        for command in commands:
            if (command.again or command.undone) and command.deadline > now and self._task is not None:
                again.append(command)
            else:
                self._finish(command, command.given_up())
        self._redo = again or None

    async def close(self) -> None:
        """See `Supervised.close`: nothing stays without an answer."""
        await super().close()
        late, self._redo = self._redo, None
        for command in late or ():
            self._finish(command, command.given_up())

    # -------------------------------------------------------------------------------- writing and answering

    def _flush(self) -> None:
        commands, self._turn = self._turn, []
        if not commands:
            return
        if self._redo is not None:
            # Behind what was asked for earlier.
            self._redo += commands
        else:
            self._write(commands)

    def _write(self, commands: list[Command]) -> None:
        assert self.connection is not None
        run, node = self.run, self._node.name
        packed = [
            pack(*one.args)
            if one.script is None
            else pack("EVALSHA", one.script.sha, len(one.keys), *one.keys, run, node, *one.args)
            for one in commands
        ]
        self.connection.write(b"".join(packed))
        for command in commands:
            command.undone = False
        if not self._sent:
            self._last = self._loop.time()
        self._sent.extend(commands)

    def _reply(self, reply: Any) -> None:
        if not self._sent:
            assert self.connection is not None
            self.connection.abort("it answers what nobody asked")
            return
        self._last = self._loop.time()
        command = self._sent.popleft()
        if type(reply) is Refused or isinstance(reply, Refused):
            if self._refused(command, reply):
                return
            reply = _failure(reply)
        self._finish(command, reply)
        if self._redo is not None and not self._sent:
            self._start_over()

    def _refused(self, command: Command, error: Exception) -> bool:
        """Whether `command` was refused for a reason that goes away by starting over."""
        if reason(error) in _ELSEWHERE:
            # Like everything that was sent behind it: once the last of them is refused, all go again, in order.
            command.undone = True
            self._redo = self._redo or []
            self._redo.append(command)
            if not self._sent:
                self._start_over()
            return True
        return False

    def _start_over(self) -> None:
        # Connecting does all that is needed: scripts are loaded, and what was lost is found out.
        if self.connection is not None:
            self.connection.abort("its data or its scripts were removed, or another server is the primary")

    def _finish(self, command: Command, outcome: Any) -> None:
        self._node.load.remove(command.size)
        try:
            command.done(outcome)
        except Exception:
            # They promise to raise nothing; if one does, the others must still be answered.
            log.exception("an answer of Redis could not be handled")


def _failure(error: Exception) -> Exception:
    word = reason(error)
    if word in _PASSING:
        return Unavailable(_PASSING[word])
    if word in ("NOAUTH", "NOPERM", "WRONGPASS"):
        log.error("Redis refuses what the engine needs: %s", error)
        return Unavailable("Redis refuses what the engine needs")
    return HubbubError(f"Redis failed: {error}")
