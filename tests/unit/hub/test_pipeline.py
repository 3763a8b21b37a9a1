"""Your code between a message and its room: typed content, the order of middleware, and threads for what blocks."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import math
import threading
from collections.abc import Awaitable, Callable, Coroutine
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import msgspec
import pydantic
import pytest
from msgspec import Raw, Struct

from hubbub.errors import HubbubError, Reject, Unavailable
from hubbub.hub.pipeline import Message, Next, Pipeline, Threads, encode_content, envelope_of, user_named
from hubbub.hub.session import Session
from hubbub.protocol.envelope import Envelope, PackedEnvelope

T = TypeVar("T")

ALICE = cast(Session, SimpleNamespace(user="alice"))

PATIENCE = 10.0

# Bytes in MessagePack.
A = Raw(b"\xc4\x01A")


def raw(message: Message[Any]) -> Raw:
    """The content that goes on."""
    return envelope_of(message, {"type": message.type}).content


class Line(Struct):
    price: int


class Order(Struct):
    item: str
    lines: list[Line] = []


class PydanticLine(pydantic.BaseModel):
    price: int


class PydanticOrder(pydantic.BaseModel):
    item: str
    lines: list[PydanticLine] = []


class CountedOrder(Order):
    number: int = msgspec.field(default_factory=itertools.count(1).__next__)


class Unsendable(pydantic.BaseModel):
    item: str

    @pydantic.field_serializer("item")
    def refuse(self, item: str) -> str:
        raise ValueError("not for sending")


def change_item(message: Message[Any]) -> None:
    message.content.item = "ink"


def change_line(message: Message[Any]) -> None:
    message.content.lines[0].price = 3


def add_line(message: Message[Any]) -> None:
    message.content.lines.append(message.content.lines[0])


def replace(message: Message[Any]) -> None:
    message.content = type(message.content)(item="ink")


def a_message(content: str = "", type: str = "order") -> Message[Any]:
    return Message(Envelope(type, room="shop", content=Raw(content.encode())), ALICE)


def send(pipeline: Pipeline, message: Message[Any]) -> Message[Any] | None:
    """Let a message through; raises what its sender would be told."""
    chain = pipeline.chain(message.type)
    assert chain is not None
    return asyncio.run(bounded(chain(message)))


async def bounded(coroutine: Awaitable[T]) -> T:
    async with asyncio.timeout(PATIENCE):
        return await coroutine


def handled_by(handler: Callable[..., Any], type: str = "order") -> Pipeline:
    pipeline = Pipeline()
    pipeline.add_handler(type, handler)
    return pipeline


def with_threads(main: Callable[[Threads], Coroutine[Any, Any, T]], threads: int = 1, queue: int = 1) -> T:
    """Run `main` with a pool; what blocks in it must have been released when it returns."""

    async def run() -> T:
        pool = Threads(threads, queue)
        try:
            async with asyncio.timeout(PATIENCE):
                return await main(pool)
        finally:
            pool.close()

    return asyncio.run(run())


class Price(msgspec.Struct):
    value: float


class PriceList(msgspec.Struct, array_like=True):
    value: float


@dataclasses.dataclass
class DataPrice:
    value: float


class PydanticPrice(pydantic.BaseModel):
    value: float | list[float] | dict[str, float]


class ConstantPrice(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(ser_json_inf_nan="constants")

    value: float


# Where NaN may hide.
INFINITE: dict[str, Callable[[float], object]] = {
    "alone": lambda value: value,
    "in a list": lambda value: [1, value],
    "in a tuple": lambda value: (value,),
    "in a set": lambda value: {value},
    "deep": lambda value: {"a": [{"b": (None, value)}]},
    "in a struct": Price,
    "in a struct that is a list": PriceList,
    "in structs": lambda value: {"a": [Price(1.0), Price(value)]},
    "in a dataclass": DataPrice,
    "in a pydantic model": lambda value: PydanticPrice(value=value),
    "in a list of a pydantic model": lambda value: PydanticPrice(value=[value]),
    "in an object of a pydantic model": lambda value: PydanticPrice(value={"a": value}),
    "in a pydantic model that writes constants": lambda value: ConstantPrice(value=value),
}


class TestMessage:
    """What a handler sees, and what goes on."""

    def test_it_says_where_it_comes_from_and_goes(self) -> None:
        message = a_message("1")

        assert (message.type, message.room, message.to, message.from_) == ("order", "shop", None, "alice")
        assert message.session is ALICE

    def test_content_that_nobody_read_goes_on_as_it_was_sent(self) -> None:
        """Digit for digit: spaces, the form of a number, members that occur twice."""
        assert bytes(raw(a_message('{"a":1.0e2 , "a":2}'))) == b'{"a":1.0e2 , "a":2}'

    @pytest.mark.parametrize(
        "sent",
        ["1.10", '{"b": 1.10, "a": 123456789012345678901234567890}', "[1e2]", '{"a":1,"a":2}', '"\\u00e4"', "true"],
    )
    def test_content_that_was_only_read_goes_on_as_it_was_sent(self, sent: str) -> None:
        message = a_message(sent)
        _ = message.content

        assert bytes(raw(message)).decode() == sent

    @pytest.mark.parametrize("sent", ['{"a":{"b":[1.10,[]]}}', '{"a": {"b": [1.10, []]}}'])
    def test_content_can_be_changed_deep_inside(self, sent: str) -> None:
        message = a_message(sent)
        message.content["a"]["b"][1].append(2)

        assert bytes(raw(message)) == b'{"a":{"b":[1.1,[2]]}}'

    def test_a_change_of_order_is_a_change(self) -> None:
        message = a_message('{"a": 1, "b": 2}')
        message.content["a"] = message.content.pop("a")

        assert bytes(raw(message)) == b'{"b":2,"a":1}'

    def test_content_that_is_set_is_encoded_even_if_it_is_what_was_read(self) -> None:
        """How a handler asks for its own form of what came: without what its model does not know."""
        message = a_message('{"a": 1.10}')
        message.content = message.content

        assert bytes(raw(message)) == b'{"a":1.1}'

    def test_content_that_was_set_may_still_be_changed(self) -> None:
        message = a_message("1")
        message.content = {"a": 1}
        message.content["a"] = 2

        assert bytes(raw(message)) == b'{"a":2}'

    def test_content_can_be_changed(self) -> None:
        message = a_message('{"price":1}')
        message.content["price"] = 2

        assert msgspec.json.decode(raw(message)) == {"price": 2}

    def test_content_can_be_replaced(self) -> None:
        message = a_message('{"price":1}')
        message.content = Order("pen")

        assert msgspec.json.decode(raw(message)) == {"item": "pen", "lines": []}

    @pytest.mark.parametrize("sent", ["", "null"], ids=["absent", "null"])
    def test_none_that_was_only_read_stays_what_it_was(self, sent: str) -> None:
        """An absent content stays absent, and `null` is a content like any other (protocol.md §1.1)."""
        message = a_message(sent)

        assert message.content is None
        assert bytes(raw(message)).decode() == sent

    def test_none_takes_the_content_away(self) -> None:
        message = a_message("1")
        message.content = None

        assert bytes(raw(message)) == b""

    def test_it_shows_no_content_in_a_log(self) -> None:
        message = a_message('"SECRET"')
        _ = message.content

        assert "SECRET" not in repr(message)
        assert "order" in repr(message)
        assert "shop" in repr(message)

    @pytest.mark.parametrize(
        ("content", "encoded"),
        [
            (Order("pen"), b'{"item":"pen","lines":[]}'),
            (PydanticOrder(item="pen"), b'{"item":"pen","lines":[]}'),
            ({"a": [1, None]}, b'{"a":[1,null]}'),
            (Raw(b"1.50"), b"1.50"),
            (None, b""),
            (False, b"false"),
        ],
        ids=["msgspec", "pydantic", "plain", "encoded", "none", "false"],
    )
    def test_whatever_json_can_say_can_be_sent(self, content: object, encoded: bytes) -> None:
        assert bytes(encode_content(content)) == encoded

    @pytest.mark.parametrize("content", [object(), {1: object()}, {"a": {2j}}], ids=["object", "inside", "set"])
    def test_what_json_cannot_say_is_an_error_of_ours(self, content: object) -> None:
        with pytest.raises(HubbubError, match="cannot be sent as JSON"):
            encode_content(content)

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    @pytest.mark.parametrize("wrap", INFINITE.values(), ids=INFINITE)
    def test_no_nan_goes_out_as_null(self, wrap: Callable[[float], object], value: float) -> None:
        """msgspec and pydantic would make null of it, or what is no JSON, which would reach everybody."""
        with pytest.raises(HubbubError, match="cannot be sent as JSON"):
            encode_content(wrap(value))

    def test_null_beside_what_is_not_looked_into_goes_out(self) -> None:
        content = {"a": None, "b": Raw(b"[null, 1.50]")}

        assert bytes(encode_content(content)) == b'{"a":null,"b":[null, 1.50]}'

    @pytest.mark.parametrize("text", [b"NaN", b"[1", b"1 2", b'"\\ud800"', b"{'a':1}"])
    def test_what_an_application_has_encoded_must_be_json(self, text: bytes) -> None:
        """On its own, and within something else."""
        for content in (Raw(text), [Raw(text)], {"a": Raw(text)}):
            with pytest.raises(HubbubError, match="cannot be sent as JSON"):
                encode_content(content)

    def test_what_is_nested_too_deep_does_not_go_out(self) -> None:
        """As for clients: 64 with the envelope, so that every receiver can read it (protocol.md 1.3)."""
        content: list[Any] = []
        for _ in range(62):
            content = [content]

        assert bytes(encode_content(content)) == b"[" * 63 + b"]" * 63
        with pytest.raises(HubbubError, match="nested more than 64 deep"):
            encode_content([content])


class TestHandlers:
    """One handler a type: it lets the message go on, changed or not, keeps it, or refuses it."""

    def test_what_it_returns_goes_on(self) -> None:
        async def handler(message: Message[Any]) -> Message[Any]:
            message.room = "other"
            return message

        message = a_message("1")

        assert send(handled_by(handler), message) is message
        assert message.room == "other"

    def test_none_keeps_it(self) -> None:
        async def handler(message: Message[Any]) -> None:
            return None

        assert send(handled_by(handler), a_message()) is None

    def test_reject_refuses_it(self) -> None:
        async def handler(message: Message[Any]) -> None:
            raise Reject("sold_out", "none left", retry_after=2)

        with pytest.raises(Reject) as caught:
            send(handled_by(handler), a_message())

        assert (caught.value.code, caught.value.message, caught.value.retry_after) == ("sold_out", "none left", 2)

    def test_other_types_go_straight_on(self) -> None:
        """Without middleware there is no code for them, and no step of a way to pay for."""

        async def handler(message: Message[Any]) -> None:
            return None

        pipeline = handled_by(handler)

        assert pipeline.chain("chat") is None
        assert pipeline.handles("order")
        assert not pipeline.handles("chat")

    def test_a_second_one_for_a_type_is_refused(self) -> None:
        async def handler(message: Message[Any]) -> None:
            return None

        pipeline = handled_by(handler)
        with pytest.raises(HubbubError, match="'order' already"):
            pipeline.add_handler("order", handler)

    def test_one_that_is_added_later_is_heard(self) -> None:
        """Chains are put together once, and again when something is added."""
        pipeline = Pipeline()

        async def passing(message: Message[Any], next: Next) -> Message[Any] | None:
            return await next(message)

        async def handler(message: Message[Any]) -> None:
            return None

        pipeline.add_middleware(passing)
        before = send(pipeline, a_message())
        pipeline.add_handler("order", handler)
        after = send(pipeline, a_message())

        assert before is not None
        assert after is None

    def test_an_annotation_that_cannot_be_read_is_said_at_once(self) -> None:
        """When the program starts, and not with the first message."""

        async def handler(message: Message[NoSuchType]) -> None:  # type: ignore[name-defined]  # noqa: F821  # that is the test
            return None

        with pytest.raises(HubbubError, match=r"the annotations of 'handler' cannot be read: .*NoSuchType"):
            handled_by(handler)


async def msgspec_order(message: Message[Order]) -> Message[Order]:
    assert isinstance(message.content, Order)
    return message


async def pydantic_order(message: Message[PydanticOrder]) -> Message[PydanticOrder]:
    assert isinstance(message.content, PydanticOrder)
    return message


async def a_list(message: Message[list[int]]) -> Message[list[int]]:
    assert isinstance(message.content, list)
    return message


async def optional_order(message: Message[Order | None]) -> Message[Order | None]:
    return message


both_models = pytest.mark.parametrize("handler", [msgspec_order, pydantic_order], ids=["msgspec", "pydantic"])


class TestTypedContent:
    """`Message[Order]`: the content is an `Order` before the handler runs, or the sender is told where it is not."""

    @both_models
    def test_the_handler_gets_the_model(self, handler: Callable[..., Any]) -> None:
        passed = send(handled_by(handler), a_message('{"item":"pen","lines":[{"price":2}]}'))

        assert passed is not None
        assert msgspec.json.decode(raw(passed)) == {"item": "pen", "lines": [{"price": 2}]}

    @both_models
    def test_what_is_only_checked_goes_on_as_it_was_sent(self, handler: Callable[..., Any]) -> None:
        """With what the model does not know, and without what it would fill in."""
        sent = '{"new": 1.10, "item": "pen"}'
        passed = send(handled_by(handler), a_message(sent))

        assert passed is not None
        assert bytes(raw(passed)).decode() == sent

    @pytest.mark.parametrize("model", [Order, PydanticOrder, CountedOrder], ids=["msgspec", "pydantic", "made anew"])
    @pytest.mark.parametrize(
        "change", [change_item, change_line, add_line, replace], ids=lambda change: change.__name__
    )
    def test_what_is_changed_goes_on_changed(self, model: Any, change: Callable[[Message[Any]], Any]) -> None:
        """In place, deep inside, or replaced: receivers get what the handler made of it."""

        async def handler(message: Message[Any]) -> Message[Any]:
            change(message)
            return message

        handler.__annotations__["message"] = Message[model]
        passed = send(handled_by(handler), a_message('{"item": "pen", "lines": [{"price": 2}]}'))

        assert passed is not None
        assert bytes(raw(passed)) == bytes(encode_content(passed.content))
        assert passed.content != model(**msgspec.json.decode(b'{"item":"pen","lines":[{"price":2}]}'))

    def test_a_model_that_is_never_made_twice_alike_was_still_only_read(self) -> None:
        async def handler(message: Message[CountedOrder]) -> Message[CountedOrder]:
            assert message.content.number
            return message

        passed = send(handled_by(handler), a_message('{"item": "pen"}'))

        assert passed is not None
        assert bytes(raw(passed)) == b'{"item": "pen"}'

    def test_content_that_cannot_be_sent_may_be_kept_or_replaced(self) -> None:
        """Whether JSON can say it matters only when it goes on."""

        async def handler(message: Message[Unsendable]) -> Message[Unsendable]:
            return message

        passed = send(handled_by(handler), a_message('{"item":"pen"}'))
        assert passed is not None
        with pytest.raises(HubbubError, match="cannot be sent as JSON"):
            raw(passed)
        message: Message[Any] = passed
        message.content = Order("ink")

        assert bytes(raw(passed)) == b'{"item":"ink","lines":[]}'

    @both_models
    @pytest.mark.parametrize(
        ("content", "where"),
        [
            ('{"item":7}', "$.item"),
            ('{"item":"pen","lines":[{"price":1},{"price":"much"}]}', "$.lines[1].price"),
            ('["pen"]', "$"),
            ("", "$"),
            ("null", "$"),
        ],
        ids=["member", "deep inside", "no object", "absent", "null"],
    )
    def test_what_is_wrong_is_said_with_its_place(self, handler: Callable[..., Any], content: str, where: str) -> None:
        """protocol.md §6.1: `$` is the content, `.name` a member, `[0]` an item; and nothing of it is repeated."""
        with pytest.raises(Reject) as caught:
            send(handled_by(handler), a_message(content))

        assert (caught.value.code, caught.value.where) == ("invalid_content", where)
        assert caught.value.message
        assert "much" not in caught.value.message
        assert "$" not in caught.value.message

    @both_models
    def test_what_is_missing_is_said(self, handler: Callable[..., Any]) -> None:
        with pytest.raises(Reject) as caught:
            send(handled_by(handler), a_message("{}"))

        assert caught.value.code == "invalid_content"
        assert (caught.value.where or "").startswith("$")

    @both_models
    def test_content_that_is_wrong_never_reaches_the_handler(self, handler: Callable[..., Any]) -> None:
        calls: list[Message[Any]] = []

        async def counting(message: Message[Any]) -> None:
            calls.append(message)

        counting.__annotations__ = handler.__annotations__
        with pytest.raises(Reject):
            send(handled_by(counting), a_message("7"))

        assert calls == []

    def test_any_type_that_msgspec_knows_will_do(self) -> None:
        assert send(handled_by(a_list), a_message("[1,2]")) is not None
        with pytest.raises(Reject) as caught:
            send(handled_by(a_list), a_message('[1,"2"]'))

        assert caught.value.where == "$[1]"

    def test_an_optional_content_may_be_absent(self) -> None:
        passed = send(handled_by(optional_order), a_message(""))

        assert passed is not None
        assert passed.content is None

    @pytest.mark.parametrize("content", ["", "null", "7", '{"item":7}'])
    def test_without_a_type_everything_goes(self, content: str) -> None:
        async def untyped(message):  # type: ignore[no-untyped-def]  # that is the test
            return message

        async def any_content(message: Message[Any]) -> Message[Any]:
            return message

        for handler in (untyped, any_content):
            passed = send(handled_by(handler), a_message(content))

            assert passed is not None
            assert bytes(raw(passed)).decode() == content

    def test_middleware_may_replace_what_the_handler_gets(self) -> None:
        """What has been decoded or set before is the handler's content as it is."""
        seen: list[object] = []

        async def sets(message: Message[Any], next: Next) -> Message[Any] | None:
            message.content = Order("pen")
            return await next(message)

        async def handler(message: Message[Order]) -> None:
            seen.append(message.content)

        pipeline = handled_by(handler)
        pipeline.add_middleware(sets)
        send(pipeline, a_message("7"))

        assert seen == [Order("pen")]


