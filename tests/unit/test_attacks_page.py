"""The page of attacks tells the truth: every test that it names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "operations" / "attacks.md"

ROWS = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ") and "test" in line][1:]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[2:42])
def test_every_attack_names_tests_that_exist(row: str) -> None:
    """Each name follows the link to its file."""
    found = re.findall(r"\]\((\S+\.py)\)|`(test_\w+)`", row)
    file: Path | None = None
    named: dict[Path, list[str]] = {}
    for link, name in found:
        if link:
            file = (PAGE.parent / link).resolve()
            named[file] = []
        else:
            assert file is not None, name
            named[file].append(name)

    assert named
    for file, names in named.items():
        tree = ast.parse(file.read_text(encoding="utf-8"))
        defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}

        assert names and set(names) <= defined


def test_there_is_something_to_look_at() -> None:
    assert len(ROWS) >= 18
