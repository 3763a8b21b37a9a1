"""Which engine the servers of a test run on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.server import defaults

_ENGINES = ("memory", "sqlite")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what is marked `every_engine` once on each, except what is marked `memory`."""
    if metafunc.definition.get_closest_marker("every_engine"):
        only = metafunc.definition.get_closest_marker("memory")
        metafunc.parametrize("engine", _ENGINES[:1] if only else _ENGINES, indirect=True)


@pytest.fixture(autouse=True)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The engine of the servers that `support.server.serving` makes."""
    name: str = getattr(request, "param", "memory")
    if name == "sqlite":
        defaults["data"] = str(tmp_path / "data")
    yield name
    defaults.clear()
