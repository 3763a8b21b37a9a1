"""The opening handshake: what is let through, what is refused, and how."""

from __future__ import annotations

import json

import pytest

from hubbub.protocol.deflate import Deflate, Offer
from hubbub.transports.base import Handshake, Refuse
from hubbub.transports.handshake import (
    HEAD_SIZE,
    Head,
    is_hopeless,
    read_handshake,
    read_head,
    refusal,
    switching,
)

KEY = "dGhlIHNhbXBsZSBub25jZQ=="

GOOD = {
    "Host": "chat.example",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
}

FIREFOX = {
    "Host": "localhost:8000",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Accept": "*/*",
    "Accept-Language": "en-US,en;q=0.5",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Sec-WebSocket-Version": "13",
    "Origin": "http://localhost:8000",
    "Sec-WebSocket-Protocol": "hubbub.v1.json, bearer.a.b-c_d",
    "Sec-WebSocket-Extensions": "permessage-deflate",
    "Sec-WebSocket-Key": KEY,
    "DNT": "1",
    "Connection": "keep-alive, Upgrade",
    "Cookie": "session=abc; theme=dark",
    "Sec-Fetch-Dest": "empty",
    "Sec-Fetch-Mode": "websocket",
    "Sec-Fetch-Site": "same-origin",
    "Pragma": "no-cache",
    "Cache-Control": "no-cache",
    "Upgrade": "websocket",
}


def request(
    headers: dict[str, str | None] | None = None,
    *more: str,
    line: str = "GET /ws?user_id=alice HTTP/1.1",
    base: dict[str, str] | None = None,
) -> bytes:
    """A good request's head with some headers changed (None: left out) and lines added."""
    fields: dict[str, str | None] = {**(base or GOOD), **(headers or {})}
    lines = [line, *(f"{name}: {value}" for name, value in fields.items() if value is not None), *more]
    return "\r\n".join(lines).encode("latin-1")


def head_of(data: bytes) -> Head:
    head = read_head(data)
    assert isinstance(head, Head)
    return head


def handshake_of(data: bytes) -> Handshake:
    read = read_handshake(head_of(data), "192.0.2.1")
    assert not isinstance(read, Refuse)
    return read[0]


def refused(data: bytes) -> Refuse:
    head = read_head(data)
    read = head if isinstance(head, Refuse) else read_handshake(head, "192.0.2.1")
    assert isinstance(read, Refuse)
    return read


def test_a_good_handshake_is_understood() -> None:
    handshake = handshake_of(request())

    assert handshake.path == "/ws"
    assert handshake.query == {"user_id": "alice"}
    assert handshake.headers["host"] == "chat.example"
    assert handshake.subprotocols == ()
    assert handshake.ip == "192.0.2.1"
    assert not handshake.secure


def test_firefox_is_let_in() -> None:
    """Its Connection header is a list, `keep-alive, Upgrade`."""
    handshake = handshake_of(request(base=FIREFOX))

    assert handshake.subprotocols == ("hubbub.v1.json", "bearer.a.b-c_d")
    assert handshake.cookies == {"session": "abc", "theme": "dark"}


@pytest.mark.parametrize("value", ["upgrade", "UPGRADE", "close , Upgrade", "Upgrade,keep-alive"])
def test_connection_is_a_list_in_any_case(value: str) -> None:
    assert handshake_of(request({"Connection": value})).path == "/ws"


@pytest.mark.parametrize("value", ["websocket", "WebSocket", "WEBSOCKET"])
def test_upgrade_is_websocket_in_any_case(value: str) -> None:
    assert handshake_of(request({"Upgrade": value})).path == "/ws"


def test_a_header_in_two_lines_is_one_list() -> None:
    """RFC 9110 §5.3: the same as one line with a comma."""
    handshake = handshake_of(request(None, "Sec-WebSocket-Protocol: a", "sec-websocket-protocol: b, c"))

    assert handshake.subprotocols == ("a", "b", "c")


def test_the_first_of_two_query_values_counts() -> None:
    line = "GET /ws?user_id=alice&user_id=bob&empty=&caf%C3%A9=a+b HTTP/1.1"
    handshake = handshake_of(request(line=line))

    assert handshake.query == {"user_id": "alice", "empty": "", "café": "a b"}


@pytest.mark.parametrize(
    "line",
    [
        "GET /ws HTTP/1.0",
        "POST /ws HTTP/1.1",
        "get /ws HTTP/1.1",
        "GET http://chat.example/ws HTTP/1.1",
        "GET * HTTP/1.1",
        "GET /ws HTTP/2.0",
        "GET /ws HTTP/1.2",
        "GET /ws HTTP/11",
        "GET /ws http/1.1",
        "GET  /ws HTTP/1.1",
        "GET /ws  HTTP/1.1",
        "GET /ws HTTP/1.1 ",
        " GET /ws HTTP/1.1",
        "GET /w s HTTP/1.1",
        "GET\t/ws HTTP/1.1",
        "GET /ws",
        "GET /w\xe9 HTTP/1.1",
        "GET /%ff HTTP/1.1",
        "GET /ws?user_id=%ff HTTP/1.1",
        "",
    ],
)
def test_request_lines_that_are_refused(line: str) -> None:
    """Only `GET <path> HTTP/1.1`, exactly."""
    assert refused(request(line=line)).status == 400


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": None},
        {"Connection": None},
        {"Connection": "keep-alive"},
        {"Connection": "upgraded"},
        {"Upgrade": None},
        {"Upgrade": "h2c"},
        {"Upgrade": "websocket, h2c"},
        {"Upgrade": "websocket2"},
        {"Sec-WebSocket-Key": None},
        {"Sec-WebSocket-Key": ""},
        {"Sec-WebSocket-Key": "short"},
        {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ"},
        {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ== "[:-1] + "="},
        {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZTE3"},
        {"Sec-WebSocket-Key": "dGhl IHNhbXBsZSBub25jZQ=="},
        {"Sec-WebSocket-Protocol": "a,,b"},
        {"Sec-WebSocket-Protocol": ""},
        {"Sec-WebSocket-Protocol": "a b"},
        {"Content-Length": "5"},
        {"Content-Length": "-0"},
        {"Content-Length": "00"},
        {"Transfer-Encoding": "chunked"},
        {"Transfer-Encoding": "identity"},
    ],
)
def test_headers_that_are_refused(headers: dict[str, str | None]) -> None:
    """Everything that RFC 6455 §4.2.1 demands, and no body."""
    refuse = refused(request(headers))

    assert (refuse.status, refuse.code) == (400, "bad_message")


@pytest.mark.parametrize("version", [None, "", "0", "7", "8", "12", "14", "013", "13, 8", "١٣"])
def test_only_version_13_is_spoken(version: str | None) -> None:
    """RFC 6455 §4.4: the answer to any other says which one is."""
    data = request({"Sec-WebSocket-Version": version if version is None or version.isascii() else "x"})
    refuse = refused(data)

    assert refuse.status == 426
    assert b"\r\nSec-WebSocket-Version: 13\r\n" in refusal(refuse)


@pytest.mark.parametrize(
    "line",
    [
        "Host: other.example",
        "Upgrade: h2c",
        "Upgrade: websocket",
        f"Sec-WebSocket-Key: {KEY}",
        "sec-websocket-version: 13",
        "Origin: https://a.example\r\nOrigin: https://b.example",
        "Authorization: Bearer a\r\nAuthorization: Bearer b",
        "Content-Length: 0\r\nContent-Length: 0",
    ],
)
def test_what_must_be_single_is_refused_twice(line: str) -> None:
    """Two readers of one request must not be able to disagree about it."""
    assert refused(request(None, line)).status == 400


@pytest.mark.parametrize(
    "line",
    [
        "X: a\x00b",
        "X: a\x01b",
        "X: a\x7fb",
        "X: a\nY: b",
        "X: a\rY: b",
        "X: caf\xe9",
        "X\xe9: a",
        "X: a\r\n folded",
        "X: a\r\n\tfolded",
        "X : a",
        " X: a",
        "X Y: a",
        "X(Y): a",
        ": a",
        "no colon",
        "",
    ],
)
def test_malformed_lines_are_refused(line: str) -> None:
    """NUL and other control characters, bare CR and LF, folding, bytes from 0x80 on, bad names."""
    refuse = refused(request(None, line))

    assert (refuse.status, refuse.code) == (400, "bad_message")


def test_a_body_of_no_bytes_is_none() -> None:
    assert handshake_of(request({"Content-Length": "0"})).path == "/ws"


def test_a_header_may_hold_a_tab() -> None:
    assert handshake_of(request(None, "X:\ta\tb\t")).headers["x"] == "a\tb"


def test_a_head_has_at_most_100_headers() -> None:
    few = [f"X-{number}: a" for number in range(95)]

    assert len(handshake_of(request(None, *few)).headers) == 100
    refuse = refused(request(None, *few, "Y: a"))

    assert (refuse.status, refuse.code) == (431, "too_large")


def test_an_impossible_byte_is_worse_than_too_many_headers() -> None:
    """In pieces it would have been found first, and the answer is the same for the same bytes."""
    assert refused(request(None, *["X: a"] * 200, "Y: a\x00b")).status == 400


def test_a_head_has_a_size() -> None:
    room = HEAD_SIZE - len(request(None, "X: "))

    assert handshake_of(request(None, "X: " + "a" * room)).path == "/ws"
    refuse = refused(request(None, "X: " + "a" * (room + 1)))

    assert (refuse.status, refuse.code) == (431, "too_large")


@pytest.mark.parametrize(
    ("headers", "wants"),
    [
        ({}, True),
        ({"Connection": "close"}, True),
        ({"Upgrade": "h2c, WebSocket"}, True),
        ({"Upgrade": None}, False),
        ({"Upgrade": "h2c"}, False),
    ],
)
def test_who_wants_a_websocket(headers: dict[str, str | None], wants: bool) -> None:
    """Wrong handshakes too: they get an answer that says what is wrong."""
    assert head_of(request(headers)).wants_websocket is wants


def test_old_http_is_read_for_those_that_want_no_websocket() -> None:
    """Some load balancers check health with HTTP/1.0 and without Host."""
    head = head_of(b"OPTIONS /health HTTP/1.0")

    assert (head.method, head.path, head.minor, head.wants_websocket) == ("OPTIONS", "/health", 0, False)


def test_a_path_is_found_in_disguise() -> None:
    assert head_of(b"GET /%77s?x HTTP/1.1").path == "/ws"


def test_hopeless_beginnings_are_seen_at_once() -> None:
    """So that a client that ends its lines with a bare LF is answered, and not left waiting."""
    for part in (b"GET / HTTP/1.1\n", b"\x16\x03\x01", b"G\x00", b"X: \xe9"):
        assert is_hopeless(part, 0)
    for part in (b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: a\r\n", b"GET / HTTP/1.1\r"):
        assert not is_hopeless(part, 0)


def test_a_line_feed_knows_the_byte_before_what_is_new() -> None:
    """A line end may come in two reads."""
    assert not is_hopeless(b"GET / HTTP/1.1\r\n", 15)
    assert is_hopeless(b"GET / HTTP/1.1 \n", 15)


def test_the_answer_proves_knowledge_of_the_key() -> None:
    """The example of RFC 6455 §1.3."""
    response = switching(KEY, None)

    assert response == (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    )


def test_the_answer_names_the_subprotocol() -> None:
    assert b"\r\nSec-WebSocket-Protocol: hubbub.v1.json\r\n" in switching(KEY, "hubbub.v1.json")


def test_extensions_are_read() -> None:
    """In the order of the client, also over several lines."""
    head = head_of(request({"Sec-WebSocket-Extensions": "a; b=1"}, 'sec-websocket-extensions: c; d="2"'))
    read = read_handshake(head, "192.0.2.1")

    assert not isinstance(read, Refuse)
    assert read[2] == [Offer("a", (("b", "1"),)), Offer("c", (("d", "2"),))]


@pytest.mark.parametrize("value", ["permessage-deflate;", "a b", 'a; b="', "@", "permessage-deflate; =", '"a"'])
def test_extensions_that_are_no_list_are_refused(value: str) -> None:
    """RFC 6455 §9.1: also where none would have been taken."""
    assert refused(request({"Sec-WebSocket-Extensions": value})) == Refuse(
        status=400, code="bad_message", message="Sec-WebSocket-Extensions is not a list of extensions."
    )


def test_the_answer_says_what_was_agreed_on() -> None:
    """RFC 7692 §7.1."""
    agreed = b"permessage-deflate; server_no_context_takeover; client_no_context_takeover"

    assert b"\r\nSec-WebSocket-Extensions: " + agreed + b"\r\n\r\n" in switching(KEY, None, Deflate())
    assert b"Sec-WebSocket-Extensions" not in switching(KEY, "hubbub.v1.json")


def test_a_refusal_is_json_and_the_last_word() -> None:
    response = refusal(Refuse(status=429, code="rate_limited", message='too "many"', retry_after=7))
    head, _, body = response.partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
    assert json.loads(body) == {"error": {"code": "rate_limited", "message": 'too "many"'}}
    for line in (b"Content-Type: application/json", b"Connection: close", b"Retry-After: 7"):
        assert line in head.split(b"\r\n")
    assert f"Content-Length: {len(body)}".encode() in head.split(b"\r\n")


def test_unauthorized_says_how() -> None:
    """RFC 9110 §15.5.2."""
    assert b"\r\nWWW-Authenticate: Bearer\r\n" in refusal(Refuse(status=401, code="unauthorized", message="no"))


def test_refusals_repeat_nothing_of_the_request() -> None:
    """What a stranger sends does not come back from us, not even in an error."""
    for data in (
        request(line="CANARY /canary HTTP/9.9"),
        request(None, "CANARY"),
        request({"Sec-WebSocket-Key": "CANARY"}),
        request({"Sec-WebSocket-Version": "CANARY"}),
        request({"Sec-WebSocket-Protocol": "CANARY CANARY"}),
    ):
        assert b"canary" not in refusal(refused(data)).lower()
