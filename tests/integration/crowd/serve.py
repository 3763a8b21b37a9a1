"""The server of a crowd: it publishes to many rooms by itself, evenly, and says how many sessions it has.

usage: serve.py ROOMS RATE
Prints its port's number and then the number of sessions whenever it has changed. It publishes RATE messages of 1 KB a
second in all, from the first line of its standard input to the end of it, and then prints how many each room got.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time

import uvloop

from hubbub import Hub
from hubbub.config import load
from hubbub.server import Server

# Seconds: short, so that not many messages meet in one turn of the event loop.
TICK = 0.001
# Messages of one turn.
MOST = 50
PADDING = "x" * 880
SNDBUF = 65_536


async def main(rooms: int, rate: int) -> None:
    loop = asyncio.get_running_loop()
    hub = Hub()
    # What is kept has nothing to do with who reads.
    server = Server(hub, load({"dev": True, "port": 0, "history_size": 10, "rate_limit": "off"}, {}))
    await server.start()
    assert server._port is not None
    for listening in server._port._servers[0].sockets:
        # Bytes of the kernel for each connection: it would make megabytes of them, and fill them for half a minute
        # before it says that a reader has stopped.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SNDBUF)
    print(server._port.addresses[0][1], flush=True)
    watching = loop.create_task(watch(hub))
    await loop.run_in_executor(None, sys.stdin.readline)
    reading = loop.run_in_executor(None, sys.stdin.read)
    began, count = loop.time(), 0
    while not reading.done():
        # Bounded, so that the loop turns also where it is behind.
        due = min(int((loop.time() - began) * rate), count + MOST)
        for number in range(count, due):
            await publish(hub, f"r{number % rooms}")
        count = max(count, due)
        await asyncio.sleep(TICK)
    for number in range(count, count + -count % rooms):
        await publish(hub, f"r{number % rooms}")
    print("each", -(-count // rooms), flush=True)
    # Until the readers have left.
    while hub.local_sessions():
        await asyncio.sleep(0.05)
    watching.cancel()
    await server.stop()


async def publish(hub: Hub, room: str) -> None:
    # The time as sixteen digits, at a place that is easy to find.
    await hub.publish("tick", f"{time.monotonic_ns():016d}{PADDING}", room=room)


async def watch(hub: Hub) -> None:
    last = 0
    while True:
        if (now := hub.statistics().connections) != last:
            last = now
            print("sessions", now, flush=True)
        await asyncio.sleep(0.05)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(int(sys.argv[1]), int(sys.argv[2])))
