"""Large messages in parts: what is cut comes together again, and nothing else is kept."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.protocol.chunks import MOST_PARTS, PART_SIZE, TransferRefused, Transfers, cut, parts_of
from hubbub.protocol.codes import ErrorCode
from hubbub.protocol.envelope import Chunk

NOW = 1_000.0


def chunks(id: str, whole: bytes, part: int = PART_SIZE) -> list[Chunk]:
    total = parts_of(len(whole), part)
    return [Chunk(id=id, index=index, total=total, data=data) for index, data in enumerate(cut(whole, part))]


def add(transfers: Transfers, chunk: Chunk, now: float = NOW, room: int | None = None) -> bytes | None:
    blocks = transfers.add(chunk, now, room)
    return None if blocks is None else b"".join(blocks)


def code(transfers: Transfers, chunk: Chunk, room: int | None = None) -> ErrorCode:
    with pytest.raises(TransferRefused) as refused:
        transfers.add(chunk, NOW, room)
    return refused.value.code


@given(whole=st.binary(min_size=1, max_size=3_000), part=st.integers(1, 500))
def test_cut_and_joined_is_the_same(whole: bytes, part: int) -> None:
    parts = chunks("t1", whole, part)
    transfers = Transfers(10_000)

    assert len(parts) == parts_of(len(whole), part)
    for chunk in parts[:-1]:
        assert add(transfers, chunk) is None
    assert add(transfers, parts[-1]) == whole
    assert (len(transfers), transfers.held) == (0, 0)


@given(st.data())
def test_up_to_four_transfers_may_come_interleaved(data: st.DataObject) -> None:
    """Whatever comes between the parts of one, each is whole; and what is held is what has come of the unfinished."""
    wholes = data.draw(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=4))
    waiting = {f"t{number}": chunks(f"t{number}", whole, 37) for number, whole in enumerate(wholes)}
    transfers = Transfers(1_000)
    got, held = {}, dict.fromkeys(waiting, 0)
    while waiting:
        id = data.draw(st.sampled_from(sorted(waiting)))
        chunk = waiting[id].pop(0)
        held[id] += len(chunk.data)
        whole = add(transfers, chunk)
        if whole is not None:
            got[id] = whole
            del waiting[id], held[id]

        assert transfers.held == sum(held.values())
    assert got == {f"t{number}": whole for number, whole in enumerate(wholes)}


@given(order=st.lists(st.tuples(st.sampled_from(["a", "b", "c", "d", "e", "f"]), st.integers(0, 3), st.integers(1, 4))))
def test_whatever_comes_the_bounds_hold(order: list[tuple[str, int, int]]) -> None:
    """No order of parts keeps more than the limits say, or more than what is unfinished weighs."""
    transfers = Transfers(250)
    for id, index, total in order:
        with contextlib.suppress(TransferRefused):
            transfers.add(Chunk(id=id, index=index, total=total, data=b"x" * 100), NOW, 600 - transfers.held)

        assert len(transfers) <= 4
        assert transfers.held <= 600
        if not len(transfers):
            assert transfers.held == 0


def test_small_parts_cost_no_more_than_what_they_hold() -> None:
    """4,096 single bytes are a few objects, not 4,096."""
    transfers = Transfers(10_000)
    for chunk in chunks("t1", b"x" * MOST_PARTS, 1)[:-1]:
        add(transfers, chunk)
    (blocks,) = [transfer.blocks for transfer in transfers._unfinished.values()]

    assert len(blocks) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        Chunk(id="t1", index=2, total=3, data=b"x"),
        Chunk(id="t1", index=0, total=3, data=b"x"),
        Chunk(id="t1", index=1, total=4, data=b"x"),
    ],
    ids=["skips", "begins again", "another total"],
)
def test_a_part_out_of_order_ends_the_transfer(wrong: Chunk) -> None:
    transfers = Transfers(1_000)
    add(transfers, Chunk(id="t1", index=0, total=3, data=b"x"))

    assert code(transfers, wrong) == ErrorCode.BAD_MESSAGE
    assert (len(transfers), transfers.held) == (0, 0)


def test_a_refusal_is_told_once_and_lasts_until_the_transfer_begins_anew() -> None:
    transfers = Transfers(50)
    parts = chunks("t1", b"x" * 100, 20)
    for chunk in parts[:2]:
        add(transfers, chunk)

    assert code(transfers, parts[2]) == ErrorCode.TOO_LARGE
    assert [add(transfers, chunk) for chunk in parts[3:]] == [None, None]
    for chunk in (again := chunks("t1", b"y" * 50, 20))[:-1]:
        assert add(transfers, chunk) is None
    assert add(transfers, again[-1]) == b"y" * 50


def test_a_fifth_is_too_many_until_one_is_done() -> None:
    transfers = Transfers(1_000)
    for id in "abcd":
        add(transfers, Chunk(id=id, index=0, total=2, data=b"x"))

    assert code(transfers, Chunk(id="e", index=0, total=2, data=b"x")) == ErrorCode.TOO_LARGE
    add(transfers, Chunk(id="a", index=1, total=2, data=b"x"))
    assert add(transfers, Chunk(id="e", index=0, total=1, data=b"y")) == b"y"


def test_where_there_is_no_room_it_is_not_available() -> None:
    transfers = Transfers(1_000)
    add(transfers, Chunk(id="t1", index=0, total=2, data=b"x" * 10), room=10)

    assert code(transfers, Chunk(id="t1", index=1, total=2, data=b"x"), room=0) == ErrorCode.UNAVAILABLE
    assert transfers.held == 0


def test_none_are_taken_where_the_size_is_0() -> None:
    assert code(Transfers(0), Chunk(id="t1", index=0, total=1, data=b"x")) == ErrorCode.TOO_LARGE


def test_what_is_not_finished_in_time_is_let_go() -> None:
    transfers = Transfers(1_000, timeout=60.0)
    add(transfers, Chunk(id="t1", index=0, total=2, data=b"x"))
    add(transfers, Chunk(id="t2", index=0, total=2, data=b"x"), now=NOW + 1)

    assert transfers.due == NOW + 60
    assert transfers.expire(NOW + 59.9) == []
    assert transfers.expire(NOW + 60) == ["t1"]
    assert transfers.held == 1
    assert add(transfers, Chunk(id="t1", index=1, total=2, data=b"x")) is None


def test_only_the_last_refusals_are_remembered() -> None:
    """Who lies with ever new ids fills nothing."""
    transfers = Transfers(1_000)
    for number in range(1_000):
        code(transfers, Chunk(id=f"t{number}", index=1, total=2, data=b"x"))

    assert len(transfers._refused) == 16
    assert not len(transfers)


def test_everything_goes_at_once() -> None:
    transfers = Transfers(1_000)
    for id in "abc":
        add(transfers, Chunk(id=id, index=0, total=2, data=b"x"))
    transfers.clear()

    assert (len(transfers), transfers.held, transfers.due) == (0, 0, None)
