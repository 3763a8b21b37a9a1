"""Real-time messaging for Python: rooms, users and everyone, over WebSocket, with nothing lost."""

from hubbub.errors import ConfigError, HubbubError, NotJoined, Reject, RoomFull, Unavailable
from hubbub.hub import Credentials, Hub, Message, Next, Session
from hubbub.protocol.codes import CloseCode, ErrorCode

__all__ = [
    "CloseCode",
    "ConfigError",
    "Credentials",
    "ErrorCode",
    "Hub",
    "HubbubError",
    "Message",
    "Next",
    "NotJoined",
    "Reject",
    "RoomFull",
    "Session",
    "Unavailable",
]
