"""Where a handshake may carry its proof, and which counts where several are there (protocol.md §3.1)."""

from __future__ import annotations

import pytest

from hubbub.hub import Credentials
from hubbub.hub.identity import shown_by
from hubbub.protocol.envelope import Auth, Hello
from hubbub.transports.base import Handshake


def a_handshake(
    authorization: str = "", token: str = "", subprotocols: tuple[str, ...] = (), cookie: str = ""
) -> Handshake:
    headers = {"authorization": authorization, "cookie": cookie}
    return Handshake(
        path="/ws",
        query={"token": token} if token else {},
        headers={name: value for name, value in headers.items() if value},
        subprotocols=subprotocols,
        ip="192.0.2.1",
    )


def token_of(handshake: Handshake, cookie: str = "") -> str | None:
    return shown_by(handshake, cookie).token


@pytest.mark.parametrize(
    ("handshake", "token"),
    [
        (a_handshake("Bearer t1"), "t1"),
        (a_handshake("bearer  t1 "), "t1"),
        (a_handshake(token="t2"), "t2"),
        (a_handshake(subprotocols=("hubbub.v1.json", "bearer.t3")), "t3"),
        (a_handshake(subprotocols=("bearer.t.3", "bearer.t4")), "t.3"),
        (a_handshake(), None),
    ],
    ids=["header", "header, spelled freely", "query", "subprotocol", "the first of two", "none"],
)
def test_a_token_is_found(handshake: Handshake, token: str | None) -> None:
    assert token_of(handshake) == token


def test_the_header_counts_before_the_query_and_the_query_before_the_subprotocol() -> None:
    assert token_of(a_handshake("Bearer t1", "t2", ("bearer.t3",))) == "t1"
    assert token_of(a_handshake("", "t2", ("bearer.t3",))) == "t2"


@pytest.mark.parametrize("authorization", ["Basic dXNlcjpwYXNz", "Bearer", "Bearer ", "t1", "Bearer\x00t1"])
def test_what_is_no_bearer_token_is_none(authorization: str) -> None:
    """Another scheme, or a scheme alone: the next place is looked at."""
    assert token_of(a_handshake(authorization)) is None
    assert token_of(a_handshake(authorization, "t2")) == "t2"


def test_an_empty_subprotocol_token_is_none() -> None:
    """`bearer.` carries nothing: in the full way the proof may still follow in `hello`."""
    assert token_of(a_handshake(subprotocols=("hubbub.v1.json", "bearer."))) is None
    assert token_of(a_handshake(subprotocols=("bearer.", "bearer.t3"))) == "t3"


def test_a_cookie_counts_where_the_operator_named_it_and_last() -> None:
    """A browser sends cookies whatever the page wants; and one that nobody named is nobody's token."""
    handshake = a_handshake(cookie="a=1; session=t4; session=t5")

    assert token_of(handshake) is None
    assert token_of(handshake, "session") == "t4"
    assert token_of(handshake, "other") is None
    assert token_of(a_handshake(token="t2", cookie="session=t4"), "session") == "t2"
    assert token_of(a_handshake(subprotocols=("bearer.t3",), cookie="session=t4"), "session") == "t3"


def test_no_secret_is_in_what_ends_up_in_a_log() -> None:
    """Hooks and handlers print what they get, and tracebacks print what functions got."""
    handshake = a_handshake("Bearer canary", "canary", ("bearer.canary",), "sid=canary")

    for shown in (handshake, Credentials("canary", handshake), Hello(token="canary"), Auth(token="canary")):
        assert "canary" not in repr(shown) and "canary" not in f"{[shown]}"
