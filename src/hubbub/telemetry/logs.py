"""How Hubbub logs: one line per record to standard error, and never a token, a cookie or content."""

from __future__ import annotations

import logging
import sys

__all__ = ["set_up"]


def set_up(level: str) -> None:
    """Log from `level` (debug, info, warning, error) on, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # Other libraries' routine is not the operator's business.
    logging.getLogger("asyncio").setLevel(logging.WARNING)
