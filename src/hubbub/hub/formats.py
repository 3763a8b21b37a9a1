"""How messages become a connection's bytes: a codec's encoding in a transport's framing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hubbub.protocol import json
from hubbub.protocol.envelope import MemberJoined, MemberLeft, Receipt
from hubbub.types import Publication

__all__ = ["CODECS", "FramedJson", "subprotocol_of"]

_encode = json.encode

CODECS: Final = (json.NAME,)
"""The subprotocols that choose a codec, in the server's order of preference."""


class FramedJson:
    """JSON text in the frames of one transport; all connections of that transport share this object."""

    __slots__ = ("_frame",)

    def __init__(self, frame: Callable[[bytes], bytes]) -> None:
        self._frame = frame

    def encode(self, message: object) -> bytes:
        """One message, encoded and framed."""
        if type(message) is Publication and message.type in _signals:
            message = _signals[message.type](message)
        return self._frame(_encode(message))

    def encode_publication(self, publication: Publication, encoded: bytes | None) -> bytes:
        """The same for a publication, which may be at hand as JSON already."""
        return self.encode(publication) if encoded is None else self._frame(encoded)


# What the hub tells through channels without being a message of the application: it travels between nodes
# as a publication, and on the wire it has a shape of its own.
_signals: dict[str, Callable[[Publication], object]] = {
    "receipt": lambda told: Receipt(told.id or "", told.from_, told.time or 0),
    "member-joined": lambda told: MemberJoined(told.room or "", told.from_),
    "member-left": lambda told: MemberLeft(told.room or "", told.from_),
}


def subprotocol_of(offered: tuple[str, ...]) -> str | None:
    """The codec to use for what a client offered, or None when it offered none that is known."""
    return next((name for name in offered if name in CODECS), None)
