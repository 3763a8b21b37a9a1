"""Every case of the specification's vectors, through the codec and the conversation (spec/vectors/README.md)."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any

import pytest
from msgspec import Raw

from hubbub.protocol import json as codec
from hubbub.protocol.conversation import Conversation, Violation
from hubbub.protocol.envelope import Fault
from hubbub.types import Publication
from support.vectors import cases, joined, match, understood


@pytest.mark.parametrize("case", cases("envelopes.json", "cases"))
def test_a_message_means_what_the_specification_says(case: Mapping[str, Any]) -> None:
    """It is accepted with these fields, or refused with this code and reference."""
    text = joined(case["text"])
    event = Conversation(codec, full=_is_hello(text)).receive(text, now=0.0)
    if isinstance(event, Violation):
        assert event.fault is not None
        event = event.fault
    if isinstance(event, Fault):
        told = {"code": str(event.code), "id": event.id, "room": event.room}
        match(case.get("error"), {key: value for key, value in told.items() if value is not None})
    else:
        fields = understood(event)
        content = fields.pop("content", None)
        if "content_text" in case:
            assert content == joined(case["content_text"]).encode()
        elif content is not None:
            fields["content"] = json.loads(content)
        match(case.get("accept"), fields)


@pytest.mark.parametrize("case", cases("publications.json", "cases"))
def test_a_publication_looks_as_the_specification_says(case: Mapping[str, Any]) -> None:
    """Its receivers get these members and no other, and the content as it was sent."""
    fields = dict(case["publication"])
    content = fields.pop("content_text", None)
    # Instructions to the server, which a publication never holds.
    for instruction in ("echo", "volatile"):
        fields.pop(instruction, None)
    if "prev" in fields and fields["prev"] == fields["seq"] - 1:
        # An engine says `prev` only where it is a jump.
        del fields["prev"]
    publication = Publication(fields.pop("type"), fields.pop("from", ""), **fields)
    if content is not None:
        publication.content = Raw(content.encode())
    encoded = codec.encode(publication).decode()
    if "json" in case:
        match(case["json"], json.loads(encoded))
    if "contains" in case:
        assert case["contains"] in encoded


def _is_hello(text: str) -> bool:
    """A `hello` is judged as the first message of a full session, all else on an open one."""
    with contextlib.suppress(ValueError, RecursionError):
        message = json.loads(text)
        return isinstance(message, dict) and message.get("type") == "hello"
    return False
