"""How messages become a connection's bytes: a codec's encoding in a transport's framing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hubbub.protocol import json, msgpack
from hubbub.protocol.codec import Codec
from hubbub.protocol.envelope import MemberJoined, MemberLeft, Receipt
from hubbub.types import Packed, Publication

__all__ = ["CODECS", "Framed", "subprotocol_of"]


def _codecs() -> dict[str, Codec]:
    found: dict[str, Codec] = {json.NAME: json, msgpack.NAME: msgpack}
    try:
        from hubbub.protocol import protobuf
    except ModuleNotFoundError as error:
        # An extra: where it is not installed, Protobuf is not spoken.
        if error.name not in ("google", "google.protobuf"):
            raise
    else:
        found[protobuf.NAME] = protobuf
    return found


CODECS: Final = _codecs()
"""The codecs by the subprotocols that choose them."""


class Framed:
    """A codec's messages in the frames of one transport; all connections that share both share this object."""

    __slots__ = ("_encode", "_native", "codec", "frame")

    def __init__(self, codec: Codec, frame: Callable[[bytes], bytes]) -> None:
        self.codec = codec
        self._encode = codec.encode
        self._native = codec.NATIVE
        # What makes a whole encoded message into the transport's bytes.
        self.frame = frame

    def encode(self, message: object) -> bytes:
        """One message, encoded and framed."""
        if (type(message) is Publication or type(message) is Packed) and message.type in _signals:
            message = _signals[message.type](message)
        return self.frame(self._encode(message))

    def encoding(self, message: object) -> bytes:
        """A message that is no signal of the hub's own, encoded and not framed."""
        return self._encode(message)

    def native(self, publication: Publication, record: bytes | None) -> bytes | None:
        """The encoding, where the record is that already."""
        return record if type(publication) is self._native else None

    def fit(self, publication: Publication, record: bytes | None, most: int) -> bytes | None:
        """A publication, encoded and framed, where that is at most `most` bytes before it is framed.

        None where it is larger, or where it is so large that finding out would take too long. What the hub tells by
        itself is small, and does not come here.
        """
        encoded = self.native(publication, record)
        if encoded is None:
            if memoryview(publication.content).nbytes > most:
                return None
            encoded = self._encode(publication)
        return self.frame(encoded) if len(encoded) <= most else None

    def encode_publication(self, publication: Publication, encoded: bytes | None) -> bytes:
        """The same for a publication, whose record (`hubbub.core.record`) may be at hand."""
        if encoded is None or type(publication) is not self._native:
            return self.encode(publication)
        return self.frame(encoded)


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
