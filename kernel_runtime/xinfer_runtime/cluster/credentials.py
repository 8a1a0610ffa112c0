# mypy: allow-untyped-calls
"""The TLS credentials that every comm and every link of one cluster uses.

Whoever holds a certificate of the cluster's CA may do anything in the cluster, so both sides of every connection must
show one. Host names are not checked: the CA signs for this cluster alone, and nodes are reached by changing addresses.
"""

import datetime
import ipaddress
import os
import ssl
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

from msgspec import Struct

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from distributed.security import Security

_VALID_DAYS = 365
_CLOCK_SKEW = datetime.timedelta(hours=1)


class TlsCredentials(Struct, frozen=True, kw_only=True):
    """A CA's certificate, and a certificate of that CA with its private key; all PEM text."""

    ca: str
    cert: str
    key: str

    def __repr__(self) -> str:
        return "TlsCredentials(...)"

    @classmethod
    def create(cls) -> Self:
        """New credentials, valid for a year, for a cluster of their own. The CA's private key is thrown away."""
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import Encoding
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

        now = datetime.datetime.now(datetime.UTC)
        ca_key = ec.generate_private_key(ec.SECP256R1())
        key = ec.generate_private_key(ec.SECP256R1())
        ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "jupyter-xinfer cluster CA")])
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "jupyter-xinfer cluster")])

        def certificate(subject: x509.Name, public: "EllipticCurvePrivateKey") -> x509.CertificateBuilder:
            return (
                x509.CertificateBuilder()
                .subject_name(subject)
                .issuer_name(ca_name)
                .public_key(public.public_key())
                .serial_number(x509.random_serial_number())
                .not_valid_before(now - _CLOCK_SKEW)
                .not_valid_after(now + datetime.timedelta(days=_VALID_DAYS))
                .add_extension(x509.SubjectKeyIdentifier.from_public_key(public.public_key()), critical=False)
                .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
            )

        def usage(*, ca: bool) -> x509.KeyUsage:
            return x509.KeyUsage(
                digital_signature=True,
                key_cert_sign=ca,
                crl_sign=ca,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            )

        ca_cert = (
            certificate(ca_name, ca_key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage(ca=True), critical=True)
            .sign(ca_key, hashes.SHA256())
        )
        loopback = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        cert = (
            certificate(name, key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .add_extension(x509.SubjectAlternativeName(loopback), critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        return cls(
            ca=ca_cert.public_bytes(Encoding.PEM).decode(),
            cert=cert.public_bytes(Encoding.PEM).decode(),
            key=_private_pem(key),
        )

    @classmethod
    def from_files(cls, ca: str | Path, cert: str | Path, key: str | Path) -> Self:
        """The credentials of a cluster that somebody else runs. Raises OSError where a file cannot be read."""
        return cls(ca=Path(ca).read_text(), cert=Path(cert).read_text(), key=Path(key).read_text())

    def security(self) -> "Security":
        """For Dask's `Security`: TLS on every comm, and nothing without it."""
        from distributed.security import Security

        return Security(
            require_encryption=True,
            tls_ca_file=self.ca,
            tls_client_cert=self.cert,
            tls_client_key=self.key,
            tls_scheduler_cert=self.cert,
            tls_scheduler_key=self.key,
            tls_worker_cert=self.cert,
            tls_worker_key=self.key,
        )

    def server_context(self) -> ssl.SSLContext:
        """For a listener that accepts nobody without a certificate of the cluster."""
        return self._context(ssl.PROTOCOL_TLS_SERVER)

    def client_context(self) -> ssl.SSLContext:
        """For connecting to such a listener, and to nothing else."""
        return self._context(ssl.PROTOCOL_TLS_CLIENT)

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=self.ca)
        # OpenSSL takes certificate and key from a file only; mkstemp makes it readable by its owner alone.
        handle, name = tempfile.mkstemp(prefix="xinfer-", suffix=".pem")
        try:
            with os.fdopen(handle, "w") as file:
                file.write(self.cert + self.key)
            context.load_cert_chain(name)
        finally:
            os.unlink(name)
        return context


def _private_pem(key: "EllipticCurvePrivateKey") -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
