"""A server with a file of users: logins, tokens, keys; and how a mistake in the file ends the start."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.conftest import XinferServer, start_server
from xinference_client.client.restful.async_restful_client import AsyncClient
from xinference_client.client.restful.restful_client import Client

SECRET = "0123456789abcdef" * 4
PASSWORD = "a-password-of-no-value"
KEY = "sk-35tkasdyGLYMy"
PAGE = "https://page.example"
JUPYTER_TOKEN = "sk-looks-like-a-key-and-is-none"


def write(path: Path, **auth: Any) -> Path:
    users = [
        {"username": "ann", "password": PASSWORD, "permissions": ["admin"]},
        {"username": "dify", "permissions": ["models:list"], "api_keys": [KEY]},
    ]
    section = {"algorithm": "HS256", "secret_key": SECRET, "token_expire_in_minutes": 30, **auth}
    path.write_text(json.dumps({"auth_config": section, "user_config": users}))
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[XinferServer]:
    folder = tmp_path_factory.mktemp("auth")
    options = ["--auth-config", str(write(folder / "auth.json")), f"--IdentityProvider.token={JUPYTER_TOKEN}"]
    options += [f"--ServerApp.allow_origin={PAGE}", '--XinferApp.limits={"jupyter": {"requests_per_minute": 1}}']
    running = start_server(folder, *options)
    running.token = JUPYTER_TOKEN
    try:
        yield running
    finally:
        running.stop()


def log_in(server: XinferServer, password: str = PASSWORD) -> httpx.Response:
    return httpx.post(server.url + "token", json={"username": "ann", "password": password})


def ask(server: XinferServer, credential: str, method: str = "GET", route: str = "v1/models") -> httpx.Response:
    return httpx.request(method, server.url + route, headers={"Authorization": f"Bearer {credential}"})


def test_a_login_gives_a_token_that_opens_our_routes_and_none_of_jupyters(server: XinferServer) -> None:
    answer = log_in(server)
    token = answer.json()["access_token"]

    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert "set-cookie" not in answer.headers
    assert ask(server, token).status_code == 200
    assert "set-cookie" not in ask(server, token).headers
    assert ask(server, token, route="api/kernels").status_code == 403


def test_a_wrong_password_is_401_with_the_detail_that_clients_read(server: XinferServer) -> None:
    answer = log_in(server, "wrong")
    assert answer.status_code == 401
    assert "wrong" in answer.json()["detail"]


def test_a_token_is_refreshed_and_ended(server: XinferServer) -> None:
    pair = log_in(server).json()
    fresh = httpx.post(server.url + "v1/auth/refresh", json={"refresh_token": pair["refresh_token"]}).json()
    assert ask(server, fresh["access_token"]).status_code == 200

    assert ask(server, fresh["access_token"], "POST", "v1/auth/logout").status_code == 200
    for token in (pair["access_token"], fresh["access_token"]):
        assert ask(server, token).status_code == 401


def test_a_user_with_only_a_key_has_his_permissions(server: XinferServer) -> None:
    assert ask(server, KEY).status_code == 200
    refused = ask(server, KEY, "DELETE", "v1/models/any")
    assert refused.status_code == 403
    assert "`models:stop`" in refused.json()["detail"]


def test_jupyters_token_opens_everything_though_it_looks_like_a_key(server: XinferServer) -> None:
    assert ask(server, server.token).status_code == 200
    assert ask(server, server.token, route="api/kernels").status_code == 200
    assert ask(server, server.token + "x").status_code == 401


def test_no_secret_is_in_a_log_an_error_a_metric_or_the_process_list(server: XinferServer) -> None:
    server.launch(model_name="xinfer-demo")
    pair = log_in(server).json()
    ask(server, pair["access_token"])
    ask(server, KEY)
    wrong = "sk-xinfer-not-a-key-of-this-server"
    told = [ask(server, wrong).text, log_in(server, wrong).text, ask(server, pair["refresh_token"]).text]
    told.append(httpx.post(server.url + "token", json={"username": "ann", "password": [PASSWORD]}).text)
    metrics = ask(server, JUPYTER_TOKEN, route="metrics")
    assert metrics.status_code == 200
    logs = [path.read_text(errors="replace") for path in server.home.rglob("*.log*")]
    processes = [json.dumps([process.cmdline(), process.environ()]) for process in server.processes()]
    assert ask(server, JUPYTER_TOKEN, "DELETE", "v1/models/xinfer-demo").status_code == 200
    # The cluster's and the replica's are among them.
    assert len(logs) >= 2
    assert len(processes) >= 3
    shown = "\n".join([server.log.read_text(), *logs, metrics.text, *told, *processes])

    for secret in (SECRET, PASSWORD, KEY, wrong, pair["access_token"], pair["refresh_token"]):
        assert secret not in shown


def failed_start(tmp_path: Path, *options: str) -> str:
    """What a server with these options says before it ends."""
    command = [str(Path(sys.executable).with_name("jupyter")), "xinfer", "local", *options]
    folders = {"XINFER_HOME": "home", "JUPYTER_RUNTIME_DIR": "run", "JUPYTER_CONFIG_DIR": "config"}
    env = {name: str(tmp_path / folder) for name, folder in folders.items()}
    done = subprocess.run(
        [*command, "--allow-root", "--port", "0"],
        env={**env, "PATH": str(Path(sys.executable).parent)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
    )

    assert done.returncode == 1
    return done.stderr + done.stdout


def test_a_mistake_in_the_file_ends_the_start_and_names_the_field(tmp_path: Path) -> None:
    said = failed_start(
        tmp_path, "--auth-config", str(write(tmp_path / "auth.json", secret_key="too-short-to-be-safe"))
    )

    assert "`auth_config.secret_key`" in said
    assert "too-short-to-be-safe" not in said


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ('limits={"jupyter": {"tokens_per_day": 0}}', "`tokens_per_day`"),
        ('share_weights={"user:ann": -1.0}', "share_weights['user:ann']"),
        ("model_folders=models", "'models' must be an absolute path"),
    ],
)
def test_options_that_cannot_work_end_the_start_too(tmp_path: Path, option: str, named: str) -> None:
    said = failed_start(tmp_path, f"--XinferApp.{option}")

    assert f"XinferApp.{option.partition('=')[0]}" in said
    assert named in said
    assert "Traceback" not in said


def test_jupyters_users_have_the_limits_of_the_configuration_and_others_have_not(server: XinferServer) -> None:
    server.launch(model_name="xinfer-demo")
    body = {"model": "xinfer-demo", "prompt": "Hello", "max_tokens": 1}
    with server.client() as http:
        assert http.post("v1/completions", json=body).status_code == 200
        refused = http.post("v1/completions", json=body)
        ann = {"Authorization": f"Bearer {log_in(server).json()['access_token']}"}
        assert http.post("v1/completions", json=body, headers=ann).status_code == 200
        assert http.post("v1/completions", json=body, headers=ann).status_code == 200
        assert http.delete("v1/models/xinfer-demo").status_code == 200

    assert refused.status_code == 429
    assert "'owner' is limited to 1 requests a minute" in refused.json()["detail"]
    assert 0 < int(refused.headers["retry-after"]) <= 60


@pytest.mark.parametrize("credential", [KEY, JUPYTER_TOKEN])
def test_a_page_of_an_allowed_origin_may_call(server: XinferServer, credential: str) -> None:
    """CORS is Jupyter's own setting: the preflight, and then the request."""
    asked = {"Origin": PAGE, "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
    preflight = httpx.options(server.url + "v1/models", headers=asked)
    headers = {"Origin": PAGE, "Authorization": f"Bearer {credential}"}
    answer = httpx.get(server.url + "v1/models", headers=headers)
    refused = httpx.get(server.url + "v1/models", headers={"Origin": PAGE})

    assert preflight.status_code in (200, 204)
    assert preflight.headers["access-control-allow-origin"] == PAGE
    assert "authorization" in preflight.headers["access-control-allow-headers"].lower()
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == PAGE
    # So that the page can read why.
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == PAGE


def test_xinferences_client_logs_in(server: XinferServer) -> None:
    client = Client(server.url.rstrip("/"))
    try:
        with pytest.raises(RuntimeError, match="wrong"):
            client.login("ann", "not-the-password")
        with pytest.raises(RuntimeError):
            client.list_models()
        client.login("ann", PASSWORD)
        assert client.list_models() == {}
    finally:
        client.close()


async def test_xinferences_async_client_logs_in(server: XinferServer) -> None:
    client = AsyncClient(server.url.rstrip("/"))
    try:
        await client.login("ann", PASSWORD)
        assert await client.list_models() == {}
    finally:
        await client.close()
