"""Several workers on one port: they share the work, are started again when they die, and nobody notices a roll."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from hubbub.client import connect
from support.client import open_client
from support.crowd import Crowd
from support.loop import PATIENCE, eventually, run
from support.processes import children, gone
from support.redis import Redis
from support.server import command, get
from support.workers import by_worker, workers


def test_all_take_their_share(redis: Redis) -> None:
    """The kernel spreads connections: no worker has less than a quarter of what would be even."""

    async def main() -> None:
        async with workers(redis, count=2) as child, Crowd(child.address, 60):
            taken = by_worker(child)

            assert set(taken) == {"1", "2"}
            assert min(taken.values()) >= 60 / 2 / 4
            assert child.errors() == ""

    run(main())


def test_a_worker_that_is_killed_is_started_again(redis: Redis) -> None:
    """Whoever was on it comes back, and nothing is lost or doubled; the others notice nothing."""

    async def main() -> None:
        async with workers(redis) as child, Crowd(child.address, 9) as crowd:
            first = children(child.process.pid)

            async def kill() -> None:
                os.kill(first[0], signal.SIGKILL)
                await eventually(lambda: len(children(child.process.pid)) == 3)
                await eventually(lambda: "another is started" in child.errors())

            await crowd.speak_while(kill)

            assert crowd.said > 0 and all(heard == list(range(crowd.said)) for heard in crowd.heard)
            assert set(first[1:]) < set(children(child.process.pid))
            assert "worker 1 has ended (signal SIGKILL)" in child.errors()

    run(main())


def test_a_worker_that_hangs_is_replaced(redis: Redis, tmp_path: Path) -> None:
    """Its event loop gives no sign of life; and who gives one is not."""

    async def main() -> None:
        (tmp_path / "app.py").write_text(
            "import time\nfrom hubbub import Hub\n\nhub = Hub()\n\n\n"
            '@hub.on("hang")\nasync def hang(message):\n    time.sleep(600)\n'
        )
        words = ("app:hub", "--dev", "--worker-timeout", "2")
        async with workers(redis, *words, count=2, cwd=tmp_path) as child:
            first = children(child.process.pid)
            # One that does not come back: it would say the same to the next.
            alice = await open_client(child.address, "alice")
            await alice.send({"type": "hang", "to": "alice"})
            await alice.closed()
            await eventually(lambda: "has given no sign of life for 2 s and was killed" in child.errors())
            await eventually(lambda: len(children(child.process.pid)) == 2)
            left = set(first) & set(children(child.process.pid))

            assert len(left) == 1
            assert child.errors().count("another is started") == 1

    run(main())


def test_who_is_stopped_together_goes_on_together(redis: Redis) -> None:
    """A machine that sleeps for longer than a worker may hang: nobody is replaced when it wakes."""

    async def main() -> None:
        async with workers(redis, "--dev", "--worker-timeout", "1", count=2) as child:
            first = children(child.process.pid)
            for pid in (child.process.pid, *first):
                os.kill(pid, signal.SIGSTOP)
            with pytest.raises(TimeoutError):
                await child.exit_status(within=1.5)
            # The supervisor first: it finds them silent.
            for pid in (child.process.pid, *first):
                os.kill(pid, signal.SIGCONT)
            for _ in range(20):
                assert (await get(child.address, "/health")).status == 200

            assert children(child.process.pid) == first
            assert child.errors() == ""

    run(main())


def test_a_roll_replaces_all_and_nobody_notices(redis: Redis) -> None:
    """SIGHUP: a successor is ready before its predecessor says goodbye; no request is refused meanwhile."""

    async def main() -> None:
        async with workers(redis, "--dev", "--drain-timeout", "2", count=2) as child, Crowd(child.address, 6) as crowd:
            first = set(children(child.process.pid))
            answers = Counter[int]()

            async def roll() -> None:
                child.signal(signal.SIGHUP)
                while first & set(children(child.process.pid)):
                    answers[(await get(child.address, "/health")).status] += 1

            await crowd.speak_while(roll)

            assert crowd.said > 0 and all(heard == list(range(crowd.said)) for heard in crowd.heard)
            assert len(children(child.process.pid)) == 2
            assert set(answers) == {200}

    run(main())


def test_a_successor_that_does_not_start_changes_nothing(redis: Redis, tmp_path: Path) -> None:
    """A roll with a mistake in the code ends at the first worker; and the code mended, it goes through."""

    async def main() -> None:
        app = tmp_path / "app.py"
        good = "from hubbub import Hub\n\nhub = Hub()\n"
        app.write_text(good)
        async with workers(redis, "app:hub", "--dev", count=2, cwd=tmp_path) as child:
            first = children(child.process.pid)
            app.write_text("import nothing_of_that_name\n")
            child.signal(signal.SIGHUP)
            await eventually(lambda: "the successor of worker 1 does not start" in child.errors())
            still = children(child.process.pid)
            app.write_text(good)
            child.signal(signal.SIGHUP)
            await eventually(lambda: not set(first) & set(children(child.process.pid)))

            assert still == first
            assert "No module named 'nothing_of_that_name'" in child.errors()

    run(main())


def test_who_cannot_come_back_is_in_nobodys_way(redis: Redis, tmp_path: Path) -> None:
    """A worker that died and does not start gets no connections; when it can, it is there again."""

    async def main() -> None:
        app = tmp_path / "app.py"
        good = "from hubbub import Hub\n\nhub = Hub()\n"
        app.write_text(good)
        async with workers(redis, "app:hub", "--dev", count=2, cwd=tmp_path) as child:
            first = children(child.process.pid)
            app.write_text("import nothing_of_that_name\n")
            os.kill(first[0], signal.SIGKILL)
            await eventually(lambda: "worker 1 does not start" in child.errors())
            for _ in range(30):
                assert (await get(child.address, "/health")).status == 200
            app.write_text(good)
            async with asyncio.timeout(PATIENCE):
                while not by_worker(child)["1"]:
                    # Its share of what comes is its own again.
                    async with connect(f"{child.address}/?user_id=alice"):
                        pass

    run(main())


def test_a_module_that_starts_a_process_holds_nobody_up(redis: Redis, tmp_path: Path) -> None:
    """Though that has what its parent has open."""

    async def main() -> None:
        (tmp_path / "app.py").write_text(
            "import os, time\nfrom hubbub import Hub\n\nhub = Hub()\n"
            "if not os.fork():\n    time.sleep(5)\n    os._exit(0)\n"
        )
        async with workers(redis, "app:hub", "--dev", count=2, cwd=tmp_path) as child:
            assert (await get(child.address, "/health")).status == 200

    run(main())


@pytest.mark.skipif(not hasattr(signal, "SIGRTMIN"), reason="all signals of this system have names")
def test_whatever_a_worker_dies_of_it_is_started_again(redis: Redis) -> None:
    """A signal without a name, for one."""

    async def main() -> None:
        async with workers(redis, count=2) as child:
            os.kill(children(child.process.pid)[0], signal.SIGRTMIN + 6)
            await eventually(lambda: f"worker 1 has ended (signal {signal.SIGRTMIN + 6})" in child.errors())
            await eventually(lambda: len(children(child.process.pid)) == 2)

    run(main())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_end(redis: Redis, number: signal.Signals) -> None:
    """All are drained, and the exit status is that of a server alone."""

    async def main() -> None:
        async with workers(redis, count=2) as child:
            client = connect(f"{child.address}/?user_id=alice")
            await client.open()
            child.signal(number)

            assert await child.exit_status() == 0
            assert child.errors() == ""
            await client.close()

    run(main())


def test_without_their_supervisor_they_end(redis: Redis) -> None:
    """It is killed, and cannot say so; nothing is left behind."""

    async def main() -> None:
        async with workers(redis, count=2) as child:
            mine = children(child.process.pid)
            child.signal(signal.SIGKILL)
            await child.exit_status()
            for pid in mine:
                await eventually(partial(gone, pid))

    run(main())


class TestErrors:
    """What is wrong with all of them is said once, in one sentence."""

    def test_a_port_in_use(self, redis: Redis) -> None:
        """Also by somebody who would share it."""

        async def main() -> None:
            async with workers(redis, count=2) as child:
                port = child.address.rpartition(":")[2]
                status, out, errors = await command("serve", "--dev", "--workers", "2", "--port", port)

                assert status == 2 and out == ""
                assert errors.count("is in use: stop what listens there") == errors.count("\n") == 1

        run(main())

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (("nowhere:hub", "--dev"), "there is no module 'nowhere' here"),
            ((), "nobody could come in"),
        ],
    )
    def test_a_mistake(self, redis: Redis, words: Sequence[str], said: str, tmp_path: Path) -> None:
        async def main() -> None:
            status, out, errors = await command(
                "serve", *words, "--workers", "3", "--port", "0", cwd=tmp_path, HUBBUB_ENGINE=redis.url
            )

            assert status == 2 and out == ""
            assert errors.count(said) == errors.count("\n") == 1

        run(main())

    def test_the_folder_of_the_other_kind(self, tmp_path: Path) -> None:
        """What one process has stored is not what several share: neither opens the other's."""

        async def main() -> None:
            (tmp_path / "alone").mkdir()
            (tmp_path / "alone" / "hubbub.db").write_bytes(b"")
            (tmp_path / "several" / "nats").mkdir(parents=True)
            for count, folder, said in (
                ("2", "alone", "start without workers"),
                ("1", "several", "--workers 2 or more"),
            ):
                words = ("--workers", count, "--data", str(tmp_path / folder))
                status, out, errors = await command("serve", "--dev", "--port", "0", *words)

                assert status == 2 and out == ""
                assert errors.count(said) == errors.count("\n") == 1

        run(main())

    def test_a_program_that_fails(self, redis: Redis, tmp_path: Path) -> None:
        """With its own traceback, and the exit status of Python."""

        async def main() -> None:
            (tmp_path / "app.py").write_text("1 / 0\n")
            status, _, errors = await command(
                "serve", "app:hub", "--dev", "--workers", "3", cwd=tmp_path, HUBBUB_ENGINE=redis.url
            )

            assert status == 1 and errors.count("ZeroDivisionError: ") == 1

        run(main())


