"""The hub: sessions, rooms and users, and your code between them."""

from hubbub.hub.admission import Ticket
from hubbub.hub.hooks import Authenticator, Credentials
from hubbub.hub.hub import Hub, HubStatistics
from hubbub.hub.options import HubOptions
from hubbub.hub.pipeline import Message, Middleware, Next, stuck_threads
from hubbub.hub.receipts import Acknowledgements
from hubbub.hub.session import Session
from hubbub.hub.state import State
from hubbub.transports.base import Handshake, Refuse

__all__ = [
    "Acknowledgements",
    "Authenticator",
    "Credentials",
    "Handshake",
    "Hub",
    "HubOptions",
    "HubStatistics",
    "Message",
    "Middleware",
    "Next",
    "Refuse",
    "Session",
    "State",
    "Ticket",
    "stuck_threads",
]
