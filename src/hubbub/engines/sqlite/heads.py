"""The channels that the writer remembers: where each ends, which retries and receipts are still to be known."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Final

from msgspec import Struct, field

from hubbub.core import record
from hubbub.core.log import HistoryLimits, Retention
from hubbub.engines.sqlite.record import Damaged, check_of, open_records
from hubbub.engines.sqlite.rows import joined_row
from hubbub.types import user_of

__all__ = ["Head", "Heads"]

# Channels that are remembered; those used least lately are read again when they are needed.
_HEADS: Final = 20_000
# Messages that are read together when a channel is.
_TRACES: Final = 500
# Seconds that are as good as any longer time.
_FOR_EVER: Final = 1e11


class _Trace(Struct, gc=False):
    """What of a message must be known as long as it can be repeated, or acknowledged."""

    from_: str = field(name="from", default="")
    id: str | None = None
    receipt: bool = False


_decode_trace = record.decoder(_Trace)


class Head:
    """A channel as the writer remembers it: a copy of what is in the file, and of what is about to be."""

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


class Heads:
    """Channels by name, read from the file where they are not remembered; times are in ms."""

    def __init__(
        self, database: sqlite3.Connection, limits: HistoryLimits, retention: Callable[[str], Retention]
    ) -> None:
        self._database = database
        self._dedupe_size = limits.dedupe_size
        self._retention = retention

        # For how long the id of a message is known.
        self.window = int(min(limits.dedupe_window, _FOR_EVER) * 1000)

        # The least lately used first.
        self._heads: dict[str, Head] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._heads

    def add(self, head: Head) -> None:
        """Remember a channel that is not in the file yet."""
        self._heads[head.name] = head

    def drop(self, name: str) -> None:
        """Remember a channel no more; it is read again when it is needed."""
        self._heads.pop(name, None)

    def shrink(self) -> None:
        """Drop those that are too many: between two transactions."""
        while len(self._heads) > _HEADS:
            del self._heads[next(iter(self._heads))]

    def most(self, name: str) -> int:
        """How many messages of the channel are kept."""
        return self._retention(name).size

    def lowest(self, name: str, seq: int, now: int) -> tuple[int, int]:
        """What is kept of a channel that ends at `seq`: what is beyond this seq, and younger than this time."""
        retention = self._retention(name)
        return seq - retention.size, now - int(min(retention.age, _FOR_EVER) * 1000)

    def pinned(self, name: str) -> bool:
        """Whether the channel keeps what it has, however full the file is."""
        return self._retention(name).pinned

    def remember(self, head: Head, key: tuple[str, str], seq: int, now: int) -> None:
        """The (from, id) `key` has been used for `seq`; beyond `dedupe_size` the oldest go."""
        known = head.known
        while known:
            oldest = next(iter(known))
            if known[oldest][1] > now and len(known) < self._dedupe_size:
                break
            del known[oldest]
        # An expired entry of the same key may still be there: out, so that the order stays that of expiry.
        known.pop(key, None)
        known[key] = (seq, now + self.window)

    def get(self, name: str, now: int) -> Head | None:
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

    def _read(self, name: str, now: int) -> Head | None:
        row = self._database.execute(
            "SELECT id, name, epoch, seq, cursor, sealed FROM channels WHERE name = ?", (name,)
        ).fetchone()
        if row is None:
            return None
        if check_of(*row[:5]) != row[5]:
            raise Damaged(f"channel {row[0]} is not as it was written")
        head = Head(row[0], name, row[2].decode(), self.most(name))
        head.cursor = row[4]
        (first,) = self._database.execute("SELECT min(seq) FROM messages WHERE channel = ?", (head.id,)).fetchone()
        last = self._database.execute(
            "SELECT seq, time FROM messages WHERE channel = ? ORDER BY seq DESC LIMIT 1", (head.id,)
        ).fetchone()
        head.seq, head.time = last or (row[3], 0)
        head.first = head.seq + 1 if first is None else first
        self._read_traces(head, now)
        return head

    def _read_traces(self, head: Head, now: int) -> None:
        """Which retries and receipts of what lies in the file are still to be known."""
        unread = (head.cursor or 0) if user_of(head.name) is not None else head.seq
        # A channel's times never go back: what is young enough is an unbroken end of it.
        (young,) = self._database.execute(
            "SELECT min(seq) FROM messages WHERE channel = ? AND seq > ? AND time > ?",
            (head.id, head.seq - self._dedupe_size, now - self.window),
        ).fetchone()
        at, together = min(unread, head.seq if young is None else young - 1), _TRACES
        while at < head.seq:
            (joined,), together = joined_row(
                self._database,
                "SELECT group_concat(record, x'1e') FROM "
                "(SELECT record FROM messages WHERE channel = :channel AND seq > :seq ORDER BY seq LIMIT :limit)",
                {"channel": head.id, "seq": at},
                together,
            )
            found = open_records(head.id, joined)
            for opened in found:
                trace = _decode_trace(opened.body)
                if trace.id is not None and young is not None and opened.seq >= young:
                    head.known[trace.from_, trace.id] = (opened.seq, opened.time + self.window)
                if trace.receipt and opened.seq > unread:
                    head.receipts.append(opened.seq)
            at = found[-1].seq if found else head.seq
