"""What does it cost that nothing is lost: messages on disk, their past, and ten thousand who come back for it?"""

import asyncio
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from msgspec import Raw

from harness import CONTENT, Bench, Budget, MeasurementError, Row, figures, pinned, serving
from hubbub.core.log import HistoryLimits
from hubbub.engines.sqlite.engine import SqliteEngine
from hubbub.engines.sqlite.options import Durability
from hubbub.types import ALL, Publication, inbox_channel
from resuming import resume_all

# To the sender's own inbox, and nothing comes back but the `ack`, which repeats the mark.
STORE_IT = '{"type":"chat","to":"u%d","echo":false,"id":"%m","content":"' + CONTENT.replace("%m", "hub") + '"}'

# Messages that each client has missed.
MISSED = 20
# Publications that are on their way into the store at once, where a store is filled.
TOGETHER = 1000


def ask(bench: Bench) -> Iterator[Row]:
    """Acknowledged messages a second, messages read a second, and how long a crowd takes to resume."""
    yield from _acknowledged(bench)
    with tempfile.TemporaryDirectory() as folder:
        yield _replayed(bench, folder)
    with tempfile.TemporaryDirectory() as folder:
        yield _resumed(bench, folder)


def _acknowledged(bench: Bench) -> Iterator[Row]:
    publishers = bench.size(100, 10)
    # By the clock, for a publisher waits by the clock: 5,000 a second are 200 µs each, 20,000 are 50.
    for durability, budget in ((Durability.FULL, 200), (Durability.NORMAL, 50)):
        disk: list[float] = []
        ours = []
        for _ in range(1 if bench.quick else bench.rounds):
            with tempfile.TemporaryDirectory() as folder:
                disk.append(_fsync(Path(folder) / "probe"))
                ours.append(
                    bench.measure(
                        [*bench.server, "--data", folder, "--durability", durability],
                        "echo",
                        connections=publishers,
                        warmup=bench.size(5_000, 50),
                        messages=bench.size(50_000, 500),
                        text=STORE_IT,
                    )
                )
        yield Row(
            f"{publishers} publishers, {durability}: time per message; floor: one fsync",
            "µs",
            disk,
            [1_000_000 / figure for figure in figures(ours, "per_s")],
            Budget(budget, of="ours"),
        )


def _fsync(path: Path) -> float:
    """Microseconds that the disk takes to have a page more of a file: the median of some."""
    taken = []
    with path.open("wb", buffering=0) as file:
        for _ in range(100):
            file.write(bytes(8192))
            start = time.perf_counter()
            os.fsync(file.fileno())
            taken.append(time.perf_counter() - start)
    path.unlink()
    return median(taken) * 1e6


def _replayed(bench: Bench, folder: str) -> Row:
    count = bench.size(200_000, 2_000)

    async def read() -> float:
        engine = await _filled(folder, {ALL: count}, count)
        start, seq = time.perf_counter(), 0
        while (page := await engine.after(ALL, seq, 500)).publications:
            seq += len(page.publications)
        taken = time.perf_counter() - start
        await engine.stop()
        if seq != count:
            raise MeasurementError(f"{seq} of {count} messages were read")
        return taken / count * 1e6

    with pinned(bench.cores[0]):
        return Row(
            f"{count:,} messages read from the store, 500 at a time: time each",
            "µs",
            [],
            [asyncio.run(read())],
            # 300,000 a second.
            Budget(3.33, of="ours"),
        )


def _resumed(bench: Bench, folder: str) -> Row:
    clients = bench.size(10_000, 50)

    async def fill() -> str:
        engine = await _filled(folder, {inbox_channel(f"u{number}"): MISSED for number in range(clients)}, MISSED)
        epoch = (await engine.position(inbox_channel("u0"))).epoch
        await engine.stop()
        return epoch

    epoch = asyncio.run(fill())
    server_core, load_core = bench.cores
    with serving([*bench.server, "--data", folder], server_core) as (_, port, _), pinned(load_core):
        seconds = resume_all(port, clients, epoch, MISSED)
    return Row(
        f"{clients:,} clients resume, {MISSED} missed messages each: time until the last has them",
        "s",
        [],
        [seconds],
        Budget(10, of="ours"),
    )


async def _filled(folder: str, counts: dict[str, int], keep: int) -> SqliteEngine:
    """A running engine on a new store, with so many messages in each channel."""

    class Nobody:
        def publication(self, *_: object) -> None:
            pass

        def lost(self, channel: str) -> None:
            pass

        def gone(self, channel: str, user: str) -> None:
            pass

        def came(self, channel: str, user: str) -> None:
            pass

    limits = HistoryLimits(history_size=keep, inbox_size=keep, history_bytes=2**40)
    engine = SqliteEngine(folder, Durability.NORMAL, limits)
    await engine.start(Nobody(), "node.1")
    content = Raw(b'"' + b"hubbub " * 9 + b'h"')
    waiting = []
    for channel, count in counts.items():
        for _ in range(count):
            waiting.append(engine.publish(channel, Publication("chat", "alice", content=content)))
            if len(waiting) == TOGETHER:
                await asyncio.gather(*waiting)
                waiting.clear()
    await asyncio.gather(*waiting)
    return engine
