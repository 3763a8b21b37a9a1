"""Whatever happens to the files of a store: a clear error or a clean recovery, never a message that nobody sent."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import secrets
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hubbub.engines.base import Engine
from hubbub.engines.sqlite.engine import SqliteEngine
from hubbub.errors import ConfigError, Unavailable
from hubbub.protocol import json
from hubbub.testing.engines import Ear
from hubbub.testing.engines.ear import a_publication
from hubbub.types import Position, inbox_channel, room_channel

LOBBY, DEN, ALICE = room_channel("lobby"), room_channel("den"), inbox_channel("alice")

# By channel: where it ends, and its messages as they are told to others.
Found = dict[str, tuple[Position, list[bytes]]]
Store = tuple[Path, Found]


@contextlib.asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[SqliteEngine]:
    """An engine that runs on `folder`."""
    engine = SqliteEngine(str(folder))
    await engine.start(Ear(), "node.1")
    try:
        yield engine
    finally:
        await engine.stop()


async def everything(engine: Engine, channel: str) -> tuple[Position, list[bytes]]:
    page = await engine.after(channel, 0, 10_000)
    return page.position, [json.encode(publication) for publication in page.publications]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A folder as a kill leaves it, half of it in the database, half in the write-ahead log; and what was in it."""
    base = tmp_path_factory.mktemp("store")
    found: Found = {}

    async def make() -> None:
        for _ in range(2):
            async with opened(base / "a") as engine:
                for number in range(40):
                    for channel in (LOBBY, DEN, ALICE):
                        await engine.publish(channel, a_publication(f"{channel} {number}" * 5, id=secrets.token_hex(4)))
                await engine.set_cursor("alice", 10)
                for channel in (LOBBY, DEN, ALICE):
                    found[channel] = await everything(engine, channel)
                shutil.rmtree(base / "b", ignore_errors=True)
                shutil.copytree(base / "a", base / "b")

    asyncio.run(make())
    return base / "b", found


async def look(folder: Path, found: Found) -> str:
    """Open `folder`, and see that it says what was written to it or nothing; which of both."""
    try:
        async with opened(folder) as engine:
            whole = True
            for channel, (position, messages) in found.items():
                try:
                    now, read = await everything(engine, channel)
                except Unavailable:
                    whole = False
                    continue
                if now.epoch == position.epoch:
                    assert (now, read) == (position, messages)
                else:
                    # What is left of it, under a name that nobody has a position in.
                    assert read == messages[: len(read)]
                    whole = False
            return "whole" if whole else "recovered"
    except ConfigError as error:
        return "refused" if "\n" not in str(error) else "refused at length"


@pytest.mark.parametrize("file", ["hubbub.db", "hubbub.db-wal", "hubbub.mark"])
def test_a_flipped_bit(store: Store, file: str, tmp_path: Path) -> None:
    folder, found = store
    size = (folder / file).stat().st_size
    chance = random.Random(20261128)
    # The headers thoroughly, the rest here and there.
    places = [*range(0, min(size, 100), 3), *(chance.randrange(size) for _ in range(120))]
    outcomes: Counter[str] = Counter()

    async def test() -> None:
        for place in places:
            shutil.rmtree(tmp_path / "c", ignore_errors=True)
            shutil.copytree(folder, tmp_path / "c")
            with (tmp_path / "c" / file).open("r+b") as damaged:
                damaged.seek(place)
                (byte,) = damaged.read(1)
                damaged.seek(place)
                damaged.write(bytes([byte ^ 1 << chance.randrange(8)]))
            outcomes[await look(tmp_path / "c", found)] += 1

    asyncio.run(test())

    assert set(outcomes) <= {"whole", "recovered", "refused"}
    # The test does bite: most bits of the database matter to somebody.
    assert outcomes["refused"] + outcomes["recovered"] >= (0 if file == "hubbub.mark" else len(places) // 4), outcomes


@pytest.mark.parametrize("file", ["hubbub.db", "hubbub.db-wal", "hubbub.mark"])
def test_a_torn_file(store: Store, file: str, tmp_path: Path) -> None:
    folder, found = store
    size = (folder / file).stat().st_size
    chance = random.Random(20261128)
    sizes = [0, 1, 16, 100, size // 4096 * 4096, size - 1, *(chance.randrange(size) for _ in range(30))]
    sizes += [page * 4096 for page in range(1, size // 4096, max(1, size // 4096 // 10))]
    outcomes: Counter[str] = Counter()

    async def test() -> None:
        for shorter in sizes:
            shutil.rmtree(tmp_path / "c", ignore_errors=True)
            shutil.copytree(folder, tmp_path / "c")
            os.truncate(tmp_path / "c" / file, min(shorter, size))
            outcomes[await look(tmp_path / "c", found)] += 1

    asyncio.run(test())

    assert set(outcomes) <= {"whole", "recovered", "refused"}
    assert outcomes["refused"] + outcomes["recovered"] >= (0 if file == "hubbub.mark" else len(sizes) // 2), outcomes