class TestMiddleware:
    """Around all handlers: what was added first is outermost, sees the message first and the outcome last."""

    def test_the_first_is_outermost(self) -> None:
        steps: list[str] = []

        def noting(name: str) -> Callable[[Message[Any], Next], Coroutine[Any, Any, Message[Any] | None]]:
            async def middleware(message: Message[Any], next: Next) -> Message[Any] | None:
                steps.append(f"{name} in")
                result = await next(message)
                steps.append(f"{name} out")
                return result

            return middleware

        async def handler(message: Message[Any]) -> Message[Any]:
            steps.append("handler")
            return message

        pipeline = handled_by(handler)
        pipeline.add_middleware(noting("first"))
        pipeline.add_middleware(noting("second"))
        send(pipeline, a_message())

        assert steps == ["first in", "second in", "handler", "second out", "first out"]

    def test_it_sees_types_without_a_handler(self) -> None:
        seen: list[str] = []

        async def middleware(message: Message[Any], next: Next) -> Message[Any] | None:
            seen.append(message.type)
            return await next(message)

        pipeline = Pipeline()
        pipeline.add_middleware(middleware)
        message = a_message(type="chat")

        assert send(pipeline, message) is message
        assert seen == ["chat"]

    def test_it_can_keep_a_message_from_the_handler(self) -> None:
        calls: list[str] = []

        async def middleware(message: Message[Any], next: Next) -> Message[Any] | None:
            return None

        async def handler(message: Message[Any]) -> Message[Any]:
            calls.append("handler")
            return message

        pipeline = handled_by(handler)
        pipeline.add_middleware(middleware)

        assert send(pipeline, a_message()) is None
        assert calls == []

    def test_it_can_answer_for_a_handler_that_failed(self) -> None:
        async def middleware(message: Message[Any], next: Next) -> Message[Any] | None:
            try:
                return await next(message)
            except LookupError:
                raise Reject("not_found", "no such order") from None

        async def handler(message: Message[Any]) -> None:
            raise LookupError

        pipeline = handled_by(handler)
        pipeline.add_middleware(middleware)
        with pytest.raises(Reject, match="no such order"):
            send(pipeline, a_message())

    def test_it_must_be_async(self) -> None:
        """It calls the next one, which may wait: as a plain function it could not."""

        def middleware(message: Message[Any], next: Next) -> None:
            return None

        with pytest.raises(HubbubError, match="middleware must be `async def`: 'middleware'"):
            Pipeline().add_middleware(middleware)  # type: ignore[arg-type]  # that is the test

    def test_types_that_clients_think_of_take_no_memory(self) -> None:
        async def middleware(message: Message[Any], next: Next) -> Message[Any] | None:
            return await next(message)

        async def handler(message: Message[Any]) -> None:
            return None

        pipeline = handled_by(handler)
        pipeline.add_middleware(middleware)
        for number in range(1000):
            pipeline.chain(f"type-{number}")
        pipeline.chain("order")

        assert list(pipeline._chains) == ["order"]


