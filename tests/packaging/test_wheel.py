"""What people install is complete, and nothing more: the wheel is built, looked into, installed and run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from http.client import HTTPConnection
from importlib import metadata
from pathlib import Path
from typing import NamedTuple
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


@pytest.fixture(scope="module")
def hubbub(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command `hubbub` in a fresh environment: the wheel, the dependencies that it names, and no extra."""
    environment = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    pip("install", "--no-compile", str(wheel), python=str(environment / "bin" / "python"))
    return environment / "bin" / "hubbub"


def test_installed_wheel_serves(hubbub: Path, tmp_path: Path) -> None:
    """The demo runs and has its page."""
    version = subprocess.run([hubbub, "--version"], capture_output=True, text=True, check=True)

    assert version.stdout == f"hubbub {metadata.version('hubbub')}\n"
    with served(hubbub, tmp_path) as address:
        for path, kind in (("/", "text/html"), ("/web/client.js", "text/javascript"), ("/ready", "application/json")):
            with urlopen(address + path, timeout=10) as response:
                assert response.headers["Content-Type"].startswith(kind)


def test_without_the_extra_protobuf_is_not_spoken(hubbub: Path, tmp_path: Path) -> None:
    """The server runs and speaks the other codecs; who offers Protobuf alone is told so, and who offers more is not."""
    with served(hubbub, tmp_path) as address:
        for offered, chosen in (
            ("hubbub.v1.json", "hubbub.v1.json"),
            ("hubbub.v1.msgpack", "hubbub.v1.msgpack"),
            ("hubbub.v1.protobuf, hubbub.v1.msgpack", "hubbub.v1.msgpack"),
        ):
            response = handshake(address, offered)

            assert (response.status, response.headers["Sec-WebSocket-Protocol"]) == (101, chosen)
        refusal = handshake(address, "hubbub.v1.protobuf")
        error = json.loads(refusal.body)["error"]

        assert (refusal.status, error["code"]) == (400, "bad_message")
        # What it does speak.
        assert "hubbub.v1.json" in error["message"] and "hubbub.v1.msgpack" in error["message"]
        assert "hubbub.v1.protobuf" not in error["message"]


def test_without_the_extra_the_client_says_what_to_install(hubbub: Path) -> None:
    program = "from hubbub.client import Client; Client('http://localhost', codec='protobuf')"
    done = subprocess.run([hubbub.with_name("python"), "-c", program], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("pip install 'hubbub[protobuf]'")


class Response(NamedTuple):
    """What a server answers to a handshake."""

    status: int
    headers: Message
    body: bytes


def handshake(address: str, offered: str) -> Response:
    """Ask for a WebSocket with these subprotocols, and go away again."""
    connection = HTTPConnection(address.removeprefix("http://"), timeout=10)
    try:
        headers = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Protocol": offered,
        }
        connection.request("GET", "/ws", headers=headers)
        response = connection.getresponse()
        return Response(response.status, response.headers, b"" if response.status == 101 else response.read())
    finally:
        connection.close()


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
