"""What the parts of the machine share: the list of what is to be done, when to look again, ids and chance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hubbub.client.events import Action, Event, EventName, Settle, Tell, Write
from hubbub.client.wire import Wire

__all__ = ["Agenda"]


class Agenda:
    """The actions that events have caused so far, in order."""

    def __init__(self, prefix: str, random: Callable[[], float], wire: Wire) -> None:
        # How envelopes are written and messages read.
        self.wire = wire

        # From 0 to 1.
        self.random = random

        # When to call `Machine.tick`, at the latest: too early does no harm.
        self.due: float | None = None

        self._prefix = prefix
        self._count = 0
        self._actions: list[Action] = []

    def take(self) -> list[Action]:
        """The actions since the last call."""
        actions, self._actions = self._actions, []
        return actions

    def add(self, action: Action) -> None:
        """Have something done."""
        self._actions.append(action)

    def write(self, envelope: dict[str, Any]) -> None:
        """Have an envelope sent."""
        self.add(Write(self.wire.encode(envelope)))

    def settle(self, id: str, outcome: Any) -> None:
        """Report the outcome of a message or a request."""
        self.add(Settle(id, outcome))

    def tell(self, name: EventName, event: Event) -> None:
        """Tell whoever listens to this event."""
        self.add(Tell(name, event))

    def at(self, when: float) -> float:
        """Make sure that `tick` is called at this moment; returns it."""
        self.due = when if self.due is None else min(self.due, when)
        return when

    def new_id(self) -> str:
        """An id that no other device of this user makes."""
        self._count += 1
        return f"{self._prefix}-{self._count}"
