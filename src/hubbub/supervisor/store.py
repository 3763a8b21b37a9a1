"""The private nats-server of workers for which no engine is named: what they share, and where it is kept."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import Final

from hubbub.config import Config
from hubbub.engines.nats.connection import Refused
from hubbub.engines.nats.doubt import doubt
from hubbub.engines.sqlite.mark import Mark
from hubbub.engines.sqlite.options import Durability
from hubbub.engines.sqlite.store import lock
from hubbub.errors import ConfigError
from hubbub.supervisor.pace import Pace
from hubbub.supervisor.process import Child, how
from hubbub.worker import FOLDER

__all__ = ["Store"]

log = logging.getLogger("hubbub.supervisor")

# Seconds for it to take connections: a large store is looked through.
_READY: Final = 60.0
# Seconds for it to end.
_END: Final = 10.0
# Seconds between two looks whether it still answers, and for each answer; and how many in a row may be missing.
_LOOK: Final = 5.0
_MISSING: Final = 3
# Bytes that must be free before it is worth letting it write again.
_ROOM: Final = 16_777_216
# Where the kernels take no port from for those who ask for any: one that was ours a moment ago is still free, and a
# worker that tries to come back meanwhile cannot be given it as its own end.
_PORTS: Final = range(20_000, 32_000)

# Of the temporary folders: nobody else's begin like this.
_PREFIX: Final = "hubbub-workers-"

# The largest message of a client may have 16 MiB of content, and some more in another codec. Streams set aside what
# they may hold, each `history_bytes`, and are refused where that is more than 3/4 of what is free: a small disk would
# do for one that stores little, and one that has room today would not tomorrow.
_CONFIG: Final = """
listen: "127.0.0.1:{port}"
authorization {{ user: hubbub, password: "{password}" }}
max_payload: 67108864
max_pending: 268435456
jetstream {{ store_dir: {folder}, sync_interval: {sync}, max_file: 1PB }}
"""


# What it says about this, each time: nobody but us can read the password, and large messages are wanted.
_KNOWN: Final = ("Plaintext passwords", "Maximum payloads")
# After this it writes to a stream no more, whether there is room again or not, and says nothing to who publishes.
_FAILED: Final = "critical write error"


class Store:
    """One nats-server on the loopback, with a password that nobody else knows; started again when it dies or hangs."""

    def __init__(self, config: Config) -> None:
        self._data = config.store.data
        self._full = config.store.durability is Durability.FULL
        self._port = 0
        self._password = secrets.token_urlsafe(24)
        self._program = self._settings = ""
        # Where its settings are while it reads them.
        self._file = Path()
        # Where it keeps what it is given.
        self._folder = Path()
        # Held by it, too: where it outlives us, nobody else opens what it has open.
        self._lock: int | None = None
        self._child: Child | None = None
        # Says in the next run whether the end of what is stored now may be missing; None where nothing is to stay.
        self._mark: Mark | None = None
        # Whether it has failed to write something.
        self._failed = False
        self._reading: asyncio.Task[str] | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._undo = contextlib.AsyncExitStack()

    async def start(self) -> str:
        """Start it; its URL, with the password. Raises `ConfigError`."""
        self._program = _program()
        async with contextlib.AsyncExitStack() as undo:
            home = Path(self._data)
            if not self._data:
                await asyncio.to_thread(_clear)
                home, self._lock = _temporary()
                undo.push_async_callback(asyncio.to_thread, shutil.rmtree, home, ignore_errors=True)
            else:
                self._lock = _hold(home)
            undo.callback(os.close, self._lock)
            self._folder, self._file = home / FOLDER, home / "nats.conf"
            if self._data:
                # Not inside of what is nats-server's.
                self._mark = Mark(home / f"{FOLDER}.mark", safe=self._full)
                undo.callback(self._mark.close)
            undo.push_async_callback(self._end)
            self._port = _free_port()
            self._settings = _CONFIG.format(
                port=self._port,
                password=self._password,
                folder=_quoted(str(self._folder)),
                # What is gone with the processes need not survive a power cut.
                sync="always" if self._full and self._data else '"1s"',
            )
            await self._run()
            url = f"nats://hubbub:{self._password}@127.0.0.1:{self._port}"
            if self._mark is not None:
                await _begin(self._mark, url, self._folder)
            self._keeping = asyncio.get_running_loop().create_task(self._keep())
            self._undo = undo.pop_all()
        return url

    async def stop(self) -> None:
        """End it, and remove what was only for this run; harmless twice."""
        await self._undo.aclose()

    async def _end(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        if self._child is not None:
            self._child.signal(signal.SIGTERM)
            status = await self._child.end(_END)
            if self._mark is not None and self._keeping is not None:
                # Whoever ends in order has everything on disk.
                self._mark.write(0, clean=status == 0, sync=True)
        if self._reading is not None:
            await self._reading

    async def _run(self) -> None:
        """Start it, and wait until it takes connections."""
        assert self._lock is not None
        self._failed = False
        # It has the password: for its owner's eyes, and only as long as it is read.
        self._file.touch(0o600)
        self._file.write_text(self._settings, encoding="utf-8")
        command = (self._program, "-c", str(self._file))
        try:
            child = self._child = await Child.start(command, os.environ, (self._lock,), stderr=asyncio.subprocess.PIPE)
            self._reading = asyncio.get_running_loop().create_task(self._log(child))
            await self._until_it_answers(child, self._reading)
        finally:
            self._file.unlink()

    async def _until_it_answers(self, child: Child, reading: asyncio.Task[str]) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _READY
        while not await self._answers():
            if not child.lives or loop.time() > deadline:
                child.signal(signal.SIGKILL)
                raise ConfigError(f"the nats-server that the workers share does not start: {await reading}")
            await asyncio.sleep(0.05)

    async def _answers(self) -> bool:
        """Whether it takes connections, and keeps what it is given."""
        try:
            async with asyncio.timeout(_LOOK):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                try:
                    said = await reader.readline()
                finally:
                    writer.transport.abort()
        except (OSError, TimeoutError, ValueError):
            return False
        return said.startswith(b"INFO ") and b'"jetstream":true' in said

    async def _keep(self) -> None:
        """Start it again whenever it has to be."""
        pace = Pace()
        while True:
            child = self._child
            assert child is not None
            log.error("the nats-server that the workers share %s: it is started again", await self._trouble(child))
            child.signal(signal.SIGTERM)
            await child.end(_END)
            await asyncio.sleep(pace.wait(child.lived))
            try:
                await self._run()
            except (ConfigError, OSError) as error:
                log.error("%s", error)

    async def _trouble(self, child: Child) -> str:
        """Wait until something is wrong with it that a new start mends; what that is."""
        missing = 0
        while True:
            await asyncio.wait((child.ended,), timeout=_LOOK)
            if not child.lives:
                return f"has ended ({how(child.ended.result())})"
            missing = 0 if await self._answers() else missing + 1
            if missing == _MISSING:
                # It would hear nothing else.
                child.signal(signal.SIGKILL)
                return "does not answer"
            if self._failed and self._has_room():
                return "could not write, and there is room again"

    def _has_room(self) -> bool:
        try:
            return shutil.disk_usage(self._folder).free > _ROOM
        except OSError:
            return False

    async def _log(self, child: Child) -> str:
        """Pass on what it warns of; the last that it said."""
        last, told = "", ""
        assert child.errors is not None
        while True:
            try:
                line = await child.errors.readline()
            except ValueError:
                # Longer than anything that it has to say.
                continue
            if not line:
                return last
            last = line.decode(errors="replace").strip() or last
            # As in: [4711] 2026/01/31 12:00:00.000000 [WRN] text
            for mark, level in (("[WRN] ", logging.WARNING), ("[ERR] ", logging.ERROR), ("[FTL] ", logging.ERROR)):
                text = last.partition(mark)[2]
                self._failed |= _FAILED in text.lower()
                # Where it cannot write, it says so for each message.
                if text and text != told and not text.startswith(_KNOWN):
                    told = text
                    log.log(level, "nats-server: %s", text)


def _hold(home: Path) -> int:
    """Keep others out of the folder of `data`; the file that does it."""
    held = lock(home)
    others = [found.name for found in home.iterdir() if found.suffix == ".db"]
    if others:
        os.close(held)
        raise ConfigError(
            f"{home} holds what a server of one process has stored ({others[0]}): name another folder in data, "
            "or start without workers"
        )
    return held


def _temporary() -> tuple[Path, int]:
    """A folder for this run, and the file that keeps others out; raises `OSError`."""
    while True:
        home = Path(tempfile.mkdtemp(prefix=_PREFIX))
        # Who clears up temporary folders leaves those alone that somebody has locked. Until it is, another supervisor
        # that starts may take it for a dead one's and remove it: then the next.
        held = _locked(home)
        if held is not None:
            return home, held


def _locked(home: Path) -> int | None:
    """The file that keeps others out of a temporary folder of ours; None where another has it. Raises `OSError`."""
    held = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    # Whoever had it may have removed it meanwhile.
    with contextlib.suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(held), home.stat()):
            return held
    os.close(held)
    return None


def _clear() -> None:
    """Remove the temporary folders of those who were killed: nothing that lives holds them."""
    for home in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        # A link, somebody else's, or gone.
        with contextlib.suppress(OSError):
            held = _locked(home) if home.lstat().st_uid == os.geteuid() else None
            if held is not None:
                shutil.rmtree(home, ignore_errors=True)
                os.close(held)


async def _begin(mark: Mark, url: str, folder: Path) -> None:
    """Look whether it may have lost its end, and say so to who comes; raises `ConfigError`."""
    if mark.read().doubtful:
        try:
            if await doubt(url):
                log.warning(
                    "%s may have lost its end (a reboot in durability normal, or a copy without its mark): clients are "
                    "told that they cannot resume",
                    folder,
                )
        except (OSError, Refused) as error:
            raise ConfigError(f"the nats-server that the workers share cannot be used: {error}") from None
    mark.write(0, sync=True)


def _program() -> str:
    # The package puts it beside the interpreter, which need not be in PATH.
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise ConfigError(
            "several workers need an engine that they share: `pip install 'hubbub[workers]'` brings one that they run "
            "by themselves, or name your own with --engine"
        )
    return found


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _free_port() -> int:
    # Free for now: where somebody takes it in the next moment, the server says so and does not start.
    while True:
        port = secrets.choice(_PORTS)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
