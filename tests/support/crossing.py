"""A message on its way through the server's codecs, without the server."""

from __future__ import annotations

from hubbub.core import record
from hubbub.protocol import json, msgpack, protobuf
from hubbub.protocol.codec import Codec
from hubbub.protocol.conversation import Conversation, Violation
from hubbub.protocol.envelope import Envelope, Fault, Request

__all__ = ["OURS", "received", "told"]

OURS: dict[str, Codec] = {"json": json, "msgpack": msgpack, "protobuf": protobuf}
"""The codecs of the server, by name."""


def received(name: str, message: str | bytes) -> Envelope | Request | Fault:
    """What the server makes of a message in the codec `name`; a `hello` is the first of its session."""
    codec = OURS[name]
    event = Conversation(codec, full=False).receive(message, now=0.0)
    if isinstance(event, Fault) and event.code == "conflict":
        event = Conversation(codec, full=True).receive(message, now=0.0)

    assert not isinstance(event, Violation)
    return event


def told(name: str, message: str | bytes) -> dict[str, bytes]:
    """What the receivers of each codec get, by codec, when a client of the codec `name` sends `message`."""
    event = received(name, message)

    assert isinstance(event, Envelope), event
    published = event.published(
        event.type, "alice", content=event.content, binary=event.binary, id=event.id, seq=1, time=2
    )
    # As an engine keeps it, and tells it.
    kept = record.decode(record.encode(published))
    found = {receiver: codec.encode(kept) for receiver, codec in OURS.items()}
    for receiver, codec in OURS.items():
        # It is sent as it is kept.
        assert codec.NATIVE is not type(kept) or found[receiver] == record.encode(published)
    return found
