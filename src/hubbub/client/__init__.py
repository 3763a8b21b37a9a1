"""The Python client: connect, join, send, and come back after a cut."""

from hubbub.client.client import Client, Token, connect
from hubbub.client.events import (
    Dropped,
    Missed,
    Reason,
    Recovered,
    RoomLeft,
    State,
    StateChange,
    Unanswered,
)
from hubbub.client.wire import Ack, History, Message

__all__ = [
    "Ack",
    "Client",
    "Dropped",
    "History",
    "Message",
    "Missed",
    "Reason",
    "Recovered",
    "RoomLeft",
    "State",
    "StateChange",
    "Token",
    "Unanswered",
    "connect",
]
