"""What the messages of sessions cost, and what becomes of those that are too many (protocol.md §6.3)."""

from __future__ import annotations

from typing import Final

from hubbub.core.addresses import block_of
from hubbub.core.rates import Kind, Meter, Meters, Rate, RateLimits, Refused, Wait, Window

__all__ = ["Allowance", "Metering"]

# Signs of life, and acknowledgements that cover all before them: little work, and who receives much sends many. At
# once as many as an inbox holds by default, for a client that acknowledges each message of its backlog by itself.
_SIGNS: Final = frozenset(("ack", "ping", "pong"))
_SIGNS_RATE: Final = Rate(100, burst=1000)

# Parts of large messages, which count as messages when they are whole: as many at once as the largest has.
_CHUNK: Final = "chunk"
_CHUNK_RATE: Final = Rate(1000, burst=1000)

# What no rate that is shared with others counts.
_UNSHARED: Final = _SIGNS | {_CHUNK}

# Seconds in which messages in spite of a refusal are counted.
_STRIKES_PERIOD: Final = 60.0


class Metering:
    """The rates that all sessions of a node are held to, and the meters that they share."""

    def __init__(self, limits: RateLimits) -> None:
        self.rate = limits.rate_limit

        # By type, of those that have a rate of their own: the name under which they are metered, and the rate.
        self.groups: dict[str, tuple[str, Rate]] = {
            **dict.fromkeys(_SIGNS, ("", _SIGNS_RATE)),
            _CHUNK: (_CHUNK, _CHUNK_RATE),
            **{type: (type, rate) for type, rate in limits.rate_limits.items()},
        }
        self.users = None if limits.rate_limit_user.off else Meters(limits.rate_limit_user)
        self.ips = None if limits.rate_limit_ip.off else Meters(limits.rate_limit_ip)
        self.shares = self.users is not None or self.ips is not None
        self.strikes = limits.rate_limit_strikes

    def sizes(self) -> dict[str, int]:
        """How many meters are kept, by what they are of."""
        return {"user": len(self.users or ()), "ip": len(self.ips or ())}


class Allowance:
    """What one session may send, used up message by message."""

    __slots__ = ("_block", "_grouped", "_groups", "_meter", "_metering", "_shut", "_strikes", "_user", "offends")

    def __init__(self, metering: Metering, user: str, ip: str) -> None:
        self._metering = metering
        self._groups = metering.groups
        self._user = user
        self._block = block_of(ip)
        self._meter = metering.rate.meter()

        # By group, of types with a rate of their own; None where that rate is off, or before the first of them.
        self._grouped: dict[str, Meter | None] | None = None

        # Until when a rate that it shares with others lets nothing of it through.
        self._shut = 0.0

        # Whether it has gone on in spite of refusals for too long; counted from the first such message on.
        self.offends = False
        self._strikes: Window | None = None

    def take(self, type: str, now: float) -> Wait | Refused | None:
        """A message of `type` came at `now`; None where it may go on at once.

        One that is refused costs nothing. But until it may come again, nothing is let through that would have to pass
        the same rate of this session: else what was sent behind it would overtake it. Whoever goes on sending
        meanwhile offends, in the long run.
        """
        group = self._groups.get(type)
        meter = self._meter if group is None else self._of_group(*group)
        verdict = None if meter is None else meter.take(now)
        # Nearly always it is None, and `isinstance` of a struct takes longer than all of the above.
        if verdict is not None and meter is not None and isinstance(verdict, Refused):
            if now < meter.shut:
                self._strike(now)
            meter.shut = now + verdict.seconds
        elif self._metering.shares and type not in _UNSHARED:
            return self._take_shared(meter, verdict, now)
        return verdict

    def charge(self, now: float) -> None:
        """A message came that is answered with an error whatever there is left: it costs all the same."""
        if self._meter is not None:
            self._meter.take(now)

    def _strike(self, now: float) -> None:
        most = self._metering.strikes
        if most and self._strikes is None:
            self._strikes = Window(Rate(most, _STRIKES_PERIOD, Kind.WINDOW))
        if self._strikes is not None and self._strikes.take(now) is not None:
            self.offends = True

    def _of_group(self, group: str, rate: Rate) -> Meter | None:
        if self._grouped is None:
            self._grouped = {}
        if group not in self._grouped:
            self._grouped[group] = rate.meter()
        return self._grouped[group]

    def _take_shared(self, meter: Meter | None, verdict: Wait | Refused | None, now: float) -> Wait | Refused | None:
        metering = self._metering
        taken = [] if meter is None else [meter]
        refused = None
        if now < self._shut:
            self._strike(now)
            refused = Refused(self._shut - now)
        for meters, key in ((metering.users, self._user), (metering.ips, self._block)):
            if meters is None or refused is not None:
                continue
            shared = meters.of(key, now)
            found = shared.take(now)
            if isinstance(found, Refused):
                refused = found
                self._shut = now + found.seconds
            else:
                taken.append(shared)
                if found is not None and (verdict is None or found.seconds > verdict.seconds):
                    verdict = found
        if refused is None:
            return verdict
        for one in taken:
            one.give_back()
        return refused
