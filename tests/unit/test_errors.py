"""The tree of errors is as its docstring draws it, and what a client gets is all there."""

from __future__ import annotations

import pytest

from hubbub import errors
from hubbub.errors import AckTimeout, ConfigError, ConnectError, HubbubError, NotJoined, Reject, RoomFull, Unavailable
from hubbub.protocol.codes import RETRYABLE, ErrorCode


def test_the_tree_is_as_drawn() -> None:
    """Every class is in the drawing of the module's docstring, below its base."""
    assert errors.__doc__ is not None
    drawing = [line for line in errors.__doc__.splitlines() if "HubbubError" in line or "──" in line]
    path: list[str] = []
    drawn: dict[str, str | None] = {}
    for line in drawing[1:] if "HubbubError`" in drawing[0] else drawing:
        name = line.strip("│├└─ ").split()[0]
        depth = line.index(name) // 4
        path[depth:] = [name]
        drawn[name] = path[depth - 1] if depth else None
    real = {name: getattr(errors, name).__bases__[0].__name__ for name in errors.__all__}
    real["HubbubError"] = None

    assert drawn == real


def test_one_except_catches_all() -> None:
    assert all(issubclass(getattr(errors, name), HubbubError) for name in errors.__all__)


@pytest.mark.parametrize(
    ("error", "code"),
    [(NotJoined(), ErrorCode.NOT_JOINED), (RoomFull(), ErrorCode.ROOM_FULL), (Unavailable(), ErrorCode.UNAVAILABLE)],
    ids=["NotJoined", "RoomFull", "Unavailable"],
)
def test_a_refusal_carries_the_code_that_the_client_gets(error: Reject, code: ErrorCode) -> None:
    assert error.code == code
    assert error.message


def test_only_unavailable_says_when_to_come_again() -> None:
    """With `unavailable` the protocol promises `retry_after`."""
    assert Unavailable().retry_after is not None
    assert Unavailable(retry_after=7).retry_after == 7
    assert ErrorCode.UNAVAILABLE in RETRYABLE


def test_a_code_may_be_a_word_of_the_applications_own() -> None:
    assert Reject("sold_out").code == "sold_out"
    assert type(Reject(ErrorCode.FORBIDDEN).code) is str


def test_it_reads_well_in_a_log() -> None:
    assert str(Reject("sold_out", "none left")) == "sold_out: none left"
    assert str(Reject("sold_out")) == "sold_out"
    assert str(ConfigError("port must be a number")) == "port must be a number"


def test_a_connect_error_says_whether_trying_again_can_help() -> None:
    assert ConnectError("refused").final is False
    assert ConnectError("forbidden", final=True).final is True


def test_an_ack_timeout_says_where_the_message_is() -> None:
    """It is a timeout to whoever knows only those, and says whether the message is in the inbox."""
    stored, unknown = AckTimeout("bob", "o1", "k3", 7), AckTimeout("bob", "o2")

    assert isinstance(stored, TimeoutError)
    assert (stored.user, stored.id, stored.epoch, stored.seq) == ("bob", "o1", "k3", 7)
    assert str(stored) == "bob has not acknowledged the message o1 in time: it stays in the inbox"
    assert (unknown.epoch, unknown.seq) == (None, None)
    assert "not accepted it yet" in str(unknown)
