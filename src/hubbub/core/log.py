"""A channel's past: numbered publications, kept by count, age and size, each sender's retries known."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Annotated

from msgspec import Meta, Struct

from hubbub.core import record
from hubbub.types import Position, Publication, user_of

__all__ = ["HistoryLimits", "Log", "Page", "Retention"]

# What one retained publication costs besides its bytes: the object's head, its time, the slots in the deques.
_OVERHEAD = 80

# What one remembered (`from`, `id`) costs: a dict's entry, two pairs, the strings.
_ID_OVERHEAD = 250
# What a log costs by itself: mostly the first blocks of its deques.
_LOG_OVERHEAD = 1500

_encode = record.encode
_decode = record.decode


class Retention(Struct, frozen=True, kw_only=True):
    """How much of a channel's past is kept: whatever is over any of the bounds goes."""

    # Number of publications.
    size: int = 1000
    # Seconds.
    age: float = 86_400.0
    # Not dropped to make room for other channels.
    pinned: bool = False


class HistoryLimits(Struct, frozen=True, kw_only=True):
    """What an engine keeps of all channels, and for how long."""

    history_size: Annotated[int, Meta(ge=0, description="messages that a room, and all, keep")] = 1000
    history_age: Annotated[float, Meta(gt=0, description="seconds for which they keep them")] = 86_400.0
    inbox_size: Annotated[int, Meta(ge=0, description="messages that an inbox keeps")] = 1000
    inbox_age: Annotated[float, Meta(gt=0, description="seconds for which it keeps them")] = 604_800.0
    dedupe_window: Annotated[float, Meta(gt=0, description="seconds for which a message's id is known")] = 300.0
    dedupe_size: Annotated[
        int, Meta(ge=1, description="ids known at once per channel, and of what handlers kept; then the oldest go")
    ] = 100_000
    # Beyond it, the channels that were written to least lately lose their oldest messages first.
    history_bytes: Annotated[int, Meta(ge=1, description="bytes of all history together")] = 1_073_741_824
    channels: Annotated[int, Meta(ge=1, description="channels that may have a history")] = 1_000_000

    def retention(self, channel: str) -> Retention:
        """How much of `channel` (its full name, such as `room:lobby`) is kept."""
        if user_of(channel) is not None:
            return Retention(size=self.inbox_size, age=self.inbox_age)
        return Retention(size=self.history_size, age=self.history_age)


class Page(Struct, frozen=True):
    """Part of a log, oldest first."""

    publications: list[Publication]
    # The end of the log when the page was read.
    position: Position
    # Whether nothing between the asked place and the page has been dropped by retention.
    complete: bool
    # Whether more follows in the direction of reading.
    more: bool


