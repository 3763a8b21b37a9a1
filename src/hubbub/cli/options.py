"""The options of the server on a command line, and the configuration that comes of them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from pathlib import Path

from hubbub.config import OPTIONS, Config, Option, load

__all__ = ["add_options", "configuration"]


def add_options(parser: argparse.ArgumentParser, options: Iterable[Option]) -> None:
    """Let a command take these options as flags, and a file that has them."""
    parser.add_argument(
        "--config", metavar="FILE", help="TOML file with options; default: hubbub.toml, if there is one"
    )
    for option in options:
        if option.default is False:
            parser.add_argument(
                option.flag, action=argparse.BooleanOptionalAction, default=None, help=option.description
            )
        else:
            shown = f" [{option.default}]" if str(option.default) not in ("{}", "", "()") else ""
            parser.add_argument(option.flag, default=None, metavar="X", help=option.description + shown)


def configuration(parsed: argparse.Namespace) -> Config:
    """Flags, environment and file together; raises `ConfigError` for what cannot be."""
    flags = {name: value for name in OPTIONS if (value := getattr(parsed, name, None)) is not None}
    named = parsed.config or os.environ.get("HUBBUB_CONFIG")
    default = Path("hubbub.toml")
    file = Path(named) if named else default if default.exists() else None
    return load(flags, os.environ, file)
