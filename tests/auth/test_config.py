"""The file of users: what is accepted, and how each mistake is named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jupyter_server.auth import passwd

from jupyter_xinfer.auth.api_key import digest
from jupyter_xinfer.auth.config import load_auth_config
from xinfer_runtime.errors import InvalidRequest

SECRET = "0123456789abcdef" * 4


def content() -> dict[str, Any]:
    return {
        "auth_config": {"algorithm": "HS256", "secret_key": SECRET, "token_expire_in_minutes": 30},
        "user_config": [
            {"username": "ann", "password": "plain-secret", "permissions": ["admin"], "api_keys": ["sk-72tkvudyGLPMi"]},
            {"username": "dify", "permissions": ["models:list", "models:read"], "api_keys": ["sk-35tkasdyGLYMy"]},
        ],
    }


def write(folder: Path, value: object) -> Path:
    path = folder / "auth.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    path.chmod(0o600)
    return path


def test_the_published_format_is_read(tmp_path: Path) -> None:
    config = load_auth_config(write(tmp_path, content()))

    assert config.token_seconds == 1800
    assert config.users["ann"].permissions == {"admin"}
    assert config.by_digest[digest("sk-35tkasdyGLYMy")].name == "dify"
    assert SECRET not in repr(config)
    assert "plain-secret" not in repr(config)


def test_a_plain_password_is_warned_of_and_a_hashed_one_is_not(tmp_path: Path) -> None:
    value = content()
    assert any("user_config[0].password" in text for text in load_auth_config(write(tmp_path, value)).warnings)
    value["user_config"][0]["password"] = passwd("plain-secret")
    assert load_auth_config(write(tmp_path, value)).warnings == ()


def test_a_file_that_others_can_read_is_warned_of(tmp_path: Path) -> None:
    path = write(tmp_path, content())
    path.chmod(0o644)
    assert any("chmod" in text for text in load_auth_config(path).warnings)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda c: c["auth_config"].update(secret_key="s3cr3t-but-short"), "auth_config.secret_key"),
        (lambda c: c["auth_config"].update(algorithm="HS512", secret_key="x" * 63), "auth_config.secret_key"),
        (lambda c: c["auth_config"].update(secret_key="a" * 64), "auth_config.secret_key"),
        (lambda c: c["auth_config"].update(secret_key="abababab" * 8), "auth_config.secret_key"),
        (lambda c: c["auth_config"].update(secret_key="correct-hors" * 6), "auth_config.secret_key"),
        (lambda c: c["user_config"][1].update(api_keys=["sk-" + "x" * 40]), r"user_config\[1\].api_keys\[0\]"),
        (lambda c: c["user_config"][1].update(api_keys=["sk-" + "1234" * 10]), r"user_config\[1\].api_keys\[0\]"),
        (lambda c: c["auth_config"].update(algorithm="none"), "auth_config.algorithm"),
        (lambda c: c["auth_config"].update(token_expire_in_minutes=0), "auth_config.token_expire_in_minutes"),
        (lambda c: c["auth_config"].update(token_expire_in_minutes="30"), "auth_config.token_expire_in_minutes"),
        (lambda c: c["user_config"][0].update(password="argon2:x"), r"user_config\[0\].password"),
        (
            lambda c: c["user_config"][0].update(limits={"tokens_per_minute": 0}),
            r"user_config\[0\].limits.tokens_per_minute",
        ),
        (lambda c: c["auth_config"].pop("secret_key"), "auth_config.secret_key"),
        (lambda c: c["user_config"][1].update(permissions=["models:lst"]), r"user_config\[1\].permissions\[0\]"),
        (lambda c: c["user_config"][1].update(username="ann"), r"user_config\[1\].username"),
        (lambda c: c["user_config"][1].update(api_keys=["sk-72tkvudyGLPMi"]), r"user_config\[1\].api_keys\[0\]"),
        (lambda c: c["user_config"][1].update(api_keys=["no-such-shape-of-key"]), r"user_config\[1\].api_keys\[0\]"),
        (lambda c: c["user_config"][0].update(password=""), r"user_config\[0\].password"),
        (lambda c: c["user_config"][0].update(pasword="x"), r"user_config\[0\].pasword"),
        (lambda c: c.pop("user_config"), "user_config"),
    ],
)
def test_a_mistake_is_named_and_no_secret_shown(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], named: str
) -> None:
    value = content()
    change(value)
    with pytest.raises(InvalidRequest, match=f"`{named}`") as caught:
        load_auth_config(write(tmp_path, value))
    for secret in ("sk-72tkvudyGLPMi", "no-such-shape-of-key", "plain-secret", "s3cr3t-but-short", SECRET):
        assert secret not in caught.value.message


def test_what_is_not_json_or_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="not valid JSON"):
        load_auth_config(write(tmp_path, "{"))
    with pytest.raises(InvalidRequest, match="cannot be read"):
        load_auth_config(tmp_path / "nowhere.json")


@pytest.mark.parametrize("place", ["[", '{"auth_config": {"secret_key": ', '{"user_config": [{"limits": '])
def test_json_that_is_nested_without_end_is_told_with_its_file(tmp_path: Path, place: str) -> None:
    path = write(tmp_path, place + "[" * 100_000)
    with pytest.raises(InvalidRequest, match="nested too deeply") as caught:
        load_auth_config(path)
    assert "XinferApp.auth_config" in caught.value.message
    assert str(path) in caught.value.message