class TestThreads:
    """Plain functions run in a bounded pool: so many at once, so many waiting, and then `unavailable`."""

    def test_a_plain_handler_runs_in_a_thread(self) -> None:
        where: list[threading.Thread] = []

        def handler(message: Message[Order]) -> Message[Order]:
            where.append(threading.current_thread())
            assert message.content.item == "pen"
            return message

        async def main(threads: Threads) -> Message[Any] | None:
            pipeline = handled_by(handler)
            pipeline.threads = threads
            chain = pipeline.chain("order")
            assert chain is not None
            return await chain(a_message('{"item":"pen"}'))

        passed = with_threads(main)

        assert passed is not None
        assert where[0] is not threading.main_thread()

    def test_what_it_raises_comes_out(self) -> None:
        def fails() -> None:
            raise Reject("sold_out")

        async def main(threads: Threads) -> None:
            with pytest.raises(Reject, match="sold_out"):
                await threads.run(fails)

        with_threads(main)

    def test_a_stop_iteration_is_an_error_like_any_other(self) -> None:
        """`next(…)` of nothing is easily written, and a future cannot carry its `StopIteration`."""

        def fails() -> object:
            return next(iter(()))

        async def main(threads: Threads) -> None:
            with pytest.raises(RuntimeError, match="StopIteration"):
                await threads.run(fails)

        with_threads(main)

    def test_so_many_run_so_many_wait_and_no_more(self) -> None:
        release = threading.Event()

        async def main(threads: Threads) -> list[bool]:
            calls = [asyncio.ensure_future(threads.run(release.wait, PATIENCE)) for _ in range(3)]
            # A turn for each to get as far as the pool.
            await asyncio.sleep(0)
            with pytest.raises(Unavailable, match="queue for blocking handlers is full"):
                await threads.run(release.wait, PATIENCE)
            release.set()
            results = await asyncio.gather(*calls)
            # And there is room again.
            await threads.run(release.wait, PATIENCE)
            return results

        assert with_threads(main, threads=2, queue=1) == [True] * 3

    def test_a_place_is_taken_until_the_thread_is_free(self) -> None:
        """A caller that gives up does not stop the function: its place must not be given away."""
        release = threading.Event()

        async def main(threads: Threads) -> None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await threads.run(release.wait, PATIENCE)
            with pytest.raises(Unavailable):
                await threads.run(release.wait, PATIENCE)
            release.set()
            while threads._taken:
                await asyncio.sleep(0.001)
            await threads.run(release.wait, PATIENCE)

        with_threads(main, threads=1, queue=0)

    def test_an_exception_that_nobody_waits_for_is_not_complained_about(self) -> None:
        """The caller has given up, and was told so: the rest is silence, not a line in a log."""
        release = threading.Event()
        faults: list[dict[str, Any]] = []

        def fails() -> None:
            release.wait(PATIENCE)
            raise LookupError

        async def main(threads: Threads) -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await threads.run(fails)
            release.set()
            while threads._taken:
                await asyncio.sleep(0.001)

        with_threads(main)

        assert faults == []

    def test_closing_waits_for_nobody(self) -> None:
        """What waits is cancelled, what runs ends by itself."""
        release = threading.Event()

        async def main() -> None:
            threads = Threads(1, 1)
            running = asyncio.ensure_future(threads.run(release.wait, PATIENCE))
            waiting = asyncio.ensure_future(threads.run(release.wait, PATIENCE))
            await asyncio.sleep(0)
            threads.close()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            done_before = running.done()
            release.set()

            assert await running is True
            assert not done_before

        asyncio.run(bounded(main()))


