"""What does it cost to compress a message for a thousand connections, and what does it save?"""

from collections.abc import Iterator

from harness import Bench, Budget, Result, Row, figures

# A kilobyte as applications send it. The names of its fields come again and again, what they hold does not.
BROADCAST = (
    '{"type":"order","content":{"order":"o-5521377","mark":"%m","customer":{"id":88213,"name":"Amelia Thornton",'
    '"email":"amelia.thornton@mail.example","since":"2019-04-11"},"items":['
    '{"sku":"7f3a9c12","name":"Blue kettle, enamelled","price":24.90,"count":1,"in_stock":true},'
    '{"sku":"19bd02e7","name":"Tea cup","price":6.45,"count":6,"in_stock":true},'
    '{"sku":"c40e88a1","name":"Garden chair, folding","price":39.00,"count":2,"in_stock":false},'
    '{"sku":"5e61f0d3","name":"Reading lamp","price":58.75,"count":1,"in_stock":true},'
    '{"sku":"a8827b4c","name":"Tea towel, linen","price":9.20,"count":4,"in_stock":true},'
    '{"sku":"03d9e5f6","name":"Bread knife","price":31.10,"count":1,"in_stock":true}],'
    '"shipping":{"street":"14 Harbour Lane","city":"Whitby","postcode":"YO21 3PU","country":"GB","method":"express"},'
    '"total":281.55,"currency":"GBP","status":"paid","note":"Please ring twice: the bell is slow, and so is the dog. '
    'The chairs may come later than the rest."}}'
)


def ask(bench: Bench) -> Iterator[Row]:
    """Server CPU and bytes per delivery with compression, beside the same server without: in turns, the medians."""
    receivers = bench.size(1000, 50)
    off: list[Result] = []
    on: list[Result] = []
    for _ in range(1 if bench.quick else bench.rounds):
        for results, server, offer in (
            (off, bench.server, {}),
            (on, [*bench.server, "--compression"], {"offer": "permessage-deflate"}),
        ):
            results.append(
                bench.measure(
                    server,
                    "fanout",
                    connections=receivers,
                    warmup=bench.size(100, 8),
                    messages=bench.size(600, 48),
                    text=BROADCAST,
                    **offer,
                )
            )
    question = f"fan-out of 1 KB to {receivers:,}, compressed; the floor: not"
    yield Row(f"{question}: CPU per delivery", "µs", figures(off, "cpu_us"), figures(on, "cpu_us"), Budget(1.3))
    yield Row(f"{question}: bytes per delivery", "B", figures(off, "bytes"), figures(on, "bytes"))
