"""Who a credential belongs to, and what becomes of wrong, old and ended ones."""

import asyncio
import base64
import dataclasses
import json
import logging
import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import jwt
import pytest
from jupyter_server.auth import IdentityProvider, passwd

from jupyter_xinfer.auth.config import AuthConfig, load_auth_config
from jupyter_xinfer.auth.gate import Gate
from jupyter_xinfer.auth.key_ring import KeyRing
from jupyter_xinfer.auth.key_store import KeyStore
from jupyter_xinfer.auth.runtime_key import RuntimeKey
from xinfer_runtime.errors import AuthenticationRequired, RateLimited

SECRET = "0123456789abcdef" * 4
HASH = passwd("correct horse")


@pytest.fixture
def config(tmp_path: Path) -> AuthConfig:
    path = tmp_path / "auth.json"
    users = [
        {"username": "ann", "password": HASH, "permissions": ["models:start"], "models": ["a"]},
        {"username": "plain", "password": "battery staple", "permissions": ["models:read"]},
        {"username": "dify", "permissions": ["models:list"], "api_keys": ["sk-35tkasdyGLYMy"]},
    ]
    auth = {"algorithm": "HS256", "secret_key": SECRET, "token_expire_in_minutes": 30}
    path.write_text(json.dumps({"auth_config": auth, "user_config": users}))
    return load_auth_config(path)


@pytest.fixture
def gate(tmp_path: Path, config: AuthConfig) -> Gate:
    return Gate(RuntimeKey(), KeyRing(KeyStore(tmp_path), logging.getLogger(__name__)), config)


def changed(token: str, **claims: Any) -> str:
    """`token` with other claims, signed with the server's own secret."""
    payload = jwt.decode(token, options={"verify_signature": False})
    payload = {name: value for name, value in {**payload, **claims}.items() if value is not None}
    return jwt.encode(payload, SECRET, algorithm="HS256")


async def test_the_runtime_key_may_do_everything(tmp_path: Path) -> None:
    key = RuntimeKey()
    gate = Gate(key, KeyRing(KeyStore(tmp_path), logging.getLogger(__name__)))
    (await gate.identify(key.key)).require("admin")


async def test_a_key_of_the_store_brings_its_permissions_and_models(tmp_path: Path, gate: Gate) -> None:
    permissions, models = frozenset({"models:read"}), frozenset({"m"})
    _, secret = KeyStore(tmp_path).create(name="ci", owner="ann", permissions=permissions, models=models)

    caller = await gate.identify(secret)

    assert (caller.kind, caller.name) == ("api_key", "ci")
    assert (caller.permissions, caller.models) == (permissions, models)


async def test_a_revoked_and_an_expired_key_are_refused_as_such(tmp_path: Path, gate: Gate) -> None:
    store = KeyStore(tmp_path)
    _, revoked = store.create(name="a", owner="o", permissions=frozenset())
    store.revoke("a")
    _, expired = store.create(name="b", owner="o", permissions=frozenset(), expires=time.time() - 1)

    with pytest.raises(AuthenticationRequired, match="revoked"):
        await gate.identify(revoked)
    with pytest.raises(AuthenticationRequired, match="expired"):
        await gate.identify(expired)


async def test_a_key_of_the_file_has_its_users_permissions(gate: Gate) -> None:
    caller = await gate.identify("sk-35tkasdyGLYMy")
    assert (caller.kind, caller.name, caller.permissions) == ("user", "dify", {"models:list"})


@pytest.mark.parametrize(("name", "password"), [("ann", "correct horse"), ("plain", "battery staple")])
async def test_a_login_gives_a_token_with_the_users_permissions(gate: Gate, name: str, password: str) -> None:
    pair = await gate.logins.log_in(name, password, "::1")

    assert gate.recognises(pair.access_token)
    caller = await gate.identify(pair.access_token)
    assert caller.name == name
    assert pair.token_type == "bearer"


@pytest.mark.parametrize(
    ("name", "password"), [("ann", "wrong"), ("plain", "wrong"), ("dify", ""), ("nobody", "x"), ("ann", HASH)]
)
async def test_wrong_logins_are_all_told_the_same(gate: Gate, name: str, password: str) -> None:
    with pytest.raises(AuthenticationRequired, match="user name or the password is wrong"):
        await gate.logins.log_in(name, password, "::1")


async def test_after_five_wrong_passwords_the_account_waits_at_this_address_only(gate: Gate) -> None:
    for _ in range(5):
        with pytest.raises(AuthenticationRequired):
            await gate.logins.log_in("ann", "wrong", "10.0.0.1")
    with pytest.raises(RateLimited) as caught:
        await gate.logins.log_in("ann", "correct horse", "10.0.0.1")
    assert caught.value.retry_after is not None
    assert 0 < caught.value.retry_after <= 1
    await gate.logins.log_in("ann", "correct horse", "10.0.0.2")
    await gate.logins.log_in("plain", "battery staple", "10.0.0.1")


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": 1},
        {"exp": None},
        {"aud": "others"},
        {"iss": "others"},
        {"jti": None},
        {"sub": "nobody"},
        {"sub": "plain"},
        {"use": "refresh"},
        {"pwd": "0" * 16},
    ],
)
async def test_a_token_with_other_claims_is_refused(gate: Gate, claims: dict[str, Any]) -> None:
    pair = await gate.logins.log_in("ann", "correct horse", "::1")
    await gate.identify(changed(pair.access_token))
    with pytest.raises(AuthenticationRequired):
        await gate.identify(changed(pair.access_token, **claims))


