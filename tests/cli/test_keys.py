"""`jupyter xinfer keys ...` and `hash-password`."""

import io
import json
import time
from pathlib import Path

import pytest
from jupyter_server.auth.security import passwd_check

from jupyter_xinfer.auth.api_key import digest
from jupyter_xinfer.auth.key_store import KeyStore
from jupyter_xinfer.cli import main
from jupyter_xinfer.cli.keys import expiry
from xinfer_runtime.errors import InvalidRequest


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XINFER_HOME", str(tmp_path))
    return tmp_path


def test_a_key_is_created_with_all_it_may_do_and_shown_once(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--name", "ci", "--owner", "ann", "--permission", "models:write", "--model", "m", "--expires", "30d"]
    assert main(["keys", "create", *options, "--tokens-per-day", "1000"]) == 0
    secret = capsys.readouterr().out.strip()

    (key,) = KeyStore(home).keys()
    assert key.digest == digest(secret)
    assert (key.name, key.owner, key.models) == ("ci", "ann", {"m"})
    assert key.permissions == {"models:start", "models:stop"}
    assert key.limits.tokens_per_day == 1000
    assert key.expires == pytest.approx(time.time() + 30 * 86_400, abs=60)
    main(["keys", "list"])
    assert secret not in capsys.readouterr().out


def test_a_key_may_read_unless_told_otherwise(home: Path) -> None:
    main(["keys", "create", "--name", "dify"])
    assert KeyStore(home).keys()[0].permissions == {"models:list", "models:read"}


def test_revoked_keys_stay_in_the_list_as_such(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["keys", "create", "--name", "ci"])
    assert main(["keys", "revoke", "ci"]) == 0
    capsys.readouterr()
    main(["keys", "list", "--json"])
    (facts,) = json.loads(capsys.readouterr().out)
    assert (facts["name"], facts["state"]) == ("ci", "revoked")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["create", "--name", "x", "--permission", "models:lst"], "models:lst"),
        (["create", "--name", "x", "--expires", "soon"], "--expires"),
        (["create", "--name", "x", "--tokens-per-minute", "0"], "--tokens-per-minute"),
        (["revoke", "nothing"], "nothing"),
    ],
)
def test_mistakes_are_one_line_and_change_nothing(
    home: Path, capsys: pytest.CaptureFixture[str], options: list[str], named: str
) -> None:
    assert main(["keys", *options]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert named in error
    assert KeyStore(home).keys() == []


@pytest.mark.parametrize(("command", "file"), [("keys list", "auth/keys.sqlite"), ("usage", "usage/usage.sqlite")])
def test_a_broken_file_is_told_with_its_place(
    home: Path, capsys: pytest.CaptureFixture[str], command: str, file: str
) -> None:
    (home / file).parent.mkdir()
    (home / file).write_bytes(b"this is no database, " * 100)
    assert main(command.split()) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(home / file) in error


def test_expiry_is_a_span_or_a_date_in_the_future() -> None:
    assert expiry("90m", 1000.0) == 1000.0 + 5400
    assert expiry("2030-01-01", 0.0) == 1893456000.0
    with pytest.raises(InvalidRequest, match="past"):
        expiry("2001-01-01", time.time())


def test_a_password_is_hashed_as_jupyter_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("correct horse\n"))
    assert main(["hash-password"]) == 0
    hashed = capsys.readouterr().out.strip()
    assert hashed.startswith("argon2:")
    assert passwd_check(hashed, "correct horse")
