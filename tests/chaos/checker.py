"""Judges a run: whether every acknowledged message came exactly once, in order, to every reader.

Pure: it takes the books of a run and gives a verdict, so that a test can plant a fault in the books.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from chaos.ledger import STRAY, Ledger, Reading

__all__ = ["Fault", "Findings", "Verdict", "check"]

# How many faults of one kind are told in words; all are counted.
_TOLD = 10


class Fault(StrEnum):
    """What can be wrong with a delivery."""

    LOST = "lost"
    """Acknowledged, and not delivered to a reader of its channel."""

    DOUBLED = "doubled"
    """A reader got one message twice, or one `seq` twice; or a message has two places in a log."""

    REORDERED = "reordered"
    """A reader saw `seq` go back, or two readers saw different messages at one place."""

    HOLED = "holed"
    """A reader's `seq` left out a number, and neither `prev` nor a new epoch said so."""

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
    # Deliveries to all readers together.
    delivered: int
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
    _losses(ledger, places, findings)
    delivered = sum(len(reading) for reading in ledger.readings.values())
    return Verdict(len(ledger.sent_to), len(places), delivered, findings)


def _acknowledged(ledger: Ledger, findings: Findings) -> dict[int, tuple[int, int]]:
    """By number, where its `ack` says that it is; a retry's `ack` must say the same."""
    places: dict[int, tuple[int, int]] = {}
    for number, epoch, seq in zip(ledger.ack_numbers, ledger.ack_epochs, ledger.ack_seqs, strict=True):
        first = places.setdefault(number, (epoch, seq))
        if first != (epoch, seq):
            at = [_place(ledger, *place) for place in (first, (epoch, seq))]
            findings.add(Fault.DOUBLED, f"{number} was acknowledged at {at[0]} and at {at[1]}")
    return places


def _order(ledger: Ledger, reader: str, channel: str, reading: Reading, findings: Findings) -> None:
    """Within an epoch `seq` grows, by one except where `prev` says otherwise."""
    # By epoch: the last seq, and all of them.
    last: dict[int, int] = {}
    seen: dict[int, set[int]] = {}
    for row, (epoch, seq) in enumerate(zip(reading.epochs, reading.seqs, strict=True)):
        before = last.get(epoch)
        told = seen.setdefault(epoch, set())
        if seq in told:
            findings.add(Fault.DOUBLED, f"{reader} got {channel} {_place(ledger, epoch, seq)} twice")
            continue
        told.add(seq)
        if before is not None:
            if seq < before:
                findings.add(Fault.REORDERED, f"{reader} got {channel} {_place(ledger, epoch, seq)} after {before}")
            elif reading.jumps.get(row, seq - 1) != before:
                findings.add(Fault.HOLED, f"{reader} got {channel} {_place(ledger, epoch, seq)} right after {before}")
        last[epoch] = max(seq, before or 0)


def _contents(ledger: Ledger, reader: str, channel: str, reading: Reading, findings: Findings) -> None:
    """Each was sent, to this channel and so to this reader, as it came, and came once."""
    astray = reader not in ledger.readers.get(channel, ())
    seen: set[int] = set()
    for number, seq, digest in zip(reading.numbers, reading.seqs, reading.digests, strict=True):
        if not 0 <= number < len(ledger.sent_to):
            what = "what nobody has sent" if number == STRAY else f"{number}, which nobody has sent"
            findings.add(Fault.ASTRAY, f"{reader} got {what} in {channel} at {seq}")
            continue
        if astray or ledger.channels[ledger.sent_to[number]] != channel:
            meant = ledger.channels[ledger.sent_to[number]]
            findings.add(Fault.ASTRAY, f"{reader} got {number} in {channel} at {seq}; it was for {meant}")
        if digest != ledger.sent_digests[number]:
            findings.add(Fault.CHANGED, f"{reader} got {number} in {channel} at {seq}, not as it was sent")
        if number in seen:
            findings.add(Fault.DOUBLED, f"{reader} got {number} in {channel} again, at {seq}")
        seen.add(number)


def _one_log(ledger: Ledger, places: dict[int, tuple[int, int]], findings: Findings) -> None:
    """At one place of a channel every reader sees the same message, and it is where its `ack` says."""
    logs: dict[str, dict[tuple[int, int], int]] = {channel: {} for channel in ledger.channels}
    for number, place in places.items():
        if 0 <= number < len(ledger.sent_to):
            channel = ledger.channels[ledger.sent_to[number]]
            other = logs[channel].setdefault(place, number)
            if other != number:
                where = f"{channel} {_place(ledger, *place)}"
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
            elif found.setdefault(number, (epoch, seq)) != (epoch, seq):
                at = _place(ledger, epoch, seq)
                findings.add(
                    Fault.DOUBLED,
                    f"{reader} got {number} in {channel} at {at}; it is at {_place(ledger, *found[number])}",
                )


def _losses(ledger: Ledger, places: dict[int, tuple[int, int]], findings: Findings) -> None:
    """Everything acknowledged has come to every reader of its channel."""
    owed: dict[str, set[int]] = {channel: set() for channel in ledger.channels}
    for number in places:
        if 0 <= number < len(ledger.sent_to):
            owed[ledger.channels[ledger.sent_to[number]]].add(number)
    for channel, numbers in owed.items():
        for reader in ledger.readers[channel]:
            reading = ledger.readings.get((reader, channel), Reading())
            for number in sorted(numbers.difference(reading.numbers)):
                findings.add(Fault.LOST, f"{reader} never got {number}, {channel} {_place(ledger, *places[number])}")


def _place(ledger: Ledger, epoch: int, seq: int) -> str:
    return f"{ledger.epochs[epoch]}:{seq}"