class Log:
    """The ordered log of one channel.

    Times are seconds on a clock that goes forward, given by the caller.
    """

    __slots__ = ("_age", "_dropped", "_entries", "_known", "_most", "_receipts", "_seq", "_times", "epoch", "size")

    def __init__(self, epoch: str, retention: Retention) -> None:
        self.epoch = epoch

        # How many publications are kept, and for how many seconds.
        self._most = retention.size
        self._age = retention.age

        # Roughly how many bytes the log holds.
        self.size = _LOG_OVERHEAD

        # Oldest first, encoded, and when each was appended. As one `bytes` a message is a third of the memory
        # that its fields are as objects, and what makes a message is gone when it has been told: that memory
        # is used again, hot, for the next. Two deques and not one of pairs, which the garbage collector walks.
        self._entries: deque[bytes] = deque()
        self._times: deque[float] = deque()

        # The seq of the newest publication ever appended.
        self._seq = 0

        # The seq of the newest publication that retention has dropped.
        self._dropped = 0

        # The seqs of those that want a receipt and have not been passed by the cursor, oldest first. None until
        # the first.
        self._receipts: deque[int] | None = None

        # What was accepted lately, by (from, id): its seq and until when to remember it. In the order
        # of appending, hence also of expiry. None until a message with an id comes.
        self._known: dict[tuple[str, str], tuple[int, float]] | None = None

    @property
    def position(self) -> Position:
        """The end of the log."""
        return Position(self.epoch, self._seq)

    def __len__(self) -> int:
        return len(self._entries)

    def known(self, from_: str, id: str, now: float) -> int | None:
        """The seq under which (`from`, `id`) was accepted lately, or None."""
        if self._known is None:
            return None
        known = self._known.get((from_, id))
        return known[0] if known is not None and known[1] > now else None

    def append(self, publication: Publication, now: float, remember: float, most: int) -> bytes:
        """Number `publication` and keep it; what is now too many or too old goes. Returns its record.

        Its (`from`, `id`) is remembered for `remember` seconds, but of no more than `most` publications.
        """
        # Nothing is changed before the one step that can fail.
        seq = publication.seq = self._seq + 1
        encoded = _encode(publication)
        self._seq = seq
        if publication.id is not None:
            if self._known is None:
                self._known = {}
            else:
                self._forget(now, most)
            key = (publication.from_, publication.id)
            # An expired entry of the same key may still be there: out, so that the order stays that of expiry.
            if self._known.pop(key, None) is None:
                self.size += _ID_OVERHEAD
            self._known[key] = (seq, now + remember)
        if publication.receipt:
            if self._receipts is None:
                self._receipts = deque()
            self._receipts.append(seq)
        self._entries.append(encoded)
        self._times.append(now)
        self.size += _OVERHEAD + len(encoded)
        if seq - self._dropped > self._most or self._times[0] <= now - self._age:
            self.trim(now)
        return encoded

    def trim(self, now: float) -> None:
        """Drop what retention no longer keeps."""
        oldest = now - self._age
        times = self._times
        while times and (len(times) > self._most or times[0] <= oldest):
            self.drop_oldest()

    def drop_oldest(self) -> None:
        """Drop the oldest publication that is kept."""
        self.size -= _OVERHEAD + len(self._entries.popleft())
        self._times.popleft()
        # Seqs are consecutive here.
        self._dropped += 1
        if self._receipts and self._receipts[0] == self._dropped:
            # Nobody can have read it: the receipt will never be due.
            self._receipts.popleft()

    def idle(self, now: float) -> bool:
        """Whether nothing would be missed if this log were forgotten: no message kept, no retry expected."""
        self.trim(now)
        self._forget(now, 0)
        return not self._entries and not self._known

    def pass_receipts(self, seq: int) -> list[Publication]:
        """The publications up to `seq` that want a receipt and were not returned before, oldest first."""
        found = []
        while self._receipts and self._receipts[0] <= seq:
            found += self.after(self._receipts.popleft() - 1, 1).publications
        return found

    def after(self, seq: int, limit: int) -> Page:
        """The publications that follow `seq`, at most `limit`."""
        entries = self._entries
        if seq > self._seq:
            return Page([], self.position, complete=False, more=False)
        # So the place is arithmetic, not a search.
        start = max(0, seq - self._dropped)
        found = self._slice(start, start + limit)
        return Page(found, self.position, complete=self._dropped <= seq, more=start + limit < len(entries))

    def before(self, seq: int | None, limit: int) -> Page:
        """The last `limit` publications before `seq`, or of the whole log, oldest first."""
        end = len(self._entries)
        if seq is not None:
            end = min(end, max(0, seq - 1 - self._dropped))
        start = max(0, end - limit)
        found = self._slice(start, end)
        return Page(found, self.position, complete=True, more=start > 0)

    def _slice(self, start: int, end: int) -> list[Publication]:
        entries = self._entries
        if start <= len(entries) // 2:
            return [_decode(entry) for entry in islice(entries, start, end)]
        # Near the end of a long deque: walk in from that side.
        end = min(end, len(entries))
        found = [_decode(entry) for entry in islice(reversed(entries), len(entries) - end, len(entries) - start)]
        found.reverse()
        return found

    def _forget(self, now: float, most: int) -> None:
        known = self._known
        while known:
            key = next(iter(known))
            if known[key][1] > now and (most <= 0 or len(known) < most):
                break
            del known[key]
            self.size -= _ID_OVERHEAD