async def test_a_token_that_was_good_expires_all_the_same(gate: Gate) -> None:
    token = changed((await gate.logins.log_in("ann", "correct horse", "::1")).access_token, exp=int(time.time()) + 2)
    await gate.identify(token)
    await asyncio.sleep(2.1)
    with pytest.raises(AuthenticationRequired, match="expired"):
        await gate.identify(token)


async def test_the_algorithm_is_the_servers_choice(gate: Gate) -> None:
    token = (await gate.logins.log_in("ann", "correct horse", "::1")).access_token
    claims = jwt.decode(token, options={"verify_signature": False})
    head = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=").decode()

    for forged in (
        f"{head}.{token.split('.')[1]}.",
        jwt.encode(claims, SECRET, algorithm="HS384"),
        jwt.encode(claims, "x" * 32, algorithm="HS256"),
    ):
        assert gate.recognises(forged)
        with pytest.raises(AuthenticationRequired):
            await gate.identify(forged)


async def test_a_refresh_token_works_once_and_a_second_use_ends_the_login(gate: Gate) -> None:
    first = await gate.logins.log_in("ann", "correct horse", "::1")
    second = await gate.logins.refresh(first.refresh_token)
    await gate.identify(second.access_token)

    with pytest.raises(AuthenticationRequired, match="used before"):
        await gate.logins.refresh(first.refresh_token)
    for token in (first.access_token, second.access_token):
        with pytest.raises(AuthenticationRequired, match="ended"):
            await gate.identify(token)
    with pytest.raises(AuthenticationRequired, match="ended"):
        await gate.logins.refresh(second.refresh_token)


async def test_an_access_token_does_not_refresh(gate: Gate) -> None:
    pair = await gate.logins.log_in("ann", "correct horse", "::1")
    with pytest.raises(AuthenticationRequired):
        await gate.logins.refresh(pair.access_token)


async def test_an_ended_login_stays_ended_after_a_restart(tmp_path: Path, gate: Gate, config: AuthConfig) -> None:
    pair = await gate.logins.log_in("ann", "correct horse", "::1")
    session = (await gate.identify(pair.access_token)).session
    assert session is not None
    await gate.logins.revoke(session)

    later = Gate(RuntimeKey(), KeyRing(KeyStore(tmp_path), logging.getLogger(__name__)), config)
    with pytest.raises(AuthenticationRequired, match="ended"):
        await later.identify(pair.access_token)


async def test_an_ended_login_stays_ended_as_long_as_its_access_tokens_may_last(
    tmp_path: Path, config: AuthConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    month = dataclasses.replace(config, token_seconds=30 * 86400)
    gate = Gate(RuntimeKey(), KeyRing(KeyStore(tmp_path), logging.getLogger(__name__)), month)
    pair = await gate.logins.log_in("ann", "correct horse", "::1")
    session = (await gate.identify(pair.access_token)).session
    assert session is not None
    await gate.logins.revoke(session)

    eight_days_later = time.time() + 8 * 86400
    monkeypatch.setattr(time, "time", lambda: eight_days_later)
    later = Gate(RuntimeKey(), KeyRing(KeyStore(tmp_path), logging.getLogger(__name__)), month)
    with pytest.raises(AuthenticationRequired, match="ended"):
        await later.identify(pair.access_token)


def test_the_users_that_jupyter_makes_up_are_one_caller_and_others_keep_their_names(gate: Gate) -> None:
    provider = IdentityProvider()
    for _ in range(3):
        user = provider.generate_anonymous_user(Mock())
        assert gate.jupyter_user(user.username, user.name or "").id == "jupyter:owner"
    assert gate.jupyter_user("ann", "Ann").id == "jupyter:ann"


def test_only_our_shapes_are_ours(gate: Gate) -> None:
    theirs = jwt.encode({"iss": "https://hub.example"}, "x" * 32, algorithm="HS256")
    for credential in ("", "0123456789abcdef" * 4, theirs, "eyJ.eyJ.x", "eyJ." + "A" * 5000 + ".x", "eyJ.$$.x"):
        assert not gate.recognises(credential)
    assert gate.recognises("sk-anything")


def test_a_jupyter_token_that_looks_like_a_key_is_jupyters(tmp_path: Path) -> None:
    ring = KeyRing(KeyStore(tmp_path), logging.getLogger(__name__))
    gate = Gate(RuntimeKey(), ring, jupyter_token=lambda: "sk-of-jupyter")

    assert not gate.recognises("sk-of-jupyter")
    assert gate.recognises("sk-of-jupyter2")
