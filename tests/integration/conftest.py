"""Which engine the servers of a test run on, and whether they speak TLS."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.certificates import AUTHORITY
from support.nats import Nats, serving_nats
from support.nodes import Shared
from support.redis import Redis, serving_redis
from support.server import defaults

_ENGINES = ("memory", "sqlite", "redis", "nats")
# Those that nodes share.
_SHARED = ("redis", "nats")
_prefixes = itertools.count()
# The memory engine, behind a port that speaks TLS.
_IN_TLS = "TLS"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what is marked `every_engine` once on each that its other marks allow; and `tls_too` once more in TLS."""

    def marked(name: str) -> bool:
        return metafunc.definition.get_closest_marker(name) is not None

    if marked("every_engine") or marked("tls_too"):
        engines = list(_ENGINES) if marked("every_engine") and not marked("memory") else [_ENGINES[0]]
        if marked("local"):
            engines = [name for name in engines if name not in _SHARED]
        if marked("own_numbers"):
            engines = [name for name in engines if name != "nats"]
        metafunc.parametrize("engine", engines + [_IN_TLS] * marked("tls_too"), indirect=True)


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """A Redis that runs as long as tests of this process need it."""
    with serving_redis(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture(scope="session")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nats]:
    """A NATS that runs as long as tests of this process need it."""
    with serving_nats(tmp_path_factory.mktemp("nats")) as running:
        yield running


@pytest.fixture(params=_SHARED)
def shared(request: pytest.FixtureRequest) -> Shared:
    """What nodes share: the test runs on each."""
    found: Shared = request.getfixturevalue(request.param)
    return found


@pytest.fixture(autouse=True)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The engine of the servers that `support.server.serving` makes."""
    name: str = getattr(request, "param", "memory")
    if name == "sqlite":
        defaults["data"] = str(tmp_path / "data")
    if name in _SHARED:
        # One for all tests of this worker; each has a part of its own.
        defaults.update(request.getfixturevalue(name).part(f"test{next(_prefixes)}"))
    if name == _IN_TLS:
        defaults.update(AUTHORITY.signs().written(tmp_path))
    yield name
    defaults.clear()
