"""The engine on SQLite keeps the contract of all engines, and what it promises beyond: it is there again."""

from __future__ import annotations

from pathlib import Path

import pytest

from hubbub.core.log import HistoryLimits
from hubbub.engines.base import Engine
from hubbub.engines.sqlite.engine import SqliteEngine
from hubbub.engines.sqlite.options import Durability
from hubbub.testing.clock import FakeClock
from hubbub.testing.engines import EngineContract


@pytest.mark.parametrize("durability", list(Durability), ids=str, scope="class")
class TestSqliteEngine(EngineContract):
    """Every promise of `hubbub.engines.base`, however often the disk is waited for."""

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path, durability: Durability) -> None:
        self.data = tmp_path / "data"
        self.durability = durability

    def engine(self, keep: int = 1000) -> SqliteEngine:
        self.clock = FakeClock(1_766_200_000.0)
        limits = HistoryLimits(history_size=keep, inbox_size=keep)
        return SqliteEngine(str(self.data), self.durability, limits, clock=self.clock)

    async def time_passes(self, engine: Engine, seconds: float) -> None:
        assert isinstance(engine, SqliteEngine)
        self.clock.advance(seconds)
        engine.sweep()
        # Behind the sweep.
        await engine.check()
