"""API keys: what they look like, what is kept of them, and what they allow."""

import hashlib
import secrets
import time

from msgspec import Struct

from jupyter_xinfer.auth.principal import Limits, Principal
from jupyter_xinfer.auth.runtime_key import PREFIX

SHOWN_CHARACTERS = len(PREFIX) + 4


def new_secret() -> str:
    """A new key; it has 256 random bits, so a plain hash of it tells nothing."""
    return PREFIX + secrets.token_urlsafe(32)


def digest(secret: str) -> bytes:
    """What is kept of a key, and what it is looked up by: SHA-256, 32 bytes."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


class ApiKey(Struct, frozen=True, kw_only=True):
    """A key without its secret. Times are seconds since the epoch; `shown` is the beginning of the secret."""

    id: str
    digest: bytes
    shown: str
    name: str
    owner: str
    permissions: frozenset[str]
    models: frozenset[str] | None = None
    limits: Limits = Limits()
    created: float = 0.0
    expires: float | None = None
    last_used: float | None = None
    revoked: float | None = None

    def why_not_valid(self, now: float) -> str | None:
        if self.revoked is not None:
            return "The API key has been revoked."
        if self.expires is not None and now >= self.expires:
            return "The API key has expired."
        return None

    @property
    def state(self) -> str:
        """`valid`, `expired` or `revoked`."""
        if self.revoked is not None:
            return "revoked"
        return "valid" if self.why_not_valid(time.time()) is None else "expired"

    @property
    def principal(self) -> Principal:
        return Principal(
            kind="api_key", name=self.name, permissions=self.permissions, models=self.models, limits=self.limits
        )