async def ready(address: str) -> int:
    return (await get(address, "/ready")).status


def test_while_they_drain_they_say_so(redis: Redis) -> None:
    """Whoever asks meanwhile is answered with 503 and not left waiting."""

    async def main() -> None:
        async with workers(redis, "--dev", "--close-timeout", "20", count=2) as child:
            slow = [await open_client(child.address, f"u{number}") for number in range(12)]
            for client in slow:
                client.stall()
            child.signal(signal.SIGTERM)
            async with asyncio.timeout(PATIENCE):
                while (status := await ready(child.address)) == 200:
                    await asyncio.sleep(0.01)

            assert status == 503
            assert {await ready(child.address) for _ in range(10)} == {503}
            for client in slow:
                client.resume()
                assert (await client.closed())[0] == 1012
            assert await child.exit_status() == 0

    run(main())


def test_the_end_of_a_roll_that_is_not_over(redis: Redis) -> None:
    """Successors and those whom they succeed say goodbye alike, and the supervisor waits for both."""

    async def main() -> None:
        async with workers(redis, "--dev", "--close-timeout", "20", count=2) as child:
            slow = [await open_client(child.address, f"u{number}") for number in range(12)]
            for client in slow:
                client.stall()
            others = [await open_client(child.address, f"w{number}") for number in range(12)]
            first = children(child.process.pid)
            child.signal(signal.SIGHUP)
            # The first of them drains, held up by those who do not answer; its successor takes whoever comes.
            closed = [asyncio.ensure_future(client.closed()) for client in others]
            await asyncio.wait(closed, return_when=asyncio.FIRST_COMPLETED)
            late = [await open_client(child.address, f"v{number}", full=True) for number in range(12)]
            child.signal(signal.SIGTERM)
            for client in late:
                code, _ = await client.closed()

                assert code == 1012 and client.seen[-1]["type"] == "goodbye"
            assert set(first) <= set(children(child.process.pid))
            for client in slow:
                client.resume()
                assert (await client.closed())[0] == 1012
            assert {code for code, _ in await asyncio.gather(*closed)} == {1012}
            assert await child.exit_status() == 0

    run(main())


