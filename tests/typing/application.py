"""A program as its author writes it: `mypy --strict` must know every type in it without a cast or an ignore."""

from __future__ import annotations

from typing import Any, assert_type

from msgspec import Struct
from pydantic import BaseModel

from hubbub import (
    Acknowledged,
    Acknowledgements,
    AckTimeout,
    Credentials,
    Hub,
    Message,
    Next,
    NotJoined,
    Place,
    Reject,
    RoomFull,
    Session,
    Unavailable,
)
from hubbub.engines.base import Accepted
from hubbub.protocol.envelope import Member


class Order(Struct):
    """What a shop is asked for."""

    item: str
    count: int = 1


class Rating(BaseModel):
    """What a customer says afterwards."""

    stars: int


hub = Hub()

hub.room("order:*", history_size=100, history_age=3600, overflow="latest")
hub.room("shop", capacity=50, presence_events=True, volatile=False)

# What the hooks saw, in order.
seen: list[str] = []


@hub.authenticate
async def who(credentials: Credentials) -> str | None:
    """Tokens are names here."""
    assert_type(credentials.token, str | None)
    return credentials.token


@hub.on("order")
async def order(message: Message[Order]) -> Message[Order] | None:
    """Typed content, changed on its way."""
    assert_type(message.content, Order)
    assert_type(message.content.count, int)
    assert_type(message.from_, str)
    assert_type(message.room, str | None)
    if message.content.count < 1:
        raise Reject("invalid_content", "order at least one", where="$.count")
    message.content = Order(message.content.item.lower(), message.content.count)
    return message


@hub.on("rating")
def rating(message: Message[Rating]) -> Message[Rating]:
    """A plain function runs in a thread, and a pydantic model is as good."""
    assert_type(message.content, Rating)
    assert_type(message.content.stars, int)
    return message


@hub.on("note")
async def note(message: Message[Any]) -> None:
    """Kept: nothing goes on."""
    seen.append(f"note from {message.session.user} in {sorted(message.session.rooms)}")


@hub.middleware
async def timing(message: Message[Any], next: Next) -> Message[Any] | None:
    """Around all handlers."""
    result = await next(message)
    assert_type(result, Message[Any] | None)
    return result


@hub.on_connect
async def connected(session: Session) -> None:
    """Before a session opens."""
    assert_type(session.user, str)
    seen.append(f"{session.user} came")


@hub.on_disconnect
def disconnected(session: Session) -> None:
    """After it has ended."""
    seen.append(f"{session.user} went")


@hub.on_join
async def joined(session: Session, room: str) -> None:
    """Before it gets in."""
    if room == "staff":
        raise NotJoined("staff only")


@hub.on_leave
def left(session: Session, room: str) -> None:
    """After it has left."""


@hub.on_online
async def came(user: str) -> None:
    """With the first of the user's sessions."""


@hub.on_offline
def went(user: str, last_seen: int) -> None:
    """After the last."""
    seen.append(f"{user} was last seen at {last_seen}")


async def closing_time(reason: str) -> int:
    """Everything that a program asks of a running hub."""
    accepted = await hub.publish("closing", {"reason": reason}, room="shop", id="closing-1")
    assert_type(accepted, Accepted)
    assert_type(accepted.seq, int | None)
    await hub.publish("closing", Order("nothing"))
    await hub.send_to("alice", "bill", Rating(stars=5), volatile=True)
    paid = await hub.send_with_ack("alice", "receipt-please", Order("bill"), timeout=5)
    assert_type(paid, Acknowledged)
    assert_type(paid.time, int | None)
    told = await hub.send_with_ack(["alice", "nobody"], "closing", timeout=0.05, id="closing-2")
    assert_type(told, Acknowledgements)
    assert_type(told.acknowledged, dict[str, Acknowledged])
    assert_type(told.missing, tuple[str, ...])
    assert_type(told.unavailable, dict[str, Unavailable])
    assert_type(await hub.send_with_ack({user for user in told.missing if user != "nobody"}, "x"), Acknowledgements)
    members = await hub.members("shop")
    assert_type(members, list[Member])
    sessions = hub.local_sessions("alice")
    assert_type(sessions, list[Session])
    assert_type(await hub.sessions("alice"), list[Place])
    ended = await hub.disconnect("alice", "closed") + await hub.kick("bob", "shop")
    assert_type(ended, int)
    assert_type(hub.statistics().connections, int)
    return ended + len(members) + len(sessions)


def may_fail(error: Exception) -> float | None:
    """Errors carry what a program needs to decide."""
    if isinstance(error, AckTimeout):
        assert_type(error.id, str)
        assert_type(error.seq, int | None)
    if isinstance(error, Unavailable | RoomFull):
        return error.retry_after
    return None


# What the decorators return is the function that they got: it can be called in a test as it is.


async def call_directly(message: Message[Order]) -> Message[Order] | None:
    """As a unit test of the program would."""
    result = await order(message)
    assert_type(result, Message[Order] | None)
    return result
