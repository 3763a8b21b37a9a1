"""Judges a run: whether every acknowledged message came exactly once, in order, to every reader.

Pure: it takes the books of a run and gives a verdict, so that a test can plant a fault in the books.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise, zip_longest

from chaos.ledger import STRAY, Ledger, Reading

__all__ = ["Fault", "Findings", "Verdict", "check"]

# How many faults of one kind are told in words; all are counted.
_TOLD = 10


class Fault(StrEnum):
    """What can be wrong with a delivery."""

    LOST = "lost"
    """Acknowledged, not delivered to a reader of its channel, and the reader was not told that something is missing."""

    DOUBLED = "doubled"
    """A reader got one message twice, or one `seq` twice; or a message has two places in an epoch of a log."""

    REORDERED = "reordered"
    """A reader saw `seq` go back, or two readers saw different messages at one place."""

    HOLED = "holed"
    """A reader's `seq` left out a number, or its epoch changed, and neither `prev` nor the server said so."""

    ASTRAY = "astray"
    """A reader got what was not for it, or what nobody has sent."""

    CHANGED = "changed"
    """A message came with another sender or content."""


@dataclass
class Findings:
    """Faults: all counted, the first of each kind told."""

    counts: Counter[Fault] = field(default_factory=Counter)
    told: list[tuple[Fault, str]] = field(default_factory=list)

    def add(self, fault: Fault, text: str) -> None:
        """One more."""
        self.counts[fault] += 1
        if self.counts[fault] <= _TOLD:
            self.told.append((fault, text))


