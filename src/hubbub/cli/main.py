"""The command `hubbub`: finds the subcommand, and says in one sentence what went wrong."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import NoReturn

from hubbub.cli import connect, plan, serve, token
from hubbub.errors import HubbubError

__all__ = ["main"]


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, as everything else does, and leaves the list of options to --help."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"hubbub: {message} (`{self.prog} --help` shows what there is)\n")

    def unknown(self, argument: str) -> NoReturn:
        """Refuse an argument that it does not know, with a guess at what was meant."""
        # Not what follows: it may be a token.
        name = argument.partition("=")[0]
        close = difflib.get_close_matches(name, re.findall(r"--[a-z-]+", self.format_help()), n=1)
        kind = "option" if name.startswith("-") else "argument"
        self.error(f"there is no {kind} {name}" + (f": did you mean {close[0]}?" if close else ""))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `hubbub` with these arguments, or the process's; returns the exit status."""
    parser = _Parser(
        prog="hubbub",
        description="Real-time messaging for Python: rooms, users and everyone, over WebSocket.",
    )
    parser.add_argument("--version", action="version", version=f"hubbub {metadata.version('hubbub')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    serve.add_to(commands)
    connect.add_to(commands)
    token.add_to(commands)
    plan.add_to(commands)
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parsed, unknown = parser.parse_known_args(arguments)
    if unknown:
        parsed.parser.unknown(unknown[0])
    parsed.arguments = arguments
    try:
        return int(parsed.run(parsed))
    except HubbubError as error:
        print(f"hubbub: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
