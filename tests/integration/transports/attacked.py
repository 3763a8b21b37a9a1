"""The server that the attack tests attack: a port with echo behind it, in a process of its own.

It compresses for who asks for it.

usage: attacked.py uvloop|asyncio
Prints the port's number, then serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import uvloop
from starlette.applications import Starlette

from hubbub.core.wheel import Wheel
from hubbub.protocol.deflate import CompressionOptions
from hubbub.transports.base import TransportLimits
from hubbub.transports.echo import admit_echo
from hubbub.transports.http import Http
from hubbub.transports.port import Port, bind
from hubbub.transports.websocket import WebSocket


async def main() -> None:
    loop = asyncio.get_running_loop()
    # Short, so that a test need not wait for it.
    limits = TransportLimits(close_timeout=0.5)
    wheel = Wheel(loop.time())

    def tick() -> None:
        for callback in wheel.advance(loop.time()):
            callback()
        loop.call_later(wheel.granularity, tick)

    tick()

    def ignore_full(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # asyncio says so for each connection that it cannot accept.
        if not isinstance(context.get("exception"), OSError):
            loop.default_exception_handler(context)

    loop.set_exception_handler(ignore_full)
    websocket = WebSocket(limits, wheel, CompressionOptions(compression=True))
    http = Http(Starlette(), limits, wheel)
    port = Port(
        limits=limits,
        wheel=wheel,
        paths={"/ws": admit_echo},
        websocket=websocket.open,
        http=http.protocol,
        compression=True,
    )
    await port.open(await bind("127.0.0.1", 0))
    print(port.addresses[0][1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    # What asyncio knows of tasks: this one, and none for any connection.
    print(len(asyncio.all_tasks()), flush=True)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if sys.argv[1] == "uvloop" else None) as runner:
        runner.run(main())
