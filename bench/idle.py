"""What does a connection cost that says nothing?"""

from collections.abc import Iterator

from harness import Bench, Budget, Row, figures

JOIN = '{"type":"join","room":"room-%g"}'


def ask(bench: Bench) -> Iterator[Row]:
    """Memory and heartbeats of ten thousand idle connections, and what it cost to take them in."""
    connections = bench.size(10_000, 100)
    # One round, because memory hardly varies; longer than the 54 s of silence after which a connection is
    # pinged, so that each has been.
    ours = [bench.measure(bench.server, "idle", connections=connections, hold=bench.size(60, 1))]
    yield Row(
        f"{connections:,} idle connections: RSS each",
        "KiB",
        [],
        figures(ours, "rss_kib"),
        Budget(9, of="ours"),
    )
    yield Row(
        f"{connections:,} idle connections: CPU each per second",
        "µs",
        [],
        figures(ours, "cpu_us_per_s"),
        Budget(2, of="ours"),
    )

    ours = [bench.measure(bench.server, "idle", connections=connections, greeting=JOIN, hold=1)]
    yield Row(f"{connections:,} connections in rooms of ten: RSS each", "KiB", [], figures(ours, "rss_kib"))

    floors, ours = bench.compare("echo", "connect", connections=connections, rounds=3)
    yield Row(
        f"{connections:,} handshakes: CPU each",
        "µs",
        figures(floors, "connect_cpu_us"),
        figures(ours, "connect_cpu_us"),
    )
