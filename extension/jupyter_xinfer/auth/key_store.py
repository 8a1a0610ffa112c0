"""The file of hashed API keys and of revoked logins: SQLite below `<home>/auth`, for the server and the command line.

Every method opens the file, does one transaction and closes it, and blocks while it does: the server calls them in
threads only. The rollback journal (SQLite's default) is kept on purpose: with it every commit changes the file itself,
which is how a running server notices what another process did (`stamp`).
"""

import os
import secrets
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from jupyter_xinfer.auth.api_key import SHOWN_CHARACTERS, ApiKey, digest, new_secret
from jupyter_xinfer.auth.principal import Limits
from xinfer_runtime.errors import Conflict, NotFound, Unavailable

LOCK_TIMEOUT = 10.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS keys (
    id TEXT PRIMARY KEY, digest BLOB NOT NULL UNIQUE, shown TEXT NOT NULL, name TEXT NOT NULL, owner TEXT NOT NULL,
    permissions TEXT NOT NULL, models TEXT, limits TEXT NOT NULL, created REAL NOT NULL, expires REAL, last_used REAL,
    revoked REAL);
CREATE TABLE IF NOT EXISTS revoked_logins (id TEXT PRIMARY KEY, expires REAL NOT NULL);
PRAGMA user_version = 1;
"""
_VERSION = 1

Stamp = tuple[int, int, int]


class KeyStore:
    """The keys below `home`. Errors of SQLite become `Unavailable` with the file's name."""

    def __init__(self, home: Path) -> None:
        self.path = home / "auth" / "keys.sqlite"

    # -- keys --------------------------------------------------------------------------------------------------------

    def create(
        self,
        *,
        name: str,
        owner: str,
        permissions: frozenset[str],
        models: frozenset[str] | None = None,
        limits: Limits | None = None,
        expires: float | None = None,
    ) -> tuple[ApiKey, str]:
        """Add a key and return it with its secret, which is kept nowhere. Raises `Conflict` for a name in use."""
        secret = new_secret()
        key = ApiKey(
            id=f"key_{secrets.token_hex(6)}",
            digest=digest(secret),
            shown=secret[:SHOWN_CHARACTERS],
            name=name,
            owner=owner,
            permissions=permissions,
            models=models,
            limits=limits or Limits(),
            created=time.time(),
            expires=expires,
        )
        with self._open() as database:
            if database.execute("SELECT 1 FROM keys WHERE name = ? AND revoked IS NULL", (name,)).fetchone():
                raise Conflict(f"There is a key named {name!r} already; revoke it, or take another name.", param="name")
            values = {
                **{field: getattr(key, field) for field in ApiKey.__struct_fields__},
                "permissions": _json(sorted(permissions)),
                "models": None if models is None else _json(sorted(models)),
                "limits": _json(key.limits),
            }
            columns = ", ".join(values)
            marks = ", ".join(f":{column}" for column in values)
            database.execute(f"INSERT INTO keys ({columns}) VALUES ({marks})", values)
        return key, secret

    def keys(self) -> list[ApiKey]:
        """All keys, the oldest first, with those that are revoked or expired."""
        if self.stamp() is None:
            return []
        with self._open() as database:
            rows = database.execute("SELECT * FROM keys ORDER BY created").fetchall()
        try:
            return [_key(row) for row in rows]
        except (msgspec.MsgspecError, TypeError) as error:
            raise self._unusable(error) from error

    def revoke(self, id_or_name: str) -> ApiKey:
        """Revoke the valid key with this id or name. Raises `NotFound`."""
        for key in self.keys():
            if key.revoked is None and id_or_name in (key.id, key.name):
                with self._open() as database:
                    database.execute("UPDATE keys SET revoked = ? WHERE id = ?", (time.time(), key.id))
                return key
        raise NotFound(f"There is no key {id_or_name!r} to revoke; `jupyter xinfer keys list` shows them.")

    def note_use(self, used: Mapping[str, float]) -> None:
        """Write when keys, by id, were last used."""
        with self._open() as database:
            database.executemany("UPDATE keys SET last_used = ? WHERE id = ?", [(at, key) for key, at in used.items()])

    # -- logins ------------------------------------------------------------------------------------------------------

    def revoked_logins(self) -> dict[str, float]:
        """The revoked logins and refresh tokens by id, with the time at which they would have expired anyway."""
        if self.stamp() is None:
            return {}
        with self._open() as database:
            return dict(database.execute("SELECT id, expires FROM revoked_logins WHERE expires > ?", (time.time(),)))

    def revoke_login(self, login: str, expires: float) -> bool:
        """Revoke a login or a refresh token; false if it was revoked before."""
        with self._open() as database:
            database.execute("DELETE FROM revoked_logins WHERE expires <= ?", (time.time(),))
            done = database.execute("INSERT OR IGNORE INTO revoked_logins VALUES (?, ?)", (login, expires))
            return done.rowcount == 1

    # -- file --------------------------------------------------------------------------------------------------------

    def stamp(self) -> Stamp | None:
        """What changes whenever the file does: modification time (ns), size and inode; None while there is no file."""
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unusable(error) from error
        return status.st_mtime_ns, status.st_size, status.st_ino

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            self._create_file()
            with closing(sqlite3.connect(self.path, timeout=LOCK_TIMEOUT)) as database:
                version = database.execute("PRAGMA user_version").fetchone()[0]
                if version > _VERSION:
                    raise Unavailable(
                        "The key store was written by a newer version of jupyter-xinfer; update this one.",
                        place=str(self.path),
                    )
                if version < _VERSION:
                    database.executescript(_SCHEMA)
                database.row_factory = sqlite3.Row
                with database:
                    yield database
        except (sqlite3.Error, OSError) as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> Unavailable:
        return Unavailable("The key store cannot be used.", place=f"{self.path}: {error}")

    def _create_file(self) -> None:
        if not self.path.exists():
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        elif self.path.stat().st_mode & 0o077:
            self.path.chmod(0o600)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _key(row: sqlite3.Row) -> ApiKey:
    fields = dict(row)
    return ApiKey(
        **{
            **fields,
            "permissions": frozenset(msgspec.json.decode(fields["permissions"])),
            "models": None if fields["models"] is None else frozenset(msgspec.json.decode(fields["models"])),
            "limits": msgspec.json.decode(fields["limits"], type=Limits),
        }
    )
