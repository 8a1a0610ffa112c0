"""The supervisor's CA, kept in its home, and the credentials that gateways and nodes find in theirs."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import msgspec
from msgspec import Struct

from xinfer_runtime.cluster import certificates
from xinfer_runtime.cluster.credentials import TlsCredentials
from xinfer_runtime.cluster.private_files import write_private
from xinfer_runtime.errors import ClusterUnavailable, Conflict


class Addresses(Struct, frozen=True):
    """Where a supervisor is: `scheduler` for Dask (`tls://host:port`), `join` for nodes to come (`host:port`)."""

    scheduler: str
    join: str


def tls_folder(home: Path) -> Path:
    return home / "tls"


class Authority:
    """The CA in `<home>/tls`. Whoever can read its key can join any machine to the cluster."""

    def __init__(self, home: Path, ca: str, ca_key: str) -> None:
        self.home = home
        self.ca = ca
        self._ca_key = ca_key

    @classmethod
    def open(cls, home: Path) -> Self:
        """The CA of this home, made at the first call. Raises OSError."""
        folder = tls_folder(home)
        certificate, key = folder / "ca.pem", folder / "ca-key.pem"
        if not key.exists():
            ca_key = certificates.new_key()
            write_private(certificate, certificates.new_ca(ca_key))
            write_private(key, ca_key)
        return cls(home, certificate.read_text(), key.read_text())

    def own_credentials(self) -> TlsCredentials:
        """New ones for the supervisor itself, and for gateways of the same home, which read the files."""
        key = certificates.new_key()
        credentials = TlsCredentials(
            ca=self.ca, cert=self.sign_key(certificates.public_key_of(key), "supervisor"), key=key
        )
        _save(tls_folder(self.home), credentials)
        return credentials

    def sign_key(self, public_key: str, name: str, serial: int | None = None) -> str:
        return certificates.new_certificate(self.ca, self._ca_key, public_key, f"jupyter-xinfer {name}", serial=serial)

    def revocation_list(self, serials: Sequence[int]) -> str:
        """PEM; those are the serial numbers of certificates that do not count any more."""
        return certificates.new_revocation_list(self.ca, self._ca_key, serials)

    def save_addresses(self, addresses: Addresses) -> None:
        write_private(_addresses_file(self.home), msgspec.json.encode(addresses).decode())


def save_node(home: Path, credentials: TlsCredentials, addresses: Addresses) -> None:
    """Keep what a node got when it joined, for its next start. Raises Conflict in another supervisor's home."""
    folder = tls_folder(home)
    if (folder / "ca-key.pem").exists() and (folder / "ca.pem").read_text() != credentials.ca:
        raise Conflict(f"{home} is the home of another supervisor; set XINFER_HOME to a folder for this node")
    _save(tls_folder(home), credentials)
    write_private(_addresses_file(home), msgspec.json.encode(addresses).decode())


def find_credentials(home: Path) -> TlsCredentials | None:
    """What a supervisor or a join left in this home. Raises ClusterUnavailable for files that cannot be read."""
    folder = tls_folder(home)
    names = ("ca.pem", "cert.pem", "key.pem")
    if not all((folder / name).exists() for name in names):
        return None
    try:
        return TlsCredentials.from_files(*(folder / name for name in names))
    except OSError as error:
        raise ClusterUnavailable(f"the credentials in {folder} cannot be read: {error}") from error


def find_addresses(home: Path) -> Addresses | None:
    """Where the supervisor of this home is, as far as it is known."""
    try:
        return msgspec.json.decode(_addresses_file(home).read_bytes(), type=Addresses)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def home_folder() -> Path:
    """`XINFER_HOME`, or `~/.xinfer`."""
    return Path(os.environ.get("XINFER_HOME") or "~/.xinfer").expanduser().absolute()


def _addresses_file(home: Path) -> Path:
    return tls_folder(home) / "supervisor.json"


def _save(folder: Path, credentials: TlsCredentials) -> None:
    write_private(folder / "ca.pem", credentials.ca)
    write_private(folder / "cert.pem", credentials.cert)
    write_private(folder / "key.pem", credentials.key)
