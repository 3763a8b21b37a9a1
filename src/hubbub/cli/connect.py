"""`hubbub connect`: talk to a hub from a terminal."""

from __future__ import annotations

from typing import Any

__all__ = ["add_to"]


def add_to(commands: Any) -> None:
    """Add the subcommand to the parser's."""
