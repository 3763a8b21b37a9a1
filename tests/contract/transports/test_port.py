"""What the port does with strangers: who is let in, who is refused and how, who is cut off."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging

import pytest

from contract.transports.harness import KEY, PATIENCE, TEXT, Recorder, Run, encryption, frame, handshake, serving
from hubbub.transports.base import Accept, Handshake, Refuse, TransportLimits, Writer
from hubbub.transports.port import bind

HEAD = f"Host: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\n".encode()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        pytest.param(handshake("/nowhere"), 404, id="unknown path"),
        pytest.param(handshake("/ws/"), 404, id="trailing slash"),
        pytest.param(b"GET /ws HTTP/1.1\r\n" + HEAD + b"\r\n", 426, id="no version"),
        pytest.param(b"GET /ws HTTP/1.1\r\n" + HEAD + b"Sec-WebSocket-Version: 8\r\n\r\n", 426, id="version 8"),
        pytest.param(b"POST /ws HTTP/1.1\r\n" + HEAD + b"Sec-WebSocket-Version: 13\r\n\r\n", 400, id="POST"),
        pytest.param(b"GET /ws HTTP/1.0\r\n" + HEAD + b"Sec-WebSocket-Version: 13\r\n\r\n", 400, id="HTTP/1.0"),
        pytest.param(handshake("/ws", "Content-Length: 5"), 400, id="body"),
        pytest.param(handshake("/ws", "X: a\x00b"), 400, id="NUL"),
        pytest.param(handshake("/ws", "X: a\nY: b"), 400, id="bare LF"),
        pytest.param(handshake("/ws", "X: é"), 400, id="not ASCII"),
        pytest.param(handshake("/ws", "X: a", " folded"), 400, id="folded"),
        pytest.param(handshake("/ws", "Host: other"), 400, id="two hosts"),
        pytest.param(handshake("/ws", *["X: a"] * 2_000), 431, id="2000 headers"),
        pytest.param(handshake("/ws", "X: " + "a" * (1 << 20)), 431, id="1 MiB header"),
        pytest.param(b"GET /ws HTTP/1.1\nHost: a\n\n", 400, id="LF for CRLF"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, id="TLS"),
        pytest.param(b"GET / HTTP/3.0\r\n\r\n", 400, id="HTTP/3"),
        pytest.param(b"\r\n\r\n", 400, id="nothing"),
    ],
)
def test_refusals_are_json_and_final(run: Run, data: bytes, status: int) -> None:
    """Each arrives whole, even where the client had not finished sending, and the connection ends."""

    async def main() -> None:
        async with serving() as served:
            client = await served.client()
            client.send(data)
            answer, headers, body = await client.response()

            assert answer == status
            assert headers["content-type"] == "application/json"
            assert headers["connection"] == "close"
            assert headers.get("sec-websocket-version") == ("13" if status == 426 else None)
            error = json.loads(body)["error"]
            assert error["code"] == {404: "not_found", 431: "too_large"}.get(status, "bad_message")
            assert error["message"].endswith(".")
            assert await client.end() == b""
            assert served.port.statistics().refused == 1
            assert served.recorders == []

    run(main())


def test_admit_refuses_with_what_it_likes(run: Run) -> None:
    async def admit(handshake: Handshake) -> Refuse:
        return Refuse(status=503, code="unavailable", message="full", retry_after=7)

    async def main() -> None:
        async with serving(admit=admit) as served:
            client = await served.client()
            client.send(handshake())
            status, headers, body = await client.response()

            assert (status, headers["retry-after"]) == (503, "7")
            assert json.loads(body) == {"error": {"code": "unavailable", "message": "full"}}

    run(main())


def test_admit_hears_what_the_client_said(run: Run) -> None:
    heard: list[Handshake] = []

    async def admit(handshake: Handshake) -> Refuse:
        heard.append(handshake)
        return Refuse(status=403, code="forbidden", message="no")

    async def main() -> None:
        async with serving(admit=admit) as served:
            client = await served.client()
            client.send(handshake("/ws?user_id=al%20ice", "Origin: https://a.example", "Cookie: a=b"))
            await client.response()

    run(main())
    [said] = heard
    secure = bool(encryption)

    assert said.query == {"user_id": "al ice"}
    assert (said.path, said.ip, said.secure) == ("/ws", "127.0.0.1", secure)
    assert said.headers["origin"] == "https://a.example" and said.cookies == {"a": "b"}


def test_an_admit_that_raises_costs_its_client_only(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """500, and a log entry without anything of the request: it may hold a token."""

    async def admit(handshake: Handshake) -> Accept:
        raise ZeroDivisionError

    async def main() -> None:
        async with serving(admit=admit) as served:
            client = await served.client()
            client.send(handshake("/ws?token=SECRET", "Authorization: Bearer SECRET"))
            status, _, body = await client.response()

            assert status == 500
            assert json.loads(body)["error"]["code"] == "internal"

    with caplog.at_level(logging.DEBUG):
        run(main())

    assert "ZeroDivisionError" in caplog.text
    assert "SECRET" not in caplog.text


def test_admit_may_wait(run: Run) -> None:
    """For an authentication elsewhere, say; meanwhile the client may talk on."""

    async def main() -> None:
        asked = asyncio.Event()
        answer = asyncio.Event()
        recorder = Recorder()

        async def admit(handshake: Handshake) -> Accept:
            asked.set()
            await answer.wait()
            return Accept(recorder)

        async with serving(admit=admit) as served:
            client = await served.client()
            client.send(handshake() + frame(TEXT, b"a"))
            await asked.wait()
            await asyncio.sleep(0)
            client.send(frame(TEXT, b"b"))

            assert served.port.statistics().waiting == 1
            answer.set()
            assert (await client.response())[0] == 101
            await recorder.until(lambda: recorder.messages == ["a", "b"])
            assert served.port.statistics().waiting == 0

    run(main())


def test_an_admit_that_waits_too_long_is_cancelled(run: Run) -> None:
    """The handshake's deadline is its deadline too."""

    async def main() -> None:
        asked = asyncio.Event()
        cancelled = asyncio.Event()

        async def admit(handshake: Handshake) -> Accept:
            asked.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()
            raise AssertionError

        async with serving(TransportLimits(handshake_timeout=5), admit=admit) as served:
            client = await served.client()
            client.send(handshake())
            await asked.wait()
            await asyncio.sleep(0)
            served.pass_time(6)
            status, headers, body = await client.response()

            assert (status, headers["retry-after"]) == (503, "1")
            assert json.loads(body)["error"]["code"] == "unavailable"
            await cancelled.wait()

    run(main())


