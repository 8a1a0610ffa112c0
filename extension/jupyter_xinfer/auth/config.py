"""The file of users, `XinferApp.auth_config`, in the format that Xinference published: every field is checked.

Beside the published fields a user may have `models` (a list of model uids) and `limits`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import argon2
import msgspec
from msgspec import Struct

from jupyter_xinfer.auth.api_key import digest
from jupyter_xinfer.auth.permissions import expand
from jupyter_xinfer.auth.principal import UNLIMITED, Limits, Principal
from jupyter_xinfer.auth.shape import KEY_SHAPE
from jupyter_xinfer.protocol.decoding import decode
from xinfer_runtime.errors import InvalidRequest

# RFC 7518, 3.2: a key of the same size as the hash output or larger.
SECRET_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
KEY_CHARACTERS = 16
# What is drawn at random, in hexadecimal digits too, has more than these with near certainty.
SECRET_VARIETY = 8
KEY_VARIETY = 6
REPEATED_CHARACTERS = 16
HASHED = "argon2:"
_MADE = "`openssl rand -hex 64` makes a good one"
_SHAPE = "`auth_config`, an object, and `user_config`, a list of objects"
_PUBLISHED_SECRETS = frozenset({bytes.fromhex("570dad43de1af4c925f92c16a68a50936da42b7dd6fdeb24850507a1199aac89")})


class _AuthSection(Struct, forbid_unknown_fields=True):
    algorithm: str
    secret_key: str
    token_expire_in_minutes: float = 30


class _UserSection(Struct, forbid_unknown_fields=True):
    username: str
    password: str | None = None
    permissions: list[str] = []
    api_keys: list[str] = []
    models: list[str] | None = None
    limits: Limits = Limits()


class _AuthFile(Struct, forbid_unknown_fields=True):
    auth_config: _AuthSection
    user_config: list[_UserSection]


@dataclass(frozen=True)
class User:
    """`password` is what the file says: `argon2:...`, or plain; None for a user who has only keys."""

    name: str
    password: str | None = field(repr=False)
    permissions: frozenset[str]
    models: frozenset[str] | None = None
    limits: Limits = UNLIMITED

    def principal(self, session: str | None = None) -> Principal:
        return Principal(
            kind="user",
            name=self.name,
            permissions=self.permissions,
            models=self.models,
            limits=self.limits,
            session=session,
        )


@dataclass(frozen=True)
class AuthConfig:
    """`by_digest` finds a user by the SHA-256 of one of his keys; `warnings` are for the log."""

    algorithm: str
    secret: bytes = field(repr=False)
    token_seconds: float
    users: dict[str, User]
    by_digest: dict[bytes, User] = field(repr=False)
    warnings: tuple[str, ...] = ()


def load_auth_config(path: Path) -> AuthConfig:
    """Read the file. Raises `InvalidRequest` that names the file and the field at fault, and never shows a secret."""
    try:
        content = path.read_bytes()
        msgspec.json.decode(content)
    except OSError as error:
        raise InvalidRequest(f"XinferApp.auth_config: {path} cannot be read: {error.strerror}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"XinferApp.auth_config: {path} is not valid JSON: {error}.") from None
    except RecursionError:
        raise InvalidRequest(f"XinferApp.auth_config: {path} is nested too deeply; it has {_SHAPE}.") from None
    try:
        config = _checked(decode(content, _AuthFile))
    except InvalidRequest as error:
        raise InvalidRequest(f"XinferApp.auth_config: {path}: {error.message}", param=error.param) from None
    if path.stat().st_mode & 0o077:
        readable = f"{path} can be read by other users of this machine; chmod 600 it."
        return AuthConfig(**{**config.__dict__, "warnings": (*config.warnings, readable)})
    return config


def _checked(file: _AuthFile) -> AuthConfig:
    warnings: list[str] = []
    section = file.auth_config
    secret = section.secret_key.encode()
    needed = SECRET_BYTES.get(section.algorithm)
    if needed is None:
        _refuse("auth_config.algorithm", f"must be one of {', '.join(SECRET_BYTES)}")
    if len(secret) < needed:
        _refuse("auth_config.secret_key", f"has {len(secret)} bytes; {section.algorithm} needs {needed} or more")
    if _variety(section.secret_key) < SECRET_VARIETY:
        _refuse("auth_config.secret_key", f"repeats itself or has few different characters; {_MADE}")
    if not 0 < section.token_expire_in_minutes <= 525_600:
        _refuse("auth_config.token_expire_in_minutes", "must be above 0 and at most a year")
    if digest(section.secret_key) in _PUBLISHED_SECRETS:
        warnings.append("`auth_config.secret_key` is the one of published examples: anybody can sign in with it.")
    users: dict[str, User] = {}
    by_digest: dict[bytes, User] = {}
    for index, entry in enumerate(file.user_config):
        place = f"user_config[{index}]"
        if not entry.username:
            _refuse(f"{place}.username", "must not be empty")
        if entry.username in users:
            _refuse(f"{place}.username", f"is there twice: {entry.username!r}")
        if entry.password == "":
            _refuse(f"{place}.password", "must not be empty; leave it out for a user who has only keys")
        if entry.password is not None and not entry.password.startswith(HASHED):
            warnings.append(f"`{place}.password` is in plain text; `jupyter xinfer hash-password` hashes it.")
        if entry.password is not None and entry.password.startswith(HASHED) and not _is_hash(entry.password):
            _refuse(f"{place}.password", "is no argon2 hash; `jupyter xinfer hash-password` makes one")
        user = users[entry.username] = User(
            name=entry.username,
            password=entry.password,
            permissions=expand(entry.permissions, f"{place}.permissions"),
            models=None if entry.models is None else frozenset(entry.models),
            limits=entry.limits,
        )
        for number, key in enumerate(entry.api_keys):
            where = f"{place}.api_keys[{number}]"
            if not key.startswith(KEY_SHAPE) or len(key) < KEY_CHARACTERS:
                _refuse(where, f"must begin with {KEY_SHAPE!r} and have {KEY_CHARACTERS} characters or more")
            if _variety(key.removeprefix(KEY_SHAPE)) < KEY_VARIETY:
                _refuse(where, "repeats itself or has few different characters; take one that was drawn at random")
            if digest(key) in by_digest:
                _refuse(where, "is there twice")
            by_digest[digest(key)] = user
    return AuthConfig(
        section.algorithm, secret, section.token_expire_in_minutes * 60, users, by_digest, tuple(warnings)
    )


def _variety(secret: str) -> int:
    """The different characters of a secret; 0 for one that is a short text again and again."""
    period = (secret + secret).find(secret, 1)
    return 0 if period < len(secret) and period < REPEATED_CHARACTERS else len(set(secret))


def _is_hash(password: str) -> bool:
    try:
        argon2.extract_parameters(password.removeprefix(HASHED))
    except argon2.exceptions.InvalidHashError:
        return False
    return True


def _refuse(field_name: str, why: str) -> NoReturn:
    raise InvalidRequest(f"`{field_name}` {why}.", param=field_name)
