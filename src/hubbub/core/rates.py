"""How much may come in how little time: rates, and the meters that hold somebody to one.

There are three kinds. A token bucket lets `burst` through at once and the rate over time. A fixed window lets so
many through in each period, which begins with its first. A leaky bucket lets one through at a time, at the pace of the
rate: what comes faster waits its turn, and what would make more than `burst` wait is refused.

A meter knows no clock. Times are seconds on any clock that only goes forward, given by the caller.
"""

from __future__ import annotations

import re
from enum import StrEnum
from itertools import islice
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from hubbub.errors import ConfigError

__all__ = [
    "OFF",
    "Bucket",
    "Kind",
    "Leaky",
    "Meter",
    "Meters",
    "Rate",
    "RateLimits",
    "Refused",
    "Wait",
    "Window",
]

_PERIODS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0}
_RATE = re.compile(r"(\d{1,9})/([smh])(?: (bucket|window|leaky))?(?: burst (\d{1,9}))?")

# Seconds that sums of floats may be off by, and too little to let through what should not be.
_GRAIN: Final = 1e-6

# Seconds that a refusal names where less would do, if there is more to be had by waiting: whoever comes back after
# each single token is refused nearly every time.
_WORTH_WAITING: Final = 1.0


class Kind(StrEnum):
    """How a rate is kept."""

    BUCKET = "bucket"
    WINDOW = "window"
    LEAKY = "leaky"


class Rate:
    """So many a second, a minute or an hour; `OFF` is the rate that nothing is held to."""

    __slots__ = ("burst", "count", "depth", "interval", "kind", "period")

    def __init__(self, count: int, period: float = 1.0, kind: Kind = Kind.BUCKET, burst: int | None = None) -> None:
        self.count = count
        # Seconds: 1, 60 or 3,600.
        self.period = period
        self.kind = kind
        # How many at once, or how many may wait; a window has as many at once as it has at all.
        self.burst = count if burst is None else burst
        # Seconds for one, and for a whole burst.
        self.interval = period / count if count else 0.0
        self.depth = self.burst * self.interval

    @classmethod
    def parse(cls, text: object) -> Rate:
        """Read `10/s burst 10`, `100/m window`, `5/s leaky burst 20` or `off`; raises `ConfigError`."""
        words = " ".join(text.lower().split()) if isinstance(text, str) else ""
        if words == "off":
            return OFF
        found = _RATE.fullmatch(words)
        if found is None:
            raise ConfigError("a rate is written like 10/s burst 20, 100/m window, 5/s leaky burst 20, or off")
        count, kind, burst = int(found[1]), Kind(found[3] or "bucket"), found[4] and int(found[4])
        if count == 0 or burst == 0:
            raise ConfigError("a rate lets something through: write off where there is to be no limit")
        if kind is Kind.WINDOW and burst:
            raise ConfigError("a window has no burst: all that it lets through may come at once")
        return cls(count, _PERIODS[found[2]], kind, burst or None)

    @property
    def off(self) -> bool:
        """Whether nothing is held to it."""
        return self.count == 0

    def meter(self) -> Meter | None:
        """A new meter for this rate, with nothing taken yet; None where it is off."""
        if self.off:
            return None
        return _METERS[self.kind](self)

    def __str__(self) -> str:
        if self.off:
            return "off"
        unit = next(unit for unit, period in _PERIODS.items() if period == self.period)
        kind = "" if self.kind is Kind.BUCKET else f" {self.kind}"
        return f"{self.count}/{unit}{kind}" + ("" if self.kind is Kind.WINDOW else f" burst {self.burst}")

    def __repr__(self) -> str:
        return f"Rate.parse({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rate) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))


OFF: Final = Rate(0)
"""The rate of what has no limit."""


class Wait(Struct, frozen=True, gc=False):
    """It is let through, and not before so many seconds are over."""

    seconds: float


class Refused(Struct, frozen=True, gc=False):
    """It is not let through. After so many seconds there is room for it, and for what else comes within a second."""

    seconds: float


def _refused(over: float, whole: float) -> Refused:
    """`over` and `whole`: seconds until there is room for this one, and until there is all the room that can be."""
    return Refused(max(over, min(whole, _WORTH_WAITING)))


class Bucket(Struct, gc=False):
    """A token bucket. Not a count and a time but one number: when it is going to be full (GCRA, ITU-T I.371)."""

    rate: Rate
    full_at: float = 0.0

    # Whoever owns the meter may shut it until a moment: nothing is let through before that.
    shut: float = 0.0

    def take(self, now: float, cost: float = 1.0) -> Refused | None:
        """Take `cost` tokens, at most a burst; None where they were there."""
        if now < self.shut:
            return Refused(self.shut - now)
        rate, full_at = self.rate, self.full_at
        paid = (full_at if full_at > now else now) + cost * rate.interval
        over = paid - now - rate.depth
        if over > _GRAIN:
            return _refused(over, full_at - now)
        self.full_at = paid
        return None

    def give_back(self, cost: float = 1.0) -> None:
        """It was taken, and not used after all."""
        self.full_at -= cost * self.rate.interval

    def is_idle(self, now: float) -> bool:
        """Whether a new meter would answer alike: nothing is lost with this one."""
        return self.full_at <= now and self.shut <= now


