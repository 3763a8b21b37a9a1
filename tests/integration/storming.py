"""Clients in a process of their own, which come one after the other and stay if they are let in.

usage: storming.py HOST PORT
Reads lines `COUNT PER_SECOND` and answers each with one of JSON: how many were let in, how many were refused as they
must be, and what else happened. 0 per second: as fast as it goes. A count of 0: until one is let in, who leaves again.
Who is in stays until standard input ends.
"""

from __future__ import annotations

import itertools
import json
import socket
import sys
import time
from collections.abc import Iterable

from contract.transports.harness import handshake

PATIENCE = 60.0


def attempt(place: tuple[str, int], user: str) -> tuple[socket.socket, bytes]:
    """Ask to be let in: the connection, and the answer's head."""
    sock = socket.create_connection(place, timeout=PATIENCE)
    sock.sendall(handshake(f"/ws?user_id={user}"))
    head = b""
    while b"\r\n\r\n" not in head and (data := sock.recv(4_096)):
        head += data
    return sock, head


def main() -> None:
    place = (sys.argv[1], int(sys.argv[2]))
    inside: list[socket.socket] = []
    for line in sys.stdin:
        count, per_second = map(int, line.split())
        found = {"in": 0, "refused": 0}
        started = time.perf_counter()
        numbers: Iterable[int] = range(count) if count else itertools.count()
        for number in numbers:
            if per_second:
                time.sleep(max(0.0, started + number / per_second - time.perf_counter()))
            sock, head = attempt(place, f"u-{len(inside)}")
            if head.startswith(b"HTTP/1.1 101 "):
                found["in"] += 1
                if not count:
                    sock.close()
                    break
                inside.append(sock)
                continue
            sock.close()
            good = head.startswith(b"HTTP/1.1 503 ") and b"\r\nRetry-After: " in head
            outcome = "refused" if good else head.partition(b"\r\n")[0].decode() or "cut"
            found[outcome] = found.get(outcome, 0) + 1
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
