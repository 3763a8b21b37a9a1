"""The figures that a plan counts with: what one of anything takes, and which question of `make bench` has measured it.

Times are CPU of one core, on the machine of README's table, where the floor takes 2.1 µs for a delivery
(bench/README.md): those of `planning` are its ratios to that, which hold on a busy machine, too. Another machine has
other times; what grows with what is the same.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct

__all__ = ["COSTS", "ENGINES", "Costs", "EngineCosts"]


def _measured(unit: str, what: str, where: str) -> Meta:
    return Meta(description=what, extra={"unit": unit, "source": where})


class Costs(Struct, frozen=True, kw_only=True):
    """What things take in a worker and in the kernel under it; where nodes share an engine, with the dearer of them."""

    process: Annotated[float, _measured("MiB", "a worker without sessions", "planning")] = 48.0
    session: Annotated[float, _measured("KiB", "a session", "idle")] = 8.3
    shared_session: Annotated[float, _measured("KiB", "a session, where nodes share an engine", "planning")] = 11.4
    membership: Annotated[float, _measured("KiB", "each room that a session is in", "planning")] = 0.8
    tls: Annotated[float, _measured("KiB", "TLS of Hubbub's own, each session", "tls.md")] = 16.0
    socket: Annotated[float, _measured("KiB", "a connection, in the kernel", "planning")] = 4.5
    idle: Annotated[float, _measured("µs/s", "a session that says nothing", "idle")] = 0.43
    handshake: Annotated[float, _measured("µs", "a session comes, with a token", "handshakes")] = 270.0
    shared_handshake: Annotated[float, _measured("µs", "and more where nodes share an engine", "planning")] = 160.0
    join: Annotated[float, _measured("µs", "each room that a session comes into", "planning")] = 25.0
    shared_join: Annotated[float, _measured("µs", "the same where nodes share an engine", "planning")] = 80.0
    refusal: Annotated[float, _measured("µs", "a handshake is refused", "planning")] = 63.0
    tls_handshake: Annotated[float, _measured("µs", "a handshake of TLS", "tls.md")] = 500.0
    publish: Annotated[float, _measured("µs", "a message comes, on a node alone", "unicast")] = 6.0
    shared_publish: Annotated[float, _measured("µs", "the same where nodes share an engine", "planning")] = 50.0
    hear: Annotated[float, _measured("µs", "a message comes from another node", "planning")] = 28.0
    deliver: Annotated[float, _measured("µs", "a message goes to one receiver", "fanout")] = 2.6
    burst: Annotated[float, _measured("µs", "the same where sixteen are on their way", "fanout")] = 0.3
    frame: Annotated[float, _measured("bytes", "around a content: envelope, frame, TCP, IP", "the wire")] = 190.0


class EngineCosts(Struct, frozen=True, kw_only=True):
    """What things take in the server of an engine, of which a plan has one core.

    Redis uses no more than one; a nats-server uses several, and nobody has measured yet how well.
    """

    publication: Annotated[float, _measured("µs", "a message", "planning")]
    node: Annotated[float, _measured("µs", "a message, more for each further node that hears it", "planning")]
    arrival: Annotated[float, _measured("µs", "a session comes", "planning")]
    join: Annotated[float, _measured("µs", "each room that a session comes into", "planning")]
    session: Annotated[float, _measured("KiB", "a session", "planning")]
    membership: Annotated[float, _measured("KiB", "each room that a session is in", "planning")]
    kept: Annotated[float, _measured("KiB", "around a content that is kept", "planning")]
    # Whether `history_bytes` bounds what it keeps of rooms, of inboxes and of `all`, each by itself.
    bounded: bool
    # Whether several servers can share the channels, and what to do when one is not enough.
    shares: bool
    next: str


COSTS: Final = Costs()

ENGINES: Final[dict[str, EngineCosts]] = {
    "redis": EngineCosts(
        publication=35.0,
        node=5.0,
        arrival=75.0,
        join=45.0,
        session=0.9,
        membership=0.2,
        kept=0.25,
        bounded=False,
        shares=True,
        next="a Redis Cluster, which spreads channels over its primaries",
    ),
    "nats": EngineCosts(
        publication=35.0,
        node=5.0,
        arrival=120.0,
        join=10.0,
        session=5.0,
        membership=0.6,
        kept=0.85,
        bounded=True,
        shares=False,
        next="more cores, as far as nats-server makes use of them; or a Redis Cluster",
    ),
}
"""The engines that nodes can share, by the scheme of their URL."""
