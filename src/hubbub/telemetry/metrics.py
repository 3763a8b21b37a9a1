"""What the hub counts, for Prometheus: read when somebody asks, so that counting costs the hot path nothing."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hubbub.hub import Hub

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = CONTENT_TYPE_LATEST
"""The media type of what `Metrics.render` returns."""


class _HubCollector(Collector):
    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def collect(self) -> Iterator[Metric]:
        if not self._hub.running:
            return
        counted = self._hub.statistics()
        yield GaugeMetricFamily("websocket_active_connections", "Open connections.", counted.connections)
        yield GaugeMetricFamily("hubbub_users_online", "Users with a session on this node.", counted.users)
        yield GaugeMetricFamily("hubbub_rooms", "Rooms with a member on this node.", counted.rooms)
        yield GaugeMetricFamily("hubbub_blocked_connections", "Connections that take no more.", counted.blocked)
        yield GaugeMetricFamily("hubbub_transfer_bytes", "Bytes of unfinished large messages.", counted.transfer_bytes)
        yield CounterMetricFamily("websocket_messages_processed", "Messages from clients.", counted.messages_in)
        yield CounterMetricFamily("hubbub_publications", "Publications told to this node.", counted.publications)
        meters = GaugeMetricFamily("hubbub_meters", "Users and addresses with a rate to keep.", labels=["kind"])
        for kind, count in counted.meters.items():
            meters.add_metric([kind], count)
        yield meters
        errors = CounterMetricFamily("websocket_connection_errors", "Errors told to clients.", labels=["error_type"])
        for code, count in counted.errors.items():
            errors.add_metric([code], count)
        yield errors


class Metrics:
    """The metrics of one hub."""

    def __init__(self, hub: Hub) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_HubCollector(hub))

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)
