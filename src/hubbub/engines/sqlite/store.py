"""The folder of a store: opened by one process at a time, looked through before anything is served from it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import secrets
import sqlite3
import time
from pathlib import Path
from typing import Final

from msgspec import Struct

from hubbub.engines.sqlite.mark import Mark
from hubbub.engines.sqlite.options import Durability
from hubbub.engines.sqlite.record import Damaged, check_of
from hubbub.engines.sqlite.schema import migrate, verify
from hubbub.errors import ConfigError

__all__ = ["About", "Store", "lock"]

log = logging.getLogger("hubbub.engines.sqlite")

_PAGE: Final = 4096
# Pages of write-ahead log after which it goes into the database: 16 MiB, read in some tens of milliseconds at a start.
_CHECKPOINT: Final = 4096
# Seconds to wait for another process that has the database locked, such as a backup.
_BUSY: Final = 5.0


class About(Struct):
    """What the store says about itself."""

    # New channels get this epoch, with the generation behind it.
    epoch: str
    # Goes up when a channel is forgotten, for one of that name would begin again at 1.
    generation: int
    # Transactions so far.
    commits: int

    @property
    def new_epoch(self) -> str:
        """The epoch of a channel that begins now."""
        return f"{self.epoch}.{self.generation}"

    @property
    def sealed(self) -> int:
        """The checksum of the row."""
        return check_of(self.epoch.encode(), self.generation, self.commits)


class Store:
    """An open store: the connection that writes, and the mark.

    Raises `ConfigError` where the folder cannot be used, is in use, or holds what is damaged: one sentence, with
    the remedy.
    """

    def __init__(self, folder: str, durability: Durability, most_bytes: int) -> None:
        self.folder = Path(folder)
        self.path = self.folder / "hubbub.db"
        with contextlib.ExitStack() as undo:
            self._lock = lock(self.folder)
            undo.callback(os.close, self._lock)
            try:
                self._open(durability, most_bytes, undo)
            except sqlite3.DatabaseError as error:
                # OperationalError is one, too: a disk that cannot be read, or is full.
                raise ConfigError(_why_not(error, self.path)) from error
            except Damaged as error:
                raise ConfigError(f"{self.path} is damaged ({error}): {_REMEDY}") from error
            except OSError as error:
                raise ConfigError(f"{self.folder} cannot be used ({error.strerror}): see to its permissions") from error
            undo.pop_all()

    def _open(self, durability: Durability, most_bytes: int, undo: contextlib.ExitStack) -> None:
        self.mark = Mark(self.folder / "hubbub.mark", safe=durability is Durability.FULL)
        undo.callback(self.mark.close)
        marked = self.mark.read()
        if marked.commits and (not self.path.exists() or not self.path.stat().st_size):
            raise Damaged(f"it is empty, and {marked.commits} transactions had been written to it")
        self.database = self.connect()
        undo.callback(self.database.close)
        began = time.monotonic()
        database = self.database
        # WAL: who reads does not wait for who writes. FULL: a transaction is over when it is on disk.
        database.execute(f"PRAGMA page_size = {_PAGE}")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute(f"PRAGMA synchronous = {'FULL' if durability is Durability.FULL else 'NORMAL'}")
        # Seldom: a page that many transactions change is written to its place once.
        database.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT}")
        # Where fsync alone stops at the drive's cache (macOS).
        database.execute("PRAGMA fullfsync = ON")
        database.execute(f"PRAGMA max_page_count = {most_bytes // _PAGE + 64}")
        migrate(database, str(self.path))
        verify(database)
        if (seconds := time.monotonic() - began) > 1:
            log.info("looked through %s in %.1f s", self.path, seconds)
        self.about = self._begin(marked.commits, marked.doubtful)
        # On disk, before anything is served: the last one may have been clean, or of another durability.
        self.mark.write(self.about.commits, sync=True)
        _sync(self.folder)

    def connect(self) -> sqlite3.Connection:
        """One more connection to the file, for a thread of its own."""
        database = sqlite3.connect(self.path, timeout=_BUSY, isolation_level=None, check_same_thread=False)
        # Damaged text must be seen by who compares checksums, not fail in a decoder before.
        database.text_factory = bytes
        database.execute("PRAGMA cell_size_check = ON")
        return database

    def close(self) -> None:
        """Close in order: what is committed is on disk."""
        self.database.close()
        # Whoever closes last brings the log into the database, and removes it. A backup may hold it open.
        clean = not self.path.with_name(self.path.name + "-wal").exists()
        self.mark.write(self.about.commits, clean=clean, sync=True)
        self.mark.close()
        os.close(self._lock)

    def _begin(self, marked: int, doubtful: bool) -> About:
        row = self.database.execute("SELECT epoch, generation, commits FROM about").fetchone()
        about = About(secrets.token_hex(4), 0, 0) if row is None else About(row[0].decode(), row[1], row[2])
        lost = marked - about.commits
        self.database.execute("BEGIN IMMEDIATE")
        if row is not None and (lost > 0 or doubtful):
            if lost > 0:
                log.error(
                    "%s has lost its last %d transactions: it was cut short, or its -wal file is missing or damaged. "
                    "What is left is whole. Clients are told that they cannot resume.",
                    self.path,
                    lost,
                )
            else:
                log.warning(
                    "%s may have lost its end (a reboot in durability normal, or a copy without hubbub.mark): "
                    "clients are told that they cannot resume",
                    self.path,
                )
            # What was lost had seqs, and they will be used again.
            about = About(secrets.token_hex(4), 0, max(marked, about.commits))
            self._renew_channels(about.new_epoch)
        about.commits += 1
        self.database.execute(
            "INSERT INTO about VALUES (1, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET epoch = excluded.epoch, "
            "generation = excluded.generation, commits = excluded.commits, sealed = excluded.sealed",
            (about.epoch, about.generation, about.commits, about.sealed),
        )
        self.database.execute("COMMIT")
        return about

    def _renew_channels(self, epoch: str) -> None:
        rows = self.database.execute("SELECT id, name, seq, cursor FROM channels").fetchall()
        self.database.executemany(
            "UPDATE channels SET epoch = ?, sealed = ? WHERE id = ?",
            (
                (epoch, check_of(id, name, epoch.encode(), seq, cursor), id)  # as they are read: text as bytes
                for id, name, seq, cursor in rows
            ),
        )


_REMEDY: Final = "put a backup of it in its place and remove hubbub.mark, or move the folder away and begin anew"


def lock(folder: Path) -> int:
    """Hold the folder against other processes, making it where there is none; the file to close in the end.

    Raises `ConfigError` where that cannot be.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        held = os.open(folder / "hubbub.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise ConfigError(f"{folder} is a file: --data names a folder") from None
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be written to ({error.strerror}): see to its permissions, or name another with --data"
        ) from error
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(held)
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise ConfigError(f"{folder} cannot be locked ({error.strerror}): it must be on a local disk") from error
        raise ConfigError(
            f"{folder} is in use by another hubbub: stop that one, or name another folder with --data"
        ) from None
    return held


def _sync(folder: Path) -> None:
    """Have the names of new files on disk, too."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _why_not(error: sqlite3.DatabaseError, path: Path) -> str:
    if isinstance(error, sqlite3.OperationalError):
        return f"{path} cannot be opened ({error}): see to the disk and to the permissions of its folder"
    return f"{path} is damaged ({error}): {_REMEDY}"
