"""What does it cost to give one message to a thousand connections?"""

from collections.abc import Iterator

from harness import CONTENT, Bench, Budget, Row, figures

BROADCAST = '{"type":"chat","content":"' + CONTENT + '"}'


def ask(bench: Bench) -> Iterator[Row]:
    """Server CPU per delivery, with one publication in flight and with sixteen."""
    receivers = bench.size(1000, 50)
    # Ours is done much sooner with sixteen at a time, so there are more of them.
    for window, messages, budget in (1, 600, Budget(1.4)), (16, 1200, Budget(0.25)):
        floor, ours = bench.compare(
            "fanout",
            "fanout",
            connections=receivers,
            window=window,
            warmup=bench.size(100, 8),
            messages=bench.size(messages, 48),
            text=BROADCAST,
        )
        yield Row(
            f"fan-out to {receivers:,}, {window} in flight: CPU per delivery",
            "µs",
            figures(floor, "cpu_us"),
            figures(ours, "cpu_us"),
            budget,
        )
