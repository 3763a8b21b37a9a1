"""`hubbub plan`: numbers as people write them, one sentence where they are wrong, the same as JSON."""

from __future__ import annotations

import json

import pytest

from hubbub.cli.main import main


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["plan", *arguments]) == 0
    return capsys.readouterr().out


def test_numbers_and_rates_may_be_written_in_several_ways(capsys: pytest.CaptureFixture[str]) -> None:
    first = said(capsys, "--connections", "500k", "--rooms", "1k", "--rate", "6k/m")

    assert said(capsys, "--connections", "500,000", "--rooms", "1_000", "--rate", "100/s") == first
    assert first.startswith("500,000 clients, 1,000 rooms of 500, 100 messages/s into rooms: 50,000 deliveries/s\n")


def test_json_has_what_the_text_has(capsys: pytest.CaptureFixture[str]) -> None:
    """Also where nothing is in the way, which JSON has no number for."""
    found = json.loads(said(capsys, "--connections", "1M", "--direct", "500/s", "--json"))

    assert (found["machines"], found["workers"], found["engine"]["name"]) == (5, 20, "redis")
    assert found["back"] == pytest.approx(found["lost"] / found["arrivals"])


def test_the_servers_own_configuration_counts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept, and how fast a worker lets clients in."""
    asked = ("--connections", "1M", "--direct", "500/s", "--json")
    before = json.loads(said(capsys, *asked))
    monkeypatch.setenv("HUBBUB_INBOX_AGE", "86400")
    monkeypatch.setenv("HUBBUB_HANDSHAKE_RATE", "100/s")
    after = json.loads(said(capsys, *asked))

    assert after["engine"]["history"] < before["engine"]["history"] / 6
    assert (after["limit"], after["arrivals"]) == ("rate", 1_600)
    monkeypatch.setenv("HUBBUB_HANDSHAKE_RATE", "off")
    assert json.loads(said(capsys, *asked))["limit"] == "engine"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--connections", "many"), "--connections must be a whole number, 1 or more, such as 500000, 500k or 1M"),
        (("--connections", "0"), "--connections must be a whole number, 1 or more, such as 500000, 500k or 1M"),
        (("--connections", "5", "--rooms", "-1"), "--rooms must be a whole number, 0 or more"),
        (("--connections", "5", "--direct", "5"), "--direct must be a number of messages by time, such as 2000/s"),
        (("--connections", "5", "--rate", "5/s"), "--rate is of messages into rooms: say with --rooms how many"),
        (("--connections", "5", "--rooms", "2", "--rooms-each", "3"), "--rooms-each is more than there are rooms"),
        (("--connections", "100k", "--broadcast", "30k/s"), "no number of workers is enough"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], sentence: str
) -> None:
    assert main(["plan", *arguments]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith(f"hubbub: {sentence}") and errors.count("\n") == 1


def test_every_chapter_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    """Workers, machines, proxies, the engine, the return and the wall; and no line is too long for a terminal."""
    text = said(capsys, "--connections", "1M", "--rooms", "1k", "--rate", "1k/s")
    chapters = [line.split()[0] for line in text.splitlines()[2:] if not line.startswith(" ")]

    assert chapters == ["workers", "machine", "proxies", "engine", "return", "wall"]
    assert max(map(len, text.splitlines()[1:])) <= 110


def test_there_are_ports_for_those_of_a_machine_that_has_died(capsys: pytest.CaptureFixture[str]) -> None:
    """They come to the others, by the same proxies."""
    text = said(capsys, "--connections", "100k", "--machines", "2")

    assert "100,000 connections to a machine when another has died: ports for so many, from 2 addresses" in text
    assert "\nproxies" not in said(capsys, "--connections", "28k", "--machines", "2")
    assert "\nproxies" in said(capsys, "--connections", "40k", "--machines", "2")