class Greeter(Recorder):
    """A receiver that writes at once, as the hub does with an inbox that waits."""

    def __init__(self) -> None:
        super().__init__()
        # How many bytes left, for each greeting that did.
        self.sent: list[int] = []

    def opened(self, writer: Writer) -> None:
        super().opened(writer)
        self.say(b"hello")
        with contextlib.suppress(OSError):
            self.sent.append(writer.send(b"hello"))


@pytest.mark.parametrize("way", ["leaves", "is too late"])
def test_an_answer_in_spite_of_all_is_not_lost(run: Run, way: str) -> None:
    """A receiver that was handed over is told `opened` and `closed`, or the hub would count it for ever.

    Nothing that it writes may count as sent: an inbox would be acknowledged that nobody has read.
    """

    async def main() -> None:
        asked = asyncio.Event()
        recorder = Greeter()

        async def admit(handshake: Handshake) -> Accept:
            asked.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            return Accept(recorder)

        async with serving(TransportLimits(handshake_timeout=5), admit=admit) as served:
            client = await served.client()
            client.send(handshake())
            await asked.wait()
            await asyncio.sleep(0)
            if way == "leaves":
                [gate] = served.port.gates
                gate.abort()
            else:
                served.pass_time(6)
            await recorder.end()

            assert [event[0] for event in recorder.events] == ["opened", "closed"]
            assert recorder.sent == []
            assert b"101" not in await client.end()

    run(main())


def test_a_client_that_leaves_cancels_its_admit(run: Run) -> None:
    async def main() -> None:
        asked = asyncio.Event()
        cancelled = asyncio.Event()

        async def admit(handshake: Handshake) -> Accept:
            asked.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()
            raise AssertionError

        async with serving(admit=admit) as served:
            client = await served.client()
            client.send(handshake())
            await asked.wait()
            await asyncio.sleep(0)
            [gate] = served.port.gates
            gate.abort()
            async with asyncio.timeout(PATIENCE):
                await cancelled.wait()

            assert served.port.statistics().waiting == 0

    run(main())


@pytest.mark.parametrize("data", [b"", b"G", handshake()[:-1]])
def test_who_says_nothing_in_time_is_cut_off(run: Run, data: bytes) -> None:
    async def main() -> None:
        async with serving(TransportLimits(handshake_timeout=5)) as served:
            client = await served.client()
            async with asyncio.timeout(PATIENCE):
                while not served.port.gates:
                    await asyncio.sleep(0)
            [gate] = served.port.gates
            client.send(data)
            served.pass_time(4)

            assert list(served.port.gates) == [gate]
            served.pass_time(2)
            assert await client.end() == b""
            assert served.port.statistics().expired == 1

    run(main())