@pytest.mark.parametrize(
    ("content", "wanted"),
    [*((content, wanted) for content in ("1e999", "[1, 1e999]") for wanted in (float, Order)), ('"\\ud800"', Any)],
)
def test_content_that_no_decoder_takes_is_invalid(content: str, wanted: Any) -> None:
    """JSON can say numbers that a type here cannot hold, and that is no fault of the server's."""
    pipeline = Pipeline()

    async def handler(message: Message[Any]) -> Message[Any]:
        _ = message.content
        return message

    handler.__annotations__["message"] = Message[wanted]
    pipeline.add_handler("order", handler)
    with pytest.raises(Reject) as refused:
        send(pipeline, a_message(content))

    assert refused.value.code == "invalid_content" and str(refused.value.where).startswith("$")


def test_content_that_is_replaced_is_no_longer_binary() -> None:
    """`binary` says that the content is bytes, whichever codec they came in."""
    for envelope in (Envelope("order", content=Raw(b'"QQ=="'), binary=True), PackedEnvelope("order", content=A)):
        message = Message[Any](envelope, ALICE)
        assert message.binary
        assert message.content == b"A" and message.binary
        message.content = 7

        assert not message.binary


def test_content_of_bytes_goes_on_as_it_came_or_as_bytes() -> None:
    """Only read, it is the sender's own; set, it is bytes for everyone."""
    read = Message[Any](Envelope("order", content=Raw(b'"QQ=="'), binary=True), ALICE)
    _ = read.content
    made = Message[Any](Envelope("order"), ALICE)
    made.content = bytearray(b"A")

    passed, put = envelope_of(read, {"type": "order"}), envelope_of(made, {"type": "order"})

    assert type(passed) is Envelope and passed.binary and bytes(passed.content) == b'"QQ=="'
    assert type(put) is PackedEnvelope and bytes(put.content) == bytes(A)


