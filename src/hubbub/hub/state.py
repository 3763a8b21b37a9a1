"""Where a session is in its life."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["State"]


class State(StrEnum):
    """Where a session is in its life."""

    CONNECTING = "connecting"
    """The connection stands, but it is not open: no `hello` yet, or `on_connect` is still running."""

    OPEN = "open"
    IDLE = "idle"
    """Open, and silent for longer than the ping interval."""

    DRAINING = "draining"
    """Told to come back elsewhere; the connection closes next."""

    CLOSED = "closed"
