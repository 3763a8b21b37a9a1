"""Fuzzing with coverage as its guide: `make fuzz`, or `python -m fuzz --help` in the folder `tests`."""

from __future__ import annotations

import argparse
import importlib.util
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fuzz import seeds
from fuzz.targets import TARGETS

_TESTS = Path(__file__).parents[1]
_CORPUS = _TESTS / "fuzz" / "corpus"

# What was found on the way and is of use the next time; `make clean` removes it.
_WORK = _TESTS.parent / "build" / "fuzz"

# MiB of growth over a run: what libFuzzer itself collects is a few.
_GROWTH = 32

_STATUS = re.compile(r"#(\d+)\s+(\w+)\s+cov: (\d+) ft: \d+ .*rss: (\d+)Mb")


@dataclass(frozen=True)
class Result:
    """What came of one target."""

    executions: int
    # Places in the code that were reached: by the seeds, and at the end.
    coverage: tuple[int, int]
    # MiB, the most so far: behind the seeds, and at the end.
    memory: tuple[int, int]
    # Why it ended early; empty where all was well.
    failure: str

    @property
    def passed(self) -> bool:
        """Whether nothing was found, in steady memory."""
        return not self.failure and self.memory[1] - self.memory[0] <= _GROWTH


def fuzz(target: str, seconds: int) -> Result:
    """Run one target for so long; an input that it fails on becomes a file of the corpus."""
    regressions, found, begin = _CORPUS / target, _WORK / target / "found", _WORK / target / "seeds"
    for folder in (regressions, found, begin):
        folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds.of(target)):
        (begin / str(number)).write_bytes(seed)
    done = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "fuzz.worker",
                target,
                f"-max_total_time={seconds}",
                f"-artifact_prefix={regressions}/",
            ),
            # A choice can become kilobytes, and the memory that is judged is the most that there ever was.
            f"-max_len={70_000 if target.startswith('raw') else 500}",
            *("-timeout=30", "-rss_limit_mb=1024", "-detect_leaks=0"),
            *map(str, (found, begin, regressions)),
        ],
        cwd=_TESTS,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    return judge(done.stdout, done.returncode)


def judge(output: str, status: int) -> Result:
    """What libFuzzer's output says."""
    lines = [(int(at), int(covered), int(memory)) for at, _, covered, memory in _STATUS.findall(output)]
    first, last = lines[0] if lines else (0, 0, 0), lines[-1] if lines else (0, 0, 0)
    for at, event, covered, memory in _STATUS.findall(output):
        if event == "INITED":
            first = int(at), int(covered), int(memory)
    # From where it began, and the end of that.
    failure = (
        ""
        if status == 0 and lines
        else output[max(0, output.rfind("INFO: seed corpus")) :][-6_000:] or "it did not begin"
    )
    return Result(last[0], (first[1], last[1]), (first[2], last[2]), failure)


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(prog="fuzz", description="Look for inputs that are too much for us.")
    parser.add_argument("--seconds", type=int, default=600, help="how long, over all targets [600]")
    parser.add_argument("targets", nargs="*", metavar="target", help=f"one or more of {', '.join(TARGETS)} [all]")
    asked = parser.parse_args(words)
    if unknown := sorted(set(asked.targets) - set(TARGETS)):
        parser.error(f"there is no target {unknown[0]}; there are {', '.join(TARGETS)}")
    return asked


def main() -> int:
    """Fuzz and print what came of it; 1 where something was found."""
    asked = arguments()
    if importlib.util.find_spec("atheris") is None:
        version = ".".join(platform.python_version_tuple()[:2])
        print(
            f"atheris has no wheel for Python {version} on this system: try make fuzz PYTHON=python3.12",
            file=sys.stderr,
        )
        return 1
    targets = asked.targets or list(TARGETS)
    passed = True
    for target in targets:
        result = fuzz(target, max(1, asked.seconds // len(targets)))
        (before, after), (begin, end) = result.coverage, result.memory
        print(
            f"{target:16}  {result.executions:>10,} executions  coverage {before} + {after - before}"
            f"  memory {begin} -> {end} MiB",
            flush=True,
        )
        passed = passed and result.passed
        if result.failure:
            print(f"{result.failure}\nThe input is in {_CORPUS / target}: keep it there, make test replays it.")
        elif not result.passed:
            print(f"{target} FAILED: its memory grew by more than {_GROWTH} MiB")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
