"""How long does a message of 16 MiB take, and who notices?"""

import base64
import json
import multiprocessing
import os
import select
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor

from client import Client, frame
from harness import Bench, Budget, MeasurementError, Row, pinned, serving
from hubbub.protocol.chunks import cut, parts_of

SIZE = 16 * 2**20
# Seconds between two small messages; and for which they go on where nothing large is sent.
PACE = 0.001
QUIET = 1.0
PATIENCE = 10.0


def ask(bench: Bench) -> Iterator[Row]:
    """A large message from one client to another, while two others exchange a small one every millisecond."""
    size = bench.size(SIZE, 2**20)
    for kind, message in (("bytes", _of_bytes(size)), ("a JSON string", _of_text(size))):
        frames = _frames(message)
        quiet: list[float] = []
        taken: list[float] = []
        longest: list[float] = []
        for _ in range(1 if bench.quick else bench.rounds):
            with serving(bench.server, bench.cores[0]) as (_, port, _output), pinned(bench.cores[1]):
                small = _Small(port)
                with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as other:
                    ready = other.submit(_transfer, port, frames[:1], 0)
                    ready.result(PATIENCE)
                    quiet.append(small.exchange(None))
                    transfer = other.submit(_transfer, port, frames, len(frames))
                    longest.append(small.exchange(transfer))
                    taken.append(transfer.result(PATIENCE) * 1_000)
        yield Row(f"{size >> 20} MiB of {kind} from client to client", "ms", [], taken, Budget(1_000, of="ours"))
        yield Row(
            f"longest delay of a small message meanwhile ({kind}); floor: without it",
            "ms",
            quiet,
            longest,
            Budget(20, of="ours"),
        )


def _of_bytes(size: int) -> bytes:
    head = {"type": "doc", "to": "u2", "binary": True, "echo": False}
    content = base64.b64encode(os.urandom((size - 200) // 4 * 3)).decode()
    return json.dumps({**head, "content": content}).encode()


def _of_text(size: int) -> bytes:
    return json.dumps({"type": "doc", "to": "u2", "echo": False, "content": "large " * ((size - 200) // 6)}).encode()


def _frames(message: bytes) -> list[bytes]:
    total = parts_of(len(message))
    return [
        frame({"type": "chunk", "id": "t1", "index": index, "total": total, "data": base64.b64encode(part).decode()})
        for index, part in enumerate(cut(message))
    ]


def _transfer(port: int, frames: list[bytes], parts: int) -> float:
    """Send the frames to another client that waits for so many; seconds until it has the last."""
    sender, receiver = Client(port, 1), Client(port, 2)
    if not parts:
        # From now on: who looks at the clock shares the core, and must not wait for this.
        os.nice(10)
        return 0.0
    start = time.perf_counter()
    receiver.socket.settimeout(PATIENCE)
    child = os.fork()
    if not child:
        # Who sends must not wait for who receives.
        try:
            sender.socket.sendall(b"".join(frames))
        finally:
            os._exit(0)
    try:
        while parts:
            message = receiver.receive()
            if b'"error"' in message:
                raise MeasurementError(message.decode())
            parts -= message.startswith(b'{"type":"chunk"')
        return time.perf_counter() - start
    finally:
        os.waitpid(child, 0)


class _Small:
    """Two clients, of which one sends the other a small message every millisecond."""

    def __init__(self, port: int) -> None:
        self._sender, self._receiver = Client(port, 3), Client(port, 4)
        self._receiver.socket.setblocking(False)

    def exchange(self, until: "Future[float] | None") -> float:
        """Go on until that is done, or for a while; the longest time in ms from when one was due until it was there."""
        start = time.perf_counter()
        due: list[float] = []
        arrived = 0
        longest = 0.0
        while True:
            now = time.perf_counter()
            over = until.done() if until is not None else now > start + QUIET
            if over and arrived == len(due):
                return longest * 1_000
            if not over and now >= start + len(due) * PACE:
                due.append(start + len(due) * PACE)
                self._sender.socket.sendall(frame({"type": "chat", "to": "u4", "volatile": True, "content": "hub"}))
            # Not by looking all the time: the others would have to share the core.
            select.select([self._receiver.socket], [], [], max(0.0, start + len(due) * PACE - time.perf_counter()))
            try:
                while arrived < len(due):
                    self._receiver.receive()
                    longest = max(longest, time.perf_counter() - due[arrived])
                    arrived += 1
            except BlockingIOError:
                if due and time.perf_counter() > due[arrived] + PATIENCE:
                    raise MeasurementError("a small message did not come") from None
