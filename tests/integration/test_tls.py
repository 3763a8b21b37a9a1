"""TLS on the port: what is spoken, what goes on over it, who cannot hold it up, and certificates that are renewed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import InvalidStatus

from contract.transports.harness import TEXT, frame, handshake
from hubbub.client import connect as hubbub_connect
from hubbub.config import load
from hubbub.errors import ConfigError, ConnectError
from hubbub.server import Server
from hubbub.transports.tls import server_context
from support.certificates import AUTHORITY, Authority
from support.client import connect, open_client
from support.loop import PATIENCE, eventually, run
from support.server import Child, command, get, serving


@pytest.fixture
def pair(tmp_path: Path) -> dict[str, Any]:
    """The options of a server with a good certificate."""
    return AUTHORITY.signs(name="the first").written(tmp_path)


def flags(options: dict[str, str]) -> list[str]:
    return [part for name, value in options.items() for part in ("--" + name.replace("_", "-"), value)]


def place(address: str) -> tuple[str, int]:
    host, _, port = address.partition("://")[2].rpartition(":")
    return host, int(port)


def shake_hands(address: str, context: ssl.SSLContext, server: str = "localhost") -> ssl.SSLSocket:
    """A TLS connection, made in a thread of its own so that the server can answer; raises `ssl.SSLError`."""
    sock = socket.create_connection(place(address), timeout=PATIENCE)
    try:
        return context.wrap_socket(sock, server_hostname=server)
    except BaseException:
        sock.close()
        raise


class TestPair:
    """What cannot be used is said in one sentence, with the remedy, before anything is opened."""

    @pytest.mark.parametrize("given", ["tls_cert", "tls_key"])
    def test_half_a_pair(self, given: str, pair: dict[str, Any]) -> None:
        with pytest.raises(ConfigError, match=f"{given} is set and tls_.* is not: TLS needs both"):
            server_context(load({given: pair[given]}, {}).tls)

    @pytest.mark.parametrize("option", ["tls_cert", "tls_key"])
    def test_a_file_that_is_not_there(self, option: str, pair: dict[str, Any]) -> None:
        options = load({**pair, option: "/nowhere/of.pem"}, {}).tls
        with pytest.raises(ConfigError, match=f"{option}: /nowhere/of.pem cannot be read .No such file"):
            server_context(options)

    @pytest.mark.parametrize(
        ("option", "said"), [("tls_cert", "holds no certificate in PEM"), ("tls_key", "give a private key in PEM")]
    )
    def test_a_file_that_is_something_else(self, option: str, said: str, pair: dict[str, Any]) -> None:
        Path(pair[option]).write_text("nothing of the kind")
        with pytest.raises(ConfigError, match=f"{option}: .*{said}"):
            server_context(load(pair, {}).tls)

    def test_the_key_of_another_certificate(self, pair: dict[str, Any]) -> None:
        Path(pair["tls_key"]).write_bytes(AUTHORITY.signs().key)
        with pytest.raises(ConfigError, match=r"key\.pem is not the key of the certificate in .*cert\.pem"):
            server_context(load(pair, {}).tls)

    def test_a_key_of_another_kind(self, pair: dict[str, Any]) -> None:
        key = rsa.generate_private_key(65537, 2048)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        Path(pair["tls_key"]).write_bytes(pem)
        with pytest.raises(ConfigError, match=r"key\.pem is not the key of the certificate in .*cert\.pem"):
            server_context(load(pair, {}).tls)

    def test_an_encrypted_key_asks_nobody(self, tmp_path: Path) -> None:
        """OpenSSL would ask for the password on the terminal, and wait."""
        pair = AUTHORITY.signs(password=b"secret").written(tmp_path)
        with pytest.raises(ConfigError, match=r"key\.pem is encrypted: give the key without a password"):
            server_context(load(pair, {}).tls)

    @pytest.mark.parametrize(
        ("days", "said"), [((-9.0, -1.0), "expired on .*: renew it"), ((1.0, 9.0), "is not valid before .*: look at")]
    )
    def test_out_of_its_time_it_is_served_all_the_same(
        self, days: tuple[float, float], said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Clients will refuse it, and the log says why; a server that is down would help nobody either."""
        pair = AUTHORITY.signs(days=days).written(tmp_path)

        assert server_context(load(pair, {}).tls) is not None
        [record] = caplog.records
        assert record.levelno == logging.WARNING
        assert re.search(said, record.getMessage())
        caplog.clear()

    def test_serve_says_it_in_a_sentence_and_exits_with_2(self, pair: dict[str, Any]) -> None:
        Path(pair["tls_key"]).write_text("")

        async def main() -> None:
            status, out, errors = await command("serve", "--dev", "--port", "0", *flags(pair))

            assert (status, out) == (2, "")
            assert errors.startswith("hubbub: tls_key: ") and errors.count("\n") == 1

        run(main())


