"""Where the store lies, and how safe an acknowledged message is."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["Durability", "StoreOptions"]


class Durability(StrEnum):
    """What has happened to a message when its `ack` goes out."""

    FULL = "full"
    """It is on disk (fsync): it survives the power cut."""

    NORMAL = "normal"
    """It is written: it survives the end of the process, and a power cut may cost the last moments."""


class StoreOptions(Struct, frozen=True, kw_only=True):
    """The store on disk; without `data` there is none, and everything is gone with the process."""

    data: Annotated[str, Meta(description="folder for channels that survive a restart; empty: only in memory")] = ""
    durability: Annotated[
        Durability,
        Meta(
            description="when a stored message is acknowledged: full, once it is on disk; normal, once it is written, "
            "so that a power cut may cost the last moments"
        ),
    ] = Durability.FULL
