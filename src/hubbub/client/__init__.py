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
from hubbub.client.socket import Refused
from hubbub.client.wire import Ack, History, Left, Message
from hubbub.protocol.envelope import Fault, Joined, MemberJoined, MemberLeft, PresenceList, Receipt, UsersOnline

__all__ = [
    "Ack",
    "Client",
    "Dropped",
    "Fault",
    "History",
    "Joined",
    "Left",
    "MemberJoined",
    "MemberLeft",
    "Message",
    "Missed",
    "PresenceList",
    "Reason",
    "Receipt",
    "Recovered",
    "Refused",
    "RoomLeft",
    "State",
    "StateChange",
    "Token",
    "Unanswered",
    "UsersOnline",
    "connect",
]
