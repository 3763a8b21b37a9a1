"""The house stands as ARCHITECTURE.md draws it: pure layers stay pure, and nobody imports upwards."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import hubbub

PACKAGE = Path(hubbub.__file__).parent
ROOT = Path(__file__).resolve().parents[2]

# What makes a test slow, flaky or large: in a pure layer time, chance and sockets come in as arguments.
IMPURE = {"asyncio", "time", "random", "secrets", "socket", "ssl", "threading", "uvloop", "os", "logging"}

PURE = [file for layer in ("protocol", "core", "planning") for file in sorted((PACKAGE / layer).rglob("*.py"))]

LONGEST_MODULE = 600


def imported(file: Path) -> set[str]:
    """The modules that a file imports, wherever in it, by the first part of their names."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names.add(node.module.partition(".")[0])
    return names


def test_there_is_something_to_look_at() -> None:
    """A layer that moved elsewhere must not make the tests below pass for nothing."""
    assert {file.parent.name for file in PURE} == {"protocol", "core", "planning"}
    assert len(PURE) > 8


@pytest.mark.parametrize("file", PURE, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_pure_layers_have_no_clock_no_chance_and_no_socket(file: Path) -> None:
    """`protocol`, `core` and `planning` are values and functions: the same in is the same out."""
    assert imported(file) & IMPURE == set()


@pytest.mark.parametrize("file", PURE, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_pure_layers_wait_for_nothing(file: Path) -> None:
    """No coroutine in them, so nothing there can be cancelled or come back in another order."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    waits = [node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef | ast.Await)]

    assert waits == []


def test_nobody_imports_upwards() -> None:
    """The contracts of .importlinter: layers, and who may know whom."""
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


def test_no_module_grows_without_a_sign() -> None:
    """Past 600 lines a file is several; constants that are generated are data."""
    long = {
        str(file.relative_to(PACKAGE)): lines
        for file in PACKAGE.rglob("*.py")
        if (lines := len(file.read_text(encoding="utf-8").splitlines())) > LONGEST_MODULE
    }

    assert long == {}
