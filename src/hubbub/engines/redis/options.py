"""How the engine on Redis is used, where the server runs on it."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["RedisOptions"]


class RedisOptions(Struct, frozen=True, kw_only=True):
    """An engine on Redis; where Redis is, the option `engine` says."""

    redis_prefix: Annotated[str, Meta(description="what all keys in Redis begin with")] = "hubbub:"