def test_who_is_refused_and_stays_is_cut_off(run: Run) -> None:
    """It may read the refusal in peace, and no longer than the handshake would have had."""

    async def main() -> None:
        async with serving(TransportLimits(handshake_timeout=5)) as served:
            client = await served.client()
            client.send(handshake("/nowhere"))
            await client.response()

            assert served.port.statistics().waiting == 1
            served.pass_time(6)
            await client.end()
            while served.port.gates:
                await asyncio.sleep(0)

    run(main())


def test_who_is_refused_and_goes_on_is_cut_off(run: Run) -> None:
    async def main() -> None:
        async with serving() as served:
            client = await served.client()
            client.send(handshake("/nowhere"))
            await client.response()
            await client.flood(b"x" * 60_000)

            assert served.port.statistics().refused == 1

    run(main())


@pytest.mark.parametrize("data", [b"\0", handshake("/nowhere"), handshake()], ids=["bad", "refused", "good"])
def test_who_is_gone_before_the_answer_is_nobodys_fault(run: Run, data: bytes) -> None:
    """The head is there to be read, the connection is not."""

    async def main() -> None:
        async with serving() as served:
            client = await served.client()
            async with asyncio.timeout(PATIENCE):
                while not served.port.gates:
                    await asyncio.sleep(0)
            client.send(data)
            client.reset()
            async with asyncio.timeout(PATIENCE):
                while served.port.gates:
                    await asyncio.sleep(0)

    run(main())


def test_the_oldest_stranger_makes_room(run: Run) -> None:
    """A crowd of silent connections must not keep a talking one out."""

    async def main() -> None:
        async with serving(capacity=3) as served:
            silent = [await served.client() for _ in range(3)]
            async with asyncio.timeout(PATIENCE):
                while len(served.port.gates) < 3:
                    await asyncio.sleep(0)
            await served.join()

            assert await silent[0].end() == b""
            assert served.port.statistics().shed == 1
            assert served.port.statistics().waiting == 2
            assert served.port.statistics().accepted == 1
            silent[1].send(handshake())
            assert (await silent[1].response())[0] == 101

    run(main())


def test_a_connection_costs_no_task(run: Run) -> None:
    """Neither while it waits at the gate nor when it is open."""

    async def main() -> None:
        async with serving() as served:
            # uvloop and asyncio have none of their own; this test is one.
            before = len(asyncio.all_tasks())
            for _ in range(5):
                await served.client()
                await served.join()

            assert len(asyncio.all_tasks()) == before

    run(main())


def test_a_port_that_stops_accepting_finishes_what_has_come(run: Run) -> None:
    async def main() -> None:
        async with serving() as served:
            address = served.port.addresses[0]
            client = await served.client()
            async with asyncio.timeout(PATIENCE):
                while not served.port.gates:
                    await asyncio.sleep(0)
            served.port.stop_accepting()
            # uvloop closes its handles in the next turn.
            await asyncio.sleep(0.01)

            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(*address)
            client.send(handshake())
            assert (await client.response())[0] == 101

    run(main())


def test_closing_a_port_ends_what_waits_in_it(run: Run) -> None:
    async def main() -> None:
        cancelled = asyncio.Event()

        async def admit(handshake: Handshake) -> Accept:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()
            raise AssertionError

        async with serving(admit=admit) as served:
            silent = await served.client()
            waiting = await served.client()
            waiting.send(handshake())
            async with asyncio.timeout(PATIENCE):
                while not served.port.tasks or len(served.port.gates) < 2:
                    await asyncio.sleep(0)
            await asyncio.sleep(0)
            await served.port.close()

            assert cancelled.is_set()
            assert await silent.end() == await waiting.end() == b""

    run(main())


def test_a_port_in_use_is_an_os_error(run: Run) -> None:
    """It is for the server to say it in a sentence."""

    async def main() -> None:
        async with serving() as served, serving() as other:
            _, number = served.port.addresses[0]
            with pytest.raises(OSError, match=r"in use") as caught:
                await other.port.open(await bind("127.0.0.1", number))

            assert caught.value.errno == errno.EADDRINUSE

    run(main())


def test_a_name_with_several_addresses_has_one_number(run: Run) -> None:
    """`--port 0` with a host like localhost: whichever address a client takes, the number is the same."""

    async def main() -> None:
        async with serving() as served:
            served.port.stop_accepting()
            await served.port.open(await bind("", 0))

            assert len({number for _, number in served.port.addresses}) == 1
            await served.join()

    run(main())
