"""`hubbub serve`: run the server, alone or with the hub of a module of yours."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from typing import Any

from hubbub.cli.options import add_options, configuration
from hubbub.config import OPTIONS
from hubbub.errors import ConfigError
from hubbub.hub import Hub
from hubbub.server import run
from hubbub.supervisor.supervisor import count, supervise
from hubbub.worker import Worker

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
    add_options(parser, OPTIONS.values())
    parser.set_defaults(run=_run, parser=parser)


def _run(parsed: argparse.Namespace) -> int:
    config = configuration(parsed)
    worker = Worker.inherited(os.environ)
    if worker is None and count(config) > 1:
        return supervise(config, parsed.arguments)
    hub = _find(parsed.app) if parsed.app else Hub()
    return run(hub, config, worker)


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
