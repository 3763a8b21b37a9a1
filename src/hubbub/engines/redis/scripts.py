"""The scripts that run in Redis, each one step that nothing comes between: files beside this one, read once."""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import Final

from msgspec import Struct

__all__ = [
    "ACCEPTED",
    "ACKNOWLEDGE",
    "ADOPT",
    "ALL",
    "CLEARED",
    "ENTER",
    "LEASE",
    "LEAVE",
    "MEMBERS",
    "PLACES",
    "PUBLISH",
    "READ",
    "Script",
]


class Script(Struct, frozen=True):
    """One script as Redis gets it, and the name that Redis gives it."""

    text: bytes
    sha: bytes


def _read(*names: str, adopted: bool = True) -> Script:
    folder = resources.files(__package__)
    parts = [f"local ADOPTED = {str(adopted).lower()}"]
    parts += [folder.joinpath(f"{name}.lua").read_text(encoding="utf-8") for name in ("common", *names)]
    text = "\n".join(parts).encode()
    # Not a secret: it is how Redis names scripts.
    return Script(text, hashlib.sha1(text, usedforsecurity=False).hexdigest().encode())


ADOPT: Final = _read("adopt", adopted=False)
LEASE: Final = _read("nodes", "lease")
CLEARED: Final = _read("nodes", "cleared")
PUBLISH: Final = _read("channel", "publish")
READ: Final = _read("channel", "read")
ACCEPTED: Final = _read("channel", "accepted")
ACKNOWLEDGE: Final = _read("channel", "acknowledge")
ENTER: Final = _read("nodes", "room", "enter")
LEAVE: Final = _read("nodes", "room", "leave")
MEMBERS: Final = _read("nodes", "room", "members")
PLACES: Final = _read("nodes", "room", "places")

ALL: Final = (ADOPT, LEASE, CLEARED, PUBLISH, READ, ACCEPTED, ACKNOWLEDGE, ENTER, LEAVE, MEMBERS, PLACES)
"""All of them, to be loaded before the first is called."""
