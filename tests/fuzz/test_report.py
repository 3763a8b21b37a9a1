"""What `make fuzz` says of a run is what the fuzzer said, and a run that found something fails."""

from __future__ import annotations

import pytest

from fuzz.__main__ import arguments, judge, main

BEGIN = """INFO: seed corpus: files: 2 min: 1b max: 9b total: 10b rss: 50Mb
#3\tINITED cov: 100 ft: 120 corp: 2/10b exec/s: 0 rss: 52Mb
#9\tNEW    cov: 101 ft: 121 corp: 3/20b lim: 4 exec/s: 0 rss: 53Mb L: 9/9 MS: 1 CopyPart-
"""
END = "#5000\tDONE   cov: 107 ft: 130 corp: 4/30b lim: 4 exec/s: 99 rss: {}Mb\nDone 5000 runs in 10 second(s)\n"


def test_a_run_that_found_nothing() -> None:
    result = judge(BEGIN + END.format(60), 0)

    assert (result.executions, result.coverage, result.memory) == (5_000, (100, 107), (52, 60))
    assert result.passed


def test_memory_that_grows_is_a_failure() -> None:
    assert not judge(BEGIN + END.format(85), 0).passed


@pytest.mark.parametrize("output", [BEGIN + " === Uncaught Python exception: ===\n", "", "No module named hubbub\n"])
def test_a_run_that_ended_early_is_a_failure(output: str) -> None:
    """Also one that never began."""
    result = judge(output, 77)

    assert not result.passed and result.failure == (output or "it did not begin")


def test_a_target_that_does_not_exist_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        arguments(["--seconds", "5", "nothing"])

    assert "there is no target nothing; there are raw_handshake, " in capsys.readouterr().err


def test_an_interpreter_without_atheris_is_told_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence, and no traceback."""
    monkeypatch.setattr("sys.argv", ["fuzz"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    status = main()
    printed = capsys.readouterr()

    assert (status, printed.out) == (1, "")
    assert "atheris has no wheel for Python" in printed.err and "make fuzz PYTHON=" in printed.err
