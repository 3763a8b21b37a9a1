"""Handshakes that may be refused for the moment, and those that come by way of a proxy."""

from __future__ import annotations

import json
from typing import Any

from websockets.exceptions import InvalidStatus

from support.client import connect

__all__ = ["behind", "refused"]


def behind(client: str, **headers: str) -> dict[str, Any]:
    """Options of `connect` for a client that a proxy says has this address."""
    return {"headers": {"X-Forwarded-For": client, **headers}}


async def refused(address: str, user: str = "alice", **options: Any) -> tuple[int, int] | None:
    """The status and Retry-After of a handshake, None where it was let in."""
    try:
        async with connect(address, user, **options):
            return None
    except InvalidStatus as error:
        body = json.loads(error.response.body or b"")

        assert body["error"]["code"] == "rate_limited" and body["error"]["message"]
        return error.response.status_code, int(error.response.headers["Retry-After"])
