"""What TLS itself lets a client ask for, before anything is said in it: cut where it leads to nothing."""

from __future__ import annotations

import contextlib
import select
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.transports.harness import handshake
from support.certificates import AUTHORITY
from support.loop import PATIENCE, run
from support.openssl import Renewing
from support.server import Child

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="measures with Linux's /proc")


@contextlib.contextmanager
def renewing(address: str) -> Iterator[Renewing]:
    host, _, port = address.partition("://")[2].rpartition(":")
    client = Renewing((host, int(port)), PATIENCE)
    try:
        yield client
    finally:
        client.close()


def upgrade(client: Renewing, path: str) -> None:
    client.socket.sendall(client.said(handshake(path)))
    head = b""
    # Behind the tickets of TLS, perhaps in a piece of its own.
    while not head.endswith(b"\r\n\r\n"):
        head += client.heard(client.socket.recv(65_536))

    assert head.startswith(b"HTTP/1.1 101")


def cpu(child: Child) -> float:
    """Seconds of CPU that the server's main thread has used."""
    return int(Path(f"/proc/{child.process.pid}/schedstat").read_text().split()[0]) / 1e9


def is_cut(sock: socket.socket) -> bool:
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        while sock.recv(65_536):
            pass
    return True


def flags(tmp_path: Path) -> tuple[str, ...]:
    files = AUTHORITY.signs().written(tmp_path)
    return ("--dev", "--tls-cert", files["tls_cert"], "--tls-key", files["tls_key"])


@pytest.mark.parametrize("inside", [False, True], ids=["a stranger", "on an open session"])
def test_a_flood_of_new_keys_is_cut(tmp_path: Path, inside: bool) -> None:
    """Each costs OpenSSL 20 µs, and no message comes of it: 40,000 would hold everybody up for a second."""

    async def main() -> None:
        async with Child.spawned(*flags(tmp_path)) as child:
            with renewing(child.address) as eve:
                if inside:
                    upgrade(eve, "/ws?user_id=eve")
                flood = eve.new_keys(40_000)
                before = cpu(child)
                with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                    eve.socket.sendall(flood)

                assert is_cut(eve.socket)
                assert cpu(child) - before < 0.15

    run(main())


def test_new_keys_now_and_then_are_welcome(tmp_path: Path) -> None:
    """As clients change them that mean well, also many over time: what is said in between counts."""

    async def main() -> None:
        async with Child.spawned(*flags(tmp_path)) as child:
            with renewing(child.address) as bob:
                upgrade(bob, "/echo")
                for _ in range(100):
                    # A masked frame of 200 bytes, and its echo.
                    bob.socket.sendall(bob.new_keys(4) + bob.said(b"\x82\xfe\x00\xc8" + bytes(4) + b"x" * 200))
                    got = b""
                    while not got.endswith(b"x" * 200):
                        got += bob.heard(bob.socket.recv(65_536))

    run(main())


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(b"\x16\x03\x01\x40\x00\x01\x01\xff\xff", id="a greeting of 128 KiB"),
        pytest.param(b"\x16\x03\x01\x40\x00\x01\xff\xff\xff", id="one of 16 MiB"),
    ],
)
def test_a_greeting_that_nobody_needs_so_long_is_not_listened_to(tmp_path: Path, first: bytes) -> None:
    """OpenSSL would reserve what it announces, for each stranger."""

    async def main() -> None:
        async with Child.spawned(*flags(tmp_path)) as child:
            host, _, port = child.address.partition("://")[2].rpartition(":")
            with socket.create_connection((host, int(port)), timeout=PATIENCE) as sock:
                started = time.monotonic()
                # In pieces, too.
                for byte in first:
                    sock.send(bytes((byte,)))
                    select.select([], [], [], 0.001)

                assert is_cut(sock)
                assert time.monotonic() - started < 3

    run(main())
