"""`__all__` says what a module gives to others: all of it is there, all of it is listed, and nothing else is taken."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import hubbub

ROOT = Path(hubbub.__file__).parent

MODULES = ["hubbub", *(found.name for found in pkgutil.walk_packages([str(ROOT)], "hubbub."))]


def tree_of(module: str) -> ast.Module:
    file = importlib.import_module(module).__file__
    assert file is not None
    return ast.parse(Path(file).read_text(encoding="utf-8"))


def listed(module: str) -> list[str]:
    return list(getattr(importlib.import_module(module), "__all__", []))


def defined(module: str) -> Iterator[str]:
    """The public names that a module makes itself; type variables and loggers are its own affair."""
    for node in tree_of(module).body:
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if not _is_private_affair(value):
                yield name
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name


def _is_private_affair(value: ast.expr) -> bool:
    called = ast.unparse(value.func) if isinstance(value, ast.Call) else ""
    return called.rpartition(".")[2] in ("TypeVar", "ParamSpec", "getLogger")


def taken() -> dict[str, dict[str, str]]:
    """By module: the names that other modules import from it, and one that does."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for module in MODULES:
        for node in ast.walk(tree_of(module)):
            if isinstance(node, ast.ImportFrom) and node.module in MODULES:
                for alias in node.names:
                    if f"{node.module}.{alias.name}" not in MODULES:
                        found[node.module][alias.name] = module
    return found


TAKEN = taken()

each_module = pytest.mark.parametrize("module", MODULES)


@each_module
def test_all_is_there(module: str) -> None:
    """What is listed can be imported, and is listed once."""
    names = listed(module)

    assert [name for name in names if not hasattr(importlib.import_module(module), name)] == []
    assert len(names) == len(set(names))


@each_module
def test_all_is_complete(module: str) -> None:
    """What a module defines without an underscore is listed; what only it needs has an underscore."""
    public = {name for name in defined(module) if not name.startswith("_")}

    assert public - set(listed(module)) == set()


@each_module
def test_only_what_is_listed_is_taken(module: str) -> None:
    """Nobody reaches for what a module keeps to itself."""
    names = TAKEN.get(module, {})

    assert {name: by for name, by in names.items() if name not in listed(module)} == {}
