"""The end of a connection that is refused: how the peer gets to hear why.

Closing a socket that holds unread bytes resets the connection, and a reset can overtake what was written
before it. So only our own direction is closed, and what still comes is taken off the wire and thrown away,
until the peer hangs up, has been read from often enough, or a deadline of the caller's cuts it.
"""

from __future__ import annotations

import asyncio

__all__ = ["LAST_READS", "finish_sending"]

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
