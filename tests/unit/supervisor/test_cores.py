"""A container that may use two cores of sixty-four is a machine with two."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hubbub.supervisor.cores import cores

ALL = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("100000 100000\n", 1),
        # A part of a core is one that is there now and then.
        ("20000 100000\n", 1),
        ("150000 100000\n", min(ALL, 2)),
        ("100000000 100000\n", ALL),
        ("max 100000\n", ALL),
        ("what is this", ALL),
    ],
)
def test_a_quota_is_kept(tmp_path: Path, text: str, found: int) -> None:
    """What cannot be read is none."""
    quota = tmp_path / "cpu.max"
    quota.write_text(text)

    assert cores(quota) == found


def test_without_a_quota_all_cores_count(tmp_path: Path) -> None:
    assert cores(tmp_path / "there is none") == ALL
