"""A server and the processes that it has started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess

__all__ = ["arguments_of", "children", "gone", "kill_with_children", "named"]


def _family(pid: int) -> dict[int, str]:
    """The processes that a process has started, and that live, with the names of their programs."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,stat=,comm="], capture_output=True, text=True, check=True)
    rows = [line.split(None, 3) for line in listed.stdout.splitlines()]
    return {int(row[0]): row[3] for row in rows if int(row[1]) == pid and not row[2].startswith("Z")}


def children(pid: int) -> list[int]:
    """The processes that a process has started, and that live."""
    return list(_family(pid))


def named(program: str, pid: int) -> int:
    """The one of them that runs a program."""
    (found,) = (child for child, name in _family(pid).items() if name == program)
    return found


def arguments_of(pid: int) -> str:
    """What everybody on the machine can see that a process was started with."""
    return subprocess.run(["ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=True).stdout


def gone(pid: int) -> bool:
    """Whether there is no such process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def kill_with_children(pid: int) -> None:
    """Kill a process and those that it has started, as a machine that goes away does."""
    for one in (pid, *children(pid)):
        with contextlib.suppress(ProcessLookupError):  # It has seen that its supervisor is gone, and left by itself.
            os.kill(one, signal.SIGKILL)
