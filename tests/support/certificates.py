"""Certificates made on the fly: an authority of the test's own, and what it signs."""

from __future__ import annotations

import datetime
import functools
import ipaddress
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

__all__ = ["AUTHORITY", "Authority", "Pair"]

_DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as PEM."""

    cert: bytes
    key: bytes

    def written(self, folder: Path) -> dict[str, str]:
        """As files, over those of the last pair there: the options that name them."""
        names = {"tls_cert": folder / "cert.pem", "tls_key": folder / "key.pem"}
        names["tls_cert"].write_bytes(self.cert)
        names["tls_key"].write_bytes(self.key)
        return {option: str(name) for option, name in names.items()}


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


@dataclass(frozen=True)
class Authority:
    """Signs certificates, and can be trusted by a client."""

    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    @property
    def pem(self) -> str:
        """Its own certificate."""
        return self._signed(self.key, "the test's authority", [], days=(-1, 1), ca=True).decode()

    @functools.cached_property
    def trusted(self) -> ssl.SSLContext:
        """What a client needs to trust what it signs, and nothing else."""
        context = ssl.create_default_context(cadata=self.pem)
        context.set_alpn_protocols(["http/1.1"])
        return context

    def signs(
        self, *hosts: str, days: tuple[float, float] = (-1, 1), password: bytes | None = None, name: str = "a server"
    ) -> Pair:
        """A pair for these names and addresses; `days` from now on it is valid; a password for its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        encryption: KeySerializationEncryption = BestAvailableEncryption(password) if password else NoEncryption()
        cert = self._signed(key, name, list(hosts or ("localhost", "127.0.0.1", "::1")), days=days, ca=False)
        return Pair(cert, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))

    def _signed(
        self, key: ec.EllipticCurvePrivateKey, name: str, hosts: list[str], *, days: tuple[float, float], ca: bool
    ) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name("the test's authority"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + days[0] * _DAY)
            .not_valid_after(now + days[1] * _DAY)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            # Python 3.13 wants to know which key signed.
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if ca:
            usage = x509.KeyUsage(
                digital_signature=True,
                key_cert_sign=True,
                crl_sign=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            )
            builder = builder.add_extension(usage, critical=True)
        if hosts:
            names = x509.SubjectAlternativeName([_host(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


AUTHORITY = Authority()
"""The one whose certificates the clients of `support` trust."""
