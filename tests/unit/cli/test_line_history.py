"""The file that remembers what was typed."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from hubbub.cli.line_history import LineHistory, history_file


def test_what_was_typed_comes_back_newest_first(tmp_path: Path) -> None:
    file = tmp_path / "state" / "history"
    for text in ("one", "two\nlines", "drei ü"):
        LineHistory(file).store_string(text)

    assert LineHistory(file).load_history_strings() == ["drei ü", "two\nlines", "one"]


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    """Also where the file was there before, with more rights."""
    file = tmp_path / "state" / "history"
    file.parent.mkdir()
    file.write_text('"one"\n')
    file.chmod(0o644)
    LineHistory(file)

    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_it_does_not_grow_for_ever(tmp_path: Path) -> None:
    file = tmp_path / "history"
    file.write_text("".join(f'"{number}"\n' for number in range(2_001)))
    strings = LineHistory(file).load_history_strings()

    assert (len(strings), strings[0], strings[-1]) == (1_000, "2000", "1001")
    assert len(file.read_text().splitlines()) == 1_000


def test_a_damaged_line_costs_no_other(tmp_path: Path) -> None:
    file = tmp_path / "history"
    file.write_bytes(b'"one"\n\xff{\n"two"\n')

    assert LineHistory(file).load_history_strings() == ["two", "one"]


def test_it_lies_where_the_xdg_standard_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path in the variable is to be ignored."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable, base in (
        ("", tmp_path / ".local/state"),
        ("relative", tmp_path / ".local/state"),
        ("/state", "/state"),
    ):
        monkeypatch.setenv("XDG_STATE_HOME", variable)

        assert history_file() == Path(base) / "hubbub" / "history"
