"""How many are asked to leave at a time, and for how long they stay away: so that not all come back in one moment."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

__all__ = ["Pace", "absence", "pace", "spread"]

# Sessions that one step says goodbye to, at least; and seconds between two steps.
_BATCH: Final = 100
_INTERVAL: Final = 0.1

# How many come back in a second. Half of what one server lets in (`handshake_rate`): there may be only one other, which
# has clients of its own.
_RETURNING: Final = 1_000

# Seconds over which a few come back.
_MOMENT: Final = 1.0

# Nobody comes back sooner: by then a proxy sends them elsewhere.
_LEAST: Final = 0.5


class Pace(Struct, frozen=True):
    """How a server parts with its sessions."""

    # Sessions told at a time, and seconds until the next are.
    batch: int
    interval: float
    # Seconds over which those of a step come back.
    spread: float


def pace(sessions: int, timeout: float) -> Pace:
    """All are told within half of `timeout` seconds, and stay away for a moment where that is slow enough."""
    steps = max(1.0, timeout / 2 / _INTERVAL)
    batch = max(_BATCH, int(sessions / steps) + 1)
    return Pace(batch, _INTERVAL, _MOMENT if batch <= _RETURNING * _INTERVAL else spread(sessions))


def spread(sessions: int) -> float:
    """Seconds over which so many come back that have to leave together."""
    return max(_MOMENT, sessions / _RETURNING)


def absence(spread: float, chance: float) -> float:
    """Seconds that one of them stays away; `chance` is random, from 0 to 1."""
    return round(_LEAST + chance * spread, 2)
