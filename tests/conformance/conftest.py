"""Conformance suites are other people's programs, installed on first use: they have a marker to choose them by."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "conformance: runs a public conformance suite, installing it if need be")
