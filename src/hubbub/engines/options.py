"""Which engine the server runs on, where that is one beyond this process."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["EngineOptions"]


class EngineOptions(Struct, frozen=True, kw_only=True):
    """An engine that nodes share; without a URL the channels are this process's own."""

    engine: Annotated[
        str,
        Meta(
            description="nats://[user:password@]host:port, redis://[user:password@]host:port/database, "
            "redis+sentinel://…/name/database or redis+cluster://… (tls:, rediss: in TLS), which all nodes share; "
            "empty: this process alone, in memory or in `data`",
            # It may hold a password.
            extra={"secret": True},
        ),
    ] = ""
