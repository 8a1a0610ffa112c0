"""API keys in their file, and a server's view of it."""

import logging
import sqlite3
import time
from pathlib import Path

import pytest

from jupyter_xinfer.auth.api_key import ApiKey, digest
from jupyter_xinfer.auth.key_ring import KeyRing
from jupyter_xinfer.auth.key_store import KeyStore
from jupyter_xinfer.auth.principal import Limits
from xinfer_runtime.errors import Conflict, NotFound, Unavailable

READ = frozenset({"models:read"})
LOG = logging.getLogger(__name__)


def create(store: KeyStore, name: str = "ci", **fields: object) -> tuple[ApiKey, str]:
    return store.create(name=name, owner="ann", permissions=READ, **fields)  # type: ignore[arg-type]


def test_a_key_comes_back_as_it_was_made(tmp_path: Path) -> None:
    key, _ = create(
        KeyStore(tmp_path), models=frozenset({"m"}), limits=Limits(tokens_per_day=5), expires=time.time() + 60
    )

    assert KeyStore(tmp_path).keys() == [key]
    assert key.state == "valid"


def test_the_secret_is_not_in_the_file_and_the_file_is_its_users_alone(tmp_path: Path) -> None:
    store = KeyStore(tmp_path)
    _, secret = create(store)

    assert secret.encode() not in store.path.read_bytes()
    assert store.path.stat().st_mode & 0o777 == 0o600
    assert store.path.parent.stat().st_mode & 0o777 == 0o700


def test_two_valid_keys_cannot_have_one_name(tmp_path: Path) -> None:
    store = KeyStore(tmp_path)
    create(store)
    with pytest.raises(Conflict, match="ci"):
        create(store)
    store.revoke("ci")
    create(store)


def test_revoking_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nothing"):
        KeyStore(tmp_path).revoke("nothing")


def test_a_broken_file_is_told_with_its_name(tmp_path: Path) -> None:
    store = KeyStore(tmp_path)
    create(store)
    store.path.write_bytes(b"this is no database, " * 100)
    with pytest.raises(Unavailable, match=r"keys\.sqlite") as caught:
        store.keys()
    assert str(tmp_path) not in caught.value.message


def test_an_expired_key_is_not_valid() -> None:
    key = ApiKey(id="k", digest=b"", shown="", name="k", owner="a", permissions=READ, expires=100.0)

    assert key.why_not_valid(99.9) is None
    assert "expired" in (key.why_not_valid(100.0) or "")


async def test_a_server_sees_at_its_next_look_what_another_process_did(tmp_path: Path) -> None:
    ring = KeyRing(KeyStore(tmp_path), LOG)
    assert await ring.find(digest("sk-xinfer-none")) is None
    for number in range(20):
        _, secret = create(KeyStore(tmp_path), f"key {number}")
        found = await ring.find(digest(secret))
        assert found is not None
        assert found.revoked is None
        KeyStore(tmp_path).revoke(found.id)
        found = await ring.find(digest(secret))
        assert found is not None
        assert found.revoked is not None


async def test_an_unchanged_file_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = KeyStore(tmp_path)
    _, secret = create(store)
    ring = KeyRing(store, LOG)
    time.sleep(0.06)  # noqa: ASYNC251 - until the stamp of the file is settled
    assert await ring.find(digest(secret)) is not None

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("SQLite was asked")

    monkeypatch.setattr(sqlite3, "connect", refuse)
    assert await ring.find(digest(secret)) is not None


async def test_the_last_use_is_written_at_the_end(tmp_path: Path) -> None:
    store = KeyStore(tmp_path)
    key, _ = create(store)
    ring = KeyRing(store, LOG)
    ring.note_use(key)
    await ring.close()

    used = store.keys()[0].last_used
    assert used is not None
    assert abs(used - time.time()) < 30
