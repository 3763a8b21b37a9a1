"""The benchmarks still work: what they measure is said by `make bench`, and only on a quiet machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(sys.platform != "linux", reason="the floor and the load generator are of Linux")
@pytest.mark.skipif(shutil.which(os.environ.get("CC", "cc")) is None, reason="there is no C compiler")
def test_a_quick_run_answers() -> None:
    """The floor and the load generator are built, both servers are measured, nothing is judged."""
    command = [sys.executable, str(ROOT / "bench" / "run.py"), "--quick", "unicast", "limits"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    rows = [line for line in done.stdout.splitlines() if line.endswith("–") and "×" in line]

    assert (done.returncode, done.stderr) == (0, "")
    assert len(rows) >= 2, done.stdout
