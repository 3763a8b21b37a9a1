"""The fuzzed targets with what hypothesis thinks of, and with every input that was ever too much for us."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.transports.harness import serving
from fuzz import seeds
from fuzz.memory import Turns
from fuzz.targets import TARGETS, hear, terms
from hubbub.protocol.deflate import CompressionOptions
from hubbub.transports import websocket
from support.loop import run

CORPUS = Path(__file__).parent / "corpus"

REGRESSIONS = [
    pytest.param(name, file, id=f"{name}/{file.name}") for name in TARGETS for file in sorted((CORPUS / name).glob("*"))
]


@pytest.mark.parametrize("target", TARGETS)
@settings(derandomize=True, max_examples=600)
@given(data=st.binary(max_size=60))
def test_nothing_is_too_much(target: str, data: bytes) -> None:
    """Any bytes at all, whole and cut at every byte; the same ones in each run."""
    TARGETS[target](data)


@pytest.mark.parametrize("target", TARGETS)
@settings(derandomize=True, max_examples=300)
@given(data=st.data())
def test_nothing_near_to_the_good_is_too_much(target: str, data: st.DataObject) -> None:
    """Good inputs with some bytes changed, left out, repeated or added."""
    seed = data.draw(st.sampled_from(seeds.of(target)))
    start = data.draw(st.integers(0, len(seed)))
    end = data.draw(st.integers(start, min(len(seed), start + 8)))
    TARGETS[target](
        seed[:start] + data.draw(st.binary(max_size=6)) + seed[start if data.draw(st.booleans()) else end :]
    )


@pytest.mark.parametrize("target", TARGETS)
def test_what_fuzzing_begins_with_is_all_right(target: str) -> None:
    """The seeds: good inputs, and at each limit one just inside and one just beyond."""
    for seed in seeds.of(target):
        TARGETS[target](seed)


@pytest.mark.parametrize(("target", "file"), REGRESSIONS)
def test_what_was_found_stays_mended(target: str, file: Path) -> None:
    TARGETS[target](file.read_bytes())


@pytest.mark.parametrize("seed", seeds.of("raw_frames"), ids=lambda seed: f"{len(seed)} bytes, {seed[:12].hex()}")
def test_in_memory_it_is_as_on_a_socket(seed: bytes) -> None:
    """The fuzzer's connection tells the truth: a real one brings the same messages and the same end."""
    (limits, compressed), stream = terms(seed[:1]), seed[1:]
    with Turns() as loop:
        expected = hear(loop, [stream], limits, compressed)

    async def main() -> None:
        async with serving(limits, compression=CompressionOptions(compression=compressed)) as served:
            client, recorder = await served.join("/ws", "Sec-WebSocket-Extensions: permessage-deflate")
            client.send(stream)
            client.writer.write_eof()
            code, _ = await recorder.end()

            assert recorder.messages == expected.messages
            assert [code] == expected.codes

    run(main())


@pytest.mark.parametrize("target", ["raw_frames", "shaped_frames"])
def test_what_has_to_wait_comes_to_the_same(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each compressed message uses up all that a connection may have inflated for seconds."""
    monkeypatch.setattr(websocket, "thread_time", itertools.count().__next__)
    for seed in seeds.of(target):
        TARGETS[target](seed)
    for file in (CORPUS / target).glob("*"):
        TARGETS[target](file.read_bytes())