@dataclass(frozen=True)
class Verdict:
    """What the books say."""

    sent: int
    # Of those sent: at least one `ack` came.
    acknowledged: int
    # Deliveries to all readers together; and those that did not come, and whose readers were told so.
    delivered: int
    told: int
    findings: Findings

    @property
    def unacknowledged(self) -> int:
        """Sent, and no `ack` ever came: it may have been published or not, but never twice."""
        return self.sent - self.acknowledged

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong with what was acknowledged and delivered."""
        return not self.findings.counts


def check(ledger: Ledger) -> Verdict:
    """Judge the whole of `ledger`."""
    findings = Findings()
    places = _acknowledged(ledger, findings)
    for (reader, channel), reading in ledger.readings.items():
        _order(ledger, reader, channel, reading, findings)
        _contents(ledger, reader, channel, reading, findings)
    _one_log(ledger, places, findings)
    told = _losses(ledger, places, findings)
    delivered = sum(len(reading) for reading in ledger.readings.values())
    acknowledged = len({number for number, _ in places})
    return Verdict(len(ledger.sent_to), acknowledged, delivered, told, findings)


def _acknowledged(ledger: Ledger, findings: Findings) -> dict[tuple[int, int], int]:
    """By number and epoch, the seq that its `ack` names; a retry's `ack` must name the same.

    A log that has lost something knows nothing of its past: then a retry may get another place, in another epoch.
    """
    places: dict[tuple[int, int], int] = {}
    for number, epoch, seq in zip(ledger.ack_numbers, ledger.ack_epochs, ledger.ack_seqs, strict=True):
        first = places.setdefault((number, epoch), seq)
        if first != seq:
            at = [_place(ledger, epoch, place) for place in (first, seq)]
            findings.add(Fault.DOUBLED, f"{number} was acknowledged at {at[0]} and at {at[1]}")
    return places


def _order(ledger: Ledger, reader: str, channel: str, reading: Reading, findings: Findings) -> None:
    """From each start on `seq` grows, by one except where `prev` says otherwise, in the epoch that was named."""
    # By epoch: the last seq, and all of them.
    last: dict[int, int] = {}
    seen: dict[int, set[int]] = {}
    starts = {row: (epoch, seq) for row, epoch, seq in reading.starts}
    named: int | None = None
    for row, (epoch, seq) in enumerate(zip(reading.epochs, reading.seqs, strict=True)):
        if row in starts:
            named = starts[row][0]
            last[named] = starts[row][1]
        place = f"{channel} {_place(ledger, epoch, seq)}"
        before = last.get(epoch)
        told = seen.setdefault(epoch, set())
        if seq in told:
            first = reading.row(epoch, seq)
            ways = " and then ".join("an ack" if at in reading.stands else "itself" for at in (first, row))
            findings.add(Fault.DOUBLED, f"{reader} got {place} twice: {ways}")
            continue
        told.add(seq)
        if epoch != named:
            findings.add(Fault.HOLED, f"{reader} got {place}, and was never told of that epoch")
        elif before is not None and seq < before:
            findings.add(Fault.REORDERED, f"{reader} got {place} after {before}")
        elif before is not None and reading.jumps.get(row, seq - 1) > before:
            findings.add(Fault.HOLED, f"{reader} got {place} right after {before}")
        last[epoch] = max(seq, before or 0)


def _contents(ledger: Ledger, reader: str, channel: str, reading: Reading, findings: Findings) -> None:
    """Each was sent, to this channel and so to this reader, as it came, and came once in an epoch."""
    astray = reader not in ledger.readers.get(channel, ())
    seen: set[tuple[int, int]] = set()
    rows = zip(reading.numbers, reading.epochs, reading.seqs, reading.digests, strict=True)
    for number, epoch, seq, digest in rows:
        if not 0 <= number < len(ledger.sent_to):
            what = "what nobody has sent" if number == STRAY else f"{number}, which nobody has sent"
            findings.add(Fault.ASTRAY, f"{reader} got {what} in {channel} at {seq}")
            continue
        if astray or ledger.channels[ledger.sent_to[number]] != channel:
            meant = ledger.channels[ledger.sent_to[number]]
            findings.add(Fault.ASTRAY, f"{reader} got {number} in {channel} at {seq}; it was for {meant}")
        if digest != ledger.sent_digests[number]:
            findings.add(Fault.CHANGED, f"{reader} got {number} in {channel} at {seq}, not as it was sent")
        if (number, epoch) in seen:
            findings.add(Fault.DOUBLED, f"{reader} got {number} in {channel} again, at {seq}")
        seen.add((number, epoch))


def _one_log(ledger: Ledger, places: dict[tuple[int, int], int], findings: Findings) -> None:
    """At one place of a channel every reader sees the same message, and it is where its `ack` says."""
    logs: dict[str, dict[tuple[int, int], int]] = {channel: {} for channel in ledger.channels}
    for (number, epoch), seq in places.items():
        if 0 <= number < len(ledger.sent_to):
            channel = ledger.channels[ledger.sent_to[number]]
            other = logs[channel].setdefault((epoch, seq), number)
            if other != number:
                where = f"{channel} {_place(ledger, epoch, seq)}"
                findings.add(Fault.REORDERED, f"{number} and {other} were acknowledged at the same {where}")
    # Where each message was seen; an `ack` counts like a reader.
    found = dict(places)
    for (reader, channel), reading in ledger.readings.items():
        log = logs.setdefault(channel, {})
        for epoch, seq, number in zip(reading.epochs, reading.seqs, reading.numbers, strict=True):
            if number == STRAY:
                continue
            other = log.setdefault((epoch, seq), number)
            if other != number:
                where = f"{channel} {_place(ledger, epoch, seq)}"
                findings.add(Fault.REORDERED, f"{reader} got {number} at {where}, where {other} is for others")
            elif found.setdefault((number, epoch), seq) != seq:
                at, elsewhere = _place(ledger, epoch, seq), _place(ledger, epoch, found[number, epoch])
                findings.add(Fault.DOUBLED, f"{reader} got {number} in {channel} at {at}; it is at {elsewhere}")


def _losses(ledger: Ledger, places: dict[tuple[int, int], int], findings: Findings) -> int:
    """Everything acknowledged has come to every reader of its channel, who else was told; how often that was so."""
    owed: dict[str, list[tuple[int, int]]] = {channel: [] for channel in ledger.channels}
    for number, epoch in places:
        if 0 <= number < len(ledger.sent_to):
            owed[ledger.channels[ledger.sent_to[number]]].append((number, epoch))
    told = 0
    for channel, messages in owed.items():
        for reader in ledger.readers[channel]:
            reading = ledger.readings.get((reader, channel), Reading())
            came = set(zip(reading.numbers, reading.epochs, strict=True))
            for number, epoch in sorted(message for message in messages if message not in came):
                seq = places[number, epoch]
                if _told(reading, epoch, seq):
                    told += 1
                else:
                    findings.add(Fault.LOST, f"{reader} never got {number}, {channel} {_place(ledger, epoch, seq)}")
    return told


def _told(reading: Reading, epoch: int, seq: int) -> bool:
    """Whether the reader was told that it does not get what stands there: before its beginning, or in a gap."""
    ends = [
        (reading.epochs[row - 1], reading.seqs[row - 1]) if row > before else (epoch_before, seq_before)
        for (before, epoch_before, seq_before), (row, _, _) in pairwise(reading.starts)
    ]
    for (_, *start), end in zip_longest(reading.starts, ends):
        if tuple(start) < (epoch, seq) and (end is None or (epoch, seq) <= end):
            return False
    return bool(reading.starts)


def _place(ledger: Ledger, epoch: int, seq: int) -> str:
    return f"{ledger.epochs[epoch]}:{seq}"
