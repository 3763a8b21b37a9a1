"""When a client tries again, and when not (spec/client.md §5)."""

from __future__ import annotations

from typing import Final

from hubbub.protocol.codes import RETRYABLE, STAY_AWAY

__all__ = ["LONGEST_WAIT", "can_help", "delay", "is_final", "resend_delay"]

_BASE: Final = 0.5
_CAP: Final = 30.0

LONGEST_WAIT: Final = 300.0
"""The most seconds that a server's `retry_after` can make a client wait."""

# Beyond this many failures the cap has long been reached; 2 ** 1000 need not be computed.
_MOST_DOUBLINGS: Final = 16


def delay(attempt: int, chance: float, at_least: float | None = None) -> float:
    """Seconds until the next try after `attempt` failures; `chance` is random, from 0 to 1.

    Full jitter: any moment up to a bound that doubles, so that ten thousand clients that lost the same
    server do not come back in waves. `at_least` is what the server asked for.
    """
    bound = min(_CAP, _BASE * 2.0 ** min(attempt - 1, _MOST_DOUBLINGS))
    return max(chance * bound, min(at_least or 0.0, LONGEST_WAIT))


def resend_delay(retries: int, chance: float, retry_after: float | None) -> float:
    """Seconds until a refused message is sent again for the `retries`-th time (from 1)."""
    if retry_after is not None:
        return max(0.0, min(retry_after, LONGEST_WAIT))
    return float(2 ** (retries - 1)) * (0.5 + chance / 2)


def is_final(code: int) -> bool:
    """Whether a connection that was closed with `code` is not to be tried again (protocol.md §6.2)."""
    return code in STAY_AWAY


def can_help(code: str) -> bool:
    """Whether the same message, sent again, may be accepted after an `error` with `code`.

    Of a code that it does not know a client takes it that no retry helps.
    """
    return code in RETRYABLE
