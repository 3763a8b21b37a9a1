"""How Hubbub logs: one line per record to standard error, and never a token, a cookie or content."""

from __future__ import annotations

import logging
import sys

__all__ = ["set_up"]


def set_up(level: str, worker: int | None = None) -> None:
    """Log from `level` (debug, info, warning, error) on, to standard error; `worker` says which of several logs.

    Where the application has set up logging itself, its handlers get what Hubbub logs from that level on.
    """
    logging.getLogger("hubbub").setLevel(level.upper())
    root = logging.getLogger()
    if root.handlers:
        return
    mark = "" if worker is None else f"[{worker}] "
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(f"%(asctime)s {mark}%(levelname)s %(name)s: %(message)s"))
    root.addHandler(handler)
    root.setLevel(level.upper())
    # Other libraries' routine is not the operator's business.
    logging.getLogger("asyncio").setLevel(logging.WARNING)
