"""What hubs count, for Prometheus: read when somebody asks, so that counting costs the hot path nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hubbub.hub import Hub, HubStatistics
from hubbub.telemetry.scoreboard import Scoreboard

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = CONTENT_TYPE_LATEST
"""The media type of what `Metrics.render` returns."""

# Seconds without news of a worker after which it counts as one that hangs: it has some at least every 1.5.
_SILENT: Final = 3.0


class Metrics:
    """The metrics of one hub; where it is a worker's, those of all workers, each sample with the label `worker`."""

    def __init__(self, hub: Hub, scoreboard: Scoreboard | None = None) -> None:
        self._hub = hub
        # Where each worker finds what the others have counted; None: it is alone.
        self._scoreboard = scoreboard
        self._registry = CollectorRegistry()
        self._registry.register(_Families(self._alone if scoreboard is None else lambda: _of_workers(scoreboard)))

    def post(self) -> None:
        """Let other workers know what this one has counted."""
        if self._scoreboard is not None and self._hub.running:
            self._scoreboard.write(self._hub.statistics())

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        # First: what somebody has been shown of it the others must show, too, or a counter would go back.
        self.post()
        return generate_latest(self._registry)

    def _alone(self) -> Iterator[Metric]:
        return _families({(): self._hub.statistics()}) if self._hub.running else iter(())


class _Families(Collector):
    def __init__(self, collect: Callable[[], Iterator[Metric]]) -> None:
        self._collect = collect

    def collect(self) -> Iterator[Metric]:
        return self._collect()


def _of_workers(scoreboard: Scoreboard) -> Iterator[Metric]:
    """What all of them have counted, and how they are."""
    roster = scoreboard.roster()
    up = GaugeMetricFamily("hubbub_worker_up", "1: the worker is ready, and does not hang.", labels=["worker"])
    restarts = CounterMetricFamily("hubbub_worker_restarts", "Workers that ended or hung.", labels=["worker"])
    counted: dict[tuple[str, ...], HubStatistics] = {}
    places = {f"{number}": place for number, place in roster.serving.items()}
    # Not by the same name: what it had counted is not its successor's.
    places |= {f"{number}-leaving": place for number, place in roster.leaving.items()}
    fresh = set()
    for name, place in places.items():
        record = scoreboard.read(place)
        if record is None:
            continue
        if record.age < _SILENT:
            fresh.add(name)
        try:
            # Also what is not fresh: its connections are still there, and it counts nothing more.
            counted[name,] = msgspec.json.decode(record.content, type=HubStatistics)
        except msgspec.ValidationError:
            # A roll brings another version, which counts other things: these are shown when all are of one.
            continue
    for number, times in roster.restarts.items():
        up.add_metric([f"{number}"], f"{number}" in fresh)
        restarts.add_metric([f"{number}"], times)
    yield up
    yield restarts
    yield from _families(counted, "worker")


def _families(every: Mapping[tuple[str, ...], HubStatistics], *labels: str) -> Iterator[Metric]:
    """What has been counted, by the values of these labels; each family once, with the samples of all."""

    gauge, counter = GaugeMetricFamily, CounterMetricFamily

    def each(
        kind: type[GaugeMetricFamily | CounterMetricFamily], name: str, says: str, value: Callable[[HubStatistics], int]
    ) -> Metric:
        family = kind(name, says, labels=labels)
        for values, counted in every.items():
            family.add_metric(values, value(counted))
        return family

    yield each(gauge, "websocket_active_connections", "Open connections.", lambda counted: counted.connections)
    yield each(gauge, "hubbub_users_online", "Users with a session on this node.", lambda counted: counted.users)
    yield each(gauge, "hubbub_rooms", "Rooms with a member on this node.", lambda counted: counted.rooms)
    yield each(gauge, "hubbub_blocked_connections", "Connections that take no more.", lambda counted: counted.blocked)
    yield each(
        gauge, "hubbub_transfer_bytes", "Bytes of unfinished large messages.", lambda counted: counted.transfer_bytes
    )
    yield each(counter, "websocket_messages_processed", "Messages from clients.", lambda counted: counted.messages_in)
    yield each(counter, "hubbub_publications", "Publications told to this node.", lambda counted: counted.publications)
    meters = gauge("hubbub_meters", "Users and addresses with a rate to keep.", labels=(*labels, "kind"))
    errors = counter("websocket_connection_errors", "Errors told to clients.", labels=(*labels, "error_type"))
    for values, counted in every.items():
        for kind, count in counted.meters.items():
            meters.add_metric((*values, kind), count)
        for code, count in counted.errors.items():
            errors.add_metric((*values, code), count)
    yield meters
    yield errors