def test_who_closes_the_terminal_ends_it(redis: Redis) -> None:
    """As every program that was started there: SIGHUP is a roll only where somebody can have asked for it."""

    async def main() -> None:
        ours, theirs = os.openpty()
        async with workers(redis, count=2, stdin=theirs) as child:
            os.close(theirs)
            os.close(ours)
            child.signal(signal.SIGHUP)

            assert await child.exit_status() == 0

    run(main())


def test_what_all_would_say_one_says(redis: Redis) -> None:
    """A warning about the environment is not there once for each worker."""

    async def main() -> None:
        async with workers(redis, HUBBUB_PROT="1") as child:
            assert child.errors().count("HUBBUB_PROT is no option") == 1

    run(main())


def test_no_worker_takes_longer_than_it_may(redis: Redis) -> None:
    """A client that does not go holds its worker up no longer than the drain, and twice Ctrl+C not even so long."""

    async def main() -> None:
        async with workers(redis, "--dev", "--drain-timeout", "60", count=2) as child:
            reader, writer = await asyncio.open_connection("localhost", int(child.address.rpartition(":")[2]))
            writer.write(
                b"GET /ws?user_id=alice HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            await reader.readuntil(b"\r\n\r\n")
            child.signal(signal.SIGINT)
            # The close frame: the drain has begun, and this client does not answer.
            await reader.read(2)
            child.signal(signal.SIGINT)

            assert await child.exit_status(PATIENCE) == 0
            writer.close()

    run(main())
