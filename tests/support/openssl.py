"""What Python's `ssl` cannot do as a client: new keys at will, by OpenSSL itself."""

from __future__ import annotations

import ctypes
import ctypes.util
import socket
from functools import cache
from typing import Any

import pytest

__all__ = ["Renewing"]

_TLS_1_3 = 0x0304
_SET_MIN_PROTO_VERSION = 123


@cache
def libraries() -> tuple[Any, Any]:
    names = ctypes.util.find_library("ssl"), ctypes.util.find_library("crypto")
    if not all(names):
        pytest.skip("there is no OpenSSL here that ctypes could load")
    ssl, crypto = (ctypes.CDLL(name) for name in names)
    for function in (ssl.TLS_client_method, ssl.SSL_CTX_new, ssl.SSL_new, crypto.BIO_new, crypto.BIO_s_mem):
        function.restype = ctypes.c_void_p
    return ssl, crypto


class Renewing:
    """A TLS 1.3 client over a blocking socket that trusts everybody."""

    def __init__(self, address: tuple[str, int], timeout: float) -> None:
        self._ssl, self._crypto = libraries()
        ssl, crypto, pointer = self._ssl, self._crypto, ctypes.c_void_p
        context = pointer(ssl.SSL_CTX_new(pointer(ssl.TLS_client_method())))
        ssl.SSL_CTX_ctrl(context, _SET_MIN_PROTO_VERSION, ctypes.c_long(_TLS_1_3), None)
        self._session = pointer(ssl.SSL_new(context))
        ssl.SSL_CTX_free(context)
        self._incoming, self._outgoing = (pointer(crypto.BIO_new(pointer(crypto.BIO_s_mem()))) for _ in range(2))
        ssl.SSL_set_bio(self._session, self._incoming, self._outgoing)
        ssl.SSL_set_connect_state(self._session)
        self.socket = socket.create_connection(address, timeout=timeout)
        while ssl.SSL_do_handshake(self._session) != 1:
            self.socket.sendall(self._taken())
            data = self.socket.recv(65_536)

            assert data
            crypto.BIO_write(self._incoming, data, len(data))
        self.socket.sendall(self._taken())

    def close(self) -> None:
        """End it, and free what OpenSSL holds."""
        self.socket.close()
        self._ssl.SSL_free(self._session)

    def said(self, data: bytes) -> bytes:
        """`data` as ciphertext."""
        assert self._ssl.SSL_write(self._session, data, len(data)) == len(data)
        return self._taken()

    def heard(self, ciphertext: bytes) -> bytes:
        """What the server has said."""
        self._crypto.BIO_write(self._incoming, ciphertext, len(ciphertext))
        found, buffer = b"", ctypes.create_string_buffer(65_536)
        while (count := self._ssl.SSL_read(self._session, buffer, 65_536)) > 0:
            found += buffer.raw[:count]
        return found

    def new_keys(self, count: int) -> bytes:
        """So many changes of keys, each of which asks the server for one, as ciphertext."""
        for _ in range(count):
            assert self._ssl.SSL_key_update(self._session, 1) == 1
            assert self._ssl.SSL_do_handshake(self._session) == 1
        return self._taken()

    def _taken(self) -> bytes:
        found, buffer = b"", ctypes.create_string_buffer(65_536)
        while (count := self._crypto.BIO_read(self._outgoing, buffer, 65_536)) > 0:
            found += buffer.raw[:count]
        return found
