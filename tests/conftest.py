"""What all tests share: pytest must know of it before any of them is read."""

import os

import pytest
from hypothesis import HealthCheck, settings

# The engines' contract is a module of the package; its asserts must explain themselves like those of tests.
pytest.register_assert_rewrite("hubbub.testing.engines")

# How long an example takes says more about the machine than about the code.
settings.register_profile("hubbub", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("hubbub")


def pytest_xdist_auto_num_workers() -> int:
    """Three for two cores: half of its time a test waits, for a process that starts or for somebody to be late."""
    return max(2, (os.cpu_count() or 1) * 3 // 2)
