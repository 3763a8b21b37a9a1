"""`/metrics` of several workers: whoever is asked answers for all of them, and for one that hangs."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client.parser import text_string_to_metric_families

from support.client import open_client
from support.crowd import Crowd
from support.loop import PATIENCE, eventually, run
from support.processes import children
from support.redis import Redis
from support.server import get
from support.workers import by_worker, workers

# Seconds for an answer of a worker that can give one.
AT_ONCE = 0.5

# The value of each sample, by its name and its labels.
Samples = dict[tuple[str, ...], float]


async def scrape(address: str) -> Samples:
    """What one of the workers answers, whichever: another one is asked where it is one that has been stopped."""
    for _ in range(30):
        try:
            async with asyncio.timeout(AT_ONCE):
                text = (await get(address, "/metrics")).body.decode()
        except TimeoutError:
            continue
        families = list(text_string_to_metric_families(text))
        found = [((one.name, *one.labels.values()), one.value) for family in families for one in family.samples]

        assert len({family.name for family in families}) == len(families) == text.count("# TYPE ")
        assert len(dict(found)) == len(found)
        return dict(found)
    raise TimeoutError


def of(samples: Samples, name: str) -> dict[str, float]:
    """The values of one metric by worker."""
    return {labels[0]: value for (found, *labels), value in samples.items() if found == name}


def connections(samples: Samples) -> dict[str, float]:
    """The open connections by worker."""
    return of(samples, "websocket_active_connections")


@asynccontextmanager
async def scraped_all_the_time(address: str) -> AsyncIterator[list[Samples]]:
    """Answers that come one after the other as long as the block runs."""
    answers: list[Samples] = []

    async def ask() -> None:
        while True:
            answers.append(await scrape(address))

    asking = asyncio.create_task(ask())
    try:
        yield answers
    finally:
        asking.cancel()
        await asyncio.wait((asking,))


def test_whoever_is_asked_answers_for_all(redis: Redis) -> None:
    """Each worker with its own numbers, and no counter goes back when another worker answers."""

    async def main() -> None:
        async with workers(redis) as child, Crowd(child.address, 12) as crowd:
            counter = "websocket_messages_processed_total"
            async with scraped_all_the_time(child.address) as answers:
                await crowd.speak_while(lambda: eventually(lambda: len(answers) >= 60))
            for name in ("1", "2", "3"):
                counted = [of(samples, counter)[name] for samples in answers]

                assert counted == sorted(counted)
            # Each has said hello, joined, and one has gone on speaking; what the others have counted is a moment old.
            sent = 12 + 12 + crowd.said
            async with asyncio.timeout(PATIENCE):
                while sum(of(await scrape(child.address), counter).values()) < sent:
                    await asyncio.sleep(0.05)
            some = [await scrape(child.address) for _ in range(12)]

            assert {tuple(connections(samples).items()) for samples in some} == {
                tuple((name, float(by_worker(child)[name])) for name in ("1", "2", "3"))
            }
            assert {sum(of(samples, counter).values()) for samples in some} == {sent}
            assert set(of(some[0], "hubbub_worker_up")) == {"1", "2", "3"}

    run(main())


def test_one_that_hangs_holds_up_nobody(redis: Redis) -> None:
    """Its last numbers stay, for its connections do; when it is killed they are gone, and nobody counts twice."""

    async def main() -> None:
        async with workers(redis) as child, Crowd(child.address, 12):
            first = children(child.process.pid)[0]
            before: Samples = {}
            async with asyncio.timeout(PATIENCE):
                while sum(connections(before).values()) < 12:
                    before = await scrape(child.address)
                os.kill(first, signal.SIGSTOP)
                while of(hung := await scrape(child.address), "hubbub_worker_up")["1"]:
                    await asyncio.sleep(0.05)
                os.kill(first, signal.SIGKILL)
                while not of(after := await scrape(child.address), "hubbub_worker_restarts_total")["1"]:
                    await asyncio.sleep(0.05)
                # Its clients come back; what it had is not added to that.
                while (total := sum(connections(await scrape(child.address)).values())) < 12:
                    await asyncio.sleep(0.05)

            assert connections(hung) == connections(before)
            assert total == 12
            assert of(after, "hubbub_worker_restarts_total") == {"1": 1.0, "2": 0.0, "3": 0.0}

    run(main())


def test_who_drains_for_a_successor_has_another_name(redis: Redis) -> None:
    """So no sample is there twice, and no counter goes on from another's; when it has ended, its name is gone."""

    async def main() -> None:
        async with workers(redis, "--dev", "--close-timeout", "20", count=2) as child:
            slow = [await open_client(child.address, f"u{number}") for number in range(12)]
            for client in slow:
                await client.sync()
                client.stall()
            counter = "websocket_messages_processed_total"
            async with asyncio.timeout(PATIENCE):
                while sum((before := of(await scrape(child.address), counter)).values()) < 12:
                    await asyncio.sleep(0.05)
                child.signal(signal.SIGHUP)
                while "1-leaving" not in (draining := of(samples := await scrape(child.address), counter)):
                    await asyncio.sleep(0.05)
                for client in slow:
                    client.resume()
                await asyncio.gather(*(client.closed() for client in slow))
                while set(of(await scrape(child.address), counter)) != {"1", "2"}:
                    await asyncio.sleep(0.05)

            assert draining == {"1": 0.0, "1-leaving": before["1"], "2": before["2"]}
            assert set(of(samples, "hubbub_worker_up")) == {"1", "2"}

    run(main())
