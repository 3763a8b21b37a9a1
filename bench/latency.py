"""How long after a broadcast is sent do a thousand connections have it?"""

from collections.abc import Iterator

from fanout import BROADCAST
from harness import Bench, Row, figures


def ask(bench: Bench) -> Iterator[Row]:
    """Latency at a fixed rate, at which a server on one core is busy for about a third of the time.

    By the clock and not in a closed loop: there, a slow answer delays the next question and so hides itself.
    """
    receivers, rate = bench.size(1000, 50), 100
    floor, ours = bench.compare(
        "fanout",
        "fanout",
        rounds=3,
        connections=receivers,
        rate=rate,
        warmup=bench.size(100, 8),
        messages=bench.size(500, 20),
        text=BROADCAST,
    )
    for name, kind, share in (
        ("half of the deliveries", "latency_ms", "p50"),
        ("99 % of the deliveries", "latency_ms", "p99"),
        ("99 % of the last deliveries", "last_ms", "p99"),
    ):
        yield Row(
            f"latency to {receivers:,} at {rate}/s: {name} within",
            "ms",
            figures(floor, kind, share),
            figures(ours, kind, share),
        )
