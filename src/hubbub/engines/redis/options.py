"""Which engine the server runs on, where that is one beyond this process, and how it is used."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["RedisOptions"]


class RedisOptions(Struct, frozen=True, kw_only=True):
    """An engine that nodes share; without a URL the channels are this process's own."""

    engine: Annotated[
        str,
        Meta(
            description="redis://[user:password@]host:port/database, redis+sentinel://…/name/database or "
            "redis+cluster://… (rediss: in TLS), which all nodes share; "
            "empty: this process alone, in memory or in `data`",
            # It may hold a password.
            extra={"secret": True},
        ),
    ] = ""
    redis_prefix: Annotated[str, Meta(description="what all keys in Redis begin with")] = "hubbub:"