class TestWhatIsSpoken:
    def test_what_the_server_offers(self, pair: dict[str, Any]) -> None:
        """From TLS 1.2 on, with keys that are forgotten and ciphers that authenticate; nothing that has hurt others."""
        context = server_context(load(pair, {}).tls)

        assert context is not None
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2
        assert context.options & ssl.OP_NO_COMPRESSION and context.options & ssl.OP_NO_RENEGOTIATION
        for cipher in context.get_ciphers():
            assert cipher["aead"] and cipher["strength_bits"] >= 128
            assert cipher["protocol"] == "TLSv1.3" or cipher["name"].startswith("ECDHE-")

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    def test_both_versions_are_spoken(self, version: ssl.TLSVersion, pair: dict[str, Any]) -> None:
        async def main() -> None:
            async with serving(**pair) as server:
                context = ssl.create_default_context(cadata=AUTHORITY.pem)
                context.minimum_version = context.maximum_version = version
                context.set_alpn_protocols(["h2", "http/1.1"])
                with await asyncio.to_thread(shake_hands, server.address, context) as sock:
                    cipher = sock.cipher()

                    assert sock.version() == version.name.replace("_", ".")
                    assert cipher is not None and ("GCM" in cipher[0] or "CHACHA20" in cipher[0])
                    assert sock.selected_alpn_protocol() == "http/1.1"
                    assert sock.compression() is None

        run(main())

    @pytest.mark.parametrize("way", ["TLS 1.1", "CBC", "RSA"])
    def test_what_is_weak_is_refused(self, way: str, pair: dict[str, Any]) -> None:
        async def main() -> None:
            async with serving(**pair) as server:
                context = ssl.create_default_context(cadata=AUTHORITY.pem)
                context.maximum_version = ssl.TLSVersion.TLSv1_2
                if way == "TLS 1.1":
                    with pytest.warns(DeprecationWarning, match="TLSv1_1 is deprecated"):
                        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
                    # OpenSSL needs to be talked into it.
                    context.set_ciphers("ALL:@SECLEVEL=0")
                else:
                    context.set_ciphers("ECDHE-ECDSA-AES128-SHA256" if way == "CBC" else "AES128-GCM-SHA256")
                with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
                    await asyncio.to_thread(shake_hands, server.address, context)

        run(main())

    def test_who_forgets_the_s_is_told(self, pair: dict[str, Any]) -> None:
        """In the clear, since that is what they speak: a client and a person alike."""

        async def main() -> None:
            async with serving(**pair) as server:
                answer = await get(server.address.replace("https", "http"), "/")
                with pytest.raises(ConnectError) as refused:
                    async with hubbub_connect(server.address.replace("https", "ws")):
                        pass

                assert answer.status == 400 and "use wss:// or https://" in answer.json()["error"]["message"]
                assert "use wss:// or https://" in str(refused.value)

        run(main())

    def test_the_address_says_what_is_spoken(self, pair: dict[str, Any]) -> None:
        """The line that tells when the server is ready, and what it proposes to type."""

        async def main() -> None:
            async with Child.spawned("--dev", *flags(pair)) as child:
                assert child.address.startswith("https://localhost:")
                assert child.process.stdout is not None
                hints = (await child.process.stdout.readuntil(b"Ctrl+C")).decode()
                assert child.address.replace("https", "wss") + "/ws" in hints and " ws://" not in hints
                assert (await get(child.address, "/ready")).json() == {"status": "ready"}
                assert b"<html" in (await get(child.address, "/")).body

        run(main())


