"""Join tokens: what lets one new node into the cluster, once, for a while.

The supervisor's home keeps a hash of each secret. The supervisor and the command line change the file, under a lock.
"""

import base64
import binascii
import fcntl
import hashlib
import hmac
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from xinfer_runtime.cluster.authority import tls_folder
from xinfer_runtime.cluster.private_files import write_private
from xinfer_runtime.errors import InvalidRequest, NotFound, PermissionDenied

_PREFIX = "xinfer-join-"


class JoinToken(Struct, frozen=True, kw_only=True):
    """What a new node needs: where the join endpoint is, how its CA is recognised, and the secret that opens it."""

    address: str
    fingerprint: str
    secret: str

    def __repr__(self) -> str:
        return f"JoinToken(address={self.address!r})"

    def encode(self) -> str:
        return _PREFIX + base64.urlsafe_b64encode(msgspec.json.encode(self)).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> "JoinToken":
        """Raises InvalidRequest for what is no token."""
        body = text.strip().removeprefix(_PREFIX)
        try:
            return msgspec.json.decode(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)), type=JoinToken)
        except (binascii.Error, ValueError, RecursionError) as error:
            raise InvalidRequest(
                "this is no join token; copy the whole line that `jupyter xinfer join-token` prints"
            ) from error


class TokenRow(Struct, frozen=True, kw_only=True):
    """A token as the supervisor keeps it; times are unix seconds, `used` is 0.0 until a node joined with it.

    `serial` is the number, in hex, of the certificate that the node got.
    """

    id: str
    digest: str
    created: float
    expires: float
    used: float = 0.0
    revoked: bool = False
    serial: str = ""

    def state(self, now: float) -> str:
        if self.revoked:
            return "revoked"
        if self.used:
            return "used"
        return "expired" if now >= self.expires else "open"


class JoinTokens:
    """The table in `<home>/tls/join-tokens.json`. All methods block: call them in a thread."""

    def __init__(self, home: Path) -> None:
        self._path = tls_folder(home) / "join-tokens.json"

    def create(self, seconds: float, now: float) -> tuple[str, str]:
        """The id and the secret of a new token that is good for `seconds`."""
        secret = secrets.token_urlsafe(32)
        row = TokenRow(id=secrets.token_hex(4), digest=_digest(secret), created=now, expires=now + seconds)
        with self._locked():
            self._save([*self._load(), row])
        return row.id, secret

    def rows(self) -> list[TokenRow]:
        with self._locked():
            return self._load()

    def revoke(self, token_id: str) -> None:
        """Raises NotFound."""
        with self._locked():
            rows = self._load()
            if not any(row.id == token_id for row in rows):
                raise NotFound(f"there is no join token {token_id!r}; `jupyter xinfer join-token --list` shows them")
            self._save([replace(row, revoked=True) if row.id == token_id else row for row in rows])

    def redeem(self, secret: str, now: float, serial: int) -> str:
        """Use the token up and return its id. Raises PermissionDenied for one that does not open anything."""
        digest = _digest(secret)
        with self._locked():
            rows = self._load()
            found = next((row for row in rows if hmac.compare_digest(row.digest, digest)), None)
            if found is None:
                raise PermissionDenied("the supervisor does not know this join token")
            if found.state(now) != "open":
                raise PermissionDenied(f"the join token {found.id} is {found.state(now)}; ask for a new one")
            self._save([replace(row, used=now, serial=f"{serial:x}") if row is found else row for row in rows])
        return found.id

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._path.with_suffix(".lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _load(self) -> list[TokenRow]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=list[TokenRow])
        except FileNotFoundError:
            return []

    def _save(self, rows: list[TokenRow]) -> None:
        write_private(self._path, msgspec.json.format(msgspec.json.encode(rows), indent=2).decode())


def _digest(secret: str) -> str:
    """Secrets are 256 random bits, so a plain hash keeps them."""
    return hashlib.sha256(secret.encode()).hexdigest()