def test_what_was_sent_in_messagepack_is_read_like_json_and_goes_on_as_it_came() -> None:
    """A handler need not know its sender's codec: models, bytes and numbers of any size are the same."""
    content = {"item": "tea", "lines": [{"price": 3}]}
    packed = Raw(msgspec.msgpack.encode(content))
    pipeline = Pipeline()

    async def handle(message: Message[Order]) -> None: ...

    pipeline.add_handler("order", handle)

    message = Message[Any](PackedEnvelope("order", content=packed), ALICE)
    send(pipeline, message)

    assert message.content == Order("tea", [Line(3)])
    assert bytes(envelope_of(message, {"type": "order"}).content) == bytes(packed)
    message.content.lines[0].price = 4
    assert bytes(envelope_of(message, {"type": "order"}).content) == b'{"item":"tea","lines":[{"price":4}]}'


@pytest.mark.parametrize("text", ["1e999", "[1, -2.5e400]", "9" * 5_000, '{"a": 123456789012345678901234567890}'])
def test_a_number_of_any_size_can_be_read_and_goes_on_as_it_came(text: str) -> None:
    """As a `Decimal` where `int` and `float` do not hold it, and the same when it is sent anew."""
    read = a_message(text)
    _ = read.content
    made = a_message("0")
    made.content = read.content

    assert bytes(envelope_of(read, {"type": "order"}).content).decode() == text
    assert json_number(bytes(envelope_of(made, {"type": "order"}).content)) == json_number(text.encode())


