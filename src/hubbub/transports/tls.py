"""The port's own TLS: a certificate and its key, read at the start and again when they are renewed."""

from __future__ import annotations

import datetime
import logging
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta, Struct

from hubbub.errors import ConfigError

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

__all__ = ["TlsOptions", "server_context"]

_logger = logging.getLogger(__name__)

# For TLS 1.2: keys that are forgotten after each connection, and ciphers that encrypt and authenticate in one.
# TLS 1.3 has no others.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


class TlsOptions(Struct, frozen=True, kw_only=True):
    """The port's own TLS."""

    tls_cert: Annotated[
        str, Meta(description="file (PEM) with the server's certificate and those it leads up to: the port speaks TLS")
    ] = ""
    tls_key: Annotated[str, Meta(description="file (PEM) with the certificate's key, not encrypted")] = ""


def server_context(options: TlsOptions) -> ssl.SSLContext | None:
    """What the port speaks TLS with; None where it speaks none.

    Raises `ConfigError`, with the reason in one sentence, for a pair that cannot be used. That its time is over, or
    has not come, is only logged: clients refuse it, but a server that is down helps nobody either.
    """
    if not options.tls_cert and not options.tls_key:
        return None
    if not options.tls_cert or not options.tls_key:
        there, missing = ("tls_cert", "tls_key") if options.tls_cert else ("tls_key", "tls_cert")
        raise ConfigError(f"{there} is set and {missing} is not: TLS needs both")
    certificate = _certificate(options.tls_cert)
    # Asked for before OpenSSL does, which does not say which of the two files it means.
    _read(options.tls_key, "tls_key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    # Compression has given secrets away (CRIME), and renegotiation is work that a client asks for at will.
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])

    def ask_password() -> str:
        # Else OpenSSL would ask on the terminal, and wait.
        raise ConfigError(f"tls_key: {options.tls_key} is encrypted: give the key without a password")

    try:
        context.load_cert_chain(options.tls_cert, options.tls_key, ask_password)
    except ssl.SSLError as error:
        # The other reasons: it is of another kind, so there is no certificate for it.
        if error.reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"):
            raise ConfigError(
                f"tls_key: {options.tls_key} is not the key of the certificate in {options.tls_cert}: "
                "give the two that were made together"
            ) from None
        why = f" ({error.reason.lower().replace('_', ' ')})" if error.reason else ""
        raise ConfigError(
            f"tls_key: {options.tls_key} cannot be used with {options.tls_cert}{why}: "
            "give a private key in PEM, of 2048 bits or more if it is RSA"
        ) from None
    except OSError as error:
        # Since they were looked at, one of them has been moved: whoever renews them is not done yet.
        raise ConfigError(f"tls_cert and tls_key cannot be read ({error.strerror}): give files that can be") from None
    _look_at_its_time(certificate, options.tls_cert)
    return context


def _read(file: str, option: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise ConfigError(f"{option}: {file} cannot be read ({error.strerror}): give a file that can be") from None


def _certificate(file: str) -> Certificate:
    """The first one in the file: the server's own."""
    # Here, because only who uses TLS needs to wait until it is imported.
    from cryptography import x509

    data = _read(file, "tls_cert")
    try:
        return x509.load_pem_x509_certificate(data)
    except ValueError:
        raise ConfigError(f"tls_cert: {file} holds no certificate in PEM: give the file with the whole chain") from None


def _look_at_its_time(certificate: Certificate, file: str) -> None:
    now = datetime.datetime.now(datetime.UTC)
    if certificate.not_valid_after_utc <= now:
        _logger.warning("the certificate in %s expired on %s: renew it", file, certificate.not_valid_after_utc.date())
    elif certificate.not_valid_before_utc > now:
        since = certificate.not_valid_before_utc.isoformat(" ", "minutes")
        _logger.warning("the certificate in %s is not valid before %s: look at the clock", file, since)
