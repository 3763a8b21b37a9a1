"""What is still to be written and gets an answer, in order, no faster than the server takes it (spec/client.md §7)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from typing import Final

from msgspec import Struct

from hubbub.client.agenda import Agenda
from hubbub.client.retry import LONGEST_WAIT

__all__ = ["Line"]

_MOST_UNANSWERED: Final = 100

# Where a refusal does not say when to come again.
_HOLD: Final = 1.0

# Seconds between the ends of two holds that began together: what was sent first goes first.
_TOGETHER: Final = 0.1


class _Entry(Struct, eq=False):
    """One message or request."""

    # Its place in the line, which it comes back to.
    number: int
    id: str
    type: str
    write: Callable[[float], None]


class Line:
    """Messages and requests that wait to be written, or to be answered."""

    def __init__(self, agenda: Agenda) -> None:
        self._agenda = agenda
        self._count = 0

        # By type, those that wait, as heaps of numbers: one that comes back is before all that came later.
        self._waiting: dict[str, list[int]] = {}
        self._entries: dict[int, _Entry] = {}

        # By id: each one that waits, and each that was written and is not answered.
        self._numbers: dict[str, int] = {}
        self._unanswered: dict[str, _Entry] = {}

        # By type, until when nothing of it is written.
        self._held: dict[str, float] = {}

        # Something was refused: one at a time, until nothing waits any more.
        self._careful = False

    def add(self, id: str, type: str, write: Callable[[float], None], now: float) -> None:
        """Have `write` called with the time when it is this one's turn, maybe at once; one that stands here goes."""
        self.remove(id)
        self._count += 1
        self._queue(_Entry(self._count, id, type, write))
        self.go_on(now)

    def remove(self, id: str) -> None:
        """It is answered, or given up; harmless where it is not here. `go_on` lets the next one go."""
        self._unanswered.pop(id, None)
        number = self._numbers.pop(id, None)
        if number is not None:
            # Its number goes when it comes up.
            del self._entries[number]
        if not self._unanswered and not self._entries:
            self._careful = False

    def refuse(self, id: str | None, type: str, retry_after: float | None, now: float) -> bool:
        """The server refused one of a type for a while; whether it was in the line, and is back in its place."""
        entry = self._unanswered.pop(id, None) if id is not None else None
        if entry is not None:
            self._queue(entry)
            type = entry.type
        until = now + min(_HOLD if retry_after is None else max(0.0, retry_after), LONGEST_WAIT)
        self._held[type] = self._agenda.at(max(until, self._held.get(type, until)))
        # Where nothing is in the line, nobody is in a hurry.
        self._careful = bool(self._entries or self._unanswered)
        return entry is not None

    def held(self, type: str, now: float) -> float | None:
        """Seconds for which nothing of a type is to be written; None where there is no such time."""
        until = self._held.get(type)
        return until - now if until is not None and until > now else None

    def clear(self) -> None:
        """There is no session any more, so nobody holds anything."""
        self._waiting.clear()
        self._entries.clear()
        self._numbers.clear()
        self._unanswered.clear()
        self._held.clear()
        self._careful = False

    def go_on(self, now: float) -> None:
        """Write what may be written now."""
        for type in [type for type, until in self._held.items() if until <= now]:
            del self._held[type]
        while self._entries and len(self._unanswered) < (1 if self._careful else _MOST_UNANSWERED):
            entry = self._next(now)
            if entry is None:
                return
            heappop(self._waiting[entry.type])
            del self._entries[entry.number], self._numbers[entry.id]
            self._unanswered[entry.id] = entry
            entry.write(now)

    def dues(self) -> Iterator[float | None]:
        """When something is to be done."""
        yield from self._held.values()

    def _queue(self, entry: _Entry) -> None:
        self._entries[entry.number] = entry
        self._numbers[entry.id] = entry.number
        heappush(self._waiting.setdefault(entry.type, []), entry.number)

    def _next(self, now: float) -> _Entry | None:
        """The first of those whose type is not held, unless one before it will not be held much longer."""
        first = None
        for type, numbers in list(self._waiting.items()):
            while numbers and numbers[0] not in self._entries:
                heappop(numbers)
            if not numbers:
                del self._waiting[type]
            elif (first is None or numbers[0] < first) and self._held.get(type, 0.0) <= now + _TOGETHER:
                first = numbers[0]
        if first is None:
            return None
        entry = self._entries[first]
        return None if entry.type in self._held else entry
