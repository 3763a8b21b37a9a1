"""The one who writes: in the writer's thread, one transaction for all the jobs that wait at once.

It alone numbers messages and knows retries, so none of that needs a lock. What it remembers of a channel is a copy
of what is in the file: it can be dropped at any time, and is when a transaction fails.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Any

from hubbub.core import record
from hubbub.core.log import HistoryLimits, Retention
from hubbub.engines.base import Accepted
from hubbub.engines.sqlite.heads import Head, Heads
from hubbub.engines.sqlite.jobs import Acknowledge, Append, Ask, Job
from hubbub.engines.sqlite.listening import Listening
from hubbub.engines.sqlite.record import Damaged, check_of, open_records, seal
from hubbub.engines.sqlite.rows import Rows
from hubbub.engines.sqlite.store import About, Store
from hubbub.engines.sqlite.sweep import Sweep
from hubbub.errors import Unavailable
from hubbub.types import Publication, inbox_channel

__all__ = ["Writer"]

log = logging.getLogger("hubbub.engines.sqlite")


class Writer:
    """Performs jobs on a store, a transaction at a time."""

    def __init__(
        self,
        store: Store,
        limits: HistoryLimits,
        retention: Callable[[str], Retention],
        listening: Listening,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._database = store.database
        self._limits = limits
        self._listening = listening
        self._clock = clock
        self._heads = Heads(self._database, limits, retention)

        # What this transaction has touched: to be forgotten when it fails.
        self._touched: dict[str, Head] = {}

        (last, count) = self._database.execute("SELECT max(id), count(*) FROM channels").fetchone()
        self._next_id: int = (last or 0) + 1
        self.channels: int = count
        # How many there will be more, once this transaction is over.
        self._grown = 0
        # The channels that this transaction has forgotten.
        self._forgotten: dict[str, None] = {}
        # Whether it has anything else to write.
        self._dirty = False

        self._messages = Rows("INSERT INTO messages (channel, seq, time, record)", 4)
        self._rows = Rows(
            "INSERT INTO channels (id, name, epoch, seq, cursor, sealed)",
            6,
            "ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch, seq = excluded.seq, cursor = excluded.cursor, "
            "sealed = excluded.sealed",
        )

        # Whether the last transaction failed.
        self._failing = False

        # Whether something was read that is not as it was written.
        self.damaged = False

        self._sweep = Sweep(self._database, self._heads, listening, self, limits.history_bytes)

    # ------------------------------------------------------------------------------------- transactions

    def perform(self, jobs: list[Job]) -> int:
        """Do `jobs` in order, and set their outcomes; returns the number of the last transaction.

        All that store something succeed or fail together, except those that want to be alone.
        """
        at = 0
        for place, job in enumerate(jobs):
            if type(job) is Ask and job.alone:
                self._transact(jobs[at:place])
                self._transact([job])
                at = place + 1
        self._transact(jobs[at:])
        self._heads.shrink()
        return self._store.about.commits

    def _transact(self, jobs: list[Job]) -> None:
        now = int(self._clock() * 1000)
        try:
            for job in jobs:
                try:
                    job.outcome = self._do(job, now)
                except (sqlite3.Error, OSError):
                    raise
                except Exception as error:
                    # This job's own fault, before it changed anything.
                    job.outcome = self._failed(error)
            if self._touched or self._dirty:
                self._commit()
                self._failing = False
        except Exception as error:
            self._undo()
            outcome = self._failed(error)
            for job in jobs:
                job.outcome = outcome if job.stores else self._without_storing(job, now)

    def _without_storing(self, job: Job, now: int) -> Any:
        """What needs no space is done in spite of those that do: who comes back is let in, and gets what is there."""
        try:
            return self._do(job, now)
        except Exception as error:
            return self._failed(error)

    def _do(self, job: Job, now: int) -> Any:
        if type(job) is Append:
            return self._append(job, now)
        if type(job) is Acknowledge:
            return self._acknowledge(job.user, job.seq, now)
        assert isinstance(job, Ask)
        return job.question(self)

    def _commit(self) -> None:
        database, about = self._database, self._store.about
        if not database.in_transaction:
            database.execute("BEGIN IMMEDIATE")
        self._messages.write(database)
        for head in self._touched.values():
            if head.changed:
                self._add_row(head)
        self._rows.write(database)
        after = About(about.epoch, about.generation + len(self._forgotten), about.commits + 1)
        database.execute(
            "UPDATE about SET generation = ?, commits = ?, sealed = ?", (after.generation, after.commits, after.sealed)
        )
        database.execute("COMMIT")
        about.commits = after.commits
        if self._forgotten:
            self._listening.forget(self._forgotten, partial(self._renew, after.generation))
            self._forgotten.clear()
        for head in self._touched.values():
            head.changed = False
        self._touched.clear()
        self._dirty = False
        self.channels += self._grown
        self._grown = 0
        self._mark()

    def _renew(self, generation: int) -> str:
        # Not before the commit: an epoch that is not in the file could be given away, and then again.
        self._store.about.generation = generation
        return self._store.about.new_epoch

    def _mark(self) -> None:
        try:
            self._store.mark.write(self._store.about.commits)
        except OSError as error:
            # The messages are safe; only a loss of them would go unnoticed.
            log.warning("the store's mark cannot be written: %s", error.strerror)

    def _undo(self) -> None:
        self._messages.clear()
        self._rows.clear()
        self._grown = 0
        self._dirty = False
        self._forgotten.clear()
        for name in self._touched:
            self._heads.drop(name)
        self._touched.clear()
        if self._database.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")

    def _failed(self, error: Exception) -> Exception:
        """What to tell who asked; the operator is told once, not with each message."""
        if isinstance(error, Unavailable):
            return error
        if isinstance(error, Damaged):
            if not self.damaged:
                log.error("the store is damaged: %s", error)
            self.damaged = True
            return Unavailable("the store is damaged here", retry_after=60)
        if not isinstance(error, sqlite3.Error | OSError):
            return error
        if not self._failing:
            log.error("the store cannot be written to, messages are refused: %s", error)
        self._failing = True
        return Unavailable("the store cannot be written to", retry_after=1.0)

    # -------------------------------------------------------------------------------------------- jobs

    def _append(self, job: Append, now: int) -> Accepted:
        if job.volatile:
            return Accepted(self._store.about.new_epoch, None)
        name, publication = job.channel, job.publication
        key = None if publication.id is None else (publication.from_, publication.id)
        head = self._heads.get(name, now)
        if head is not None and key is not None:
            known = head.known.get(key)
            if known is not None and known[1] > now:
                return Accepted(head.epoch, known[0], True)
        seq = publication.seq = 1 if head is None else head.seq + 1
        # Nothing is changed before the last step that can fail.
        job.body = body = record.encode(publication)
        if head is None:
            head = self._begin(name)
        time = max(now, head.time)
        self._messages.add(head.id, seq, time, seal(head.id, seq, time, body))
        self.touch(head, row=False)
        head.seq, head.time = seq, time
        if key is not None:
            self._heads.remember(head, key, seq, now)
        if publication.receipt:
            head.receipts.append(seq)
        if seq - head.first >= head.most:
            self._sweep.note(name)
        return Accepted(head.epoch, seq)

    def _acknowledge(self, user: str, seq: int, now: int) -> list[Publication] | None:
        head = self._heads.get(inbox_channel(user), now)
        if head is None or seq > head.seq:
            return None
        if seq <= (head.cursor or 0):
            return []
        due = [waiting for waiting in head.receipts if waiting <= seq]
        # Nothing is changed before the last step that can fail.
        found = self._due(head, due, now) if due else []
        head.receipts = head.receipts[len(due) :]
        head.cursor = seq
        self.touch(head, row=True)
        return found

    def _due(self, head: Head, seqs: list[int], now: int) -> list[Publication]:
        # Some may have been appended by this very transaction.
        self.flush()
        lowest = self._heads.lowest(head.name, head.seq, now)
        found = []
        for seq in seqs:
            row = self._database.execute(
                "SELECT record FROM messages WHERE channel = ? AND seq = ?", (head.id, seq)
            ).fetchone()
            if row is not None:
                (opened,) = open_records(head.id, row[0])
                if seq > lowest[0] and opened.time > lowest[1]:
                    found.append(record.decode(opened.body))
        return found

    def touch(self, head: Head, *, row: bool) -> None:
        """See `Change.touch`."""
        head.changed = head.changed or row
        self._touched[head.name] = head

    def flush(self) -> None:
        """See `Change.flush`."""
        if not self._database.in_transaction:
            self._database.execute("BEGIN IMMEDIATE")
        self._messages.write(self._database)

    def accepted(self, channel: str, from_: str, id: str) -> Accepted | None:
        """See `Engine.accepted`."""
        now = int(self._clock() * 1000)
        head = self._heads.get(channel, now)
        known = None if head is None else head.known.get((from_, id))
        if head is None or known is None or known[1] <= now:
            return None
        return Accepted(head.epoch, known[0], True)

    def cursor(self, user: str) -> int | None:
        """See `Engine.cursor`."""
        head = self._heads.get(inbox_channel(user), int(self._clock() * 1000))
        return None if head is None else head.cursor

    def check(self) -> None:
        """Have something written, the real way."""
        self._dirty = True

    def sweep(self) -> bool:
        """Delete some of what is no longer kept; whether there is more to do at once."""
        return self._sweep.step(int(self._clock() * 1000))

    def _begin(self, name: str) -> Head:
        if self.channels + self._grown >= self._limits.channels:
            raise Unavailable("too many channels have a history", retry_after=60)
        self._grown += 1
        about = self._store.about
        epoch = None if name in self._forgotten else self._listening.epoch(name)
        if epoch is None:
            epoch = About(about.epoch, about.generation + len(self._forgotten), 0).new_epoch
        head = Head(self._next_id, name, epoch, self._heads.most(name))
        self._next_id += 1
        head.changed = True
        self._heads.add(head)
        return head

    def _add_row(self, head: Head) -> None:
        fields = (head.id, head.name.encode(), head.epoch.encode(), head.seq, head.cursor)
        self._rows.add(head.id, head.name, head.epoch, head.seq, head.cursor, check_of(*fields))

    # ---------------------------------------------------------------------------------------- channels

    def forget(self, head: Head) -> None:
        """See `Change.forget`: one of its name will have another epoch."""
        self.flush()
        self._touched.pop(head.name, None)
        self._heads.drop(head.name)
        self._database.execute("DELETE FROM channels WHERE id = ?", (head.id,))
        self._dirty = True
        self._grown -= 1
        self._forgotten[head.name] = None
