"""The Autobahn test suite, the public yardstick of WebSocket servers, against `hubbub serve`."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "autobahn"

# Kept between runs, beside the project's own environments.
SUITE = Path(__file__).parents[2] / ".venv-autobahn"

# Two parts that take about as long as each other, run side by side: section 12 is minutes of zlib at both ends, and the
# suite is one thread.
LONGEST = ["12.2.*", "12.3.*", "12.4.*"]
PARTS = [LONGEST, ["*", *(f"-{cases}" for cases in LONGEST)]]


@contextlib.contextmanager
def echo() -> Iterator[str]:
    """The address of an echo that takes the suite's largest messages: 16 MiB, in up to 65,536 fragments."""
    command = [sys.executable, "-m", "hubbub", "serve", "--dev", "--port", "0", "--compression"]
    limits = ["--message-size", "17000000", "--message-fragments", "70000"]
    server = subprocess.Popen([*command, *limits], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        for line in server.stdout:
            if ready := re.search(r"ready on http://(\S+)", line):
                break
        else:
            pytest.fail("the server did not start")
        yield f"ws://{ready[1].rstrip('/')}/echo"
    finally:
        server.terminate()
        server.communicate(timeout=40)


def run(cases: list[str], results: Path) -> tuple[int, str]:
    """Run some of the cases against a server of their own: the exit status, and what was printed."""
    environment = {**os.environ, "AUTOBAHN_VENV": str(SUITE)}
    with echo() as address:
        done = subprocess.run(
            ["sh", str(HERE / "run.sh"), address, str(results), *cases], env=environment, capture_output=True, text=True
        )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.alone
@pytest.mark.conformance
@pytest.mark.timeout(1_200)
def test_autobahn(tmp_path: Path) -> None:
    """No case fails, none is passed over, and every connection is closed as the suite wants it."""
    environment = {**os.environ, "PYTHON": sys.executable}
    subprocess.run(["sh", str(HERE / "install.sh"), str(SUITE)], env=environment, check=True)
    folders = [tmp_path / str(number) for number in range(len(PARTS))]
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(run, PARTS, folders))
    print(*(printed for _, printed in done))
    cases: dict[str, dict[str, str]] = {}
    for folder in folders:
        cases |= json.loads((folder / "index.json").read_text())["server"]

    assert len(cases) == 517
    assert [case for case, result in cases.items() if result["behavior"] in ("FAILED", "UNIMPLEMENTED")] == []
    assert [case for case, result in cases.items() if result["behaviorClose"] in ("FAILED", "UNCLEAN")] == []
    assert [status for status, _ in done] == [0, 0]
