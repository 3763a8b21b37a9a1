"""What comes over the wire stays data: it never becomes code, a command, or part of an SQL statement."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import hubbub

PACKAGE = Path(hubbub.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
SQL_FILES = sorted((PACKAGE / "engines").rglob("*.py"))

# What makes code of data. `__import__` and importlib load a module by a name that may be anybody's.
EVALUATING = {"eval", "exec", "compile", "__import__", "breakpoint"}
UNSAFE_MODULES = {"code", "codeop", "ctypes", "dill", "importlib", "marshal", "pickle", "runpy", "shelve", "subprocess"}
# Where one of them is needed all the same, and why that is no way in.
EXCEPTIONS = {
    ("api/http.py", "importlib"): "files of the package's own",
    ("cli/main.py", "importlib"): "the version of the package",
    ("cli/serve.py", "importlib"): "the application, which the operator names on the command line",
    ("client/client.py", "importlib"): "the version of the package",
    ("engines/redis/scripts.py", "importlib"): "files of the package's own",
    ("supervisor/process.py", "create_subprocess_exec"): "workers and a nats-server: the operator's command, no shell",
    ("supervisor/process.py", "ctypes"): "one call of the C library, with numbers of our own",
    ("engines/sqlite/mark.py", "subprocess"): "the boot's id on macOS: a fixed command, and no shell",
}
SHELLS = {"system", "popen", "spawnl", "spawnv", "execv", "execl", "getoutput", "getstatusoutput"}

# SQLite takes no parameters in a PRAGMA. These names may stand in one: constants and numbers of our own.
IN_PRAGMAS = {
    *("_PAGE", "_CHECKPOINT", "APPLICATION", "STEPS", "len", "Durability"),
    "durability",  # of the options: which of two words
    "most_bytes",  # of the options: a number
    "name",  # of the pragma, out of a tuple that stands beside it
}
# What takes parts of a statement, as these arguments, and runs it: those who call it are looked at instead.
# A module's own functions with a parameter `statement` are among them.
RUNNERS = {"joined_row": (1,), "Rows": (0, 2)}


def name_of(file: Path) -> str:
    return str(file.relative_to(PACKAGE))


def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def evaluated(module: ast.AST) -> Iterator[str]:
    """What a module uses that could make code or a command of data."""
    for node in ast.walk(module):
        match node:
            case ast.Import(names=names):
                yield from (found for alias in names if (found := alias.name.partition(".")[0]) in UNSAFE_MODULES)
            case ast.ImportFrom(module=str(source)) if source.partition(".")[0] in UNSAFE_MODULES:
                yield source.partition(".")[0]
            case ast.Call(func=ast.Name(id=name)) if name in EVALUATING:
                yield name
            case ast.Call(func=ast.Attribute(attr=name)) if name in SHELLS or name.startswith("create_subprocess"):
                yield name
            case ast.keyword(arg="shell"):
                yield "shell"


def parameters(function: ast.FunctionDef) -> list[str]:
    """The names of what is passed to a function or a method, in order."""
    return [argument.arg for argument in function.args.args if argument.arg != "self"]


def is_constant(node: ast.expr) -> bool:
    """A text that stands in the source, or the name of a module's constant, which is one."""
    return (isinstance(node, ast.Constant) and isinstance(node.value, str)) or (
        isinstance(node, ast.Name) and node.id.isupper()
    )


def is_statement(node: ast.expr) -> bool:
    """A constant; or a PRAGMA with nothing but constants and numbers of our own in it."""
    if not isinstance(node, ast.JoinedStr):
        return is_constant(node)
    first = node.values[0]
    names = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
    return isinstance(first, ast.Constant) and str(first.value).startswith("PRAGMA ") and names <= IN_PRAGMAS


def put_together(module: ast.Module) -> Iterator[str]:
    """The statements of a module that are neither."""
    functions = [node for node in ast.walk(module) if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    runners = RUNNERS | {
        function.name: (names.index("statement"),)
        for function in functions
        if isinstance(function, ast.FunctionDef) and "statement" in (names := parameters(function))
    }
    inside = {id(node) for function in functions if function.name in runners for node in ast.walk(function)}
    for node in ast.walk(module):
        match node:
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if id(node) not in inside:
                takes = (0,) if name.startswith("execute") else runners.get(name, ())
                given = [node.args[index] for index in takes if index < len(node.args)]
                given += [keyword.value for keyword in node.keywords if keyword.arg in ("head", "tail", "statement")]
                yield from (ast.unparse(statement) for statement in given if not is_statement(statement))


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_nothing_becomes_code_or_a_command(file: Path) -> None:
    """No eval, no pickle, no shell; the few exceptions are named here with their reasons."""
    found = {what for what in evaluated(tree(file)) if (name_of(file), what) not in EXCEPTIONS}

    assert found == set()


@pytest.mark.parametrize("file", SQL_FILES, ids=name_of)
def test_no_value_becomes_part_of_a_statement(file: Path) -> None:
    """Statements are constants, and values are parameters: no name of a room, no content, no id is in their text."""
    assert list(put_together(tree(file))) == []


def test_a_constant_is_one() -> None:
    """A statement with a name in capitals is made of texts that stand in the source, where the module begins."""
    for file in SQL_FILES:
        for node in tree(file).body:
            if isinstance(node, ast.AnnAssign) and node.value is not None and "SELECT" in ast.unparse(node.value):
                used = {inner.id for inner in ast.walk(node.value) if isinstance(inner, ast.Name)}

                assert all(name.isupper() for name in used)
                assert not any(isinstance(inner, ast.JoinedStr) for inner in ast.walk(node.value))


@pytest.mark.parametrize(
    "source",
    [
        "eval(text)",
        "import pickle",
        "from marshal import loads",
        "import importlib.util",
        "os.system(text)",
        "run(text, shell=True)",
        "asyncio.create_subprocess_shell(text)",
    ],
)
def test_what_is_looked_for_is_found(source: str) -> None:
    """A test that finds nothing must not be one that looks for nothing."""
    assert list(evaluated(ast.parse(source)))


@pytest.mark.parametrize(
    "source",
    [
        "database.execute(f'SELECT * FROM messages WHERE channel = {id}')",
        "database.execute('DELETE FROM channels WHERE name = ' + name)",
        "database.execute('SELECT %s' % name)",
        "database.execute('SELECT {}'.format(name))",
        "database.execute(statement, values)",
        "database.execute(f'PRAGMA user_version = {room}')",
        "database.execute(f'DELETE FROM {name}')",
        "joined_row(database, f'SELECT {name}', {}, 1)",
        "Rows(f'INSERT INTO {name}', 2)",
        "Rows('INSERT INTO a', 2, tail)",
    ],
)
def test_a_statement_that_is_put_together_is_found(source: str) -> None:
    assert list(put_together(ast.parse(source)))


def test_there_is_something_to_look_at() -> None:
    """The statements did not move elsewhere, nor did the exceptions."""
    source = "".join(file.read_text(encoding="utf-8") for file in SQL_FILES)

    assert source.count(".execute(") > 20
    for file, what in EXCEPTIONS:
        assert what in set(evaluated(tree(PACKAGE / file)))
