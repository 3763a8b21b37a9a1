"""Tokens for tests, put together by hand, also such as no library would make; and an issuer that publishes keys."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from jwt.algorithms import get_default_algorithms

__all__ = [
    "ISSUER",
    "NOW",
    "SECRET",
    "Publisher",
    "claims",
    "jwk",
    "private_key",
    "private_pem",
    "public_pem",
    "publishing",
    "segment",
    "sign",
    "token",
]

NOW = 1_800_000_000.0
"""When the tests happen, in seconds since the Unix epoch."""

SECRET = "correct horse battery staple, 64 times as long as it needs to be"

ISSUER = "https://issuer.test"


def segment(value: object) -> str:
    """One part of a token; bytes as they are, anything else as JSON."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def private_key(algorithm: str, name: str = "") -> Any:
    """A key for the algorithm; another one for another name, the same one for the same."""
    return _private_key(algorithm, name)


@cache
def _private_key(algorithm: str, name: str) -> Any:
    if algorithm in ("RS", "weak"):
        return rsa.generate_private_key(65_537, 2_048 if algorithm == "RS" else 1_024)
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    curves: dict[str, Any] = {
        "ES256": ec.SECP256R1,
        "ES384": ec.SECP384R1,
        "ES512": ec.SECP521R1,
        "ES256K": ec.SECP256K1,
    }
    return ec.generate_private_key(curves[algorithm]())


def family(algorithm: str) -> str:
    """What `private_key` calls the keys of this algorithm: RSA keys are for six."""
    return "RS" if algorithm[:2] in ("RS", "PS") else algorithm


def public_pem(algorithm: str, name: str = "") -> str:
    """The public half of `private_key`."""
    key = private_key(family(algorithm), name).public_key()
    pem: bytes = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem.decode()


def private_pem(algorithm: str) -> str:
    """The private half, which no server should be given."""
    key = private_key(family(algorithm))
    pem: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem.decode()


def jwk(algorithm: str, name: str = "", **more: Any) -> dict[str, Any]:
    """The public half of `private_key` as an issuer publishes it; `more` is put in, and left out where None."""
    made = get_default_algorithms()[algorithm].to_jwk(private_key(family(algorithm), name).public_key(), as_dict=True)
    return {key: value for key, value in (made | more).items() if value is not None}


def sign(text: str, algorithm: str, key: Any) -> bytes:
    """A signature over `text`: HS with any bytes or text, also such as libraries refuse."""
    if algorithm.startswith("HS"):
        secret = key.encode() if isinstance(key, str) else key
        return hmac.new(secret, text.encode(), getattr(hashlib, "sha" + algorithm[2:])).digest()
    return get_default_algorithms()[algorithm].sign(text.encode(), key)


def claims(**more: Any) -> dict[str, Any]:
    """What a good token says at `NOW`; `more` is put in, and left out where None."""
    good = {"sub": "alice", "iat": int(NOW) - 10, "exp": int(NOW) + 3_600}
    return {key: value for key, value in (good | more).items() if value is not None}


def token(
    payload: object = None, *, header: object = None, algorithm: str = "HS256", key: Any = SECRET, **more: Any
) -> str:
    """A token signed with `algorithm` and `key`; `more` are parameters of its header."""
    if header is None:
        header = {"alg": algorithm, "typ": "JWT", **more}
    text = segment(header) + "." + segment(claims() if payload is None else payload)
    return text + "." + segment(sign(text, algorithm, key))


class Publisher:
    """An issuer's HTTP server, in threads of its own: it answers as it is told, and remembers who asked what."""

    def __init__(self, address: str) -> None:
        self.address = address

        # What is answered: a status, headers, a body; bytes that are sent one after the other.
        self.status = 200
        self.headers: dict[str, str] = {}
        self.body: bytes = b'{"keys":[]}'

        # The paths that were asked for.
        self.asked: list[str] = []

        # Requests wait while this is not set.
        self.free = threading.Event()
        self.free.set()

    def publish(self, *keys: dict[str, Any]) -> None:
        """Answer with these keys from now on."""
        self.status, self.headers, self.body = 200, {}, json.dumps({"keys": keys}).encode()


@contextlib.contextmanager
def publishing(*keys: dict[str, Any]) -> Iterator[Publisher]:
    """An issuer that publishes these keys on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            publisher.asked.append(self.path)
            publisher.free.wait(20)
            with contextlib.suppress(OSError):
                self.send_response(publisher.status)
                for name, value in publisher.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(publisher.body)))
                self.end_headers()
                self.wfile.write(publisher.body)

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        publisher = Publisher(f"http://127.0.0.1:{server.server_port}/keys")
        publisher.publish(*keys)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield publisher
        finally:
            publisher.free.set()
            server.shutdown()
            thread.join()
