"""The machine and its parts know no time, no chance and no socket: all that comes in as arguments."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import hubbub.client

FOLDER = Path(hubbub.client.__file__).parent

# The two that run the machine.
SHELL = {"__init__", "client", "socket"}

FORBIDDEN = {"asyncio", "datetime", "os", "picows", "random", "secrets", "socket", "ssl", "threading", "time"}


@pytest.mark.parametrize("module", sorted({file.stem for file in FOLDER.glob("*.py")} - SHELL))
def test_a_part_of_the_machine_is_pure(module: str) -> None:
    tree = ast.parse((FOLDER / f"{module}.py").read_text(encoding="utf-8"))
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    inner = {f"hubbub.client.{name}" for name in SHELL}
    taken = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}

    assert imported & FORBIDDEN == set()
    assert taken & inner == set()
