"""The Autobahn test suite, the public yardstick of WebSocket servers, against `hubbub serve`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "autobahn"

# Kept between runs, beside the project's own environments.
SUITE = Path(__file__).parents[2] / ".venv-autobahn"

# Sections 12 and 13 are about compression, which is not offered.
CASES = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*"]


@pytest.fixture
def echo() -> Iterator[str]:
    """The address of an echo that takes the suite's largest messages: 16 MiB, in up to 65,536 fragments."""
    command = [sys.executable, "-m", "hubbub", "serve", "--dev", "--port", "0"]
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


@pytest.mark.alone
@pytest.mark.conformance
@pytest.mark.timeout(600)
def test_autobahn(echo: str, tmp_path: Path) -> None:
    """No case fails, and every connection is closed as the suite wants it."""
    environment = {**os.environ, "PYTHON": sys.executable, "AUTOBAHN_VENV": str(SUITE)}
    subprocess.run(["sh", str(HERE / "install.sh"), str(SUITE)], env=environment, check=True)
    run = subprocess.run(
        ["sh", str(HERE / "run.sh"), echo, str(tmp_path), *CASES], env=environment, capture_output=True, text=True
    )
    print(run.stdout, run.stderr)
    cases = json.loads((tmp_path / "index.json").read_text())["server"]

    assert len(cases) == 301
    assert [case for case, result in cases.items() if result["behavior"] == "FAILED"] == []
    assert [case for case, result in cases.items() if result["behaviorClose"] in ("FAILED", "UNCLEAN")] == []
    assert run.returncode == 0
