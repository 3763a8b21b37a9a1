"""The hub: sessions, rooms and users, and your code between them."""

from hubbub.hub.hooks import Credentials
from hubbub.hub.hub import Hub, HubStatistics
from hubbub.hub.options import HubOptions
from hubbub.hub.pipeline import Message, Middleware, Next, stuck_threads
from hubbub.hub.receipts import Acknowledgements
from hubbub.hub.session import Session, State

__all__ = [
    "Acknowledgements",
    "Credentials",
    "Hub",
    "HubOptions",
    "HubStatistics",
    "Message",
    "Middleware",
    "Next",
    "Session",
    "State",
    "stuck_threads",
]
