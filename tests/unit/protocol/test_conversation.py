"""The state of a client's side: who greets, what is answered, and when it has been wrong too often."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.protocol import json as codec
from hubbub.protocol.codes import RESERVED_FROM_CLIENT, RESERVED_FROM_SERVER, CloseCode, ErrorCode
from hubbub.protocol.conversation import Conversation, Violation, is_name
from hubbub.protocol.envelope import REQUESTS, Envelope, Fault, Hello, Ping, Request

GOOD = '{"type":"chat"}'
BAD = "no JSON"


def a_conversation(*, full: bool = False) -> Conversation:
    return Conversation(codec, full=full)


def an_open_one() -> Conversation:
    conversation = a_conversation(full=True)
    conversation.receive('{"type":"hello"}', 0.0)
    return conversation


class TestGreeting:
    """The full way begins with `hello` and nothing else; the plain way with anything but that."""

    def test_hello_opens_the_full_way(self) -> None:
        conversation = a_conversation(full=True)
        before = conversation.greeted
        event = conversation.receive('{"type":"hello","token":"t"}', 0.0)

        assert isinstance(event, Hello)
        assert event.token == "t"
        assert (before, conversation.greeted) == (False, True)

    def test_after_it_everything_goes(self) -> None:
        conversation = an_open_one()

        assert isinstance(conversation.receive(GOOD, 0.0), Envelope)
        assert isinstance(conversation.receive('{"type":"ping"}', 0.0), Ping)

    @pytest.mark.parametrize(
        "message",
        [
            '{"type":"chat","id":"a1","room":"lobby"}',
            '{"type":"ping","id":"a1"}',
            '{"type":"welcome"}',
            '{"type":"hello","token":7}',
            BAD,
            b"\x00",
        ],
        ids=["message", "request", "server's", "bad hello", "no JSON", "binary"],
    )
    def test_whatever_else_comes_first_ends_it(self, message: str | bytes) -> None:
        """With one `bad_message` and 4500 (protocol.md §3.3), for there is no session to go on with."""
        conversation = a_conversation(full=True)
        event = conversation.receive(message, 0.0)

        assert isinstance(event, Violation)
        assert event.code == CloseCode.PROTOCOL_VIOLATION
        assert event.fault is not None
        assert event.fault.code == ErrorCode.BAD_MESSAGE
        assert not conversation.greeted

    def test_the_error_names_the_message(self) -> None:
        conversation = a_conversation(full=True)
        event = conversation.receive('{"type":"chat","id":"a1","room":"lobby"}', 0.0)

        assert isinstance(event, Violation)
        assert event.fault is not None
        assert (event.fault.id, event.fault.room) == ("a1", "lobby")

    def test_a_plain_one_is_open_from_the_start(self) -> None:
        assert isinstance(a_conversation().receive(GOOD, 0.0), Envelope)

    @pytest.mark.parametrize("conversation", [a_conversation(), an_open_one()], ids=["plain", "full"])
    def test_hello_on_an_open_session_is_a_conflict(self, conversation: Conversation) -> None:
        """No bad message: it costs nothing of the patience for those."""
        events = [conversation.receive('{"type":"hello","id":"h"}', 0.0) for _ in range(20)]

        assert events == [Fault(ErrorCode.CONFLICT, "hello comes once, as the first message", id="h")] * 20


class TestPatience:
    """Nine bad messages within a minute are answered; the tenth is answered, too, and ends the connection."""

    def test_the_tenth_ends_it(self) -> None:
        conversation = a_conversation()
        events = [conversation.receive(BAD, 0.0) for _ in range(10)]

        assert all(isinstance(event, Fault) for event in events[:9])
        assert isinstance(events[9], Violation)
        assert events[9].code == CloseCode.PROTOCOL_VIOLATION
        assert events[9].fault is not None

    def test_good_ones_between_do_not_help(self) -> None:
        conversation = a_conversation()
        events = [conversation.receive(message, 0.0) for message in (BAD, GOOD) * 10]

        assert isinstance(events[18], Violation)

    def test_the_hub_may_find_more_wrong(self) -> None:
        """What only the hub can tell from a good message counts with the rest."""
        conversation = a_conversation()
        for _ in range(8):
            conversation.receive(BAD, 0.0)
        ninth = conversation.wrong(0.0)
        tenth = conversation.wrong(0.0)

        assert (ninth, tenth) == (False, True)

    def test_a_minute_is_60_seconds(self) -> None:
        """The tenth that comes when the first is just 60 seconds ago is the ninth again."""
        conversation = a_conversation()
        for now in (0.0, *[30.0] * 8):
            conversation.receive(BAD, now)

        assert isinstance(conversation.receive(BAD, 60.0), Fault)
        assert isinstance(conversation.receive(BAD, 60.0), Violation)

    @given(st.lists(st.floats(0, 30), min_size=1, max_size=60))
    def test_it_is_ten_in_any_minute(self, pauses: list[float]) -> None:
        """However they are spread: exactly when ten lie less than a minute apart."""
        conversation = a_conversation()
        now, times = 0.0, list[float]()
        for pause in pauses:
            now += pause
            times.append(now)
            event = conversation.receive(BAD, now)
            too_many = len(times) >= 10 and times[-10] > now - 60.0

            assert isinstance(event, Violation) is too_many
            if too_many:
                break


@pytest.mark.parametrize("type", sorted(RESERVED_FROM_SERVER - RESERVED_FROM_CLIENT))
def test_what_the_server_says_is_not_for_clients(type: str) -> None:
    event = a_conversation().receive(json.dumps({"type": type}), 0.0)

    assert isinstance(event, Fault)
    assert event.code == ErrorCode.BAD_MESSAGE


# The least of each request: what its type requires.
LEAST: dict[str, dict[str, Any]] = {
    "hello": {},
    "auth": {"token": "t"},
    "ping": {},
    "pong": {},
    "join": {"room": "lobby"},
    "leave": {"room": "lobby"},
    "ack": {"seq": 1},
    "history": {},
    "presence": {"room": "lobby"},
    "users": {"ids": []},
    "chunk": {"id": "t1", "index": 0, "total": 1, "data": "e30="},
}


@pytest.mark.parametrize("type", REQUESTS)
def test_every_reserved_type_of_a_client_is_known(type: str) -> None:
    """With what it requires it is a request of its own kind; without any part of that it is a bad message."""
    message = {"type": type, **LEAST[type]}
    event = a_conversation(full=type == "hello").receive(json.dumps(message), 0.0)

    assert isinstance(event, Request)
    assert type in RESERVED_FROM_CLIENT
    assert REQUESTS[type] is event.__class__
    for required in LEAST[type]:
        without = {key: value for key, value in message.items() if key != required}
        refused = a_conversation().receive(json.dumps(without), 0.0)

        assert isinstance(refused, Fault)


@given(st.text() | st.binary())
def test_nothing_raises(message: str | bytes) -> None:
    """Whatever comes is an event: who reads the socket has no exception to catch."""
    for full in (False, True):
        event = a_conversation(full=full).receive(message, 0.0)

        assert isinstance(event, Envelope | Request | Fault | Violation)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
FIELDS = ["to", "room", "content", "id", "receipt", "echo", "volatile", "binary", "token", "client", "resume"]
FIELDS += ["since", "last", "seq", "before", "after", "limit", "ids", "from", "time", "prev", "__class__"]


@given(
    type=st.sampled_from([*REQUESTS, "chat", "", "webrtc-ice"]), fields=st.dictionaries(st.sampled_from(FIELDS), JSON)
)
def test_no_type_of_value_in_any_field_raises(type: str, fields: dict[str, Any]) -> None:
    """Type confusion: each field with each kind of value is an event, and what is refused says no more than why."""
    message = json.dumps({"type": type, **fields})
    event = a_conversation().receive(message, 0.0)

    assert isinstance(event, Envelope | Request | Fault)
    if isinstance(event, Fault):
        assert event.code in (ErrorCode.BAD_MESSAGE, ErrorCode.CONFLICT)


@pytest.mark.parametrize("field", ["id", "room", "to"])
@pytest.mark.parametrize("type", [*REQUESTS, "chat"])
def test_the_names_in_a_message_are_checked_whatever_its_type(type: str, field: str) -> None:
    """Also where the type makes no use of the field (protocol.md §1.1): a control character is no part of a name."""
    message = json.dumps({"type": type, **LEAST.get(type, {}), field: "a\x00"})
    event = a_conversation().receive(message, 0.0)

    assert isinstance(event, Fault)
    assert (event.code, event.message) == (ErrorCode.BAD_MESSAGE, f"`{field}` contains a control character")


@pytest.mark.parametrize("value", ["a", "ålice 😀/?&=", "x" * 128, "\xa0"])
def test_a_name(value: str) -> None:
    assert is_name(value)


@pytest.mark.parametrize("value", ["", "x" * 129, "a\n", "\x9f", "\ud800", None, 7, b"a", ["a"]])
def test_what_is_no_name(value: object) -> None:
    """Nothing, too long, a control character, no Unicode, no string."""
    assert not is_name(value)
