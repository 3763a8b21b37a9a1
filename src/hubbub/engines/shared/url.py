"""What the URLs of all engines have alike: hosts with commas between them, and parameters."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final
from urllib.parse import parse_qs

from hubbub.errors import ConfigError

__all__ = ["hosts", "parameters"]

_HOST: Final = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[^:\[\]\s]+))(?::(?P<port>[0-9]{1,5}))?")


def hosts(text: str, default: int, form: str) -> list[tuple[str, int]]:
    """Host and port of each, `default` where none is said; raises `ConfigError`, with the `form` that is right."""
    found = []
    for part in text.split(","):
        host = _HOST.fullmatch(part)
        if host is None:
            raise ConfigError(f"the engine's URL names no host that can be read: {form}")
        port = int(host["port"] or default)
        if not 0 < port < 65536:
            raise ConfigError(f"the engine's URL names a port that there is not: {form}")
        found.append((host["six"] or host["host"], port))
    return found


def parameters(query: str | None, allowed: Collection[str], which: str, form: str) -> dict[str, str]:
    """What stands behind the `?`; raises `ConfigError`, with `which` parameters there are, or the `form`."""
    try:
        given = parse_qs(query, strict_parsing=True) if query else {}
    except ValueError:
        raise ConfigError(f"the URL of the engine cannot be read behind its `?`: {form}") from None
    if not given.keys() <= set(allowed):
        raise ConfigError(f"the engine's URL has a parameter that it cannot have: there are {which}")
    return {name: values[-1] for name, values in given.items()}
