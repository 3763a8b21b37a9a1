"""What does it cost to let somebody in who shows a token?"""

import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import jwt

from harness import BUILD, HERE, Bench, Budget, Row, figures
from hubbub.auth.jwt import JwtAuthenticator
from hubbub.auth.options import AuthOptions
from hubbub.eager import step

# What one core must do: 3,000 in a second.
MOST = 1_000_000 / 3_000


def ask(bench: Bench) -> Iterator[Row]:
    """Whole handshakes with an HS256 token, from the TCP connection to the 101; and the check of a token alone."""
    connections = bench.size(10_000, 100)
    secret = secrets.token_urlsafe(32)
    claims = {"sub": "alice", "exp": int(time.time()) + 3600, "iat": int(time.time()), "roles": ["player"]}
    path = "/ws?token=" + jwt.encode(claims, secret, algorithm="HS256")
    options = ("--jwt-secret", secret, "--rate-limit", "off", "--connections-per-user", "0")
    server = [word for word in bench.server if word != "--dev"] + list(options)
    rounds = 1 if bench.quick else 3
    peer = gorilla()
    theirs, ours = [], []
    for _ in range(rounds):
        if peer is not None:
            theirs.append(bench.measure([str(peer)], "connect", path="/ws", connections=connections))
        ours.append(bench.measure(server, "connect", path=path, connections=connections))
    beside = "; the floor: Go and gorilla, without a token" if peer is not None else ""
    yield Row(
        f"{connections:,} handshakes with HS256: CPU each{beside}",
        "µs",
        figures(theirs, "connect_cpu_us"),
        figures(ours, "connect_cpu_us"),
        Budget(MOST, of="ours"),
    )
    yield Row(
        "a check of an HS256 token",
        "µs",
        [],
        [check(secret, claims, bench) for _ in range(rounds)],
        Budget(60, of="ours"),
    )
    yield Row(
        f"{connections:,} handshakes",
        "per second and core",
        [],
        [1e6 / figure for figure in figures(ours, "connect_cpu_us")],
    )


def gorilla() -> Path | None:
    """The peer in Go, built; None where there is no Go, or its library cannot be had."""
    go = shutil.which("go")
    if go is None:
        return None
    program = BUILD / "gorilla"
    built = subprocess.run(
        [go, "build", "-o", program, "."],
        cwd=HERE / "peers" / "gorilla",
        env=os.environ | {"GOFLAGS": "-mod=mod"},
        check=False,
    )
    return program if built.returncode == 0 else None


def check(secret: str, claims: dict[str, object], bench: Bench) -> float:
    """CPU in µs of one check, in this process: the verifier alone, without a server around it."""
    verifier = JwtAuthenticator(AuthOptions(jwt_secret=secret))
    # Each another token: nothing may be remembered.
    tokens = [jwt.encode(claims | {"jti": str(n)}, secret, algorithm="HS256") for n in range(bench.size(20_000, 100))]
    now = time.time()

    async def check_all() -> None:
        for token in tokens:
            await verifier.identify(token, now)

    started = time.process_time()
    # It waits for nothing, so nothing is left of it.
    assert step(check_all()) is None
    return (time.process_time() - started) / len(tokens) * 1e6
