"""What a hub can be told about itself: heartbeats, rooms, handlers, the drain."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct, field

from hubbub.core.limits import ConnectionLimits, TransferLimits
from hubbub.core.origins import OriginOptions
from hubbub.core.outbox import OutboxLimits
from hubbub.core.permissions import RoleOptions
from hubbub.core.rates import RateLimits
from hubbub.core.rooms import RoomOptions

__all__ = ["HubOptions"]

_Seconds = Annotated[float, Meta(gt=0)]


class HubOptions(Struct, frozen=True, kw_only=True):
    """The options of a hub; each has a default that suits the open internet."""

    dev: Annotated[
        bool,
        Meta(description="anyone may name themselves with ?user_id=, with a chat page and /echo: for trying out"),
    ] = False
    node_name: Annotated[
        str,
        Meta(
            pattern="^[A-Za-z0-9_-]{0,32}$", description="what this node is called among others; empty: its host's name"
        ),
    ] = ""
    require_tls: Annotated[
        bool, Meta(description="refuse who came without TLS, to this server or to a trusted proxy; not /health, /ready")
    ] = False
    ping_interval: Annotated[_Seconds, Meta(description="seconds of silence after which a plain client is pinged")] = (
        54.0
    )
    silence_limit: Annotated[
        _Seconds, Meta(description="seconds of silence after which a plain client is given up")
    ] = 60.0
    envelope_ping_interval: Annotated[_Seconds, Meta(description="seconds between two pings of a full client")] = 25.0
    pong_timeout: Annotated[_Seconds, Meta(description="seconds for a full client to answer a ping")] = 10.0
    hello_timeout: Annotated[_Seconds, Meta(description="seconds for a full client to say hello")] = 10.0
    room_capacity: Annotated[int, Meta(ge=1, description="users in one room")] = 100_000
    rooms_per_session: Annotated[int, Meta(ge=1, description="rooms that one session may be in")] = 100
    presence_events: Annotated[
        bool, Meta(description="members of a room hear who comes and goes; --dev switches it on")
    ] = False
    presence_grace: Annotated[
        float,
        Meta(ge=0, description="seconds in which who was cut off may come back and nobody hears of it; 0: none"),
    ] = 10.0
    presence_ttl: Annotated[
        float,
        Meta(
            gt=0,
            le=3600,
            description="seconds without a sign of life after which a user is offline, and not remembered",
        ),
    ] = 1800.0
    rooms: Annotated[
        dict[str, RoomOptions], Meta(description="options of the rooms that match a pattern, by pattern")
    ] = field(default_factory=dict)
    roles: Annotated[
        dict[str, RoleOptions],
        Meta(description="what users with a role may do, by role; without roles everybody may do all"),
    ] = field(default_factory=dict)
    token_cookie: Annotated[str, Meta(description="name of the cookie that may carry a token; empty: none may")] = ""
    token_age: Annotated[
        _Seconds, Meta(description="seconds that a token may be good for, and that revoked users are remembered")
    ] = 2_592_000.0
    strict_types: Annotated[bool, Meta(description="refuse messages of types that no handler is registered for")] = (
        False
    )
    handler_threads: Annotated[int, Meta(ge=1, description="threads for handlers and hooks that block")] = 8
    handler_queue: Annotated[int, Meta(ge=0, description="calls that may wait for such a thread")] = 256
    hook_timeout: Annotated[_Seconds, Meta(description="seconds for a handler or hook to return")] = 30.0
    session_queue: Annotated[
        int, Meta(ge=1, description="messages of one session that may wait while an earlier one is handled")
    ] = 64
    # The engine's, too: how long a retry is known, whoever knows it.
    dedupe_window: Annotated[_Seconds, Meta(description="seconds for which a message's id is known")] = 300.0
    dedupe_size: Annotated[
        int, Meta(ge=1, description="ids known at once per channel, and of what handlers kept; then the oldest go")
    ] = 100_000
    message_size: Annotated[int, Meta(ge=125, description="bytes of one message from a client")] = 65_536
    limits: ConnectionLimits = field(default_factory=ConnectionLimits)
    transfers: TransferLimits = field(default_factory=TransferLimits)
    rates: RateLimits = field(default_factory=RateLimits)
    outbox: OutboxLimits = field(default_factory=OutboxLimits)
    origin: OriginOptions = field(default_factory=OriginOptions)
