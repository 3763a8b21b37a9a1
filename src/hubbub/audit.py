"""Who came, who was refused and why: one record for each such event, for whoever has to find out afterwards.

Records go to the logger `hubbub.audit`. The message is one line of JSON in ASCII, so nothing in it that a client chose
can look like another record; the same fields are on the record as `audit`, for handlers that want them apart. Never a
token, a cookie or content.
"""

from __future__ import annotations

import json
import logging

__all__ = ["record"]

_logger = logging.getLogger("hubbub.audit")


def record(event: str, **fields: str | int | float | None) -> None:
    """Record an event; fields that are None are left out."""
    if _logger.isEnabledFor(logging.INFO):
        said = {"event": event, **{name: value for name, value in fields.items() if value is not None}}
        # ASCII: U+2028 and its like end a line for some who read logs.
        line = json.dumps(said, separators=(",", ":"))
        # Not `info`: who called is always the same, and finding it out costs as much as the rest.
        _logger.handle(_logger.makeRecord(_logger.name, logging.INFO, "", 0, line, (), None, event, {"audit": said}))