class TestClients:
    def test_our_client_trusts_whom_it_is_told_to(self, pair: dict[str, Any]) -> None:
        async def main() -> None:
            async with serving(**pair) as server:
                address = server.address.replace("https", "wss")
                async with hubbub_connect(f"{address}/ws?user_id=alice", ssl=AUTHORITY.trusted) as alice:
                    async with asyncio.timeout(PATIENCE):
                        accepted = await alice.send("chat", "x" * 50_000)

                    assert accepted.seq == 1

        run(main())

    @pytest.mark.parametrize("way", ["another authority", "another name"])
    def test_our_client_trusts_nobody_else(self, way: str, tmp_path: Path) -> None:
        async def main() -> None:
            authority = Authority() if way == "another authority" else AUTHORITY
            hosts = ["example.com"] if way == "another name" else []
            pair: dict[str, Any] = {**authority.signs(*hosts).written(tmp_path)}
            async with serving(**pair) as server:
                with pytest.raises(ConnectError, match=r"the certificate of localhost:\d+ is not to be trusted"):
                    async with hubbub_connect(server.address.replace("https", "wss"), ssl=AUTHORITY.trusted):
                        pass

        run(main())

    def test_the_command_line_does_too(self, pair: dict[str, Any], tmp_path: Path) -> None:
        """With an authority of one's own by OpenSSL's variable."""

        async def main() -> None:
            trusted = tmp_path / "authority.pem"
            trusted.write_text(AUTHORITY.pem)
            async with serving(**pair) as server, connect(server.address, "bob") as bob:
                await bob.join("lobby")
                outcomes = []
                for variables in ({"SSL_CERT_FILE": str(trusted)}, {}):
                    process = await asyncio.create_subprocess_exec(
                        sys.executable,
                        *("-m", "hubbub", "connect", server.address.replace("https", "wss")),
                        stdin=asyncio.subprocess.PIPE,
                        stdout=asyncio.subprocess.PIPE,
                        stderr=asyncio.subprocess.PIPE,
                        env={**os.environ, **variables},
                    )
                    async with asyncio.timeout(PATIENCE):
                        _, errors = await process.communicate(b"hello\n")
                    outcomes.append((process.returncode, errors.decode()))

                assert outcomes[0] == (0, "")
                assert (await bob.expect("chat"))["content"] == "hello"
                assert outcomes[1][0] == 1 and "not to be trusted" in outcomes[1][1]

        run(main())


class TestRenewal:
    """SIGHUP: the new certificate for new connections, and nobody loses the one they have."""

    @staticmethod
    async def served(child: Child) -> str:
        """The name in the certificate that a new connection gets."""
        with await asyncio.to_thread(shake_hands, child.address, AUTHORITY.trusted) as sock:
            cert = sock.getpeercert()

        assert cert is not None
        [[(_, name)]] = cert["subject"]  # type: ignore[misc, str-unpack]  # typeshed knows no structure of it
        return str(name)

    def test_a_new_pair_is_served_and_old_connections_go_on(self, pair: dict[str, Any], tmp_path: Path) -> None:
        async def main() -> None:
            async with Child.spawned("--dev", *flags(pair)) as child, connect(child.address, "alice") as alice:
                before = await self.served(child)
                AUTHORITY.signs(name="the second").written(tmp_path)
                child.signal(signal.SIGHUP)
                await eventually(lambda: "is served from now on" in child.errors())
                after = await self.served(child)
                await alice.say("still here")

                assert (before, after) == ("the first", "the second")
                assert (await alice.expect("chat"))["content"] == "still here"
                async with connect(child.address, "bob") as bob:
                    await bob.say("here now")
                    assert (await alice.expect("chat", from_="bob"))["content"] == "here now"

        run(main())

    @pytest.mark.parametrize("fault", ["mismatch", "gone"])
    def test_a_pair_that_cannot_be_used_changes_nothing(self, fault: str, pair: dict[str, Any]) -> None:
        """One sentence in the log; the next SIGHUP is another try."""
        key = Path(pair["tls_key"])
        good = key.read_bytes()

        def spoil() -> None:
            if fault == "gone":
                key.unlink()
            else:
                key.write_bytes(AUTHORITY.signs().key)

        def mend() -> None:
            key.write_bytes(good)

        async def main() -> None:
            async with Child.spawned("--dev", *flags(pair)) as child, connect(child.address, "alice") as alice:
                spoil()
                child.signal(signal.SIGHUP)
                await eventually(lambda: "the certificate stays the one before: tls_key" in child.errors())

                assert "Traceback" not in child.errors() and "is served from now on" not in child.errors()
                assert await self.served(child) == "the first"
                await alice.say("me")
                await alice.expect("chat")
                mend()
                child.signal(signal.SIGHUP)
                await eventually(lambda: "is served from now on" in child.errors())
                assert await self.served(child) == "the first"

        run(main())


