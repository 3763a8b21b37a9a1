"""A dashboard: a task publishes figures each second, as long as somebody looks."""

from __future__ import annotations

import asyncio
import resource

from msgspec import Struct

from hubbub import Hub, Session

hub = Hub()

INTERVAL = 1.0


class Figures(Struct):
    """What everyone who looks gets."""

    sessions: int
    cpu_seconds: float


# The task, while there is one: the event loop itself keeps no reference to it.
publishing: asyncio.Task[None] | None = None


@hub.on_connect
async def begin(session: Session) -> None:
    """Somebody comes: publish, unless that is going on already."""
    global publishing
    if publishing is None or publishing.done():
        publishing = asyncio.create_task(publish())


async def publish() -> None:
    """Publish figures until nobody is there."""
    while True:
        await asyncio.sleep(INTERVAL)
        looking = len(hub.local_sessions())
        if not looking:
            return
        cpu = resource.getrusage(resource.RUSAGE_SELF).ru_utime
        # Of this moment: not kept, and a slow reader may miss one.
        await hub.publish("figures", Figures(looking, cpu), volatile=True)
