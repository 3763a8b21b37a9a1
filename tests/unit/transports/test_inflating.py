"""Compressed messages in turns: a little for one, not much more for all, and everybody in between."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from hubbub.transports.inflating import Frames, Inflating, Line
from support.loop import eventually, run

# What takes all that one may have at once, in seconds.
MUCH = 0.01


class Peer:
    """A connection each of whose messages takes so many seconds to inflate."""

    def __init__(self, line: Line, name: str, log: list[str], cost: float = MUCH) -> None:
        self.inflating = Inflating(self, line)
        self.cost = cost
        self.over = False
        self._name = name
        self._log = log

    def come(self, count: int) -> None:
        """So many messages, as a read brings them."""
        for _ in range(count):
            if self.inflating.must_wait():
                self.inflating.keep(2, True, False, b"", True)
            else:
                self.take(2, True, False, b"", True)

    def take(self, opcode: int, fin: bool, rsv: bool, payload: bytes, compressed: bool) -> None:
        self._log.append(self._name)
        self.inflating.charge(self.cost, 0)

    def caught_up(self) -> None:
        self.over = True


@given(
    frames=st.lists(
        st.tuples(st.integers(0, 15), st.booleans(), st.booleans(), st.binary(max_size=300), st.booleans()), max_size=20
    )
)
def test_frames_come_out_as_they_went_in(frames: list[tuple[int, bool, bool, bytes, bool]]) -> None:
    waiting = Frames()
    for frame in frames:
        waiting.add(*frame)
    found = []
    while waiting:
        found.append(waiting.take())

    assert found == frames


def test_who_takes_much_waits_and_goes_on() -> None:
    """In later turns of the loop, and not all in one."""

    async def main() -> None:
        log: list[str] = []
        peer = Peer(Line(), "a", log)
        peer.come(4)

        assert log == ["a"]
        assert peer.inflating.keeping
        await eventually(lambda: peer.over)
        assert log == ["a"] * 4
        assert not peer.inflating.keeping

    run(main())


def test_the_others_have_their_turn_in_between() -> None:
    """However much one has sent before them."""

    async def main() -> None:
        log: list[str] = []
        line = Line()
        greedy, other = Peer(line, "g", log), Peer(line, "o", log, cost=0.0)
        greedy.come(10)
        other.come(1)

        # All have taken too much together, so this one has to queue up as well.
        assert log == ["g"]
        await eventually(lambda: other.over)
        assert log.index("o") <= 3
        greedy.inflating.drop()

    run(main())


def test_one_turn_takes_little_whoever_waits() -> None:
    """Fifty that keep to theirs are much together: a turn goes on where the last one ended, and nobody is left out."""

    async def main() -> None:
        log: list[str] = []
        line = Line()
        peers = [Peer(line, str(number), log, cost=0.001) for number in range(50)]
        for peer in peers:
            peer.come(20)
        turns: dict[int, int] = {}
        while not all(peer.over for peer in peers):
            before, turn = len(log), line.turn
            await asyncio.sleep(0)
            turns[turn] = len(log) - before

        assert max(turns.values()) <= 5
        assert len(log) == 50 * 20
        # Two each at a time.
        assert len(set(log[:110])) == 50

    run(main())


def test_nothing_is_taken_for_who_is_paused() -> None:
    async def main() -> None:
        log: list[str] = []
        peer = Peer(Line(), "a", log, cost=0.0)
        peer.inflating.paused = True
        peer.come(3)
        await asyncio.sleep(0.05)

        assert log == []
        assert not peer.inflating.resume()
        await eventually(lambda: peer.over)
        assert log == ["a"] * 3
        assert peer.inflating.resume()

    run(main())


def test_who_is_gone_takes_nothing_more() -> None:
    async def main() -> None:
        log: list[str] = []
        peer = Peer(Line(), "a", log)
        peer.come(4)
        frames = peer.inflating.drop()

        assert frames
        await asyncio.sleep(0.2)
        assert log == ["a"]
        assert not peer.over

    run(main())