class TestRequired:
    """`require_tls`: what did not come over TLS is refused, and who watches over the server is not."""

    def test_plain_connections_are_refused_everywhere_but_for_probes(self) -> None:
        async def main() -> None:
            async with serving(require_tls=True, trusted_proxies="10.0.0.0/8") as server:
                for path in ("/ws?user_id=alice", "/echo"):
                    with pytest.raises(InvalidStatus) as refused:
                        await open_websocket(server.address.replace("http", "ws", 1) + path, proxy=None)
                    assert refused.value.response.status_code == 403
                    error = json.loads(refused.value.response.body or b"")["error"]
                    assert error == {"code": "forbidden", "message": OVER_TLS_ONLY}
                for path in ("/", "/web/client.js", "/api/tickets", "/ws", "/nowhere", "/health/x"):
                    # That a proxy which nobody trusts says so counts for nothing.
                    for lines in (["Connection: close"], ["Connection: close", "X-Forwarded-Proto: https"]):
                        answer = await get(server.address, path, *lines)
                        assert (answer.status, answer.json()["error"]["message"]) == (403, OVER_TLS_ONLY)
                for path in ("/health", "/ready", "/metrics"):
                    assert (await get(server.address, path)).status == 200

        run(main())

    def test_a_trusted_proxys_tls_is_tls(self) -> None:
        """By its word, for WebSocket and HTTP alike; without it, or with another, it is plain."""

        async def main() -> None:
            async with serving(require_tls=True, trusted_proxies="127.0.0.1,::1") as server:
                https = {"X-Forwarded-Proto": "https"}
                async with connect(server.address, "alice", headers=https) as alice:
                    await alice.say("me")
                    await alice.expect("chat")

                assert (await get(server.address, "/", "Connection: close", "X-Forwarded-Proto: https")).status == 200
                for scheme in ("http", "http, https", "wss, http"):
                    with pytest.raises(InvalidStatus) as refused:
                        await open_client(server.address, "alice", headers={"X-Forwarded-Proto": scheme})
                    assert refused.value.response.status_code == 403
                    lines = ("Connection: close", f"X-Forwarded-Proto: {scheme}")
                    assert (await get(server.address, "/", *lines)).status == 403

        run(main())

    def test_where_nobody_could_come_in_it_does_not_start(self) -> None:
        async def main() -> None:
            with pytest.raises(ConfigError, match="require_tls lets nobody in: set tls_cert and tls_key, or trusted"):
                async with serving(require_tls=True):
                    pass

        run(main())

    def test_own_tls_is_tls(self, pair: dict[str, Any]) -> None:
        async def main() -> None:
            async with serving(**pair, require_tls=True) as server, connect(server.address, "alice") as alice:
                await alice.say("me")
                await alice.expect("chat")

                assert (await get(server.address, "/")).status == 200

        run(main())


OVER_TLS_ONLY = "this server is reached over TLS only: use wss:// or https://"


@contextlib.contextmanager
def silent(address: str, count: int, first: bytes) -> Iterator[list[socket.socket]]:
    """As many TCP connections, each of which has sent `first` and no more."""
    with contextlib.ExitStack() as stack:
        crowd = []
        for _ in range(count):
            sock = stack.enter_context(socket.create_connection(place(address), timeout=PATIENCE))
            sock.sendall(first)
            crowd.append(sock)
        yield crowd


def client_hello() -> bytes:
    """The first thing that a TLS client says."""
    outgoing = ssl.MemoryBIO()
    tls = AUTHORITY.trusted.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def rest_of(sock: socket.socket) -> bytes:
    """What comes until the server ends it; a reset is an end."""
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while data := sock.recv(65_536):
            got += data
    return got


def all_before_the_end(sock: socket.socket) -> bytes:
    """The same, but a reset is a failure."""
    got = b""
    while data := sock.recv(65_536):
        got += data
    return got


HELLO = client_hello()


