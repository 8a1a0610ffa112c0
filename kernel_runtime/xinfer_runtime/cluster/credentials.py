# mypy: allow-untyped-calls
"""The TLS credentials that every comm and every link of one cluster uses.

Whoever holds a certificate of the cluster's CA may do anything in the cluster, so both sides of every connection must
show one. Host names are not checked: the CA signs for this cluster alone, and nodes are reached by changing addresses.
"""

import os
import ssl
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from msgspec import Struct

if TYPE_CHECKING:
    from distributed.security import Security


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
        from xinfer_runtime.cluster import certificates

        ca_key, key = certificates.new_key(), certificates.new_key()
        ca = certificates.new_ca(ca_key, certificates.CERTIFICATE_DAYS)
        public = certificates.public_key_of(key)
        return cls(ca=ca, cert=certificates.new_certificate(ca, ca_key, public, "jupyter-xinfer cluster"), key=key)

    @classmethod
    def from_files(cls, ca: str | Path, cert: str | Path, key: str | Path) -> Self:
        """The credentials of a cluster that somebody else runs. Raises OSError where a file cannot be read."""
        return cls(ca=Path(ca).read_text(), cert=Path(cert).read_text(), key=Path(key).read_text())

    def security(self) -> "Security":
        """For Dask's `Security`: TLS on every comm, and nothing without it."""
        from distributed.security import Security

        return Security(**self.security_options())

    def security_options(self) -> dict[str, Any]:
        """What `Security` is made of."""
        return {
            "require_encryption": True,
            "tls_ca_file": self.ca,
            "tls_client_cert": self.cert,
            "tls_client_key": self.key,
            "tls_scheduler_cert": self.cert,
            "tls_scheduler_key": self.key,
            "tls_worker_cert": self.cert,
            "tls_worker_key": self.key,
        }

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
