"""What does it cost to look at each message's rate, where none is refused?"""

from collections.abc import Iterator

from harness import Bench, Budget, Result, Row, figures
from unicast import TO_MYSELF


def ask(bench: Bench) -> Iterator[Row]:
    """Server CPU per unicast round trip with rate limits, beside the same server without: in turns, the medians."""
    connections = bench.size(100, 10)
    off: list[Result] = []
    on: list[Result] = []
    for _ in range(1 if bench.quick else 2 * bench.rounds):
        for results, rate in ((off, "off"), (on, "1000000/s")):
            results.append(
                bench.measure(
                    [*bench.server, "--rate-limit", rate],
                    "echo",
                    connections=connections,
                    warmup=bench.size(10_000, 50),
                    messages=bench.size(100_000, 500),
                    text=TO_MYSELF,
                )
            )
    yield Row(
        f"unicast round trip, {connections} connections, rates looked at; the floor: not",
        "µs",
        figures(off, "cpu_us"),
        figures(on, "cpu_us"),
        Budget(1.05),
    )