class TestStrangers:
    @pytest.mark.parametrize(
        "first",
        [
            pytest.param(b"", id="nothing"),
            pytest.param(HELLO[:20], id="half a hello"),
            pytest.param(HELLO, id="hello, and no more"),
        ],
    )
    def test_a_stalled_handshake_holds_up_nobody(self, first: bytes, pair: dict[str, Any]) -> None:
        """200 of them: others are served, they are gone in time, and there is nothing to be read about it."""

        async def main() -> None:
            async with serving(**pair, handshake_timeout=1) as server, connect(server.address, "alice") as alice:
                port = server._port
                assert port is not None
                with silent(server.address, 200, first) as crowd:
                    await eventually(lambda: port.statistics().waiting == 200)
                    async with connect(server.address, "bob") as bob:
                        await bob.say("in between")
                        await alice.expect("chat", from_="bob")
                        waiting = port.statistics().waiting
                    await eventually(lambda: port.statistics().waiting == 0, patience=5)
                    await asyncio.to_thread(lambda: [rest_of(sock) for sock in crowd])
                    await alice.say("and after")
                    await alice.expect("chat", content="and after")

                    assert waiting > 0
                    assert port.statistics().expired == 200

        run(main())

    def test_strangers_in_their_handshake_are_bounded(self, pair: dict[str, Any]) -> None:
        """They stand at the same gate as those who have shaken hands: the oldest makes room."""

        async def main() -> None:
            async with serving(**pair) as server:
                port = server._port
                assert port is not None
                port.capacity = 10
                with silent(server.address, 30, HELLO):
                    await eventually(lambda: port.statistics().shed == 20)
                    async with connect(server.address, "alice") as alice:
                        await alice.say("me")
                        await alice.expect("chat")

                    assert port.statistics().waiting < 10

        run(main())

    def test_garbage_says_nothing_in_the_log(self, pair: dict[str, Any]) -> None:
        """Any stranger could fill a disk with that."""

        garbage = [b"\0" * 1_000, b"\x16\x03\x01\xff\xff" + b"x" * 500, b"SSH-2.0-x\r\n", HELLO[:-1] + b"\xff" + b"y"]

        async def main() -> None:
            async with Child.spawned("--dev", "--log-level", "debug", *flags(pair)) as child:
                said = child.errors()
                for data in garbage:

                    def knock(data: bytes = data) -> None:
                        with silent(child.address, 100, data) as crowd:
                            for sock in crowd:
                                sock.shutdown(socket.SHUT_WR)
                                rest_of(sock)

                    await asyncio.to_thread(knock)
                async with connect(child.address, "alice") as alice:
                    await alice.say("me")
                    await alice.expect("chat")

                    assert child.errors() == said

        run(main())

    @pytest.mark.parametrize("more", [0, 300_000])
    def test_who_speaks_plainly_can_read_why_not(self, more: int, pair: dict[str, Any]) -> None:
        """Whatever they send besides: no reset overtakes the answer."""

        async def main() -> None:
            async with serving(**pair) as server:

                def post() -> bytes:
                    request = b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n" + b"x" * more
                    with silent(server.address, 1, request) as [sock]:
                        return all_before_the_end(sock)

                answer = await asyncio.to_thread(post)

                assert answer.startswith(b"HTTP/1.1 400 ") and b"This port speaks TLS" in answer

        run(main())

    @pytest.mark.parametrize(
        "plain",
        [b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", handshake("/ws?user_id=eve")],
        ids=["HTTP", "WebSocket"],
    )
    def test_what_is_said_plainly_is_not_listened_to(self, plain: bytes, pair: dict[str, Any]) -> None:
        """Else a whole request behind the one that was refused would pass for one that came over TLS."""

        async def main() -> None:
            async with serving(**pair, handshake_timeout=1) as server:
                port = server._port
                assert port is not None

                def insist() -> bytes:
                    with silent(server.address, 1, b"GET / HTTP/1.1\r\n") as [sock]:
                        got = all_before_the_end(sock)
                        sock.sendall(plain)
                        return got + rest_of(sock)

                answer = await asyncio.to_thread(insist)

                assert answer.count(b"HTTP/1.1 ") == 1
                await eventually(lambda: port.statistics().waiting == 0, patience=5)
                assert port.statistics().accepted == 0 and not server.hub.local_sessions("eve")

        run(main())

    @pytest.mark.parametrize(
        "first",
        [
            pytest.param(b"\x16\x03\x01\x00\x04\x01\x01\xff\xb8", id="announced at once"),
            pytest.param(b"\x16\x03\x01\x00\x01\x01\x16\x03\x01\x00\x03\x01\xff\xb8", id="in two records"),
            pytest.param(b"\x15\x03\x01\x00\x02\x01\x5a\x16\x03\x01\x00\x04\x01\x01\xff\xb8", id="behind an alert"),
        ],
    )
    def test_a_greeting_of_128_kib_is_refused(self, first: bytes, pair: dict[str, Any]) -> None:
        """However it is announced: OpenSSL would reserve that much, and wait for it."""

        async def main() -> None:
            async with serving(**pair) as server:
                port = server._port
                assert port is not None
                with silent(server.address, 1, first) as [sock]:
                    await asyncio.to_thread(rest_of, sock)

                    assert port.statistics().expired == 0

        run(main())

    @pytest.mark.parametrize("step", [1, 4, 100])
    def test_a_greeting_may_come_in_pieces(self, step: int, pair: dict[str, Any]) -> None:
        async def main() -> None:
            async with serving(**pair) as server:

                def dribble() -> bytes:
                    with silent(server.address, 1, b"") as [sock]:
                        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                        for start in range(0, len(HELLO), step):
                            sock.sendall(HELLO[start : start + step])
                        return sock.recv(5)

                answer = await asyncio.to_thread(dribble)

                assert answer.startswith(b"\x16\x03\x03")

        run(main())

    def test_a_broken_frame_is_named_whatever_follows(self, pair: dict[str, Any]) -> None:
        """Also if many records follow at once: they are reads in the very turn in which it is found."""

        async def main() -> None:
            async with serving(**pair) as server:

                def break_it() -> bytes:
                    outgoing, incoming = ssl.MemoryBIO(), ssl.MemoryBIO()
                    tls = AUTHORITY.trusted.wrap_bio(incoming, outgoing, server_hostname="localhost")
                    with silent(server.address, 1, b"") as [sock]:
                        while True:
                            with contextlib.suppress(ssl.SSLWantReadError):
                                tls.do_handshake()
                                break
                            sock.sendall(outgoing.read())
                            incoming.write(sock.recv(65_536))
                        tls.write(handshake("/ws?user_id=alice"))
                        sock.sendall(outgoing.read())
                        got = b""
                        while b"\r\n\r\n" not in got:
                            incoming.write(sock.recv(65_536))
                            with contextlib.suppress(ssl.SSLWantReadError):
                                while data := tls.read(65_536):
                                    got += data
                        # A reserved opcode, then more reads than a violation is followed by.
                        tls.write(b"\x83\x80" + bytes(4))
                        for _ in range(200):
                            tls.write(b"z")
                        sock.sendall(outgoing.read())
                        incoming.write(rest_of(sock))
                        with contextlib.suppress(ssl.SSLError):
                            while data := tls.read(65_536):
                                got += data
                        return got

                assert (await asyncio.to_thread(break_it)).endswith((1002).to_bytes(2) + b"the framing is broken")

        run(main())

    def test_forged_records_end_the_connection(self, pair: dict[str, Any]) -> None:
        """What was said before counts, nothing after it, and nobody else notices."""

        async def main() -> None:
            async with serving(**pair) as server, connect(server.address, "bob") as bob:

                def forge() -> None:
                    with shake_hands(server.address, AUTHORITY.trusted) as tls:
                        tls.sendall(handshake("/ws?user_id=alice"))
                        tls.recv(4_096)
                        tls.sendall(frame(TEXT, b'{"type":"chat","content":"before"}'))
                        with socket.socket(fileno=os.dup(tls.fileno())) as bare:
                            bare.sendall(b"\x17\x03\x03\x00\x40" + b"z" * 64)
                        with contextlib.suppress(ssl.SSLError, ConnectionResetError):
                            while tls.recv(4_096):
                                pass

                await asyncio.to_thread(forge)
                await bob.expect("chat", content="before")
                await eventually(lambda: not server.hub.local_sessions("alice"))

        run(main())


@contextlib.asynccontextmanager
async def stalled(server: Server) -> AsyncIterator[ssl.SSLSocket]:
    """A plain session as bob that reads only when the test does: no event loop reads ahead for it."""

    def open_it() -> ssl.SSLSocket:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        sock.settimeout(PATIENCE)
        sock.connect(place(server.address))
        tls = AUTHORITY.trusted.wrap_socket(sock, server_hostname="localhost")
        tls.sendall(handshake("/ws?user_id=bob"))
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += tls.recv(1)
        return tls

    with await asyncio.to_thread(open_it) as tls:
        await eventually(lambda: server.hub.local_sessions("bob"))
        yield tls


class TestSlowReaders:
    """What holds for the kernel's own socket holds here: nothing hides behind the encryption."""

    @staticmethod
    async def publish(server: Server, count: int) -> None:
        for number in range(count):
            await server.hub.publish("chat", [number, "x" * 1_000])
            await asyncio.sleep(0)

    def test_who_takes_nothing_is_gone_at_the_write_deadline(self, pair: dict[str, Any]) -> None:
        async def main() -> None:
            async with (
                serving(**pair, sndbuf=8_192, write_deadline=0.3, outbox_messages=100_000) as server,
                stalled(server) as bob,
            ):
                await self.publish(server, 100)

                assert server.hub.statistics().blocked == 1
                await eventually(lambda: not server.hub.local_sessions("bob"))
                assert (4000).to_bytes(2) in await asyncio.to_thread(self.all_of, bob)

        run(main())

    @staticmethod
    def all_of(tls: ssl.SSLSocket) -> bytes:
        got = b""
        with contextlib.suppress(ConnectionResetError, ssl.SSLError):
            while data := tls.recv(65_536):
                got += data
        return got

    def test_who_goes_on_reading_stays(self, pair: dict[str, Any]) -> None:
        """However little at a time: what has left the transport is progress."""

        async def main() -> None:
            async with (
                serving(**pair, sndbuf=8_192, write_deadline=0.5, outbox_messages=100_000) as server,
                stalled(server) as bob,
            ):
                await self.publish(server, 80)
                got = b""
                breaths = 0
                while b"[79," not in got:
                    got += await asyncio.to_thread(bob.recv, 4_096)
                    await asyncio.sleep(0.05)
                    breaths += 1

                assert breaths > 15
                assert server.hub.local_sessions("bob") and server.hub.statistics().blocked == 0
                assert [json.loads(message)["content"][0] for message in split(got)] == list(range(80))

        run(main())

    def test_a_drain_lets_out_what_waits(self, pair: dict[str, Any]) -> None:
        """And ends with the close frame, then TLS's goodbye, then the connection."""

        async def main() -> None:
            async with serving(**pair, sndbuf=8_192, close_timeout=20) as server, stalled(server) as bob:
                await self.publish(server, 100)

                assert server.hub.statistics().blocked == 1
                draining = asyncio.ensure_future(server.drain(20))
                await eventually(lambda: server.hub.draining)
                got = await asyncio.to_thread(self.read_to_the_close, bob)
                await draining

                assert len(split(got)) == 100

        run(main())

    @staticmethod
    def read_to_the_close(tls: ssl.SSLSocket) -> bytes:
        got = b""
        while b"\x03\xf4" not in got[-64:]:
            got += tls.recv(65_536)
        # Echoed: then the server ends it, and says so in TLS, or this would raise.
        tls.sendall(frame(0x8, b"\x03\xf4"))
        while data := tls.recv(65_536):
            got += data
        return got


def split(frames: bytes) -> list[bytes]:
    """The payloads of the server's text frames."""
    found = []
    while frames[:1] == b"\x81":
        start, size = 2, frames[1]
        if size == 126:
            start, size = 4, int.from_bytes(frames[2:4])
        found.append(frames[start : start + size])
        frames = frames[start + size :]
    return found


def test_a_large_message_and_many_small_ones(pair: dict[str, Any]) -> None:
    """Both ways, in order, whatever the records make of them."""

    async def main() -> None:
        content = "x" * 60_000
        async with (
            serving(**pair) as server,
            connect(server.address, "alice") as alice,
            connect(server.address, "bob") as bob,
        ):
            await bob.sync()
            await alice.say(content)
            for number in range(500):
                await alice.say(number)

            assert (await bob.expect("chat"))["content"] == content
            assert [(await bob.expect("chat"))["content"] for _ in range(500)] == list(range(500))

    run(main())
