"""How many cores this process may use: no more workers than that have something to run on."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Final

__all__ = ["cores"]

# Where a container sees how much of the machine's time it has (cgroup v2).
_QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")


def cores(quota: Path = _QUOTA) -> int:
    """The cores it may run on, and no more than its container has time for: two and a half are three; at least 1."""
    # Where the system says it (Linux).
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        time, period = quota.read_text().split()
        return max(1, min(allowed, math.ceil(int(time) / int(period))))
    except (OSError, ValueError):
        # There is no such file, or `max` in it: no quota.
        return allowed
