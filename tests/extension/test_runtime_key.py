"""The kernels' key and its file."""

import json
import stat
from pathlib import Path

from jupyter_xinfer.auth.runtime_key import RuntimeKey


def test_only_the_key_itself_matches(tmp_path: Path) -> None:
    key = RuntimeKey(path=tmp_path / "r.json")

    assert key.matches(key.key)
    assert not key.matches(key.key[:-1])
    assert not key.matches("sk-xinfer-é")


def test_two_servers_have_different_keys(tmp_path: Path) -> None:
    assert RuntimeKey(path=tmp_path / "a").key != RuntimeKey(path=tmp_path / "b").key


def test_the_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    key = RuntimeKey(path=tmp_path / "runtime" / "r.json")
    key.write("http://127.0.0.1:8888/")

    assert stat.S_IMODE(key.path.stat().st_mode) == 0o600
    assert json.loads(key.path.read_text())["key"] == key.key


def test_the_key_is_not_in_the_repr(tmp_path: Path) -> None:
    key = RuntimeKey(path=tmp_path / "r.json")

    assert key.key not in repr(key)


def test_removing_the_file_twice_is_fine(tmp_path: Path) -> None:
    key = RuntimeKey(path=tmp_path / "r.json")
    key.write("http://127.0.0.1:8888/")
    key.remove()
    key.remove()

    assert not key.path.exists()
