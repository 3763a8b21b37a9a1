"""How the engine on NATS is used, where the server runs on it."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["NatsOptions"]


class NatsOptions(Struct, frozen=True, kw_only=True):
    """An engine on NATS; where NATS is, the option `engine` says."""

    nats_prefix: Annotated[
        str,
        Meta(
            pattern="^[A-Za-z0-9_-]{1,32}$",
            description="what the names of all streams and subjects in NATS begin with",
        ),
    ] = "hubbub"
    nats_replicas: Annotated[
        int, Meta(ge=1, le=5, description="servers of a NATS cluster that each keep everything: 1, 3 or 5")
    ] = 1
