"""What people install is complete, and nothing more: the wheel is built, looked into, installed and run."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from urllib.request import urlopen

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "hubbub"


def pip(*arguments: str, python: str = sys.executable) -> None:
    """Run pip; what it says is shown only where it fails."""
    command = [python, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    # The backend is among the development packages: nothing is downloaded.
    pip("wheel", str(ROOT), "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder))
    (built,) = folder.glob("*.whl")
    return built


def test_wheel_has_the_package_and_nothing_else(wheel: Path) -> None:
    """Every file of the package is in it, the pages and the mark of being typed too; no test and no tool is."""
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
        licensed = any(name.endswith("licenses/LICENSE") for name in archive.namelist())
    files = (path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)

    assert packed == {path.relative_to(ROOT / "src").as_posix() for path in files}
    assert {"hubbub/py.typed", "hubbub/web/index.html"} <= packed
    assert licensed


def test_installed_wheel_serves(wheel: Path, tmp_path: Path) -> None:
    """In a fresh environment, with the dependencies that it names and no others, the demo runs and has its page."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    binaries = tmp_path / "venv" / "bin"
    pip("install", "--no-compile", str(wheel), python=str(binaries / "python"))
    version = subprocess.run([binaries / "hubbub", "--version"], capture_output=True, text=True, check=True)

    assert version.stdout == f"hubbub {metadata.version('hubbub')}\n"
    with served(binaries / "hubbub", tmp_path) as address:
        for path, kind in (("/", "text/html"), ("/web/client.js", "text/javascript"), ("/ready", "application/json")):
            with urlopen(address + path, timeout=10) as response:
                assert response.headers["Content-Type"].startswith(kind)


@contextmanager
def served(hubbub: Path, folder: Path) -> Iterator[str]:
    """`hubbub serve --dev`; yields its address."""
    command = [str(hubbub), "serve", "--dev", "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder)
    try:
        assert server.stdout is not None
        ready = re.search(r"ready on (\S+)", server.stdout.readline())

        assert ready
        yield ready[1]
    finally:
        server.terminate()
        server.communicate(timeout=40)

    assert server.returncode == 0
