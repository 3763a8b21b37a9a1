"""Rooms on NATS when something goes wrong in between: who asks is answered, and all nodes see the same."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from contract.engines.test_nats_faults import cut, node
from hubbub.engines.nats.publishing import Publishing
from hubbub.errors import Unavailable
from hubbub.protocol.envelope import Member
from hubbub.testing.engines.ear import DEN
from support.loop import PATIENCE, eventually, run
from support.nats import serving_nats


def test_a_room_that_could_not_be_read_is_read_again(tmp_path: Path) -> None:
    """Whoever asks after a failure is answered as if it had never been."""

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            async with node(nats) as (engine, _):
                nats.signal(signal.SIGSTOP)
                with pytest.raises(Unavailable):
                    await engine.members(DEN, 5)
                nats.signal(signal.SIGCONT)
                async with asyncio.timeout(PATIENCE):
                    await engine.enter(DEN, "alice", "s1", 1, 10)

                    assert await engine.members(DEN, 5) == ([Member("alice", 1, 1)], 1)

    run(main())


def test_a_room_that_nobody_needs_and_nobody_can_read_is_forgotten(tmp_path: Path) -> None:
    """The connection is lost while a room is read in which nobody of this node is: the engine's clock goes on."""

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            async with node(nats) as (engine, _):
                parts = engine._parts
                assert parts is not None
                watching, again = parts.rooms._watching, parts.link.again

                def cut_again() -> None:
                    parts.link.again = again
                    again()
                    cut(engine)

                parts.link.again = cut_again
                await engine.members(DEN, 5)
                cut(engine)
                await eventually(lambda: parts.link.again is again and parts.link.serves)
                await eventually(lambda: not watching._leaving)

                assert not watching._watched

    run(main())


def test_a_fault_in_one_part_of_the_clock_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node with a fault in it is in its rooms all the same: it goes on saying that it lives."""

    def broken(publishing: Publishing, now: float) -> None:
        raise RuntimeError

    async def main() -> None:
        with serving_nats(tmp_path) as nats:
            async with node(nats, lease=0.4) as (engine, _):
                assert engine._parts is not None
                nodes = engine._parts.rooms._nodes
                began = nodes._beaten
                await eventually(lambda: nodes._beaten > began + 0.2)

    monkeypatch.setattr(Publishing, "tick", broken)
    run(main(), logs_errors=True)
