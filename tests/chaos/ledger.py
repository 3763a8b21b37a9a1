"""What was sent, acknowledged and delivered: written down while the storm lasts, judged when it is over."""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Mapping, Sequence

__all__ = ["STRAY", "Ledger", "Reading", "digest"]

STRAY = -1
"""Stands for the number of a message that carries no id of this run."""

_ID = "k-"


def digest(from_: str, content: bytes) -> int:
    """32 bits that tell one message from another one: who sent what."""
    return zlib.crc32(content, zlib.crc32(from_.encode()))


class Reading:
    """All that one reader got from one channel, in the order in which it came."""

    __slots__ = ("digests", "epochs", "jumps", "numbers", "seqs", "stands", "starts")

    def __init__(self) -> None:
        # Four columns and not a list of rows: 28 bytes for a delivery, and nothing for the garbage collector.
        self.epochs = array("i")
        self.seqs = array("q")
        self.numbers = array("q")
        self.digests = array("L")

        # By row: the `prev` of the message, where it had one.
        self.jumps: dict[int, int] = {}

        # Rows that are no message: an `ack` stood for it.
        self.stands: set[int] = set()

        # Where the server said that it goes on: the row that follows, epoch and seq. Each but the first says that
        # something may be missing before it.
        self.starts: list[tuple[int, int, int]] = []

    def __len__(self) -> int:
        return len(self.seqs)

    def row(self, epoch: int, seq: int) -> int:
        """The first row with this place, which must be there; slow, for faults."""
        return next(row for row, place in enumerate(zip(self.epochs, self.seqs, strict=True)) if place == (epoch, seq))

    @property
    def end(self) -> tuple[int, int]:
        """How far it has come: epoch and seq."""
        row, epoch, seq = self.starts[-1] if self.starts else (0, -1, 0)
        return (self.epochs[-1], self.seqs[-1]) if len(self) > row else (epoch, seq)


class Ledger:
    """The books of one run. Everything is appended, nothing is looked up or judged meanwhile.

    A publication is known by its number, from 0, out of which its id is made.
    """

    def __init__(self, readers: Mapping[str, Sequence[str]]) -> None:
        """`readers`: for each channel, by its name in the server, who should get all of it."""
        self.readers = {channel: tuple(names) for channel, names in readers.items()}
        self.channels = tuple(self.readers)
        self._channel_index = {channel: index for index, channel in enumerate(self.channels)}

        # By number: the index of its channel, and its digest.
        self.sent_to = array("i")
        self.sent_digests = array("L")

        # One row for each `ack` that came: a retry may bring a second one.
        self.ack_numbers = array("q")
        self.ack_epochs = array("i")
        self.ack_seqs = array("q")

        # By reader and channel.
        self.readings: dict[tuple[str, str], Reading] = {}

        # Epochs are few: each is kept once, and its index stands for it. Those of one channel follow each other in
        # the order in which anybody heard of them.
        self.epochs: list[str] = []
        self._epoch_index: dict[str, int] = {}

    def send(self, channel: str, from_: str, content: bytes) -> tuple[int, str]:
        """A publication is about to be sent; returns its number and its id."""
        number = len(self.sent_to)
        self.sent_to.append(self._channel_index[channel])
        self.sent_digests.append(digest(from_, content))
        return number, f"{_ID}{number}"

    @staticmethod
    def number(id: str | None) -> int:
        """The number of the publication with this id, or `STRAY`."""
        return int(id[2:]) if id is not None and id.startswith(_ID) and id[2:].isdecimal() else STRAY

    def acknowledge(self, number: int, epoch: str, seq: int) -> None:
        """Its sender got an `ack`, with this position."""
        self.ack_numbers.append(number)
        self.ack_epochs.append(self._epoch(epoch))
        self.ack_seqs.append(seq)

    def reading(self, reader: str, channel: str) -> Reading:
        """What `reader` got from `channel`, to be appended to."""
        return self.readings.setdefault((reader, channel), Reading())

    def start(self, reading: Reading, epoch: str, seq: int) -> None:
        """A reader was told that it goes on after `seq`: the first time, or instead of getting what it missed."""
        reading.starts.append((len(reading), self._epoch(epoch), seq))

    def deliver(
        self,
        reading: Reading,
        epoch: str,
        seq: int,
        number: int,
        digest: int,
        prev: int | None = None,
        *,
        stands: bool = False,
    ) -> None:
        """A reader got a publication, or an `ack` that `stands` for it."""
        if stands:
            reading.stands.add(len(reading))
        if prev is not None:
            reading.jumps[len(reading)] = prev
        reading.epochs.append(self._epoch(epoch))
        reading.seqs.append(seq)
        reading.numbers.append(number)
        reading.digests.append(digest)

    def ends(self) -> dict[str, tuple[int, int]]:
        """Up to where each channel was acknowledged: its newest epoch, and the seq."""
        found: dict[str, tuple[int, int]] = {}
        for number, epoch, seq in zip(self.ack_numbers, self.ack_epochs, self.ack_seqs, strict=True):
            channel = self.channels[self.sent_to[number]]
            found[channel] = max(found.get(channel, (0, 0)), (epoch, seq))
        return found

    def _epoch(self, epoch: str) -> int:
        index = self._epoch_index.get(epoch)
        if index is None:
            index = self._epoch_index[epoch] = len(self.epochs)
            self.epochs.append(epoch)
        return index
