"""Rooms on NATS when something goes wrong in between: who asks is answered, and all nodes see the same."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from contract.engines.test_nats_faults import node
from hubbub.errors import Unavailable
from hubbub.protocol.envelope import Member
from hubbub.testing.engines.ear import DEN
from support.loop import PATIENCE, run
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