def json_number(text: bytes) -> Any:
    return json.loads(text, parse_int=Decimal, parse_float=Decimal)


@pytest.mark.parametrize("touched", ["read", "changed", "set", "not"])
@pytest.mark.parametrize("wanted", [Order, PydanticOrder])
def test_middleware_that_looks_takes_no_handler_its_type(touched: str, wanted: Any) -> None:
    """What a typed handler gets is of its type, whoever has read, changed or set the content before; or is refused."""

    async def middleware(message: Message[Any], next: Next) -> Message[Any] | None:
        if touched in ("read", "changed"):
            _ = message.content
        if touched == "changed":
            message.content["item"] = message.content["item"][:3]
        if touched == "set":
            message.content = dict(message.content)
        return await next(message)

    seen: list[Any] = []

    async def handler(message: Message[Any]) -> Message[Any]:
        seen.append(message.content)
        return message

    handler.__annotations__["message"] = Message[wanted]
    pipeline = Pipeline()
    pipeline.add_middleware(middleware)
    pipeline.add_handler("order", handler)
    send(pipeline, a_message('{"item":"tea","lines":[]}'))

    assert seen[0].item == "tea" and type(seen[0]) is wanted
    with pytest.raises(Reject) as refused:
        send(pipeline, a_message('{"item":[],"lines":[]}'))
    assert refused.value.code == "invalid_content" and len(seen) == 1


def test_a_handler_of_bytes_gets_bytes_and_nothing_that_only_looks_like_them() -> None:
    pipeline = Pipeline()

    async def handler(message: Message[bytes]) -> Message[bytes]:
        assert message.content == b"A" and message.binary
        return message

    pipeline.add_handler("order", handler)
    for envelope in (Envelope("order", content=Raw(b'"QQ=="'), binary=True), PackedEnvelope("order", content=A)):
        send(pipeline, Message[Any](envelope, ALICE))
    with pytest.raises(Reject) as refused:
        send(pipeline, a_message('"QQ=="'))

    assert refused.value.code == "invalid_content"


@pytest.mark.parametrize("named", [None, ""])
def test_a_hook_may_name_nobody(named: object) -> None:
    assert user_named(named) == ""


@pytest.mark.parametrize("named", [42, "x" * 129, "canary\n", "\ud800", b"canary", ["canary"], False])
def test_a_hook_that_names_what_is_no_name_has_failed(named: object) -> None:
    """A user id goes into channels and to clients; what it was may be a secret, so the error has nothing of it."""
    with pytest.raises(HubbubError) as failed:
        user_named(named)

    assert not isinstance(failed.value, Reject) and "canary" not in str(failed.value)
