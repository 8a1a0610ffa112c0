"""What a credential looks like. Its shape alone decides, before any look-up, whether it is ours or Jupyter's."""

import base64
import re

import msgspec

ISSUER = "jupyter-xinfer"
KEY_SHAPE = "sk-"
_BEARER = re.compile(r"(?:bearer|token)\s+(.+)", re.IGNORECASE)
_JWT = re.compile(r"eyJ[\w-]*\.([\w-]+)\.[\w-]*")
_MAX_JWT = 4096


class _Claims(msgspec.Struct):
    iss: str = ""


def bearer(header: str) -> str | None:
    """The credential of an `Authorization` header."""
    found = _BEARER.match(header)
    return found.group(1).strip() if found is not None else None


def is_key(credential: str) -> bool:
    return credential.startswith(KEY_SHAPE)


def is_our_jwt(credential: str) -> bool:
    """Whether this is a JWT that names us as its issuer; its signature is not looked at."""
    found = _JWT.fullmatch(credential) if len(credential) <= _MAX_JWT else None
    if found is None:
        return False
    payload = found.group(1)
    try:
        claims = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
        return msgspec.json.decode(claims, type=_Claims).iss == ISSUER
    except (ValueError, RecursionError):
        return False
