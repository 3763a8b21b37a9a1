"""What JetStream answers to a message: where it stands now, or why it was not taken."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct

__all__ = ["IN_PROCESS", "TOO_LARGE", "UNKNOWN_ID", "WRONG_LAST", "Ack", "Error", "ack_of"]

IN_PROCESS: Final = 10158
"""Another message with the same id is being stored in this moment, on most of a cluster's servers."""

TOO_LARGE: Final = 10054
"""The stream takes no messages as large as that."""

UNKNOWN_ID: Final = 10070
"""The newest id in the stream is not the one that was expected."""

WRONG_LAST: Final = 10071
"""The newest message of the subject is not the one that was expected."""


class Error(Struct, frozen=True):
    """Why something was not done; `code` as in HTTP."""

    code: int = 0
    err_code: int = 0
    description: str = ""


class Ack(Struct, frozen=True, gc=False):
    """The message stands at `seq`, and did so before where it is a `duplicate`; unless there is an `error`."""

    seq: int = 0
    duplicate: bool = False
    error: Error | None = None


ack_of: Final = msgspec.json.Decoder(Ack).decode
"""Read such an answer."""
