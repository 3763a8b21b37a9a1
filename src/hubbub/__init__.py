"""Real-time messaging for Python: rooms, users and everyone, over WebSocket, with nothing lost."""

from hubbub.errors import AckTimeout, ConfigError, HubbubError, NotJoined, Reject, RoomFull, Unavailable
from hubbub.hub import Acknowledgements, Credentials, Hub, Message, Next, Session
from hubbub.protocol.codes import CloseCode, ErrorCode
from hubbub.types import Acknowledged, Action, Identity, Place

__all__ = [
    "AckTimeout",
    "Acknowledged",
    "Acknowledgements",
    "Action",
    "CloseCode",
    "ConfigError",
    "Credentials",
    "ErrorCode",
    "Hub",
    "HubbubError",
    "Identity",
    "Message",
    "Next",
    "NotJoined",
    "Place",
    "Reject",
    "RoomFull",
    "Session",
    "Unavailable",
]
