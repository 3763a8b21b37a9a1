"""Who may come in: a hook that knows some tokens. Yours would ask a database, or another service."""

from __future__ import annotations

import hmac

from hubbub import Credentials, Hub

hub = Hub()

# For trying out only: real ones are long, random, and not in the code.
TOKENS = {"token-of-alice": "alice", "token-of-bob": "bob"}


@hub.authenticate
async def who(credentials: Credentials) -> str | None:
    """The user whose token this is; None lets nobody in."""
    shown = (credentials.token or "").encode()
    # A comparison that takes as long for a wrong token as for a right one says nothing about the right one.
    return next((user for token, user in TOKENS.items() if hmac.compare_digest(token.encode(), shown)), None)
