"""What does it cost to take a message from one user and give it to another?"""

from collections.abc import Iterator

from harness import CONTENT, Bench, Budget, Row, figures

# To the sender's own inbox: decode, route, append, encode and deliver, and the answer shows that it arrived.
TO_MYSELF = '{"type":"chat","to":"u%d","content":"' + CONTENT + '"}'


def ask(bench: Bench) -> Iterator[Row]:
    """Server CPU per round trip beside an echo of the same bytes, 100 connections with one message each."""
    connections = bench.size(100, 10)
    floor, ours = bench.compare(
        "echo",
        "echo",
        connections=connections,
        warmup=bench.size(10_000, 50),
        messages=bench.size(100_000, 500),
        text=TO_MYSELF,
    )
    yield Row(
        f"unicast round trip, {connections} connections: CPU each",
        "µs",
        figures(floor, "cpu_us"),
        figures(ours, "cpu_us"),
        Budget(2.5),
    )
