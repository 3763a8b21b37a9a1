"""What picows is given in place of a socket and of a log: both let nothing through that is not ours to say."""

from __future__ import annotations

import logging
from typing import Final

__all__ = ["LOG", "NO_SOCKET", "Log", "NoSocket"]

_logger = logging.getLogger("hubbub.transports.websocket")


class NoSocket:
    """picows sets options on it, which asyncio has already set."""

    def setsockopt(self, *args: object) -> None:
        """Nothing."""

    def getsockopt(self, *args: object) -> int:
        """Nothing."""
        return 0

    def fileno(self) -> int:
        """There is no file."""
        return -1


class Log:
    """Only what is a fault of ours, since each hostile peer could fill it with its own."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802  # logging's name
        """Not worth the words."""
        return False

    def log(self, *args: object) -> None:
        """Nothing."""

    debug = info = warning = error = log

    def exception(self, message: str, *args: object) -> None:
        """A listener of ours has raised."""
        _logger.exception(message, *args)


NO_SOCKET: Final = NoSocket()
LOG: Final = Log()
