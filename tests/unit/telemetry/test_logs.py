"""Setting up the log: ours where there is none, and never in the place of the application's own."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from hubbub.telemetry.logs import set_up

ROOT = logging.getLogger()
NAMES = ("", "hubbub", "asyncio")


@pytest.fixture(autouse=True)
def untouched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A root logger without handlers, as a program begins; afterwards everything is as it was."""
    levels = {name: logging.getLogger(name).level for name in NAMES}
    # Not set here, or pytest's own handlers would be gone for the phases after this one.
    monkeypatch.setattr(ROOT, "handlers", [])
    yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def test_a_program_without_a_log_gets_one(capsys: pytest.CaptureFixture[str]) -> None:
    """One line per record to standard error, from the level on."""
    ROOT.handlers = []
    set_up("warning")
    logging.getLogger("hubbub.hub").warning("too late")
    logging.getLogger("hubbub.hub").info("in time")
    logging.getLogger("application").warning("out of stock")

    lines = capsys.readouterr().err.splitlines()
    assert [line.partition("WARNING ")[2] for line in lines] == ["hubbub.hub: too late", "application: out of stock"]


def test_the_log_of_the_application_stays() -> None:
    """Its handlers and its level: the module that `serve` loads may have set them up."""
    handler = logging.NullHandler()
    ROOT.handlers = [handler]
    ROOT.setLevel(logging.ERROR)
    set_up("debug")

    assert ROOT.handlers == [handler]
    assert ROOT.level == logging.ERROR


@pytest.mark.parametrize("handlers", [[], [logging.NullHandler()]], ids=["ours", "theirs"])
def test_the_level_is_hubbubs_either_way(handlers: list[logging.Handler]) -> None:
    """What the operator asked for on the command line."""
    ROOT.handlers = list(handlers)
    set_up("debug")

    assert logging.getLogger("hubbub.hub").isEnabledFor(logging.DEBUG)
    set_up("error")
    assert not logging.getLogger("hubbub.hub").isEnabledFor(logging.WARNING)


def test_setting_up_twice_adds_nothing() -> None:
    ROOT.handlers = []
    set_up("info")
    set_up("info")

    assert len(ROOT.handlers) == 1
