"""What clients do, all together, and what it comes to on so many workers."""

from __future__ import annotations

from msgspec import Struct

from hubbub.planning.figures import COSTS

__all__ = ["Load", "Machine"]


class Load(Struct, frozen=True, kw_only=True):
    """How many clients there are, and what they say in a second."""

    connections: int
    rooms: int = 0
    # That each client is in.
    rooms_each: int = 1
    # Messages a second into rooms, to single users, and to everybody.
    rate: float = 0.0
    direct: float = 0.0
    broadcast: float = 0.0
    # Bytes of a content.
    size: int = 128
    # Whether Hubbub speaks TLS itself.
    tls: bool = False

    @property
    def memberships(self) -> int:
        """In how many rooms all clients are together."""
        return self.connections * self.rooms_each if self.rooms else 0

    @property
    def members(self) -> float:
        """Of one room."""
        return self.memberships / self.rooms if self.rooms else 0.0

    @property
    def publications(self) -> float:
        """A second."""
        return self.rate + self.direct + self.broadcast

    @property
    def deliveries(self) -> float:
        """A second."""
        return self.rate * self.members + self.direct + self.broadcast * self.connections

    @property
    def network(self) -> float:
        """Gbit/s to all clients."""
        return self.deliveries * (self.size + COSTS.frame) * 8 / 1e9

    def heard(self, workers: int) -> float:
        """How many messages a second so many workers hear of each other, all together."""
        # A room's members are anywhere: this is the chance that a worker has none of them.
        none: float = (1 - 1 / workers) ** self.members
        room = max(0.0, workers * (1 - none) - 1)
        return self.rate * room + self.direct * (1 - 1 / workers) + self.broadcast * (workers - 1)

    def busy(self, workers: int) -> float:
        """The part of its core that each of so many workers uses."""
        publish = COSTS.publish if workers == 1 else COSTS.shared_publish
        spent = self.connections * COSTS.idle + self.publications * publish + self.deliveries * COSTS.deliver
        return (spent + self.heard(workers) * COSTS.hear) / workers / 1e6

    def memory(self, workers: int, connections: float) -> float:
        """GiB of one of so many workers, which has so many of the connections."""
        each = COSTS.session if workers == 1 else COSTS.shared_session
        each += COSTS.tls * self.tls
        if self.rooms:
            each += COSTS.membership * self.rooms_each
        return (COSTS.process * 1024 + connections * each) / 1024**2


class Machine(Struct, frozen=True, kw_only=True):
    """One of the machines that run the workers."""

    cores: int = 4
    # GiB.
    memory: float = 16.0
    # Gbit/s.
    network: float = 10.0
