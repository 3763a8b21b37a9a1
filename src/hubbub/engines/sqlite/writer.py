"""The one who writes: in the writer's thread, one transaction for all the jobs that wait at once.

It alone numbers messages and knows retries, so nothing here needs a lock. What it remembers of a channel is a copy
of what is in the file: it can be dropped at any time, and is when a transaction fails.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec
from msgspec import Struct, field

from hubbub.core.log import HistoryLimits, Retention
from hubbub.engines.base import Accepted
from hubbub.engines.sqlite.jobs import Acknowledge, Append, Ask, Job
from hubbub.engines.sqlite.listening import Listening
from hubbub.engines.sqlite.record import SEPARATOR, Damaged, check_of, open_records, seal
from hubbub.engines.sqlite.rows import Rows
from hubbub.engines.sqlite.store import About, Store
from hubbub.errors import Unavailable
from hubbub.protocol import json
from hubbub.types import Publication, inbox_channel, user_of

__all__ = ["Writer"]

log = logging.getLogger("hubbub.engines.sqlite")

# Channels that are remembered; those used least lately are read again when they are needed.
_HEADS: Final = 20_000
# Messages that are read together when a channel is.
_TRACES: Final = 500
# Channels that one step of a sweep looks at, those of them that it works on, and messages that it deletes: publishers
# wait meanwhile.
_SWEEP: Final = 1000
_WORK: Final = 20
_DELETE: Final = 2000
# Seconds that are as good as any longer time.
_FOR_EVER: Final = 1e11

# One row about many channels: what is in the file of each.
_CHANNELS: Final = (
    "SELECT group_concat(id || ' ' || first || ' ' || last || ' ' || oldest || ' ' || name, x'1e') FROM "
    "(SELECT id, name, "
    "coalesce((SELECT min(seq) FROM messages WHERE channel = id), 0) AS first, "
    "coalesce((SELECT max(seq) FROM messages WHERE channel = id), 0) AS last, "
    "coalesce((SELECT time FROM messages WHERE channel = id ORDER BY seq LIMIT 1), 0) AS oldest "
    "FROM channels WHERE id > ? ORDER BY id LIMIT ?)"
)

_decode = msgspec.json.Decoder(Publication).decode


class _Trace(Struct, gc=False):
    """What of a message must be known as long as it can be repeated, or acknowledged."""

    from_: str = field(name="from", default="")
    id: str | None = None
    receipt: bool = False


_decode_trace = msgspec.json.Decoder(_Trace).decode


class _Head:
    """A channel as the writer remembers it."""

    __slots__ = ("changed", "cursor", "epoch", "first", "id", "known", "most", "name", "receipts", "seq", "time")

    def __init__(self, id: int, name: str, epoch: str, most: int) -> None:
        self.id = id
        self.name = name
        self.epoch = epoch
        # The newest message's; and its time in ms, for a channel's times never go back.
        self.seq = 0
        self.time = 0
        # The oldest message in the file.
        self.first = 1
        # How many retention keeps; there may be more in the file.
        self.most = most
        self.cursor: int | None = None
        # By (from, id): seq, and until when a retry is one, in ms. In the order of expiry.
        self.known: dict[tuple[str, str], tuple[int, int]] = {}
        # The seqs beyond the cursor that want a receipt, oldest first.
        self.receipts: list[int] = []
        # Whether the row of the channel must be written.
        self.changed = False


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
        self._retention = retention
        self._listening = listening
        self._clock = clock
        self._window = int(min(limits.dedupe_window, _FOR_EVER) * 1000)

        # The least lately used first.
        self._heads: dict[str, _Head] = {}
        # What this transaction has touched: to be forgotten when it fails.
        self._touched: dict[str, _Head] = {}

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

        # Where the sweep goes on: the id of a channel.
        self._swept = 0
        # Channels that were written to since they were last trimmed.
        self._untrimmed: dict[str, None] = {}

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
        while len(self._heads) > _HEADS:
            del self._heads[next(iter(self._heads))]
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
            self._heads.pop(name, None)
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
        head = self._head(name, now)
        if head is not None and key is not None:
            known = head.known.get(key)
            if known is not None and known[1] > now:
                return Accepted(head.epoch, known[0], True)
        seq = publication.seq = 1 if head is None else head.seq + 1
        # Nothing is changed before the last step that can fail.
        job.body = body = json.encode(publication)
        if head is None:
            head = self._begin(name)
        time = max(now, head.time)
        self._messages.add(head.id, seq, time, seal(head.id, seq, time, body))
        self._touched[name] = head
        head.seq, head.time = seq, time
        if key is not None:
            self._remember(head, key, seq, now)
        if publication.receipt:
            head.receipts.append(seq)
        if seq - head.first >= head.most:
            self._untrimmed[name] = None
        return Accepted(head.epoch, seq)

    def _remember(self, head: _Head, key: tuple[str, str], seq: int, now: int) -> None:
        known = head.known
        while known:
            oldest = next(iter(known))
            if known[oldest][1] > now and len(known) < self._limits.dedupe_size:
                break
            del known[oldest]
        # An expired entry of the same key may still be there: out, so that the order stays that of expiry.
        known.pop(key, None)
        known[key] = (seq, now + self._window)

    def _acknowledge(self, user: str, seq: int, now: int) -> list[Publication] | None:
        head = self._head(inbox_channel(user), now)
        if head is None or seq > head.seq:
            return None
        if seq <= (head.cursor or 0):
            return []
        due = [waiting for waiting in head.receipts if waiting <= seq]
        # Nothing is changed before the last step that can fail.
        found = self._due(head, due, now) if due else []
        head.receipts = head.receipts[len(due) :]
        head.cursor = seq
        head.changed = True
        self._touched[head.name] = head
        return found

    def _due(self, head: _Head, seqs: list[int], now: int) -> list[Publication]:
        # Some may have been appended by this very transaction.
        self._flush()
        lowest = self._lowest(head.name, head.seq, now)
        found = []
        for seq in seqs:
            row = self._database.execute(
                "SELECT record FROM messages WHERE channel = ? AND seq = ?", (head.id, seq)
            ).fetchone()
            if row is not None:
                (opened,) = open_records(head.id, row[0])
                if seq > lowest[0] and opened.time > lowest[1]:
                    found.append(_decode(opened.body))
        return found

    def _flush(self) -> None:
        if not self._database.in_transaction:
            self._database.execute("BEGIN IMMEDIATE")
        self._messages.write(self._database)

    def accepted(self, channel: str, from_: str, id: str) -> Accepted | None:
        """See `Engine.accepted`."""
        now = int(self._clock() * 1000)
        head = self._head(channel, now)
        known = None if head is None else head.known.get((from_, id))
        if head is None or known is None or known[1] <= now:
            return None
        return Accepted(head.epoch, known[0], True)

    def cursor(self, user: str) -> int | None:
        """See `Engine.cursor`."""
        head = self._head(inbox_channel(user), int(self._clock() * 1000))
        return None if head is None else head.cursor

    def check(self) -> None:
        """Have something written, the real way."""
        self._dirty = True

    # ------------------------------------------------------------------------------------------- heads

    def _head(self, name: str, now: int) -> _Head | None:
        """The channel, read from the file where it is not remembered; None where there is none."""
        try:
            head = self._heads.pop(name, None) or self._read(name, now)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            # Here the file is not what it should be. Others need not suffer for it.
            raise Damaged(str(error)) from error
        if head is not None:
            self._heads[name] = head
        return head

    def _read(self, name: str, now: int) -> _Head | None:
        row = self._database.execute(
            "SELECT id, name, epoch, seq, cursor, sealed FROM channels WHERE name = ?", (name,)
        ).fetchone()
        if row is None:
            return None
        if check_of(*row[:5]) != row[5]:
            raise Damaged(f"channel {row[0]} is not as it was written")
        head = _Head(row[0], name, row[2].decode(), self._retention(name).size)
        head.cursor = row[4]
        (first,) = self._database.execute("SELECT min(seq) FROM messages WHERE channel = ?", (head.id,)).fetchone()
        last = self._database.execute(
            "SELECT seq, time FROM messages WHERE channel = ? ORDER BY seq DESC LIMIT 1", (head.id,)
        ).fetchone()
        head.seq, head.time = last or (row[3], 0)
        head.first = head.seq + 1 if first is None else first
        self._read_traces(head, now)
        return head

    def _read_traces(self, head: _Head, now: int) -> None:
        """Which retries and receipts of what lies in the file are still to be known."""
        unread = (head.cursor or 0) if user_of(head.name) is not None else head.seq
        # A channel's times never go back: what is young enough is an unbroken end of it.
        (young,) = self._database.execute(
            "SELECT min(seq) FROM messages WHERE channel = ? AND seq > ? AND time > ?",
            (head.id, head.seq - self._limits.dedupe_size, now - self._window),
        ).fetchone()
        at, together = min(unread, head.seq if young is None else young - 1), _TRACES
        while at < head.seq:
            try:
                (joined,) = self._database.execute(
                    "SELECT group_concat(record, x'1e') FROM "
                    "(SELECT record FROM messages WHERE channel = ? AND seq > ? ORDER BY seq LIMIT ?)",
                    (head.id, at, together),
                ).fetchone()
            except sqlite3.DataError:
                # Too large for one row.
                if together == 1:
                    raise
                together = max(1, together // 8)
                continue
            found = open_records(head.id, joined)
            for opened in found:
                trace = _decode_trace(opened.body)
                if trace.id is not None and young is not None and opened.seq >= young:
                    head.known[trace.from_, trace.id] = (opened.seq, opened.time + self._window)
                if trace.receipt and opened.seq > unread:
                    head.receipts.append(opened.seq)
            at = found[-1].seq if found else head.seq

    def _begin(self, name: str) -> _Head:
        if self.channels + self._grown >= self._limits.channels:
            raise Unavailable("too many channels have a history", retry_after=60)
        self._grown += 1
        about = self._store.about
        epoch = None if name in self._forgotten else self._listening.epoch(name)
        if epoch is None:
            epoch = About(about.epoch, about.generation + len(self._forgotten), 0).new_epoch
        head = _Head(self._next_id, name, epoch, self._retention(name).size)
        self._next_id += 1
        head.changed = True
        self._heads[name] = head
        return head

    def _add_row(self, head: _Head) -> None:
        fields = (head.id, head.name.encode(), head.epoch.encode(), head.seq, head.cursor)
        self._rows.add(head.id, head.name, head.epoch, head.seq, head.cursor, check_of(*fields))

    # ------------------------------------------------------------------------------------------- sweep

    def _lowest(self, name: str, seq: int, now: int) -> tuple[int, int]:
        """What is kept of a channel that ends at `seq`: what is beyond this seq, and younger than this time (ms)."""
        retention = self._retention(name)
        return seq - retention.size, now - int(min(retention.age, _FOR_EVER) * 1000)

    def sweep(self) -> bool:
        """Delete some of what is no longer kept; whether there is more to do at once.

        A message stays in the file until neither retention nor the memory of its id needs it.
        """
        now = int(self._clock() * 1000)
        budget = _DELETE
        while self._untrimmed and budget > 0:
            name = next(iter(self._untrimmed))
            head = self._head(name, now)
            budget -= 1 if head is None else 1 + self._trim(head, now, budget)
            if budget > 0:
                del self._untrimmed[name]
        return self._sweep_some(now) if not self._untrimmed else True

    def _sweep_some(self, now: int) -> bool:
        """Look at the next channels in the file, written to lately or not; whether some of them must wait."""
        (joined,) = self._database.execute(_CHANNELS, (self._swept, _SWEEP)).fetchone()
        rows = joined.split(SEPARATOR) if joined else []
        full = self._used() > self._limits.history_bytes
        worked = 0
        for row in rows:
            id, first, last, oldest, name = row.split(b" ", 4)
            channel = name.decode()
            if self._has_work(channel, int(first), int(last), int(oldest), now, full=full):
                if worked == _WORK:
                    return True
                worked += 1
                self._work_on(channel, now, full=full)
            self._swept = int(id)
        if len(rows) < _SWEEP:
            self._swept = 0
        return False

    def _has_work(self, name: str, first: int, last: int, oldest: int, now: int, *, full: bool) -> bool:
        if not first:
            return name not in self._listening
        lowest, youngest = self._lowest(name, last, now)
        return oldest <= now - self._window and (full or oldest <= youngest or first <= lowest)

    def _work_on(self, name: str, now: int, *, full: bool) -> None:
        remembered = name in self._heads
        head = self._head(name, now)
        assert head is not None
        self._trim(head, now, _DELETE, full=full)
        if head.first > head.seq and not head.known and name not in self._listening:
            self._forget(head)
        elif not remembered:
            self._heads.pop(name, None)

    def _trim(self, head: _Head, now: int, most: int, *, full: bool = False) -> int:
        """Delete what the channel no longer needs, at most `most` messages; how many."""
        lowest, oldest = self._lowest(head.name, head.seq, now)
        if full:
            # A tenth at a time, so that no single channel pays for all.
            lowest = max(lowest, head.first + (head.seq - head.first) // 10)
        (last,) = self._database.execute(
            "SELECT max(seq) FROM (SELECT seq, time FROM messages WHERE channel = ? ORDER BY seq LIMIT ?) "
            "WHERE time <= ? AND (seq <= ? OR time <= ?)",
            (head.id, most, now - self._window, lowest, oldest),
        ).fetchone()
        while head.known:
            key = next(iter(head.known))
            if head.known[key][1] > now:
                break
            del head.known[key]
        if last is None:
            return 0
        self._flush()
        self._database.execute("DELETE FROM messages WHERE channel = ? AND seq <= ?", (head.id, last))
        deleted: int = last + 1 - head.first
        head.first = last + 1
        head.receipts = [seq for seq in head.receipts if seq > last]
        # With its last message the file would forget where the channel ends.
        head.changed = True
        self._touched[head.name] = head
        return deleted

    def _forget(self, head: _Head) -> None:
        """Forget a channel of which nothing is left; one of its name will have another epoch."""
        self._flush()
        self._touched.pop(head.name, None)
        self._heads.pop(head.name, None)
        self._untrimmed.pop(head.name, None)
        self._database.execute("DELETE FROM channels WHERE id = ?", (head.id,))
        self._dirty = True
        self._grown -= 1
        self._forgotten[head.name] = None

    def _used(self) -> int:
        """Bytes of the file that are in use."""
        pages, free, size = (
            self._database.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)


assert SEPARATOR == b"\x1e"  # as it stands in the statements
