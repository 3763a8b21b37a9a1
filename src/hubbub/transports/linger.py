"""The end of a connection that is refused: how the peer gets to hear why.

Closing a socket that holds unread bytes resets the connection, and a reset can overtake what was written
before it. So only our own direction is closed, and what still comes is taken off the wire and thrown away,
until the peer hangs up, has been read from often enough, or a deadline of the caller's cuts it.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

__all__ = ["LAST_READS", "Aftermath", "Offender", "finish_sending"]

# How often to go on reading, unlooked at: enough for a peer that means well.
LAST_READS = 64


def finish_sending(transport: asyncio.Transport) -> None:
    """Say that what has been written is all, and make sure that what comes is read."""
    if not transport.can_write_eof():
        # TLS has no such half an end.
        transport.close()
        return
    transport.resume_reading()
    try:
        transport.write_eof()
    except OSError:
        # asyncio's transport says so here if the peer has just gone.
        transport.abort()


class Offender(Protocol):
    """A connection whose peer has broken the rules."""

    @property
    def unheard(self) -> bool:
        """Whether the peer has not been told yet."""

    def abort(self) -> None:
        """Cut it off."""

    def lost(self) -> None:
        """It is gone."""


class Aftermath(asyncio.Protocol):
    """What follows a violation: a few more reads, unlooked at, until the peer hangs up or is cut off."""

    __slots__ = ("_offender", "_reads")

    def __init__(self, offender: Offender) -> None:
        self._offender = offender
        self._reads = 0

    def data_received(self, data: bytes) -> None:
        """Look at nothing."""
        if self._offender.unheard:
            # Over TLS each record of one segment is a read, all in the same turn.
            return
        self._reads += 1
        if self._reads > LAST_READS:
            self._offender.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._offender.lost()
