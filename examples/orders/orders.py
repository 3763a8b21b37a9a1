"""A shop: orders are checked and priced on their way, and whoever may hear of them does."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from hubbub import ErrorCode, Hub, Message, Reject

hub = Hub()

PRICES = {"tea": 3, "coffee": 4}


class Order(Struct):
    """What a customer sends: content that is anything else never reaches the handler."""

    item: str
    count: Annotated[int, Meta(ge=1, le=100)] = 1


class Sale(Struct):
    """What the shop and the customer get."""

    customer: str
    item: str
    count: int
    price: int


@hub.on("order")
async def take(message: Message[Order]) -> None:
    """Price an order, and tell the shop and the customer; the order itself goes no further."""
    order = message.content
    if order.item not in PRICES:
        raise Reject(ErrorCode.NOT_FOUND, f"We have no {order.item}.")
    sale = Sale(message.from_, order.item, order.count, order.count * PRICES[order.item])
    # Both wait in the inbox of who is away. With the order's id, one that is sent again changes nothing.
    await hub.send_to("shop", "sale", sale, from_=message.from_, id=message.id)
    await hub.send_to(message.from_, "sale", sale, from_="shop", id=message.id)
