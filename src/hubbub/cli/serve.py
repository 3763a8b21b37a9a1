"""`hubbub serve`: run the server, alone or with the hub of a module of yours."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path
from typing import Any

from hubbub.config import OPTIONS, load
from hubbub.errors import ConfigError
from hubbub.hub import Hub
from hubbub.server import run

__all__ = ["add_to"]


def add_to(commands: Any) -> None:
    """Add the subcommand to the parser's."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "serve",
        help="run the server",
        description="Run the server. Each option is also an environment variable (HUBBUB_PORT) and a key in the "
        "TOML file (port); flags come before variables, variables before the file.",
    )
    parser.add_argument("app", nargs="?", metavar="MODULE:HUB", help="your hub, such as app:hub; default: a plain one")
    parser.add_argument(
        "--config", metavar="FILE", help="TOML file with options; default: hubbub.toml, if there is one"
    )
    for option in OPTIONS.values():
        if option.default is False:
            parser.add_argument(
                option.flag, action=argparse.BooleanOptionalAction, default=None, help=option.description
            )
        else:
            shown = f" [{option.default}]" if str(option.default) not in ("{}", "", "()") else ""
            parser.add_argument(option.flag, default=None, metavar="X", help=option.description + shown)
    parser.set_defaults(run=_run, parser=parser)


def _run(parsed: argparse.Namespace) -> int:
    flags = {name: getattr(parsed, name) for name in OPTIONS if getattr(parsed, name) is not None}
    named = parsed.config or os.environ.get("HUBBUB_CONFIG")
    default = Path("hubbub.toml")
    file = Path(named) if named else default if default.exists() else None
    config = load(flags, os.environ, file)
    hub = _find(parsed.app) if parsed.app else Hub()
    return run(hub, config)


def _find(app: str) -> Hub:
    """The hub that `module:name` names."""
    module_name, _, name = app.partition(":")
    # As with `python -m`: a module of the current folder can be named.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            # Something that the module itself imports is missing: its own traceback says it best.
            raise
        raise ConfigError(f"there is no module {module_name!r} here: run this in the folder that holds it") from None
    hub = getattr(module, name or "hub", None)
    if not isinstance(hub, Hub):
        raise ConfigError(f"{module_name!r} has no Hub named {name or 'hub'!r}: write `{name or 'hub'} = Hub()` in it")
    return hub