class Window(Struct, gc=False):
    """A fixed window: so many in each period, and a period begins with the first that comes after the last."""

    rate: Rate
    used: float = 0.0
    ends: float = 0.0
    # As of a bucket.
    shut: float = 0.0

    def take(self, now: float, cost: float = 1.0) -> Refused | None:
        """Use up `cost` of the window; None where there was so much left."""
        if now < self.shut:
            return Refused(self.shut - now)
        rate = self.rate
        if now >= self.ends:
            self.ends = now + rate.period
            self.used = 0.0
        if self.used + cost > rate.count + _GRAIN:
            return Refused(self.ends - now)
        self.used += cost
        return None

    def give_back(self, cost: float = 1.0) -> None:
        """It was taken, and not used after all."""
        self.used = max(0.0, self.used - cost)

    def is_idle(self, now: float) -> bool:
        """As of a bucket."""
        return self.ends <= now and self.shut <= now


class Leaky(Struct, gc=False):
    """A leaky bucket, as a queue: one at a time, and so many may wait for their turn."""

    rate: Rate
    # When all that came has had its turn.
    free_at: float = 0.0
    # As of a bucket.
    shut: float = 0.0

    def take(self, now: float, cost: float = 1.0) -> Wait | Refused | None:
        """Get in line; None where nobody is before it."""
        if now < self.shut:
            return Refused(self.shut - now)
        rate, wait = self.rate, self.free_at - now
        if wait <= _GRAIN:
            self.free_at = max(self.free_at, now) + cost * rate.interval
            return None
        over = wait - rate.depth
        if over > _GRAIN:
            return _refused(over, wait)
        self.free_at += cost * rate.interval
        return Wait(wait)

    def give_back(self, cost: float = 1.0) -> None:
        """It was taken, and not used after all."""
        self.free_at -= cost * self.rate.interval

    def is_idle(self, now: float) -> bool:
        """As of a bucket."""
        return self.free_at <= now and self.shut <= now


Meter = Bucket | Window | Leaky

_METERS: Final[dict[Kind, type[Bucket] | type[Window] | type[Leaky]]] = {
    Kind.BUCKET: Bucket,
    Kind.WINDOW: Window,
    Kind.LEAKY: Leaky,
}

# How many of the oldest meters a newcomer looks at: two, so that those of who left go faster than others come; and
# as many as this before one is forgotten that would still have held somebody back.
_LOOKED_AT: Final = 2
_LOOKED_AT_WHEN_FULL: Final = 16


class Meters:
    """One meter for each user or address, made when it is needed and forgotten when a new one would answer alike.

    Bounded: with `most` of them, a newcomer takes the place of one that is idle, or else of the one that was used
    least lately. So whoever is being refused right now is the last to be forgotten.
    """

    def __init__(self, rate: Rate, most: int = 100_000) -> None:
        """`rate` is not `OFF`."""
        self._rate = rate
        self._most = most

        # The one used last at the end.
        self._meters: dict[str, Meter] = {}

    def __len__(self) -> int:
        return len(self._meters)

    def of(self, key: str, now: float) -> Meter:
        """The meter of `key`, which counts as used now."""
        meter = self._meters.pop(key, None)
        if meter is None:
            self._make_room(now)
            meter = _METERS[self._rate.kind](self._rate)
        self._meters[key] = meter
        return meter

    def _make_room(self, now: float) -> None:
        meters = self._meters
        full = len(meters) >= self._most
        oldest = list(islice(meters, _LOOKED_AT_WHEN_FULL if full else _LOOKED_AT))
        idle = [key for key in oldest if meters[key].is_idle(now)]
        for key in idle or (oldest[:1] if full else ()):
            del meters[key]


class RateLimits(Struct, frozen=True, kw_only=True):
    """How fast clients may send and come. Raises `ConfigError` for a handshake that would have to wait."""

    rate_limit: Annotated[
        Rate,
        Meta(
            description="messages and requests of one session; off: no rate limit of any kind, not of handshakes either"
        ),
    ] = Rate(10, burst=10)
    rate_limit_user: Annotated[Rate, Meta(description="the same of all sessions of one user together")] = OFF
    # Many people share one address behind a proxy or a provider's NAT: off unless the operator knows better.
    rate_limit_ip: Annotated[Rate, Meta(description="the same of all sessions from one address together")] = OFF
    rate_limits: Annotated[
        dict[str, Rate],
        Meta(description="rates of single types, per session, instead of rate_limit: of your own or, say, history"),
    ] = msgspec.field(default_factory=dict)
    rate_limit_strikes: Annotated[
        int,
        Meta(
            ge=0,
            description="messages within a minute, sent in spite of a refusal, after which a session ends; 0: never",
        ),
    ] = 600
    handshake_rate_ip: Annotated[Rate, Meta(description="handshakes from one address")] = Rate(50, burst=500)
    handshake_rate: Annotated[Rate, Meta(description="handshakes from all addresses")] = Rate(2000, burst=5000)

    def __post_init__(self) -> None:
        for name in ("handshake_rate_ip", "handshake_rate"):
            if getattr(self, name).kind is Kind.LEAKY:
                raise ConfigError(f"{name} cannot be leaky, for a handshake does not wait: take a bucket or a window")
